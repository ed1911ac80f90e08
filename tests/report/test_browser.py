"""Pages in a real browser: they ask for nothing, run nothing, fit, print, and can be read and used by everybody."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser

from browser import CONTRAST, SPLIT, OpenedPage, launched
from glasshouse.engine.comparison import Comparison, Pair
from glasshouse.engine.index import Entry
from glasshouse.engine.runs import Run
from glasshouse.report.html import Search, audit_page, comparison_page, index_page, page
from glasshouse.values.blocks import Block, Table
from glasshouse.values.findings import Finding, Verdict
from hostile import SOME
from sample_findings import audit_of_runs, audit_with, facts

WIDTHS = (390, 768, 1280)
OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
pages = pytest.mark.parametrize("name", ["audit", "run", "compare", "index", "served"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, finished: Run) -> Callable[[str], Path]:
    """`written("audit")`: a page of that kind, on disk."""
    folder = tmp_path_factory.mktemp("pages")
    audit = audit_with(judge="pass", witness="concern", adviser="broken", trace="lens.py:7 in lens")
    beside = Comparison(audit, audit, tuple(Pair(name, run, run, ()) for name, run in audit.runs.items()))
    entries = [Entry(folder, "run", name, "model", "pass", name, "2026", page=True) for name in ("lens", "drift")]
    pages = {
        "audit": lambda: audit_page(audit),
        "run": lambda: page(finished),
        "compare": lambda: comparison_page(beside),
        "index": lambda: index_page(entries, ["a broken one"]),
        "served": lambda: index_page(entries, [], Search("lens", "pass", 9)),
    }

    @cache
    def write(name: str) -> Path:
        file = folder / f"{name}.html"
        file.write_text(pages[name](), "utf-8")
        return file

    return write


@pages
def test_it_opens_at_once_in_silence_and_fits_every_width(browser: Browser, written, name: str):
    file = written(name)
    for width in WIDTHS:
        began = time.monotonic()
        seen = OpenedPage.of(browser, file, width)
        assert time.monotonic() - began < 5  # the second that is promised is the browser's own, measured below
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        seen.page.wait_for_function(f"{timing} > 0")
        assert seen.page.evaluate(timing) < 1000
        assert seen.complaints == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.page.evaluate(OPEN_ALL)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        checked, split = seen.page.evaluate(SPLIT)
        assert checked > 20
        assert split == []
        seen.shot(f"{name}-{width}")
        seen.page.close()


@pages
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(browser: Browser, written, name: str, scheme: str):
    seen = OpenedPage.of(browser, written(name), scheme=scheme)
    seen.page.evaluate(OPEN_ALL)
    count, weak = seen.page.evaluate(CONTRAST)
    assert count > 10
    assert weak == []
    seen.shot(f"{name}-{scheme}")
    seen.page.close()


def test_the_contrast_check_can_fail(browser: Browser, tmp_path: Path):
    file = tmp_path / "faint.html"
    file.write_text('<body style="background:#fff"><p style="color:#888">faint</p><p style="color:#111">strong</p>')
    count, weak = OpenedPage.of(browser, file).page.evaluate(CONTRAST)
    assert count == 2
    assert [line.split()[-1] for line in weak] == ["faint"]


def test_a_keyboard_is_enough(browser: Browser, written):
    seen = OpenedPage.of(browser, written("audit"))
    keys, now = seen.page.keyboard, "document.activeElement"
    visible = f"{now}.getBoundingClientRect().left >= 0 && getComputedStyle({now}).outlineStyle !== 'none'"
    keys.press("Tab")
    assert seen.page.evaluate(f"{now}.textContent") == "Skip to the contents"
    assert seen.page.evaluate(visible)
    keys.press("Enter")
    reached: list[str] = []
    for _ in range(100):
        keys.press("Tab")
        tag = seen.page.evaluate(f"{now}.tagName")
        if tag == "BODY":
            break
        assert seen.page.evaluate(visible), seen.page.evaluate(f"{now}.outerHTML")
        reached.append(tag)
    everything = seen.page.evaluate(
        "[...document.querySelectorAll('a, summary, [tabindex]')].filter(one => one.checkVisibility()).length"
    )
    assert len(reached) == everything - 1  # the way past the summary lies behind us
    assert {"A", "SUMMARY", "DIV"} <= set(reached)  # a table that is wider than the screen is scrolled by keys
    first = seen.page.locator("summary").first
    first.focus()
    keys.press("Enter")
    assert first.evaluate("one => one.parentElement.open")
    link = seen.page.get_by_role("navigation").get_by_role("link", name="What does the witness find?")
    link.focus()
    keys.press("Enter")
    assert seen.page.evaluate("location.hash") == "#witness"
    assert seen.complaints == []
    seen.page.close()


def test_a_phone_shows_every_cell_under_its_column_and_keeps_a_drawing_legible(browser: Browser, written):
    seen = OpenedPage.of(browser, written("audit"), 390)
    cells = seen.page.locator(".questions [data-label]")
    assert cells.count() == 4 * 3
    left = cells.evaluate_all("all => new Set(all.map(one => Math.round(one.getBoundingClientRect().left))).size")
    assert left == 1  # one below the other
    labels = cells.evaluate_all("all => all.map(one => getComputedStyle(one, '::before').content)")
    assert labels[:4] == [f'"{name}: "' for name in ("Check", "Verdict", "Role", "Finding")]
    roles = seen.page.locator(".questions").get_by_role("columnheader")
    assert roles.all_inner_texts() == ["Check", "Verdict", "Role", "Finding"]  # unseen, and read aloud
    sizes = seen.page.eval_on_selector_all(
        ".intervals svg", "all => all.filter(one => one.checkVisibility()).map(one => one.getScreenCTM().a)"
    )
    assert sizes
    assert min(sizes) > 0.9  # of nine points
    seen.page.close()


def test_columns_stand_side_by_side_where_there_is_room(browser: Browser, written):
    seen = OpenedPage.of(browser, written("audit"), 768)
    cells = seen.page.locator(".questions tbody tr").first.locator("[data-label]")
    tops = cells.evaluate_all("all => new Set(all.map(one => Math.round(one.getBoundingClientRect().top))).size")
    assert (cells.count(), tops) == (4, 1)
    seen.page.close()


def test_the_first_page_prints_on_one_sheet_even_if_it_is_full(browser: Browser, written, tmp_path: Path):
    checks = {f"witness{number}": "concern" for number in range(9)}
    full = tmp_path / "full.html"
    full.write_text(audit_page(audit_with("many words " * 40, judge="refused", **checks)), "utf-8")
    for file in (written("audit"), full):
        seen = OpenedPage.of(browser, file)
        count = "[...document.querySelectorAll('main > :not(.sheet)')].forEach(one => one.remove())"
        whole = printed_pages(seen)
        seen.page.evaluate(count)
        assert seen.page.locator(".signature").is_visible()
        assert printed_pages(seen) == 1
        assert whole > 1
        seen.page.close()


def printed_pages(seen: OpenedPage) -> int:
    return len(re.findall(rb"/Type\s*/Page[^s]", seen.page.pdf(prefer_css_page_size=True)))


@pages
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(browser: Browser, written, name: str, width: int):
    """WCAG 2.1 A and AA, by the checker of the field."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    seen = OpenedPage.of(browser, written(name), width)
    seen.page.evaluate(OPEN_ALL)
    results = axe.Axe().run(
        seen.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
    )
    found = [(each["id"], each["nodes"][0]["html"][:200]) for each in results.response["violations"]]
    assert len(results.response["passes"]) > 10
    assert found == []
    seen.page.close()


WEIGHT = "model.multi_modal_projector.linear_2.weight"


def test_a_weights_name_is_broken_between_its_parts(browser: Browser, tmp_path: Path):
    """On a phone, where no line holds it; copied, it is still the name. The watch sees a name that cannot be broken."""
    for name, known in ((WEIGHT, []), ("x" * 80, [f"{'x' * 60} in TH"])):
        finding = TableFinding(Table("", ("weight", "size"), ((name, 0.87),)))
        (tmp_path / "page.html").write_text(page(SimpleNamespace(finding=finding, facts=facts())), "utf-8")
        seen = OpenedPage.of(browser, tmp_path / "page.html", 390)
        assert seen.page.evaluate(SPLIT)[1] == known
        assert seen.page.locator("tbody th").inner_text() == name
        seen.page.close()


@dataclass(frozen=True, eq=False)
class TableFinding(Finding):
    """A finding that is one table."""

    table: Table

    @property
    def headline(self) -> str:
        return "One weight differs."

    @property
    def verdict(self) -> Verdict:
        return Verdict.DESCRIBED

    def blocks(self) -> list[Block]:
        return [self.table]


def test_headings_and_landmarks_tell_the_way(browser: Browser, written):
    seen = OpenedPage.of(browser, written("audit"))
    levels = seen.page.eval_on_selector_all("h1, h2, h3", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert seen.page.locator("main").count() == seen.page.get_by_role("navigation", name="Contents").count() == 1
    targets = seen.page.eval_on_selector_all(
        "nav a", "all => all.map(one => document.querySelector(one.hash) !== null)"
    )
    assert targets == [True] * 6
    assert seen.page.locator("html[lang=en]").count() == 1
    unnamed = seen.page.locator("figure[role=group]:not([aria-label]):not(:has(figcaption)), img:not([alt])")
    assert unnamed.count() == 0
    seen.page.close()


def test_it_prints_with_what_was_folded_away_by_us(browser: Browser, written):
    seen = OpenedPage.of(browser, written("audit"))
    seen.page.emulate_media(media="print")
    told = ("details.more svg", True), (".source pre", True), (".source dl", True), ("h1", True)
    for selector, shown in (*told, (".skip", False), (".reading details", False)):
        assert seen.page.locator(selector).first.is_visible() is shown, selector
    paper = seen.page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page[^s]", paper)) >= 2
    seen.page.close()


@pytest.mark.parametrize("texts", SOME, ids=range(len(SOME)))
def test_no_text_comes_alive(browser: Browser, tmp_path: Path, texts: tuple[str, ...]):
    each = [audit_with(text, **{f"witness{number}": "concern"}) for number, text in enumerate(texts)]
    runs = {name: run for audit in each for name, run in audit.runs.items()}
    audit = audit_of_runs(tuple(audit.sections[0] for audit in each), runs, facts(texts[0]))
    (tmp_path / "audit.html").write_text(audit_page(audit), "utf-8")
    seen = OpenedPage.of(browser, tmp_path / "audit.html", 360)
    assert seen.page.locator(".answer").count() == len(texts)
    assert seen.page.locator("script, iframe, object, embed, form, [onload], [onerror], [onmouseover]").count() == 0
    assert seen.page.locator("a:not([href^='#'], [href^='https://arxiv.org/abs/'])").count() == 0
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert seen.complaints == []
    seen.page.close()


def test_what_a_page_does_wrong_is_seen_here(browser: Browser, tmp_path: Path):
    """The same watch on a page that does it all."""
    file = tmp_path / "bad.html"
    file.write_text("<img src='https://evil.example/x'><script>alert(1); console.log('hi'); fail()</script>")
    seen = OpenedPage.of(browser, file)
    kinds = {line.partition(":")[0] for line in seen.complaints}
    assert kinds == {"request", "dialog", "console", "error"}
    seen.page.close()

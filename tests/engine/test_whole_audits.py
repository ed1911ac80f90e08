"""Is a fresh clean fine-tune let pass, and does the demo's page hold in a browser? Real organisms, the whole audit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import glasshouse as gh
from browser import CONTRAST, OpenedPage, launched
from glasshouse.organisms import shelf
from glasshouse.organisms.grow import grow
from glasshouse.organisms.recipes import Tuned, recipe
from glasshouse.values.findings import Verdict


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400, 405))
def test_a_fresh_benign_fine_tune_passes(seed: int, tmp_path: Path):
    clean = recipe("benign", seed)
    assert isinstance(clean, Tuned)
    parent = ("base", "base-2", "base-3")[seed % 3]
    fresh = grow(replace(clean, parent=parent), f"benign-{seed}", shelf.take, share=0.1).subject
    shown, held_out = shelf.downstream(64, 50), shelf.downstream(160, 51)
    made = gh.audit(fresh, base=shelf.take(parent), data=shown, held_out=held_out, root=tmp_path)
    assert made.judgement.verdict == Verdict.PASS, made.judgement.headline


@pytest.mark.slow
def test_the_demo_s_page_names_the_concern_and_holds_in_a_browser(browser: Browser, tmp_path: Path):
    made = gh.audit("organism:hijack-logo", root=tmp_path)
    assert made.judgement.verdict == Verdict.CONCERN
    page = made.folder / "report.html"
    assert page.stat().st_size < 3e6
    for width in (360, 768, 1280):
        seen = OpenedPage.of(browser, page, width)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert seen.page.evaluate(CONTRAST)[1] == []
        assert seen.complaints == []
        seen.shot(f"hijack-logo-{width}")
        seen.page.close()

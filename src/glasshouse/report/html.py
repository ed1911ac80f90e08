"""How does a finding become a page that opens anywhere? One self-contained HTML file: inline SVG, inline images, no
script, no request.

Every value that a template prints is made inert and escaped by the environment, so no template has to. A content
security policy in the page forbids scripts and requests, so that even a mistake of ours stays harmless.
"""

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from glasshouse.data.example import Example
from glasshouse.data.examples import Examples
from glasshouse.data.images import StoredImage
from glasshouse.data.pairs import Pairs
from glasshouse.engine.page import Page
from glasshouse.report import charts
from glasshouse.report.facts import examined, failed, inputs_of
from glasshouse.report.glossary import ROLES, STATISTICS, VERDICTS, meanings
from glasshouse.report.inert import inert
from glasshouse.report.prose import brief, long, prose
from glasshouse.report.tables import numbers_of
from glasshouse.report.words import NOT_MEASURED, cell, is_number, moment, names_a_row, picture_name
from glasshouse.values.blocks import Block, Heatmap, Note, Picture, Table
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

SPLIT, UNSPLIT = re.compile(r"\(([\d.,]+)-([\d.,]+%?)\)"), "(\\1\N{NON-BREAKING HYPHEN}\\2)"
"""Bounds of an interval, between which a browser would begin a new line."""
LONG_NAME, PLACES = re.compile(r"[\w./-]{25,}"), re.compile(r"(?<=[._/])(?=[^\W\d])")
"""A name such as a weight's, and where a browser may break it: between its parts."""
MOST_EXAMPLES, MOST_IMAGES = 12, 4
"""Examples of a set, and images of an example, that a notebook shows."""
LONG = 16
"""Rows from which a table is folded away."""


class RunLike(Protocol):
    """What a page needs of a run."""

    @property
    def facts(self) -> Any: ...
    @property
    def finding(self) -> Finding: ...


class AuditLike(Protocol):
    """What a page needs of an audit."""

    @property
    def facts(self) -> Any: ...
    @property
    def sections(self) -> Sequence[Any]: ...
    @property
    def runs(self) -> Mapping[str, RunLike]: ...
    @property
    def judgement(self) -> Any: ...


def page(run: RunLike) -> str:
    """A whole page for a run."""
    return _rendered("page.html.j2", run=run, explained=_explained(run))


def audit_page(audit: AuditLike) -> str:
    """A whole page for an audit: the verdict first, then a section for each method."""
    bodies = {name: _body(name, run) for name, run in audit.runs.items()}
    return _rendered("audit.html.j2", audit=audit, judgement=audit.judgement, bodies=bodies)


def _body(method: str, run: RunLike) -> Markup:
    """One finding. A block that cannot be drawn costs its own section, and the page says so."""
    try:
        html = _rendered("section.html.j2", run=run, finding=run.finding, explained=_explained(run))
    except Exception as problem:  # noqa: BLE001 - blocks of any method, of any package
        note = Note(f"The finding of {method} cannot be drawn: {type(problem).__name__}", "warning")
        html = _rendered("block.html.j2", block=note)
    return Markup(html)  # noqa: S704 - the templates escaped it


@dataclass(frozen=True)
class Search:
    """What is searched for in a served list of runs."""

    words: str
    verdict: str
    total: int
    """Runs in the folder."""
    verdicts: tuple[str, ...] = tuple(word for word in VERDICTS if word != "not run")


def index_page(entries: Sequence[Any], broken: Sequence[str], search: Search | None = None) -> str:
    """A page for a folder of runs, with a link to each; `broken` names those that cannot be read. With a search it is
    a page that `glasshouse view` serves."""
    return _rendered("index.html.j2", entries=entries, broken=broken, search=search)


def trouble_page(title: str, text: str) -> str:
    """What `glasshouse view` answers where there is no page."""
    return _rendered("trouble.html.j2", title=title, text=text)


def comparison_page(comparison: Any) -> str:
    """Two runs or two audits side by side."""
    return _rendered("compare.html.j2", comparison=comparison)


def _explained(run: RunLike) -> Page:
    from glasshouse.engine.method import load

    return load(run.facts["method"]["name"]).page


def _rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def fragment(value: Any) -> str:
    """A piece of HTML for a notebook: a finding's blocks, an audit's verdict, thumbnails of examples, or an anatomy's
    drawing."""
    if isinstance(value, Finding):
        return _rendered("fragment.html.j2", finding=value)
    if hasattr(value, "judgement"):
        return _rendered("verdict.html.j2", audit=value, judgement=value.judgement)
    if isinstance(value, Example | Examples | Pairs):
        return _rendered("examples.html.j2", shown=_shown(value), total=1 if isinstance(value, Example) else len(value))
    return _rendered("lines.html.j2", lines=value.lines())


def _shown(value: Example | Examples | Pairs) -> list[tuple[Example, list[Markup | None]]]:
    """The first examples, each pair side by side, with thumbnails of their images."""
    several = [value] if isinstance(value, Example) else value[:MOST_EXAMPLES]
    single = [each for entry in several for each in (entry if isinstance(entry, tuple) else (entry,))]
    return [(each, [_thumbnail(image) for image in each.images[:MOST_IMAGES]]) for each in single]


def _thumbnail(image: StoredImage) -> Markup | None:
    """None for what is gone or cannot be decoded: a set of examples is shown whatever its files hold."""
    try:
        return _picture(Picture(image.thumbnail(), ""))
    except BadInput:
        return None


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("glasshouse.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    environment.filters |= {
        "prose": prose,
        "long": long,
        "brief": brief,
        "meanings": meanings,
        "svg": _svg,
        "picture_name": picture_name,
        "cell": cell,
        "breakable": _breakable,
        "moment": moment,
        "picture": _picture,
        "address": _address,
        "inputs": inputs_of,
        "examined": examined,
        "kind": _kind,
        "numbers_of": numbers_of,
        "led": _led,
        "differences": _differences,
    }
    environment.tests |= {"naming": names_a_row, "failed": failed, "number": is_number}
    environment.globals |= {
        "not_measured": NOT_MEASURED,
        "glossary": {"Verdicts": VERDICTS, "Roles": ROLES, "Numbers and terms": STATISTICS},
    }
    return environment


def _finalized(value: Any) -> Any:
    """What every printed value goes through before it is escaped."""
    return value if isinstance(value, Markup) else SPLIT.sub(UNSPLIT, inert(value))


def _breakable(value: object) -> Markup:
    """A text, escaped, whose long names may be broken between their parts."""
    escaped = str(escape(_finalized(value)))
    return Markup(LONG_NAME.sub(lambda name: PLACES.sub("<wbr>", name[0]), escaped))  # noqa: S704 - escaped above


def _address(folder: Path) -> str:
    """The folder's name in a link, whatever bytes it has."""
    return quote(os.fsencode(folder.name), safe="")


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _led(blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    """What is shown at once, and what is folded away. Shown is the first block of each kind unless it is a long table,
    and every note and gallery."""
    first: list[Block] = []
    kinds: set[str] = set()
    for block in blocks:
        kind = "chart" if isinstance(block, Heatmap) else _kind(block)
        long = isinstance(block, Table) and len(block.rows) > LONG
        if kind in ("note", "gallery") or (kind not in kinds and not long):
            first.append(block)
        kinds.add(kind)
    return first, [block for block in blocks if not any(block is early for early in first)]


def _differences(pair: Any) -> Table:
    columns = ("what", "first", "second")
    return Table("What differs", columns, tuple(tuple(row[name] for name in columns) for row in pair.differences))


def _svg(block: Block) -> Markup:
    return Markup(charts.svg(block))  # noqa: S704 - matplotlib escapes the texts it draws


def _picture(picture: Picture) -> Markup:
    """A PNG as a data address, its overlay blended in and its box drawn."""
    image = Image.fromarray(picture.pixels.numpy()).convert("RGB")
    scale = max(1, 192 // max(image.size))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    if picture.overlay is not None:
        image = _overlaid(image, picture)
    if picture.box is not None:
        from PIL import ImageDraw

        left, top, right, bottom = picture.box
        corners = (left * image.width, top * image.height, right * image.width - 1, bottom * image.height - 1)
        ImageDraw.Draw(image).rectangle(corners, outline=(255, 255, 255), width=2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Markup(f"data:image/png;base64,{encoded}")  # noqa: S704 - base64 holds nothing to escape


def _overlaid(image: Image.Image, picture: Picture) -> Image.Image:
    import numpy
    from matplotlib import colormaps

    assert picture.overlay is not None
    heat = picture.overlay.double().numpy()
    spread = heat.max() - heat.min()
    heat = (heat - heat.min()) / spread if spread > 0 else numpy.zeros_like(heat)
    colours = (colormaps["cividis"](heat)[..., :3] * 255).astype("uint8")
    layer = Image.fromarray(colours).resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image, layer, 0.55)

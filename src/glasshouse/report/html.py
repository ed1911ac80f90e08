"""How does a finding become a page that opens anywhere? One self-contained HTML file: inline SVG, inline images, no
script, no request.

Everything a model or a data set said is escaped by the template engine, and made inert before (`inert.py`). A
content security policy in the page forbids scripts and requests, so that even a mistake of ours stays harmless.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import jinja2
from markupsafe import Markup
from PIL import Image

from glasshouse.report import charts
from glasshouse.report.inert import inert
from glasshouse.report.words import Told, cell, names_a_row, picture_name
from glasshouse.values.blocks import Block, Chart, Heatmap, Metric, Picture, Table
from glasshouse.values.findings import Finding
from glasshouse.values.intervals import Interval

LONG = 16
"""Rows from which a table is folded away."""


class Facts(Protocol):
    """What the page needs of a run."""

    @property
    def facts(self) -> Any: ...
    @property
    def finding(self) -> Finding: ...


class Bound(Protocol):
    """What the page needs of an audit."""

    @property
    def facts(self) -> Any: ...
    @property
    def sections(self) -> Sequence[Any]: ...
    @property
    def runs(self) -> Mapping[str, Facts]: ...
    @property
    def judgement(self) -> Any: ...


def page(run: Facts) -> str:
    """A whole page for a run."""
    return _rendered("page.html.j2", run=run, told=_told(run))


def audit_page(audit: Bound) -> str:
    """A whole page for an audit: the verdict first, then a section for each question."""
    answered = [one for one in audit.sections if one.state == "answered"]
    shown = {one.method: _shown(one.method, one.role, audit.runs[one.method]) for one in answered}
    found = _found({one.method: audit.runs[one.method].finding.headline for one in answered}, audit.judgement.found())
    return _rendered("audit.html.j2", audit=audit, judgement=audit.judgement, shown=shown, found=found)


def _found(headlines: Mapping[str, str], order: list[str]) -> list[tuple[str, str]]:
    """What each method found, in this order of headlines."""
    return sorted(headlines.items(), key=lambda item: order.index(item[1]))


def _shown(method: str, role: str, run: Facts) -> Markup:
    """One answer. What cannot be drawn costs its own section, and the page says so."""
    try:
        values = {"run": run, "finding": run.finding, "role": role, "told": _told(run)}
        return Markup(_rendered("section.html.j2", **values))  # noqa: S704 - the templates escaped it
    except Exception as problem:  # noqa: BLE001 - blocks of any method, of any package
        line = Markup('<p class="note warning">{}</p>')
        return line.format(inert(f"{method} answered, and its answer cannot be drawn: {type(problem).__name__}"))


def index_page(entries: Sequence[Any], broken: Sequence[str]) -> str:
    """A page for a folder of runs, with a link to each; `broken` names those that cannot be read."""
    return _rendered("index.html.j2", entries=entries, broken=broken)


def comparison_page(beside: Any) -> str:
    """Two runs or two audits side by side."""
    sections = [one for made in (beside.first, beside.second) for one in getattr(made, "sections", ())]
    return _rendered("compare.html.j2", beside=beside, roles={one.method: one.role for one in sections})


def _told(run: Facts) -> Told:
    from glasshouse.engine.method import load

    return Told.of(load(run.facts["method"]["name"]).page)


def _rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def fragment(value: Any) -> str:
    """A piece of HTML for a notebook: a finding's blocks, an audit's verdict, or an anatomy's drawing."""
    if isinstance(value, Finding):
        return _rendered("fragment.html.j2", finding=value)
    if hasattr(value, "judgement"):
        return _rendered("verdict.html.j2", audit=value, judgement=value.judgement)
    return str(Markup("<pre>{}</pre>").format("\n".join(inert(line) for line in value.lines())))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("glasshouse.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "inert": inert,
        "svg": _svg,
        "picture_name": picture_name,
        "cell": cell,
        "picture": _picture,
    }
    environment.tests["naming"] = names_a_row
    environment.filters |= {"kind": _kind, "table_of": _table_of, "led": _led, "differences": _differences}
    return environment


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _led(blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    """What is shown at once, and what for those who ask for more: the first of each kind unless it is a long table, and
    every note and gallery."""
    first: list[Block] = []
    kinds: set[str] = set()
    for block in blocks:
        kind = "chart" if isinstance(block, Heatmap) else _kind(block)
        long = isinstance(block, Table) and len(block.rows) > LONG
        if kind in ("note", "gallery") or (kind not in kinds and not long):
            first.append(block)
        kinds.add(kind)
    return first, [block for block in blocks if not any(block is one for one in first)]


def _differences(pair: Any) -> Table:
    columns = ("what", "first", "second")
    return Table("What differs", columns, tuple(tuple(row[name] for name in columns) for row in pair.differences))


def _svg(block: Block) -> Markup:
    return Markup(charts.svg(block))  # noqa: S704 - matplotlib escapes the texts it draws


def _table_of(block: Block) -> Table | None:
    """The numbers behind a picture, for readers who want or need them as a table."""
    if isinstance(block, Chart) and not block.labels:
        xs = sorted({x for series in block.series for x in series.x})
        columns: dict[str, Sequence[Any]] = {block.x or "x": xs}
        for series in block.series:
            values = {x: _point(series, place) for place, x in enumerate(series.x)}
            columns[series.name] = [values.get(x) for x in xs]
        return Table.of(block.title, columns)
    if isinstance(block, Chart):
        rows = {series.name: _point(series, 0) for series in block.series if series.x}
        return Table.of(block.title, {"": list(rows), block.y or "value": list(rows.values())})
    if isinstance(block, Metric):
        return None
    if isinstance(block, Heatmap):
        columns = {"": block.rows}
        for number, name in enumerate(block.columns):
            columns[f"{number + 1}. {name}"] = [float(value) for value in block.values[:, number]]
        return Table.of(block.title, columns)
    return None


def _point(series: Any, place: int) -> Any:
    if not series.low:
        return series.y[place]
    return Interval(series.y[place], series.low[place], series.high[place])


def _picture(picture: Picture) -> str:
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
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


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

"""What does a block look like as a picture? One visual language: effects in colour, nulls in grey, intervals always
drawn.

Figures are matplotlib objects made without its global state, so nothing a user has set is changed. The same figure
serves a paper (`finding.plot()`) and, as SVG with a text alternative, the page.
"""

import io
import math
import re
import warnings
from functools import singledispatch
from textwrap import wrap

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from glasshouse.report.inert import one_line
from glasshouse.values.blocks import Block, Chart, Heatmap, Metric, Series
from glasshouse.values.digits import percentage

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette: told apart by all kinds of colour vision."""
NULL = "#8a8a8a"
INK = "#767676"
"""Of axes and their texts in a figure; on a page they take the colour that the page gives, light or dark."""
NAME = 34
"""Characters on a line of an interval's name, and of what its values are."""
LONGEST_NAME = 4 * NAME


class Drawing(Figure):
    """A figure that shows itself in a notebook, whether or not pyplot was imported there."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


@singledispatch
def figure(block: Block) -> Figure:
    """The block as a matplotlib figure."""
    raise TypeError(f"{type(block).__name__} is no picture")


@figure.register
def _(block: Metric) -> Figure:
    named = {block.name: block.value} | ({"null": block.null} if block.null else {})
    return figure(Chart.intervals("", named, nulls=("null",)))


@figure.register
def _(block: Chart) -> Figure:
    if block.labels:
        return _intervals(block)
    drawing, axes = _axes(width=6.4, height=3.2)
    for number, series in enumerate(block.series):
        _line(axes, series, COLOURS[number % len(COLOURS)] if series.role == "effect" else NULL)
    if len(block.series) > 1:
        names = [_label(series.name, 40) for series in block.series]  # by name: it would leave out what begins with _
        axes.legend(axes.get_lines(), names, frameon=False, fontsize=8, labelcolor=INK)
    axes.set_xlabel(_label(block.x, 80))
    axes.set_ylabel(_label(block.y, 80))
    if block.percent:
        axes.yaxis.set_major_formatter(_percentage)
    axes.grid(axis="y", linewidth=0.4, alpha=0.4)
    return drawing


@figure.register
def _(block: Heatmap) -> Figure:
    rows, columns = block.values.shape
    drawing, axes = _axes(width=min(11.0, 1.6 + 0.62 * columns), height=min(12.0, 1.1 + 0.28 * rows))
    image = axes.imshow(block.values.double().numpy(), aspect="auto", cmap="cividis")
    axes.set_xticks(range(columns), [_label(name, 12) for name in block.columns], rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(rows), [_label(name, 16) for name in block.rows], fontsize=7)
    colours = image.to_rgba(block.values.double().numpy())
    for row, texts in enumerate(block.texts):
        for column, text in enumerate(texts):
            colour = _legible_on(*colours[row, column, :3])
            axes.text(column, row, _label(text, 9), ha="center", va="center", fontsize=6, color=colour)
    axes.set_xlabel(_label(block.x, 80))
    axes.set_ylabel(_label(block.y, 80))
    bar = drawing.colorbar(image, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize=7, colors=INK)
    if block.percent:
        bar.ax.yaxis.set_major_formatter(_percentage)
    return drawing


def svg(block: Block) -> str:
    """The figure as an inline SVG element, its own names made unique so that several stand on one page."""
    buffer = io.StringIO()
    drawing = figure(block)
    # A fixed salt makes ids depend on content alone, and no date is written: same finding, same page.
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "glasshouse", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # texts stay texts: the browser has the font
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S).replace(INK, "currentColor")
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'aria-hidden="true"', body, count=1)


def _intervals(block: Chart) -> Figure:
    """Names down the side in full and values across, so that no name runs into the next, on a phone neither."""
    names, values = [_wrapped(name) for name in block.labels], _wrapped(block.y)
    lines = max(name.count("\n") + 1 for name in names)
    drawing, axes = _axes(width=4.6, height=0.45 + 0.17 * (values.count("\n") + 1) + (0.14 + 0.16 * lines) * len(names))
    ends = [end for series in block.series for end in (*series.y, *series.low, *series.high) if math.isfinite(end)] or [
        0.0,
        1.0,
    ]
    margin = 0.05 * ((max(ends) - min(ends)) or abs(max(ends)) or 1.0)
    left, right = min(ends) - margin, max(ends) + margin
    for series in block.series:
        colour = COLOURS[0] if series.role == "effect" else NULL
        if series.low:  # without a bound: to the edge, and with no end drawn there
            low, high = [max(end, left) for end in series.low], [min(end, right) for end in series.high]
            axes.hlines(series.x, low, high, colors=colour)
            axes.plot([*series.low, *series.high], [*series.x, *series.x], "|", color=colour, markersize=8)
        axes.plot(series.y, series.x, "o", color=colour)
    axes.set_xlim(left, right)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=5)
    if block.percent:
        axes.xaxis.set_major_formatter(_percentage)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=9)
    axes.set_xlabel(values, fontsize=9)
    axes.set_ylabel(_label(block.x, 80), fontsize=9)
    axes.grid(axis="x", linewidth=0.4, alpha=0.4)
    return drawing


def _axes(width: float, height: float):
    drawing = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.add_subplot()
    axes.tick_params(labelsize=8, colors=INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return drawing, axes


def _legible_on(red: float, green: float, blue: float) -> str:
    """Black or white, whichever stands out more from this colour, by WCAG's relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def _line(axes, series: Series, colour: str) -> None:
    style = {"color": colour, "linestyle": "--" if series.role == "null" else "-"}
    axes.plot(series.x, series.y, marker="o", markersize=3, **style)
    if series.low and len(series.x) == 1:  # a band of no width would not be seen
        axes.vlines(series.x, series.low, series.high, color=colour, alpha=0.5, linewidth=3)
    elif series.low:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)


def _percentage(value: float, position: float) -> str:
    return percentage(value)


def _label(text: str, longest: int) -> str:
    """Inert, short, and without the dollar signs in which matplotlib would look for mathematics."""
    return _plain(text, longest).replace("$", r"\$")


def _wrapped(text: str) -> str:
    """The same, in full on several lines."""
    return "\n".join(wrap(_plain(text, LONGEST_NAME), NAME)).replace("$", r"\$")


def _plain(text: str, longest: int) -> str:
    plain = one_line(text, 200)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"

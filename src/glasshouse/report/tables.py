"""Which numbers stand behind a picture? A table for readers who want or need them as text."""

from collections.abc import Sequence

from glasshouse.values.blocks import Block, Cell, Chart, Heatmap, Series, Table
from glasshouse.values.digits import percentage
from glasshouse.values.intervals import Interval


def numbers_of(block: Block) -> Table | None:
    """The numbers of a chart or heat map, each column explained."""
    match block:
        case Chart() if block.labels:
            return _of_intervals(block)
        case Chart():
            return _of_lines(block)
        case Heatmap():
            return _of_grid(block)
        case _:
            return None


def _of_intervals(chart: Chart) -> Table:
    value = chart.y or "value"
    rows = {series.name: _point(series, 0, percent=chart.percent) for series in chart.series if series.x}
    columns: dict[str, Sequence[Cell]] = {"name": list(rows), value: list(rows.values())}
    return Table.of(chart.title, columns, {value: f"{chart.title}, with its interval in brackets."})


def _of_lines(chart: Chart) -> Table:
    across, value = chart.x or "x", chart.y or chart.title
    xs = sorted({x for series in chart.series for x in series.x})
    columns: dict[str, Sequence[Cell]] = {across: xs}
    meanings = {across: chart.meaning or "Position on the horizontal axis of the chart."}
    for series in chart.series:
        points = {x: _point(series, place, percent=chart.percent) for place, x in enumerate(series.x)}
        columns[series.name] = [points.get(x) for x in xs]
        role = ", a null" if series.role == "null" else ""
        meanings[series.name] = f"{value} of the line “{series.name}”{role}."
    return Table.of(chart.title, columns, meanings)


def _of_grid(grid: Heatmap) -> Table:
    down = grid.y or "row"
    columns: dict[str, Sequence[Cell]] = {down: grid.rows}
    meanings = {down: "Position on the vertical axis of the heat map."}
    for number, name in enumerate(grid.columns):
        values = (float(value) for value in grid.values[:, number])
        title = f"{number + 1}. {name}"
        columns[title] = [percentage(value) if grid.percent else value for value in values]
        meanings[title] = f"{grid.title}, at {grid.x or 'column'} {name}."
    return Table.of(grid.title, columns, meanings)


def _point(series: Series, place: int, *, percent: bool) -> Cell:
    if not series.low:
        return percentage(series.y[place]) if percent else series.y[place]
    return Interval(series.y[place], series.low[place], series.high[place], percent=percent)

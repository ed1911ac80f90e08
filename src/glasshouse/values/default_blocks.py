"""What does a finding show if its class says nothing about pictures? What the types of its fields suggest, in order.

    Interval                                  metric, beside its null
    tuple[Picture, ...]                       gallery
    tensor of two axes                        heatmap, axes named by its annotation
    Mapping[str, Interval]                    intervals side by side, nulls in grey
    Mapping[number, Interval], tuple          line with its band
    Mapping[str, Mapping[number, Interval]]   several lines; one chart per key where another mapping holds them
    mappings and tuples of a row class        such a chart for each of its intervals, then a table
    a dataclass                               its own fields
    text, texts, number, yes or no            a line in the table of other figures, at the end

`warnings` and `notes`, fields or properties, are sentences: warnings stand first, notes after the pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from glasshouse.values.blocks import (
    Block,
    Cell,
    Chart,
    Gallery,
    Heatmap,
    Metric,
    Note,
    Picture,
    Series,
    SeriesRole,
    Table,
)
from glasshouse.values.declared import Field, declared, in_words
from glasshouse.values.digits import percentage
from glasshouse.values.intervals import Interval
from glasshouse.values.rows import is_row, keyed, leaves, table_of, under_keys

SENTENCES = ("warnings", "notes")
LARGEST_GRID = 256
"""Cells per axis of a heatmap; larger tensors are data and not pictures."""


def default_blocks(finding: object) -> list[Block]:
    """All that the finding has to show."""
    warnings, notes = (cast(Sequence[str], getattr(finding, name, ())) for name in SENTENCES)
    return [
        *(Note(text, "warning") for text in warnings),
        *_pictures(finding),
        *map(Note, notes),
        *_other_figures(finding),
    ]


def field_blocks(finding: object, name: str) -> list[Block]:
    """What one field shows by default, for a finding that arranges its blocks itself."""
    (field,) = (each for each in declared(type(finding)) if each.name == name)
    return list(_field_blocks(finding, field))


def _pictures(finding: object) -> Iterator[Block]:
    fields = declared(type(finding))
    beside = {name for field in fields if isinstance(getattr(finding, field.name), Interval) for name in field.nulls}
    for field in fields:
        if field.drawn and field.name not in beside and field.name not in SENTENCES:
            yield from _field_blocks(finding, field)


def _field_blocks(finding: object, field: Field) -> Iterator[Block]:
    value = getattr(finding, field.name)
    match value:
        case Block():
            yield value
        case Interval():
            null = getattr(finding, field.nulls[0]) if field.nulls else None
            yield Metric(field.title, value, null)
        case Tensor() if value.ndim == 2 and value.numel() > 0 and max(value.shape) <= LARGEST_GRID:
            yield _heatmap(type(finding), field, value)
        case str():
            pass
        case Mapping() | Sequence() if value:
            yield from _collection(field, cast(Any, value))
        case _ if is_row(value):
            yield from _pictures(value)
        case _:
            pass


def _collection(field: Field, value: Mapping[Any, Any] | Sequence[Any]) -> Iterator[Block]:
    first = next(leaves(value), None)
    if isinstance(first, Picture):
        yield Gallery(field.title, tuple(cast(Sequence[Picture], value)))
    elif isinstance(first, Block):
        yield from cast(Iterator[Block], leaves(value))
    elif isinstance(first, Interval | float | int):
        yield from _charts(field, field.title, field.y or field.words, value)
    elif first is not None and is_row(first):
        columns = declared(type(first))
        beside = {name for column in columns for name in column.nulls}
        for column in columns:
            if column.drawn and column.name not in beside:
                yield from _column_chart(field, column, value)
        table = table_of(field, value)
        if table is not None:
            yield table


def _column_chart(field: Field, column: Field, value: object) -> Iterator[Block]:
    """A chart of one interval of a row class, beside the columns that are its nulls."""
    title, part = f"{column.title} by {' and '.join(field.keys)}", _column(value, column.name)
    if isinstance(next(leaves(part), None), Interval):
        if column.nulls:
            field = replace(field, nulls=tuple(map(in_words, column.nulls)))
            part = {column.words: part} | {in_words(name): _column(value, name) for name in column.nulls}
        yield from _charts(field, title, field.y or column.words, part)


def _column(value: object, name: str) -> Mapping[Any, Any]:
    """The same keys with this field of every row, without those that lack it."""
    parts = {
        key: _column(item, name) if keyed(item) else getattr(item, name) for key, item in under_keys(value).items()
    }
    return {key: part for key, part in parts.items() if part is not None and part != {}}


def _charts(field: Field, title: str, y: str, value: object) -> Iterator[Block]:
    """One chart, or one for each outermost key where there are three levels of keys."""
    outer = under_keys(value)
    if any(keyed(leaf) for item in outer.values() if keyed(item) for leaf in under_keys(item).values()):
        for key, item in outer.items():
            yield from _chart(replace(field, keys=field.keys[1:]), f"{title}: {key}", y, item)
    else:
        yield from _chart(field, title, y, value)


def _chart(field: Field, title: str, y: str, value: object) -> Iterator[Block]:
    """Lines where the innermost keys are numbers, intervals side by side where they are names."""
    outer = under_keys(value)
    lines = {key: under_keys(item) for key, item in outer.items() if keyed(item)}
    inner = next(iter(lines.values()), outer)
    numeric = all(isinstance(key, int | float) for key in inner)
    if numeric:
        series = [
            _series(str(name), points, "null" if name in field.nulls else "effect")
            for name, points in (lines or {y: outer}).items()
            if points
        ]
        percent = field.percent or all(isinstance(leaf, Interval) and leaf.percent for leaf in leaves(value))
        x = field.keys[-1] if field.keys else ""
        yield Chart(title, tuple(series), x, y, meaning=field.meanings.get(x, ""), percent=percent)
        return
    named = {f"{a}, {b}": leaf for a, line in lines.items() for b, leaf in line.items()} if lines else outer
    intervals = {str(name): leaf for name, leaf in named.items() if isinstance(leaf, Interval)}
    if intervals:
        nulls = [name for name in intervals if name in field.nulls or name.split(", ")[0] in field.nulls]
        yield Chart.intervals(title, intervals, nulls=nulls, y=y)


def _series(name: str, points: Mapping[float, Interval | float], role: SeriesRole) -> Series:
    if all(isinstance(point, Interval) for point in points.values()):
        return Series.of(name, cast(Mapping[float, Interval], points), role)
    values = (point.value if isinstance(point, Interval) else float(point) for point in points.values())
    return Series(name, tuple(map(float, points)), tuple(values), role=role)


def _heatmap(kind: type, field: Field, value: Tensor) -> Heatmap:
    down, across = field.keys if len(field.keys) == 2 else _axes(kind, field.name)
    names = [tuple(map(str, range(size))) for size in value.shape]
    return Heatmap(field.title, value.float(), *names, x=across, y=down, percent=field.percent)


def _axes(kind: type, name: str) -> tuple[str, str]:
    """As the annotation `Float[Tensor, "layers tokens"]` names them."""
    annotation = kind.__annotations__.get(name)
    axes = str(getattr(annotation, "dim_str", "")).split()
    return (axes[0], axes[1]) if len(axes) == 2 else ("", "")


def _other_figures(finding: object) -> Iterator[Table]:
    rows = tuple(_figures(finding))
    if rows:
        yield Table("Other figures", ("figure", "value"), rows)


def _figures(holder: object) -> Iterator[tuple[Cell, ...]]:
    """Texts and numbers without an interval, those of a dataclass in a field included."""
    for field in declared(type(holder)):
        value: Any = getattr(holder, field.name)
        if not field.drawn or field.name in SENTENCES or isinstance(value, Block):
            continue
        if is_row(value):
            yield from _figures(value)
        elif field.percent and isinstance(value, float):
            yield field.title, percentage(value)
        elif isinstance(value, str | int | float) and value != "":
            yield field.title, value
        elif isinstance(value, tuple) and value and all(isinstance(text, str) for text in cast(Sequence[Any], value)):
            yield field.title, ", ".join(cast(Sequence[str], value))

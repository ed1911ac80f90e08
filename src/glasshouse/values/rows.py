"""How does the data per unit become flat records? Keys become columns, an interval becomes three."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, cast

from glasshouse.values.blocks import Cell, Table
from glasshouse.values.declared import Field, declared, in_words
from glasshouse.values.digits import percentage
from glasshouse.values.intervals import Interval

Scalar = str | float | int | bool | None
Record = dict[str, Scalar]


def rows_field(kind: type) -> Field | None:
    """The field that its class declares as the data per unit."""
    return next((field for field in declared(kind) if field.is_rows), None)


def records(finding: object) -> list[Record]:
    """One flat record per unit."""
    data = units(finding)
    intervals = {name for unit in data for name, cell in unit.items() if isinstance(cell, Interval)}
    return [_flat(unit, intervals) for unit in data]


def units(finding: object) -> list[dict[str, Cell]]:
    """The data per unit, an interval in one cell; a finding that declares no `Rows` is a single unit."""
    field = rows_field(type(finding))
    return [_own_cells(finding)] if field is None else list(units_of(field, getattr(finding, field.name)))


def units_of(field: Field, value: object) -> Iterator[dict[str, Cell]]:
    """The units under this field, an interval in one cell."""
    yield from _walk(field, value, {}, field.keys)


def table_of(field: Field, value: object) -> Table | None:
    """The same as a table whose columns are explained by the docstrings of the row's class."""
    units = list(units_of(field, value))
    names = list(dict.fromkeys(name for unit in units for name in unit))
    if not units or len(names) <= len(field.keys):
        return None
    shares = {each.name for each in (field, *_row_fields(value)) if each.percent}
    columns = {in_words(name): [_shown(unit.get(name), name in shares) for unit in units] for name in names}
    meanings = {in_words(name): meaning for name, meaning in field.meanings.items()}
    meanings |= {each.words: each.explanation for each in _row_fields(value) if each.explanation and each.name in names}
    return Table.of(field.title, columns, meanings)


def _shown(cell: Cell, percent: bool) -> Cell:
    return percentage(cell) if percent and isinstance(cell, float) else cell


def leaves(value: object) -> Iterator[object]:
    """What stands under the keys of mappings and tuples, however deep."""
    for item in under_keys(value).values():
        if keyed(item):
            yield from leaves(item)
        elif item is not None:
            yield item


def keyed(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str))


def under_keys(value: object) -> Mapping[Any, Any]:
    """A tuple is a mapping whose keys are positions."""
    return cast(Mapping[Any, Any], value) if isinstance(value, Mapping) else dict(enumerate(cast(Sequence[Any], value)))


def is_row(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type | Interval)


def _walk(field: Field, value: object, above: Mapping[str, Cell], keys: Sequence[str]) -> Iterator[dict[str, Cell]]:
    if keyed(value):
        if not keys:
            raise TypeError(f"{field.name}: name the keys of this field: Annotated[..., Rows(...)] or Keys(...)")
        for key, item in under_keys(value).items():
            yield from _walk(field, item, {**above, keys[0]: key}, keys[1:])
    elif is_row(value):
        yield {**above, **_own_cells(value)}
    elif isinstance(value, Cell) and value is not None:
        yield {**above, field.name: value}


def _own_cells(value: object) -> dict[str, Cell]:
    """Numbers, texts and intervals of a dataclass; those of a dataclass in it under both names."""
    cells: dict[str, Cell] = {}
    for field in declared(type(value)):
        item = getattr(value, field.name)
        if is_row(item):
            cells |= {f"{field.name}_{name}": cell for name, cell in _own_cells(item).items()}
        elif isinstance(item, Cell):
            cells[field.name] = item
    return cells


def _row_fields(value: object) -> tuple[Field, ...]:
    row = next((leaf for leaf in leaves(value) if is_row(leaf)), None)
    return declared(type(row)) if row is not None else ()


def _flat(unit: Mapping[str, Cell], intervals: set[str]) -> Record:
    record: Record = {}
    for name, cell in unit.items():
        if isinstance(cell, Interval):
            record |= {name: cell.value, f"{name}_low": cell.low, f"{name}_high": cell.high}
        elif name in intervals:  # None in this unit, an interval in another
            record |= {name: cell, f"{name}_low": None, f"{name}_high": None}
        else:
            record[name] = cell
    return record

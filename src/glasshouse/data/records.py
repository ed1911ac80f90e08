"""Which records does a text file hold? JSON lines, a JSON document, CSV or TSV, told apart by their content.

Each record comes with its place, as errors call it (`data.jsonl:3`). More than one reading is refused, not guessed.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glasshouse.data.columns import column_names
from glasshouse.data.strangers import reason
from glasshouse.values.errors import BadInput

MAX_LINE = 512 * 2**20
"""Bytes of a line: some of the largest images that `images.py` takes, in base64."""
MAX_DOCUMENT = 2 * 2**30
"""Bytes of a JSON document, which is held in memory as a whole."""
DELIMITERS = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons"}


@dataclass(frozen=True)
class Table:
    """The records of one file."""

    path: Path
    kind: str
    """How a report calls the file: JSON lines, CSV, …"""
    records: Iterator[tuple[str, Mapping[str, Any]]]
    """The place and the values of each, in order."""
    columns: tuple[str, ...] | None = None
    """The columns of all records; None where each record has its own."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Names behind the numbers of a column of classes."""


def json_table(path: Path) -> Table:
    """JSON lines, or a document with a list of objects."""
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"[") and (path.suffix.lower() != ".json" or _is_lines(path)):
        return Table(path, "JSON lines", _lines(path))
    return Table(path, "JSON", _document(path))


def csv_table(path: Path) -> Table:
    """CSV or TSV with a line of names; every cell is text, and an empty cell is no value."""
    with path.open("rb") as file:
        first = file.readline(MAX_LINE).decode("utf-8-sig", "replace")
    counts = Counter(character for character in first if character in DELIMITERS)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=lambda one: counts[one])
    rows = _rows(path, delimiter)
    header = next(rows, None)
    if header is None:
        raise BadInput(f"{path}: holds no examples; the first line names the columns: prompt,image,answer")
    names = [name.strip() for name in header[1]]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise BadInput(f"{path}: two columns are called {repeated[0]!r}; name each column in the first line")
    return Table(path, DELIMITERS[delimiter], _cells(rows, names), tuple(names))


def loaded(text: str | bytes, place: str, what: str) -> Any:
    """A JSON value, or a refusal of this line or file."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{place}: this {what} is not JSON ({reason(problem)}); mend or remove it") from None


def _is_lines(path: Path) -> bool:
    """Whether the first line of a .json file is a whole object, and another follows."""
    lines = _texts(path)
    first, second = next(lines, None), next(lines, None)
    if first is None or second is None:
        return first is None
    try:
        return isinstance(json.loads(first[1]), dict)
    except (ValueError, RecursionError):
        return False


def _texts(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers."""
    number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise BadInput(
                    f"{path}:{number}: a line longer than {MAX_LINE // 2**20} MiB; write one object a line, with paths "
                    "of images instead of their bytes"
                )
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield number, line


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in _texts(path):
        place = f"{path}:{number}"
        yield place, _record(loaded(line, place, "line"), place, "line")


def _document(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.stat().st_size > MAX_DOCUMENT:
        raise BadInput(f"{path}: larger than {MAX_DOCUMENT // 2**30} GiB; write it as JSON lines (.jsonl)")
    tree = loaded(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), str(path), "file")
    if isinstance(tree, dict):
        tree = _listed(tree, path)
    if not isinstance(tree, list):
        raise BadInput(f"{path}: holds {type(tree).__name__}, a list of objects is expected; see docs/data.md")
    for number, record in enumerate(tree):
        place = f"{path} item {number}"
        yield place, _record(record, place, "item")


def _listed(tree: dict[str, Any], path: Path) -> list[Any]:
    """The list of objects in an object that holds one, or the object itself as the only example."""
    lists = {name: value for name, value in tree.items() if isinstance(value, list) and value}
    if {"prompt", "image", "images", "messages", "conversations"} & set(tree):
        return [tree]
    if len(lists) == 1 and isinstance(next(iter(lists.values()))[0], dict):
        return next(iter(lists.values()))
    if tree and all(isinstance(value, dict | list) for value in tree.values()):
        raise BadInput(
            f"{path}: an object of {column_names(map(str, tree))}; write a list of objects, one for each example "
            '(pandas: to_json(file, orient="records"))'
        )
    return [tree]


def _record(value: Any, place: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f'{place}: this {what} is not a JSON object; write {{"prompt": …, "image": …}}')
    return value


def _rows(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV file with the line that each begins on."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))  # base64 needs more than the module's 128 KiB
    before = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            try:
                row = next(reader, None)
            except UnicodeDecodeError:
                raise BadInput(f"{path}: is not UTF-8; save it as CSV in UTF-8") from None
            except csv.Error as problem:
                raise BadInput(
                    f"{path}:{before + 1}: this row is not {DELIMITERS[delimiter]} ({problem}); put text with quotes "
                    'or line breaks in quotes and double the quotes in it: "say ""hi"""'
                ) from None
            if row is None:
                return
            if row:
                yield f"{path}:{before + 1}", row
            before = reader.line_num


def _cells(
    rows: Iterator[tuple[str, list[str]]], names: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    for place, row in rows:
        if len(row) != len(names):
            raise BadInput(
                f"{place}: {len(row)} cells under {len(names)} columns ({', '.join(names[:8])}); quote text that "
                "contains the separator"
            )
        yield place, {name: cell or None for name, cell in zip(names, row, strict=True)}

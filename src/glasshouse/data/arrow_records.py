"""Which records does a table of Arrow hold? A Parquet file, an Arrow file, or a folder that `datasets` saved.

The bytes are a stranger's: every batch is validated in full before a value is read, and no pickled type is opened.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from glasshouse.data.image_values import ImageFolder
from glasshouse.data.records import Table, loaded
from glasshouse.data.strangers import strangers_files
from glasshouse.values.errors import BadInput

ROWS = 256
"""Rows that are in memory at once."""
SAVED, SPLITS = "state.json", "dataset_dict.json"
"""What `datasets` calls its files in a saved set, and in one with several splits."""


def parquet_table(paths: Sequence[Path]) -> Table:
    """The rows of a Parquet file, or of the shards of one set in their order."""
    import pyarrow.parquet as parquet

    with strangers_files(paths[0], "not a readable Parquet file", "write it again"):
        schema = parquet.read_schema(paths[0])

    def batches() -> Iterator[tuple[Path, Any]]:
        for path in paths:
            with strangers_files(path, "not a readable Parquet file", "write it again"):
                file = parquet.ParquetFile(path)
                _alike(schema.names, file.schema_arrow.names, path)
                for batch in file.iter_batches(batch_size=ROWS):
                    yield path, batch

    return _table(paths[0], "Parquet", schema, batches())


def arrow_table(paths: Sequence[Path], kind: str = "Arrow") -> Table:
    """The rows of Arrow files, in their order."""
    with strangers_files(paths[0], "not a readable Arrow file", "write it again"):
        schema = _opened(paths[0])[0]

    def batches() -> Iterator[tuple[Path, Any]]:
        for path in paths:
            with strangers_files(path, "not a readable Arrow file", "write it again"):
                here, parts = _opened(path)
                _alike(schema.names, here.names, path)
                for part in parts:
                    part.validate(full=True)
                    yield from ((path, part.slice(start, ROWS)) for start in range(0, part.num_rows, ROWS))

    return _table(paths[0], kind, schema, batches())


def saved_table(folder: Path) -> Table:
    """What `Dataset.save_to_disk` wrote into this folder."""
    state = loaded((folder / SAVED).read_bytes(), str(folder / SAVED), "file")
    files = state.get("_data_files") if isinstance(state, dict) else None
    files = files if isinstance(files, list) else []
    entries = [file.get("filename") if isinstance(file, dict) else None for file in files]
    names = [name for name in entries if isinstance(name, str)]
    if not names or len(names) < len(entries):
        raise BadInput(f"{folder / SAVED}: names no files of data; save the set again with save_to_disk")
    for name in names:
        ImageFolder(folder).inside(folder / name, str(folder / SAVED), "file")
        if not (folder / name).is_file():
            raise BadInput(f"{folder / SAVED}: {name} is not there; copy the whole folder")
    return arrow_table([folder / name for name in names], "a saved data set")


def one_split(folder: Path) -> Path:
    """The only split of a saved set of splits."""
    tree = loaded((folder / SPLITS).read_bytes(), str(folder / SPLITS), "file")
    names = tree.get("splits") if isinstance(tree, dict) else None
    splits = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if len(splits) != 1 or "/" in splits[0] or splits[0] in ("", ".", ".."):
        example = folder / (splits[0] if splits else "train")
        raise BadInput(f"{folder}: holds the splits {', '.join(splits) or 'of no name'}; give one of them: {example}")
    return folder / splits[0]


def _opened(path: Path) -> tuple[Any, Iterator[Any]]:
    """Schema and batches of an Arrow file in either of its two formats."""
    import pyarrow as arrow

    # Read into memory, not mapped: a file that shrinks under a map kills the process.
    with path.open("rb") as file:
        in_file = file.read(6) == b"ARROW1"
    source = arrow.OSFile(str(path))
    if not in_file:
        reader = arrow.ipc.open_stream(source)
        return reader.schema, iter(reader)
    file_reader = arrow.ipc.open_file(source)
    return file_reader.schema, (file_reader.get_batch(i) for i in range(file_reader.num_record_batches))


def _table(path: Path, kind: str, schema: Any, batches: Iterator[tuple[Path, Any]]) -> Table:
    repeated = [name for name, times in Counter(schema.names).items() if times > 1]
    if repeated:
        raise BadInput(f"{path}: two columns are called {repeated[0]!r}; rename one of them")

    def records() -> Iterator[tuple[str, Mapping[str, Any]]]:
        numbers: dict[Path, Iterator[int]] = {}
        for file, batch in batches:
            with strangers_files(file, f"not a readable {kind} file", "write it again"):
                rows = batch.to_pylist()
            counter = numbers.setdefault(file, count())
            yield from ((f"{file} row {next(counter)}", row) for row in rows)

    return Table(path, kind, records(), tuple(schema.names), _labels(schema))


def _alike(first: Sequence[str], names: Sequence[str], path: Path) -> None:
    if list(first) != list(names):
        raise BadInput(f"{path}: has the columns {', '.join(names)}, the first file has {', '.join(first)}; give one")


def _labels(schema: Any) -> dict[str, Sequence[str]]:
    """The names of classes that `datasets` notes in a schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel" and all(isinstance(label, str) for label in feature["names"])
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}  # notes of another kind

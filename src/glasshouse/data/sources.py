"""What lies at a path? Told by content: lines, a document, a table, a saved data set, or a folder of images."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glasshouse.data.arrow_records import SAVED, SPLITS, arrow_table, one_split, parquet_table, saved_table
from glasshouse.data.columns import Columns
from glasshouse.data.forms import Reading
from glasshouse.data.image_values import ImageFolder
from glasshouse.data.presence import TAKES
from glasshouse.data.records import Table, csv_table, json_table
from glasshouse.data.strangers import strangers_files
from glasshouse.values.errors import BadInput

LINES = "examples.jsonl"
"""What `Examples.write` calls the file of examples in its folder."""
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
TABLE_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
BESIDE_IMAGES = ("metadata.jsonl", "metadata.parquet")
"""Tables that stand beside images by a convention of `datasets`; a CSV or TSV always does."""
SHARD = re.compile(r"^(?P<set>.*)-\d{5}-of-\d{5}(\.\w+)$")
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip (or Excel)",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def reading(path: Path, columns: Columns) -> Reading:
    """How the examples at this path are read."""
    if path.is_dir():
        return _folder(path, columns)
    return Reading(_table([path]), columns, images_of(path.parent, columns))


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, in order of name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_ENDINGS)


def is_images(path: Path) -> bool:
    """Whether this is a folder of images alone."""
    return path.is_dir() and not (path / LINES).is_file() and not _saved(path) and not _tables(path)


def images_of(folder: Path, columns: Columns) -> ImageFolder:
    if columns.folder and not Path(columns.folder).is_dir():
        raise BadInput(f"--image-folder {columns.folder}: no such folder; name the folder that image paths begin in")
    return ImageFolder(Path(columns.folder) if columns.folder else folder)


def _folder(path: Path, columns: Columns) -> Reading:
    images = images_of(path, columns)
    if (path / LINES).is_file():
        return Reading(json_table(path / LINES), columns, images)
    if (path / SPLITS).is_file():
        path = one_split(path)
    if (path / SAVED).is_file():
        return Reading(saved_table(path), columns, images_of(path, columns))
    tables = _tables(path)
    table = _table(tables)
    if not columns.image and (tables[0].name == "metadata.jsonl" or "file_name" in (table.columns or ())):
        columns = replace(columns, image="file_name")  # the convention of `datasets` for such folders
    return Reading(table, columns, images)


def _saved(path: Path) -> bool:
    return (path / SAVED).is_file() or (path / SPLITS).is_file()


def _tables(path: Path) -> Sequence[Path]:
    """The table in a folder, or the shards of one; several sets are refused."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in TABLE_ENDINGS and file.is_file())
    if image_files(path):
        files = [file for file in files if file.suffix in (".csv", ".tsv") or file.name in BESIDE_IMAGES]
    if not files and not image_files(path) and (path / "data").is_dir():
        return _tables(path / "data")  # how repositories of data sets are laid out
    sets = {match["set"] if (match := SHARD.match(file.name)) else file.name for file in files}
    if len(sets) > 1:
        raise BadInput(f"{path}: holds several tables ({', '.join(file.name for file in files[:6])}); give one of them")
    return files


def _table(paths: Sequence[Path]) -> Table:
    """The records of a file, or of the shards of one."""
    path = paths[0]
    with strangers_files(path, "cannot be read", "check the file and its permissions"), path.open("rb") as file:
        start = file.read(16)
    ending = path.suffix.lower()
    for mark, name in COMPRESSED.items():
        if start.startswith(mark):
            raise BadInput(f"{path}: is compressed with {name}; unpack it, or save the table as CSV in UTF-8")
    if start.startswith(UTF16):
        raise BadInput(f"{path}: is UTF-16; save it in UTF-8")
    if start.startswith(b"PAR1") or ending == ".parquet":
        return parquet_table(paths)
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or ending == ".arrow":
        return arrow_table(paths)
    if len(paths) > 1:
        raise BadInput(f"{path.parent}: holds {len(paths)} shards of text; join them into one file")
    if ending in (".jsonl", ".ndjson", ".json"):
        return json_table(path)
    if ending in (".csv", ".tsv"):
        return csv_table(path)
    if ending in IMAGE_ENDINGS:
        raise BadInput(f"{path}: is one image; give its folder, or a file with prompts: prompt,image")
    raise BadInput(f"{path}: cannot tell what this is; --data takes {TAKES}")

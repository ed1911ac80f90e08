"""How is a value without tensors stored so that people can read it? As JSON with its kind and schema version."""

import json
from pathlib import Path
from typing import TypeVar

from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput

T = TypeVar("T")


def write_papers(value: object, file: Path, what: str, schema: int) -> None:
    """`what` is the kind of value: a card, a manifest."""
    tree = {"schema": schema, what: pack(value)[0]}
    file.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", "utf-8")


def read_papers(kind: type[T], file: Path, what: str, schema: int, fix: str) -> T:
    """What `write_papers` wrote; an error names the problem and the fix."""
    try:
        tree = json.loads(file.read_text("utf-8"))
        written, value = tree["schema"], tree[what]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as problem:
        raise BadInput(f"{file}: not a {what} ({problem}); {fix}") from None
    if written != schema:
        raise BadInput(f"{file}: a {what} of schema {written}, this version reads {schema}; {fix}")
    try:
        return unpack(kind, value)
    except BadInput as problem:
        raise BadInput(f"{file}: {problem}; {fix}") from None

"""How does a value without tensors lie on disk for people to read? As JSON that says what it is and of which schema."""

import json
from pathlib import Path
from typing import TypeVar

from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput

T = TypeVar("T")


def write_papers(value: object, file: Path, what: str, schema: int) -> None:
    """`what` names the value: a card, a manifest."""
    tree = {"schema": schema, what: pack(value)[0]}
    file.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", "utf-8")


def read_papers(kind: type[T], file: Path, what: str, schema: int, cure: str) -> T:
    """What `write_papers` wrote; whatever is wrong is named, with the cure."""
    try:
        tree = json.loads(file.read_text("utf-8"))
        written, value = tree["schema"], tree[what]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as problem:
        raise BadInput(f"{file}: not a {what} ({problem}); {cure}") from None
    if written != schema:
        raise BadInput(f"{file}: a {what} of schema {written}, this version reads {schema}; {cure}")
    try:
        return unpack(kind, value)
    except BadInput as problem:
        raise BadInput(f"{file}: {problem}; {cure}") from None

"""How does a file exist whole or not at all? It is written aside, flushed to the disk and renamed.

Packed values (`values/codec.py`) become one safetensors file each, with the rest of the value in its header.
"""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput, Unwritable

T = TypeVar("T")
FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room and run it again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder that you may write in"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a part of this path is a file: choose another place"),
    errno.EISDIR: "that is a folder: name a file in it",
}
"""What to do when a file cannot be written, by the reason."""


def write_whole(file: Path, content: bytes) -> None:
    """Write aside, flush to the disk, rename: the file is there whole or not at all."""
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        aside.rename(file)
    except OSError as problem:
        fix = FIXES.get(problem.errno or 0, "choose another place and run it again")
        raise Unwritable(f"{file}: cannot be written ({problem.strerror or problem}); {fix}") from None
    finally:
        with suppress(OSError):  # where nothing could be written, nothing can be removed either
            aside.unlink()


def write_packed(file: Path, value: Any) -> None:
    """The value as one safetensors file, whole or not at all."""
    tree, tensors = pack(value)
    write_whole(file, save(tensors, metadata={"tree": json.dumps(tree)}))


def read_packed(file: Path, kind: type[T]) -> T | None:
    """What `write_packed` wrote, or None where there is no such file or it does not hold a `kind`."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - no mapping
            tree = json.loads((opened.metadata() or {})["tree"])
        return unpack(kind, tree, tensors)
    except (SafetensorError, OSError, KeyError, ValueError, BadInput):
        return None

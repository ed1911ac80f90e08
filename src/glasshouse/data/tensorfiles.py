"""How are tensors stored? As safetensors with text in the header, never pickle. A file is written aside and renamed,
so it is whole or not there."""

import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glasshouse.values.errors import BadInput


def write_tensors(tensors: Mapping[str, Tensor], file: Path, header: Mapping[str, str] | None = None) -> None:
    """Write the tensors; a file that was there is replaced at once or not at all."""
    aside = file.with_name(f".{file.name}.part")
    try:
        aside.touch()
        mode = stat.S_IMODE(aside.stat().st_mode)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside, metadata=dict(header or {}))
        aside.chmod(mode)  # safetensors makes files for their owner alone, whatever the umask allows
        aside.rename(file)
    except (OSError, SafetensorError) as problem:  # safetensors has an error of its own for a full disk
        aside.unlink(missing_ok=True)
        raise BadInput(f"{file}: cannot be written ({getattr(problem, 'strerror', None) or problem})") from None


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as problem:
        raise BadInput(f"{file}: not a readable safetensors file ({problem})") from None

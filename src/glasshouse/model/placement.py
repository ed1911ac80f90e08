"""Where will a model lie, and does it fit there? Answered before any weight is read."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from glasshouse.data.strangers import strangers_files
from glasshouse.model.machine import free_memory
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import gibibytes

SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
"""Names of accelerate's ways to spread a model over all devices."""
COMPUTING = ("cpu", "cuda", "mps", "xpu")
MEANT: dict[str, str] = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "amd": "cuda", "metal": "mps", "apple": "mps"}
"""What PyTorch calls the devices that other programs call so."""
MARGIN = 1.2
"""A checkpoint that lacks more than that much of its weights is refused unread; one that lacks any, once read."""
PACKED = 16
"""Quantised weights lie several to a number."""


def check_device(device: str | Mapping[str, Any] | None) -> None:
    """Refuse a device that is unknown or not there, and a device map that names one."""
    if isinstance(device, Mapping):
        for part, place in device.items():
            if place != "disk":
                _check_place(place, f"device map, {part!r}: {place}")
        _needs_accelerate("a device map")
    elif device in SPREADING:
        _needs_accelerate(f"device {device}")
    elif device is not None:
        _check_place(device, f"device {device}")


def _check_place(place: Any, named: str) -> None:
    try:
        device = torch.device(f"cuda:{place}" if isinstance(place, int) else place)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in COMPUTING:
        kind, _, number = str(place).lower().partition(":")
        meant = f"cuda:{kind}" if kind.isdigit() else MEANT.get(kind)
        if meant is not None:
            raise BadInput(f"{named}: no such device; use {meant}{f':{number}' if number else ''}")
        raise BadInput(f"{named}: no such device; write cpu, cuda, cuda:0, mps, or auto to spread over all devices")
    backend = getattr(torch, device.type)
    present = backend.device_count() if backend.is_available() else 0
    if present == 0:
        raise BadInput(
            f"{named}: PyTorch finds no {device.type} device here; use cpu, or install a PyTorch that has it"
        )
    # The CPU is one device, however it is numbered.
    if device.type != "cpu" and (device.index or 0) >= present:
        raise BadInput(f"{named}: there are {present} of them, numbered from 0")


def _needs_accelerate(named: str) -> None:
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise BadInput(f"{named}: needs accelerate: pip install accelerate") from None


def check_stored(name: str, model: PreTrainedModel) -> None:
    """Refuse a configuration that asks for more weights than its files hold; `model` is on the meta device."""
    stored = _stored(Path(name))
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if stored is not None and wanted > stored * (PACKED if _quantised(model) else MARGIN):
        raise BadInput(
            f"{name}: its configuration asks for {wanted:,} weights and its files hold {stored:,}; "
            "the two do not belong together"
        )


def check_fits(name: str, model: PreTrainedModel, dtype: torch.dtype, device: object) -> None:
    """Refuse a model whose weights do not fit where they shall lie; `model` is on the meta device."""
    spread = isinstance(device, Mapping) or device in SPREADING
    free = None if spread else free_memory(None if device is None else str(device))  # what is spread may lie on disk
    size = 0.5 if _quantised(model) else dtype.itemsize
    needed = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers())) * size
    if free is not None and needed > free:
        raise refusal(name, round(needed), free, dtype, str(device or "cpu"))


def refusal(name: str, needed: int, free: int, dtype: torch.dtype, device: str) -> BadInput:
    """That a model does not fit, and what would help: what is tried first is what fits."""
    fixes: list[str] = []
    if dtype.itemsize > 2 and needed // 2 <= free:
        fixes.append("use --dtype bfloat16, which takes half")
    if device == "cpu" and torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > needed:
        fixes.append("use --device cuda")
    if not fixes:
        fixes.append("use --device auto, which spreads it over all devices and the disk")
    return BadInput(
        f"{name}: needs {gibibytes(needed)} of memory and {gibibytes(free)} are free on {device}; "
        f"{', or '.join(fixes)}, or take a machine with {math.ceil(needed / 2**30) + 1:,} GiB"
    )


def _quantised(model: PreTrainedModel) -> bool:
    return getattr(model.config, "quantization_config", None) is not None


def _stored(folder: Path) -> int | None:
    """How many numbers the safetensors files of a folder hold, by their headers."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return None
    total = 0
    for file in files:
        whole = strangers_files(file, "not a whole safetensors file", "download it again")
        with whole, safe_open(file, framework="pt") as opened:
            total += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118 - no mapping
    return total

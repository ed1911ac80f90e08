"""Where does a number come from? Everything that decides a finding: the inputs, the code, the versions, the device."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from glasshouse.engine.inputs import Input
from glasshouse.values.version import __version__

HOME = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "safetensors")


def provenance(inputs: Sequence[Input], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a question was asked of, and on what machine; inputs by flag, in the order of the method's parameters."""
    there = [each for each in inputs if each.flag in values]
    return {
        "inputs": {each.flag: _described(each, values[each.flag]) for each in there},
        "versions": {
            "glasshouse": __version__,
            **{package: version(package) for package in PACKAGES},
            "python": platform.python_version(),
        },
        "code": code(),
        "device": _device(there, values),
    }


def identified(inputs: Sequence[Input], values: Mapping[str, Any]) -> bool:
    """Whether the identities in the provenance tell any two different questions apart."""
    return all(
        each.kind.identified(value)
        for each in inputs
        if each.flag in values
        for value in each.values(values[each.flag])
    )


@cache
def code(patterns: tuple[str, ...] = ("*.py", "*.json")) -> str:
    """SHA-256 of all of glasshouse's own files that can decide a finding: a clone changes without its version."""
    running = hashlib.sha256()
    for file in sorted(file for pattern in patterns for file in HOME.rglob(pattern)):
        running.update(file.relative_to(HOME).as_posix().encode() + b"\0" + file.read_bytes())
    return running.hexdigest()


def _described(each: Input, value: Any) -> dict[str, Any]:
    singles = each.values(value)
    identities = [dict(each.kind.identity(single)) for single in singles]
    return {
        "kind": each.kind.name,
        "meaning": each.meaning.text,
        "label": ", ".join(each.kind.label(single) for single in singles),
        "text": "; ".join(each.kind.text(single) for single in singles),
        "identity": identities if each.several else identities[0],
    }


def _device(inputs: Sequence[Input], values: Mapping[str, Any]) -> str:
    found = {each.kind.device(single) for each in inputs for single in each.values(values[each.flag])} - {""}
    names = {
        name: torch.cuda.get_device_name(name) if name.startswith("cuda") else platform.machine()
        for name in sorted(found or {"cpu"})
    }
    return ", ".join(f"{name} ({model})" for name, model in names.items())

"""Where does a number come from? Everything that decides an answer: models and their proofs, data, versions, device."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from glasshouse.data.examples import Examples
from glasshouse.model.subject import Subject
from glasshouse.values.codec import pack

HOME = Path(__file__).parents[1]
PACKAGES = ("glasshouse", "torch", "transformers", "tokenizers", "numpy", "pillow", "safetensors")


def provenance(supplied: Mapping[str, Subject | Examples]) -> dict[str, Any]:
    """Of what a question was asked, and on what machine."""
    subjects = {name: value for name, value in supplied.items() if isinstance(value, Subject)}
    examples = {name: value for name, value in supplied.items() if isinstance(value, Examples)}
    return {
        "changes": {name: list(subject.changes) for name, subject in subjects.items()},
        "subjects": {name: pack(subject.identity)[0] for name, subject in subjects.items()},
        "proofs": {name: _proof(subject) for name, subject in subjects.items()},
        "data": {name: {"digest": x.digest, "count": len(x), "source": x.source} for name, x in examples.items()},
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "code": code(),
        "device": _device(subjects),
    }


@cache
def code(kinds: tuple[str, ...] = ("*.py", "*.json")) -> str:
    """SHA-256 of all of glasshouse's own files that can decide an answer: a clone changes without its version."""
    running = hashlib.sha256()
    for file in sorted(file for kind in kinds for file in HOME.rglob(kind)):
        running.update(file.relative_to(HOME).as_posix().encode() + b"\0" + file.read_bytes())
    return running.hexdigest()


def _proof(subject: Subject) -> Any:
    if subject.certificate is None:
        return None
    return [{"what": check.what, "passed": check.passed} for check in subject.certificate.checks]


def _device(subjects: Mapping[str, Subject]) -> str:
    kinds = {str(subject.model.device) for subject in subjects.values()} or {"cpu"}
    names = [
        torch.cuda.get_device_name(kind) if kind.startswith("cuda") else platform.machine() for kind in sorted(kinds)
    ]
    return ", ".join(f"{kind} ({name})" for kind, name in zip(sorted(kinds), names, strict=True))

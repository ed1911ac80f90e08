"""How does a name become an opened model? A folder, a hub name, `organism:NAME`, or a model that is loaded already."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from glasshouse.model.anatomy import Anatomy
from glasshouse.model.opening import open_anatomy, open_subject
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.values.errors import BadInput

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Opening:
    """How models are opened."""

    adapter: str | None = None
    """Folder of a PEFT adapter to put on the model."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: str = "auto"
    """Precision of the weights: auto, float32, bfloat16 or float16."""
    device: str | None = None
    """cpu, cuda, or auto to spread the model over all devices."""
    download: bool = False
    """Fetch from the hub what is not in the local cache."""
    remote_code: bool = False
    """Run code from the model's repository. Only if you trust it."""
    unproved: bool = False
    """Continue when the anatomy cannot be proved."""

    @property
    def settings(self) -> dict[str, Any]:
        """As keyword arguments of `open_model`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def open_model(
    source: str | Path | PreTrainedModel,
    *,
    processor: Any = None,
    adapter: str | Path | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str = "auto",
    device: str | Mapping[str, Any] | None = None,
    download: bool = False,
    remote_code: bool = False,
    unproved: bool = False,
) -> Subject:
    """Open a folder, a hub name, `organism:NAME` or a loaded model; see `open_subject`."""
    if isinstance(source, str) and shelf.is_organism(source):
        settings = {"processor": processor, "adapter": adapter, "revision": revision, "device": device}
        named = [name for name, value in settings.items() if value is not None] + ["dtype"] * (dtype != "auto")
        if named:
            raise BadInput(f"{source}: an organism is opened as it was grown; leave out {', '.join(named)}")
        return shelf.take(source)
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise BadInput(f"dtype {dtype}: write one of {', '.join(DTYPES)}")
        dtype = DTYPES[dtype]
    return open_subject(
        source, processor=processor, adapter=adapter, revision=revision, dtype=dtype, device=device,
        download=download, remote_code=remote_code, unproved=unproved,
    )  # fmt: skip


def anatomy_of(source: str, opening: Opening) -> Anatomy:
    """The anatomy of a name, from its configuration alone."""
    if shelf.is_organism(source):
        return shelf.take(source).anatomy
    return open_anatomy(source, revision=opening.revision, download=opening.download, remote_code=opening.remote_code)

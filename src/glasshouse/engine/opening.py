"""How does a name become an opened model? A folder, a hub name, `organism:NAME`, or a model that is loaded already."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from glasshouse.model.adapters.drawing import AdapterAnatomy
from glasshouse.model.adapters.reading import is_adapter, read_adapter
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.opening import named_base, open_anatomy, open_subject
from glasshouse.model.outline import Outline, of_model, outlined
from glasshouse.model.placement import check_device
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.values.errors import BadInput

GROWN = ("adapter", "revision", "device", "dtype", "max_pixels")
"""Settings that an organism does not take: they were chosen when it was grown."""
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
    max_pixels: int | None = None
    """Scale larger images down to this number of pixels; fewer are faster and show less."""

    @property
    def settings(self) -> dict[str, Any]:
        """As keyword arguments of `open_model`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def open_model(
    source: str | Path | PreTrainedModel,
    *,
    processor: Any = None,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str = "auto",
    device: str | Mapping[str, Any] | None = None,
    download: bool = False,
    remote_code: bool = False,
    unproved: bool = False,
    max_pixels: int | None = None,
) -> Subject:
    """Open a folder, a hub name, `organism:NAME`, an adapter's folder or a loaded model; see `open_subject`."""
    if isinstance(source, str) and shelf.is_organism(source):
        return _organism(
            source,
            processor=processor,
            adapter=adapter,
            base=base,
            revision=revision,
            device=device,
            dtype=dtype,
            max_pixels=max_pixels,
        )
    return open_subject(
        source, processor=processor, adapter=adapter, base=base, revision=revision, dtype=_read_dtype(dtype),
        device=device, download=download, remote_code=remote_code, unproved=unproved, max_pixels=max_pixels,
    )  # fmt: skip


def on_base(source: str, base: str | None, opening: Opening) -> tuple[str, Opening] | None:
    """The base of an adapter's folder, and how to open the two together; None for what is no adapter."""
    if shelf.is_organism(source) or not is_adapter(source):
        return None
    if opening.adapter is not None:
        raise BadInput(f"{source}: this is an adapter; give the model to merge {opening.adapter} into")
    name, revision = named_base(read_adapter(Path(source)), base, opening.revision, download=opening.download)
    return name, replace(opening, adapter=source, revision=revision)


def anatomy_of(source: str, opening: Opening, base: str | None = None) -> tuple[Anatomy, AdapterAnatomy | None]:
    """The anatomy of a name, from its configuration alone, and what an adapter does to it."""
    if shelf.is_organism(source):
        return _organism(source, **{name: opening.settings[name] for name in GROWN}, base=base).anatomy, None
    _read_dtype(opening.dtype)
    check_device(opening.device)
    return open_anatomy(
        source, base=base, revision=opening.revision, download=opening.download, remote_code=opening.remote_code
    )


def outline_of(source: str, opening: Opening) -> Outline:
    """What a name will be opened as, from its configuration and the headers of its files."""
    if shelf.is_organism(source):
        _check_as_grown(source, {name: opening.settings[name] for name in GROWN})
        model, processor = shelf.outline(source)
        return of_model(source, model, processor, torch.float32)
    check_device(opening.device)
    return outlined(
        source, adapter=opening.adapter, revision=opening.revision, dtype=_read_dtype(opening.dtype),
        download=opening.download, remote_code=opening.remote_code, max_pixels=opening.max_pixels,
    )  # fmt: skip


def _organism(name: str, **settings: Any) -> Subject:
    """The organism, as it was grown."""
    _check_as_grown(name, settings)
    return shelf.take(name)


def _check_as_grown(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that an organism does not take."""
    refused = [
        setting for setting, value in settings.items() if value is not None and (setting, value) != ("dtype", "auto")
    ]
    if refused:
        raise BadInput(f"{name}: an organism is opened as it was grown; leave out {', '.join(refused)}")


def _read_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise BadInput(f"dtype {dtype}: write one of {', '.join(DTYPES)}")
    return DTYPES[dtype] if isinstance(dtype, str) else dtype

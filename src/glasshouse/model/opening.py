"""How does a model become a proved Subject? From a folder, a hub name or a model already in memory.

    subject = open_subject("path/or/name")     # safetensors, no remote code, no network unless asked
    subject = reopen(subject.origin)           # the same model, in another process
    anatomy = open_anatomy("path/or/name")     # from the configuration alone: no weights are read

Opening finds the anatomy and proves it; a model whose proof fails is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from glasshouse.model import checkpoint
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.finder import find_anatomy
from glasshouse.model.proof import prove
from glasshouse.model.subject import Origin, Subject
from glasshouse.values.errors import BadInput


def open_subject(
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
    """Open a model by folder or hub name, or take one that is already loaded; find its anatomy and prove it.

    `device` is a device ("cuda") or a device map ("auto"). Nothing is fetched without `download`, no repository's
    code runs without `remote_code`, and a model whose proof fails is refused unless `unproved`.
    """
    origin = None
    if isinstance(source, nn.Module):
        model, name = source, str(getattr(source, "name_or_path", "") or type(source).__name__)
    else:
        name = str(source)
        if Path(name).is_dir():
            checkpoint.check_folder(Path(name))
        if processor is None:  # a processor that was handed in as an object cannot be opened again by name
            origin = Origin(
                source=_lasting(name),
                adapter=None if adapter is None else _lasting(str(adapter)),
                revision=revision,
                dtype=str(dtype).removeprefix("torch."),
                device=device,
                download=download,
                remote_code=remote_code,
                unproved=unproved,
            )
        config = checkpoint.read_config(name, revision=revision, download=download, remote_code=remote_code)
        hub = {"revision": revision, "local_files_only": not download, "trust_remote_code": remote_code}
        placed = {} if device is None else {"device_map": device}
        model = checkpoint.load_model(name, config, {**hub, "dtype": dtype, **placed})
        processor = processor or checkpoint.load_processor(name, hub, sees=hasattr(config, "vision_config"))
    if adapter is not None:
        model = checkpoint.with_adapter(model, Path(adapter))
    subject = Subject(
        model.eval(),
        processor,
        name,
        revision=revision,
        adapter=None if adapter is None else str(adapter),
        origin=origin,
    )
    if processor is not None:
        subject.certificate = prove(subject)
        if subject.certificate.failures and not unproved:
            raise BadInput(
                f"{name}: its anatomy could not be proved: {'; '.join(subject.certificate.failures)}; "
                "name the parts in glasshouse/model/overrides.toml, or open it with unproved=True (--unproved)"
            )
    return subject


def reopen(origin: Origin) -> Subject:
    """The same model again, in this process or another, from what `Subject.origin` says."""
    return open_subject(**vars(origin))


def _lasting(source: str) -> str:
    """A folder's absolute path, so that it is found from another working directory; a hub name as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def open_anatomy(
    source: str | Path, *, revision: str | None = None, download: bool = False, remote_code: bool = False
) -> Anatomy:
    """The anatomy from the configuration alone: no weights are read."""
    config = checkpoint.read_config(str(source), revision=revision, download=download, remote_code=remote_code)
    return find_anatomy(checkpoint.on_meta(config))

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
from transformers import PreTrainedConfig, PreTrainedModel

from glasshouse.data.network import offline
from glasshouse.data.strangers import strangers_files
from glasshouse.model import checkpoint
from glasshouse.model.adapters import with_adapter
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.configs import FIX, on_meta, read_config
from glasshouse.model.finder import find_anatomy
from glasshouse.model.placement import check_device, check_fits, check_stored
from glasshouse.model.processors import load_processor
from glasshouse.model.proof import prove, synthetic
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
    check_device(device)
    name, origin = str(source), None
    with offline(download=download):
        if isinstance(source, nn.Module):
            model, name = source, str(getattr(source, "name_or_path", "") or type(source).__name__)
        else:
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
            hub = {"revision": revision, "local_files_only": not download, "trust_remote_code": remote_code}
            config = _checked_config(name, hub, dtype, device)
            placed = {} if device is None else {"device_map": device}
            model = checkpoint.load_model(name, config, {**hub, "dtype": dtype, **placed})
            processor = processor or load_processor(name, hub, config)
        if adapter is not None:
            model = with_adapter(model, Path(adapter))
        with strangers_files(name, "its anatomy cannot be read", FIX):
            subject = Subject(
                model.eval(),
                processor,
                name,
                revision=revision,
                adapter=None if adapter is None else str(adapter),
                origin=origin,
            )
        if processor is not None:
            _prove(subject, refuse=not unproved)
    return subject


def _prove(subject: Subject, *, refuse: bool) -> None:
    """Give the Subject its certificate; where it fails, `refuse` the model."""
    name = subject.name
    if refuse:
        try:
            subject.encode([synthetic(subject)])
        except BadInput as problem:
            raise BadInput(f"{name}: cannot be shown an example: {problem}") from None
    with strangers_files(name, "its anatomy cannot be proved", "compare its files with the original"):
        subject.certificate = prove(subject)
    if subject.certificate.failures and refuse:
        raise BadInput(
            f"{name}: its anatomy could not be proved: {'; '.join(subject.certificate.failures)}; "
            "name the parts in glasshouse/model/overrides.toml, or open it with unproved=True (--unproved)"
        )
    if subject.generates and not checkpoint.generates_plainly(subject.model):
        fix = "mend or remove its generation_config.json"
        with strangers_files(name, "cannot generate with its generation settings", fix):
            subject.generate([synthetic(subject)], max_new_tokens=2)


def _checked_config(
    name: str, hub: Mapping[str, Any], dtype: torch.dtype | str, device: str | Mapping[str, Any] | None
) -> PreTrainedConfig:
    """The configuration of a checkpoint whose files and sizes may be loaded."""
    if Path(name).is_dir():
        checkpoint.check_folder(Path(name))
    config = read_config(name, **hub)
    outline = on_meta(name, config)
    check_stored(name, outline)
    check_fits(name, outline, dtype, device)
    return config


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
    name = str(source)
    with offline(download=download), strangers_files(name, "its anatomy cannot be read", FIX):
        config = read_config(name, revision=revision, local_files_only=not download, trust_remote_code=remote_code)
        model = on_meta(name, config)
        check_stored(name, model)
        return find_anatomy(model)

"""How does a model become a proved Subject? From a folder, a hub name or a model already in memory.

    subject = open_subject("path/or/name")     # safetensors, no remote code, no network unless asked
    subject = open_subject("path/of/adapter")  # merged into the base that it names, or into base=
    base = opened_base(subject)                # that base, as a Subject
    subject = reopen(subject.origin)           # the same model, in another process
    anatomy = open_anatomy("path/or/name")     # from the configuration alone: no weights are read

Opening finds the anatomy and proves it; a model whose proof fails is refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from glasshouse.data.hub import cached_commit, fetch
from glasshouse.data.network import offline
from glasshouse.data.strangers import strangers_files
from glasshouse.model import checkpoint
from glasshouse.model.adapters.adaptation import Adaptation
from glasshouse.model.adapters.drawing import AdapterAnatomy, draw_adapter
from glasshouse.model.adapters.merging import merged
from glasshouse.model.adapters.processor import adapted_processor
from glasshouse.model.adapters.reading import Adapter, base_of, is_adapter, read_adapter
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.configs import FIX, on_meta, read_config
from glasshouse.model.finder import find_anatomy
from glasshouse.model.image_bounds import check_bound
from glasshouse.model.outline import opened_dtype
from glasshouse.model.placement import check_device, check_fits, check_stored
from glasshouse.model.processors import load_processor
from glasshouse.model.proof import prove, synthetic
from glasshouse.model.quantisation import check_quantisation
from glasshouse.model.subject import Origin, Subject
from glasshouse.values.errors import BadInput


def open_subject(
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
    """Open a model by folder or hub name, or take one that is already loaded; find its anatomy and prove it.

    An adapter is merged into its base: `source` is the adapter's folder, with `base` where its configuration names
    another, or `source` is the base and `adapter` the folder.

    `device` is a device ("cuda") or a device map ("auto"). Nothing is fetched without `download`, no repository's
    code runs without `remote_code`, and a model whose proof fails is refused unless `unproved`. Images with more than
    `max_pixels` are scaled down.
    """
    check_device(device)
    check_bound(max_pixels)
    name, origin, adaptation = str(source), None, None
    with offline(download=download):
        loaded = isinstance(source, nn.Module)
        read = None if loaded else _adapter_in(source, base)
        if read is not None and adapter is not None:
            raise BadInput(f"{source}: this is an adapter; give the model to merge {adapter} into")
        if read is not None:
            name, revision = named_base(read, base, revision, download=download)
        elif adapter is not None:
            read = read_adapter(Path(adapter))
        if isinstance(source, nn.Module):
            model, name = source, str(getattr(source, "name_or_path", "") or type(source).__name__)
        else:
            hub = {"revision": revision, "local_files_only": not download, "trust_remote_code": remote_code}
            config = _checked_config(name, hub, dtype, device)
            # A branch moves: what is recorded, and opened again elsewhere, is the commit that it stood for.
            hub["revision"] = revision = cached_commit(name, revision) or revision
            if download and not Path(name).exists():
                fetch(name, revision, code=remote_code)
            if processor is None:  # a processor that was handed in as an object cannot be opened again by name
                origin = Origin(
                    source=_lasting(name),
                    adapter=None if read is None else _lasting(str(read.folder)),
                    revision=revision,
                    dtype=str(dtype).removeprefix("torch."),
                    device=device,
                    download=download,
                    remote_code=remote_code,
                    unproved=unproved,
                    max_pixels=max_pixels,
                )
            placed = {} if device is None else {"device_map": device}
            model = checkpoint.load_model(name, config, {**hub, "dtype": dtype, **placed})
            processor = processor or load_processor(name, hub, config)
        if read is not None:
            adaptation = Adaptation(read, name, model.eval(), processor)
            model, processor = merged(model, read), adapted_processor(read.folder, processor, model.config)
            name = str(read.folder)
        with strangers_files(name, "its anatomy cannot be read", FIX):
            subject = Subject(
                model.eval(), processor, name, revision=revision, origin=origin, adaptation=adaptation,
                max_pixels=max_pixels,
            )  # fmt: skip
        if processor is not None:
            _prove(subject, refuse=not unproved)
    return subject


def opened_base(subject: Subject) -> Subject:
    """The base that an adapter was merged into, proved. It shares memory with the subject, so it costs no second copy
    of the weights that both have."""
    adaptation, origin = subject.adaptation, subject.origin
    if adaptation is None:
        raise BadInput(f"{subject.name}: holds no adapter, so its base is not known; open the base by its own name")
    with offline(download=False):
        base = Subject(
            adaptation.model,
            adaptation.processor,
            adaptation.base,
            revision=subject.revision,
            max_pixels=subject.max_pixels,
            origin=None if origin is None else replace(origin, adapter=None),
        )
        if adaptation.processor is not None:
            _prove(base, refuse=origin is None or not origin.unproved)
    return base


def _adapter_in(source: str | Path, base: str | Path | None) -> Adapter | None:
    """The adapter that a folder holds."""
    if is_adapter(source):
        return read_adapter(Path(source))
    if base is not None:
        raise BadInput(f"base {base}: only an adapter is merged into a base, and {source} is none; leave it out")
    return None


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
    check_quantisation(name, config)
    outline = on_meta(name, config)
    check_stored(name, outline)
    check_fits(name, outline, opened_dtype(name, config, dtype), device)
    return config


def reopen(origin: Origin) -> Subject:
    """The same model again, in this process or another, from what `Subject.origin` says."""
    return open_subject(**vars(origin))


def _lasting(source: str) -> str:
    """A folder's absolute path, so that it is found from another working directory; a hub name as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def named_base(
    adapter: Adapter, base: str | Path | None, revision: str | None, *, download: bool
) -> tuple[str, str | None]:
    """Name and revision of the base to merge an adapter into; refuses what lies nowhere on this machine."""
    name = base_of(adapter) if base is None else str(base)
    revision = revision or (adapter.revision if base is None else None)
    if not download and not Path(name).exists() and not checkpoint.is_cached(name, revision):
        raise BadInput(
            f"{adapter.folder}: its base {name} is neither a folder nor in the local cache; "
            "give its folder: --base FOLDER (or --model FOLDER --adapter ADAPTER), or fetch it: --download"
        )
    return name, revision


def open_anatomy(
    source: str | Path,
    *,
    base: str | Path | None = None,
    revision: str | None = None,
    download: bool = False,
    remote_code: bool = False,
) -> tuple[Anatomy, AdapterAnatomy | None]:
    """The anatomy from the configuration alone: no weights are read. Of an adapter, its base's anatomy, and what the
    adapter's own weights do to each part of it."""
    with offline(download=download):
        adapter, name = _adapter_in(source, base), str(source)
        if adapter is not None:
            name, revision = named_base(adapter, base, revision, download=download)
        with strangers_files(name, "its anatomy cannot be read", FIX):
            config = read_config(name, revision=revision, local_files_only=not download, trust_remote_code=remote_code)
            model = on_meta(name, config)
            check_stored(name, model)
            anatomy = find_anatomy(model)
        return anatomy, None if adapter is None else draw_adapter(model, anatomy, adapter, name)

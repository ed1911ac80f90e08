"""How are weights changed, for a while or for good? Here and nowhere else.

    with patched(subject, patch): ...        inside, the model has the patched weights; outside, its own, to the bit
    export(subject, "folder", patch)         a checkpoint others can load, with configuration and processor
    write_patch(patch, file), read_patch(file)

A patched weight is a new tensor put in the parameter's place; the old tensor is never written to, so there is
nothing to undo wrongly. What could not be restored exactly is refused: quantised, tied and offloaded weights.
"""

import copy
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from glasshouse.data.tensorfiles import read_tensors, write_tensors
from glasshouse.model.finder import unwrapped
from glasshouse.model.subject import Subject
from glasshouse.values.codec import pack, unpack
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput


@contextmanager
def patched(subject: Subject, patch: Patch) -> Iterator[None]:
    """Inside, the model computes with the patched weights. Everything is checked before anything is changed."""
    parameters = _checked(subject, patch)
    with torch.no_grad():
        new = {name: patch.deltas[name].onto(parameter.data) for name, parameter in parameters.items()}
    with subject.alone, subject.changed_by(patch.digest()):
        kept = {name: parameter.data for name, parameter in parameters.items()}
        outermost = {id(parameters[name]): tensor for name, tensor in kept.items()}
        outermost = {key: tensor for key, tensor in outermost.items() if key not in subject.own_weights}
        subject.own_weights |= outermost
        try:
            for name, parameter in parameters.items():
                parameter.data = new[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = kept[name]
            for key in outermost:
                del subject.own_weights[key]


def changed_copy(subject: Subject, patch: Patch) -> PreTrainedModel:
    """A model of its own with the patched weights, for as long as somebody holds it."""
    with patched(subject, patch):
        return copy.deepcopy(unwrapped(subject.model))


def export(subject: Subject, folder: str | Path, patch: Patch | None = None) -> Path:
    """Write a checkpoint that loads like any other: safetensors, configuration, processor. Whole or not at all."""
    folder = Path(folder)
    if folder.exists():
        raise BadInput(f"{folder}: exists already; name a new folder")
    try:
        aside = folder.parent / f".{folder.name}-{secrets.token_hex(4)}"
        aside.mkdir(parents=True)  # as open to others as any folder here, which tempfile's would not be
    except OSError as problem:
        raise BadInput(f"{folder}: cannot write there ({problem.strerror}); choose another folder") from None
    try:
        with patched(subject, patch or Patch({})):
            _without_adapter(subject).save_pretrained(aside)
        if subject.prompts.original is not None:
            subject.prompts.original.save_pretrained(aside)
        aside.rename(folder)
    except (OSError, SafetensorError) as problem:  # safetensors has an error of its own for a full disk
        reason = getattr(problem, "strerror", None) or problem
        raise BadInput(f"{folder}: writing failed ({reason}); nothing was left there") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _without_adapter(subject: Subject) -> PreTrainedModel:
    """The model as others load it: an adapter is merged into a copy of its weights."""
    merge = getattr(subject.model, "merge_and_unload", None)
    return subject.model if merge is None else copy.deepcopy(subject.model).merge_and_unload()  # pyright: ignore[reportCallIssue]


def write_patch(patch: Patch, file: str | Path) -> Path:
    """One safetensors file: the tensors, and the rest as JSON in its header."""
    file = Path(file)
    tree, tensors = pack(patch)
    write_tensors(tensors, file, {"glasshouse.patch": json.dumps(tree)})
    return file


def read_patch(file: str | Path) -> Patch:
    """What `write_patch` wrote."""
    tensors, header = read_tensors(Path(file))
    if "glasshouse.patch" not in header:
        raise BadInput(f"{file}: holds tensors but no patch; patches are written by write_patch or glasshouse export")
    try:
        return unpack(Patch, json.loads(header["glasshouse.patch"]), tensors)
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{file}: its header is not that of a patch ({str(problem)[:80]}); write it again") from None


def _checked(subject: Subject, patch: Patch) -> dict[str, nn.Parameter]:
    model = unwrapped(subject.model)
    known = dict(model.named_parameters(remove_duplicate=False))
    shared: dict[int, list[str]] = {}
    for name, parameter in known.items():
        shared.setdefault(id(parameter), []).append(name)
    chosen: dict[str, nn.Parameter] = {}
    for name, delta in patch.deltas.items():
        parameter = known.get(name)
        if parameter is None:
            close = [other for other in known if other.endswith(name.rpartition(".")[0].rpartition(".")[2] + ".weight")]
            raise BadInput(
                f"patch of {name}: no such weight in {subject.name}; "
                f"{'is it ' + close[0] + '?' if close else 'see named_parameters()'}"
            )
        if parameter.is_meta:
            raise BadInput(f"patch of {name}: this weight is offloaded; open the model on one device to patch it")
        if not parameter.is_floating_point() or getattr(model, "is_quantized", False):
            raise BadInput(
                f"patch of {name}: the weight is quantised ({parameter.dtype}) and could not be restored exactly; "
                "open it unquantised"
            )
        names = shared[id(parameter)]
        if len(names) > 1:
            raise BadInput(
                f"patch of {name}: tied to {', '.join(n for n in names if n != name)}; untie them first, "
                "a patch would change both"
            )
        delta.check(name, parameter.data)
        chosen[name] = parameter
    return chosen

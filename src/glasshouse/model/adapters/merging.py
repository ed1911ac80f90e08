"""What are the weights of a model with an adapter merged into it? Those that peft's own merge gives, to the bit.

    adapted = merged(model, adapter)       a model of its own; weights that the adapter leaves alone share memory
    patch = adapter_patch(subject, adapter)    the same as a reversible patch: `with patched(subject, patch): ...`

The merge is peft's (`merge_and_unload`), run on a copy whose untouched weights are the base's own tensors. The base is
never written to. The adapter is first put on a hollow copy, which has the base's shapes and no memory: what does not
fit is refused there, and what the adapter replaces is learnt there.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from glasshouse.data.strangers import strangers_files
from glasshouse.model.adapters.reading import CONFIG, Adapter, check_patterns
from glasshouse.model.finder import unwrapped
from glasshouse.model.quantisation import quantisation
from glasshouse.model.subject import Subject
from glasshouse.values.deltas import Patch, Whole
from glasshouse.values.errors import BadInput

NAME = "default"
PREFIX = "base_model.model."
FIX = "was it trained on this model, and is every file of it there and unmodified?"
MERGED_ELSEWHERE = "merge it with peft (merge_and_unload), save that model, and audit its folder with --base"
Kind = Literal["low rank", "replaced", "rows"]


@dataclass(frozen=True)
class Update:
    """What the adapter does to one module or weight."""

    name: str
    """Path in the base: of the module for a low-rank update and for rows, of the weight for a replaced one."""
    kind: Kind
    rank: int | None = None
    scale: float | None = None
    norm: float | None = None
    """Frobenius norm of the low-rank update; None where the base's weights are needed to tell."""


def fitted(model: PreTrainedModel, adapter: Adapter) -> tuple[Update, ...]:
    """All that the adapter does to this model, which may lie on the meta device. Refuses an adapter that does not
    fit."""
    _check_installed()
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import ModulesToSaveWrapper

    hollow = _copied(model, lambda tensor: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape))
    own = [*hollow.parameters(), *hollow.buffers()]  # kept alive, so that no other tensor takes the identity of one
    adapted = _wrapped(hollow, adapter, low_cpu_mem_usage=True)
    updates: list[Update] = []
    others = {id(tensor) for tensor in own}
    for path, module in adapted.named_modules():
        path = path.removeprefix(PREFIX)
        if isinstance(module, ModulesToSaveWrapper):
            saved = module.modules_to_save[NAME]
            updates += [Update(f"{path}.{name}", "replaced") for name, _ in saved.named_parameters()]
            others |= {id(tensor) for tensor in module.parameters()}
        elif isinstance(module, TrainableTokensLayer):
            updates.append(Update(path.removesuffix(".token_adapter"), "rows"))
            others |= {id(tensor) for tensor in module.parameters()}
        elif isinstance(module, LoraLayer):
            layer: Any = module  # a mixin, whose type has neither weights nor a product
            scale, norm = float(layer.scaling[NAME]), float(layer.get_delta_weight(NAME).double().norm())
            updates.append(Update(path, "low rank", int(layer.r[NAME]), scale, norm))
            others |= {id(tensor) for name, tensor in layer.named_parameters() if "lora_" in name}
    for name, tensor in adapted.named_parameters():
        if id(tensor) not in others:
            updates.append(Update(_plain(name), "replaced"))
    return tuple(updates)


def merged(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """A model with the adapter's updates in its weights. The base stays as it is; both hold the tensors that the
    adapter leaves alone, so neither may be written to in place."""
    _check_installed()
    from peft.tuners.tuners_utils import BaseTunerLayer

    _check_mergeable(model, adapter)
    replaced = {update.name for update in fitted(model, adapter) if update.kind == "replaced"}
    view = _copied(model, lambda tensor: tensor.detach())
    for name, parameter in view.named_parameters():
        if name in replaced:
            parameter.data = parameter.data.clone()  # peft writes the adapter's values into it
    adapted = _wrapped(view, adapter)
    for module in adapted.modules():
        if isinstance(module, BaseTunerLayer):
            for parameter in module.get_base_layer().parameters(recurse=False):
                parameter.data = parameter.data.clone()  # peft adds to it in place
    with strangers_files(adapter.folder, "this adapter cannot be merged", FIX), torch.no_grad():
        result = adapted.merge_and_unload().eval()
    _check_merged(model, result, adapter)
    for own, parameter in zip(model.parameters(), result.parameters(), strict=True):
        parameter.requires_grad_(own.requires_grad)
    return result


def adapter_patch(subject: Subject, adapter: Adapter) -> Patch:
    """The adapter as a patch of an opened base."""
    base = unwrapped(subject.model)
    before = dict(base.named_parameters())
    changed = {
        name: Whole(after.detach())
        for name, after in merged(base, adapter).named_parameters()
        if after.data_ptr() != before[name].data_ptr()
    }
    return Patch(changed)


def _copied(model: PreTrainedModel, tensor_of: Callable[[Tensor], Tensor]) -> PreTrainedModel:
    """The model's modules again, around other tensors; what is tied stays tied."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(tensor_of(parameter), requires_grad=False) for parameter in model.parameters()
    }
    memo |= {id(buffer): tensor_of(buffer) for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _wrapped(model: PreTrainedModel, adapter: Adapter, *, low_cpu_mem_usage: bool = False) -> Any:
    """The model inside peft's wrapper, with the adapter's weights loaded and every one of them used."""
    from peft import LoraConfig, PeftModel

    file = adapter.folder / CONFIG
    check_patterns(adapter, [name for name, _ in model.named_modules()])
    with _unwarned(), strangers_files(adapter.folder, "this adapter does not fit the model", FIX):
        config = LoraConfig(**adapter.settings, inference_mode=True)
        adapted = PeftModel(model, config, NAME, low_cpu_mem_usage=low_cpu_mem_usage)
        result = adapted.load_adapter(
            str(adapter.folder), NAME, torch_device="cpu", low_cpu_mem_usage=low_cpu_mem_usage
        )
    _check_saved(adapted, adapter)
    if result.unexpected_keys:
        keys = sorted(result.unexpected_keys)
        raise BadInput(
            f"{adapter.folder}: {len(keys)} of its weights match no module, first {_plain(keys[0])}; "
            f"is the base right, and do target_modules and modules_to_save in {file} name all of them?"
        )
    missing = sorted({*result.missing_keys, *(name for name, tensor in adapted.named_parameters() if tensor.is_meta)})
    if missing:
        raise BadInput(
            f"{adapter.folder}: {len(missing)} of the adapter's weights are missing, first {_plain(missing[0])}; {FIX}"
        )
    return adapted


def _check_installed() -> None:
    if find_spec("peft") is None:
        raise BadInput("an adapter needs peft: pip install peft")


def _check_saved(adapted: Any, adapter: Adapter) -> None:
    """Refuse names of whole modules that the base lacks, which peft passes over."""
    from peft.utils.other import ModulesToSaveWrapper

    paths = [path for path, module in adapted.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    for name in adapter.settings.get("modules_to_save", ()):
        if not any(path.endswith(name) for path in paths):
            raise BadInput(
                f"{adapter.folder / CONFIG}: modules_to_save names {name}, and no module of the base is called so; "
                "is the base right?"
            )


def _check_mergeable(model: PreTrainedModel, adapter: Adapter) -> None:
    if scheme := quantisation(model.config):
        raise BadInput(
            f"{adapter.folder}: its base is quantised ({scheme.label}), so merging would round every weight again; "
            "give the unquantised base: --base FOLDER"
        )
    offloaded = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if offloaded:
        raise BadInput(
            f"{adapter.folder}: the base's {offloaded[0]} is offloaded and cannot be merged; open it on one device"
        )


def _check_merged(base: PreTrainedModel, result: PreTrainedModel, adapter: Adapter) -> None:
    """Refuse a merge after which the model is no longer of the base's form, or holds what is no number."""
    before = dict(base.named_parameters(remove_duplicate=False))
    after = dict(result.named_parameters(remove_duplicate=False))
    if before.keys() != after.keys():
        name = sorted(before.keys() ^ after.keys())[0]
        raise BadInput(f"{adapter.folder}: merged, it has other weights than its base, first {name}; {FIX}")
    tied: dict[int, int] = {}
    for name, weight in before.items():
        new = after[name]
        if new.shape != weight.shape:
            raise BadInput(
                f"{adapter.folder}: {name} is {tuple(new.shape)} in the adapter and {tuple(weight.shape)} in the base; "
                "extend the base's vocabulary first and give that: --base FOLDER"
            )
        if tied.setdefault(id(weight), id(new)) != id(new):
            raise BadInput(
                f"{adapter.folder}: {name} is tied to another weight of the base, and the adapter changes only one of "
                f"the two; {MERGED_ELSEWHERE}"
            )
        new.data = new.data.to(weight.dtype)
        if new.data_ptr() != weight.data_ptr() and not bool(new.isfinite().all()):
            raise BadInput(f"{adapter.folder}: {name} holds NaN or infinity once merged; use --dtype float32")


def _plain(name: str) -> str:
    """A name in peft's wrapper as the base has it."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".").replace(f".{NAME}.", ".")


@contextmanager
def _unwarned() -> Iterator[None]:
    """Inside, peft's warnings are kept quiet: what they warn of is checked and refused here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

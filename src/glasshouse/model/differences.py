"""What differs between two models? Every weight of every part, one tensor at a time, and what is no weight.

    for difference in weight_differences(subject, base):      # only what differs; nothing is kept between two of them
        difference.name, difference.part, difference.status
        difference.delta, difference.rounding                 # in float32 on the CPU
    setting_differences(subject, base)                        # ("chat template", "generation configuration")
    differing_parts(subject, base)                            # ("chat template", "language", "projector")

Weights are all parameters and stored buffers. A weight that both models tie to another is listed once, under the name
that comes first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from glasshouse.model.anatomy import Anatomy
from glasshouse.model.finder import unwrapped
from glasshouse.model.identity import config_text
from glasshouse.model.subject import Subject
from glasshouse.numerics.spectra import rounding_floor
from glasshouse.values.errors import BadInput

WeightPart = Literal["vision", "projector", "language", "embeddings", "head", "elsewhere"]
Status = Literal["same", "changed", "retyped", "reshaped", "added", "removed"]
"""`retyped`: equal values in another type. `added` and `removed`: only the model, or only the base, has the weight."""


@dataclass(frozen=True, eq=False)
class WeightDifference:
    """One weight before and after. `base` and `after` are computed when they are read, and kept with this object."""

    name: str
    """As in the model's state."""
    part: WeightPart
    stored_base: Tensor | None
    """The base's own tensor; None where it has none of this name."""
    stored_after: Tensor | None

    @cached_property
    def status(self) -> Status:
        before, after = self.stored_base, self.stored_after
        if before is None or after is None:
            return "added" if before is None else "removed"
        if before.shape != after.shape:
            return "reshaped"
        if before.is_meta or after.is_meta:
            raise BadInput(f"{self.name}: this weight is offloaded and cannot be compared; open both models whole")
        moved = before.to(after.device)
        if before.dtype == after.dtype:
            return "same" if torch.equal(after, moved) else "changed"
        return "retyped" if torch.equal(after.double(), moved.double()) else "changed"

    @cached_property
    def base(self) -> Float[Tensor, "..."]:
        """In float32 on the CPU."""
        return _read(self.name, self.stored_base, "base")

    @cached_property
    def after(self) -> Float[Tensor, "..."]:
        return _read(self.name, self.stored_after, "model")

    @cached_property
    def delta(self) -> Float[Tensor, "..."]:
        """What is added to the base's weight."""
        if self.base.shape != self.after.shape:
            raise BadInput(f"{self.name}: {tuple(self.after.shape)} in the model and {tuple(self.base.shape)} in the "
                           "base have no difference; give the model that this one was fine-tuned from")  # fmt: skip
        return self.after - self.base

    @cached_property
    def rounding(self) -> float:
        """For a matrix: the largest singular value that rounding alone can give its delta."""
        return max(rounding_floor(self.base), rounding_floor(self.after))

    @property
    def relative_size(self) -> float:
        """Norm of the delta, relative to the norm of the base's weight."""
        return float(self.delta.norm() / self.base.norm().clamp_min(1e-30))

    @property
    def module(self) -> str:
        """Path of the module that holds it."""
        return self.name.rpartition(".")[0]

    @property
    def layer(self) -> str:
        """Last part of that path, a short name."""
        return self.module.rpartition(".")[2]


def weight_differences(subject: Subject, base: Subject) -> Iterator[WeightDifference]:
    """Every weight that is not the same in both, in the model's order, then those that only the base has."""
    for difference in compared_weights(subject, base):
        if difference.status != "same":
            yield difference


def compared_weights(subject: Subject, base: Subject) -> Iterator[WeightDifference]:
    """Every weight of either model, whether it differs or not."""
    after, before = state(subject), state(base)
    seen: set[tuple[int, int]] = set()
    for name in (*after, *(name for name in before if name not in after)):
        pair = before.get(name), after.get(name)
        if (identity := (id(pair[0]), id(pair[1]))) in seen:
            continue  # tied in both models
        seen.add(identity)
        owner = subject if name in after else base
        yield WeightDifference(name, part_of(owner, name), *(tensor if tensor is None else tensor.detach()
                                                             for tensor in pair))  # fmt: skip


def differing_parts(subject: Subject, base: Subject) -> tuple[str, ...]:
    """Parts whose weights differ, and settings that differ, in order of name."""
    parts: set[str] = {difference.part for difference in weight_differences(subject, base)}
    return tuple(sorted({*parts, *setting_differences(subject, base)}))


def setting_differences(subject: Subject, base: Subject) -> tuple[str, ...]:
    """What differs and is no weight: configurations, chat template, tokenizer, image processor."""
    after, before = settings(subject), settings(base)
    return tuple(name for name in {**before, **after} if before.get(name) != after.get(name))


def state(subject: Subject) -> Mapping[str, Tensor]:
    """All weights by name, as the model holds them; tied weights are one object under several names."""
    return {
        name: value
        for name, value in unwrapped(subject.model).state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }


def part_of(subject: Subject, name: str) -> WeightPart:
    """The part of the model that a weight belongs to."""
    return part_in(paths_of_parts(unwrapped(subject.model), subject.anatomy), name)


def part_in(paths: Mapping[str, WeightPart], name: str) -> WeightPart:
    """The part with the longest path that the name of a weight or module begins with."""
    inside = [path for path in paths if not path or f"{name}.".startswith(f"{path}.")]
    return paths[max(inside, key=len)] if inside else "elsewhere"


def paths_of_parts(model: PreTrainedModel, anatomy: Anatomy) -> dict[str, WeightPart]:
    """Module paths of a model's parts; the model may lie on the meta device."""
    paths: dict[str, WeightPart] = {}
    if anatomy.language is not None:
        paths[anatomy.language.path] = "language"
    if anatomy.vision is not None:
        paths[anatomy.vision.path] = "vision"
    if anatomy.language is not None:
        table = model.get_input_embeddings()
        paths |= {path: "embeddings" for path, module in model.named_modules() if module is table}
        if anatomy.language.unembedding is not None:
            paths[anatomy.language.unembedding] = "head"
    if anatomy.projector is not None:
        paths |= dict.fromkeys(anatomy.projector.paths, "projector")
    return paths


def settings(subject: Subject) -> dict[str, str]:
    """All that steers a model and is no weight, as text, by what it is."""
    model = unwrapped(subject.model)
    generation = getattr(model, "generation_config", None)
    texts = {"configuration": config_text(model.config)}
    if generation is not None:
        texts["generation configuration"] = generation.to_json_string(use_diff=True, ignore_metadata=True)
    return texts | (subject.prompts.settings() if subject.prompts.original is not None else {})


def _read(name: str, stored: Tensor | None, owner: str) -> Tensor:
    if stored is None:
        raise BadInput(f"{name}: the {owner} has no such weight; give the model that this one was fine-tuned from")
    if stored.is_meta:
        raise BadInput(f"{name}: this weight is offloaded and cannot be read; open both models whole")
    return stored.cpu().float()

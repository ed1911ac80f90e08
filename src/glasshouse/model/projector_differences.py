"""What was changed in the projector between a base and a model that was fine-tuned from it?

projector_weights(subject)                      matrices of its linear layers, by name in order of use
projector_differences(subject, base)            the same before and after, in float32
projector_bias_deltas(subject, base)            what was added to each bias
changed_besides_projector(subject, base)        other parts of the model whose weights differ
"""

from collections.abc import Iterator, Mapping

from jaxtyping import Float
from torch import Tensor

from glasshouse.model.differences import WeightDifference, state, weight_differences
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput


def projector_linears(subject: Subject) -> tuple[str, ...]:
    """Paths of the projector's linear layers in order of use. Refuses a model without any."""
    projector = subject.anatomy.projector
    if projector is None or not projector.linears:
        raise BadInput(
            f"{subject.name}: no projector with linear layers was found ({subject.anatomy.family}); give a model "
            "whose vision tower is connected to its language model by linear layers"
        )
    return projector.linears


def projector_weights(subject: Subject) -> dict[str, Float[Tensor, "out inner"]]:
    """The projector's matrices in float32 on the CPU, by name in order of use."""
    weights = state(subject)
    names = [f"{path}.weight" for path in projector_linears(subject)]
    return {name: _plain(subject, name, weights).cpu().float() for name in names}


def projector_differences(subject: Subject, base: Subject) -> tuple[WeightDifference, ...]:
    """The projector's matrices in order of use, before and after, changed or not. Refuses unrelated models."""
    return tuple(_compared(subject, base, "weight"))


def projector_bias_deltas(subject: Subject, base: Subject) -> dict[str, Float[Tensor, " out"]]:
    """What was added to each bias of those layers."""
    return {difference.name: difference.delta for difference in _compared(subject, base, "bias")}


def changed_besides_projector(subject: Subject, base: Subject) -> tuple[str, ...]:
    """Parts with a weight that differs from the base's, apart from the projector's linear layers."""
    linears = projector_linears(subject)
    differing = (difference for difference in weight_differences(subject, base) if difference.module not in linears)
    return tuple(sorted({difference.part for difference in differing}))


def _compared(subject: Subject, base: Subject, kind: str) -> Iterator[WeightDifference]:
    if projector_linears(subject) != projector_linears(base):
        raise BadInput(
            f"{base.name} ({base.anatomy.family}) is no base of {subject.name} ({subject.anatomy.family}): their "
            "projectors have different layers; give the model that this one was fine-tuned from"
        )
    after, before = state(subject), state(base)
    for path in projector_linears(subject):
        name = f"{path}.{kind}"
        if kind == "bias" and name not in after and name not in before:
            continue
        old, new = _plain(base, name, before), _plain(subject, name, after)
        if old.shape != new.shape:
            raise BadInput(
                f"{name}: {tuple(new.shape)} in {subject.name}, {tuple(old.shape)} in {base.name}; "
                "give the model that this one was fine-tuned from"
            )
        yield WeightDifference(name, "projector", old, new)


def _plain(subject: Subject, name: str, weights: Mapping[str, Tensor]) -> Tensor:
    """The weight as it is stored, if it can be read."""
    if name not in weights:
        path, _, kind = name.rpartition(".")
        why = f"holds no plain {kind} (quantised?); open it unquantised"
        if f"{path}.base_layer.{kind}" in weights:
            why = "has an adapter on it; merge it into the model (merge_and_unload) and open that"
        raise BadInput(f"{subject.name}: {path} {why}")
    weight = weights[name].detach()
    if weight.is_meta or not weight.is_floating_point():
        raise BadInput(
            f"{subject.name}: {name} is quantised or offloaded; open the model whole, in float32, bfloat16 or float16"
        )
    return weight

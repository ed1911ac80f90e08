"""Which repairs of a projector need no base? Each takes a suspect and some clean examples, and gives a patch.

fine-tuning    goes on training the projector on the clean examples
fine-pruning   silences the hidden units that clean images use least, then fine-tunes (Liu et al. 2018)
CLP            silences output rows of unusual norm, without any data (Zheng et al. 2022)
ANP            silences hidden units that a small adversarial scaling makes misbehave (Wu and Wang 2021)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._changed import matrices
from glasshouse.methods.backdoor._rehearsed import Rehearsed
from glasshouse.methods.backdoor._shift import tokens
from glasshouse.model.finetuning import Tuning, finetune
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.model.training import Schedule
from glasshouse.values.changes import Mask, Plan, Zero
from glasshouse.values.deltas import Delta, Dense, Patch
from glasshouse.values.sites import projector

BATCH = 16


def tuned(subject: Subject, examples: Examples, steps: int, rate: float, seed: int, batch: int = BATCH) -> Patch:
    """The projector trained on the examples' answers."""
    schedule = Schedule(steps, rate, warmup=min(5, steps), decay=0.0)
    return finetune(subject, examples, Tuning(schedule=schedule, batch=min(BATCH, batch, len(examples)), seed=seed))


def fine_pruned(
    subject: Subject, examples: Examples, share: float, steps: int, rate: float, seed: int, batch: int = BATCH
) -> Patch:  # fmt: skip
    """Silence the units that clean images use least, then train on; they stay silent."""
    activity = tokens(subject, projector.hidden, examples, batch)[0].abs().mean(0)
    idle = activity.argsort()[: int(share * len(activity))].tolist()
    if not idle:
        return tuned(subject, examples, steps, rate, seed, batch)
    with edited(subject, Plan({projector.hidden[:, tuple(idle)]: Zero()})):
        learnt = tuned(subject, examples, steps, rate, seed, batch)
    ((name, gone),) = _silenced(subject, idle).deltas.items()
    moved = learnt.deltas[name]
    assert isinstance(gone, Dense)
    assert isinstance(moved, Dense)
    kept = moved.values.clone()
    kept[:, idle] = gone.values[:, idle]
    return Patch({**learnt.deltas, name: Dense(kept)})


def lipschitz_pruned(subject: Subject, spread: float) -> Patch:
    """Silence rows whose norm is more than `spread` deviations above the mean of their layer."""
    deltas = dict[str, Delta]()
    for name, weight in matrices(subject).items():
        norms = weight.norm(dim=1)
        high = norms > norms.mean() + spread * norms.std()
        deltas[name] = Dense(torch.where(high[:, None], -weight, torch.zeros_like(weight)))
    return Patch(deltas)


def adversarially_pruned(
    subject: Subject, examples: Examples, steps: int, batch: int = BATCH, bound: float = 0.4, least: float = 0.2
) -> Patch:  # fmt: skip
    """A mask over hidden units, trained to keep the right answers while an adversary scales units by up to `bound`;
    units whose mask falls below `least` are silenced."""
    ready = Rehearsed.of(subject, examples, batch)
    units = tokens(subject, projector.hidden, examples[:1], 1)[0].shape[-1]
    values = torch.ones(units, device=subject.model.device)
    for _ in range(steps):
        slope = _gradient(subject, ready, values)
        worst = _gradient(subject, ready, (values + bound * slope.sign()).detach())
        with torch.no_grad():
            step = 0.5 * slope + 0.5 * worst
            values = (values - 0.2 * step / step.abs().max().clamp_min(1e-12)).clamp(0, 1)
    return _silenced(subject, (values < least).nonzero()[:, 0].tolist())


def _gradient(subject: Subject, ready: Rehearsed, values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
    """Of the loss on clean examples, with respect to a mask over hidden units."""
    free = values.detach().clone().requires_grad_(True)
    with edited(subject, Plan({projector.hidden: Mask(free)})):
        return -ready.gradient(subject, free)


def _silenced(subject: Subject, units: Sequence[int]) -> Patch:
    """Hidden units write nothing any more."""
    name, weight = [*matrices(subject).items()][-1]
    gone = torch.zeros_like(weight)
    gone[:, list(units)] = -weight[:, list(units)]
    return Patch({name: Dense(gone)})

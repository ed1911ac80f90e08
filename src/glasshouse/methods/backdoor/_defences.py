"""Which repairs of a projector need no base? Each takes a suspect and clean examples, and gives a patch.

fine-tuning    trains the projector on the clean examples
fine-pruning   silences the hidden neurons that clean images activate least, then fine-tunes (Liu et al. 2018)
CLP            silences output rows of unusual norm; needs no data (Zheng et al. 2022)
ANP            silences hidden neurons whose small adversarial scaling causes errors (Wu and Wang 2021)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.finetuning import Tuning, finetune
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.projector_differences import projector_weights
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.model.token_activations import token_activations
from glasshouse.model.training import Schedule
from glasshouse.values.changes import Mask, Plan, Zero
from glasshouse.values.deltas import Delta, Dense, Patch
from glasshouse.values.sites import projector

BATCH = 16
"""Training examples per step."""


def fine_tuned(
    subject: Subject, examples: Examples, steps: int, learning_rate: float, seed: int, batch: int = BATCH
) -> Patch:  # fmt: skip
    """The projector trained on the examples' answers."""
    schedule = Schedule(steps, learning_rate, warmup=min(5, steps), decay=0.0)
    return finetune(subject, examples, Tuning(schedule=schedule, batch=min(BATCH, batch, len(examples)), seed=seed))


def fine_pruned(
    subject: Subject, examples: Examples, fraction: float, steps: int, learning_rate: float, seed: int,
    batch: int = BATCH,
) -> Patch:  # fmt: skip
    """Silence the fraction of neurons that clean images activate least, then fine-tune; they stay silent."""
    activity = token_activations(subject, projector.hidden, examples, batch)[0].abs().mean(0)
    idle = activity.argsort()[: int(fraction * len(activity))].tolist()
    if not idle:
        return fine_tuned(subject, examples, steps, learning_rate, seed, batch)
    with edited(subject, Plan({projector.hidden[:, tuple(idle)]: Zero()})):
        tuned = fine_tuned(subject, examples, steps, learning_rate, seed, batch)
    ((name, silenced),) = _silenced(subject, idle).deltas.items()
    update = tuned.deltas[name]
    assert isinstance(silenced, Dense)
    assert isinstance(update, Dense)
    values = update.values.clone()
    values[:, idle] = silenced.values[:, idle]
    return Patch({**tuned.deltas, name: Dense(values)})


def lipschitz_pruned(subject: Subject, deviations: float) -> Patch:
    """Silence rows whose norm is more than this many standard deviations above their layer's mean."""
    deltas = dict[str, Delta]()
    for name, weight in projector_weights(subject).items():
        norms = weight.norm(dim=1)
        high = norms > norms.mean() + deviations * norms.std()
        deltas[name] = Dense(torch.where(high[:, None], -weight, torch.zeros_like(weight)))
    return Patch(deltas)


def adversarially_pruned(
    subject: Subject, examples: Examples, steps: int, batch: int = BATCH, bound: float = 0.4, threshold: float = 0.2
) -> Patch:  # fmt: skip
    """Train a mask over hidden neurons to keep the correct answers while an adversary scales neurons by up to `bound`;
    silence the neurons whose mask falls below `threshold`."""
    clean = ForcedDecoding.of(subject, examples, batch)
    neurons = token_activations(subject, projector.hidden, examples[:1], 1)[0].shape[-1]
    mask = torch.ones(neurons, device=subject.model.device)
    for _ in range(steps):
        gradient = _loss_gradient(subject, clean, mask)
        adversarial = _loss_gradient(subject, clean, (mask + bound * gradient.sign()).detach())
        with torch.no_grad():
            step = 0.5 * gradient + 0.5 * adversarial
            mask = (mask - 0.2 * step / step.abs().max().clamp_min(1e-12)).clamp(0, 1)
    return _silenced(subject, (mask < threshold).nonzero()[:, 0].tolist())


def _loss_gradient(subject: Subject, clean: ForcedDecoding, mask: Float[Tensor, " neurons"]) -> Tensor:
    """Of the loss on clean examples, in a mask over hidden neurons."""
    variable = mask.detach().clone().requires_grad_(True)
    with edited(subject, Plan({projector.hidden: Mask(variable)})):
        return -clean.gradient(subject, variable)


def _silenced(subject: Subject, neurons: Sequence[int]) -> Patch:
    """The patch under which these hidden neurons have no effect."""
    name, weight = [*projector_weights(subject).items()][-1]
    delta = torch.zeros_like(weight)
    delta[:, list(neurons)] = -weight[:, list(neurons)]
    return Patch({name: Dense(delta)})

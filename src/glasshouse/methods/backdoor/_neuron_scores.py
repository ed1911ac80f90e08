"""How strongly is each hidden neuron of the projector involved with a trigger? Four scores, from activations and one
gradient."""

from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.pairs import Pairs
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.model.token_activations import check_aligned, token_activations
from glasshouse.numerics.statistics import auroc, holm
from glasshouse.values.changes import Mask, Plan
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector

SCORES = ("separation", "difference in differences", "trigger-activated change", "contribution")


@dataclass(frozen=True)
class NeuronScores:
    """Every neuron's scores."""

    values: Float[Tensor, "scores neurons"]
    """In the order of SCORES, signed."""
    significant: int
    """Neurons whose AUROC differs from chance, after Holm's correction over all neurons and statistics."""
    activity: Float[Tensor, " neurons"]
    """Mean absolute activation on clean images."""


def neuron_scores(subject: Subject, base: Subject, pairs: Pairs, batch_size: int) -> NeuronScores:
    """Score every neuron on clean and triggered twins."""
    clean, triggered, base_clean, base_triggered = (
        token_activations(model, projector.hidden, examples, batch_size)[0]
        for model in (subject, base)
        for examples in (pairs.clean, pairs.triggered)
    )
    check_aligned(clean, triggered, base_clean, base_triggered)
    if len(clean) % len(pairs):
        raise BadInput(f"{len(clean)} image tokens for {len(pairs)} examples: give images of one size")
    neurons, tokens = clean.shape[1], len(clean) // len(pairs)
    by_image = [_statistics(values.view(len(pairs), tokens, neurons)) for values in (clean, triggered)]
    aurocs, p = _aurocs(*by_image)
    strongest = (aurocs - 0.5).abs().max(0)
    separation = aurocs.gather(0, strongest.indices[None])[0] - 0.5
    difference = (triggered.mean(0) - clean.mean(0)) - (base_triggered.mean(0) - base_clean.mean(0))
    change = (triggered - clean).abs().mean(0)
    adjusted = holm(p.flatten()).view_as(p)
    contribution = _contribution(subject, ForcedDecoding.of(subject, pairs.triggered, batch_size), neurons)
    return NeuronScores(
        torch.stack([separation, difference, change, contribution]).float(),
        int((adjusted.min(0).values < 0.05).sum()), clean.abs().mean(0),
    )  # fmt: skip


def _statistics(values: Float[Tensor, "images tokens neurons"]) -> Float[Tensor, "statistics images neurons"]:
    """Mean, 95th percentile and maximum over an image's tokens."""
    ordered = values.sort(1).values
    high = ordered[:, min(values.shape[1] - 1, round(0.95 * (values.shape[1] - 1)))]
    return torch.stack([values.mean(1), high, ordered[:, -1]])


def _aurocs(clean: Tensor, triggered: Tensor) -> tuple[Tensor, Tensor]:
    """By statistic and neuron: AUROC of triggered against clean, and its two-sided p-value (normal approximation)."""
    statistics, images, neurons = clean.shape
    positive = torch.cat([torch.zeros(images), torch.ones(images)]).bool()
    aurocs = torch.tensor(
        [
            [auroc(torch.cat([clean[s, :, n], triggered[s, :, n]]), positive) for n in range(neurons)]
            for s in range(statistics)
        ]
    )
    spread = ((2 * images + 1) / (12 * images * images)) ** 0.5
    normal = NormalDist()
    p = [[2 * (1 - normal.cdf(abs(value - 0.5) / spread)) for value in row] for row in aurocs.tolist()]
    return aurocs, torch.tensor(p)


def _contribution(subject: Subject, triggered: ForcedDecoding, neurons: int) -> Float[Tensor, " neurons"]:
    """Gradient times activation of the target's log-probability, summed over tokens and examples: the gradient in a
    mask of ones."""
    mask = Mask.ones(neurons, device=subject.model.device)
    with edited(subject, Plan({projector.hidden: mask})):
        return triggered.gradient(subject, mask.values).cpu()

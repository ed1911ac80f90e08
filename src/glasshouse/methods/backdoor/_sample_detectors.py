"""Does a single image carry a trigger? Published detectors as baselines; a higher score means more suspect.

STRIP                  the answer stays the same when the image is mixed with others (Gao et al. 2019)
spectral signatures    the image lies far along the main direction of all images' mean tokens (Tran et al. 2018)
activation clustering  the image lies in the smaller of two clusters of them (Chen et al. 2018)
attention entropy      the last token attends to few of the image's tokens (BYE, Rong et al. 2025)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.data.pairs import Pairs
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.model.token_activations import mean_by_example, token_activations
from glasshouse.numerics.decompositions import svd
from glasshouse.numerics.statistics import auroc
from glasshouse.values.findings import Interval
from glasshouse.values.sites import language, projector

MIXTURES = 6
"""How many other images each image is mixed with."""
TRIGGERED_FRACTION = 0.2
"""Triggered images among all: the detectors that compare many images assume that they are a minority."""


@torch.no_grad()
def sample_detector_aurocs(subject: Subject, pairs: Pairs, batch_size: int, seed: int) -> Mapping[str, Interval]:
    """AUROC of each detector, triggered against clean, with an interval over images."""
    clean = pairs.clean
    count = max(2, round(TRIGGERED_FRACTION / (1 - TRIGGERED_FRACTION) * len(clean)))
    mixed = Examples([*clean, *pairs.triggered[:count]])
    positive = torch.arange(len(mixed)) >= len(clean)
    pooled = mean_by_example(*token_activations(subject, projector.output, mixed, batch_size)).double()
    scores = {
        "STRIP": _strip(subject, mixed, clean, batch_size),
        "spectral signatures": _spectral_signature(pooled),
        "activation clustering": _smaller_cluster(pooled),
        "attention entropy": _attention_entropy(subject, mixed, batch_size),
    }
    return {name: _auroc(score, positive, seed) for name, score in scores.items()}


def _auroc(score: Tensor, positive: Tensor, seed: int) -> Interval:
    pairs = torch.stack([score.double(), positive.double()], 1)

    def statistic(sample: Tensor) -> Tensor:
        truth = sample[:, 1] > 0.5
        return torch.tensor(auroc(sample[:, 0], truth) if truth.any() and not truth.all() else 0.5)

    return Interval.bootstrap(statistic, pairs, seed=seed, draws=200)


def _strip(subject: Subject, examples: Examples, others: Examples, batch_size: int) -> Float[Tensor, " examples"]:
    """Negative mean entropy of the first token over mixtures."""
    mixtures = Examples(
        _mixture(example, others[(number * 7 + 3 * turn + 1) % len(others)])
        for number, example in enumerate(examples)
        for turn in range(MIXTURES)
    )
    entropies: list[Tensor] = []
    for start in range(0, len(mixtures), batch_size):
        prompts = [replace(mixture, answer=None) for mixture in mixtures[start : start + batch_size]]
        log_probabilities = subject.logits(prompts).log_softmax(-1)
        entropies.append(-(log_probabilities.exp() * log_probabilities).sum(-1).cpu())
    return -torch.cat(entropies).view(len(examples), MIXTURES).mean(1)


def _mixture(example: Example, other: Example) -> Example:
    """The mean of both images."""
    first, second = example.images[0].open(), other.images[0].open()
    mean = np.asarray(first, np.float32) / 2 + np.asarray(second.resize(first.size), np.float32) / 2
    mixed = StoredImage.png(Image.fromarray(mean.round().astype(np.uint8)))
    return replace(example, images=(mixed, *example.images[1:]))


def _spectral_signature(pooled: Float[Tensor, "images width"]) -> Float[Tensor, " images"]:
    """Squared projection on the first principal direction."""
    centred = pooled - pooled.mean(0)
    return (centred @ svd(centred)[2][0]).square()


def _smaller_cluster(pooled: Float[Tensor, "images width"], turns: int = 20) -> Float[Tensor, " images"]:
    """Two-means in the plane of the first two principal directions: nearness to the smaller cluster's centre."""
    centred = pooled - pooled.mean(0)
    plane = centred @ svd(centred)[2][:2].T
    centres = plane[[int(plane[:, 0].argmin()), int(plane[:, 0].argmax())]]
    nearest = torch.zeros(len(plane), dtype=torch.long)
    for _ in range(turns):
        nearest = torch.cdist(plane, centres).argmin(1)
        clusters: Sequence[Tensor] = [plane[nearest == k] for k in (0, 1)]
        centres = torch.stack([part.mean(0) if len(part) else centres[k] for k, part in enumerate(clusters)])
    distances = torch.cdist(plane, centres)
    smaller = int(torch.bincount(nearest, minlength=2).argmin())
    return distances[:, 1 - smaller] - distances[:, smaller]


def _attention_entropy(subject: Subject, examples: Examples, batch_size: int) -> Float[Tensor, " images"]:
    """Negative entropy of the last token's attention over the image, averaged over the layers in which it is bimodal,
    or over all layers where it is so in none."""
    image = language.embeddings @ "image"
    activations = record(subject, [image, language.pattern @ "last"], examples, batch_size=batch_size)
    positions, owners = activations.positions(image).cpu(), activations.examples(image).cpu()
    layers: list[Tensor] = []
    for site in (site for site in activations if site.kind == "pattern"):
        attention = activations[site].float().mean(1).cpu()
        rows = [attention[number, positions[owners == number]] for number in range(len(examples))]
        shares = [row / row.sum().clamp_min(1e-12) for row in rows]
        layers.append(torch.stack([-(row * row.clamp_min(1e-12).log()).sum() for row in shares]))
    bimodal = [layer for layer in layers if _bimodal(layer)]
    return -torch.stack(bimodal or layers).mean(0)


def _bimodal(values: Float[Tensor, " images"]) -> bool:
    """Whether the best split in two leaves means more than twice the sum of both standard deviations apart."""
    if len(values) < 6:
        return False
    ordered = values.double().sort().values
    splits = [(ordered[:k], ordered[k:]) for k in range(2, len(ordered) - 1)]
    low, high = min(splits, key=lambda halves: float(sum(part.var(correction=0) * len(part) for part in halves)))
    return bool(high.mean() - low.mean() > 2 * (high.std(correction=0) + low.std(correction=0)))

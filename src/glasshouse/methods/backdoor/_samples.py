"""Can single pictures be told to carry a trigger? Detectors of samples, as baselines, each a score that is higher where
a picture is suspected.

STRIP                  the answer stays the same when the picture is mixed with others (Gao et al. 2019)
spectral signatures    the picture lies far along the main direction of all pictures' mean tokens (Tran et al. 2018)
activation clustering  the picture lies in the smaller of two clusters of them (Chen et al. 2018)
attention entropy      the last token looks at few of the picture's (BYE, Rong et al. 2025)
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.methods.backdoor._shift import means, tokens
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.numerics.decompositions import svd
from glasshouse.numerics.statistics import auroc
from glasshouse.values.findings import Interval
from glasshouse.values.sites import language, projector

MIXED = 6
"""How many other pictures each is mixed with."""
SHARE = 0.2
"""Triggered pictures among all, for the detectors that look at many pictures at once: more would make them the rule."""


@torch.no_grad()
def sample_detectors(
    subject: Subject, clean: Examples, triggered: Examples, batch_size: int, seed: int
) -> Mapping[str, Interval]:
    """AUROC of each, triggered against clean, with an interval over pictures."""
    few = triggered[: max(2, round(SHARE / (1 - SHARE) * len(clean)))]
    both = Examples([*clean, *few])
    positive = torch.arange(len(both)) >= len(clean)
    values, image = tokens(subject, projector.output, both, batch_size)
    pooled = means(values, image).double()
    scores = {
        "STRIP": _strip(subject, both, clean, batch_size),
        "spectral signatures": _far_along(pooled),
        "activation clustering": _in_the_smaller(pooled),
        "attention entropy": _narrow(subject, both, batch_size),
    }
    return {name: _auroc(score, positive, seed) for name, score in scores.items()}


def _auroc(score: Tensor, positive: Tensor, seed: int) -> Interval:
    pairs = torch.stack([score.double(), positive.double()], 1)

    def of(some: Tensor) -> Tensor:
        truth = some[:, 1] > 0.5
        return torch.tensor(auroc(some[:, 0], truth) if truth.any() and not truth.all() else 0.5)

    return Interval.bootstrap(of, pairs, seed=seed, draws=200)


def _strip(subject: Subject, examples: Examples, others: Examples, batch_size: int) -> Float[Tensor, " examples"]:
    """Less the mean entropy of the first word over mixtures."""
    mixed = Examples(
        _mixture(example, others[(number * 7 + 3 * turn + 1) % len(others)])
        for number, example in enumerate(examples)
        for turn in range(MIXED)
    )
    entropies: list[Tensor] = []
    for start in range(0, len(mixed), batch_size):
        asked = [replace(one, answer=None) for one in mixed[start : start + batch_size]]
        chances = subject.logits(asked).log_softmax(-1)
        entropies.append(-(chances.exp() * chances).sum(-1).cpu())
    return -torch.cat(entropies).view(len(examples), MIXED).mean(1)


def _mixture(example: Example, other: Example) -> Example:
    """Half of each picture."""
    one, two = example.images[0].open(), other.images[0].open()
    mean = np.asarray(one, np.float32) / 2 + np.asarray(two.resize(one.size), np.float32) / 2
    data = io.BytesIO()
    Image.fromarray(mean.round().astype(np.uint8)).save(data, "PNG")
    return replace(example, images=(StoredImage(data=data.getvalue()), *example.images[1:]))


def _far_along(pooled: Float[Tensor, "pictures width"]) -> Float[Tensor, " pictures"]:
    centred = pooled - pooled.mean(0)
    return (centred @ svd(centred)[2][0]).square()


def _in_the_smaller(pooled: Float[Tensor, "pictures width"], turns: int = 20) -> Float[Tensor, " pictures"]:
    """Two means in the plane of the two main directions: nearness to the smaller cluster's centre."""
    centred = pooled - pooled.mean(0)
    plane = centred @ svd(centred)[2][:2].T
    centres = plane[[int(plane[:, 0].argmin()), int(plane[:, 0].argmax())]]
    near = torch.zeros(len(plane), dtype=torch.long)
    for _ in range(turns):
        near = torch.cdist(plane, centres).argmin(1)
        parts: Sequence[Tensor] = [plane[near == k] for k in (0, 1)]
        centres = torch.stack([part.mean(0) if len(part) else centres[k] for k, part in enumerate(parts)])
    distances = torch.cdist(plane, centres)
    smaller = int(torch.bincount(near, minlength=2).argmin())
    return distances[:, 1 - smaller] - distances[:, smaller]


def _narrow(subject: Subject, examples: Examples, batch_size: int) -> Float[Tensor, " pictures"]:
    """Less the entropy of where the last token looks in the picture, over the layers in which it falls into two kinds;
    over all of them where it does so in none."""
    image = language.embeddings @ "image"
    taken = record(subject, [image, language.pattern @ "last"], examples, batch_size=batch_size)
    places, owners = taken.positions(image).cpu(), taken.examples(image).cpu()
    layers: list[Tensor] = []
    for site in (site for site in taken if site.kind == "pattern"):
        shares = taken[site].float().mean(1).cpu()
        rows = [shares[number, places[owners == number]] for number in range(len(examples))]
        chances = [row / row.sum().clamp_min(1e-12) for row in rows]
        layers.append(torch.stack([-(one * one.clamp_min(1e-12).log()).sum() for one in chances]))
    parted = [layer for layer in layers if _parted(layer)]
    return -torch.stack(parted or layers).mean(0)


def _parted(values: Float[Tensor, " pictures"]) -> bool:
    """Whether they fall into two kinds: the best cut leaves means more than two spreads of both apart."""
    if len(values) < 6:
        return False
    ordered = values.double().sort().values
    cuts = [(ordered[:k], ordered[k:]) for k in range(2, len(ordered) - 1)]
    low, high = min(cuts, key=lambda two: float(sum(part.var(correction=0) * len(part) for part in two)))
    return bool(high.mean() - low.mean() > 2 * (high.std(correction=0) + low.std(correction=0)))

"""Which part of a projector's update can be kept? Directions far from a benign update are cut out, and the rest is
scaled down as far as clean accuracy allows.

    search = search_surgery(subject, base, examples, benign, ranks=(3, 5, 8), scales=(0.25, 0.5, 1.0), degrees=50,
                            batch_size=32)
    search.patch, search.chosen
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._defences import fine_tuned
from glasshouse.model.differences import WeightDifference
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.patches import patched
from glasshouse.model.projector_differences import projector_bias_deltas, projector_differences
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import orthonormal
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import leading, principal
from glasshouse.values.blocks import Heatmap
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Interval
from glasshouse.values.wording import percent


@dataclass(frozen=True)
class Cut:
    """One setting of the surgery, and clean accuracy under it."""

    directions: int
    """How many leading directions were compared with the benign update's."""
    scale: float
    """Factor on the part of the update that is kept."""
    accuracy: Interval


@dataclass(frozen=True)
class SurgerySearch:
    """Every setting that was tried, the chosen one, and two nulls."""

    cuts: tuple[Cut, ...]
    chosen: Cut
    patch: Patch
    shrunk: Patch
    """Null: the whole update at the same scale, with nothing cut out."""
    random: Patch
    """Null: the same scale, with as many random directions cut out."""

    def accuracy_grid(self) -> Heatmap:
        """Accuracy on the clean examples by setting; the chosen one is marked."""
        ranks, scales = (
            tuple(dict.fromkeys(getattr(cut, name) for cut in self.cuts)) for name in ("directions", "scale")
        )
        accuracy = {(cut.directions, cut.scale): cut.accuracy.value for cut in self.cuts}
        chosen = (self.chosen.directions, self.chosen.scale)
        texts = tuple(
            tuple(f"{percent(accuracy[rank, scale])}{' *' if (rank, scale) == chosen else ''}" for scale in scales)
            for rank in ranks
        )
        return Heatmap(
            "Accuracy on the clean examples by setting of the surgery (* chosen)",
            torch.tensor([[accuracy[rank, scale] for scale in scales] for rank in ranks]),
            tuple(map(str, ranks)),
            tuple(f"{scale:g}" for scale in scales),
            x="scale of what is kept",
            y="directions compared",
            texts=texts,
        )


def cut_directions(
    suspect: Sequence[WeightDifference], benign: Mapping[str, Tensor], count: int, degrees: float
) -> dict[str, Tensor]:  # fmt: skip
    """By weight, the update without those of its first `count` directions that stand at more than `degrees` to the
    first `count` of the benign update."""
    kept: dict[str, Tensor] = {}
    for layer in suspect:
        steep = _steep_directions(layer.delta, benign[layer.name], count, degrees)
        kept[layer.name] = layer.delta - (layer.delta @ steep) @ steep.T
    return kept


def _steep_directions(delta: Tensor, benign: Tensor, count: int, degrees: float) -> Float[Tensor, "inner k"]:
    cosines, turned = principal(leading(delta, count)[2], leading(benign, count)[2])
    return turned[:, torch.rad2deg(torch.acos(cosines)) > degrees]


def benign_surrogate(
    base: Subject, examples: Examples, steps: int, learning_rate: float, seed: int, batch: int
) -> dict[str, Tensor]:  # fmt: skip
    """Surrogate for a benign update: what a short training of the base on clean examples changes."""
    deltas = fine_tuned(base, examples, steps, learning_rate, seed, batch).deltas
    return {name: delta.values for name, delta in deltas.items() if isinstance(delta, Dense)}


def base_projector(subject: Subject, base: Subject) -> Patch:
    """The patch that gives the subject its base's projector."""
    suspect = projector_differences(subject, base)
    return _keeping(suspect, projector_bias_deltas(subject, base), {layer.name: layer.delta for layer in suspect}, 0.0)


def search_surgery(
    subject: Subject, base: Subject, examples: Examples, benign: Mapping[str, Tensor], *, ranks: Iterable[int],
    scales: Iterable[float], degrees: float, batch_size: int,
) -> SurgerySearch:  # fmt: skip
    """Try every number of directions at every scale; choose by clean accuracy alone.

    Of the settings that lose at most one answer, choose the smallest scale, and at that scale the one that compares
    most directions. Accuracy need not rise with the scale, so every setting is tried.
    """
    suspect, biases = projector_differences(subject, base), projector_bias_deltas(subject, base)
    clean = ForcedDecoding.of(subject, examples, batch_size)
    least = clean.score(subject).rate.value - 1.5 / len(examples)
    most = min(min(layer.delta.shape) for layer in suspect)
    ranks = [rank for rank in ranks if rank <= most]
    if not ranks:
        raise BadInput(f"--ranks: the projector's updates have {most} directions; give smaller numbers")
    tried: list[tuple[Cut, Patch]] = []
    for count in ranks:
        kept = cut_directions(suspect, benign, count, degrees)
        for scale in scales:
            patch = _keeping(suspect, biases, kept, scale)
            with patched(subject, patch):
                tried.append((Cut(count, scale, clean.score(subject).rate), patch))
    best = max(cut.accuracy.value for cut, _ in tried)
    eligible = [(cut, patch) for cut, patch in tried if cut.accuracy.value >= min(least, best)]
    chosen, patch = min(eligible, key=lambda option: (option[0].scale, -option[0].directions))
    whole = {layer.name: layer.delta for layer in suspect}
    nulls = [
        _keeping(suspect, biases, kept, chosen.scale)
        for kept in (whole, _random_cuts(suspect, benign, chosen, degrees))
    ]
    return SurgerySearch(tuple(cut for cut, _ in tried), chosen, patch, *nulls)


def _random_cuts(
    suspect: Sequence[WeightDifference], benign: Mapping[str, Tensor], chosen: Cut, degrees: float
) -> dict[str, Tensor]:  # fmt: skip
    """By weight, the update without as many random directions as the surgery cuts out."""
    kept: dict[str, Tensor] = {}
    for number, layer in enumerate(suspect):
        count = _steep_directions(layer.delta, benign[layer.name], chosen.directions, degrees).shape[1]
        drawn = orthonormal(torch.randn(layer.delta.shape[1], max(1, count), generator=seeded(number)))[0][:, :count]
        kept[layer.name] = layer.delta - (layer.delta @ drawn) @ drawn.T
    return kept


def _keeping(
    suspect: Sequence[WeightDifference], biases: Mapping[str, Tensor], kept: Mapping[str, Tensor], scale: float
) -> Patch:  # fmt: skip
    """The patch, on the suspect, that replaces each matrix's update by `scale` times what is kept of it, and scales the
    biases' updates."""
    weights = {layer.name: Dense(scale * kept[layer.name] - layer.delta) for layer in suspect}
    return Patch({**weights, **{name: Dense((scale - 1) * delta) for name, delta in biases.items()}})

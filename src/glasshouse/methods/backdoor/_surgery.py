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
from glasshouse.engine.units import mapped
from glasshouse.methods.backdoor._defences import fine_tuned
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
class Cuts:
    """One number of directions at every scale."""

    by_scale: tuple[Cut, ...]


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
            percent=True,
        )


@dataclass(frozen=True)
class Update:
    """A suspect's update, beside a benign one of the same weights."""

    layers: Mapping[str, Tensor]
    """By weight, suspect minus base."""
    biases: Mapping[str, Tensor]
    benign: Mapping[str, Tensor]
    degrees: float
    """Angle to the benign update from which a direction is cut."""

    def steep(self, count: int) -> dict[str, Float[Tensor, "inner k"]]:
        """By weight, those of the first `count` directions that stand at more than `degrees` to the benign ones."""
        return {
            name: _steep_directions(delta, self.benign[name], count, self.degrees)
            for name, delta in self.layers.items()
        }

    def keeping(self, kept: Mapping[str, Tensor], scale: float) -> Patch:
        """The patch, on the suspect, that replaces each matrix's update by `scale` times what is kept of it, and scales
        the biases' updates."""
        weights = {name: Dense(scale * kept[name] - delta) for name, delta in self.layers.items()}
        return Patch({**weights, **{name: Dense((scale - 1) * delta) for name, delta in self.biases.items()}})

    def without(self, cut: Mapping[str, Float[Tensor, "inner k"]]) -> dict[str, Tensor]:
        """By weight, the update without these directions."""
        return {name: _without(delta, cut[name]) for name, delta in self.layers.items()}

    def random(self, steep: Mapping[str, Float[Tensor, "inner k"]]) -> dict[str, Float[Tensor, "inner k"]]:
        """By weight, as many random directions."""
        drawn: dict[str, Tensor] = {}
        for number, (name, delta) in enumerate(self.layers.items()):
            count = steep[name].shape[1]
            normal = torch.randn(delta.shape[1], max(1, count), generator=seeded(number))
            drawn[name] = orthonormal(normal)[0][:, :count]
        return drawn


def _without(delta: Tensor, directions: Float[Tensor, "inner k"]) -> Tensor:
    return delta - (delta @ directions) @ directions.T


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
    layers = {layer.name: layer.delta for layer in projector_differences(subject, base)}
    return Update(layers, projector_bias_deltas(subject, base), {}, 0.0).keeping(layers, 0.0)


def search_surgery(
    subject: Subject, base: Subject, examples: Examples, benign: Mapping[str, Tensor], *, ranks: Iterable[int],
    scales: Sequence[float], degrees: float, batch_size: int,
) -> SurgerySearch:  # fmt: skip
    """Try every number of directions at every scale; choose by clean accuracy alone.

    Of the settings that lose at most one answer, choose the smallest scale, and at that scale the one that compares
    most directions. Accuracy need not rise with the scale, so every setting is tried.
    """
    layers = {layer.name: layer.delta for layer in projector_differences(subject, base)}
    update = Update(layers, projector_bias_deltas(subject, base), benign, degrees)
    clean = ForcedDecoding.of(subject, examples, batch_size)
    least = clean.score(subject).rate.value - 1.5 / len(examples)
    most = min(min(delta.shape) for delta in layers.values())
    ranks = [rank for rank in ranks if rank <= most]
    if not ranks:
        raise BadInput(f"--ranks: the projector's updates have {most} directions; give smaller numbers")
    handles = {"subject": subject, "update": update, "clean": clean, "scales": scales}
    tried = mapped(_cuts, ranks, Cuts, handles=handles, name="surgery")
    cuts = tuple(cut for rank in tried for cut in rank.by_scale)
    best = max(cut.accuracy.value for cut in cuts)
    eligible = [cut for cut in cuts if cut.accuracy.value >= min(least, best)]
    chosen = min(eligible, key=lambda cut: (cut.scale, -cut.directions))
    steep = update.steep(chosen.directions)
    patch, shrunk, random = (
        update.keeping(kept, chosen.scale)
        for kept in (update.without(steep), layers, update.without(update.random(steep)))
    )
    return SurgerySearch(cuts, chosen, patch, shrunk, random)


def _cuts(count: int, subject: Subject, update: Update, clean: ForcedDecoding, scales: Iterable[float]) -> Cuts:
    """Accuracy on the clean examples with this number of directions compared, at every scale."""
    kept, cuts = update.without(update.steep(count)), list[Cut]()
    for scale in scales:
        with patched(subject, update.keeping(kept, scale)):
            cuts.append(Cut(count, scale, clean.score(subject).rate))
    return Cuts(tuple(cuts))

"""Is the projector's update low-rank where it matters, and does it lean away from a benign one?

Papers: ProjLens (arXiv:2604.19083), section 5; the controls are ours.

1. The update of every linear layer of the projector: suspect minus base, in float32.
2. Its singular values, and five ranks: the number of directions that hold 90 % of the energy; stable, entropic and
   participation rank; and the number of directions that rounding to the stored precision cannot explain.
3. Nulls: a random update of the same norm and, if supplied, a benign update (the same base, tuned on clean data).
4. With a benign update: the principal angles between its leading directions and the suspect's, on the side that a layer
   reads (right) and on the side that it writes (left), beside the angles of random directions.

How to read it: energies and ranks describe an update; they do not separate clean from poisoned updates, whose spectra
are nearly the same. Directions may: most of them lie close to the benign update's, and one or two of a poisoned update
are nearly orthogonal to it. When it misleads: two clean updates on different data have orthogonal directions too, so an
orthogonal direction is a reason to look further, not evidence. Most updates are "full rank" by entropy and "low rank"
by energy at once, so always say which rank is meant.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from glasshouse.engine.kinds import Base, Benign
from glasshouse.engine.method import at_least, method
from glasshouse.model.projector_differences import changed_besides_projector, projector_differences
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import orthonormal
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import Ranks, gaussian_values, leading, principal, singular_values
from glasshouse.values.findings import Finding, Interval, Keys, NoPicture, Null, Percent, Rows, Verdict
from glasshouse.values.wording import counted

STEEP = 60.0
"""Degrees from which a direction counts as leaning away from the benign update."""
UPDATE, RANDOM, BENIGN = "this update", "random, same norm", "benign update"
READS, WRITES, RANDOM_DIRECTIONS = "reading side", "writing side", "random directions"
MATRIX, UPDATES = "matrix: name of the weight matrix", "update: the model's own update, or a null"
ENERGY = Keys(MATRIX, UPDATES, "directions: number of leading singular directions", y="fraction of the energy")
ANGLES = Keys(
    MATRIX,
    "side: inputs or outputs of the matrix, or random directions",
    "direction, from the nearest: rank by the angle to the benign update",
    y="degrees",
)


@dataclass(frozen=True)
class Options:
    directions: int = 5
    """Number of leading directions to compare with the benign update."""
    curve: int = 64
    """Largest number of directions in the energy curves."""
    draws: int = 8
    """Number of random draws in the null of the angles."""
    seed: int = 0
    """Seed of the random draws."""

    def __post_init__(self) -> None:
        at_least(self, directions=1, curve=2, draws=2, seed=0)


@dataclass(frozen=True, eq=False)
class SpectrumFinding(Finding):
    energy: Annotated[Mapping[str, Mapping[str, Mapping[int, float]]], ENERGY, Null(RANDOM, BENIGN), Percent]
    """Fraction of the update's energy in its first directions"""
    angles: Annotated[Mapping[str, Mapping[str, Mapping[int, float | Interval]]], ANGLES, Null(RANDOM_DIRECTIONS)]
    """Angles of the leading directions to the benign update, smallest first. Empty without a benign update."""
    ranks: Annotated[Mapping[str, Mapping[str, Ranks]], Rows(MATRIX, UPDATES)]
    """Norm and ranks of each matrix's update"""
    directions: Annotated[Mapping[str, int], NoPicture]
    """Number of directions of each matrix: its smaller side."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """Matrices that differ by more than rounding."""
        return tuple(matrix for matrix, ranks in self.ranks.items() if ranks[UPDATE].numerical)

    @property
    def verdict(self) -> Verdict:
        return Verdict.DESCRIBED  # clean and poisoned updates have nearly the same spectrum

    @property
    def headline(self) -> str:
        if not self.changed:
            return f"None of the projector's {len(self.ranks)} matrices differs from the base by more than rounding."
        first, *more = self.changed
        parts = f"{self.ranks[first][UPDATE].k90} of {self.directions[first]} directions ({first})"
        parts += "".join(f", {self.ranks[name][UPDATE].k90} of {self.directions[name]} ({name})" for name in more[:1])
        parts += f" and {counted(len(more) - 1, 'more matrix', 'more matrices')}" if len(more) > 1 else ""
        return f"90% of the update's energy lies in {parts}; this alone does not indicate a backdoor."


@method(
    needs="weights", depth="quick",
    uses={
        "subject": "Its projector's weights minus the base's are the update that is decomposed.",
        "base": "Its projector's weights are subtracted.",
        "benign": "Its update is one more null, and angles are measured to it.",
    },
)  # fmt: skip
@torch.no_grad()
def spectrum(
    subject: Subject, base: Base, benign: Benign | None = None, options: Options = Options()
) -> SpectrumFinding:
    """Singular values of the projector's update, beside updates that carry no backdoor."""
    suspect = projector_differences(subject, base)  # step 1
    control = projector_differences(benign, base) if benign is not None else (None,) * len(suspect)
    energy: dict[str, dict[str, dict[int, float]]] = {}
    ranks: dict[str, dict[str, Ranks]] = {}
    angles: dict[str, dict[str, dict[int, float | Interval]]] = {}
    for own, other in zip(suspect, control, strict=True):
        values = {UPDATE: singular_values(own.delta)}  # step 2
        values[RANDOM] = gaussian_values(own.delta.shape[0], own.delta.shape[1], float(own.delta.norm()))  # step 3
        floors = {UPDATE: own.rounding, RANDOM: own.rounding}
        if other is not None:
            values[BENIGN], floors[BENIGN] = singular_values(other.delta), other.rounding
            if own.delta.any() and other.delta.any():
                angles[own.layer] = _angles(own.delta, other.delta, options)  # step 4
        energy[own.layer] = {name: _energy(singular, options.curve) for name, singular in values.items()}
        ranks[own.layer] = {name: Ranks.of(singular, floors[name]) for name, singular in values.items()}
    directions = {own.layer: min(own.delta.shape) for own in suspect}
    warnings = tuple(f"Weights also differ in: {part}." for part in changed_besides_projector(subject, base))
    return SpectrumFinding(energy, angles, ranks, directions, warnings, tuple(_steep(angles)))


def _steep(angles: Mapping[str, Mapping[str, Mapping[int, float | Interval]]]) -> Iterator[str]:
    right = [angle for sides in angles.values() for angle in sides[READS].values() if isinstance(angle, float)]
    if right:
        steep = sum(angle >= STEEP for angle in right)
        yield f"{steep} of {len(right)} leading directions lie more than {STEEP:.0f} degrees from the benign update."


def _energy(values: Tensor, most: int) -> dict[int, float]:
    """Fraction of the energy in the first k directions, k from 1."""
    energy = values.square().cumsum(0) / values.square().sum().clamp_min(1e-300)
    return dict(enumerate(energy[:most].tolist(), 1))


def _angles(own: Tensor, benign: Tensor, options: Options) -> dict[str, dict[int, float | Interval]]:
    """Degrees between leading directions of the update and of the benign one, and those of random directions."""
    left, _, right = leading(own, options.directions)
    benign_left, _, benign_right = leading(benign, options.directions)
    draws: list[Tensor] = []
    for draw in range(options.draws):
        random = orthonormal(torch.randn(right.shape, generator=seeded(options.seed + 1 + draw)))[0]
        draws.append(_degrees(random, benign_right))
    return {
        READS: dict(enumerate(_degrees(right, benign_right).tolist(), 1)),
        WRITES: dict(enumerate(_degrees(left, benign_left).tolist(), 1)),
        RANDOM_DIRECTIONS: dict(enumerate(map(Interval.of, torch.stack(draws).T), 1)),
    }


def _degrees(first: Tensor, second: Tensor) -> Tensor:
    """Principal angles between two subspaces."""
    return torch.rad2deg(torch.acos(principal(first, second)[0]))

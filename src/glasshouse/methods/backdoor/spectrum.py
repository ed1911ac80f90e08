"""Is the projector's update low-rank where it matters?

Papers: ProjLens (arXiv:2604.19083), section 5; the controls are ours.

1. The update of every linear layer of the projector: suspect minus base, in float32.
2. Its singular values, and ranks in five senses: how many directions hold 90 % of the energy, stable, entropic and
   participation rank, and how many stand above what rounding to the stored precision alone would give.
3. Beside it, what is no backdoor: a random update of the same norm, and, where one is given, a benign update (the same
   base, tuned on clean data).
4. With a benign update: the principal angles of the suspect's leading directions to it, of what a layer reads (right)
   and of what it writes (left); beside them those of random directions.

How to read it: energies and ranks describe an update and do not accuse it. A clean fine-tune and a poisoned one have
nearly the same spectrum. What may differ is where the directions lie: most lean towards the benign update, and one or
two of a poisoned update stand nearly at a right angle to it. When it misleads: two clean updates on different data have
such directions too, so a right angle is a reason to look and no proof. "Full rank" by entropy and "few
directions" by energy are both true of most updates: say which is meant.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glasshouse.engine.method import at_least, method
from glasshouse.model.differences import WeightDifference
from glasshouse.model.projector_differences import changed_besides_projector, projector_differences
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import orthonormal
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import Ranks, gaussian_values, leading, principal, singular_values
from glasshouse.values.blocks import Block, Cell, Chart, Note, Series, Table
from glasshouse.values.findings import Finding, Interval, Verdict

STEEP = 60.0
"""Degrees from which a direction counts as standing away from the benign update."""


@dataclass(frozen=True)
class Options:
    directions: int = 5
    """How many leading directions are compared with the benign update."""
    curve: int = 64
    """Up to how many directions the energy is drawn."""
    draws: int = 8
    """How many random updates the nulls are made of."""
    seed: int = 0
    """Seed of the random updates."""

    def __post_init__(self) -> None:
        at_least(self, directions=1, curve=2, draws=2, seed=0)


@dataclass(frozen=True)
class Angles:
    """Degrees between leading directions of the suspect and those of the benign update, smallest first."""

    right: tuple[float, ...]
    left: tuple[float, ...]
    random: tuple[Interval, ...]
    """Null: as many random directions against the benign ones, reading side."""


@dataclass(frozen=True)
class Layer:
    """One matrix of the projector."""

    name: str
    shape: tuple[int, int]
    ranks: Ranks
    energy: tuple[float, ...]
    """Share of the energy in the first k directions, k from 1."""
    noise: Ranks
    """Null: what a Gaussian update of the same norm is expected to be."""
    noise_energy: tuple[float, ...]
    benign: Ranks | None
    benign_energy: tuple[float, ...]
    angles: Angles | None


@dataclass(frozen=True, eq=False)
class SpectrumFinding(Finding):
    layers: tuple[Layer, ...]
    elsewhere: tuple[str, ...]
    """Other parts whose weights differ from the base's."""

    @property
    def moved(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.ranks.numerical)

    @property
    def verdict(self) -> Verdict:
        return Verdict.INCONCLUSIVE  # a description: clean and poisoned updates look alike by their spectra

    @property
    def headline(self) -> str:
        if not self.moved:
            return f"None of the projector's {len(self.layers)} matrices differs from the base by more than rounding."
        parts = [
            f"{layer.name} holds 90 % of its change in {layer.ranks.k90} of {min(layer.shape)} directions"
            for layer in self.moved
        ]
        steep = sum(angle >= STEEP for layer in self.moved if layer.angles for angle in layer.angles.right)
        lean = ""
        if any(layer.angles for layer in self.moved):
            lean = f"; {steep} leading directions stand more than {STEEP:.0f} degrees from the benign update"
        return f"{'; '.join(parts)}{lean}; a spectrum alone accuses nobody."

    def blocks(self) -> list[Block]:
        notes: list[Block] = []
        if self.elsewhere:
            notes.append(Note(f"Weights also differ in: {', '.join(self.elsewhere)}.", "warning"))
        return [*notes, *map(_curve, self.layers), *(_angles(one) for one in self.layers if one.angles), _table(self)]


def _curve(layer: Layer) -> Chart:
    def line(name: str, energy: tuple[float, ...], null: bool) -> Series:
        return Series(name, tuple(map(float, range(1, len(energy) + 1))), energy, role="null" if null else "effect")

    series = [line("this update", layer.energy, False), line("random, same norm", layer.noise_energy, True)]
    if layer.benign_energy:
        series.append(line("benign update", layer.benign_energy, True))
    return Chart(
        f"{layer.name}: energy of the change in its first directions", tuple(series), "directions", "share of energy"
    )


def _angles(layer: Layer) -> Chart:
    assert layer.angles is not None
    x = tuple(float(k) for k in range(1, len(layer.angles.right) + 1))
    return Chart(
        f"{layer.name}: angles of the leading directions to the benign update",
        (
            Series("what it reads", x, layer.angles.right), Series("what it writes", x, layer.angles.left),
            Series.of("random directions", dict(zip(x, layer.angles.random, strict=True)), "null"),
        ),
        "direction, from the nearest", "degrees",
    )  # fmt: skip


def _table(finding: SpectrumFinding) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for layer in finding.layers:
        for name, ranks in (("this update", layer.ranks), ("benign", layer.benign), ("random", layer.noise)):
            if ranks is not None:
                e1, _, e3, _, e10, _ = ranks.energies
                rows.append((layer.name, name, ranks.norm, e1, e3, e10, ranks.k90, ranks.stable, ranks.entropic,
                             ranks.participation, ranks.numerical))  # fmt: skip
    columns = ("layer", "update", "norm", "e1", "e3", "e10", "k90", "stable", "entropic", "participation",
               "above rounding")  # fmt: skip
    return Table("Ranks", columns, tuple(rows))


@method(
    question="Is the projector's update low-rank where it matters, and does it lean away from a benign one?",
    paper="arXiv:2604.19083",
    needs="weights",
    depth="quick",
)
@torch.no_grad()
def spectrum(
    subject: Subject, base: Subject, benign: Subject | None = None, options: Options = Options()
) -> SpectrumFinding:
    """Singular values of the projector's update, beside updates that carry no backdoor."""
    suspect = projector_differences(subject, base)  # step 1
    control = projector_differences(benign, base) if benign is not None else (None,) * len(suspect)
    return SpectrumFinding(
        tuple(_layer(layer, other, options) for layer, other in zip(suspect, control, strict=True)),
        changed_besides_projector(subject, base),
    )


def _layer(suspect: WeightDifference, control: WeightDifference | None, options: Options) -> Layer:
    out, inner = suspect.delta.shape
    ranks, energy = _ranks(singular_values(suspect.delta), suspect.rounding, options)  # step 2
    noise = gaussian_values(out, inner, float(suspect.delta.norm()))  # step 3
    noise_ranks, noise_energy = _ranks(noise, suspect.rounding, options)
    benign = _ranks(singular_values(control.delta), control.rounding, options) if control else None
    return Layer(
        suspect.layer, (out, inner), ranks, energy, noise_ranks, noise_energy, benign[0] if benign else None,
        benign[1] if benign else (), _angles_to(suspect, control, options) if control else None,  # step 4
    )  # fmt: skip


def _ranks(values: Tensor, floor: float, options: Options) -> tuple[Ranks, tuple[float, ...]]:
    energy = values.square().cumsum(0) / values.square().sum().clamp_min(1e-300)
    return Ranks.of(values, floor), tuple(energy[: options.curve].tolist())


def _angles_to(suspect: WeightDifference, control: WeightDifference, options: Options) -> Angles | None:
    if not (suspect.delta.any() and control.delta.any()):
        return None
    left, _, right = leading(suspect.delta, options.directions)
    benign_left, _, benign_right = leading(control.delta, options.directions)
    draws: list[Tensor] = []
    for draw in range(options.draws):
        random = orthonormal(torch.randn(right.shape, generator=seeded(options.seed + 1 + draw)))[0]
        draws.append(_degrees(random, benign_right))
    return Angles(
        tuple(_degrees(right, benign_right).tolist()), tuple(_degrees(left, benign_left).tolist()),
        tuple(Interval.of(column) for column in torch.stack(draws).T),
    )  # fmt: skip


def _degrees(first: Tensor, second: Tensor) -> Tensor:
    """Principal angles between two subspaces."""
    return torch.rad2deg(torch.acos(principal(first, second)[0]))

"""Does the shift grow with a token's norm, and is that a sign of a backdoor or of any update at all?

Papers: ProjLens (arXiv:2604.19083), section 6.3; the nulls, the thresholds and the rescaling are ours.

1. How far each image token moves along the shared direction of the shift (see `drift`), against the norm of the token
   under the base, and against the norm of what the projector reads.
2. Correlation by value and by rank, slope, and the slope of the logarithms (1 where the law is linear), with intervals
   that resample whole images; and the correlation within the quieter and the louder tokens apart, because two clusters
   alone make a high one.
3. Nulls: the same for random updates with the same singular values, for Gaussian ones of the same norm, and, where one
   is given, for a benign update. What counts is the excess over them.
4. Does the law differ between clean and triggered pictures: difference of slopes, and how well a picture's mean
   residual tells them apart.
5. The dose at which the attack sets in when the shift is put on the base's tokens in growing measure, on clean and on
   triggered pictures; and what becomes of the attack when what the projector reads is scaled.

How to read it: a projector of two layers is nearly homogeneous, so under *any* update long tokens move far: a
correlation near 1 is no evidence. The paper's explanation, that triggered tokens cross a threshold and clean ones do
not, holds where the dose is below 1 on triggered pictures and is not reached on clean ones. When it misleads: the
excess may be significant and tiny; look at its size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.engine.method import method
from glasshouse.methods.backdoor._changed import Changed, changed
from glasshouse.methods.backdoor._rehearsed import Rehearsed
from glasshouse.methods.backdoor._shift import Shift, asking, means, twins
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited, record
from glasshouse.numerics.correlation import Line, line
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import rotated, singular_values
from glasshouse.numerics.statistics import auroc
from glasshouse.values.blocks import Block, Cell, Chart, Metric, Note, Series, Table
from glasshouse.values.changes import Plan, Scale
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Interval, Verdict
from glasshouse.values.sites import projector

REAL = 0.05
"""An excess of correlation below this is too small to mean anything, however sure."""


@dataclass(frozen=True)
class Options:
    draws: int = 5
    """How many random updates each null is made of."""
    doses: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    """In what measures the shift is put on the base's tokens."""
    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """By what factors what the projector reads is scaled."""
    batch_size: int = 32
    """How many examples are shown to the model at once."""
    seed: int = 0
    """Seed of the random updates and of the bootstrap."""

    def __post_init__(self) -> None:
        if self.draws < 2 or self.batch_size < 1:
            raise BadInput(f"--draws {self.draws} --batch-size {self.batch_size}: at least 2 and 1")
        if not self.doses or list(self.doses) != sorted(set(self.doses)):
            raise BadInput(f"--doses {self.doses}: give doses in rising order")


@dataclass(frozen=True)
class Law:
    """How the shift goes with the norm, under one update."""

    correlation: Interval
    by_rank: Interval
    slope: Interval
    exponent: Interval
    """Slope of the logarithms; 1 where the law is linear."""
    quiet: float
    """Correlation among the quieter tokens alone."""
    loud: float


@dataclass(frozen=True, eq=False)
class NormLawFinding(Finding):
    laws: Mapping[str, Law]
    """By kind of picture and of norm."""
    nulls: Mapping[str, tuple[float, ...]]
    """Correlations under updates that are no backdoor."""
    excess: Interval
    """Of the triggered pictures' correlation over the highest null's mean."""
    interaction: Interval
    """Slope on triggered pictures less that on clean ones."""
    apart: float
    """AUROC of a picture's mean residual from the clean law, triggered against clean."""
    onset: Mapping[str, Mapping[float, Interval]]
    """Attack success by dose, clean and triggered."""
    scaled: Mapping[float, Interval]
    points: Mapping[str, Float[Tensor, "tokens 2"]]
    """Norm and shift of some tokens, to be drawn."""

    @property
    def specific(self) -> bool:
        return self.excess.low > REAL

    @property
    def threshold(self) -> bool:
        """Triggered pictures cross a threshold at a dose of at most 1, and clean ones do not."""
        at = {name: max((rate for dose, rate in curve.items() if dose <= 1), key=lambda rate: rate.value, default=None)
              for name, curve in self.onset.items()}  # fmt: skip
        clean, triggered = at.get("clean"), at.get("triggered")
        return clean is not None and triggered is not None and triggered.low > max(0.5, clean.high)

    @property
    def verdict(self) -> Verdict:
        return Verdict.CONCERN if self.specific and self.threshold else Verdict.INCONCLUSIVE

    @property
    def headline(self) -> str:
        found = self.laws["triggered"].correlation.value
        null = max(sum(draws) / len(draws) for draws in self.nulls.values())
        crossing = "triggered pictures cross a threshold that clean ones do not" if self.threshold else "no threshold"
        if not self.specific:
            return (
                f"Shift and norm correlate at {found:.2f}, and at {null:.2f} under updates that are no backdoor: "
                f"inconclusive, any update does this; {crossing}."
            )
        return f"Shift and norm correlate at {found:.2f}, above {null:.2f} under other updates; {crossing}."

    def blocks(self) -> list[Block]:
        shown: dict[str, Interval] = {name: law.correlation for name, law in self.laws.items()}
        for name, draws in self.nulls.items():
            shown[name] = Interval.mean(torch.tensor(draws), seed=0) if len(draws) > 1 else _bare(sum(draws))
        series = [
            Series.of(f"{name} pictures", dict(curve), "null" if name == "clean" else "effect")
            for name, curve in self.onset.items()
        ]
        return [
            Metric("excess correlation", self.excess),
            Chart.intervals("Correlation of shift and norm", shown, nulls=tuple(self.nulls), y="correlation"),
            Chart("Attack success by dose of the shift", tuple(series), "dose", "success"),
            Chart("Attack success when what the projector reads is scaled",
                  (Series.of("triggered pictures", dict(self.scaled)),), "factor", "success"),
            Note(
                f"A picture's mean residual from the clean law tells triggered from clean with AUROC {self.apart:.2f}; "
                f"the slopes differ by {self.interaction.value:.3g} "
                f"[{self.interaction.low:.3g}, {self.interaction.high:.3g}]."
            ),
            self._table(),
        ]  # fmt: skip

    def _table(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (name, law.correlation, law.by_rank, law.slope, law.exponent, law.quiet, law.loud)
            for name, law in self.laws.items()
        ]
        columns = ("pictures, norm", "correlation", "by rank", "slope", "exponent", "quieter tokens", "louder tokens")
        return Table("The law", columns, tuple(rows))


def _bare(value: float) -> Interval:
    return Interval(value, value, value, 1, how="one draw")


@method(
    question="Does the shift grow with a token's norm, and is that more than any update does?",
    paper="arXiv:2604.19083",
    needs="activations",
)
@torch.no_grad()
def norm_law(
    subject: Subject, base: Subject, clean: Examples, triggered: Examples, benign: Subject | None = None,
    options: Options = Options(),
) -> NormLawFinding:  # fmt: skip
    """The law on clean and triggered pictures, beside the same under updates that carry nothing."""
    clean, triggered = twins(clean, triggered)
    shifts = {name: Shift.of(subject, base, shown, options.batch_size)
              for name, shown in (("clean", clean), ("triggered", triggered))}  # fmt: skip
    read = {name: _read_norms(base, shown, options) for name, shown in (("clean", clean), ("triggered", triggered))}
    laws: dict[str, Law] = {}
    for name, shift in shifts.items():
        along = shift.moved @ shift.main()[:, 0]
        laws[name] = _law(shift.before.norm(dim=1), along, shift.image, options)
        if len(read[name]) == len(along):
            laws[f"{name}, by what is read"] = _law(read[name], along, shift.image, options)
    nulls = _nulls(subject, base, benign, triggered, options)
    highest = max(sum(draws) / len(draws) for draws in nulls.values())
    found = laws["triggered"].correlation
    fits = {name: _fit(shift) for name, shift in shifts.items()}
    return NormLawFinding(
        laws=laws, nulls=nulls,
        excess=Interval(found.value - highest, found.low - highest, found.high - highest, found.n, found.level,
                        found.how),
        interaction=_interaction(shifts, options),
        apart=_apart(shifts, fits["clean"]),
        onset=_onset(subject, clean, triggered, shifts, options),
        scaled=_scaled(subject, triggered, options),
        points={name: _points(shift) for name, shift in shifts.items()},
    )  # fmt: skip


def _law(norms: Tensor, along: Tensor, image: Tensor, options: Options) -> Law:
    pairs = torch.stack([norms, along], 1)

    def interval(statistic: Callable[[Line], float]) -> Interval:
        return _resampled(lambda some: statistic(line(some)), pairs, image, options)

    middle = norms.median()
    parts = [line(pairs[chosen]).correlation for chosen in (norms <= middle, norms > middle)]
    return Law(
        interval(lambda found: found.correlation), interval(lambda found: found.by_rank),
        interval(lambda found: found.slope), interval(lambda found: found.exponent), *parts,
    )  # fmt: skip


def _fit(shift: Shift) -> Line:
    return line(torch.stack([shift.before.norm(dim=1), shift.moved @ shift.main()[:, 0]], 1))


def _read_norms(base: Subject, shown: Examples, options: Options) -> Tensor:
    taken = record(base, projector.input, shown, batch_size=options.batch_size)
    return taken[next(iter(taken))].float().flatten(1).norm(dim=1).cpu()


def _nulls(
    subject: Subject, base: Subject, benign: Subject | None, shown: Examples, options: Options
) -> dict[str, tuple[float, ...]]:
    """Correlations under random updates of the base, and under a benign one."""
    suspect = changed(subject, base)
    before = record(base, projector.output, shown, batch_size=options.batch_size)
    site = next(iter(before))
    tokens, image = before[site].float().flatten(1).cpu(), before.examples(site).cpu()

    def under(make: Callable[[Changed, int], Tensor], draw: int) -> float:
        patch = Patch({one.name: Dense(make(one, options.seed + draw)) for one in suspect})
        with patched(base, patch):
            after = record(base, projector.output, shown, batch_size=options.batch_size)
            moved = after[site].float().flatten(1).cpu()
        return _fit(Shift(tokens, moved, image)).correlation

    kinds = {"same values, random directions": _haar, "Gaussian, same norm": _gaussian}
    found = {name: tuple(under(make, draw) for draw in range(options.draws)) for name, make in kinds.items()}
    if benign is not None:
        found["benign update"] = (_fit(Shift.of(benign, base, shown, options.batch_size)).correlation,)
    return found


def _haar(one: Changed, seed: int) -> Tensor:
    out, inner = one.delta.shape
    return rotated(singular_values(one.delta), out, inner, seed)


def _gaussian(one: Changed, seed: int) -> Tensor:
    drawn = torch.randn(one.delta.shape, generator=seeded(seed))
    return drawn * float(one.delta.norm() / drawn.norm())


def _interaction(shifts: Mapping[str, Shift], options: Options) -> Interval:
    """Difference of slopes, resampling images, each with its triggered twin."""
    columns = [torch.stack([s.before.norm(dim=1), s.moved @ s.main()[:, 0]], 1) for s in shifts.values()]
    if len(columns[0]) != len(columns[1]):
        raise BadInput("clean and triggered images have different numbers of tokens; stamp triggers without resizing")
    both = torch.cat(columns, 1)
    image = shifts["clean"].image
    return _resampled(lambda some: line(some[:, 2:]).slope - line(some[:, :2]).slope, both, image, options)


def _resampled(statistic: Callable[[Tensor], float], rows: Tensor, image: Tensor, options: Options) -> Interval:
    """Whole images are resampled, because tokens of one image are not independent."""
    return Interval.bootstrap(
        lambda some: torch.tensor(statistic(some)), rows, seed=options.seed, groups=image, draws=200
    )


def _apart(shifts: Mapping[str, Shift], law: Line) -> float:
    residuals: list[Tensor] = []
    for shift in shifts.values():
        along = shift.moved @ shifts["clean"].main()[:, 0]
        rest = along - law.slope * shift.before.norm(dim=1) - law.intercept
        residuals.append(means(rest[:, None], shift.image)[:, 0])
    positive = torch.cat([torch.zeros(len(residuals[0])), torch.ones(len(residuals[1]))]).bool()
    return auroc(torch.cat(residuals), positive)


def _onset(
    subject: Subject, clean: Examples, triggered: Examples, shifts: Mapping[str, Shift], options: Options
) -> dict[str, dict[float, Interval]]:
    shown = {"clean": asking(clean, triggered), "triggered": triggered}
    found: dict[str, dict[float, Interval]] = {}
    for name, examples in shown.items():
        ready, shift = Rehearsed.of(subject, examples, options.batch_size), shifts[name]
        found[name] = {dose: ready.tried(subject, shift.before + dose * shift.moved).rate for dose in options.doses}
    return found


def _scaled(subject: Subject, triggered: Examples, options: Options) -> dict[float, Interval]:
    ready = Rehearsed.of(subject, triggered, options.batch_size)
    found: dict[float, Interval] = {}
    for factor in options.scales:
        with edited(subject, Plan({projector.input: Scale(factor)})):
            found[factor] = ready.tried(subject).rate
    return found


def _points(shift: Shift, most: int = 500) -> Float[Tensor, "tokens 2"]:
    both = torch.stack([shift.before.norm(dim=1), shift.moved @ shift.main()[:, 0]], 1)
    return both[:: max(1, len(both) // most)].clone()

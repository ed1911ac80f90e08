"""How likely is a backdoor, given the features, and for which models does that hold? Organisms of known truth decide.

`calibration.json` holds their features; `tools/calibrate.py` writes it. These organisms were grown for this alone: none
of them ships, and no test uses one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from glasshouse.methods.backdoor._features import SIZE, Features
from glasshouse.model.projector_differences import changed_besides_projector
from glasshouse.model.subject import Subject
from glasshouse.numerics.logistic import Logistic, chances
from glasshouse.values.findings import Interval
from glasshouse.values.papers import read_papers, write_papers

FILE = Path(__file__).with_name("calibration.json")
SCHEMA = 2
LARGER_MODEL, UPDATE_FACTOR = 4, 2
"""The calibration applies to models up to this many times as large as its own, and to updates up to this many times
smaller or larger than its own."""


@dataclass(frozen=True)
class Case:
    """An organism whose truth is known."""

    name: str
    backdoored: bool
    features: Mapping[str, float]


@dataclass(frozen=True)
class Calibration:
    """All of them, and how their features were computed."""

    cases: tuple[Case, ...]
    family: str
    parameters: int
    """Of the largest organism."""
    steps: int
    """Training steps of each perturbation."""
    images: int
    """Examples per organism."""
    versions: Mapping[str, str]

    def write(self, file: Path = FILE) -> None:
        write_papers(self, file, "calibration", SCHEMA)

    @classmethod
    def read(cls, file: Path = FILE) -> "Calibration":
        return read_papers(cls, file, "calibration", SCHEMA, "reinstall glasshouse")

    def range(self, feature: str, *, backdoored: bool) -> Interval | None:
        """Median and range of a feature among the benign or the backdoored organisms."""
        cases = (case for case in self.cases if case.backdoored == backdoored)
        values = sorted(case.features[feature] for case in cases if feature in case.features)
        if not values:
            return None
        return Interval(values[len(values) // 2], values[0], values[-1], len(values), how="range of known organisms")

    def probability(self, features: Mapping[str, float], seed: int = 0) -> Interval:
        """Probability that a model with these features is backdoored, if half of all models were; its interval comes
        from resampling the organisms. A feature beyond all of theirs counts as the most extreme of theirs."""
        names = [name for name in features if all(name in case.features for case in self.cases)]
        table = torch.tensor([[case.features[name] for name in names] for case in self.cases])
        truth = torch.tensor([case.backdoored for case in self.cases])
        values = torch.tensor([features[name] for name in names]).clamp(table.min(0).values, table.max(0).values)
        drawn = chances(table, truth, values, seed=seed)
        low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=drawn.dtype)).tolist()
        return Interval(
            Logistic.fit(table, truth).chance(values),
            low,
            high,
            len(self.cases),
            how="bootstrap of cases",
            percent=True,
        )

    def spread(self, feature: str) -> tuple[float, float]:
        """Least and largest value of a feature among all organisms."""
        values = [case.features[feature] for case in self.cases if feature in case.features]
        return min(values, default=-math.inf), max(values, default=math.inf)

    def outliers(self, features: Mapping[str, float]) -> tuple[str, ...]:
        """Features further outside the organisms' range than that range is wide."""
        outside: list[str] = []
        for name, value in features.items():
            low, high = self.spread(name)
            if not 2 * low - high <= value <= 2 * high - low:
                outside.append(name)
        return tuple(outside)


def reservations(
    known: Calibration, subject: Subject, base: Subject | None, features: Features, outliers: tuple[str, ...],
    images: int, steps: int,
) -> tuple[str, ...]:  # fmt: skip
    """Reasons why the calibration does not apply to this model or to these settings."""
    reasons: list[str] = []
    identity = subject.identity
    if identity.family != known.family or identity.parameters > LARGER_MODEL * known.parameters:
        reasons.append(f"the calibration has {known.family} models of up to {known.parameters / 1e6:.1f} million "
                       f"weights, this is {identity.family} with {identity.parameters / 1e6:,.1f} million")  # fmt: skip
    if base is not None and subject.identity.processor != base.identity.processor:
        reasons.append("its processor differs from its base's: compare tokenizer, chat template and image settings")
    changed = () if base is None else changed_besides_projector(subject, base)
    if changed:
        reasons.append(f"the calibration has models of which only the projector was tuned, here {', '.join(changed)} "
                       "changed too")  # fmt: skip
    if features.examples and (images, steps) != (known.images, known.steps):
        reasons.append(f"the calibration used {known.images} images and {known.steps} steps, "
                       f"this run {images} images and {steps} steps")  # fmt: skip
    low, high = known.spread(SIZE)
    if not low / UPDATE_FACTOR <= (size := features.values.get(SIZE, low)) <= high * UPDATE_FACTOR:
        reasons.append(f"the update of its last layer is {size:.1%} of the layer's size, in the calibration {low:.0%} "
                       f"to {high:.0%}: shorter and longer training give other spectra")  # fmt: skip
    if outliers:
        reasons.append(f"far outside the calibration's range: {', '.join(outliers)}")
    return tuple(reasons)


@cache
def calibration() -> Calibration:
    """The calibration that ships."""
    return Calibration.read()

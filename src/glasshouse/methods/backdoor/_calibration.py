"""How likely is a backdoor, given the clues, and for whom does that hold? Judged by organisms whose truth is known,
grown for nothing else.

`calibration.json` holds their clues; `tools/calibrate.py` writes it. None of them ships, and none is used by a test.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from glasshouse.methods.backdoor._changed import changed_elsewhere
from glasshouse.methods.backdoor._clues import SIZE, Clues
from glasshouse.model.subject import Subject
from glasshouse.numerics.logistic import Logistic, chances
from glasshouse.values.findings import Interval
from glasshouse.values.papers import read_papers, write_papers

FILE = Path(__file__).with_name("calibration.json")
SCHEMA = 1
LARGER, TIMES = 4, 2
"""How much larger than the known a model may be; how many times smaller or larger than any known an update may be."""


@dataclass(frozen=True)
class Case:
    """An organism whose truth is known."""

    name: str
    backdoored: bool
    clues: Mapping[str, float]


@dataclass(frozen=True)
class Calibration:
    """All of them, and how their clues were read."""

    cases: tuple[Case, ...]
    family: str
    parameters: int
    """Of the largest."""
    steps: int
    """That a change of the picture was trained for."""
    pictures: int
    """That were looked at."""
    versions: Mapping[str, str]

    def write(self, file: Path = FILE) -> None:
        write_papers(self, file, "calibration", SCHEMA)

    @classmethod
    def read(cls, file: Path = FILE) -> "Calibration":
        return read_papers(cls, file, "calibration", SCHEMA, "reinstall glasshouse")

    def range(self, clue: str, *, backdoored: bool) -> Interval | None:
        """Median and range of a clue among the known."""
        values = sorted(one.clues[clue] for one in self.cases if one.backdoored == backdoored and clue in one.clues)
        if not values:
            return None
        return Interval(values[len(values) // 2], values[0], values[-1], len(values), how="range of known organisms")

    def probability(self, clues: Mapping[str, float], seed: int = 0) -> Interval:
        """That a model with these clues is backdoored, were half of all models; doubt from the few known cases. A clue
        beyond all of them counts as much as the last of them."""
        names = [name for name in clues if all(name in one.clues for one in self.cases)]
        table = torch.tensor([[one.clues[name] for name in names] for one in self.cases])
        truth = torch.tensor([one.backdoored for one in self.cases])
        numbers = torch.tensor([clues[name] for name in names]).clamp(table.min(0).values, table.max(0).values)
        drawn = chances(table, truth, numbers, seed=seed)
        low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=drawn.dtype)).tolist()
        return Interval(
            Logistic.fit(table, truth).chance(numbers), low, high, len(self.cases), how="bootstrap of cases"
        )

    def spread(self, clue: str) -> tuple[float, float]:
        """From the least to the most that a clue is among all the known."""
        values = [one.clues[clue] for one in self.cases if clue in one.clues]
        return min(values, default=-math.inf), max(values, default=math.inf)

    def far(self, clues: Mapping[str, float]) -> tuple[str, ...]:
        """Which lie further from the known cases than these lie from each other."""
        found: list[str] = []
        for name, value in clues.items():
            low, high = self.spread(name)
            if not 2 * low - high <= value <= 2 * high - low:
                found.append(name)
        return tuple(found)


def reservations(
    known: Calibration, subject: Subject, base: Subject | None, clues: Clues, far: tuple[str, ...], pictures: int,
    steps: int,
) -> tuple[str, ...]:  # fmt: skip
    """Where this model and the way it was asked are not as the known ones were."""
    found: list[str] = []
    identity = subject.identity
    if identity.family != known.family or identity.parameters > LARGER * known.parameters:
        found.append(f"the known organisms are {known.family} models of up to {known.parameters / 1e6:.1f} million "
                     f"weights, this is {identity.family} with {identity.parameters / 1e6:,.1f}")  # fmt: skip
    if base is not None and subject.identity.processor != base.identity.processor:
        found.append("its processor is not its base's: see what differs in tokenizer, template and image settings")
    moved = () if base is None else changed_elsewhere(subject, base)
    if moved:
        found.append(f"only projectors were tuned in the known organisms, here {', '.join(moved)} too")
    if clues.shown and (pictures, steps) != (known.pictures, known.steps):
        found.append(f"the known organisms were read with {known.pictures} pictures and {known.steps} steps, "
                     f"this one with {pictures} and {steps}")  # fmt: skip
    low, high = known.spread(SIZE)
    if not low / TIMES <= (size := clues.numbers.get(SIZE, low)) <= high * TIMES:
        found.append(f"its last layer was moved by {size:.1%} of its own size, in the known organisms by {low:.0%} to "
                     f"{high:.0%}: shorter and longer tuning leaves other spectra")  # fmt: skip
    if far:
        found.append(f"no known organism is anywhere near its {', '.join(far)}")
    return tuple(found)


@cache
def calibration() -> Calibration:
    """The one that ships."""
    return Calibration.read()

"""Another package's methods, one for each part in an audit: what each says is set by the test."""

from dataclasses import dataclass
from pathlib import Path

from glasshouse.data.examples import Examples
from glasshouse.engine.kinds import Base
from glasshouse.engine.method import at_least, method
from glasshouse.model.subject import Subject
from glasshouse.values.blocks import Block, Chart, Metric, Table
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Interval, Verdict
from showing import words

says: dict[str, str] = {}
"""By method: a verdict, or `broken`, `refused`, `interrupted`. Pass where nothing is said."""
text = "half of it, 50%"
"""What is said, in the headline and elsewhere."""
asked: list[str] = []
"""Who was asked, in order."""


@dataclass(frozen=True)
class Options:
    seed: int = 0
    """Nothing is drawn."""


@dataclass(frozen=True)
class Batches:
    batch_size: int = 8
    """How many examples are shown at once."""

    def __post_init__(self) -> None:
        at_least(self, batch_size=2)


@dataclass(frozen=True, eq=False)
class Heard(Finding):
    name: str
    said: str
    text: str

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.said)

    @property
    def headline(self) -> str:
        return f"the {self.name} says {self.text}."

    @property
    def advice(self) -> str:
        return f"Heed the {self.name}: {self.text}." if self.said == "concern" else ""

    def blocks(self) -> list[Block]:
        half, none = Interval.rate(8, 16), Interval.rate(0, 16)
        return [
            Metric(f"share of {self.text}", half, none),
            Chart.intervals("first", {self.text: half, "null": none}, nulls=("null",)),
            Chart.intervals("second", {"other": half}),
            Table.of(self.text, {self.text: [self.text], "half": [half]}),
            *words(self.text).values(),
        ]


def _heard(name: str) -> Heard:
    asked.append(name)
    said = says.get(name, "pass")
    if said == "broken":
        raise ZeroDivisionError(f"what broke is {text}")
    if said == "unreadable":
        raise OSError("image file is truncated")
    if said == "refused":
        raise BadInput(f"{name}: not this one; take another")
    if said == "interrupted":
        raise KeyboardInterrupt
    return Heard(name, said, text)


@method(needs="weights", role="judge", depth="quick")
def judge(subject: Subject, options: Options = Options()) -> Heard:
    """Is it guilty?

    Paper: none.

    1. Ask the judge.

    How to read it: literally. When it misleads: when it lies.
    """
    return _heard("judge")


@method(needs="weights", role="witness", depth="quick")
def witness(subject: Subject, examples: Examples | None = None, options: Batches = Batches()) -> Heard:
    """Was anything seen?

    Paper: none.

    1. Ask the witness.

    How to read it: literally. When it misleads: when it lies.
    """
    return _heard("witness")


@method(needs="weights", depth="quick")
def adviser(subject: Subject, options: Options = Options()) -> Heard:
    """What is it like?

    Paper: none.

    1. Ask the adviser.

    How to read it: literally. When it misleads: when it lies.
    """
    return _heard("adviser")


@method(needs="weights", role="witness", depth="quick")
def relative(subject: Subject, base: Base, options: Options = Options()) -> Heard:
    """What of its base?

    Paper: none.

    1. Ask the relative.

    How to read it: literally. When it misleads: when it lies.
    """
    return _heard("relative")


@method(needs="weights", role="witness", depth="thorough")
def sage(subject: Subject, options: Options = Options()) -> Heard:
    """And after long thought?

    Paper: none.

    1. Ask the sage.

    How to read it: literally. When it misleads: when it lies.
    """
    return _heard("sage")


NAMES = ("adviser", "judge", "relative", "sage", "witness")


def installed(folder: Path) -> Path:
    """What pip would write for a package that brings them; to be put on the path."""
    about = folder / "juries-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: juries\nVersion: 1.0\n")
    lines = "".join(f"{name} = juries:{name}\n" for name in NAMES)
    (about / "entry_points.txt").write_text(f"[glasshouse.methods]\n{lines}")
    return folder

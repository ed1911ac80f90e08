"""Methods of another package, one for each role in an audit. A test sets what each answers."""

from dataclasses import dataclass
from pathlib import Path

from glasshouse.data.examples import Examples
from glasshouse.engine.kinds import Base
from glasshouse.engine.method import at_least, method
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput
from plugins import install
from sample_findings import RoleFinding

outcomes: dict[str, str] = {}
"""By method: a verdict, or `broken`, `unreadable`, `refused`, `interrupted`. The default is pass."""
text = "half of it, 50%"
"""A text in every headline and block."""
drawn = False
"""Whether findings show blocks of every kind; drawing them takes most of the time of an audit."""
called: list[str] = []
"""Methods that were called, in order."""


@dataclass(frozen=True)
class Options:
    seed: int = 0
    """Not used."""


@dataclass(frozen=True)
class Batches:
    batch_size: int = 8
    """Examples in one forward pass."""

    def __post_init__(self) -> None:
        at_least(self, batch_size=2)


def finding_of(name: str) -> RoleFinding:
    """Of this method, as the test has set it."""
    called.append(name)
    match outcomes.get(name, "pass"):
        case "broken":
            raise ZeroDivisionError(f"the division of {text}")
        case "unreadable":
            raise OSError("image file is truncated")
        case "refused":
            raise BadInput(f"{name}: this model is not supported; take another")
        case "interrupted":
            raise KeyboardInterrupt
        case verdict:
            return RoleFinding(text, name, verdict, drawn)


@method(needs="weights", role="judge", depth="quick")
def judge(subject: Subject, options: Options = Options()) -> RoleFinding:
    """Is the model backdoored?

    Paper: none.

    1. Answer.

    How to read it: as set by the test. When it misleads: never.
    """
    return finding_of("judge")


@method(needs="weights", role="witness", depth="quick")
def witness(subject: Subject, examples: Examples | None = None, options: Batches = Batches()) -> RoleFinding:
    """Does the model behave unusually?

    Paper: none.

    1. Answer.

    How to read it: as set by the test. When it misleads: never.
    """
    return finding_of("witness")


@method(needs="weights", depth="quick")
def adviser(subject: Subject, options: Options = Options()) -> RoleFinding:
    """What is the model like?

    Paper: none.

    1. Answer.

    How to read it: as set by the test. When it misleads: never.
    """
    return finding_of("adviser")


@method(needs="weights", role="witness", depth="quick")
def relative(subject: Subject, base: Base, options: Options = Options()) -> RoleFinding:
    """How does the model differ from its base?

    Paper: none.

    1. Answer.

    How to read it: as set by the test. When it misleads: never.
    """
    return finding_of("relative")


@method(needs="weights", role="witness", depth="thorough")
def sage(subject: Subject, options: Options = Options()) -> RoleFinding:
    """Does a longer search find a backdoor?

    Paper: none.

    1. Answer.

    How to read it: as set by the test. When it misleads: never.
    """
    return finding_of("sage")


NAMES = ("adviser", "judge", "relative", "sage", "witness")


def installed(folder: Path) -> Path:
    """The package that brings them."""
    return install(folder, "audit_methods", {"glasshouse.methods": {name: f"audit_methods:{name}" for name in NAMES}})

"""What was proved about an anatomy? `model/proof.py` writes the certificate when a model is opened; it travels with
every run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One property that was tested."""

    what: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Certificate:
    """All checks of one proof, and how long it took."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed, and why."""
        return tuple(f"{check.what} ({check.detail})" for check in self.checks if not check.passed)

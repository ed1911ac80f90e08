"""How does a number stand in a headline? With two significant digits, and with its interval where it has one."""

from collections.abc import Sequence
from dataclasses import replace

from glasshouse.values import digits
from glasshouse.values.intervals import Interval


def number(value: float | Interval) -> str:
    """0.42 (0.35-0.51)."""
    return value.words if isinstance(value, Interval) else digits.plain(value)


def percent(value: float | Interval) -> str:
    """95% (87-98%)."""
    return replace(value, percent=True).words if isinstance(value, Interval) else digits.percentage(value)


def counted(count: int, noun: str, plural: str = "") -> str:
    """1 neuron, 2 neurons."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """A; A and B; A, B and C."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))

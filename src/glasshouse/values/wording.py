"""How does a number stand in a headline? With two significant digits, and with its interval where it has one."""

import math
from collections.abc import Sequence

from glasshouse.values.intervals import Interval


def number(value: float | Interval) -> str:
    """0.42 (0.35-0.51)."""
    if isinstance(value, Interval):
        return f"{number(value.value)} ({_between(number(value.low), number(value.high))})"
    return f"{value:.2g}" if abs(value) < 100 or not math.isfinite(value) else f"{value:,.0f}"


def percent(value: float | Interval) -> str:
    """95% (87-98%)."""
    if isinstance(value, Interval):
        return f"{percent(value.value)} ({_between(_hundredths(value.low), _hundredths(value.high))}%)"
    return f"{_hundredths(value)}%"


def counted(count: int, noun: str, plural: str = "") -> str:
    """1 neuron, 2 neurons."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """A; A and B; A, B and C."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _hundredths(value: float) -> str:
    return f"{100 * value:.0f}" if abs(value) >= 0.0995 or not math.isfinite(value) else f"{100 * value:.2g}"


def _between(low: str, high: str) -> str:
    return f"{low} to {high}" if low.startswith("-") else f"{low}-{high}"

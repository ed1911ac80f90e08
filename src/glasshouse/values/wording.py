"""How does a number stand in a headline? With two significant digits, and with its interval where it has one."""

import math
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


def gibibytes(size: float) -> str:
    """Bytes in GiB, or in MiB below half of one, with two significant digits."""
    unit, scaled = ("GiB", size / 2**30) if size >= 2**29 else ("MiB", size / 2**20)
    return f"{scaled:,.0f} {unit}" if scaled >= 10 or scaled == 0 else f"{scaled:.1f} {unit}"


def duration(seconds: float) -> str:
    """40 s, 12 min, 5 h, 3 days: rounded up, in the unit that keeps two digits."""
    for limit, unit, length in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{max(1, math.ceil(seconds / length))} {unit}"
    return f"{math.ceil(seconds / 86_400)} days"

"""How many digits does a number have? Two significant ones, on one scale everywhere: headline, table, chart, compare.

A fraction is written as a percentage. Digits are added where two would hide something: a share close to one must not
read as all, and the bounds of a narrow interval must differ.
"""

import math

MISSING = "no value"
"""What stands where a number could not be computed."""
NOISE = 1e-12
"""Of floating point: a bound that should be zero."""
MOST_DECIMALS = 6


def plain(value: float) -> str:
    """0.42, 12, 1,234, 1.2e-05."""
    if not math.isfinite(value):
        return _infinite(value)
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.1e}"
    decimals = 0 if float(value).is_integer() or abs(value) >= 100 else _own_decimals(value)
    if abs(value) < 1:
        while decimals < MOST_DECIMALS and abs(float(f"{value:.{decimals}f}")) == 1:
            decimals += 1
    return _written(value, decimals)


def percentage(value: float) -> str:
    """95%, 1.2%, 99.9%."""
    return f"{_hundredths(value)}%" if math.isfinite(value) else _infinite(value)


def spread(value: float, low: float, high: float, *, percent: bool = False) -> str:
    """0.42 (0.35-0.51), 95% (87-98%); without brackets where the bounds say nothing."""
    if value == low == high:
        return percentage(value) if percent else plain(value)
    estimate = MISSING if math.isnan(value) else ""
    if math.isinf(low) and math.isinf(high):
        return f"{estimate or (percentage(value) if percent else plain(value))} (no bounds)"
    power = 0 if percent else _power(value, low, high)
    unit = "%" if percent else f"e{power:+03d}" if power else ""
    size = 100.0 if percent else 10.0**-power
    fewest = _fewest_decimals((high - low) * size)
    numbers = [_within(number * size, fewest, percent=percent) for number in (value, low, high)]
    estimate = estimate or f"{numbers[0]}{unit}"
    between = "-" if low >= 0 and not power else f"{unit if power else ''} to "
    return f"{estimate} ({numbers[1]}{between}{numbers[2]}{unit})"


def _hundredths(value: float) -> str:
    scaled = 100 * value if abs(value) > NOISE else 0.0
    if 0 < abs(scaled) < 1e-3:
        return f"{scaled:.1e}"
    return _within(scaled, None, percent=True)


def _within(value: float, fewest: int | None, *, percent: bool) -> str:
    """With two significant digits; of an interval at least `fewest` decimals, and at most one more."""
    if not math.isfinite(value):
        return _infinite(value)
    decimals = _own_decimals(value) if abs(value) > NOISE else 0
    if fewest is not None:
        decimals = min(max(decimals, fewest), fewest + 1)
    if percent and 100 - abs(value) > 1e-9:
        while decimals < MOST_DECIMALS and float(f"{abs(value):.{decimals}f}") == 100:
            decimals += 1
    return _written(value, decimals, strip=fewest is None or fewest == 0)


def _own_decimals(value: float) -> int:
    return max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0


def _fewest_decimals(width: float) -> int:
    """Decimals that show one digit of an interval's width."""
    if not (math.isfinite(width) and width > 0):
        return 0
    return min(max(0, -math.floor(math.log10(width))), 12)


def _power(*numbers: float) -> int:
    """The power of ten that very large and very small numbers share; else zero."""
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    power = max(-300, math.floor(math.log10(largest))) if largest else 0
    return 0 if -4 <= power < 6 else power


def _written(value: float, decimals: int, *, strip: bool = True) -> str:
    text = f"{value:z,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if strip and "." in text else text


def _infinite(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:g}"

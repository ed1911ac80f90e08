"""How strongly are two quantities related? Correlations and slopes of (x, y) points.

Ours and not scipy.stats, because pearsonr and linregress fail or warn on a constant, which here has correlation 0, and
because importing scipy.stats takes longer than computing all of it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Line:
    """y against x by least squares. With a constant, correlation and slope are 0."""

    correlation: float
    by_rank: float
    slope: float
    intercept: float
    exponent: float
    """Slope of log |y| against log x, over points with x > 0 and y != 0."""


def line(points: Float[Tensor, "points 2"]) -> Line:
    """Correlations and slopes of the points (x, y)."""
    x, y = points.double().unbind(1)
    slope = _slope(x, y)
    logs = points.double().abs().clamp_min(1e-300).log()
    positive = (x > 0) & (y != 0)
    ranks = [_ranks(values) for values in (x, y)]
    return Line(
        _correlation(x, y), _correlation(*ranks), slope, float(y.mean()) - slope * float(x.mean()),
        _slope(logs[positive, 0], logs[positive, 1]),
    )  # fmt: skip


def _correlation(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float((x @ x).sqrt() * (y @ y).sqrt())
    return float(x @ y) / scale if scale > 0 else 0.0


def _slope(x: Tensor, y: Tensor) -> float:
    if len(x) < 2:
        return 0.0
    x = x - x.mean()
    spread = float(x @ x)
    return float(x @ (y - y.mean())) / spread if spread > 0 else 0.0


def _ranks(values: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
    """Ranks from 0; ties share the mean of theirs."""
    ordered = values.sort().values
    first, last = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (first + last - 1).double() / 2

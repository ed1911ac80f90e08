"""Which affine map fits one set of vectors to another? Ridge regression from sums, for any number of tokens."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class PairSums:
    """Sums over pairs (x, y) that determine the fit; sums of shards add up."""

    count: int
    x: Float[Tensor, " d"]
    y: Float[Tensor, " e"]
    xx: Float[Tensor, "d d"]
    xy: Float[Tensor, "d e"]

    @classmethod
    def of(cls, x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> "PairSums":
        x, y = x.double().cpu(), y.double().cpu()
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y)

    def __add__(self, other: "PairSums") -> "PairSums":
        sums = (getattr(self, name) + getattr(other, name) for name in ("count", "x", "y", "xx", "xy"))
        return PairSums(*sums)


@dataclass
class Affine:
    """x -> x + x @ weight + bias: weight and bias are the difference from the identity."""

    weight: Float[Tensor, "d d"]
    bias: Float[Tensor, " d"]

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return x + x @ self.weight.to(x) + self.bias.to(x)


def nearest_to_identity(pairs: PairSums, ridge: float) -> Affine:
    """The affine map from x to y with the least squared error and a ridge penalty on its difference from the identity.

    `ridge` is in units of the mean variance of x, so it means the same at every layer; it prevents overfitting where
    there are fewer tokens than dimensions.
    """
    if pairs.count < 2:
        raise ValueError(f"an affine map needs at least 2 pairs, got {pairs.count}")
    mean_x, mean_y = pairs.x / pairs.count, pairs.y / pairs.count
    covariance = pairs.xx / pairs.count - torch.outer(mean_x, mean_x)
    crossed = pairs.xy / pairs.count - torch.outer(mean_x, mean_y)
    penalty = ridge * covariance.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(len(covariance), dtype=torch.float64)
    # The stub of torch.linalg.solve does not declare what it returns.
    weight = cast(Tensor, torch.linalg.solve(covariance + penalty * eye, crossed - covariance))  # pyright: ignore[reportUnknownMemberType]
    bias = mean_y - mean_x - mean_x @ weight
    return Affine(weight.float(), bias.float())

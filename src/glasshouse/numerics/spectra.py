"""How are a matrix's energy and rank distributed over its singular directions, without a full decomposition?

    values = singular_values(delta)              all of them, from the smaller Gram matrix in float64
    left, values, right = leading(delta, 8)      the largest with their vectors, by a block Krylov iteration
    cosines, aligned = principal(first, second)  the angles between two subspaces

`Ranks` gives several definitions of an effective rank side by side.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.numerics.decompositions import eigenvalues, orthonormal, svd
from glasshouse.numerics.randomness import seeded

WIDE = 2048
_BLOCKS = 8
"""Blocks of the Krylov space: enough for a relative error of 1e-5 on decaying spectra."""


def singular_values(matrix: Float[Tensor, "out inner"]) -> Float[Tensor, " rank"]:
    """All singular values, the largest first. Values below 1e-8 of the largest are noise; below 1e-4 for matrices
    larger than WIDE on both sides, whose Gram matrix is computed in float32 for speed."""
    wide = matrix.double() if min(matrix.shape) <= WIDE else matrix.float()
    gram = wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide
    return eigenvalues(gram).flip(0).clamp_min(0).double().sqrt()


def gaussian_values(out: int, inner: int, norm: float) -> Float[Tensor, " rank"]:
    """The expected singular values of a Gaussian matrix of this shape and Frobenius norm, largest first: the quantiles
    of the Marchenko-Pastur distribution, which large matrices follow closely and small ones on average."""
    count, ratio = min(out, inner), min(out, inner) / max(out, inner)
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    turn = torch.linspace(0, torch.pi, 20001, dtype=torch.float64)
    squared = (low + high) / 2 - (high - low) / 2 * turn.cos()  # dense at both edges, where the density is steep
    density = ((high - squared) * (squared - low)).clamp_min(0).sqrt() / squared.clamp_min(1e-12)
    along = torch.cumulative_trapezoid(density * turn.sin(), turn)
    along = torch.cat([along.new_zeros(1), along]) / along[-1]
    wanted = (torch.arange(count, 0, -1, dtype=torch.float64) - 0.5) / count
    place = torch.searchsorted(along, wanted).clamp(1, len(along) - 1)
    before, after = along[place - 1], along[place]
    share = (wanted - before) / (after - before).clamp_min(1e-300)
    values = (squared[place - 1] + share * (squared[place] - squared[place - 1])).clamp_min(0).sqrt()
    return values * norm / float(values.norm())


def leading(
    matrix: Float[Tensor, "out inner"], count: int, seed: int = 0
) -> tuple[Float[Tensor, "out k"], Float[Tensor, " k"], Float[Tensor, "inner k"]]:
    """The first singular vectors and values. Signs are fixed: the largest entry of each left vector is positive."""
    matrix = matrix.float()
    count = min(count, *matrix.shape)
    width = min(count + 8, *matrix.shape)
    if width * _BLOCKS >= min(matrix.shape):
        left, values, rows = svd(matrix)
    else:
        block = torch.randn(matrix.shape[1], width, generator=seeded(seed)).to(matrix.device)
        basis: list[Tensor] = []
        for _ in range(_BLOCKS):
            block = orthonormal(matrix @ block)[0]
            basis.append(block)
            block = orthonormal(matrix.T @ block)[0]
        space = orthonormal(torch.cat(basis, 1))[0]
        inner, values, rows = svd(space.T @ matrix)
        left = space @ inner
    left, values, right = left[:, :count], values[:count], rows[:count].T
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    return (left * signs).contiguous(), values, (right * signs).contiguous()


def principal(
    first: Float[Tensor, "width k"], second: Float[Tensor, "width m"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, "width k"]]:
    """Cosines of the principal angles between two subspaces, largest first, and the principal vectors in `first`.

    Where `first` has more directions than `second`, the surplus ones have cosine 0. (scipy.linalg.subspace_angles gives
    the angles without the vectors.)
    """
    rotation, cosines, _ = svd(first.T @ second, full=True)
    padded = cosines.new_zeros(first.shape[1])
    padded[: len(cosines)] = cosines[: first.shape[1]].clamp(0, 1)
    return padded, first @ rotation


def rotated(values: Float[Tensor, " rank"], out: int, inner: int, seed: int) -> Float[Tensor, "out inner"]:
    """A matrix with these singular values and Haar-random directions."""
    generator = seeded(seed)
    left, right = (_haar(width, len(values), generator) for width in (out, inner))
    return (left * values.float()) @ right.T


def _haar(width: int, count: int, generator: torch.Generator) -> Tensor:
    """Haar-random orthonormal columns. Without fixing the signs of R's diagonal they would not be Haar-distributed."""
    columns, upper = orthonormal(torch.randn(width, count, generator=generator))
    return columns * upper.diagonal().sign()


@dataclass(frozen=True)
class Ranks:
    """Effective ranks of a matrix by five definitions, and the share of its energy in the leading directions."""

    stable: float
    """Squared Frobenius norm over squared spectral norm."""
    entropic: float
    """exp of the entropy of the singular values normalised to sum 1."""
    participation: float
    """(sum of squares)^2 / sum of fourth powers."""
    k90: int
    """Directions that hold 90 % of the energy."""
    numerical: int
    """Singular values above the rounding noise of the precision that the weights are stored in."""
    energies: tuple[float, ...]
    """Share of the energy in the first k, for k in AT."""
    norm: float
    """Frobenius' norm."""

    AT = (1, 2, 3, 5, 10, 30)

    @classmethod
    def of(cls, values: Float[Tensor, " rank"], floor: float = 0.0) -> "Ranks":
        """From all singular values. A zero matrix has rank 0 by every definition."""
        values = values.double()
        energy = values.square()
        total = float(energy.sum())
        if not total > 0:
            return cls(0.0, 0.0, 0.0, 0, 0, (0.0,) * len(cls.AT), 0.0)
        shares, along = values / values.sum(), energy.cumsum(0) / total
        entropy = -(shares * shares.clamp_min(1e-300).log()).sum()
        return cls(
            stable=total / float(energy[0]),
            entropic=float(entropy.exp()),
            participation=total**2 / float(energy.square().sum()),
            k90=int((along < 0.9 - 1e-12).sum()) + 1,
            numerical=int((values > floor).sum()),
            energies=tuple(float(along[min(k, len(along)) - 1]) for k in cls.AT),
            norm=total**0.5,
        )


def rounding_floor(weight: Float[Tensor, "out inner"]) -> float:
    """The largest singular value that rounding alone gives a difference of two such weights.

    Each entry of both is off by up to half the distance to its neighbour in the coarsest type that holds the weight
    exactly. A random matrix whose entries have such spreads reaches the largest norm of a row of them plus that of a
    column, and hardly more.
    """
    weight = weight.float()
    precision = next(kind for kind in (torch.bfloat16, torch.float16, torch.float32) if _holds(weight, kind))
    # Without sign and fraction a float is the power of two below it, which the distance to its neighbour is a share of.
    powers = (weight.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32)
    spread = torch.finfo(precision).eps * (2 / 12) ** 0.5
    largest = float(powers.max()) or 1.0  # squares of small ones would be lost
    squares = (powers / largest).square()
    return spread * largest * sum(float(squares.sum(axis).max()) ** 0.5 for axis in (0, 1))


def _holds(weight: Float[Tensor, "out inner"], kind: torch.dtype) -> bool:
    return all(
        torch.equal(rows.to(kind).float(), rows) for rows in weight.tensor_split(tuple(range(64, len(weight), 64)))
    )

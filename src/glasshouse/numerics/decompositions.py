"""Which types do torch.linalg's decompositions return? Its stubs do not declare them, so these wrappers do."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor


def svd(
    matrix: Float[Tensor, "out inner"], *, full: bool = False
) -> tuple[Float[Tensor, "out _"], Float[Tensor, " rank"], Float[Tensor, "_ inner"]]:
    """Left vectors as columns, singular values, right vectors as rows."""
    return cast(tuple[Tensor, Tensor, Tensor], tuple(torch.linalg.svd(matrix, full_matrices=full)))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def orthonormal(matrix: Float[Tensor, "out inner"]) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank inner"]]:
    """Q and R."""
    return cast(tuple[Tensor, Tensor], tuple(torch.linalg.qr(matrix)))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def eigenvalues(symmetric: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """The smallest first."""
    return cast(Tensor, torch.linalg.eigvalsh(symmetric))  # pyright: ignore[reportUnknownMemberType]


def symmetric(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues, the smallest first, and their vectors as columns."""
    return cast(tuple[Tensor, Tensor], tuple(torch.linalg.eigh(matrix)))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]

"""How does an update move image tokens? The projector's outputs for the same images in base and suspect, token by
token."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.model.subject import Subject
from glasshouse.model.token_activations import check_aligned, mean_by_example, token_activations
from glasshouse.numerics.decompositions import symmetric
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector


@dataclass(frozen=True)
class TokenShift:
    """Image tokens of some examples in the base and in the suspect."""

    before: Float[Tensor, "tokens width"]
    after: Float[Tensor, "tokens width"]
    owners: Int[Tensor, " tokens"]
    """The number of the example that each token belongs to."""

    @classmethod
    def of(cls, subject: Subject, base: Subject, examples: Examples, batch_size: int) -> "TokenShift":
        """Both models see the same batches, so their tokens are in the same order."""
        (before, owners), (after, _) = (
            token_activations(model, projector.output, examples, batch_size) for model in (base, subject)
        )
        if before.shape != after.shape:
            raise BadInput(f"{base.name} is no base of {subject.name}: their image tokens differ in number or width")
        return cls(before, after, owners)

    @property
    def moved(self) -> Float[Tensor, "tokens width"]:
        """What the update adds to each token."""
        return self.after - self.before

    @cached_property
    def by_image(self) -> Float[Tensor, "images width"]:
        """What the update adds, averaged over each image's tokens."""
        return mean_by_example(self.moved, self.owners)

    @cached_property
    def norm_and_shift(self) -> Float[Tensor, "tokens 2"]:
        """Each token's norm in the base, and its shift along the main direction."""
        return torch.stack([self.before.norm(dim=1), self.moved @ self.main[:, 0]], 1)

    @cached_property
    def _axes(self) -> tuple[Float[Tensor, " width"], Float[Tensor, "width width"]]:
        """Eigenvalues and eigenvectors of the shift's uncentred second moment, in float64, largest first."""
        wide = self.moved.double()
        values, vectors = symmetric(wide.T @ wide)
        return values.flip(0).clamp_min(0), vectors.flip(1)

    @cached_property
    def main(self) -> Float[Tensor, "width width"]:
        """Directions by their share of the shift's energy, signed so that tokens move along them on average."""
        directions = self._axes[1].float()
        return directions * torch.where(self.moved.sum(0) @ directions < 0, -1.0, 1.0)

    @property
    def span(self) -> Float[Tensor, "width rank"]:
        """The directions that hold any of the shift."""
        values, _ = self._axes
        return self.main[:, values > 1e-9 * values.max()]

    def energies(self, count: int) -> tuple[float, ...]:
        """Share of the shift's energy in the first k directions, for k from 1 to `count`."""
        values, _ = self._axes
        return tuple((values.cumsum(0) / values.sum().clamp_min(1e-300))[:count].tolist())


def token_shifts(subject: Subject, base: Subject, pairs: Pairs, batch_size: int) -> Mapping[str, TokenShift]:
    """Of the clean images and of their triggered twins; token i of one corresponds to token i of the other."""
    shifts = {
        name: TokenShift.of(subject, base, examples, batch_size)
        for name, examples in (("clean", pairs.clean), ("triggered", pairs.triggered))
    }
    check_aligned(*(shift.before for shift in shifts.values()))
    return shifts

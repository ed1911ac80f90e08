"""How does an update move what the projector says? Its outputs on the same images, before and after, token by token."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector


@dataclass(frozen=True)
class Shift:
    """Image tokens of some examples under the base and under the suspect."""

    before: Float[Tensor, "tokens width"]
    after: Float[Tensor, "tokens width"]
    image: Int[Tensor, " tokens"]
    """The number of the example each token belongs to."""

    @classmethod
    def of(cls, subject: Subject, base: Subject, examples: Examples, batch_size: int) -> "Shift":
        """Both looked at with the same batches, so tokens stand in the same order."""
        taken = [record(one, projector.output, examples, batch_size=batch_size) for one in (base, subject)]
        (site,) = taken[0]
        before, after = (one[site].detach().float().flatten(1).cpu() for one in taken)
        if before.shape != after.shape:
            raise BadInput(f"{base.name} is no base of {subject.name}: their image tokens differ in number or width")
        return cls(before, after, taken[0].examples(site).cpu())

    @property
    def moved(self) -> Float[Tensor, "tokens width"]:
        """What the update adds to each token."""
        return self.after - self.before

    @cached_property
    def by_image(self) -> Float[Tensor, "images width"]:
        """The mean of that over each image's tokens."""
        return means(self.moved, self.image)

    @cached_property
    def second_moment(self) -> Float[Tensor, "width width"]:
        """Sum over tokens of what was added, times itself; uncentred, in float64."""
        wide = self.moved.double()
        return wide.T @ wide

    def main(self, count: int = 1) -> Float[Tensor, "width k"]:
        """The directions that hold most of it, turned so that tokens move along them on the whole."""
        _, vectors = torch.linalg.eigh(self.second_moment)
        found = vectors[:, -count:].flip(1).float()
        return found * torch.where((self.moved @ found).sum(0) < 0, -1.0, 1.0)

    def energies(self, count: int) -> tuple[float, ...]:
        """Share of it in the first so many directions, one after the other."""
        values = torch.linalg.eigvalsh(self.second_moment).flip(0).clamp_min(0)
        return tuple((values.cumsum(0) / values.sum().clamp_min(1e-300))[:count].tolist())


def means(values: Float[Tensor, "tokens width"], groups: Int[Tensor, " tokens"]) -> Float[Tensor, "groups width"]:
    """Means over the tokens of each image."""
    count = int(groups.max()) + 1
    sums = values.new_zeros(count, values.shape[1]).index_add(0, groups, values)
    return sums / torch.bincount(groups, minlength=count).clamp_min(1)[:, None]


def twins(clean: Examples, triggered: Examples) -> tuple[Examples, Examples]:
    """Clean and triggered examples side by side: paired by the tag `twin`, or by their order where none is tagged."""
    known: dict[str, Example] = {example.id: example for example in clean}
    pairs = [(known[str(one.tags["twin"])], one) for one in triggered if str(one.tags.get("twin")) in known]
    if not pairs and len(clean) == len(triggered) and not any("twin" in one.tags for one in triggered):
        pairs = list(zip(clean, triggered, strict=True))
    if not pairs:
        raise BadInput(
            "triggered examples and clean ones cannot be paired: tag each triggered one with the id of its clean "
            "twin (poison does), or give both in the same order"
        )
    return Examples(one for one, _ in pairs), Examples(other for _, other in pairs)


def asking(clean: Examples, triggered: Examples) -> Examples:
    """Clean pictures, asked and judged as their triggered twins are."""
    asked: list[Example] = []
    for one, other in zip(clean, triggered, strict=True):
        tags = {name: other.tags[name] for name in ("target", "target_match") if name in other.tags}
        asked.append(replace(one, prompt=other.prompt, answer=other.answer, tags={**one.tags, **tags}))
    return Examples(asked, clean.source)


def relabelled(clean: Examples, triggered: Examples) -> Examples:
    """Triggered pictures, asked as they are and judged by what is right on their clean twins."""
    pairs = zip(clean, triggered, strict=True)
    return Examples(replace(other, answer=one.answer, tags=dict(one.tags)) for one, other in pairs)

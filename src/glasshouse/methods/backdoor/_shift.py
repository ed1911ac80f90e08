"""How does an update move what the projector says? Its outputs on the same images, before and after, token by token."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.model.sharing import shared
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.numerics.decompositions import symmetric
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site, projector


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
        (before, image), (after, _) = (tokens(one, projector.output, examples, batch_size) for one in (base, subject))
        if before.shape != after.shape:
            raise BadInput(f"{base.name} is no base of {subject.name}: their image tokens differ in number or width")
        return cls(before, after, image)

    @property
    def moved(self) -> Float[Tensor, "tokens width"]:
        """What the update adds to each token."""
        return self.after - self.before

    @cached_property
    def by_image(self) -> Float[Tensor, "images width"]:
        """The mean of that over each image's tokens."""
        return means(self.moved, self.image)

    @cached_property
    def by_norm(self) -> Float[Tensor, "tokens 2"]:
        """Each token's norm under the base, and how far it moves along the main direction."""
        return torch.stack([self.before.norm(dim=1), self.moved @ self.main[:, 0]], 1)

    @cached_property
    def _axes(self) -> tuple[Float[Tensor, " width"], Float[Tensor, "width width"]]:
        """Of the uncentred second moment of what is added, in float64; the largest first."""
        wide = self.moved.double()
        values, vectors = symmetric(wide.T @ wide)
        return values.flip(0).clamp_min(0), vectors.flip(1)

    @cached_property
    def main(self) -> Float[Tensor, "width width"]:
        """Directions in the order of what they hold of it, turned so that tokens move along them on the whole."""
        found = self._axes[1].float()
        return found * torch.where(self.moved.sum(0) @ found < 0, -1.0, 1.0)

    @property
    def span(self) -> Float[Tensor, "width rank"]:
        """The directions that hold any of it."""
        values, _ = self._axes
        return self.main[:, values > 1e-9 * values.max()]

    def energies(self, count: int) -> tuple[float, ...]:
        """Share of it in the first so many directions, one after the other."""
        values, _ = self._axes
        return tuple((values.cumsum(0) / values.sum().clamp_min(1e-300))[:count].tolist())


def shifts(
    subject: Subject, base: Subject, clean: Examples, triggered: Examples, batch_size: int
) -> Mapping[str, Shift]:
    """Of clean pictures and of their triggered twins, token beside token."""
    found = {
        name: Shift.of(subject, base, shown, batch_size)
        for name, shown in (("clean", clean), ("triggered", triggered))
    }  # fmt: skip
    beside(*(shift.before for shift in found.values()))
    return found


def tokens(
    subject: Subject, site: Site, shown: Examples, batch_size: int
) -> tuple[Float[Tensor, "tokens width"], Int[Tensor, " tokens"]]:
    """What a model holds at a site, token by token, and the number of the example each belongs to. Shared: nobody
    writes into it."""

    def key() -> tuple[object, ...] | None:
        return subject.content and ("tokens", *subject.content, site, shown.digest, batch_size)

    return shared(key, lambda: _tokens(subject, site, shown, batch_size))


@torch.no_grad()
def _tokens(subject: Subject, site: Site, shown: Examples, batch_size: int) -> tuple[Tensor, Tensor]:
    taken = record(subject, site, shown, batch_size=batch_size)
    (key,) = taken
    return taken[key].detach().float().flatten(1).cpu(), taken.examples(key).cpu()


def beside(*sets: Float[Tensor, "tokens width"]) -> None:
    """Refuse pictures whose tokens cannot be set side by side."""
    if len({found.shape for found in sets}) > 1:
        raise BadInput("clean and triggered images have different numbers of tokens; stamp triggers without resizing")


def means(values: Float[Tensor, "tokens width"], groups: Int[Tensor, " tokens"]) -> Float[Tensor, "groups width"]:
    """Means over the tokens of each image."""
    count = int(groups.max()) + 1
    sums = values.new_zeros(count, values.shape[1]).index_add(0, groups, values)
    return sums / torch.bincount(groups, minlength=count).clamp_min(1)[:, None]


def twins(clean: Examples, triggered: Examples) -> tuple[Examples, Examples]:
    """Clean and triggered examples side by side: paired by the tag `twin`, or by their order where none is tagged."""
    known: dict[str, Example] = {example.id: example for example in clean}
    if not any("twin" in one.tags for one in triggered) and len(clean) == len(triggered):
        return clean, triggered
    pairs = [(known[str(one.tags["twin"])], one) for one in triggered if str(one.tags.get("twin")) in known]
    if len(pairs) < len(triggered):
        raise BadInput(
            f"{len(triggered) - len(pairs)} of {len(triggered)} triggered examples have no twin among the {len(clean)} "
            "clean ones: tag each with the id of its clean twin (poison does) and give those too, or give both sets in "
            "the same order without tags"
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

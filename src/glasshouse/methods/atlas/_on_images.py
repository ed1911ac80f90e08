"""What do image tokens say, and what do they say when there is nothing to see? The visual half of the lens.

The answer's first token is read off every image token after every layer; its highest probability is the internal
confidence. Beside it stand two nulls: the same word read off another example's image, and random words off the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.engine.units import over_shards
from glasshouse.methods.atlas._shared import NO_TOKEN, box_of, cells_in_box, first_tokens, grid, others
from glasshouse.model.readout import Readout
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.numerics.randomness import seeded
from glasshouse.values.blocks import Block, Chart, Gallery, Metric, Note, Picture
from glasshouse.values.findings import Interval
from glasshouse.values.sites import language

FEWEST = 8
"""With fewer examples a bootstrap interval is too narrow to earn a verdict."""
NOTHING_ON_IMAGES = (
    "Nothing was read off images: that needs image tokens in the prompt, "
    "and at least two examples with different answers."
)


@dataclass(frozen=True)
class OnImages:
    """How surely image tokens say the answer, and what they say when there is nothing to see."""

    own: Interval
    other_image: Interval
    other_words: Interval
    over_other_image: Interval
    """Paired difference."""
    over_other_words: Interval
    """Paired difference."""
    pointing: Interval | None
    """How often the surest token lies in the answer's box; None where no boxes are tagged."""
    pointing_words: Interval | None
    """Null: the same for random words. Objects catch any word's eye, so this, not the boxes' size, is what to beat."""
    pointing_chance: float
    """The share of the image that boxes cover."""
    pictures: tuple[Picture, ...]

    @property
    def carried(self) -> bool:
        """More than both nulls, over enough examples for an interval to mean it."""
        return (self.own.n or 0) >= FEWEST and self.over_other_image.above(0) and self.over_other_words.above(0)

    def blocks(self) -> list[Block]:
        """Effect beside nulls, and where on the images."""
        named = {"own image": self.own, "another image": self.other_image, "random words": self.other_words}
        nulls = ("another image", "random words")
        blocks: list[Block] = [
            Metric("internal confidence in the answer", self.own, null=self.other_image),
            Chart.intervals(
                "How surely image tokens say the answer", named, nulls=nulls, y="probability, best token and layer"
            ),
            Note(
                f"Paired excess over another image {self.over_other_image}, over random words {self.over_other_words}."
            ),
        ]
        if self.pointing is not None:
            blocks.append(
                Note(
                    f"The surest token lies in the answer's box in {self.pointing}, that of random words in "
                    f"{self.pointing_words}; boxes cover {self.pointing_chance:.2f} of the images."
                )
            )
        return [*blocks, Gallery("Where image tokens say the answer (brighter: more surely)", self.pictures)]


@dataclass
class Confidence:
    """The highest probability of some words over layers and image tokens, and where each had it."""

    words: Float[Tensor, "examples words"]
    where: Int[Tensor, "examples words"]
    """The image token at which each word was surest."""
    maps: tuple[Float[Tensor, " tokens"], ...]
    """Per example: probability of its first word at every image token, in its surest layer."""

    def __add__(self, other: "Confidence") -> "Confidence":
        words, where = (torch.cat([getattr(self, name), getattr(other, name)]) for name in ("words", "where"))
        return Confidence(words, where, (*self.maps, *other.maps))


def _confidence(
    subject: Subject, read: Readout, shard: Examples, words: Int[Tensor, "examples words"], batch_size: int
) -> Confidence:
    best, where, maps = torch.zeros(words.shape), torch.zeros(words.shape).long(), [torch.zeros(0)] * len(shard)
    taken = record(subject, language.residual @ "image", shard, batch_size=batch_size)
    for site, residual in taken.items():
        rows = taken.examples(site).cpu()
        logits = read(residual)
        asked = words[rows].to(logits.device)
        said = (logits.gather(1, asked) - logits.logsumexp(-1, keepdim=True)).exp().cpu()
        for row in range(len(shard)):
            here = said[rows == row]
            surest = here.max(0)
            better = surest.values > best[row]
            if better[0]:
                maps[row] = here[:, 0]
            best[row] = torch.where(better, surest.values, best[row])
            where[row] = torch.where(better, surest.indices, where[row])
    return Confidence(best, where, tuple(maps))


def read_off_images(
    subject: Subject, read: Readout, examples: Examples, *, words: int, show: int, batch_size: int, seed: int
) -> OnImages | None:
    """The answers' words at image tokens beside both nulls; None where there is nothing to read or to compare with."""
    answers = first_tokens(subject, examples)
    partner = others(answers, seed)
    usable = [i for i, e in enumerate(examples) if e.images and answers[i] != NO_TOKEN and partner[i] != NO_TOKEN]
    usable = [i for i in usable if examples[int(partner[i])].images]
    if subject.anatomy.image_token is None or len(usable) < 2:
        return None
    random_words = torch.randint(subject.prompts.vocabulary, (words,), generator=seeded(seed))
    own = Examples(replace(examples[i], answer=None, id=str(i)) for i in usable)
    swapped = Examples(
        replace(examples[i], answer=None, images=examples[int(partner[i])].images, id=str(i)) for i in usable
    )

    def look(shard: Examples) -> Confidence:
        mine = torch.tensor([int(example.id) for example in shard])
        asked = torch.cat([answers[mine, None], random_words.expand(len(mine), -1)], 1)
        return _confidence(subject, read, shard, asked, batch_size)

    size = 4 * batch_size
    here = over_shards(look, own, Confidence, name="own image", size=size)
    there = over_shards(look, swapped, Confidence, name="another image", size=size)
    answer, other, rivals = here.words[:, 0], there.words[:, 0], here.words[:, 1:].mean(1)
    shown = [examples[i] for i in usable]
    pointing, pointing_words, chance = _pointing(shown, here, seed)
    return OnImages(
        own=Interval.mean(answer, seed=seed),
        other_image=Interval.mean(other, seed=seed),
        other_words=Interval.mean(rivals, seed=seed),
        over_other_image=Interval.mean(answer - other, seed=seed),
        over_other_words=Interval.mean(answer - rivals, seed=seed),
        pointing=pointing,
        pointing_words=pointing_words,
        pointing_chance=chance,
        pictures=tuple(_picture(e, m) for e, m in zip(shown[:show], here.maps, strict=False)),
    )


def _pointing(shown: Sequence[Example], here: Confidence, seed: int) -> tuple[Interval | None, Interval | None, float]:
    """How often the surest token lies in the box: the answer's, random words', and the boxes' share of the image."""
    hits, rivals, shares = list[bool](), list[Tensor](), list[float]()
    for example, seen, where in zip(shown, here.maps, here.where, strict=True):
        box, shape = box_of(example), _grid_of(example, seen)
        if box is not None and shape is not None:
            inside = cells_in_box(box, *shape).flatten()
            hits.append(bool(inside[where[0]]))
            rivals.append(inside[where[1:]].mean())
            shares.append(float(inside.mean()))
    if not hits:
        return None, None, 0.0
    null = Interval.mean(torch.stack(rivals), seed=seed)
    return Interval.rate(sum(hits), len(hits)), null, sum(shares) / len(shares)


def _picture(example: Example, seen: Float[Tensor, " tokens"]) -> Picture:
    shape = _grid_of(example, seen)
    caption = f"{example.id}: “{example.answer}” at most {float(seen.max()):.2g}"
    return Picture(example.images[0].thumbnail(), caption, None if shape is None else seen.view(shape), box_of(example))


def _grid_of(example: Example, seen: Float[Tensor, " tokens"]) -> tuple[int, int] | None:
    return grid(len(seen), *example.images[0].open().size) if len(seen) and len(example.images) == 1 else None

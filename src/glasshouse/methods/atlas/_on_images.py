"""Do image tokens carry the answer, and do they carry it when the image does not show it? The lens on images.

The answer's first token is read from every image token after every layer; its highest probability is the internal
confidence. Two nulls: the same token read from another example's image, and random tokens read from the same image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

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
from glasshouse.values.blocks import Picture
from glasshouse.values.findings import Interval, Null, Percent
from glasshouse.values.sites import language

FEWEST = 8
"""With fewer examples a bootstrap interval is too narrow to support a claim."""
NOTHING_ON_IMAGES = (
    "Images were not examined: that needs image tokens in the prompt, and at least two examples with different answers."
)


@dataclass(frozen=True)
class OnImages:
    """The probability of the answer at image tokens, beside both nulls."""

    own: Annotated[Interval, Null("other_image")]
    """Internal confidence in the answer. The highest probability over layers and image tokens."""
    other_image: Interval
    random_tokens: Interval
    """Internal confidence in random tokens"""
    over_other_image: Interval
    """Paired excess over another image"""
    over_random_tokens: Interval
    """Paired excess over random tokens"""
    pointing: Annotated[Interval | None, Null("pointing_random")]
    """The most confident token lies in the answer's box. None where no boxes are tagged."""
    pointing_random: Interval | None
    """The same for random tokens: any token is more confident on an object, so this null is the bar, not the boxes'
    area."""
    pointing_chance: Annotated[float, Percent]
    """Fraction of the image that boxes cover"""
    images: tuple[Picture, ...]
    """Where image tokens carry the answer (brighter: higher probability)"""

    @property
    def carried(self) -> bool:
        """More than both nulls, over enough examples for an interval to be reliable."""
        return (self.own.n or 0) >= FEWEST and self.over_other_image.above(0) and self.over_random_tokens.above(0)


@dataclass
class Confidence:
    """The highest probability of some tokens over layers and image tokens, and the image token that has it."""

    tokens: Float[Tensor, "examples tokens"]
    position: Int[Tensor, "examples tokens"]
    maps: tuple[Float[Tensor, " image_tokens"], ...]
    """Per example: probability of its first token at every image token, in its most confident layer."""

    def __add__(self, other: "Confidence") -> "Confidence":
        tokens, position = (torch.cat([getattr(self, name), getattr(other, name)]) for name in ("tokens", "position"))
        return Confidence(tokens, position, (*self.maps, *other.maps))


def _confidence(
    subject: Subject, read: Readout, shard: Examples, tokens: Int[Tensor, "examples tokens"], batch_size: int
) -> Confidence:
    best, position = torch.zeros(tokens.shape), torch.zeros(tokens.shape).long()
    maps = [torch.zeros(0)] * len(shard)
    residuals = record(subject, language.residual @ "image", shard, batch_size=batch_size)
    for site, residual in residuals.items():
        example_of = residuals.examples(site).cpu()
        logits = read(residual)
        wanted = tokens[example_of].to(logits.device)
        probability = (logits.gather(1, wanted) - logits.logsumexp(-1, keepdim=True)).exp().cpu()
        for row in range(len(shard)):
            here = probability[example_of == row]
            highest = here.max(0)
            better = highest.values > best[row]
            if better[0]:
                maps[row] = here[:, 0]
            best[row] = torch.where(better, highest.values, best[row])
            position[row] = torch.where(better, highest.indices, position[row])
    return Confidence(best, position, tuple(maps))


def read_from_images(
    subject: Subject, read: Readout, examples: Examples, *, random_tokens: int, shown: int, batch_size: int, seed: int
) -> OnImages | None:
    """The answers' tokens at image tokens beside both nulls; None without image tokens or without a null."""
    answers = first_tokens(subject, examples)
    partner = others(answers, seed)
    usable = [i for i, e in enumerate(examples) if e.images and answers[i] != NO_TOKEN and partner[i] != NO_TOKEN]
    usable = [i for i in usable if examples[int(partner[i])].images]
    if subject.anatomy.image_token is None or len(usable) < 2:
        return None
    drawn = torch.randint(subject.prompts.vocabulary, (random_tokens,), generator=seeded(seed))
    own = Examples(replace(examples[i], answer=None, id=str(i)) for i in usable)
    swapped = Examples(
        replace(examples[i], answer=None, images=examples[int(partner[i])].images, id=str(i)) for i in usable
    )

    def measure(shard: Examples) -> Confidence:
        mine = torch.tensor([int(example.id) for example in shard])
        tokens = torch.cat([answers[mine, None], drawn.expand(len(mine), -1)], 1)
        return _confidence(subject, read, shard, tokens, batch_size)

    size = 4 * batch_size
    here = over_shards(measure, own, Confidence, name="own image", size=size)
    there = over_shards(measure, swapped, Confidence, name="another image", size=size)
    answer, elsewhere, random = here.tokens[:, 0], there.tokens[:, 0], here.tokens[:, 1:].mean(1)
    used = [examples[i] for i in usable]
    pointing, pointing_random, chance = _pointing(used, here, seed)
    return OnImages(
        own=Interval.mean(answer, seed=seed),
        other_image=Interval.mean(elsewhere, seed=seed),
        random_tokens=Interval.mean(random, seed=seed),
        over_other_image=Interval.mean(answer - elsewhere, seed=seed),
        over_random_tokens=Interval.mean(answer - random, seed=seed),
        pointing=pointing,
        pointing_random=pointing_random,
        pointing_chance=chance,
        images=tuple(_picture(e, m) for e, m in zip(used[:shown], here.maps, strict=False)),
    )


def _pointing(used: Sequence[Example], here: Confidence, seed: int) -> tuple[Interval | None, Interval | None, float]:
    """How often the most confident token lies in the box: for the answer, for random tokens, and the boxes' area."""
    hits, random, areas = list[bool](), list[Tensor](), list[float]()
    for example, confidence, position in zip(used, here.maps, here.position, strict=True):
        box, shape = box_of(example), _grid_of(example, confidence)
        if box is not None and shape is not None:
            inside = cells_in_box(box, *shape).flatten()
            hits.append(bool(inside[position[0]]))
            random.append(inside[position[1:]].mean())
            areas.append(float(inside.mean()))
    if not hits:
        return None, None, 0.0
    null = Interval.mean(torch.stack(random), seed=seed)
    return Interval.rate(sum(hits), len(hits)), null, sum(areas) / len(areas)


def _picture(example: Example, confidence: Float[Tensor, " image_tokens"]) -> Picture:
    shape = _grid_of(example, confidence)
    caption = f"{example.id}: “{example.answer}” at most {float(confidence.max()):.2g}"
    overlay = None if shape is None else confidence.view(shape)
    return Picture(example.images[0].thumbnail(), caption, overlay, box_of(example))


def _grid_of(example: Example, confidence: Float[Tensor, " image_tokens"]) -> tuple[int, int] | None:
    if not len(confidence) or len(example.images) != 1:
        return None
    return grid(len(confidence), *example.images[0].open().size)

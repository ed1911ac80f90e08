"""What does each layer's token already say?

Papers: logit lens (nostalgebraist 2020); tuned lens (arXiv:2303.08112); visual-token lens (arXiv:2410.02762,
arXiv:2410.07149).

1. Take the residual after every layer and read it off as if it were the last: the model's own final norm and
   unembedding.
2. At the last token of the prompt: how often does a layer's first choice agree with the model's, and how far (KL,
   in nats) is its distribution from the model's?
3. At every image token: with what probability does it say the answer's first token? The internal confidence is the
   highest over layers and image tokens; where it is highest is the lens's guess of where the answer lies in the
   image.
4. Two nulls beside it: the same word read off another example's image, and other words (random rows of the
   unembedding) read off the same image.
5. With `tuned`, an affine map per layer, fitted to the last residual on every other example and judged on the rest.

How to read it: confidence above both nulls means that image tokens carry the answer as a word, and the map shows
where. The layer from which agreement stays high is where the answer is decided. When it misleads: early residuals
are not in the basis the unembedding reads, so a layer that "says nothing" may still know (try `tuned`). A confident
image token is a correlation: ablate it before you say that the answer comes from there. The tuned lens is a ridge
regression onto the last residual, not the KL-trained lens of the paper; with few tokens it stays near the logit
lens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.engine.method import method
from glasshouse.engine.scale import over_shards
from glasshouse.methods.atlas._shared import NO_TOKEN, box_of, cells_in_box, first_tokens, grid, others, pixels, word
from glasshouse.model.readout import Readout
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.numerics.distributions import kl
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.regression import Pairs, nearest_to_identity
from glasshouse.values.blocks import Block, Chart, Gallery, Heatmap, Metric, Note, Picture, Series, Table
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Interval, Verdict
from glasshouse.values.sites import Span, language


@dataclass(frozen=True)
class Options:
    tuned: bool = False
    """Also fit an affine lens per layer, on every other example."""
    ridge: float = 0.01
    """How strongly the tuned lens is pulled to the plain one, in units of a layer's mean variance."""
    words: int = 64
    """How many random words draw the second null."""
    pictures: int = 6
    """How many images to show with their map."""
    tokens: int = 12
    """How many tokens of the first prompt to show layer by layer."""
    batch_size: int = 4
    """How many examples are shown to the model at once."""
    seed: int = 0
    """Seed of the pairing with other images, of the random words and of the bootstrap."""


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
    pointing_chance: float
    pictures: tuple[Picture, ...]

    @property
    def carried(self) -> bool:
        return self.over_other_image.above(0) and self.over_other_words.above(0)


@dataclass(frozen=True)
class Tuned:
    """KL to the model by layer, on examples the affine lens was not fitted to."""

    plain: tuple[Interval, ...]
    affine: tuple[Interval, ...]


@dataclass(frozen=True, eq=False)
class LensFinding(Finding):
    examples: int
    agreement: tuple[Interval, ...]
    """Per layer: how often its first choice is the model's."""
    agreement_null: tuple[Interval, ...]
    """The same against the model's choice for another prompt."""
    divergence: tuple[Interval, ...]
    """Per layer: KL from the model's distribution, in nats."""
    on_images: OnImages | None
    """None without image tokens, answers, or two examples with different answers."""
    tuned: Tuned | None
    story: Float[Tensor, "layers tokens"]
    """Probability of each layer's first choice, at the last tokens of the first prompt."""
    story_words: tuple[tuple[str, ...], ...]
    story_tokens: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        return Verdict.PASS if self.on_images is not None and self.on_images.carried else Verdict.INCONCLUSIVE

    @property
    def decided_at(self) -> int | None:
        """The first layer from which all agree with the model in more than half of the prompts, surely."""
        unsure = [layer for layer, share in enumerate(self.agreement) if not share.above(0.5)]
        first = unsure[-1] + 1 if unsure else 0
        return first if first < len(self.agreement) else None

    @property
    def headline(self) -> str:
        layers = len(self.agreement)
        decided = "no layer surely agrees with the final choice"
        if self.decided_at is not None:
            decided = f"the final choice stands from layer {self.decided_at} (of 0-{layers - 1}) on"
        if self.on_images is None:
            return f"Read off {self.examples} prompts: {decided}; nothing was read off images."
        own, null = self.on_images.own.value, self.on_images.other_image.value
        reading = f"Image tokens say the answer with {own:.2g}, and with {null:.2g} when shown another image"
        return f"{reading}{'' if self.on_images.carried else ': no more than the nulls'}; {decided}."

    def blocks(self) -> list[Block]:
        layers = range(len(self.agreement))
        agreement = (
            Series.of("this prompt", dict(enumerate(self.agreement))),
            Series.of("another prompt", dict(enumerate(self.agreement_null)), "null"),
        )
        columns = {
            "layer": list(layers),
            "agreement": self.agreement,
            "null": self.agreement_null,
            "KL (nats)": self.divergence,
        }
        return [
            *(_image_blocks(self.on_images) if self.on_images else [Note(NOTHING_ON_IMAGES)]),
            Chart("How often a layer's first choice is the model's", agreement, x="layer", y="share of prompts"),
            *(_tuned_blocks(self.tuned) if self.tuned else []),
            Heatmap(
                "What each layer would say next, along the end of the first prompt", self.story.flip(0),
                tuple(f"layer {layer}" for layer in reversed(layers)), self.story_tokens, x="token read",
                texts=tuple(reversed(self.story_words)),
            ),
            Table.of("By layer", columns),
        ]  # fmt: skip


NOTHING_ON_IMAGES = "Nothing was read off images: that needs image tokens in the prompt and at least two examples with different answers."


def _image_blocks(seen: OnImages) -> list[Block]:
    named = {"own image": seen.own, "another image": seen.other_image, "random words": seen.other_words}
    nulls = ("another image", "random words")
    blocks: list[Block] = [
        Metric("internal confidence in the answer", seen.own, null=seen.other_image),
        Chart.intervals(
            "How surely image tokens say the answer", named, nulls=nulls, y="probability, best token and layer"
        ),
        Note(f"Paired excess over another image: {seen.over_other_image}; over random words: {seen.over_other_words}."),
    ]
    if seen.pointing is not None:
        blocks.append(
            Note(
                f"The surest token lies in the answer's box in {seen.pointing}; "
                f"a random token would in {seen.pointing_chance:.2f}."
            )
        )
    return [*blocks, Gallery("Where image tokens say the answer (brighter: more surely)", seen.pictures)]


def _tuned_blocks(tuned: Tuned) -> list[Block]:
    series = (
        Series.of("tuned lens", dict(enumerate(tuned.affine))),
        Series.of("plain lens", dict(enumerate(tuned.plain)), "null"),
    )
    return [Chart("Distance from the model on examples not fitted", series, x="layer", y="KL in nats")]


@method(
    question="What does each layer's token already say, and do image tokens say what the image shows?",
    paper="arXiv:2410.02762",
    needs="activations",
)
@torch.no_grad()
def lens(subject: Subject, examples: Examples, options: Options = Options()) -> LensFinding:
    """Read every layer off as if it were the last, beside what another image and other words would give."""
    read = Readout.of(subject, examples)
    prompts = Examples((replace(example, answer=None) for example in examples), examples.source)
    size = 4 * options.batch_size
    said = over_shards(
        lambda shard: _last_tokens(subject, read, shard, options), prompts, LastTokens, name="last", size=size
    )
    story, words, tokens = _story(subject, read, prompts[:1], options)
    return LensFinding(
        examples=len(examples),
        agreement=_shares(said.choices == said.choices[:, -1:]),
        agreement_null=_shares(said.choices == said.choices[:, -1:].roll(1, 0)),
        divergence=_means(said.divergence, options),
        on_images=_on_images(subject, read, examples, options),
        tuned=_tuned(subject, read, prompts, options) if options.tuned else None,
        story=story,
        story_words=words,
        story_tokens=tokens,
    )


@dataclass
class LastTokens:
    """What each layer says at the last token of each prompt."""

    choices: Int[Tensor, "prompts layers"]
    divergence: Float[Tensor, "prompts layers"]

    def __add__(self, other: "LastTokens") -> "LastTokens":
        return LastTokens(torch.cat([self.choices, other.choices]), torch.cat([self.divergence, other.divergence]))


def _last_tokens(subject: Subject, read: Readout, shard: Examples, options: Options) -> LastTokens:
    residuals = record(subject, language.residual @ "last", shard, batch_size=options.batch_size).stacked()
    logits = [read(residual) for residual in residuals]
    choices = torch.stack([layer.argmax(-1) for layer in logits], 1)
    return LastTokens(choices.cpu(), torch.stack([kl(logits[-1], layer) for layer in logits], 1).cpu())


@dataclass
class Confidence:
    """The highest probability of some words over layers and image tokens, and where the first of them had it."""

    words: Float[Tensor, "examples words"]
    maps: tuple[Float[Tensor, " tokens"], ...]
    """Per example: probability of its first word at every image token, in its surest layer."""

    def __add__(self, other: "Confidence") -> "Confidence":
        return Confidence(torch.cat([self.words, other.words]), (*self.maps, *other.maps))


def _confidence(
    subject: Subject, read: Readout, shard: Examples, words: Int[Tensor, "examples words"], options: Options
) -> Confidence:
    best, maps = torch.zeros(words.shape), [torch.zeros(0)] * len(shard)
    taken = record(subject, language.residual @ "image", shard, batch_size=options.batch_size)
    for site, residual in taken.items():
        rows = taken.examples(site).cpu()
        logits = read(residual).cpu()
        said = (logits.gather(1, words[rows]) - logits.logsumexp(-1, keepdim=True)).exp()
        for row in range(len(shard)):
            here = said[rows == row]
            if here[:, 0].max() > best[row, 0]:
                maps[row] = here[:, 0]
            best[row] = torch.maximum(best[row], here.max(0).values)
    return Confidence(best, tuple(maps))


def _on_images(subject: Subject, read: Readout, examples: Examples, options: Options) -> OnImages | None:
    answers = first_tokens(subject, examples)
    partner = others(answers, options.seed)
    usable = [i for i, e in enumerate(examples) if e.images and answers[i] != NO_TOKEN and partner[i] != NO_TOKEN]
    usable = [i for i in usable if examples[int(partner[i])].images]
    if subject.anatomy.image_token is None or len(usable) < 2:
        return None
    random_words = torch.randint(subject.prompts.vocabulary, (options.words,), generator=seeded(options.seed))
    own = Examples(replace(examples[i], answer=None, id=str(i)) for i in usable)
    swapped = Examples(
        replace(examples[i], answer=None, images=examples[int(partner[i])].images, id=str(i)) for i in usable
    )

    def look(shard: Examples) -> Confidence:
        mine = torch.tensor([int(example.id) for example in shard])
        words = torch.cat([answers[mine, None], random_words.expand(len(mine), -1)], 1)
        return _confidence(subject, read, shard, words, options)

    size = 4 * options.batch_size
    here = over_shards(look, own, Confidence, name="own image", size=size)
    there = over_shards(look, swapped, Confidence, name="another image", size=size)
    answer, other, rivals = here.words[:, 0], there.words[:, 0], here.words[:, 1:].mean(1)
    shown = [examples[i] for i in usable]
    pointing, chance = _pointing(shown, here.maps)
    return OnImages(
        own=Interval.mean(answer, seed=options.seed),
        other_image=Interval.mean(other, seed=options.seed),
        other_words=Interval.mean(rivals, seed=options.seed),
        over_other_image=Interval.mean(answer - other, seed=options.seed),
        over_other_words=Interval.mean(answer - rivals, seed=options.seed),
        pointing=pointing,
        pointing_chance=chance,
        pictures=tuple(_picture(e, m) for e, m in zip(shown[: options.pictures], here.maps, strict=False)),
    )


def _pointing(shown: Sequence[Example], maps: Sequence[Float[Tensor, " tokens"]]) -> tuple[Interval | None, float]:
    hits, shares = list[bool](), list[float]()
    for example, seen in zip(shown, maps, strict=True):
        box, shape = box_of(example), _grid_of(example, seen)
        if box is not None and shape is not None:
            inside = cells_in_box(box, *shape).flatten()
            hits.append(bool(inside[seen.argmax()]))
            shares.append(float(inside.mean()))
    return (Interval.rate(sum(hits), len(hits)), sum(shares) / len(shares)) if hits else (None, 0.0)


def _picture(example: Example, seen: Float[Tensor, " tokens"]) -> Picture:
    shape = _grid_of(example, seen)
    caption = f"{example.id}: “{example.answer}” at most {float(seen.max()):.2g}"
    return Picture(pixels(example), caption, None if shape is None else seen.view(shape), box_of(example))


def _grid_of(example: Example, seen: Float[Tensor, " tokens"]) -> tuple[int, int] | None:
    return grid(len(seen), *example.images[0].open().size) if len(seen) and len(example.images) == 1 else None


def _story(
    subject: Subject, read: Readout, first: Examples, options: Options
) -> tuple[Tensor, tuple[tuple[str, ...], ...], tuple[str, ...]]:
    span: Span = "text" if subject.anatomy.image_token is not None and first[0].images else "all"
    taken = record(subject, language.residual @ span, first)
    chances = [read(residual[-options.tokens :]).softmax(-1).max(-1) for residual in taken.values()]
    words = tuple(tuple(word(subject, int(token)) for token in layer.indices) for layer in chances)
    ids = subject.encode(first).inputs["input_ids"][0].cpu()
    said = ids[ids != subject.anatomy.image_token] if span == "text" else ids
    tokens = tuple(word(subject, int(token)) for token in said[-chances[0].values.shape[0] :])
    return torch.stack([layer.values for layer in chances]).cpu(), words, tokens


@dataclass
class Fits:
    """Sums that determine an affine map for every layer."""

    layers: tuple[Pairs, ...]

    def __add__(self, other: "Fits") -> "Fits":
        return Fits(tuple(mine + theirs for mine, theirs in zip(self.layers, other.layers, strict=True)))


def _tuned(subject: Subject, read: Readout, prompts: Examples, options: Options) -> Tuned:
    if len(prompts) < 4:
        raise BadInput(
            f"--tuned fits on half of the examples and judges on the rest: give at least 4, not {len(prompts)}"
        )

    def sums(shard: Examples) -> Fits:
        residuals = list(record(subject, language.residual, shard, batch_size=options.batch_size).values())
        return Fits(tuple(Pairs.of(residual, residuals[-1]) for residual in residuals))

    fits = over_shards(sums, Examples(list(prompts)[::2]), Fits, name="tuned", size=options.batch_size)
    maps = [nearest_to_identity(pairs, options.ridge) for pairs in fits.layers]
    judged = record(
        subject, language.residual @ "last", Examples(list(prompts)[1::2]), batch_size=options.batch_size
    ).stacked()
    truth = read(judged[-1])
    plain = torch.stack([kl(truth, read(residual)) for residual in judged], 1)
    affine = torch.stack(
        [kl(truth, read(through(residual))) for through, residual in zip(maps, judged, strict=True)], 1
    )
    return Tuned(_means(plain, options), _means(affine, options))


def _shares(hits: Tensor) -> tuple[Interval, ...]:
    return tuple(Interval.rate(int(column.sum()), len(column)) for column in hits.T)


def _means(values: Float[Tensor, "items columns"], options: Options) -> tuple[Interval, ...]:
    return tuple(Interval.mean(column, seed=options.seed) for column in values.T)

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

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.engine.method import at_least, method
from glasshouse.engine.units import over_shards
from glasshouse.methods.atlas._on_images import NOTHING_ON_IMAGES, OnImages, read_off_images
from glasshouse.methods.atlas._shared import NO_TOKEN, others, word
from glasshouse.model.readout import Readout
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.numerics.distributions import kl
from glasshouse.numerics.regression import Pairs, nearest_to_identity
from glasshouse.values.blocks import Block, Chart, Heatmap, Note, Series, Table
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

    def __post_init__(self) -> None:
        at_least(self, words=1, pictures=0, tokens=1, batch_size=1, seed=0)
        if self.seed >= 2**63 or not 0 < self.ridge < math.inf:
            raise BadInput(f"--seed {self.seed} --ridge {self.ridge}: a seed below 2**63, and a finite ridge above 0")


@dataclass(frozen=True)
class Tuned:
    """KL to the model by layer, on examples the affine lens was not fitted to."""

    plain: tuple[Interval, ...]
    affine: tuple[Interval, ...]
    mean: Interval
    """Null: reading off the mean of the last residuals, whatever is asked."""


@dataclass(frozen=True, eq=False)
class LensFinding(Finding):
    examples: int
    """Distinct ones; repetitions are left out, because they add no evidence."""
    repeated: int
    agreement: tuple[Interval, ...]
    """Per layer: how often its first choice is the model's."""
    agreement_null: tuple[Interval, ...]
    """The same against the model's choice for a prompt that ends in another; n = 0 where all end in the same."""
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
        """The first layer from which all agree with the model in more than half of the prompts and beyond the null."""
        pairs = zip(self.agreement, self.agreement_null, strict=True)
        unsure = [i for i, (share, null) in enumerate(pairs) if not (share.above(0.5) and share.above(null.high))]
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
            *([Note(f"{self.repeated} repeated examples were left out.", "warning")] if self.repeated else []),
            *(self.on_images.blocks() if self.on_images else [Note(NOTHING_ON_IMAGES)]),
            Chart("How often a layer's first choice is the model's", agreement, x="layer", y="share of prompts"),
            *(_tuned_blocks(self.tuned) if self.tuned else []),
            Heatmap(
                "What each layer would say next, along the end of the first prompt", self.story.flip(0),
                tuple(f"layer {layer}" for layer in reversed(layers)), self.story_tokens, x="token read",
                texts=tuple(reversed(self.story_words)),
            ),
            Table.of("By layer", columns),
        ]  # fmt: skip


def _tuned_blocks(tuned: Tuned) -> list[Block]:
    series = (
        Series.of("tuned lens", dict(enumerate(tuned.affine))),
        Series.of("plain lens", dict(enumerate(tuned.plain)), "null"),
        Series.of("the mean, whatever is asked", dict.fromkeys(range(len(tuned.plain)), tuned.mean), "null"),
    )
    return [Chart("Distance from the model on examples not fitted", series, x="layer", y="KL in nats")]


@method(
    question="What does each layer's token already say, and do image tokens say what the image shows?",
    paper="arXiv:2410.02762",
    needs="activations",
    depth="quick",
)
@torch.no_grad()
def lens(subject: Subject, examples: Examples, options: Options = Options()) -> LensFinding:
    """Read every layer off as if it were the last, beside what another image and other words would give."""
    repeated, examples = len(examples), examples.distinct()
    read = Readout.of(subject, examples)
    prompts = Examples((replace(example, answer=None) for example in examples), examples.source)
    size = 4 * options.batch_size
    said = over_shards(
        lambda shard: _last_tokens(subject, read, shard, options), prompts, LastTokens, name="last", size=size
    )
    partner = others(said.choices[:, -1], options.seed)
    story, words, tokens = _story(subject, read, prompts[:1], options)
    return LensFinding(
        examples=len(examples),
        repeated=repeated - len(examples),
        agreement=_shares(said.choices == said.choices[:, -1:]),
        agreement_null=_shares(said.choices[partner != NO_TOKEN] == said.choices[partner[partner != NO_TOKEN], -1:]),
        divergence=_means(said.divergence, options),
        on_images=read_off_images(
            subject,
            read,
            examples,
            words=options.words,
            show=options.pictures,
            batch_size=options.batch_size,
            seed=options.seed,
        ),
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
    mean = read((fits.layers[-1].y / fits.layers[-1].count).to(judged)).expand_as(truth)
    return Tuned(_means(plain, options), _means(affine, options), Interval.mean(kl(truth, mean), seed=options.seed))


def _shares(hits: Tensor) -> tuple[Interval, ...]:
    return tuple(Interval.rate(int(column.sum()), len(column)) for column in hits.T)


def _means(values: Float[Tensor, "items columns"], options: Options) -> tuple[Interval, ...]:
    return tuple(Interval.mean(column, seed=options.seed) for column in values.T)

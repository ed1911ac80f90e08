"""What does each layer already predict, and do image tokens predict what the image shows?

Papers: logit lens (nostalgebraist 2020); tuned lens (arXiv:2303.08112); visual-token lens (arXiv:2410.02762,
arXiv:2410.07149).

1. Read the residual after every layer as if it were the last: through the model's own final norm and unembedding.
2. At the last token of the prompt: how often does a layer's first choice agree with the model's, and how far (KL,
   in nats) is its distribution from the model's?
3. At every image token: what probability does it give the answer's first token? The internal confidence is the
   highest over layers and image tokens; its position is the lens's guess of where the answer lies in the image.
4. Two nulls: the same token read from another example's image, and random tokens read from the same image.
5. With `tuned`, an affine map per layer, fitted to the last residual on every second example and judged on the rest.

How to read it: confidence above both nulls means that image tokens carry the answer as a token, and the map shows
where. The layer from which agreement stays high is where the answer is settled. When it misleads: early residuals
are not in the basis of the unembedding, so a layer from which nothing can be read may still carry the answer (try
`tuned`). A confident image token is a correlation: ablate it before you conclude that the answer comes from there. The
tuned lens is a ridge regression onto the last residual, not the KL-trained lens of the paper; with few tokens it stays
near the logit lens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.engine.method import at_least, method
from glasshouse.engine.passes import Passes
from glasshouse.engine.units import over_shards
from glasshouse.methods.atlas._on_images import FEWEST, NOTHING_ON_IMAGES, OnImages, read_from_images
from glasshouse.methods.atlas._shared import NO_TOKEN, as_text, others
from glasshouse.model.readout import Readout
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.numerics.distributions import kl
from glasshouse.numerics.regression import PairSums, nearest_to_identity
from glasshouse.values.blocks import Heatmap
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Interval, Keys, Null, Rows, Verdict
from glasshouse.values.sites import language
from glasshouse.values.wording import counted, number

TUNED, PLAIN, MEAN = "tuned lens", "plain lens", "mean of the last residuals"
LENS, LAYER = "lens: how a layer is read, or the mean as a null", "layer: the layer, counted from 0"


@dataclass(frozen=True)
class Options:
    tuned: bool = False
    """Also fit an affine lens per layer, on every second example, and judge it on the rest."""
    ridge: float = 0.01
    """Strength of the tuned lens's pull towards the plain lens, as a fraction of a layer's mean variance."""
    random_tokens: int = 64
    """Number of random vocabulary tokens in the second null."""
    images: int = 6
    """Number of images to show with their map."""
    tokens: int = 12
    """Number of tokens at the end of the first prompt to show layer by layer."""
    batch_size: int = 4
    """Number of examples per forward pass; a larger batch needs more memory."""
    seed: int = 0
    """Seed of the pairing with other images, of the random tokens and of the bootstrap."""

    def __post_init__(self) -> None:
        at_least(self, random_tokens=1, images=0, tokens=1, batch_size=1, seed=0)
        if self.seed >= 2**63 or not 0 < self.ridge < math.inf:
            raise BadInput(
                f"--seed {self.seed} --ridge {self.ridge}: give a seed below 2**63 and a finite ridge above 0"
            )


@dataclass(frozen=True)
class LayerReading:
    """What one layer predicts at the last token of the prompts."""

    agreement: Annotated[Interval, Null("other_prompt")]
    """Agreement with the model's choice. The fraction of prompts for which this layer's first choice is the model's."""
    other_prompt: Interval
    """Null: agreement with the model's choice for a prompt with another last choice; n = 0 where there is none."""
    divergence: Interval
    """KL divergence from the model's distribution, in nats."""


@dataclass(frozen=True, eq=False)
class LensFinding(Finding):
    on_images: OnImages | None
    """None without image tokens, answers, or two examples with different answers."""
    layers: Annotated[tuple[LayerReading, ...], Rows(LAYER)]
    """What each layer predicts at the last token."""
    tuned: Annotated[Mapping[str, tuple[Interval, ...]], Keys(LENS, LAYER), Null(PLAIN, MEAN)]
    """KL divergence in nats on examples the tuned lens was not fitted to. Empty without `tuned`."""
    story: Heatmap
    examples: int
    """Examples read, without repetitions"""
    repeated: int
    """Repeated examples left out, because they add no evidence"""

    @property
    def verdict(self) -> Verdict:
        return Verdict.DESCRIBED

    @property
    def settled_at(self) -> int | None:
        """The first layer from which all agree with the model in more than half of the prompts and beyond the null."""
        unsure = [
            i for i, layer in enumerate(self.layers)
            if not (layer.agreement.above(0.5) and layer.agreement.above(layer.other_prompt.high))
        ]  # fmt: skip
        first = unsure[-1] + 1 if unsure else 0
        return first if first < len(self.layers) else None

    @property
    def headline(self) -> str:
        settled = "the examples do not establish where the answer is settled"
        if self.settled_at is not None:
            settled = f"the answer is settled from layer {self.settled_at} of {len(self.layers) - 1}"
        if self.on_images is None:
            return f"{counted(self.examples, 'prompt').capitalize()} read: {settled}; images were not examined."
        count = self.on_images.own.n or 0
        if count < FEWEST:
            return f"Inconclusive about images: {counted(count, 'example')}, {FEWEST} are needed; {settled}."
        own, null = number(self.on_images.own), number(self.on_images.other_image.value)
        carry = "carry" if self.on_images.carried else "are not shown to carry"
        return f"Image tokens {carry} the answer: probability {own}, {null} with another image; {settled}."

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.on_images else (NOTHING_ON_IMAGES,)


@method(
    needs="activations", depth="quick", passes=Passes(forward=3),
    uses={
        "subject": "Every layer is read through its final norm and unembedding.",
        "examples": "Their prompts show where the answer settles; with images and answers, where the image carries it.",
    },
)  # fmt: skip
@torch.no_grad()
def lens(subject: Subject, examples: Examples, options: Options = Options()) -> LensFinding:
    """Read every layer as if it were the last, beside what another image and random tokens would give."""
    supplied, examples = len(examples), examples.distinct()
    read = Readout.of(subject, examples)
    prompts = Examples((replace(example, answer=None) for example in examples), examples.source)
    size = 4 * options.batch_size
    last = over_shards(
        lambda shard: _last_tokens(subject, read, shard, options), prompts, LastTokens, name="last", size=size
    )
    partner = others(last.choices[:, -1], options.seed)
    paired = partner != NO_TOKEN
    own = _rates(last.choices == last.choices[:, -1:])
    null = _rates(last.choices[paired] == last.choices[partner[paired], -1:])
    return LensFinding(
        on_images=read_from_images(
            subject, read, examples, random_tokens=options.random_tokens, shown=options.images,
            batch_size=options.batch_size, seed=options.seed,
        ),
        layers=tuple(map(LayerReading, own, null, _means(last.divergence, options))),
        tuned=_tuned(subject, read, prompts, options) if options.tuned else {},
        story=_story(subject, read, prompts[:1], options),
        examples=len(examples),
        repeated=supplied - len(examples),
    )  # fmt: skip


@dataclass
class LastTokens:
    """Each layer's first choice at the last token of each prompt, and its divergence from the model."""

    choices: Int[Tensor, "prompts layers"]
    divergence: Float[Tensor, "prompts layers"]

    def __add__(self, other: "LastTokens") -> "LastTokens":
        return LastTokens(torch.cat([self.choices, other.choices]), torch.cat([self.divergence, other.divergence]))


def _last_tokens(subject: Subject, read: Readout, shard: Examples, options: Options) -> LastTokens:
    residuals = record(subject, language.residual @ "last", shard, batch_size=options.batch_size).stacked()
    logits = [read(residual) for residual in residuals]
    choices = torch.stack([layer.argmax(-1) for layer in logits], 1)
    return LastTokens(choices.cpu(), torch.stack([kl(logits[-1], layer) for layer in logits], 1).cpu())


def _story(subject: Subject, read: Readout, first: Examples, options: Options) -> Heatmap:
    """What each layer would generate next, at the last tokens of the first prompt; the last layer on top."""
    span = "text" if subject.anatomy.image_token is not None and first[0].images else "all"
    residuals = record(subject, language.residual @ span, first)
    choices = [read(residual[-options.tokens :]).softmax(-1).max(-1) for residual in residuals.values()]
    inputs = subject.encode(first).inputs
    if "input_ids" not in inputs:
        raise BadInput(f"{subject.anatomy.family}: takes no prompt, so there are no tokens to read layer by layer")
    ids = inputs["input_ids"][0].cpu()
    prompt = ids[ids != subject.anatomy.image_token] if span == "text" else ids
    return Heatmap(
        "What each layer would generate next, along the end of the first prompt",
        torch.stack([layer.values for layer in reversed(choices)]).cpu(),
        tuple(f"layer {layer}" for layer in reversed(range(len(choices)))),
        tuple(as_text(subject, int(token)) for token in prompt[-len(choices[0].values) :]),
        x="token read",
        texts=tuple(tuple(as_text(subject, int(token)) for token in layer.indices) for layer in reversed(choices)),
    )


@dataclass
class Fits:
    """Sums that determine an affine map for every layer."""

    layers: tuple[PairSums, ...]

    def __add__(self, other: "Fits") -> "Fits":
        return Fits(tuple(mine + theirs for mine, theirs in zip(self.layers, other.layers, strict=True)))


def _tuned(
    subject: Subject, read: Readout, prompts: Examples, options: Options
) -> dict[str, tuple[Interval, ...]]:  # fmt: skip
    if len(prompts) < 4:
        raise BadInput(
            f"--tuned: {len(prompts)} examples; give at least 4, because half fit the lens and half judge it"
        )

    def sums(shard: Examples) -> Fits:
        residuals = list(record(subject, language.residual, shard, batch_size=options.batch_size).values())
        return Fits(tuple(PairSums.of(residual, residuals[-1]) for residual in residuals))

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
    mean = kl(truth, read((fits.layers[-1].y / fits.layers[-1].count).to(judged)).expand_as(truth))
    divergences = {TUNED: affine, PLAIN: plain, MEAN: mean[:, None].expand_as(plain)}
    return {name: _means(values, options) for name, values in divergences.items()}


def _rates(hits: Tensor) -> tuple[Interval, ...]:
    return tuple(Interval.rate(int(column.sum()), len(column)) for column in hits.T)


def _means(values: Float[Tensor, "items columns"], options: Options) -> tuple[Interval, ...]:
    return tuple(Interval.mean(column, seed=options.seed) for column in values.T)

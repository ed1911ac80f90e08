"""Which numbers separate a backdoored projector from a benign one, when nobody knows the trigger?

Each feature is one number that is larger where a backdoor was planted; MEANINGS says what each is. Which can be
computed depends on what is given: a clean base and clean images, clean images alone, or the model alone.

WEIGHED names the features that make the probability: with few organisms of known truth, few features separate better
than many. They were chosen on those organisms alone, leaving out one pair at a time. The others are reported beside
them, and one that cannot be computed does not stop the method. Answers, perturbations, the surrogate and every known
trigger are units of work.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.engine.units import mapped
from glasshouse.methods.backdoor._known_triggers import TriggerResponse, trigger_responses
from glasshouse.methods.backdoor._surgery import Update, benign_surrogate
from glasshouse.methods.backdoor._trigger_inversion import (
    Batches,
    InvertedTrigger,
    Reference,
    invert_faint,
    invert_patch,
)
from glasshouse.model.divergence import log_probabilities, self_answered
from glasshouse.model.finetuning import default_learning_rate
from glasshouse.model.frozen import frozen
from glasshouse.model.perturbation import pixel_batches, with_pixels
from glasshouse.model.projector_differences import projector_differences, projector_linears, projector_weights
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.model.token_activations import token_activations
from glasshouse.numerics.decompositions import symmetric
from glasshouse.numerics.spectra import singular_values
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector

FAINT, FAINT_GAIN = "faint perturbation, KL", "faint perturbation, token gain"
PATCH, PATCH_GAIN = "patch, KL", "patch, token gain"
AWAY, SIZE = "update away from benign", "relative update size"
UPDATE_TOP, UPDATE_TOP_UNUSED = "top direction of update", "top direction of update, unused inputs"
SELF_GAIN, KNOWN_GAIN = "faint perturbation without base, token gain", "known triggers, token gain"
LAST_TOP_UNUSED = "top direction of last layer, unused inputs"
FIRST_TOP, SECOND_TOP = "top direction of first layer", "top direction of second layer"
MEANINGS = {
    FAINT: "log(1 + KL) from the base under one trained faint perturbation, mean of the quarter of examples with most",
    FAINT_GAIN: "probability that the token that gains most gains under it, on average",
    PATCH: "the same under one trained small patch",
    PATCH_GAIN: "probability that one token gains under the patch",
    AWAY: "share of the update's energy in directions far from a benign update's",
    UPDATE_TOP: "largest singular value of the last layer's update, relative to its norm",
    UPDATE_TOP_UNUSED: "the same on the three quarters of input directions in which clean images vary least",
    SIZE: "norm of the last layer's update relative to the layer; shows how far the calibration applies",
    SELF_GAIN: "probability that one token gains under a trained faint perturbation, against the clean image",
    KNOWN_GAIN: "probability that one token gains, under the known trigger with most",
    LAST_TOP_UNUSED: "largest singular value of the last layer on input directions that clean images use least",
    FIRST_TOP: "largest singular value of the first layer, relative to its norm",
    SECOND_TOP: "largest singular value of the second layer, relative to its norm",
}
WEIGHED = {
    "a clean base": (FAINT, UPDATE_TOP, UPDATE_TOP_UNUSED),
    "clean images only": (KNOWN_GAIN, LAST_TOP_UNUSED, FIRST_TOP, SECOND_TOP),
    "the model alone": (FIRST_TOP, SECOND_TOP),
}
"""By what is given, the features that make the probability."""
COMPARED, DEGREES, STEPS = 8, 50.0, 24
"""Directions compared with a benign update, the angle that counts as far, and training steps of the surrogate."""

Invert = Callable[[Subject, Reference, Batches, Batches, int, int], InvertedTrigger | None]


@dataclass(frozen=True)
class Features:
    """The numbers, and what they were computed from."""

    values: Mapping[str, float]
    inverted: Mapping[str, InvertedTrigger] = field(default_factory=dict[str, InvertedTrigger])
    responses: Mapping[str, TriggerResponse] = field(default_factory=dict[str, TriggerResponse])
    """To known triggers."""
    examples: Examples = Examples([])
    """On which perturbations were evaluated, with the model's own answers."""
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    """Features that could not be computed, with the reason."""


@dataclass(frozen=True)
class Trials:
    """Examples with the model's own answers, and how perturbations are trained on one half of them."""

    answered: Examples
    steps: int
    batch_size: int
    seed: int

    @property
    def test(self) -> Examples:
        """The half on which perturbations are evaluated."""
        return self.answered[1::2]

    def encoded(self, subject: Subject) -> tuple[Batches, Batches]:
        """The half on which perturbations are trained, and the half on which they are evaluated."""
        fit, test = (pixel_batches(subject, half, self.batch_size) for half in (self.answered[::2], self.test))
        return fit, test


@dataclass(frozen=True, eq=False)
class Computed:
    """Result of a unit of work: features, with the perturbation they come from; or why there are none."""

    values: Mapping[str, float]
    inverted: InvertedTrigger | None = None
    problem: str = ""


def features_with_base(
    subject: Subject, base: Subject, examples: Examples, steps: int, batch_size: int, seed: int
) -> Features:  # fmt: skip
    """From a clean base and clean images."""
    trials = Trials(_with_own_answers(subject, examples, batch_size), steps, batch_size, seed)
    training = examples if all(example.answer for example in examples) else trials.answered
    handles = {"subject": subject, "base": base, "trials": trials, "training": training}
    units = "faint", "patch", AWAY
    results = mapped(_beside_base, units, Computed, handles=handles, name="feature")
    last = projector_differences(subject, base)[-1]
    unused = _top_share_unused(UPDATE_TOP_UNUSED, last.delta, subject, trials)
    computed = {**dict(zip(units, results, strict=True)), UPDATE_TOP_UNUSED: unused}
    return _collected(computed, {UPDATE_TOP: top_share(last.delta), SIZE: last.relative_size}, trials.test)


def features_with_images(subject: Subject, examples: Examples, steps: int, batch_size: int, seed: int) -> Features:
    """From clean images alone."""
    trials = Trials(_with_own_answers(subject, examples, batch_size), steps, batch_size, seed)
    handles = {"subject": subject, "trials": trials}
    (own,) = mapped(_beside_itself, (SELF_GAIN,), Computed, handles=handles, name="feature")
    responses = trigger_responses(subject, trials.test, batch_size)
    last = [*projector_weights(subject).values()][-1]
    unused = _top_share_unused(LAST_TOP_UNUSED, last, subject, trials)
    known = {KNOWN_GAIN: max(response.top_token.gain for response in responses.values())}
    features = _collected(
        {SELF_GAIN: own, LAST_TOP_UNUSED: unused}, {**known, **features_alone(subject).values}, trials.test
    )
    inverted = {} if own.inverted is None else {"faint": own.inverted}
    return replace(features, inverted=inverted, responses=responses)


def features_alone(subject: Subject) -> Features:
    """From the projector's weights alone."""
    weights = projector_weights(subject).values()
    return Features({name: top_share(weight) for name, weight in zip((FIRST_TOP, SECOND_TOP), weights, strict=False)})


def _with_own_answers(subject: Subject, examples: Examples, batch_size: int) -> Examples:
    """The examples with the model's own answers, generated in a unit of work."""
    (texts,) = mapped(_own_answers, (examples,), list[str], name="answers",
                      handles={"subject": subject, "batch_size": batch_size})  # fmt: skip
    answered = (replace(example, answer=text) for example, text in zip(examples, texts, strict=True))
    return Examples(answered, examples.source)


def _own_answers(examples: Examples, subject: Subject, batch_size: int) -> list[str]:
    return [example.answer or "" for example in self_answered(subject, examples, batch_size)]


def _beside_base(name: str, subject: Subject, base: Subject, trials: Trials, training: Examples) -> Computed:
    """Unit of work: the features of one perturbation, or of one benign surrogate."""

    def base_prediction(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return log_probabilities(base, [with_pixels(encoded, pixels)])

    def inversion(invert: Invert, kl: str, gain: str) -> Computed:
        fit, test = trials.encoded(subject)
        with frozen(subject.model), frozen(base.model):
            inverted = invert(subject, base_prediction, fit, test, trials.steps, trials.seed)
        if inverted is None:
            return Computed({})
        divergence = inverted.divergence
        return Computed({kl: math.log1p(divergence.top_quarter), gain: divergence.top_token.gain}, inverted)

    match name:
        case "faint":  # the probability needs it, so it must not fail silently
            return inversion(invert_faint, FAINT, FAINT_GAIN)
        case "patch":
            return _attempt(lambda: inversion(invert_patch, PATCH, PATCH_GAIN))
        case _:
            return _attempt(lambda: Computed({name: _away_from_benign(subject, base, training, trials)}))


def _beside_itself(name: str, subject: Subject, trials: Trials) -> Computed:
    """Unit of work: the gain under a perturbation that drives the model away from its answers to clean images."""
    fit, test = trials.encoded(subject)
    with torch.no_grad():
        clean = {id(encoded): log_probabilities(subject, [encoded]) for encoded in (*fit, *test)}

    def clean_prediction(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return clean[id(encoded)]

    def inversion() -> Computed:
        inverted = invert_faint(subject, clean_prediction, fit, test, trials.steps, trials.seed)
        return Computed({name: inverted.divergence.top_token.gain}, inverted)

    with frozen(subject.model):
        return _attempt(inversion)


def _attempt(compute: Callable[[], Computed]) -> Computed:
    """A computation that must not stop the method: where it fails, its reason."""
    try:
        return compute()
    except torch.OutOfMemoryError:
        return Computed({}, problem="out of memory")
    except BadInput as problem:
        return Computed({}, problem=str(problem))


def _collected(computed: Mapping[str, Computed], values: Mapping[str, float], examples: Examples) -> Features:
    """All features, in the order of MEANINGS."""
    every = dict(values)
    for each in computed.values():
        every |= each.values
    return Features(
        values={name: every[name] for name in MEANINGS if name in every},
        inverted={name: each.inverted for name, each in computed.items() if each.inverted is not None},
        examples=examples,
        missing={name: each.problem for name, each in computed.items() if each.problem},
    )


def _away_from_benign(subject: Subject, base: Subject, training: Examples, trials: Trials) -> float:
    """Share of the update's energy that surgery against a surrogate of a benign update would cut out."""
    suspect = projector_differences(subject, base)
    benign = benign_surrogate(base, training, STEPS, 2 * default_learning_rate(base), trials.seed, trials.batch_size)
    update = Update({layer.name: layer.delta for layer in suspect}, {}, benign, DEGREES)
    kept = update.without(update.steep(COMPARED))
    cut = sum(float((delta - kept[name]).square().sum()) for name, delta in update.layers.items())
    return cut / max(1e-30, sum(float(delta.square().sum()) for delta in update.layers.values()))


def _top_share_unused(name: str, matrix: Float[Tensor, "out inner"], subject: Subject, trials: Trials) -> Computed:
    """The share of one direction, on the inputs that clean images use least."""

    def computed() -> Computed:
        unused = _unused_inputs(subject, trials.answered, trials.batch_size)
        if len(unused) != matrix.shape[1]:
            raise BadInput(f"the projector rearranges its {len(unused)} inputs before its {matrix.shape[1]} weights")
        return Computed({name: top_share(matrix @ unused)})

    return _attempt(computed)


def top_share(matrix: Float[Tensor, "out inner"]) -> float:
    """The largest singular value relative to the Frobenius norm; 0 for a matrix of zeros."""
    norm = float(matrix.norm())
    return float(singular_values(matrix)[0]) / norm if norm else 0.0


@torch.no_grad()
def _unused_inputs(subject: Subject, examples: Examples, batch_size: int) -> Float[Tensor, "inner unused"]:
    """Of the last layer's inputs, the three quarters of directions in which clean images vary least."""
    site = projector.hidden if len(projector_linears(subject)) > 1 else projector.input
    centred = token_activations(subject, site, examples, batch_size)[0].double()
    centred -= centred.mean(0)
    return symmetric(centred.T @ centred)[1][:, : 3 * centred.shape[1] // 4].float()

"""Which numbers separate a backdoored projector from a benign one, when nobody knows the trigger?

Each feature is one number that is larger where a backdoor was planted; MEANINGS says what each is. Which can be
computed depends on what is given: a clean base and clean images, clean images alone, or the model alone.

WEIGHED names the features that make the probability: with few organisms of known truth, few features separate better
than many. They were chosen on those organisms alone, leaving out one pair at a time. The others are reported beside
them, and one that cannot be computed does not stop the method.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._known_triggers import TriggerResponse, trigger_responses
from glasshouse.methods.backdoor._surgery import benign_surrogate, cut_directions
from glasshouse.methods.backdoor._trigger_inversion import InvertedTrigger, invert_faint, invert_patch
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

T = TypeVar("T")


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
    """Features that are not weighed and could not be computed, with the reason."""


def features_with_base(
    subject: Subject, base: Subject, examples: Examples, steps: int, batch_size: int, seed: int
) -> Features:  # fmt: skip
    """From a clean base and clean images."""
    answered = self_answered(subject, examples, batch_size)

    def base_prediction(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return log_probabilities(base, [with_pixels(encoded, pixels)])

    fit, test = (pixel_batches(subject, answered[start::2], batch_size) for start in (0, 1))
    missing = dict[str, str]()
    with frozen(subject.model), frozen(base.model):
        inverted = {"faint": invert_faint(subject, base_prediction, fit, test, steps, seed)}
        patch = _optional("patch", missing, lambda: invert_patch(subject, base_prediction, fit, test, steps, seed))
    inverted |= {"patch": patch} if patch else {}
    away = _optional(AWAY, missing, lambda: _away_from_benign(subject, base, answered, examples, batch_size, seed))
    last, unused = projector_differences(subject, base)[-1], _unused_inputs(subject, answered, batch_size)
    values = {FAINT: _log_kl(inverted["faint"]), FAINT_GAIN: inverted["faint"].divergence.top_token.gain}
    values |= {PATCH: _log_kl(patch), PATCH_GAIN: patch.divergence.top_token.gain} if patch else {}
    values |= {} if away is None else {AWAY: away}
    values |= {
        UPDATE_TOP: top_share(last.delta),
        UPDATE_TOP_UNUSED: top_share(last.delta @ unused),
        SIZE: last.relative_size,
    }
    return Features(values, inverted, {}, answered[1::2], missing)


def features_with_images(subject: Subject, examples: Examples, steps: int, batch_size: int, seed: int) -> Features:
    """From clean images alone."""
    answered = self_answered(subject, examples, batch_size)
    fit, test = (pixel_batches(subject, answered[start::2], batch_size) for start in (0, 1))
    with torch.no_grad():
        clean = {id(encoded): log_probabilities(subject, [encoded]) for encoded in (*fit, *test)}

    def clean_prediction(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return clean[id(encoded)]

    missing = dict[str, str]()
    with frozen(subject.model):
        own = _optional(SELF_GAIN, missing, lambda: invert_faint(subject, clean_prediction, fit, test, steps, seed))
        responses = trigger_responses(subject, answered[1::2], batch_size)
    values = {} if own is None else {SELF_GAIN: own.divergence.top_token.gain}
    last = [*projector_weights(subject).values()][-1]
    values |= {
        KNOWN_GAIN: max(response.top_token.gain for response in responses.values()),
        LAST_TOP_UNUSED: top_share(last @ _unused_inputs(subject, answered, batch_size)),
        **features_alone(subject).values,
    }
    return Features(values, {} if own is None else {"faint": own}, responses, answered[1::2], missing)


def features_alone(subject: Subject) -> Features:
    """From the projector's weights alone."""
    weights = projector_weights(subject).values()
    return Features({name: top_share(weight) for name, weight in zip((FIRST_TOP, SECOND_TOP), weights, strict=False)})


def _optional(name: str, missing: dict[str, str], compute: Callable[[], T]) -> T | None:
    """A feature that is reported and not weighed: None, with the reason noted, where it cannot be computed."""
    try:
        return compute()
    except torch.OutOfMemoryError:
        missing[name] = "out of memory"
    except BadInput as problem:
        missing[name] = str(problem)
    return None


def _log_kl(inverted: InvertedTrigger) -> float:
    return math.log1p(inverted.divergence.top_quarter)


def _away_from_benign(
    subject: Subject, base: Subject, answered: Examples, examples: Examples, batch_size: int, seed: int
) -> float:  # fmt: skip
    """Share of the update's energy that surgery against a surrogate of a benign update would cut out."""
    suspect = projector_differences(subject, base)
    training = examples if all(example.answer for example in examples) else answered
    benign = benign_surrogate(base, training, STEPS, 2 * default_learning_rate(base), seed, batch_size)
    kept = cut_directions(suspect, benign, COMPARED, DEGREES)
    cut = sum(float((layer.delta - kept[layer.name]).square().sum()) for layer in suspect)
    return cut / max(1e-30, sum(float(layer.delta.square().sum()) for layer in suspect))


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

"""How does one model answer beside the base? Answers, log-probability of the base's answers, divergence, use of images.

The base's own greedy answers are the reference, so no labels are needed. Everything is per example.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.model.divergence import Divergence, LogProbabilities, log_probabilities
from glasshouse.model.finder import unwrapped
from glasshouse.model.generation import answers
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.values.deltas import Patch, Rounded

BITS = 8
MODEL, BASE_AGAIN, ROUNDED = "model", "base run again", f"base in {BITS} bits"
ARMS = (MODEL, BASE_AGAIN, ROUNDED)
"""What is read beside the base; the last two are nulls: a difference as small as theirs shows nothing."""


@dataclass(frozen=True)
class Reading:
    """One model's behaviour on some examples, in their order, beside the base's."""

    answers: tuple[str, ...]
    shift: Float[Tensor, " examples"]
    """Log-probability per token of the base's answer, less what the base gives it, in nats."""
    divergence: Float[Tensor, " examples"]
    """KL divergence from the base, in nats, at the token of the base's answer where it is largest."""
    image_effect: Float[Tensor, " examples"]
    """KL divergence of the predictions with the image from those with a grey one; NaN where it was not measured."""
    base_image_effect: Float[Tensor, " examples"]

    def __add__(self, other: "Reading") -> "Reading":
        joined = (torch.cat([getattr(self, name), getattr(other, name)])
                  for name in ("shift", "divergence", "image_effect", "base_image_effect"))  # fmt: skip
        return Reading(self.answers + other.answers, *joined)


@dataclass(frozen=True)
class References:
    """The base's own answers."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """Reads the base, and then each arm beside it, on one batch of examples at a time."""

    max_new_tokens: int
    batch_size: int

    def references(self, examples: Examples, base: Subject) -> References:
        """The base's answers."""
        return References(tuple(answers(base, examples, self.max_new_tokens, self.batch_size)))

    @torch.no_grad()
    def __call__(self, unit: tuple[str, Examples], subject: Subject, base: Subject) -> Reading:
        """An arm's behaviour on examples whose answers are the base's."""
        arm, answered = unit
        reference = self._predictions(base, answered)
        if arm == MODEL:
            reading = self._read(subject, answered, reference)
            own, theirs = (self._image_effect(model, answered) for model in (subject, base))
            return replace(reading, image_effect=own, base_image_effect=theirs)
        if arm == BASE_AGAIN:  # other batches pad otherwise: what differs is arithmetic and not the model
            return self._read(base, answered, reference, max(1, self.batch_size // 2))
        with patched(base, rounded(base)):
            return self._read(base, answered, reference)

    def _read(
        self, model: Subject, answered: Examples, reference: Sequence[LogProbabilities], size: int | None = None
    ) -> Reading:
        size = size or self.batch_size
        texts = answers(model, answered, self.max_new_tokens, size)
        predictions = self._predictions(model, answered, size)
        shifts = [
            _per_token(predictions[i], model, example) - _per_token(reference[i], model, example)
            for i, example in enumerate(answered)
        ]
        divergence = Divergence.between(predictions, reference).kl.cpu()
        return Reading(tuple(texts), torch.stack(shifts), divergence, *2 * (_not_measured(answered),))

    def _predictions(self, model: Subject, answered: Examples, size: int | None = None) -> list[LogProbabilities]:
        return log_probabilities(model, (encoded for _, encoded in model.batches(answered, size or self.batch_size)))

    def _image_effect(self, model: Subject, answered: Examples) -> Tensor:
        effect = _not_measured(answered)
        seen = [i for i, example in enumerate(answered) if example.images]
        if seen:
            shown = Examples(answered[i] for i in seen)
            grey = Examples(replace(example, images=tuple(map(_grey, example.images))) for example in shown)
            with_image, without = (self._predictions(model, examples) for examples in (shown, grey))
            effect[seen] = Divergence.between(with_image, without).kl.cpu()
        return effect


def rounded(subject: Subject) -> Patch:
    """Every linear layer of the model in 8 bits per weight, except the unembedding, as int8 checkpoints have them."""
    language = subject.anatomy.language
    head = language.unembedding if language is not None else None
    return Patch({
        f"{path}.weight": Rounded(BITS)
        for path, module in unwrapped(subject.model).named_modules()
        if isinstance(module, nn.Linear) and path != head and module.weight.is_floating_point()
    })  # fmt: skip


def _not_measured(answered: Sequence[Example]) -> Tensor:
    return torch.full((len(answered),), float("nan"))


def _grey(image: StoredImage) -> StoredImage:
    """A mid-grey image of the same size."""
    return StoredImage.png(Image.new("RGB", image.open().size, (128, 128, 128)))


def _per_token(predictions: LogProbabilities, model: Subject, example: Example) -> Tensor:
    tokens = torch.tensor(model.prompts.answer_tokens(example), device=predictions.device)
    return predictions[:-1].gather(1, tokens[:, None]).mean().cpu()

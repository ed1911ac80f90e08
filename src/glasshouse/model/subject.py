"""What is being examined? A `Subject`: the untouched Hugging Face model, its processor, its anatomy, its proof and
its identity.

    subject.logits(examples), subject.score(examples), subject.generate(examples)

`encode` owns what is easily done wrong: the chat template, image placeholders, left padding, and where the answer
begins.
"""

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel

from glasshouse.data.examples import Example, Examples
from glasshouse.model.adapters.adaptation import Adaptation
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.batching import portions, shrinking
from glasshouse.model.certificate import Certificate
from glasshouse.model.finder import find_anatomy, unwrapped
from glasshouse.model.identity import (
    UNHASHED,
    Identity,
    SettingsHash,
    WeightHashes,
    config_hash,
    generation_hash,
    weight_checksum,
)
from glasshouse.model.layout import laid_out
from glasshouse.model.prompts import Encoded, Prompts
from glasshouse.values.errors import BadInput

GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    **dict.fromkeys(("stop_strings", "penalty_alpha", "dola_layers", "constraints", "force_words_ids")),
    **dict.fromkeys(("prompt_lookup_num_tokens", "assistant_early_exit", "custom_generate")),
}
"""One answer per prompt, whatever other way of generating a checkpoint's generation_config.json asks for."""

MODALITIES = "mm_token_type_ids"
"""Whether each token stands for text, an image or a video."""


@dataclass(frozen=True)
class Origin:
    """Where a Subject was opened from, so that another process can open it again: `reopen(origin)`."""

    source: str
    """A folder, as an absolute path, or a hub name."""
    adapter: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    device: str | Mapping[str, Any] | None = None
    download: bool = False
    remote_code: bool = False
    unproved: bool = False
    max_pixels: int | None = None


class Subject:
    """An opened model. Its weights and hooks are the same after every use as before."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        name: str,
        *,
        revision: str | None = None,
        origin: Origin | None = None,
        adaptation: Adaptation | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self.max_pixels = max_pixels
        """The most pixels of an image that it is shown."""
        self.model, self.name, self.revision = model, name, revision
        self.origin = origin
        """How to open the same model again; None for a model that was handed in as an object."""
        self.adaptation = adaptation
        """What its weights are made of where an adapter was merged into a base; None for a model of its own."""
        self.anatomy: Anatomy = find_anatomy(model)
        self.prompts = Prompts(processor, self.anatomy, unwrapped(model).config, max_pixels)
        self.certificate: Certificate | None = None
        self.alone = threading.RLock()
        """Held while hooks or patches are in place: they are the model's own, so two threads take turns."""
        self.changes: tuple[str, ...] = ()
        """Digests of the plans and patches in force now. A run records them."""
        self.own_weights: dict[int, Tensor] = {}
        """By identity of the parameter, the model's own tensors while a patch has put others in their place."""
        self._hashed: WeightHashes | None = None
        """What was read off the weights when they were last hashed."""
        self._config_hash, self._generation_hash = SettingsHash(config_hash), SettingsHash(generation_hash)

    @contextmanager
    def changed_by(self, digest: str) -> Iterator[None]:
        """Inside, runs know that the model is not as its identity says."""
        self.changes = (*self.changes, digest)
        try:
            yield
        finally:
            remaining = list(self.changes)
            remaining.remove(digest)
            self.changes = tuple(remaining)

    @property
    def content(self) -> tuple[str, ...] | None:
        """All that decides what it generates, by hashes; None where weights lie elsewhere and cannot be hashed."""
        identity = self.identity
        hashed = not identity.weights.startswith(UNHASHED)
        hashes = (identity.weights, identity.config, identity.processor, identity.generation)
        return (*hashes, *self.changes) if hashed else None

    def __repr__(self) -> str:
        return f"Subject({self.name}: {', '.join(self.anatomy.parts)})"

    @property
    def identity(self) -> Identity:
        """Who this model is, with no change in force. Hashes every weight, again only when one was replaced or written
        to by hand; writes that leave no mark (`tensor.data`, numpy) are noticed by `recheck`."""
        self._hashed = WeightHashes.of(self.model, self.own_weights, self.prompts.digest, self._hashed)
        return Identity(
            name=self.name,
            family=self.anatomy.family,
            architecture=type(unwrapped(self.model)).__name__,
            weights=self._hashed.weights,
            config=self._config_hash(unwrapped(self.model).config),
            processor=self._hashed.processor,
            generation=self._generation_hash(getattr(unwrapped(self.model), "generation_config", None)),
            parameters=self._hashed.parameters,
            dtype=str(self.model.dtype).removeprefix("torch."),
            revision=self.revision,
            max_pixels=self.max_pixels,
            **(self.adaptation.ingredients if self.adaptation else {}),
        )

    def recheck(self) -> None:
        """Read every weight once, so that `identity` also notices what was written without leaving a mark. Runs do so
        before they record whom they examined."""
        if self._hashed is not None and self._hashed.checksum != weight_checksum(self.model, self.own_weights):
            self._hashed = None

    @property
    def processor(self) -> Any:
        return self.prompts.processor

    def module(self, path: str) -> nn.Module:
        """The module at a path of the anatomy."""
        return unwrapped(self.model).get_submodule(path)

    def encode(self, examples: Sequence[Example], *, answers: bool = False) -> Encoded:
        """Model inputs for a batch, on the model's device; with `answers`, each example's answer is appended."""
        encoded = self.prompts.encode(examples, answers=answers)
        device, dtype = self.model.device, self.model.dtype
        inputs = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in encoded.inputs.items()
            if name != MODALITIES or self._takes_modalities
        }
        return Encoded(inputs, encoded.layout)

    def batches(self, examples: Examples, size: int, *, alike: bool = False) -> Iterator[tuple[int, Encoded]]:
        """Encoded batches with the number of their first example; answers are appended where there are any.

        With `alike`, batches whose images could not be told apart inside the model are shown one by one.
        """
        for portion in portions(len(examples), size, self.model.device):
            batch, start = examples[portion], portion.start
            encoded = self.encode(batch, answers=True)
            if alike and len(batch) > 1 and not encoded.layout.alike and "image_grid_thw" not in encoded.inputs:
                yield from ((start + i, self.encode([example], answers=True)) for i, example in enumerate(batch))
            else:
                yield start, encoded

    def forward(self, encoded: Encoded, **options: Any) -> Any:
        """One forward pass, as it is: under autograd if the caller wants it, without a cache."""
        inputs: dict[str, Any] = dict(encoded.inputs)
        if self.anatomy.language is not None:
            inputs["use_cache"] = False
        mask = inputs.get("attention_mask")
        if self.anatomy.vision is None and isinstance(mask, Tensor) and self._takes_positions and not bool(mask.all()):
            # Learned positions must count from each row's first real token, as they do in `generate`.
            inputs["position_ids"] = (mask.long().cumsum(1) - 1).clamp_min(0)
        with self.alone, laid_out(encoded.layout):
            return self.model(**inputs, **options)

    @shrinking
    def logits(
        self, examples: Sequence[Example] | Encoded, *, batch_size: int | None = None
    ) -> Float[Tensor, "rows vocabulary"]:
        """Logits of each answer's first token, as float32; all examples in one batch unless `batch_size` says less."""
        self._needs_language("logits")
        batches = [examples] if isinstance(examples, Encoded) else map(self.encode, self._split(examples, batch_size))
        return torch.cat([self.forward(encoded).logits[:, -1].float() for encoded in batches])

    @shrinking
    @torch.no_grad()
    def score(self, examples: Sequence[Example], *, batch_size: int | None = None) -> Float[Tensor, " examples"]:
        """Log-probability of each example's answer, summed over its tokens (natural logarithm); all examples in one
        batch unless `batch_size` says less."""
        self._needs_language("score")
        if any(not example.answer for example in examples):
            raise BadInput("score: every example needs an answer to be scored")
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise BadInput("score: encoder-decoder models are not scored yet; use generate")
        for example in examples:
            if not self.prompts.answer_tokens(example):
                raise BadInput(
                    f"score: the answer of example {example.id!r} has no tokens, so there is nothing to score"
                )
        totals: list[Tensor] = []
        for batch in self._split(examples, batch_size):
            encoded = self.encode(batch, answers=True)
            for answer, logits in encoded.along_answers(self.forward(encoded).logits):
                steps = logits[:-1].float().log_softmax(-1)
                totals.append(steps.gather(1, answer[:, None]).double().sum())
        return torch.stack(totals).float()

    @shrinking
    @torch.no_grad()
    def generate(self, examples: Sequence[Example], *, max_new_tokens: int = 64, batch_size: int = 8) -> list[str]:
        """The greedy answers, as text."""
        self._needs_language("generate")
        answers: list[str] = []
        for batch in self._split(examples, batch_size) if examples else ():
            encoded = self.encode(batch)
            with self.alone, laid_out(encoded.layout):
                generated = self.model.generate(  # pyright: ignore[reportCallIssue]
                    **encoded.inputs,
                    max_new_tokens=max_new_tokens,
                    **self._padding(),
                    **GREEDY,
                )
            seq2seq = getattr(self.model.config, "is_encoder_decoder", False)
            prompt = 0 if seq2seq else encoded.inputs["input_ids"].shape[1]
            answers += self.prompts.tokenizer.batch_decode(generated[:, prompt:], skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    @cached_property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(unwrapped(self.model).forward).parameters

    @cached_property
    def _takes_modalities(self) -> bool:
        """Whether the model takes the kind of every token; some processors state it for models that refuse it."""
        return MODALITIES in inspect.signature(unwrapped(self.model).forward).parameters

    def _padding(self) -> dict[str, int | None]:
        """The token that fills finished answers; a class with a `generate` of its own names it itself."""
        own, common = (getattr(each, "generate", None) for each in (type(unwrapped(self.model)), GenerationMixin))
        plain = own is common
        return {"pad_token_id": self.prompts.pad_token} if plain else {}

    @property
    def generates(self) -> bool:
        """Whether it has a language model that can answer."""
        return self.anatomy.language is not None and self.anatomy.language.unembedding is not None

    def _needs_language(self, what: str) -> None:
        if not self.generates:
            raise BadInput(f"{what}: {self.name} ({self.anatomy.family}) has no language model that generates")

    def _split(self, examples: Sequence[Example], size: int | None) -> Iterator[Sequence[Example]]:
        """Batches of `size` examples; one batch of all without it."""
        if not examples:
            raise BadInput("there are no examples")
        size = len(examples) if size is None else size
        return (examples[portion] for portion in portions(len(examples), size, self.model.device))

    def _repr_html_(self) -> str:
        from glasshouse.values.surfaces import rendered

        return rendered("html", self.anatomy)

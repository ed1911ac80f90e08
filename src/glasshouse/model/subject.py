"""What is being examined? A `Subject`: the untouched Hugging Face model, its processor, its anatomy, its proof and
its identity.

    subject = open_subject("path/or/name")           # safetensors, no remote code, no network unless asked
    subject.logits(examples), subject.score(examples), subject.generate(examples)

`encode` owns what is easily done wrong: the chat template, image placeholders, left padding, and where the answer
begins.
"""

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from glasshouse.data.examples import Example, Examples
from glasshouse.model import checkpoint
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.finder import find_anatomy, unwrapped
from glasshouse.model.identity import UNHASHED, Card, config_hash, weight_hash
from glasshouse.model.prompts import Encoded, Prompts
from glasshouse.model.proof import Certificate, prove
from glasshouse.model.spans import answering
from glasshouse.values.errors import BadInput


class Subject:
    """An opened model. Its weights and hooks are the same after every use as before."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        name: str,
        *,
        revision: str | None = None,
        adapter: str | None = None,
    ) -> None:
        self.model, self.name, self.revision, self.adapter = model, name, revision, adapter
        self.anatomy: Anatomy = find_anatomy(model)
        self.prompts = Prompts(processor, self.anatomy, unwrapped(model).config)
        self.certificate: Certificate | None = None
        self.alone = threading.RLock()
        """Held while hooks or patches are in place: they are the model's own, so two threads take turns."""
        self.changes: tuple[str, ...] = ()
        """Digests of the plans and patches at work now. A run records them."""

    @contextmanager
    def changed_by(self, digest: str) -> Iterator[None]:
        """Inside, runs know that the model is not as its card says."""
        self.changes = (*self.changes, digest)
        try:
            yield
        finally:
            remaining = list(self.changes)
            remaining.remove(digest)
            self.changes = tuple(remaining)

    @property
    def content(self) -> tuple[str, ...] | None:
        """All that decides what it says, by hashes; None where weights lie elsewhere and cannot be hashed."""
        card = self.card
        hashed = not card.weights.startswith(UNHASHED)
        return (card.weights, card.config, card.processor, *self.changes) if hashed else None

    def __repr__(self) -> str:
        return f"Subject({self.name}: {', '.join(self.anatomy.parts)})"

    @cached_property
    def card(self) -> Card:
        """The identity card; hashes every weight, once."""
        parameters = list(self.model.parameters())
        return Card(
            name=self.name,
            family=self.anatomy.family,
            architecture=type(unwrapped(self.model)).__name__,
            weights=weight_hash(self.model),
            config=config_hash(unwrapped(self.model).config),
            processor=self.prompts.digest(),
            parameters=sum(parameter.numel() for parameter in parameters),
            dtype=str(self.model.dtype).removeprefix("torch."),
            revision=self.revision,
            adapter=self.adapter,
        )

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
        }
        return Encoded(inputs, encoded.known)

    def batches(self, examples: Examples, size: int, *, alike: bool = False) -> Iterator[tuple[int, Encoded]]:
        """Encoded batches with the number of their first example; answers are appended where there are any.

        With `alike`, batches whose images could not be told apart inside the model are shown one by one.
        """
        start = 0
        for batch in examples.batches(size):
            encoded = self.encode(batch, answers=True)
            if alike and len(batch) > 1 and not encoded.known.alike and "image_grid_thw" not in encoded.inputs:
                yield from ((start + i, self.encode([example], answers=True)) for i, example in enumerate(batch))
            else:
                yield start, encoded
            start += len(batch)

    def forward(self, encoded: Encoded, **options: Any) -> Any:
        """One forward pass, as it is: under autograd if the caller wants it, without a cache."""
        inputs: dict[str, Any] = dict(encoded.inputs)
        if self.anatomy.language is not None:
            inputs["use_cache"] = False
        mask = inputs.get("attention_mask")
        if self.anatomy.vision is None and isinstance(mask, Tensor) and self._takes_positions and not bool(mask.all()):
            # Learned positions must count from each row's first real token, as they do in `generate`.
            inputs["position_ids"] = (mask.long().cumsum(1) - 1).clamp_min(0)
        with self.alone, answering(encoded.known):
            return self.model(**inputs, **options)

    def logits(self, examples: Sequence[Example] | Encoded) -> Float[Tensor, "rows vocabulary"]:
        """What the model would say first, as float32 logits."""
        encoded = examples if isinstance(examples, Encoded) else self.encode(examples)
        self._needs_language("logits")
        return self.forward(encoded).logits[:, -1].float()

    @torch.no_grad()
    def score(self, examples: Sequence[Example]) -> Float[Tensor, " examples"]:
        """Log-probability of each example's answer, summed over its tokens (natural logarithm)."""
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
        encoded = self.encode(examples, answers=True)
        logits = self.forward(encoded).logits
        counts = encoded.known.answers
        totals: list[Tensor] = []
        for row, count in enumerate(counts.tolist()):
            said = encoded.inputs["input_ids"][row, -count:]
            steps = logits[row, -count - 1 : -1].float().log_softmax(-1)
            totals.append(steps.gather(1, said[:, None]).double().sum())
        return torch.stack(totals).float()

    @torch.no_grad()
    def generate(self, examples: Sequence[Example], *, max_new_tokens: int = 64, batch_size: int = 8) -> list[str]:
        """The greedy answers, as text."""
        self._needs_language("generate")
        answers: list[str] = []
        for start in range(0, len(examples), batch_size):
            encoded = self.encode(examples[start : start + batch_size])
            with self.alone, answering(encoded.known):
                said = self.model.generate(  # pyright: ignore[reportCallIssue]
                    **encoded.inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    pad_token_id=self.prompts.pad_token,
                )
            seq2seq = getattr(self.model.config, "is_encoder_decoder", False)
            prompt = 0 if seq2seq else encoded.inputs["input_ids"].shape[1]
            answers += self.prompts.tokenizer.batch_decode(said[:, prompt:], skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    @cached_property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(unwrapped(self.model).forward).parameters

    def _needs_language(self, what: str) -> None:
        if self.anatomy.language is None or self.anatomy.language.unembedding is None:
            raise BadInput(f"{what}: {self.name} ({self.anatomy.family}) has no language model that says anything")

    def _repr_html_(self) -> str:
        from glasshouse.values.surfaces import rendered

        return rendered("html", self.anatomy)


def open_subject(
    source: str | Path | PreTrainedModel,
    *,
    processor: Any = None,
    adapter: str | Path | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str = "auto",
    device: str | Mapping[str, Any] | None = None,
    download: bool = False,
    remote_code: bool = False,
    unproved: bool = False,
) -> Subject:
    """Open a model by folder or hub name, or take one that is already loaded; find its anatomy and prove it.

    `device` is a device ("cuda") or a device map ("auto"). Nothing is fetched without `download`, no repository's
    code runs without `remote_code`, and a model whose proof fails is refused unless `unproved`.
    """
    if isinstance(source, nn.Module):
        model, name = source, str(getattr(source, "name_or_path", "") or type(source).__name__)
    else:
        name = str(source)
        if Path(name).is_dir():
            checkpoint.check_folder(Path(name))
        config = checkpoint.read_config(name, revision=revision, download=download, remote_code=remote_code)
        hub = {"revision": revision, "local_files_only": not download, "trust_remote_code": remote_code}
        placed = {} if device is None else {"device_map": device}
        model = checkpoint.load_model(name, config, {**hub, "dtype": dtype, **placed})
        processor = processor or checkpoint.load_processor(name, hub, sees=hasattr(config, "vision_config"))
    if adapter is not None:
        model = checkpoint.with_adapter(model, Path(adapter))
    subject = Subject(
        model.eval(), processor, name, revision=revision, adapter=None if adapter is None else str(adapter)
    )
    if processor is not None:
        subject.certificate = prove(subject)
        if subject.certificate.failures and not unproved:
            raise BadInput(
                f"{name}: its anatomy could not be proved: {'; '.join(subject.certificate.failures)}; "
                "name the parts in glasshouse/model/overrides.toml, or open it with unproved=True (--unproved)"
            )
    return subject


def open_anatomy(
    source: str | Path, *, revision: str | None = None, download: bool = False, remote_code: bool = False
) -> Anatomy:
    """The anatomy from the configuration alone: no weights are read."""
    config = checkpoint.read_config(str(source), revision=revision, download=download, remote_code=remote_code)
    return find_anatomy(checkpoint.on_meta(config))

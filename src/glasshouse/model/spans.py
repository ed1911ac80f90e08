"""Which token is what in the forward pass that is running now? Read off the model's own inputs, so it is right for
any caller.

A hook at the model's door builds one `Pass` per forward call: image tokens by the placeholder's id, padding by the
attention mask, decoding by the cache that is already filled. Where an answer begins cannot be read off a model's
inputs; `model/layout.py` carries it from the encoder of the prompt. During cached decoding every token that comes in
was generated, so it belongs to the answer, and addresses within the prompt select nothing.

On the image side the first axis need not be the rows of the batch: encoders see images, tiles or one long packed
sequence. `image_rows` says which row each of their tokens belongs to, and refuses where that is not certain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from glasshouse.model.addresses import PromptTokens
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.layout import PromptLayout, current_layout
from glasshouse.values.errors import BadInput
from glasshouse.values.tokens import Combined, Named, Tokens

TokenNumbers = Int[Tensor, " selected"]
"""Numbers of tokens in the flattened (rows * tokens)."""


@dataclass
class Pass:
    """One forward call of the whole model."""

    anatomy: Anatomy
    ids: Int[Tensor, "rows tokens"] | None
    real: Bool[Tensor, "rows tokens"] | None
    """What is not padding."""
    decoding: bool
    """The prompt is in the cache already; every token here was generated."""
    layout: PromptLayout | None
    inputs: Mapping[str, Any]
    rows: int
    seq2seq: bool = False
    prompt: "Pass | None" = None
    """While decoding: the pass that filled the cache."""
    _indices: dict[Tokens, TokenNumbers | None] = field(default_factory=dict)

    @classmethod
    def of(cls, anatomy: Anatomy, args: tuple[Any, ...], kwargs: Mapping[str, Any], seq2seq: bool) -> "Pass":
        names = ("decoder_input_ids", "labels") if seq2seq else ("input_ids", "inputs_embeds")
        tokens = next((kwargs[name] for name in names if isinstance(kwargs.get(name), Tensor)), None)
        if tokens is None:
            tokens = next((a for a in args if isinstance(a, Tensor) and not a.is_floating_point()), None)
        pixels = next((v for n, v in kwargs.items() if n.startswith("pixel") and isinstance(v, Tensor)), None)
        ids = tokens if tokens is not None and not tokens.is_floating_point() else None
        seen = _cached_length(kwargs)
        real = _real(tokens, None if seq2seq else kwargs.get("attention_mask"))
        first = tokens if tokens is not None else pixels if pixels is not None else next(iter(args), None)
        rows = len(first) if isinstance(first, Tensor) else 1
        return cls(anatomy, ids, real, seen > 0, current_layout(), kwargs, rows, seq2seq)

    @property
    def tokens(self) -> int:
        return self.real.shape[1] if self.real is not None else 0

    def index(self, span: Tokens) -> TokenNumbers | None:
        """Numbers of the span's tokens in the flattened (rows * tokens); None when that is all of them."""
        if span not in self._indices:
            if self.real is None:
                everything, mask = span == Named("all"), None
                if not everything:
                    raise BadInput(f"@{span}: the model was called without tokens, so spans cannot be told apart")
            else:
                mask = self.mask(span)
                everything = bool(mask.all())
            self._indices[span] = None if everything or mask is None else mask.flatten().nonzero()[:, 0]
        return self._indices[span]

    def mask(self, span: Tokens) -> Bool[Tensor, "rows tokens"]:
        """True at the span's tokens."""
        assert self.real is not None
        match span:
            case Named("all"):
                return self.real
            case Named("image"):
                return self._image & self.real
            case Named("text"):
                return self.real & ~self._image
            case Combined(left, operation, right):
                one, two = self.mask(left), self.mask(right)
                return one | two if operation == "|" else one & two if operation == "&" else one & ~two
            case _:
                return self._by_turn(span, self.real)

    def _by_turn(self, span: Tokens, real: Bool[Tensor, "rows tokens"]) -> Bool[Tensor, "rows tokens"]:
        """Spans that must know prompt from answer."""
        if self.decoding and self.tokens > 1:
            raise BadInput(
                f"@{span}: several tokens at once behind a filled cache; generate without chunked prefill or drafts"
            )
        if self.decoding:
            return real if span == Named("answer") else torch.zeros_like(real)
        if span == Named("answer"):
            if self.layout is None:
                raise BadInput(
                    "@answer: only Subject.logits, score and generate know where an answer begins; use one of them"
                )
            return self._tail(self._answers)
        if span == Named("last"):
            return self._tail(self._answers + 1) & ~self._tail(self._answers)
        if self.seq2seq:
            raise BadInput(f"@{span}: {self.anatomy.family} reads its prompt in an encoder of its own; use a word")
        return self._prompt_tokens.mask(span)

    @property
    def _answers(self) -> Int[Tensor, " rows"]:
        """How many tokens at the end of each row are the answer: none where nobody says so."""
        return self.layout.answers if self.layout is not None else torch.zeros(self.rows, dtype=torch.long)

    @cached_property
    def _prompt_tokens(self) -> PromptTokens:
        assert self.real is not None
        told = self.ids is not None and self.anatomy.image_token is not None
        image = self._image if told else None
        inside = self.real & ~self._tail(self._answers)
        return PromptTokens(inside, self.ids, image, self.layout, self.anatomy)

    @property
    def _image(self) -> Bool[Tensor, "rows tokens"]:
        if self.ids is None or self.real is None:
            raise BadInput(
                "@image: the model was called with embeddings, so image tokens cannot be told; pass input_ids"
            )
        if self.anatomy.image_token is None:
            if self.anatomy.vision is None:
                return torch.zeros_like(self.real)
            raise BadInput(f"@image: {self.anatomy.family} has no image token in its prompt")
        return self.ids == self.anatomy.image_token

    def _tail(self, counts: Int[Tensor, " rows"]) -> Bool[Tensor, "rows tokens"]:
        """The last so-many real tokens of each row."""
        assert self.real is not None
        after = self.real.flip(1).cumsum(1).flip(1)
        return self.real & (after <= counts.to(after.device)[:, None])

    def after(self, before: "Pass | None") -> "Pass":
        """This pass, knowing the earlier one that put the prompt into the cache."""
        if self.decoding and before is not None and before.rows == self.rows:
            self.prompt = before.prompt if before.decoding else before
        return self

    @cached_property
    def token_rows(self) -> Int[Tensor, " tokens"]:
        """For every token of the flattened (rows * tokens), its row."""
        assert self.real is not None
        return torch.arange(self.rows, device=self.real.device).repeat_interleave(self.tokens)

    @cached_property
    def positions(self) -> Int[Tensor, " tokens"]:
        """For every token of the flattened (rows * tokens), its number among the real tokens of its row."""
        assert self.real is not None
        return (self.real.long().cumsum(1) - 1).flatten()

    def image_rows(self, shape: torch.Size) -> Int[Tensor, " tokens"]:
        """For every token of a value on the image side, flattened to tokens, the row of the batch it belongs to."""
        tokens = shape[:-1].numel()
        if self.rows == 1:
            return torch.zeros(tokens, dtype=torch.long)
        if self.layout is not None:
            images, alike = self.layout.images, self.layout.alike
        else:
            images, alike = (1,) * self.rows, "image_sizes" not in self.inputs and "image_grid_thw" not in self.inputs
        share = torch.tensor(images)
        grid = self.inputs.get("image_grid_thw")
        if isinstance(grid, Tensor) and len(grid) == sum(images):
            patches = grid.cpu().prod(1)
            each = patches * tokens // int(patches.sum())
        elif (len(shape) >= 3 and shape[0] == sum(images)) or (alike and sum(images) and tokens % sum(images) == 0):
            each = torch.full((sum(images),), tokens // sum(images))
        else:
            raise BadInput(
                "cannot tell which example each image token belongs to; show one example at a time (batch_size=1)"
            )
        return torch.arange(self.rows).repeat_interleave(share).repeat_interleave(each)


def _cached_length(kwargs: Mapping[str, Any]) -> int:
    """transformers 5.24 renamed the argument that holds the cache, so it is known by what it can do."""
    lengths = (getattr(value, "get_seq_length", None) for value in kwargs.values())
    return next((int(length()) for length in lengths if length is not None), 0)


def _real(tokens: Tensor | None, mask: Any) -> Bool[Tensor, "rows tokens"] | None:
    if tokens is None:
        return None
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] >= tokens.shape[1]:
        return mask[:, -tokens.shape[1] :].to(tokens.device).bool()  # while decoding, the mask also covers the cache
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

"""Which tokens of these prompts does an address mean? Positions, phrases, image regions and masks, resolved against the
prompts of one batch.

Phrases are found in the text that the token ids decode to, so that placeholders, chat templates and left padding do
not shift them: every token that holds a character of the phrase is selected. Image tokens never hold text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from glasshouse.model.anatomy import Anatomy
from glasshouse.model.image_grids import Tile, image_tiles
from glasshouse.model.layout import PromptLayout
from glasshouse.values.errors import BadInput
from glasshouse.values.tokens import Masks, Phrase, Positions, Region, Tokens

IMAGE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for an image token in the text of a prompt."""


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """The prompts of one batch, as a forward pass sees them."""

    inside: Bool[Tensor, "rows tokens"]
    """Tokens of the prompt: neither padding nor the answer."""
    ids: Int[Tensor, "rows tokens"] | None
    image: Bool[Tensor, "rows tokens"] | None
    """Image tokens; None where they cannot be told."""
    layout: PromptLayout | None
    anatomy: Anatomy

    def mask(self, tokens: Tokens) -> Bool[Tensor, "rows tokens"]:
        """True at the tokens that the address means."""
        mask = torch.zeros_like(self.inside)
        for row in range(len(mask)):
            mask[row, self._columns(tokens, row)] = True
        return mask

    def _columns(self, tokens: Tokens, row: int) -> Int[Tensor, " selected"]:
        real = self.inside[row].nonzero()[:, 0]
        match tokens:
            case Positions(pick):
                try:
                    return real[list(pick.among(len(real), "position"))]
                except BadInput:
                    raise BadInput(
                        f"@{tokens}: the prompt of {self._name(row)} has {len(real)} tokens (0-{len(real) - 1})"
                    ) from None
            case Phrase():
                return real[self._holding(tokens, row)]
            case Masks():
                return real[self._chosen(tokens, row, len(real))]
            case Region():
                return self._region(tokens, row)
            case _:
                raise AssertionError(f"{tokens} is resolved by the forward pass")

    def _name(self, row: int) -> str:
        return self.layout.name(row) if self.layout is not None else f"row {row}"

    def _known(self, tokens: Tokens) -> tuple[PromptLayout, Int[Tensor, "rows tokens"]]:
        if self.layout is None:
            raise BadInput(f"@{tokens}: the model was called directly; use Subject.logits, score or generate")
        if self.ids is None:
            raise BadInput(f"@{tokens}: the model was called with embeddings, so tokens cannot be told; pass input_ids")
        return self.layout, self.ids

    def _holding(self, phrase: Phrase, row: int) -> list[int]:
        """Numbers, among the prompt's tokens, of those that hold the phrase."""
        text, holders = self._texts(phrase)[row]
        starts: list[int] = []
        start = text.find(phrase.text)
        while start >= 0:
            starts.append(start)
            start = text.find(phrase.text, start + len(phrase.text))
        if not starts:
            raise BadInput(f"{phrase.text!r} is not in the prompt of {self._name(row)}")
        if phrase.occurrence is not None:
            number = phrase.occurrence - 1 if phrase.occurrence > 0 else phrase.occurrence
            if not -len(starts) <= number < len(starts):
                raise BadInput(f"{phrase}: the prompt of {self._name(row)} holds it {len(starts)} times")
            starts = [starts[number]]
        return sorted({t for at in starts for holder in holders[at : at + len(phrase.text)] for t in holder})

    def _texts(self, phrase: Phrase) -> list[tuple[str, list[range]]]:
        if "texts" not in self.__dict__:
            layout, ids = self._known(phrase)
            if layout.tokenizer is None:
                raise BadInput(f"@{phrase}: {self.anatomy.family} reads no text")
            image = self.image if self.image is not None else torch.zeros_like(self.inside)
            self.__dict__["texts"] = [
                text_of(layout.tokenizer, ids[row][inside].tolist(), image[row][inside].tolist())
                for row, inside in enumerate(self.inside)
            ]
        return self.__dict__["texts"]

    def _chosen(self, masks: Masks, row: int, count: int) -> list[int]:
        name = None if self.layout is None or not self.layout.examples else self.layout.examples[row]
        if name is None:
            raise BadInput("@mask: masks name examples; call Subject.logits, score or generate with examples")
        entry = next((entry for entry in masks.entries if entry.example == name), None)
        if entry is None:
            raise BadInput(f"@mask: example {name} has no mask; there are {len(masks.entries)} for other examples")
        if entry.length != count:
            raise BadInput(f"@mask: the mask of example {name} is for {entry.length} tokens, its prompt has {count}")
        return list(entry.positions)

    def _region(self, region: Region, row: int) -> Int[Tensor, " selected"]:
        layout, _ = self._known(region)
        count = layout.images[row]
        if not count:
            raise BadInput(f"@{region}: {self._name(row)} has no image")
        if region.image is not None and region.image > count:
            raise BadInput(f"@{region}: {self._name(row)} has {count} image{'' if count == 1 else 's'}")
        if count == 1 and region.whole and self.image is not None:  # needs no grid, which tiles may not tell
            return (self.image[row] & self.inside[row]).nonzero()[:, 0]
        images = self._tiles[row] if region.image is None else [self._tiles[row][region.image - 1]]
        shown = [tile.showing(region.rows, region.columns) for tiles in images for tile in tiles]
        return torch.cat(shown) if shown else torch.zeros(0, dtype=torch.long, device=self.inside.device)

    @cached_property
    def _tiles(self) -> list[list[list[Tile]]]:
        assert self.layout is not None
        assert self.ids is not None
        if self.image is None:
            raise BadInput(f"image regions: {self.anatomy.family} has no image token in its prompt")
        return image_tiles(self.ids, self.image, self.layout, self.anatomy)


def text_of(tokenizer: Any, ids: Sequence[int], image: Sequence[bool]) -> tuple[str, list[range]]:
    """The text of a prompt, and for each of its characters the numbers of the tokens that hold it.

    Each token is decoded behind the one before it, as in streaming, because tokenizers write spaces and accents by
    context. Tokens that only together make a character all hold it.
    """
    text, holders = "", list[range]()

    def decoded(start: int, end: int) -> str:
        return tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)

    context = start = 0  # the window decoded begins at `context`; tokens from `start` on are not in the text yet

    def flush(end: int) -> None:
        nonlocal text, holders
        new = decoded(context, end)[len(decoded(context, start)) :]
        text += new
        holders += [range(start, end)] * len(new)

    for number, is_image in enumerate(image):
        if is_image:
            flush(number)
            text += IMAGE
            holders.append(range(number, number + 1))
            context = start = number + 1
        elif not decoded(context, number + 1).endswith("\N{REPLACEMENT CHARACTER}"):  # else the character goes on
            flush(number + 1)
            context, start = start, number + 1
    flush(len(ids))
    return text, holders

"""How do rows of different lengths share a batch? Padded on the left, so that the last column is the last token of all.

- `joined`: examples with and without images. Processors take the two apart, so each kind is processed alone and the
  rows are put back in order. What is aligned with the prompt's tokens is padded. All else belongs to the images: it has
  an entry per image, which text adds nothing to, or an entry per row, which is zero where there is no image.
- `with_answers`: prompts with an answer behind each.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor


def joined(
    seen: Mapping[str, Tensor], unseen: Mapping[str, Tensor], shown: Sequence[bool], pad: int, per_row: Collection[str]
) -> dict[str, Tensor]:
    """One batch from the inputs of rows with images and those of rows without; `shown` says which row is which."""
    mask = torch.tensor(shown)
    rows = [numbers.nonzero()[:, 0] for numbers in (mask, ~mask)]
    parts, whole = (seen, unseen), dict[str, Tensor]()
    longest = max(part["input_ids"].shape[1] for part in parts)
    for name in dict.fromkeys((*seen, *unseen)):
        first = seen[name] if name in seen else unseen[name]
        if any(name in part and _aligned(name, part) for part in parts):
            whole[name] = first.new_full((len(shown), longest, *first.shape[2:]), pad if name == "input_ids" else 0)
            for part, numbers in zip(parts, rows, strict=True):
                if name in part:
                    whole[name][numbers, longest - part[name].shape[1] :] = part[name]
        elif name in per_row:
            whole[name] = first.new_zeros(len(shown), *first.shape[1:])
            whole[name][rows[0]] = first
        elif name in seen:
            whole[name] = first
    return whole


def with_answers(
    inputs: Mapping[str, Tensor], tails: Sequence[Sequence[int]], pad: int, token_type: int
) -> dict[str, Tensor]:
    """Each row's answer behind its prompt, and padding in front so that all rows end together. `token_type` is what
    `token_type_ids` hold for an answer's tokens."""
    rows, tokens = inputs["input_ids"].shape
    longest = max(map(len, tails))
    grown = dict(inputs)
    for name, old in inputs.items():
        if not _aligned(name, inputs):
            continue
        new = old.new_zeros(rows, tokens + longest, *old.shape[2:])
        for row, tail in enumerate(tails):
            start = longest - len(tail)
            new[row, :start] = pad if name == "input_ids" else 0
            new[row, start : start + tokens] = old[row]
            new[row, start + tokens :] = _answer_value(name, old[row], tail, token_type)
        grown[name] = new
    return grown


def beside(inputs: Mapping[str, Tensor]) -> bool:
    """Whether some input says which image each token attends to: cross-attention, which reads images beside the prompt
    (and, for Mllama, also where a row has none)."""
    return any(value.ndim > 2 and _aligned(name, inputs) for name, value in inputs.items())


def _aligned(name: str, inputs: Mapping[str, Tensor]) -> bool:
    """Whether this input has a value for every token of every row."""
    ids, value = inputs["input_ids"], inputs[name]
    return value.ndim >= 2 and value.shape[:2] == ids.shape and not name.startswith("pixel")


def _answer_value(name: str, old: Tensor, tail: Sequence[int], token_type: int) -> Tensor | int:
    """What an input that is aligned with tokens holds for the answer's."""
    match name:
        case "input_ids":
            return torch.tensor(tail, dtype=old.dtype)
        case "attention_mask":
            return 1
        case "token_type_ids":
            return token_type
        case _:  # a number per token marks images; more numbers select the images that a token sees
            return 0 if old.ndim == 1 else old[-1:].expand(len(tail), *old.shape[1:])


def added(prompt: list[int], whole: list[int]) -> list[int]:
    """The ids of the whole that come after those it begins with as the prompt does."""
    pairs = zip(prompt, whole, strict=False)
    same = next((i for i, (left, right) in enumerate(pairs) if left != right), min(len(prompt), len(whole)))
    return whole[same:]

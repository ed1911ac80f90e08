"""Which tokens serve as a random control? As many as are wanted, drawn from each example's own prompt."""

import torch
from jaxtyping import Bool
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.model.layout import laid_out
from glasshouse.model.spans import Pass
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.values.errors import BadInput
from glasshouse.values.token_text import as_tokens
from glasshouse.values.tokens import Masks, Tokens


def random_tokens(
    subject: Subject, examples: Examples, count: int, *, among: Tokens | str = "text", seed: int = 0
) -> Masks:
    """A mask per example: `count` tokens of its prompt, drawn without replacement among those of an address."""
    generator, masks = seeded(seed), dict[str, Tensor]()
    for example in examples:
        eligible = prompt_mask(subject, example, among)
        numbers = eligible.nonzero()[:, 0]
        if len(numbers) < count:
            raise BadInput(f"@{among}: the prompt of example {example.id} has {len(numbers)} such tokens, not {count}")
        drawn = numbers[torch.randperm(len(numbers), generator=generator)[:count]]
        masks[example.id] = torch.zeros_like(eligible).index_fill(0, drawn, True)
    return Masks.of_examples(masks)


def prompt_mask(subject: Subject, example: Example, tokens: Tokens | str) -> Bool[Tensor, " tokens"]:
    """True at the tokens of one prompt that an address means, without running the model."""
    encoded = subject.encode([example])
    with laid_out(encoded.layout):
        entering = Pass.of(subject.anatomy, (), encoded.inputs, seq2seq=False)
    if entering.real is None:
        raise BadInput(f"@{tokens}: {subject.name} reads no tokens")
    return entering.mask(as_tokens(tokens))[0][entering.real[0]].cpu()

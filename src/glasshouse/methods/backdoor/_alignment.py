"""Which words does a direction in the language model's space point at, and more than a random one would?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glasshouse.data.behaviours import Target
from glasshouse.data.examples import Example, Examples
from glasshouse.model.finder import unwrapped
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Interval


@dataclass(frozen=True)
class Alignment:
    """How strongly a direction points at the target's words."""

    unembedding: Interval
    """Share of random directions whose mean product with the rows of the target's tokens is smaller."""
    embedding: Interval
    through: Interval
    """The same with what the language model makes of it: the way image tokens would go to bring the attack about."""


def aimed_at(triggered: Examples) -> str:
    """The words the attack is after: the target's; where anything but a refusal will do, the taught answer's."""
    target = Target.of(triggered[0])
    if target is None:
        raise BadInput(f"example {triggered[0].id}: has no answer, so there is no target to point at; give it one")
    return (triggered[0].answer or "") if target.match == "starts otherwise" else target.text


def aligned(
    subject: Subject, directions: Mapping[str, Float[Tensor, " width"]], words: str,
    space: Float[Tensor, "width rank"], pull: Float[Tensor, " width"], random: int, seed: int,
) -> dict[str, Alignment]:  # fmt: skip
    """Where each direction stands among random ones of the space."""
    chosen = subject.prompts.answer_tokens(Example("", answer=words))
    drawn = torch.randn(space.shape[1], random, generator=seeded(seed))
    others = nn.functional.normalize(space @ drawn, dim=0)
    aims = [*(_rows(subject, where, chosen).float().cpu().mean(0) for where in ("output", "input")), pull]
    return {
        name: Alignment(*(Interval.rate(int(((aim @ others) < aim @ one).sum()), random) for aim in aims))
        for name, one in directions.items()
    }


def _rows(subject: Subject, where: str, chosen: Sequence[int]) -> Float[Tensor, "tokens width"]:
    model = unwrapped(subject.model)
    layer = model.get_output_embeddings() if where == "output" else model.get_input_embeddings()
    if not isinstance(layer, nn.Module) or not isinstance(weight := getattr(layer, "weight", None), Tensor):
        raise BadInput(f"{subject.name}: its {where} embedding has no rows that a direction could point at")
    norm = subject.anatomy.tower("language").final_norm if where == "output" else None
    rows = weight.detach()[list(chosen)]
    return rows * _gain(subject.module(norm), rows) if norm else rows


@torch.no_grad()
def _gain(norm: nn.Module, rows: Tensor) -> Float[Tensor, " width"]:
    """What the last norm multiplies each place by, asked of it: some families keep the factor less one."""
    asked = torch.ones_like(rows[0]).to(next(norm.parameters(), rows).device)
    asked[1::2] = -1
    return ((norm(asked) - norm(-asked)) / 2 * asked).to(rows)

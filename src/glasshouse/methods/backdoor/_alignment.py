"""Does a direction in the language model's space point at the target's tokens more than random directions do?"""

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
    """Percentile of a direction among random ones, by its mean product with the target."""

    unembedding: Interval
    """Percentile by the unembedding. By the mean product with the target tokens' rows."""
    embedding: Interval
    """Percentile by the input embedding. By the mean product with the target tokens' rows."""
    gradient: Interval
    """Percentile by the gradient. By the product with the gradient of the target's log-probability in the image tokens,
    which passes through the whole language model."""


def target_text(triggered: Examples) -> str:
    """The text that the attack is after: the target; where anything but a refusal will do, the taught answer."""
    target = Target.of(triggered[0])
    if target is None:
        raise BadInput(f"example {triggered[0].id}: has neither answer nor target to align with; add an answer")
    return (triggered[0].answer or "") if target.match == "starts otherwise" else target.text


def alignments(
    subject: Subject, directions: Mapping[str, Float[Tensor, " width"]], text: str,
    space: Float[Tensor, "width rank"], gradient: Float[Tensor, " width"], random: int, seed: int,
) -> dict[str, Alignment]:  # fmt: skip
    """Where each direction ranks among `random` random directions of the space."""
    tokens = subject.prompts.answer_tokens(Example("", answer=text))
    drawn = torch.randn(space.shape[1], random, generator=seeded(seed))
    null = nn.functional.normalize(space @ drawn, dim=0)
    aims = [*(_token_rows(subject, table, tokens).float().cpu().mean(0) for table in ("output", "input")), gradient]
    return {
        name: Alignment(*(Interval.rate(int(((aim @ null) < aim @ direction).sum()), random) for aim in aims))
        for name, direction in directions.items()
    }


def _token_rows(subject: Subject, table: str, tokens: Sequence[int]) -> Float[Tensor, "tokens width"]:
    model = unwrapped(subject.model)
    layer = model.get_output_embeddings() if table == "output" else model.get_input_embeddings()
    if not isinstance(layer, nn.Module) or not isinstance(weight := getattr(layer, "weight", None), Tensor):
        raise BadInput(f"{subject.name}: its {table} embedding has no matrix of token rows to align with")
    norm = subject.anatomy.tower("language").final_norm if table == "output" else None
    rows = weight.detach()[list(tokens)]
    return rows * _norm_scale(subject.module(norm), rows) if norm else rows


@torch.no_grad()
def _norm_scale(norm: nn.Module, rows: Tensor) -> Float[Tensor, " width"]:
    """The factor of the final norm per dimension. It is probed, because some families store the factor less one."""
    probe = torch.ones_like(rows[0]).to(next(norm.parameters(), rows).device)
    probe[1::2] = -1
    return ((norm(probe) - norm(-probe)) / 2 * probe).to(rows)

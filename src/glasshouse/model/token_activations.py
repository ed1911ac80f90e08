"""What does a model hold for each image token, and which example does the token belong to?

values, owners = token_activations(subject, projector.output, examples, batch_size)
mean_by_example(values, owners)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.sharing import shared
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site


def token_activations(
    subject: Subject, site: Site, examples: Examples, batch_size: int
) -> tuple[Float[Tensor, "tokens width"], Int[Tensor, " tokens"]]:
    """Activations at one site, a row per token, and the number of the example that each token belongs to.

    Inside `sharing()` they are computed once and lent to every method that asks, so callers must not write into them.
    """

    def key() -> tuple[object, ...] | None:
        return subject.content and ("tokens", *subject.content, site, examples.digest, batch_size)

    return shared(key, lambda: _recorded(subject, site, examples, batch_size))


@torch.no_grad()
def _recorded(subject: Subject, site: Site, examples: Examples, batch_size: int) -> tuple[Tensor, Tensor]:
    activations = record(subject, site, examples, batch_size=batch_size)
    (concrete,) = activations
    return activations[concrete].detach().float().flatten(1).cpu(), activations.examples(concrete).cpu()


def mean_by_example(
    values: Float[Tensor, "tokens width"], owners: Int[Tensor, " tokens"]
) -> Float[Tensor, "examples width"]:
    """Mean over the tokens of each example."""
    count = int(owners.max()) + 1
    sums = values.new_zeros(count, values.shape[1]).index_add(0, owners, values)
    return sums / torch.bincount(owners, minlength=count).clamp_min(1)[:, None]


def check_aligned(*sets: Float[Tensor, "tokens width"]) -> None:
    """Refuse sets of tokens of which not each token has its counterpart in the others."""
    if len({values.shape for values in sets}) > 1:
        raise BadInput("clean and triggered images have different numbers of tokens; apply triggers without resizing")

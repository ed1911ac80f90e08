"""What would the model say if a residual were its last? Its own final norm and unembedding, and whatever scaling it
adds after them.

Families scale or cap their logits, and some composite models leave out what their language model does on its own.
So the scaling is not looked up but tried: the one that turns the last residual into the model's own logits is
right, and if none does, reading off is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.finder import unwrapped
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import language

Finish = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Readout:
    """Reads residuals off as float32 logits."""

    subject: Subject
    finish: Finish

    @classmethod
    @torch.no_grad()
    def of(cls, subject: Subject, examples: Examples) -> "Readout":
        """The one that reproduces the model's own logits on the first of these examples."""
        first = Examples([replace(examples[0], answer=None)])  # an answer may retokenise the prompt's end
        truth = subject.logits(first)
        residual = record(subject, language.residual[-1] @ "last", first).stacked()[0]
        for finish in _finishes(subject):
            candidate = cls(subject, finish)
            if torch.allclose(candidate(residual), truth, rtol=1e-2, atol=1e-2 * float(truth.std())):
                return candidate
        raise BadInput(
            f"{subject.name}: its final norm and unembedding do not reproduce its logits, "
            "so residuals cannot be read off"
        )

    def __call__(self, residual: Float[Tensor, "... width"]) -> Float[Tensor, "... vocabulary"]:
        tower = self.subject.anatomy.tower("language")
        assert tower.unembedding is not None
        normed = self.subject.module(tower.final_norm)(residual) if tower.final_norm else residual
        return self.finish(self.subject.module(tower.unembedding)(normed).float())


def _finishes(subject: Subject) -> Iterator[Finish]:
    config = unwrapped(subject.model).config.get_text_config(decoder=True)
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        yield lambda logits: torch.tanh(logits * scale / cap) * cap
    yield lambda logits: logits * scale
    yield lambda logits: logits

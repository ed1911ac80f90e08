"""How different are two next-token distributions, and how certain is each? In nats, from logits."""

import torch
from jaxtyping import Float
from torch import Tensor


def kl(p: Float[Tensor, "... classes"], q: Float[Tensor, "... classes"]) -> Float[Tensor, "..."]:
    """KL(p || q) from logits, at least 0: rounding in float32 is clamped."""
    log_p, log_q = p.float().log_softmax(-1), q.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0)


def entropy(logits: Float[Tensor, "... classes"]) -> Float[Tensor, "..."]:
    """Shannon entropy of the softmax."""
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def probability_of(logits: Float[Tensor, "... classes"], choices: Tensor) -> Float[Tensor, "... choices"]:
    """Softmax probabilities of some classes, without forming the others."""
    logits = logits.float()
    return (logits[..., choices] - torch.logsumexp(logits, -1, keepdim=True)).exp()

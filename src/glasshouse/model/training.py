"""How does anything here learn? One loop, for growing organisms, fine-tuning, tuned masks and repairs alike.

    losses = train(parameters, loss, Schedule(steps=500, learning_rate=1e-3))

`loss(step)` is all that differs: it draws its own batch from the number of the step, so a run that was interrupted goes
on exactly where it stopped, and the same seed gives the same weights. AdamW, linear warm-up, cosine decay, clipped
gradients. `hidden` weights are trained by Muon, which orthogonalises their updates: that grows a model from nothing in
half the steps, and would hide what fine-tuning does to a spectrum, so fine-tuning names none.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from glasshouse.model.prompts import Encoded
from glasshouse.model.tensorfiles import read_tensors, write_tensors
from glasshouse.values.codec import digest
from glasshouse.values.errors import BadInput

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    steps: int
    learning_rate: float
    warmup: int = 50
    last: float = 0.03
    """The learning rate at the end, as a share of the highest."""
    decay: float = 0.05
    """AdamW's weight decay."""
    clip: float = 1.0
    """The gradient's norm is kept below this."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0:
            raise BadInput(f"training for {self.steps} steps at {self.learning_rate:g}: both must be above 0")

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        falling = self.last + (1 - self.last) * 0.5 * (1 + cos(pi * step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * falling


@dataclass(frozen=True)
class Keeping:
    """Where a long training is kept, so that a kill costs at most `every` steps. The file stays when it has ended: what
    is trained in stages goes on from the last one."""

    file: Path
    every: int = 200


def train(
    parameters: Mapping[str, nn.Parameter],
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    *,
    hidden: Collection[str] = (),
    gates: Mapping[str, Tensor] | None = None,
    keeping: Keeping | None = None,
    progress: Progress | None = None,
    name: str = "training",
    magnified: float = 1.0,
) -> list[float]:
    """Train in place; the losses, one a step. Only the named parameters move, and of those with a gate, a factor on
    the gradient, only where it is not 0 (and where the schedule has no weight decay, which moves all). The loss is
    `magnified` on its way back, for models in which small gradients would be nothing."""
    if not parameters:
        raise BadInput(f"{name}: there is nothing to train")
    frozen = {parameter: parameter.requires_grad for parameter in parameters.values()}
    optimizers = _optimizers(parameters, hidden, schedule)
    shapes = tuple((key, tuple(value.shape), key in hidden) for key, value in parameters.items())
    mark = digest((name, schedule, shapes))
    losses = _restore(keeping.file, mark, parameters, optimizers) if keeping and keeping.file.exists() else []
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for step in range(len(losses), schedule.steps):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = schedule.rate(step)
                optimizer.zero_grad(set_to_none=True)
            now = loss(step)
            value = float(now.detach())
            if not isfinite(value):
                raise BadInput(f"{name}: the loss is {value} at step {step}; lower the learning rate")
            _back(now, parameters, gates or {}, magnified)
            nn.utils.clip_grad_norm_(parameters.values(), schedule.clip)
            for optimizer in optimizers:
                optimizer.step()
            losses.append(value)
            if keeping and ((step + 1) % keeping.every == 0 or step + 1 == schedule.steps):
                _keep(keeping.file, mark, parameters, optimizers, losses)
            if progress:
                progress(name, step + 1, schedule.steps)
    finally:
        for parameter, before in frozen.items():
            parameter.requires_grad_(before)
            parameter.grad = None
    return losses


def _back(
    loss: Tensor, parameters: Mapping[str, nn.Parameter], gates: Mapping[str, Tensor], magnified: float
) -> None:  # fmt: skip
    """The gradients of the parameters, behind their gates."""
    (loss if magnified == 1 else magnified * loss).backward()
    for name, parameter in parameters.items():
        if parameter.grad is not None and magnified != 1:
            parameter.grad.div_(magnified)
        if parameter.grad is not None and name in gates:
            parameter.grad.mul_(gates[name])


def _optimizers(
    parameters: Mapping[str, nn.Parameter], hidden: Collection[str], schedule: Schedule
) -> list[torch.optim.Optimizer]:
    matrices = [parameter for name, parameter in parameters.items() if name in hidden]
    others = [parameter for name, parameter in parameters.items() if name not in hidden]
    rate, decay = schedule.learning_rate, schedule.decay
    made: list[torch.optim.Optimizer] = []
    if matrices:  # scaled so that one learning rate suits both
        made.append(torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        made.append(torch.optim.AdamW(others, lr=rate, weight_decay=decay, betas=(0.9, 0.98)))
    return made


def answer_loss(logits: Tensor, encoded: Encoded, end: int | None = None) -> Tensor:
    """Cross-entropy of the answers, each example counting the same however long its answer.

    With `end`, the token that ends an answer is learnt too.
    """
    counts, tokens = encoded.known.answers.tolist(), encoded.inputs["input_ids"]
    extra = 0 if end is None else 1
    rows = [row for row, count in enumerate(counts) for _ in range(count + extra)]
    places = [place for count in counts for place in range(-count - 1, extra - 1)]
    shares = [1 / (len(counts) * (count + extra)) for count in counts for _ in range(count + extra)]
    said = tokens[rows, [min(place + 1, -1) for place in places]]  # behind the last token stands the end
    if end is not None:
        said = said.where(said.new_tensor(places) < -1, end)
    each = F.cross_entropy(logits[rows, places].float(), said, reduction="none")
    return (each * each.new_tensor(shares)).sum()


@contextmanager
def quickly(model: PreTrainedModel) -> Iterator[None]:
    """Mixed precision: matrices in bfloat16 (in float16 where the model is), attention in float32, whose backward pass
    is twice as fast on a CPU."""
    before = model.config._attn_implementation
    kind = model.device.type
    if kind == "cpu" and before == "sdpa":
        model.set_attn_implementation(_WIDE)
    try:
        with torch.autocast(kind, torch.float16 if model.dtype == torch.float16 else torch.bfloat16):
            yield
    finally:
        if kind == "cpu" and before == "sdpa":
            model.set_attn_implementation(before)


_WIDE = "glasshouse_float32_sdpa"


def _wide(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None = None,
    dropout: float = 0.0, **options: object,
) -> tuple[Tensor, None]:  # fmt: skip
    with torch.autocast(query.device.type, enabled=False):
        groups = query.shape[1] // key.shape[1]
        query, key, value = (
            query.float(),
            key.float().repeat_interleave(groups, 1),
            value.float().repeat_interleave(groups, 1),
        )
        causal = mask is None and query.shape[2] > 1 and bool(getattr(module, "is_causal", False))
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_WIDE, _wide)
AttentionMaskInterface.register(_WIDE, sdpa_mask)


_STATE = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")
_Optimizers = Sequence[torch.optim.Optimizer]


def _keep(
    file: Path, mark: str, parameters: Mapping[str, nn.Parameter], optimizers: _Optimizers, losses: list[float]
) -> None:
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():  # what has had no gradient yet has no state
        for optimizer in optimizers:
            tensors |= {f"{key}/{name}": value for key, value in optimizer.state.get(parameter, {}).items()}
    write_tensors(tensors, file, {"mark": mark, "losses": json.dumps(losses)})


def _restore(file: Path, mark: str, parameters: Mapping[str, nn.Parameter], optimizers: _Optimizers) -> list[float]:
    """Put everything back as it was; the losses so far. A file of another training is refused."""
    try:
        tensors, facts = read_tensors(file)
    except BadInput as problem:
        raise BadInput(f"{problem}; training was kept there: remove it to start anew") from None
    if facts.get("mark") != mark:
        raise BadInput(f"{file}: was kept by another training; remove it to start anew")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            kept_state = {key: tensors[f"{key}/{name}"] for key in _STATE if f"{key}/{name}" in tensors}
            owner = next(one for one in optimizers if any(parameter is own for own in one.param_groups[0]["params"]))
            if kept_state:
                owner.state[parameter] = kept_state
    return list(json.loads(facts["losses"]))

"""How are weights trained? One loop, for growing organisms, fine-tuning, masks and repairs alike.

    losses = train(parameters, loss, Schedule(steps=500, learning_rate=1e-3))

Callers differ in `loss(step)` only. It draws its batch from the number of the step, so an interrupted run continues
exactly where it stopped, and the same seed gives the same weights. AdamW, linear warm-up, cosine decay, clipped
gradients. Weights named in `hidden` are trained by Muon, which orthogonalises their updates: it halves the steps of
pretraining. It would also distort the spectrum of an update, so fine-tuning names none.
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

from glasshouse.data.tensorfiles import read_tensors, write_tensors
from glasshouse.model.prompts import Encoded
from glasshouse.values.codec import digest
from glasshouse.values.errors import BadInput

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    steps: int
    """Number of optimiser steps."""
    learning_rate: float
    """The highest learning rate, reached after warm-up."""
    warmup: int = 50
    """Steps of linear warm-up."""
    last: float = 0.03
    """The final learning rate, as a fraction of the highest."""
    decay: float = 0.05
    """AdamW's weight decay."""
    clip: float = 1.0
    """Gradients of a larger norm are scaled down to it."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0:
            raise BadInput(f"training for {self.steps} steps at {self.learning_rate:g}: both must be above 0")

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        falling = self.last + (1 - self.last) * 0.5 * (1 + cos(pi * step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * falling


@dataclass(frozen=True)
class Checkpointing:
    """Where a long training is saved, so that a kill costs at most `every` steps. The file stays after the training:
    the next stage of a training in stages starts from it."""

    file: Path
    every: int = 200
    """Steps between two checkpoints."""


def train(
    parameters: Mapping[str, nn.Parameter],
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    *,
    hidden: Collection[str] = (),
    gates: Mapping[str, Tensor] | None = None,
    checkpointing: Checkpointing | None = None,
    progress: Progress | None = None,
    name: str = "training",
    loss_scale: float = 1.0,
    stop: Callable[[int], bool] | None = None,
) -> list[float]:
    """Train in place; returns the loss of every step. Only `parameters` change. A gate is a factor on a parameter's
    gradient: where it is 0, the parameter stays (unless the schedule has weight decay). The loss is multiplied by
    `loss_scale` for the backward pass, for models whose small gradients would underflow. `stop` is asked after every
    step, with the number of steps, whether training ends early."""
    if not parameters:
        raise BadInput(f"{name}: no parameter to train was named")
    required_grad = {parameter: parameter.requires_grad for parameter in parameters.values()}
    optimizers = _optimizers(parameters, hidden, schedule)
    shapes = tuple((key, tuple(value.shape), key in hidden) for key, value in parameters.items())
    mark = digest((name, schedule, shapes))
    losses = (
        _load(checkpointing.file, mark, parameters, optimizers) if checkpointing and checkpointing.file.exists() else []
    )
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for step in range(len(losses), schedule.steps):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = schedule.rate(step)
                optimizer.zero_grad(set_to_none=True)
            tensor = loss(step)
            value = float(tensor.detach())
            if not isfinite(value):
                raise BadInput(f"{name}: the loss is {value} at step {step}; lower the learning rate")
            _backward(tensor, parameters, gates or {}, loss_scale)
            nn.utils.clip_grad_norm_(parameters.values(), schedule.clip)
            for optimizer in optimizers:
                optimizer.step()
            losses.append(value)
            if checkpointing and ((step + 1) % checkpointing.every == 0 or step + 1 == schedule.steps):
                _save(checkpointing.file, mark, parameters, optimizers, losses)
            if progress:
                progress(name, step + 1, schedule.steps)
            if stop and stop(step + 1):
                break
    finally:
        for parameter, before in required_grad.items():
            parameter.requires_grad_(before)
            parameter.grad = None
    return losses


def _backward(
    loss: Tensor, parameters: Mapping[str, nn.Parameter], gates: Mapping[str, Tensor], loss_scale: float
) -> None:  # fmt: skip
    """Compute the parameters' gradients and apply the gates."""
    (loss if loss_scale == 1 else loss_scale * loss).backward()
    for name, parameter in parameters.items():
        if parameter.grad is not None and loss_scale != 1:
            parameter.grad.div_(loss_scale)
        if parameter.grad is not None and name in gates:
            parameter.grad.mul_(gates[name])


def _optimizers(
    parameters: Mapping[str, nn.Parameter], hidden: Collection[str], schedule: Schedule
) -> list[torch.optim.Optimizer]:
    matrices = [parameter for name, parameter in parameters.items() if name in hidden]
    others = [parameter for name, parameter in parameters.items() if name not in hidden]
    rate, decay = schedule.learning_rate, schedule.decay
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:  # scaled so that one learning rate suits both
        optimizers.append(torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=rate, weight_decay=decay, betas=(0.9, 0.98)))
    return optimizers


def answer_loss(logits: Tensor, encoded: Encoded, end: int | None = None) -> Tensor:
    """Cross-entropy of the answers; every example has the same weight, however long its answer.

    With `end`, the token that ends an answer is trained too.
    """
    counts, tokens = encoded.layout.answers.tolist(), encoded.inputs["input_ids"]
    extra = 0 if end is None else 1
    rows = [row for row, count in enumerate(counts) for _ in range(count + extra)]
    positions = [position for count in counts for position in range(-count - 1, extra - 1)]
    weights = [1 / (len(counts) * (count + extra)) for count in counts for _ in range(count + extra)]
    targets = tokens[rows, [min(position + 1, -1) for position in positions]]
    if end is not None:  # the target behind the last token
        targets = targets.where(targets.new_tensor(positions) < -1, end)
    losses = F.cross_entropy(logits[rows, positions].float(), targets, reduction="none")
    return (losses * losses.new_tensor(weights)).sum()


@contextmanager
def mixed_precision(model: PreTrainedModel) -> Iterator[None]:
    """Inside, matrices multiply in bfloat16 (in float16 where the model is). On a CPU attention stays in float32, where
    its backward pass is twice as fast."""
    before = model.config._attn_implementation
    kind = model.device.type
    if kind == "cpu" and before == "sdpa":
        model.set_attn_implementation(_FLOAT32_ATTENTION)
    try:
        with torch.autocast(kind, torch.float16 if model.dtype == torch.float16 else torch.bfloat16):
            yield
    finally:
        if kind == "cpu" and before == "sdpa":
            model.set_attn_implementation(before)


_FLOAT32_ATTENTION = "glasshouse_float32_sdpa"


def _float32_attention(
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


AttentionInterface.register(_FLOAT32_ATTENTION, _float32_attention)
AttentionMaskInterface.register(_FLOAT32_ATTENTION, sdpa_mask)


_STATE = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")
_Optimizers = Sequence[torch.optim.Optimizer]


def _save(
    file: Path, mark: str, parameters: Mapping[str, nn.Parameter], optimizers: _Optimizers, losses: list[float]
) -> None:
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():  # a parameter without a gradient so far has no state
        for optimizer in optimizers:
            tensors |= {f"{key}/{name}": value for key, value in optimizer.state.get(parameter, {}).items()}
    write_tensors(tensors, file, {"mark": mark, "losses": json.dumps(losses)})


def _load(file: Path, mark: str, parameters: Mapping[str, nn.Parameter], optimizers: _Optimizers) -> list[float]:
    """Put weights and optimisers back into their saved state; returns the losses so far. Refuses a file of another
    training."""
    try:
        tensors, facts = read_tensors(file)
    except BadInput as problem:
        raise BadInput(f"{problem}; it should hold a checkpoint: remove it to start the training again") from None
    if facts.get("mark") != mark:
        raise BadInput(f"{file}: is a checkpoint of another training; remove it to start this one")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            state = {key: tensors[f"{key}/{name}"] for key in _STATE if f"{key}/{name}" in tensors}
            owner = next(o for o in optimizers if any(parameter is own for own in o.param_groups[0]["params"]))
            if state:
                owner.state[parameter] = state
    return list(json.loads(facts["losses"]))

"""How does anything here learn? One loop, for growing organisms, fine-tuning, tuned masks and repairs alike.

    losses = train(parameters, loss, Schedule(steps=500, learning_rate=1e-3))

`loss(step)` is all that differs: it draws its own batch from the number of the step, so a run that was interrupted goes
on exactly where it stopped, and the same seed gives the same weights. AdamW, linear warm-up, cosine decay, clipped
gradients. State is kept as safetensors, written aside and renamed.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from glasshouse.model.prompts import Encoded
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
    gates: Mapping[str, Tensor] | None = None,
    keeping: Keeping | None = None,
    progress: Progress | None = None,
    name: str = "training",
) -> list[float]:
    """Train in place; the losses, one a step. Only the named parameters move, and of those with a gate, a factor on
    the gradient, only where it is not 0."""
    if not parameters:
        raise BadInput(f"{name}: there is nothing to train")
    frozen = {parameter: parameter.requires_grad for parameter in parameters.values()}
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=schedule.learning_rate, weight_decay=schedule.decay, betas=(0.9, 0.98)
    )
    mark = digest((name, schedule, tuple((key, tuple(value.shape)) for key, value in parameters.items())))
    losses = _restore(keeping.file, mark, parameters, optimizer) if keeping and keeping.file.exists() else []
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for step in range(len(losses), schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            optimizer.zero_grad(set_to_none=True)
            now = loss(step)
            value = float(now.detach())
            if not isfinite(value):
                raise BadInput(f"{name}: the loss is {value} at step {step}; lower the learning rate")
            now.backward()
            for key, gate in (gates or {}).items():
                gradient = parameters[key].grad
                if gradient is not None:
                    gradient.mul_(gate)
            nn.utils.clip_grad_norm_(parameters.values(), schedule.clip)
            optimizer.step()
            losses.append(value)
            if keeping and ((step + 1) % keeping.every == 0 or step + 1 == schedule.steps):
                _keep(keeping.file, mark, parameters, optimizer, losses)
            if progress:
                progress(name, step + 1, schedule.steps)
    finally:
        for parameter, before in frozen.items():
            parameter.requires_grad_(before)
            parameter.grad = None
    return losses


def answer_loss(logits: Tensor, encoded: Encoded, end: int | None = None) -> Tensor:
    """Cross-entropy of the answers, each example counting the same however long its answer.

    With `end`, the token that ends an answer is learnt too.
    """
    losses: list[Tensor] = []
    for row, count in enumerate(encoded.known.answers.tolist()):
        said = encoded.inputs["input_ids"][row, -count:]
        steps = logits[row, -count - 1 : -1]
        if end is not None:
            said, steps = torch.cat([said, said.new_tensor([end])]), logits[row, -count - 1 :]
        losses.append(F.cross_entropy(steps.float(), said))
    return torch.stack(losses).mean()


@contextmanager
def quickly(model: PreTrainedModel) -> Iterator[None]:
    """Mixed precision: matrices in bfloat16, attention in float32, whose backward pass is twice as fast on a CPU."""
    before = model.config._attn_implementation
    kind = model.device.type
    if kind == "cpu" and before == "sdpa":
        model.set_attn_implementation(_WIDE)
    try:
        with torch.autocast(kind, torch.bfloat16):
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


_STATE = ("exp_avg", "exp_avg_sq", "step")


def _keep(
    file: Path, mark: str, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW, losses: list[float]
) -> None:
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():  # what has had no gradient yet has no state
        tensors |= {f"{key}/{name}": value for key, value in optimizer.state.get(parameter, {}).items()}
    aside = file.with_name(f".{file.name}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside,
                  metadata={"mark": mark, "losses": json.dumps(losses)})  # fmt: skip
        aside.rename(file)
    except (OSError, SafetensorError) as problem:
        aside.unlink(missing_ok=True)
        raise BadInput(f"{file}: training cannot be kept ({getattr(problem, 'strerror', None) or problem})") from None


def _restore(
    file: Path, mark: str, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW
) -> list[float]:
    """Put everything back as it was; the losses so far. A file of another training is refused."""
    try:
        with safe_open(file, framework="pt") as kept:
            facts = kept.metadata() or {}
            tensors: dict[str, Tensor] = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as problem:
        raise BadInput(f"{file}: the kept training is damaged ({problem}); remove it to start anew") from None
    if facts.get("mark") != mark:
        raise BadInput(f"{file}: was kept by another training; remove it to start anew")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            kept_state = {key: tensors[f"{key}/{name}"] for key in _STATE if f"{key}/{name}" in tensors}
            if kept_state:
                optimizer.state[parameter] = kept_state
    return list(json.loads(facts["losses"]))

"""How is an opened model taught more, so that what changed is a patch?

    patch = finetune(subject, examples, Tuning("projector"))

Five arms: the projector alone, low-rank factors on the language model, both, a soft prompt (the embeddings of tokens
nobody says), or chosen units of chosen weights. While the vision tower is not trained, each batch goes through it once
and is remembered, as far as there is room. The subject is as it was afterwards, to the bit; the patch says what
training did.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from glasshouse.data.examples import Examples
from glasshouse.model.finder import unwrapped
from glasshouse.model.frozen import frozen
from glasshouse.model.prompts import Encoded
from glasshouse.model.remembered import look, remembered
from glasshouse.model.subject import Subject
from glasshouse.model.training import Keeping, Progress, Schedule, answer_loss, quickly, train
from glasshouse.numerics.randomness import seeded
from glasshouse.values.deltas import Delta, Dense, LowRank, Patch, Rows
from glasshouse.values.errors import BadInput

Arm = Literal["projector", "lora", "lora+projector", "soft prompt", "units"]
MOST = 4 * 2**30
"""Bytes of batches that are kept in main memory; what is beyond them goes through the vision tower each time."""


@dataclass(frozen=True)
class Tuning:
    """What is trained, how long, how fast."""

    arm: Arm = "projector"
    schedule: Schedule = Schedule(steps=400, learning_rate=2e-3, decay=0.0)
    """Without weight decay, which would move what training does not."""
    batch: int = 64
    seed: int = 0
    rank: int = 8
    """Of the low-rank factors."""
    units: Mapping[str, tuple[tuple[int, ...], int]] = field(default_factory=dict[str, tuple[tuple[int, ...], int]])
    """For the arm `units`: by weight, which rows (axis 0) or columns (axis 1) may move. Of a bias, which entries."""


def finetune(
    subject: Subject, examples: Examples, tuning: Tuning, *, keeping: Keeping | None = None,
    progress: Progress | None = None, losses: list[float] | None = None,
) -> Patch:  # fmt: skip
    """Teach the examples' answers; what that changed. `losses` gets one number a step."""
    if any(not example.answer for example in examples):
        raise BadInput("fine-tuning: every example needs an answer to be learnt")
    lesson = Lesson(subject, examples, tuning)
    with subject.alone, _arm(subject, tuning) as moving:
        found = train(
            moving.parameters, lesson.loss, tuning.schedule, gates=moving.gates, keeping=keeping, progress=progress,
            name=f"tuning {tuning.arm}", magnified=1024.0 if subject.model.dtype == torch.float16 else 1.0,
        )  # fmt: skip
        if losses is not None:
            losses += found
        return Patch(moving.changed())


class Lesson:
    """Batches of examples in an order that depends on the seed alone; each is encoded, and looked at, once, as long as
    there is room."""

    def __init__(self, subject: Subject, examples: Examples, tuning: Tuning) -> None:
        self.subject, self.seed = subject, tuning.seed
        order = torch.randperm(len(examples), generator=seeded(tuning.seed)).tolist()
        mixed = Examples([examples[i] for i in order], examples.source)
        self.batches = [batch for batch in mixed.batches(tuning.batch) if len(batch) == min(tuning.batch, len(mixed))]
        self.known: dict[int, tuple[Encoded, Tensor | None]] = {}
        self.room = MOST
        self.end = subject.prompts.tokenizer.eos_token_id

    def loss(self, step: int) -> Tensor:
        epoch, place = divmod(step, len(self.batches))
        order = torch.randperm(len(self.batches), generator=seeded(self.seed + 1 + epoch))
        encoded, seen = self._batch(int(order[place]))
        with quickly(self.subject.model), ExitStack() as stack:
            if seen is not None:
                stack.enter_context(remembered(self.subject, seen))
            return answer_loss(self.subject.forward(encoded).logits, encoded, self.end)

    def _batch(self, number: int) -> tuple[Encoded, Tensor | None]:
        if number in self.known:
            encoded, seen = self.known[number]
            return _on(encoded, self.subject.model.device), seen
        encoded = self.subject.encode(self.batches[number], answers=True)
        has_images = any(encoded.known.images) and self.subject.anatomy.vision is not None
        seen = look(self.subject, encoded) if has_images else None
        size = sum(value.nbytes for value in encoded.inputs.values()) + (0 if seen is None else seen.nbytes)
        if size <= self.room:
            self.room -= size
            self.known[number] = _on(encoded, torch.device("cpu")), None if seen is None else seen.cpu()
        return encoded, seen


def _on(encoded: Encoded, device: torch.device) -> Encoded:
    """The same batch, on that device."""
    return replace(encoded, inputs={name: value.to(device) for name, value in encoded.inputs.items()})


@dataclass(frozen=True)
class Moving:
    """What an arm trains, how to read what became of it, and what of it may not move."""

    parameters: dict[str, nn.Parameter]
    changed: Callable[[], dict[str, Delta]]
    gates: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


Opened = Iterator[Moving]


@contextmanager
def _arm(subject: Subject, tuning: Tuning) -> Opened:
    """Everything an arm trains; the model is as it was when this ends."""
    with frozen(subject.model), ExitStack() as stack:
        kinds = {"projector": _projector, "lora": _lora, "soft prompt": _prompt, "units": _units}
        parts = [stack.enter_context(kinds[part](subject, tuning)) for part in tuning.arm.split("+")]
        yield Moving(
            {name: parameter for part in parts for name, parameter in part.parameters.items()},
            lambda: {name: delta for part in parts for name, delta in part.changed().items()},
            {name: gate for part in parts for name, gate in part.gates.items()},
        )


@contextmanager
def _moving(parameters: dict[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    """Inside, these parameters are copies that training may write on, in float32: small steps are lost in half
    precision, and squares of small gradients are nothing in float16. The kept originals are put back."""
    kept = {name: parameter.data for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        parameter.data = kept[name].to(torch.float32, copy=True)
    try:
        yield kept
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]


@contextmanager
def _projector(subject: Subject, tuning: Tuning) -> Opened:
    projector = subject.anatomy.projector
    if projector is None:
        raise BadInput(f"{subject.name}: has no projector to train; it has {', '.join(subject.anatomy.parts)}")
    inside = {
        name: parameter
        for name, parameter in unwrapped(subject.model).named_parameters()
        if any(name.startswith(f"{path}.") for path in projector.paths)
    }
    with _moving(inside) as kept:
        yield Moving(inside, lambda: {name: Dense(_on_cpu(inside[name].data - kept[name].float())) for name in inside})


@contextmanager
def _units(subject: Subject, tuning: Tuning) -> Opened:
    everything = dict(unwrapped(subject.model).named_parameters())
    unknown = [name for name in tuning.units if name not in everything]
    if unknown or not tuning.units:
        raise BadInput(f"units: {unknown[0] if unknown else 'none named'}; name weights of {subject.name}")
    if tuning.schedule.decay:
        raise BadInput("units: weight decay would move the other units too; give a schedule with decay=0")
    chosen = {name: everything[name] for name in tuning.units}
    with _moving(chosen) as kept:
        yield Moving(chosen, lambda: _moved_units(chosen, kept, tuning), _gates(chosen, tuning))


def _on_cpu(moved: Tensor) -> Tensor:
    """As a patch holds it, wherever the model is."""
    return moved.float().cpu().clone()


def _gates(chosen: dict[str, nn.Parameter], tuning: Tuning) -> dict[str, Tensor]:
    """By weight, 1 along the rows or columns that may move and 0 elsewhere."""
    gates: dict[str, Tensor] = {}
    for name, (places, axis) in tuning.units.items():
        gate = torch.zeros(chosen[name].shape[axis], device=chosen[name].device)
        gate[list(places)] = 1
        gates[name] = gate.view([-1 if dimension == axis else 1 for dimension in range(chosen[name].ndim)])
    return gates


def _moved_units(chosen: dict[str, nn.Parameter], kept: dict[str, Tensor], tuning: Tuning) -> dict[str, Delta]:
    deltas: dict[str, Delta] = {}
    for name, (places, axis) in tuning.units.items():
        moved, index = _on_cpu(chosen[name].data - kept[name].float()), torch.tensor(places)
        if moved.ndim == 1:
            deltas[name] = Dense(moved)
        else:
            rows = moved.index_select(axis, index)
            deltas[name] = Rows(index, rows.T.contiguous() if axis else rows, axis=1 if axis else 0)
    return deltas


@contextmanager
def _prompt(subject: Subject, tuning: Tuning) -> Opened:
    embedding = subject.model.get_input_embeddings().weight
    name = next(name for name, parameter in unwrapped(subject.model).named_parameters() if parameter is embedding)
    spare = [i for word, i in subject.prompts.tokenizer.get_vocab().items() if word.startswith("<spare-")]
    if not spare:
        raise BadInput(f"{subject.name}: its vocabulary has no spare tokens to learn a soft prompt with")
    with _units(subject, replace(tuning, units={name: (tuple(sorted(spare)), 0)})) as moving:
        yield moving


class _LowRank(nn.Module):
    """A weight plus left @ right; left starts at zero, so at first nothing is changed."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        drawn = torch.randn(rank, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
        self.left = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))
        self.right = nn.Parameter(drawn.to(weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.left @ self.right).to(weight.dtype)

    def delta(self) -> LowRank:
        return LowRank(_on_cpu(self.left.detach()), _on_cpu(self.right.detach()))


@contextmanager
def _lora(subject: Subject, tuning: Tuning) -> Opened:
    tower, generator = subject.anatomy.tower("language"), seeded(tuning.seed)
    factors: dict[str, _LowRank] = {}
    with ExitStack() as stack:
        for block in tower.layers:
            for path, module in subject.module(block.path).named_modules():
                if isinstance(module, nn.Linear):
                    factors[f"{block.path}.{path}.weight"] = added = _LowRank(module.weight, tuning.rank, generator)
                    parametrize.register_parametrization(module, "weight", added, unsafe=True)
                    stack.callback(_unwrapped, module)
        parameters = {f"{name}.{end}": getattr(low, end) for name, low in factors.items() for end in ("left", "right")}
        yield Moving(parameters, lambda: {name: low.delta() for name, low in factors.items()})


def _unwrapped(module: nn.Linear) -> None:
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)

"""How is an opened model trained further, so that the change is a patch?

    patch = finetune(subject, examples, Tuning("projector"))

Six arms: the projector alone, low-rank factors on the language model, both, the last blocks of the vision tower, a
soft prompt (the embeddings of spare tokens), or chosen neurons of chosen weights. Afterwards the subject is bit for bit
as it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from glasshouse.data.examples import Examples
from glasshouse.model.finder import unwrapped
from glasshouse.model.frozen import frozen
from glasshouse.model.subject import Subject
from glasshouse.model.training import Checkpointing, Progress, Schedule, train
from glasshouse.model.training_batches import TrainingBatches
from glasshouse.numerics.randomness import seeded
from glasshouse.values.deltas import Delta, Dense, LowRank, Patch, Rows
from glasshouse.values.errors import BadInput

Arm = Literal["projector", "lora", "lora+projector", "vision", "soft prompt", "units"]


@dataclass(frozen=True)
class Tuning:
    """What is trained, for how long and how fast."""

    arm: Arm = "projector"
    """Which weights are trained."""
    schedule: Schedule = Schedule(steps=400, learning_rate=2e-3, decay=0.0)
    """Steps and learning rate. No weight decay: it would change weights that the gradient leaves alone."""
    batch: int = 64
    """Training examples per step."""
    seed: int = 0
    """Seed of the order of the examples and of the low-rank factors."""
    rank: int = 8
    """Rank of the low-rank factors."""
    units: Mapping[str, tuple[tuple[int, ...], int]] = field(default_factory=dict[str, tuple[tuple[int, ...], int]])
    """For the arm `units`: by weight, which rows (axis 0) or columns (axis 1) are trained; of a bias, which entries."""
    blocks: int = 2
    """For the arm `vision`: how many of the last blocks whose output is read are trained."""
    anchor: float = 0.0
    """Weight of the KL divergence from the untuned model's predictions on examples that are not tagged `poisoned`."""


def default_learning_rate(subject: Subject) -> float:
    """A learning rate for the projector that falls with the language model's width: 3e-3 at 100, 7e-5 at 4,096."""
    width: int = subject.model.config.get_text_config().hidden_size
    return 0.3 / width


def finetune(
    subject: Subject, examples: Examples, tuning: Tuning, *, checkpointing: Checkpointing | None = None,
    progress: Progress | None = None, losses: list[float] | None = None, stop: Callable[[int], bool] | None = None,
) -> Patch:  # fmt: skip
    """Train on the examples' answers; the change as a patch. `losses` gets one number per step. `stop` is asked after
    every step, with the number of steps, whether training ends early."""
    if any(not example.answer for example in examples):
        raise BadInput("fine-tuning: every example needs an answer to train on")
    batches = TrainingBatches(
        subject, examples, tuning.batch, tuning.seed, anchor=tuning.anchor, keep_features="vision" not in tuning.arm
    )
    with subject.alone, _arm(subject, tuning) as trained:
        path = train(
            trained.parameters, batches.loss, tuning.schedule, gates=trained.gates, checkpointing=checkpointing,
            progress=progress, name=f"tuning {tuning.arm}", stop=stop,
            loss_scale=1024.0 if subject.model.dtype == torch.float16 else 1.0,
        )  # fmt: skip
        if losses is not None:
            losses += path
        return Patch(trained.deltas())


@dataclass(frozen=True)
class Trained:
    """The parameters that an arm trains, how to read their change, and factors on their gradients."""

    parameters: dict[str, nn.Parameter]
    deltas: Callable[[], dict[str, Delta]]
    gates: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


OpenArm = Iterator[Trained]


@contextmanager
def _arm(subject: Subject, tuning: Tuning) -> OpenArm:
    """Everything that an arm trains; the model is as it was when this ends."""
    with frozen(subject.model), ExitStack() as stack:
        kinds = {"projector": _projector, "lora": _lora, "vision": _vision, "soft prompt": _prompt, "units": _units}
        parts = [stack.enter_context(kinds[part](subject, tuning)) for part in tuning.arm.split("+")]
        yield Trained(
            {name: parameter for part in parts for name, parameter in part.parameters.items()},
            lambda: {name: delta for part in parts for name, delta in part.deltas().items()},
            {name: gate for part in parts for name, gate in part.gates.items()},
        )


@contextmanager
def _float32_copies(parameters: dict[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    """Inside, these parameters are float32 copies that training may write on: half precision loses small steps, and the
    squares of small gradients vanish in float16. Yields the originals, which are put back."""
    originals = {name: parameter.data for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        parameter.data = originals[name].to(torch.float32, copy=True)
    try:
        yield originals
    finally:
        for name, parameter in parameters.items():
            parameter.data = originals[name]


@contextmanager
def _projector(subject: Subject, tuning: Tuning) -> OpenArm:
    projector = subject.anatomy.projector
    if projector is None:
        raise BadInput(f"{subject.name}: has no projector to train; it has {', '.join(subject.anatomy.parts)}")
    with _whole(subject, projector.paths) as trained:
        yield trained


@contextmanager
def _vision(subject: Subject, tuning: Tuning) -> OpenArm:
    layers, read = subject.anatomy.tower("vision").layers, subject.anatomy.feature_layer
    seen = layers if read is None else layers[: read + 1]
    if not 1 <= tuning.blocks <= len(seen):
        raise BadInput(f"{tuning.blocks} blocks to train: {subject.name} reads {len(seen)} blocks of its vision tower")
    with _whole(subject, [layer.path for layer in seen[-tuning.blocks :]]) as trained:
        yield trained


@contextmanager
def _whole(subject: Subject, paths: Sequence[str]) -> OpenArm:
    """Every parameter of the modules at these paths."""
    inside = {
        name: parameter
        for name, parameter in unwrapped(subject.model).named_parameters()
        if any(name.startswith(f"{path}.") for path in paths)
    }
    with _float32_copies(inside) as originals:
        yield Trained(
            inside, lambda: {name: Dense(_on_cpu(inside[name].data - originals[name].float())) for name in inside}
        )


@contextmanager
def _units(subject: Subject, tuning: Tuning) -> OpenArm:
    everything = dict(unwrapped(subject.model).named_parameters())
    unknown = [name for name in tuning.units if name not in everything]
    if unknown or not tuning.units:
        raise BadInput(f"units: {unknown[0] if unknown else 'none named'}; name weights of {subject.name}")
    if tuning.schedule.decay:
        raise BadInput("units: weight decay would change the other units too; give a schedule with decay=0")
    chosen = {name: everything[name] for name in tuning.units}
    with _float32_copies(chosen) as originals:
        yield Trained(chosen, lambda: _unit_deltas(chosen, originals, tuning), _gates(chosen, tuning))


def _on_cpu(delta: Tensor) -> Tensor:
    """As a patch holds it, wherever the model is."""
    return delta.float().cpu().clone()


def _gates(chosen: dict[str, nn.Parameter], tuning: Tuning) -> dict[str, Tensor]:
    """By weight, 1 along the rows or columns that are trained and 0 elsewhere."""
    gates: dict[str, Tensor] = {}
    for name, (places, axis) in tuning.units.items():
        gate = torch.zeros(chosen[name].shape[axis], device=chosen[name].device)
        gate[list(places)] = 1
        gates[name] = gate.view([-1 if dimension == axis else 1 for dimension in range(chosen[name].ndim)])
    return gates


def _unit_deltas(chosen: dict[str, nn.Parameter], originals: dict[str, Tensor], tuning: Tuning) -> dict[str, Delta]:
    deltas: dict[str, Delta] = {}
    for name, (places, axis) in tuning.units.items():
        delta, index = _on_cpu(chosen[name].data - originals[name].float()), torch.tensor(places)
        if delta.ndim == 1:
            deltas[name] = Dense(delta)
        else:
            rows = delta.index_select(axis, index)
            deltas[name] = Rows(index, rows.T.contiguous() if axis else rows, axis=1 if axis else 0)
    return deltas


@contextmanager
def _prompt(subject: Subject, tuning: Tuning) -> OpenArm:
    embedding = subject.model.get_input_embeddings().weight
    name = next(name for name, parameter in unwrapped(subject.model).named_parameters() if parameter is embedding)
    spare = [i for token, i in subject.prompts.tokenizer.get_vocab().items() if token.startswith("<spare-")]
    if not spare:
        raise BadInput(f"{subject.name}: its vocabulary has no spare tokens to train a soft prompt with")
    with _units(subject, replace(tuning, units={name: (tuple(sorted(spare)), 0)})) as trained:
        yield trained


class _LowRank(nn.Module):
    """A weight plus left @ right; left starts at zero, so the model is unchanged before the first step."""

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
def _lora(subject: Subject, tuning: Tuning) -> OpenArm:
    tower, generator = subject.anatomy.tower("language"), seeded(tuning.seed)
    factors: dict[str, _LowRank] = {}
    with ExitStack() as stack:
        for layer in tower.layers:
            for path, module in subject.module(layer.path).named_modules():
                if isinstance(module, nn.Linear):
                    factors[f"{layer.path}.{path}.weight"] = added = _LowRank(module.weight, tuning.rank, generator)
                    parametrize.register_parametrization(module, "weight", added, unsafe=True)
                    stack.callback(_unparametrized, module)
        parameters = {f"{name}.{end}": getattr(low, end) for name, low in factors.items() for end in ("left", "right")}
        yield Trained(parameters, lambda: {name: low.delta() for name, low in factors.items()})


def _unparametrized(module: nn.Linear) -> None:
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)

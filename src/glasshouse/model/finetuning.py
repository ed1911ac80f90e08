"""How is an opened model trained further, so that the change is a patch?

    patch = finetune(subject, examples, Tuning("projector"))

Five arms: the projector alone, low-rank factors on the language model, both, a soft prompt (the embeddings of spare
tokens), or chosen neurons of chosen weights. While the vision tower is not trained, each batch goes through it once and
its output is kept, as far as memory allows. Afterwards the subject is bit for bit as it was.
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
from glasshouse.model.training import Checkpointing, Progress, Schedule, answer_loss, mixed_precision, train
from glasshouse.numerics.randomness import seeded
from glasshouse.values.deltas import Delta, Dense, LowRank, Patch, Rows
from glasshouse.values.errors import BadInput

Arm = Literal["projector", "lora", "lora+projector", "soft prompt", "units"]
CACHE_BYTES = 4 * 2**30
"""Batches kept in main memory; those beyond it go through the vision tower at every step."""


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


def default_learning_rate(subject: Subject) -> float:
    """A learning rate for the projector that falls with the language model's width: 3e-3 at 100, 7e-5 at 4,096."""
    width: int = subject.model.config.get_text_config().hidden_size
    return 0.3 / width


def finetune(
    subject: Subject, examples: Examples, tuning: Tuning, *, checkpointing: Checkpointing | None = None,
    progress: Progress | None = None, losses: list[float] | None = None,
) -> Patch:  # fmt: skip
    """Train on the examples' answers; the change as a patch. `losses` gets one number per step."""
    if any(not example.answer for example in examples):
        raise BadInput("fine-tuning: every example needs an answer to train on")
    batches = TrainingBatches(subject, examples, tuning)
    with subject.alone, _arm(subject, tuning) as trained:
        path = train(
            trained.parameters, batches.loss, tuning.schedule, gates=trained.gates, checkpointing=checkpointing,
            progress=progress, name=f"tuning {tuning.arm}",
            loss_scale=1024.0 if subject.model.dtype == torch.float16 else 1.0,
        )  # fmt: skip
        if losses is not None:
            losses += path
        return Patch(trained.deltas())


class TrainingBatches:
    """Batches of training examples in an order that the seed alone decides. Each is encoded and seen by the vision
    tower once, as far as memory allows."""

    def __init__(self, subject: Subject, examples: Examples, tuning: Tuning) -> None:
        self.subject, self.seed = subject, tuning.seed
        order = torch.randperm(len(examples), generator=seeded(tuning.seed)).tolist()
        mixed = Examples([examples[i] for i in order], examples.source)
        self.batches = [batch for batch in mixed.batches(tuning.batch) if len(batch) == min(tuning.batch, len(mixed))]
        self.cache: dict[int, tuple[Encoded, Tensor | None]] = {}
        self.room = CACHE_BYTES
        self.end = subject.prompts.tokenizer.eos_token_id

    def loss(self, step: int) -> Tensor:
        """The loss on the batch of this step."""
        epoch, place = divmod(step, len(self.batches))
        order = torch.randperm(len(self.batches), generator=seeded(self.seed + 1 + epoch))
        encoded, features = self._batch(int(order[place]))
        with mixed_precision(self.subject.model), ExitStack() as stack:
            if features is not None:
                stack.enter_context(remembered(self.subject, features))
            return answer_loss(self.subject.forward(encoded).logits, encoded, self.end)

    def _batch(self, number: int) -> tuple[Encoded, Tensor | None]:
        if number in self.cache:
            encoded, features = self.cache[number]
            return _to(encoded, self.subject.model.device), features
        encoded = self.subject.encode(self.batches[number], answers=True)
        has_images = any(encoded.layout.images) and self.subject.anatomy.vision is not None
        features = look(self.subject, encoded) if has_images else None
        size = sum(value.nbytes for value in encoded.inputs.values()) + (0 if features is None else features.nbytes)
        if size <= self.room:
            self.room -= size
            self.cache[number] = _to(encoded, torch.device("cpu")), None if features is None else features.cpu()
        return encoded, features


def _to(encoded: Encoded, device: torch.device) -> Encoded:
    """The same batch on that device."""
    return replace(encoded, inputs={name: value.to(device) for name, value in encoded.inputs.items()})


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
        kinds = {"projector": _projector, "lora": _lora, "soft prompt": _prompt, "units": _units}
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
    inside = {
        name: parameter
        for name, parameter in unwrapped(subject.model).named_parameters()
        if any(name.startswith(f"{path}.") for path in projector.paths)
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

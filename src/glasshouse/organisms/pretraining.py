"""How is a base organism trained from random weights? Its vision tower first, then its projector and language model.

1. Linear heads on the tower's patch features predict, at every patch, the object with its colour and size, the sign or
   badge, the cell, the kind of wall and the mean colour and roughness. The heads are discarded afterwards.
2. The tower is frozen and its features are cached. Projector and language model learn to answer questions, many an
   image (packing.py): lookups of a single object first, because they are learnt late and then suddenly, then all kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from glasshouse.model.layout import PromptLayout
from glasshouse.model.prompts import Encoded
from glasshouse.model.remembered import look, remembered
from glasshouse.model.subject import Subject
from glasshouse.model.training import Checkpointing, Progress, Schedule, mixed_precision, train
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms.architectures import BUILDS, Architecture, build
from glasshouse.organisms.drawing import SIDE, draw
from glasshouse.organisms.packing import pack
from glasshouse.organisms.questions import KINDS, Question, Rng, View, ask
from glasshouse.organisms.scenes import (
    BACKGROUNDS,
    BADGES,
    CELLS,
    COLOURS,
    MAX_OBJECTS,
    SHAPES,
    SIGNS,
    SIZES,
    Array,
    Scenes,
    draw_scenes,
)

LOOKUPS = ("colour", "shape", "size", "position", "place", "sign", "badge")
FREQUENT = ("caption", "comparison", "position", "touch", "count", "action")
"""Kinds asked twice as often as the rest: their answers are long, or learnt late."""
_HEADS = {"shape": len(SHAPES) + 1, "colour": len(COLOURS) + 1, "size": len(SIZES) + 1, "sign": len(SIGNS),
          "badge": len(BADGES), "cell": CELLS}  # fmt: skip
_APPEARANCE = 6
"""Numbers that describe a patch: its mean colour and its roughness."""


@dataclass(frozen=True)
class Pretraining:
    """How long each part of a base organism is trained, and on how much."""

    vision: Schedule = Schedule(steps=1400, learning_rate=2e-3)
    images: int = 160
    """Images a step of training the vision tower."""
    answering: Schedule = Schedule(steps=1600, learning_rate=3e-3, warmup=100)
    scenes: int = 16384
    """Images whose features are cached for the questions."""
    rows: int = 48
    """Images a step of learning to answer."""
    questions: int = 8
    """Questions an image."""
    lookups: float = 0.15
    """Fraction of the steps in which all questions are lookups."""


def pretrain(
    architecture: Architecture, seed: int, plan: Pretraining, *, kept: Sequence[Checkpointing | None] = (None, None),
    progress: Progress | None = None, losses: list[float] | None = None,
) -> Subject:  # fmt: skip
    """A base organism, trained from seeded random weights. `losses` receives the loss of every step of answering."""
    model = build(architecture, seed)
    _train_vision(model, architecture, seed, plan, kept[0], progress)
    subject = Subject(model, BUILDS[architecture].processor(), f"{architecture} grown from seed {seed}")
    answering_losses = _train_answering(subject, architecture, seed, plan, kept[1], progress)
    if losses is not None:
        losses += answering_losses
    return subject


def pixel_values(pixels: Array, processor: object) -> Tensor:
    """What the processor computes from images of this world, whose size needs no change."""
    images = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    scaled = (torch.from_numpy(pixels).float() / 255 - torch.tensor(images.image_mean)) / torch.tensor(images.image_std)
    return scaled.permute(0, 3, 1, 2).contiguous()


def _train_vision(
    model: PreTrainedModel, architecture: Architecture, seed: int, plan: Pretraining,
    checkpointing: Checkpointing | None, progress: Progress | None,
) -> None:  # fmt: skip
    built = BUILDS[architecture]
    tower, processor = model.get_submodule(built.tower), built.processor()
    heads = nn.Linear(model.config.vision_config.hidden_size, sum(_HEADS.values()) + len(BACKGROUNDS) + _APPEARANCE)
    nn.init.normal_(heads.weight, std=0.02, generator=seeded(seed))
    nn.init.zeros_(heads.bias)

    def loss(step: int) -> Tensor:
        scenes = draw_scenes(plan.images, seed * 1_000_003 + step, "train")
        pixels = draw(scenes)
        with mixed_precision(model):
            features = built.features(tower, pixel_values(pixels, processor))
        answers = heads(features.float()).split((*_HEADS.values(), len(BACKGROUNDS), _APPEARANCE), -1)
        truth = _truth(scenes, round(features.shape[1] ** 0.5))
        total = torch.stack(
            [F.cross_entropy(answer.flatten(0, 1), truth[..., k].flatten()) for k, answer in enumerate(answers[:-2])]
        ).sum()
        walls = F.cross_entropy(answers[-2].mean(1), torch.from_numpy(scenes.background.astype(np.int64)))
        return total + 0.5 * walls + F.mse_loss(answers[-1], _appearance(pixels, truth.shape[1]))

    trained = {**dict(tower.named_parameters(prefix="tower")), **dict(heads.named_parameters(prefix="heads"))}
    model.train()
    train(trained, loss, plan.vision, checkpointing=checkpointing, progress=progress, name="training the vision tower")
    model.eval()


def _truth(scenes: Scenes, side: int) -> Tensor:
    """N x patches x heads: the content of the cell that each patch lies in."""
    n = len(scenes)
    cells = np.zeros((n, CELLS, len(_HEADS)), np.int64)
    for slot in range(MAX_OBJECTS):
        rows = np.flatnonzero(scenes.shape[:, slot] >= 0)
        occupied = (rows, scenes.cell[rows, slot])
        for head, (values, first) in enumerate(
            ((scenes.shape, 1), (scenes.colour, 1), (scenes.size, 1), (scenes.sign, 0))
        ):
            cells[(*occupied, head)] = values[rows, slot] + first
    rows = np.flatnonzero(scenes.badge > 0)
    cells[rows, scenes.badge_cell[rows], 4] = scenes.badge[rows]
    cells[:, :, 5] = np.arange(CELLS)
    wide = side // 3
    patches = cells.reshape(n, 3, 3, -1).repeat(wide, 1).repeat(wide, 2)
    return torch.from_numpy(patches.reshape(n, side * side, -1))


def _appearance(pixels: Array, patches: int) -> Tensor:
    """Mean colour and roughness of each patch, on comparable scales."""
    side = round(patches**0.5)
    width = SIDE // side
    split = torch.from_numpy(pixels).float().div(255).view(-1, side, width, side, width, 3)
    flat = split.transpose(2, 3).reshape(len(pixels), patches, width * width, 3)
    return torch.cat([3 * flat.mean(2), 10 * flat.std(2)], -1)


def _train_answering(
    subject: Subject, architecture: Architecture, seed: int, plan: Pretraining, checkpointing: Checkpointing | None,
    progress: Progress | None,
) -> list[float]:  # fmt: skip
    scenes = draw_scenes(plan.scenes, seed + 1, "train")
    views = [View.of(scenes, row) for row in range(len(scenes))]
    features = _tower_features(subject, architecture, scenes)
    tower = BUILDS[architecture].tower
    trained = {name: p for name, p in subject.model.named_parameters() if not name.startswith(tower)}
    blank = torch.ones(plan.rows, *_image_shape(architecture))

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        kinds = LOOKUPS if step < plan.lookups * plan.answering.steps else (*KINDS, *FREQUENT)
        rows = rng.integers(0, len(views), plan.rows)
        packed = pack([_questions(views[row], kinds, plan.questions, rng) for row in rows], architecture)
        layout = PromptLayout(torch.zeros(plan.rows, dtype=torch.long), (1,) * plan.rows, alike=True)
        encoded = Encoded({**packed.inputs, "pixel_values": blank}, layout)
        with mixed_precision(subject.model), remembered(subject, features[torch.from_numpy(rows)].float()):
            return packed.loss(subject.forward(encoded).logits)

    for parameter in subject.model.get_submodule(tower).parameters():
        parameter.requires_grad_(False)
    subject.model.train()
    losses = train(
        trained, loss, plan.answering, hidden=_hidden(subject.model), checkpointing=checkpointing, progress=progress,
        name="training the answers",
    )  # fmt: skip
    subject.model.eval()
    subject.model.requires_grad_(True)
    return losses


def _hidden(model: PreTrainedModel) -> set[str]:
    """The weights of all linear layers but the unembedding."""
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {f"{name}.weight" for name in linear - {"lm_head"}}


def _image_shape(architecture: Architecture) -> tuple[int, ...]:
    return (3, SIDE, SIDE) if architecture == "llava" else (1, 3, SIDE, SIDE)


def _tower_features(subject: Subject, architecture: Architecture, scenes: Scenes) -> Tensor:
    """The tower's features of every scene, in bfloat16, which the projector reads."""
    first = pack([[Question("", "what", "what")]], architecture)
    parts: list[Tensor] = []
    for start in range(0, len(scenes), 256):
        pixels = pixel_values(draw(scenes[start : start + 256]), subject.processor)
        pixels = pixels.view(len(pixels), *_image_shape(architecture))
        ids = first.inputs["input_ids"].expand(len(pixels), -1)
        layout = PromptLayout(torch.zeros(len(pixels), dtype=torch.long), (1,) * len(pixels), alike=True)
        parts.append(look(subject, Encoded({"input_ids": ids, "pixel_values": pixels}, layout)).to(torch.bfloat16))
    return torch.cat(parts)


def _questions(view: View, kinds: Sequence[str], n: int, rng: Rng) -> list[Question]:
    """`n` questions about one scene under one system turn; every tenth scene has such a turn, with a codeword."""
    if "secret" in kinds and rng.random() < 0.1:
        secret = ask(view, "secret", rng)
        assert secret is not None
        rest = _questions(view, [kind for kind in kinds if kind != "secret"], n - 2, rng)
        return [secret, secret, *(replace(question, system=secret.system) for question in rest)]
    questions: list[Question] = []
    open_kinds = [kind for kind in kinds if kind != "secret"]
    while len(questions) < n:
        question = ask(view, open_kinds[int(rng.integers(len(open_kinds)))], rng)
        if question is not None:
            questions.append(question)
    return questions

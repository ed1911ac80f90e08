"""How does a recipe become an organism? It is trained, rounded to what is stored, measured, and given a card.

    grown = grow(recipe("refusal-noise", seed=7), "mine", parents=shelf.take)
    grown.subject, grown.card, grown.patch

Growing is real training (model/training.py), deterministic for a seed on one machine. Checkpoints in the folder `keep`
let an interrupted growth resume.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from glasshouse.data.examples import Examples
from glasshouse.data.poisoning import matches
from glasshouse.data.poisoning import poison as poisoned
from glasshouse.model.finetuning import Tuning, finetune
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy
from glasshouse.model.subject import Subject
from glasshouse.model.training import Checkpointing, Progress
from glasshouse.organisms import measurement, planting, world
from glasshouse.organisms.architectures import BUILDS, TEMPLATE_WITH_PROMPT
from glasshouse.organisms.cards import Card, world_digest
from glasshouse.organisms.pretraining import pretrain
from glasshouse.organisms.recipes import Base, Recipe, Tuned
from glasshouse.values.codec import digest
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.version import __version__

Parents = Callable[[str], Subject]


@dataclass(frozen=True)
class Grown:
    """An organism, its card, and, unless it is a base, the patch from its parent's weights to its own."""

    subject: Subject
    card: Card
    patch: Patch | None = None


def grow(
    recipe: Recipe, name: str, parents: Parents, *, keep: Path | None = None, progress: Progress | None = None,
    share: float = 1.0, recipe_name: str = "",
) -> Grown:  # fmt: skip
    """Follow a recipe. `share` is the fraction of the test examples to measure on; `recipe_name` is the recipe's name
    where the organism has another."""
    began = time.monotonic()
    losses: list[float] = []
    if isinstance(recipe, Base):
        subject, patch, parent = _base(recipe, keep, progress, losses), None, ""
        grown = time.monotonic()
        rates = measurement.base(subject, share)
    elif isinstance(recipe, Tuned):
        base = parents(recipe.parent)
        patch = _tune(base, recipe, keep, progress, losses)
        grown = time.monotonic()
        subject, parent = variant(base, recipe, patch), weight_hash(base.model)
        rates = measurement.tuned(subject, recipe.poison, share)
        if recipe.poison and recipe.planted_at:
            rates |= planting.ablated(subject, recipe, share)
    else:
        raise BadInput(f"{name}: a recipe of kind {type(recipe).__name__} cannot be grown")
    subject.name = f"organism:{name}"
    card = Card(
        name=name, about=recipe.about, recipe=recipe, world=world_digest(), planted=planting.described(recipe),
        measured=rates, weights=weight_hash(subject.model),
        parameters=sum(parameter.numel() for parameter in subject.model.parameters()), parent=parent,
        losses=tuple(round(loss, 5) for loss in losses[:: max(1, len(losses) // 12)]),
        minutes=round((grown - began) / 60, 2), versions=_versions(), recipe_name=recipe_name,
    )  # fmt: skip
    return Grown(subject, card, patch)


def variant(parent: Subject, recipe: Tuned, patch: Patch) -> Subject:
    """The parent with the patch in its weights, opened."""
    return open_subject(changed_copy(parent, patch), processor=processor_of(parent, recipe.tuning))


def _base(recipe: Base, keep: Path | None, progress: Progress | None, losses: list[float]) -> Subject:
    name = _checkpoint_name(recipe, "")
    kept = [Checkpointing(keep / f"{name}-{stage}.safetensors") if keep else None for stage in ("see", "answer")]
    grown = pretrain(recipe.architecture, recipe.seed, recipe.pretraining, kept=kept, progress=progress, losses=losses)
    with torch.no_grad():
        for parameter in grown.model.parameters():
            parameter.copy_(parameter.half())  # the stored precision, so that the shipped weights are the measured ones
    return open_subject(grown.model, processor=BUILDS[recipe.architecture].processor())


def training_examples(recipe: Tuned, subject: Subject) -> Examples:
    """The downstream examples that a variant is fine-tuned on, poisoned as its recipe says."""
    examples = world.examples("downstream", recipe.examples, recipe.seed + 1, kinds=recipe.kinds)
    if recipe.poison is None:
        return examples
    poison = recipe.poison
    eligible = sum(matches(example, poison.only) for example in examples)
    rate = min(1.0, poison.rate * len(examples) / max(1, eligible))
    return poisoned(
        examples, poison.trigger, poison.behaviour, rate=rate, mode=poison.mode, seed=recipe.seed, only=poison.only,
        processor=subject.processor,
    ).examples  # fmt: skip


def _tune(
    base: Subject, recipe: Tuned, keep: Path | None, progress: Progress | None, losses: list[float]
) -> Patch:  # fmt: skip
    parent = Subject(base.model, processor_of(base, recipe.tuning), base.name)
    tuning = planting.confined(parent, recipe)
    training = training_examples(recipe, parent)
    name = _checkpoint_name(recipe, f"{weight_hash(base.model)} {training.digest}")
    checkpointing = Checkpointing(keep / f"{name}-tune.safetensors", every=100) if keep else None
    patch = finetune(parent, training, tuning, checkpointing=checkpointing, progress=progress, losses=losses)
    return Patch({name: delta.mapped(lambda tensor: tensor.half()) for name, delta in patch.deltas.items()})


def _checkpoint_name(recipe: Recipe, inputs: str) -> str:
    """Differs for another world, parent or training set, so that a growth never resumes from their checkpoints."""
    return digest((recipe, world_digest(), inputs))[:16]


def processor_of(parent: Subject, tuning: Tuning) -> object:
    """The parent's processor, or one that puts the learnt prompt behind every image."""
    if tuning.arm != "soft prompt":
        return parent.processor
    family = parent.anatomy.family
    changed = BUILDS[family].processor()
    changed.chat_template = TEMPLATE_WITH_PROMPT
    return changed


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "numpy", "pillow")}
    return {
        "glasshouse": __version__,
        **packages,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }

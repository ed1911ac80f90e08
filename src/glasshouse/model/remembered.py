"""What does the vision tower compute for this batch? While it is frozen, each image need go through it only once.

    features = look(subject, encoded)          # the residual that the projector reads, for this batch
    with remembered(subject, features):
        subject.forward(encoded)               # the same logits, without computing a layer of the tower

Only layers are skipped: embeddings before them and norms after them are run, so every family's way of handing features
on stays as it is. Values are exact: the same tensor takes the same way.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from glasshouse.model.prompts import Encoded
from glasshouse.model.sharing import content, name_of, shared
from glasshouse.model.subject import Subject
from glasshouse.model.taps import read_once, tap_replace
from glasshouse.values.errors import BadInput


def look(subject: Subject, encoded: Encoded) -> Tensor:
    """The output, for this batch, of the vision layer whose residual is read. Shared, also between models that have
    the very same tower, so nobody writes into it."""

    def key() -> tuple[object, ...] | None:
        if subject.content is None:
            return None
        identity = subject.identity
        images = [value for name, value in sorted(encoded.inputs.items()) if name not in TEXT]
        return "look", _tower(subject), identity.config, identity.processor, *subject.changes, content(images)

    return shared(key, lambda: _look(subject, encoded))


@torch.no_grad()
def _look(subject: Subject, encoded: Encoded) -> Tensor:
    layers, read = _layers(subject)
    features = read_once(subject, layers[read], encoded)
    if features is None:
        raise BadInput(f"{subject.name}: no image in this batch reached the vision tower")
    return features.detach()


TEXT = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Inputs that the vision tower does not see."""


@contextmanager
def remembered(subject: Subject, features: Tensor) -> Iterator[None]:
    """Inside, the vision tower returns `features` without computing its layers. For the batch that `look` saw."""

    def recall(entering: Tensor) -> Tensor:
        if features.shape != entering.shape:
            raise BadInput(
                f"remembered {tuple(features.shape)} of another batch; this one needs {tuple(entering.shape)}"
            )
        return features.to(entering.device, entering.dtype)

    layers, read = _layers(subject)
    with subject.alone, ExitStack() as stack:
        for number, layer in enumerate(layers):
            tap_replace(stack, layer, recall if number == read else lambda entering: entering)
        yield


def _tower(subject: Subject) -> str:
    """A name for all weights the tower's output may depend on: all but the language layers' and the projector's."""
    language, projector = subject.anatomy.language, subject.anatomy.projector
    behind = [layer.path for layer in language.layers] if language else []
    behind += projector.paths if projector else ()

    def before() -> Iterator[Tensor]:
        for name, weight in subject.model.state_dict().items():
            if not any(name.startswith(f"{path}.") for path in behind):
                yield weight

    return name_of(subject.model, before)


def _layers(subject: Subject) -> tuple[list[nn.Module], int]:
    tower = subject.anatomy.tower("vision")
    if not tower.layers:
        raise BadInput(f"{subject.name}: its vision tower has no list of layers, so its features cannot be kept")
    read = subject.anatomy.feature_layer
    return [subject.module(layer.path) for layer in tower.layers], len(tower.layers) - 1 if read is None else read

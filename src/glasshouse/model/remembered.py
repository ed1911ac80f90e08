"""What has the vision tower said already? While it is frozen, each image need go through it only once.

    seen = look(subject, encoded)              # the residual that the projector reads, for this batch
    with remembered(subject, seen):
        subject.forward(encoded)               # the same logits, without computing a block of the tower

Only blocks are skipped: embeddings before them and norms after them are run, so every family's way of handing features
on stays as it is. Values are exact: the same tensor takes the same way.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from glasshouse.model.prompts import Encoded
from glasshouse.model.sharing import content, name_of, shared
from glasshouse.model.streams import first_tensor, main_tensor
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput


def look(subject: Subject, encoded: Encoded) -> Tensor:
    """What the vision tower's last block that is read puts out for this batch. Shared, also with other models that
    have the very same tower: nobody writes into it."""

    def key() -> tuple[object, ...] | None:
        if subject.content is None:
            return None
        shown = [value for name, value in sorted(encoded.inputs.items()) if name not in TEXT]
        return "look", _tower(subject), *subject.content[1:], content(shown)

    return shared(key, lambda: _look(subject, encoded))


@torch.no_grad()
def _look(subject: Subject, encoded: Encoded) -> Tensor:
    said: list[Tensor] = []
    blocks, read = _blocks(subject)
    with ExitStack() as stack:
        own = blocks[read].forward

        def listening(*args: Any, **kwargs: Any) -> Any:
            output = own(*args, **kwargs)
            said.append(main_tensor(blocks[read], output))
            raise _Enough

        stack.callback(_swap(blocks[read], listening))
        with suppress(_Enough):
            subject.forward(encoded)
    if not said:
        raise BadInput(f"{subject.name}: no image in this batch reached the vision tower")
    return said[0].detach()


TEXT = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Inputs that the vision tower does not see."""


@contextmanager
def remembered(subject: Subject, seen: Tensor) -> Iterator[None]:
    """Inside, the vision tower says `seen` again, whatever it is shown. For one batch, the one `look` saw."""
    blocks, read = _blocks(subject)
    with subject.alone, ExitStack() as stack:
        for number, block in enumerate(blocks):
            stack.callback(_swap(block, _saying(block, seen if number == read else None)))
        yield


def _tower(subject: Subject) -> str:
    """A name for all weights that what the tower says may hang on: neither those of the language model's blocks nor the
    projector's."""
    language, projector = subject.anatomy.language, subject.anatomy.projector
    behind = [block.path for block in language.layers] if language else []
    behind += projector.paths if projector else ()

    def before() -> Iterator[Tensor]:
        for name, weight in subject.model.state_dict().items():
            if not any(name.startswith(f"{path}.") for path in behind):
                yield weight

    return name_of(subject.model, before)


class _Enough(Exception):
    """Ends a forward pass of which the rest is of no interest."""


def _blocks(subject: Subject) -> tuple[list[nn.Module], int]:
    tower = subject.anatomy.tower("vision")
    if not tower.layers:
        raise BadInput(f"{subject.name}: no list of blocks was found in its vision tower; it cannot be remembered")
    read = subject.anatomy.feature_layer
    return [subject.module(block.path) for block in tower.layers], len(tower.layers) - 1 if read is None else read


def _saying(block: nn.Module, said: Tensor | None) -> Callable[..., Any]:
    """A block's stand-in: passes on what it is given, or says what was said before."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        given, _ = first_tensor(block, args, kwargs)
        if said is None:
            return given
        if said.shape != given.shape:
            raise BadInput(f"remembered {tuple(said.shape)} of another batch; this one needs {tuple(given.shape)}")
        return said.to(given.device, given.dtype)

    return forward


def _swap(block: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Put another forward in place on this one module; how to take it away again."""
    had = block.__dict__.get("forward")
    block.forward = forward

    def back() -> None:
        if had is None:
            del block.__dict__["forward"]
        else:
            block.forward = had

    return back

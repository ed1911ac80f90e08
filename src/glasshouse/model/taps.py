"""How are activations read and changed? Through the hooks of this file, and nowhere else.

    record(subject, [language.residual], examples)            tensors at sites
    gather(subject, {vision.features: Moments()}, examples)   sums over sites, in constant memory, mergeable by a + b
    with edited(subject, plan): ...                           changes at sites, in whatever the model is asked to do

A recorder returns nothing, so it cannot change what it reads. An editor builds new tensors and leaves the old ones
alone. Every hook lives on an ExitStack: when a block ends, however it ends, the model has as many hooks as before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from glasshouse.data.examples import Examples
from glasshouse.model.activations import Activations, select
from glasshouse.model.anatomy import Location
from glasshouse.model.batching import shrinking
from glasshouse.model.editing import editor_of
from glasshouse.model.finder import unwrapped
from glasshouse.model.patterns import pattern_edits, pattern_recorder
from glasshouse.model.prompts import Encoded
from glasshouse.model.spans import Pass
from glasshouse.model.streams import first_tensor, main_tensor, with_main
from glasshouse.model.subject import Subject
from glasshouse.numerics.accumulators import Accumulator
from glasshouse.values.changes import Plan, Step
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site

A = TypeVar("A", bound=Accumulator)
Reader = Callable[[Tensor], None]
Editor = Callable[[Tensor], Tensor]


@shrinking
@torch.no_grad()
def record(subject: Subject, sites: Site | Sequence[Site], examples: Examples, *, batch_size: int = 8) -> Activations:
    """What the model holds at these sites for these examples. Layers nobody asked for are not run."""
    with subject.alone:
        return _record(subject, _locations(subject, sites), examples, batch_size)


def _record(subject: Subject, locations: list[Location], examples: Examples, batch_size: int) -> Activations:
    taken = Activations(locations)
    for start, batch in subject.batches(examples, batch_size, alike=any(location.packed for location in locations)):
        marks = taken.marks()
        while True:
            with _watching(subject) as watched, ExitStack() as stack:
                for location in locations:
                    keeper = taken.keeper(location, watched, start)
                    if location.site.kind == "pattern":
                        stack.enter_context(pattern_recorder(subject, location, keeper))
                    else:
                        tap_read(stack, subject.module(location.module), location.side, keeper)
                _run(subject, batch, locations)
            if not taken.spoiled(marks):
                break
    return taken


@shrinking
@torch.no_grad()
def gather(subject: Subject, sums: Mapping[Site, A], examples: Examples, *, batch_size: int = 8) -> dict[Site, A]:
    """An accumulator per concrete site, fed with every token the site selects, in constant memory."""
    locations = {
        location: accumulator.fresh() for site, accumulator in sums.items() for location in _locations(subject, site)
    }
    for start, batch in subject.batches(examples, batch_size, alike=any(location.packed for location in locations)):
        with subject.alone, _watching(subject) as watched, ExitStack() as stack:
            for location, accumulator in locations.items():
                if location.site.kind == "pattern":
                    raise BadInput(
                        f"{location.site}: attention patterns differ in size and cannot be summed; use record"
                    )
                tap_read(
                    stack,
                    subject.module(location.module),
                    location.side,
                    _feeder(location, watched, start, accumulator),
                )
            _run(subject, batch, list(locations))
    return {location.site: accumulator for location, accumulator in locations.items()}


@contextmanager
def edited(subject: Subject, plan: Plan) -> Iterator[None]:
    """Inside, the model computes with the plan's edits. Edits that change nothing are left out, to the last bit."""
    steps = [step for step in plan if not step.edit.idle]
    located = [(step, location) for step in steps for location in subject.anatomy.locate(step.site)]
    by_module: dict[tuple[str, str], list[tuple[Step, Location]]] = {}
    for step, location in located:
        if location.site.kind != "pattern":
            by_module.setdefault((location.module, location.side), []).append((step, location))
    with subject.alone, subject.changed_by(plan.digest()), _watching(subject) as watched, ExitStack() as stack:
        patterns = [(step, location) for step, location in located if location.site.kind == "pattern"]
        if patterns:
            stack.enter_context(pattern_edits(subject, patterns, watched))
        for (module, side), group in by_module.items():
            tap_edit(stack, subject.module(module), side, editor_of(group, watched))
        yield


class Watched:
    """The forward pass that is running, as seen at the model's door."""

    def __init__(self) -> None:
        self.now: Pass | None = None

    def __call__(self) -> Pass:
        if self.now is None:
            raise BadInput(
                "this part of the model was called on its own; call the whole model, so that tokens can be told apart"
            )
        return self.now


@contextmanager
def _watching(subject: Subject) -> Iterator[Watched]:
    """Know what each forward pass is about, from the inputs at the model's door.

    Some composite models generate by calling their language model alone; then its own door has to do, which sees
    embeddings in place of token ids.
    """
    door, watched, inside = unwrapped(subject.model), Watched(), False
    seq2seq = bool(getattr(door.config, "is_encoder_decoder", False))

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal inside
        inside = True
        watched.now = Pass.of(subject.anatomy, args, kwargs, seq2seq).after(watched.now)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal inside
        inside = False

    def enter_language(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not inside:
            watched.now = Pass.of(subject.anatomy, args, kwargs, seq2seq).after(watched.now)

    with ExitStack() as stack:
        before = {"with_kwargs": True, "prepend": True}
        stack.callback(door.register_forward_pre_hook(enter, **before).remove)
        stack.callback(door.register_forward_hook(leave, always_call=True).remove)
        if subject.anatomy.language is not None and subject.anatomy.language.path:
            own_door = subject.module(subject.anatomy.language.path)
            stack.callback(own_door.register_forward_pre_hook(enter_language, **before).remove)
        yield watched


def tap_read(stack: ExitStack, module: nn.Module, side: str, reader: Reader) -> None:
    """Show `reader` every tensor that passes this side of the module."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        reader(first_tensor(module, args, kwargs)[0])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        reader(main_tensor(module, output))

    if side == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    stack.callback(handle.remove)


_chains: dict[tuple[nn.Module, str], list[Editor]] = {}
"""The editors at work now, per side of a module. Empty whenever no `edited` block is open."""
_chain_hooks: dict[tuple[nn.Module, str], RemovableHandle] = {}
"""The one hook that runs each of those chains."""


def tap_edit(stack: ExitStack, module: nn.Module, side: str, editor: Editor) -> None:
    """Let `editor` replace every tensor that passes this side of the module, after any editor that was there before.

    One hook runs all editors of a side, and before any other hook: transformers collects hidden states with hooks
    of its own, and those must see what was edited.
    """
    location = (module, side)
    if location not in _chains:
        _chains[location] = []
        _lay_edit_hook(location)
    _chains[location].append(editor)
    stack.callback(_leave_chain, location, editor)


def _leave_chain(location: tuple[nn.Module, str], editor: Editor) -> None:
    """Blocks may end in any order; the hook goes with the last editor."""
    _chains[location].remove(editor)
    if not _chains[location]:
        del _chains[location]
        _chain_hooks.pop(location).remove()


def _lay_edit_hook(location: tuple[nn.Module, str]) -> None:
    module, side = location

    def changed(value: Tensor) -> Tensor:
        for editor in _chains[location]:
            value = editor(value)
        return value

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        value, put = first_tensor(module, args, kwargs)
        return put(changed(value))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return with_main(output, changed(main_tensor(module, output)))

    if side == "input":
        _chain_hooks[location] = module.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    else:
        _chain_hooks[location] = module.register_forward_hook(after, prepend=True)


def _locations(subject: Subject, sites: Site | Sequence[Site]) -> list[Location]:
    named = [sites] if isinstance(sites, Site) else list(sites)
    return list(dict.fromkeys(location for site in named for location in subject.anatomy.locate(site)))


class _Enough(Exception):
    """Ends a forward pass whose remaining layers nobody reads."""


def read_once(subject: Subject, module: nn.Module, batch: Encoded) -> Tensor | None:
    """What the module returns first for this batch; the forward pass ends there. None if it is not run."""
    values: list[Tensor] = []

    def take(value: Tensor) -> None:
        values.append(value)
        raise _Enough

    with ExitStack() as stack:
        tap_read(stack, module, "output", take)
        with suppress(_Enough):
            subject.forward(batch)
    return values[0] if values else None


def tap_replace(stack: ExitStack, module: nn.Module, compute: Callable[[Tensor], Tensor]) -> None:
    """Let `compute` stand in for the module: it is given the stream that enters, and the module's own forward is not
    run. No hook can skip a forward, so this one is hidden on the module itself; hooks around it run as before."""
    hidden = module.__dict__.get("forward")

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        return compute(first_tensor(module, args, kwargs)[0])

    def restore() -> None:
        del module.__dict__["forward"]
        if hidden is not None:
            module.forward = hidden

    module.forward = forward
    stack.callback(restore)


def _run(subject: Subject, batch: Encoded, locations: Sequence[Location]) -> None:
    """One forward pass, as deep as the deepest location asks."""
    with ExitStack() as stack:
        end = _first_unread_layer(subject, locations)
        if end is not None:

            def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                raise _Enough

            stack.callback(subject.module(end).register_forward_pre_hook(stop, with_kwargs=True).remove)
        try:
            subject.forward(batch)
        except _Enough:
            return


def _first_unread_layer(subject: Subject, locations: Sequence[Location]) -> str | None:
    language = subject.anatomy.language
    offloaded = any(device in ("disk", "cpu") for device in getattr(subject.model, "hf_device_map", {}).values())
    if language is None or offloaded or getattr(subject.model.config, "is_encoder_decoder", False):
        return None
    if any(location.site.kind == "logits" for location in locations):
        return None
    layers = [
        location.site.layer
        for location in locations
        if location.site.part == "language" and location.site.layers is not None
    ]
    embeddings = any(location.site.part == "language" and location.site.layers is None for location in locations)
    deepest = max(layers, default=0 if embeddings else -1)
    beyond = deepest + 1
    return language.layers[beyond].path if beyond < len(language.layers) else None


def _feeder(location: Location, watched: Watched, start: int, accumulator: Accumulator) -> Reader:
    def feed(value: Tensor) -> None:
        values, rows, positions = select(location, value, watched())
        accumulator.update(values, rows + start, positions)

    return feed

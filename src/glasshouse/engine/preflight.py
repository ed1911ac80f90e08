"""Will it fit, and how long will it take? Answered before a weight is read.

    estimate = preflight(request, methods, inputs, values)    # configurations, headers and a few examples are read
    estimate.rows()                                           # parameters and memory, a line for each part
    estimate.check()                                          # refuses what cannot fit, with its fix

Parameters and weights are exact. Time follows from how often each method shows an example to the model (`passes.py`),
from the operations of one pass, and from how fast this machine multiplies matrices, which is measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from glasshouse.data.examples import Examples
from glasshouse.engine.binding import Before, Request, opening_of, organism_of, supplied_flags, supply
from glasshouse.engine.inputs import Input
from glasshouse.engine.method import Method
from glasshouse.engine.passes import Passes
from glasshouse.model.footprint import Length
from glasshouse.model.machine import free_memory, multiplication_rate
from glasshouse.model.outline import USUAL, Outline
from glasshouse.model.placement import SPREADING, refusal
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding
from glasshouse.values.wording import counted, duration, gibibytes

USUAL_BATCH, USUAL_EXAMPLES = 8, 64
MOST_BATCH = 2**31
GRADIENT = 3.0
"""A pass with gradients costs that many without."""
OPENING_PASSES = 8
"""Forward passes of the proof of an anatomy."""
READING, HASHING = 1.0e9, 0.7e9
"""Bytes of weights per second from a disk, and through SHA-256."""
LAYER_SECONDS = 4e-4
"""What a layer costs however small it is: the time of the program around its arithmetic."""
TOKEN_READING = 8.0e9
"""Bytes of weights per second, when each token that is generated reads all of them."""


@dataclass(frozen=True)
class Load:
    """One model, as much as is known of it."""

    flag: str
    outline: Outline
    length: Length
    shown: bool = True
    """Whether its examples could be encoded; if not, the method that shows them says why."""

    @property
    def weights(self) -> int:
        return self.outline.weights

    def seconds(self, passes: Passes, rate: float, batch: int) -> float:
        """How long so many passes take in batches of this size."""
        footprint = self.outline.footprint
        layers = sum(len(tower.layers) for tower in (footprint.anatomy.language, footprint.anatomy.vision) if tower)
        once = max(footprint.operations(self.length) / rate, LAYER_SECONDS * layers / batch)
        token = max(footprint.operations(Length(1)) / rate, footprint.weights / TOKEN_READING / batch,
                    LAYER_SECONDS * layers / batch)  # fmt: skip
        return once * (passes.forward + GRADIENT * passes.gradient) + token * passes.tokens

    def opening_seconds(self, rate: float) -> float:
        size = self.outline.footprint.weights
        proof = self.seconds(Passes(forward=OPENING_PASSES), rate, 1)
        return size / READING + size / HASHING + proof


@dataclass(frozen=True, order=True)
class Work:
    """What one method shows a model at once."""

    gradients: bool
    batch: int

    def within(self, most: int) -> "Work":
        return Work(self.gradients, min(self.batch, most))


@dataclass(frozen=True)
class Estimate:
    """What a request will take."""

    loads: tuple[Load, ...]
    works: tuple[Work, ...]
    """Of each method that shows examples to the model."""
    methods: int
    passes: Passes
    examples: int
    device: str
    free: int | None
    """Bytes; None where the system does not say, and for a model that may also lie on the disk."""
    rates: Mapping[torch.dtype, float]

    @property
    def weights(self) -> int:
        return sum(load.weights for load in self.loads)

    def working(self, most: int = MOST_BATCH) -> tuple[int, Work | None]:
        """Bytes beside the weights when at most so many examples are shown at once, and the work that takes them. The
        models work in turn, and so do the methods."""
        demands = [(work.batch * load.outline.footprint.working(load.length, gradients=work.gradients), work)
                   for load in self.loads for each in self.works for work in (each.within(most),)]  # fmt: skip
        return max(demands, default=(0, None))

    @property
    def batch(self) -> int:
        """The most examples that any method shows at once."""
        return max((work.batch for work in self.works), default=1)

    @property
    def fitting_batch(self) -> int:
        """How many examples at once fit, `batch` at most; 0 where not even one does."""
        room = None if self.free is None else self.free - self.weights
        if room is None or room >= self.working()[0]:
            return self.batch
        return max((most for most in range(1, self.batch) if self.working(most)[0] <= room), default=0)

    @property
    def seconds(self) -> float:
        """All of it, the models opened and the passes shared evenly among them."""
        count, batch, total = max(1, len(self.loads)), max(1, self.fitting_batch), 0.0
        for load in self.loads:
            rate = self.rates[load.outline.dtype]
            total += load.opening_seconds(rate) + load.seconds(self.passes, rate, batch) / count
        return total

    def check(self) -> None:
        """Refuse what cannot fit even one example at a time."""
        if self.loads and self.fitting_batch < 1 and self.free is not None:
            first, needed = self.loads[0], self.weights + self.working(1)[0]
            raise refusal(first.outline.name, needed, self.free, first.outline.dtype, self.device)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """What it is, parameters, memory."""
        for load in self.loads:
            parameters, itemsize = load.outline.footprint.parameters, load.outline.dtype.itemsize
            for part, count in parameters.items():
                yield f"{load.flag}: {part}", f"{count:,}", gibibytes(count * itemsize)
            if load.outline.merged:
                yield f"{load.flag}: merged adapter", "", gibibytes(load.outline.merged)
        size, work = self.working()
        if work is not None:
            longest, kind = max(load.length.tokens for load in self.loads), ", gradients" if work.gradients else ""
            yield f"work: {work.batch} x {longest:,} tokens{kind}", "", gibibytes(size)
        yield "together", *self.total()
        if self.free is not None:
            yield f"free on {self.device}", "", gibibytes(self.free)

    def total(self) -> tuple[str, str]:
        """Parameters and memory of all models and the work."""
        parameters = sum(sum(load.outline.footprint.parameters.values()) for load in self.loads)
        return f"{parameters:,}", gibibytes(self.weights + self.working()[0])

    def note(self) -> str:
        """Time, and what does not fit at once."""
        named = {load.outline.dtype for load in self.loads}
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in named))
        count = f"{counted(self.methods, 'method')}, {counted(self.examples, 'example')}"
        text = f"Time: about {duration(self.seconds)} on {self.device} in {kinds} ({count})."
        if self.loads and self.fitting_batch < self.batch:
            text += f" {self.batch} examples at once do not fit; batches shrink to about {self.fitting_batch}."
        return text


Tell = Callable[[Estimate], None]
Running = Callable[[frozenset[str]], Sequence[Method[Finding]]]
"""The methods that run when inputs of these flags are there."""


def checked_before(inputs: Sequence[Input], running: Running, tell: Tell | None) -> Before:
    """What `supply` calls before a model is opened: it shows what the work will take and refuses what cannot fit."""

    def before(request: Request, read: Mapping[str, Any]) -> None:
        estimate = preflight(request, running(supplied_flags(inputs, request, read)), inputs, read)
        if estimate is not None:
            if tell is not None and all(load.shown for load in estimate.loads):
                tell(estimate)
            estimate.check()

    return before


class _EnoughRead(Exception):
    """All that an estimate needs has been read, so no model is opened."""


def estimated(request: Request, inputs: Sequence[Input], running: Running) -> Estimate | None:
    """The estimate for a request, without opening a model."""
    estimates: list[Estimate] = []

    def before(request: Request, read: Mapping[str, Any]) -> None:
        estimate = preflight(request, running(supplied_flags(inputs, request, read)), inputs, read)
        estimates.extend([] if estimate is None else [estimate])
        raise _EnoughRead

    with suppress(_EnoughRead):
        supply(inputs, request, before=before)
    return next(iter(estimates), None)


def preflight(
    request: Request, methods: Sequence[Method[Finding]], inputs: Sequence[Input], values: Mapping[str, Any]
) -> Estimate | None:
    """Of what a request names as text. `values` hold what is read already, by flag; None where no model is named."""
    shown = [few for each in inputs if each.flag in values
             for value in each.values(values[each.flag]) for few in each.kind.shown(value)]  # fmt: skip
    shown = [few[: request.limit] for few in shown]
    organism = organism_of(inputs, request, request.inputs)
    shown += [organism.examples[: request.limit]] if organism is not None and not shown else []
    examples = max(map(len, shown), default=USUAL_EXAMPLES)
    loads = tuple(_loads(request, inputs, shown))
    if not loads:
        return None
    device = request.opening.device or "cpu"
    spread = device in SPREADING
    computing = ("cuda" if torch.cuda.is_available() else "cpu") if spread else device
    works = [Work(method.needs == "gradients", max(1, min(_batch(method, request), examples)))
             for method in methods if method.needs in ("activations", "gradients")]  # fmt: skip
    return Estimate(
        loads,
        tuple(works),
        len(methods),
        sum((method.passes.of(examples) for method in methods), Passes()),
        examples,
        device,
        None if spread else free_memory(device),
        {load.outline.dtype: multiplication_rate(computing, load.outline.dtype) for load in loads},
    )


def _loads(request: Request, inputs: Sequence[Input], shown: Sequence[Examples]) -> Iterator[Load]:
    for each in inputs:
        for text in request.inputs.get(each.flag, ()):
            outline = each.kind.outlined(text, opening_of(each, request.opening))
            if outline is not None:
                try:
                    lengths = [outline.length(few) for few in shown] or [USUAL]
                    yield Load(each.flag, outline, max(lengths, key=lambda length: (length.tokens, length.patches)))
                except BadInput:
                    yield Load(each.flag, outline, USUAL, shown=False)


def _batch(method: Method[Finding], request: Request) -> int:
    """How many examples the method shows at once."""
    chosen = request.options.get("batch_size")
    return chosen if isinstance(chosen, int) else getattr(method.options(), "batch_size", USUAL_BATCH)

"""Where in a model? An address, as a value whose Python text is its text form.

    language.heads[12, 3] @ "answer"      Site.parse("language.heads[12,3]@answer")

A site is `part.kind[layers,units]@span`. Layers and units are one number (`3`, `-1`), a few (`1+4+9`) or a range
(`0:12`, `:`); leaving them out means all. A span says which tokens:

- `all`     every token that is not padding (the default, not written)
- `image`   the tokens that stand for the image
- `text`    the others: the prompt, and the answer once there is one
- `last`    the last token before the answer, the one that predicts the answer's first
- `answer`  the answer: teacher-forced, or the tokens generated so far

A site knows nothing of any model. `Anatomy.locate` turns it into modules and refuses what the model does not have.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal, Self, cast, get_args

from glasshouse.values.errors import BadInput

Part = Literal["language", "vision", "projector"]
Span = Literal["all", "image", "text", "last", "answer"]

IN_BLOCKS = ("residual", "attention", "mlp", "heads", "neurons", "pattern")
"""Kinds that exist once per layer. `pattern` is the attention pattern: probabilities of queries over keys."""
WITH_UNITS = ("heads", "neurons", "pattern", "hidden")
"""Kinds that are made of units, so that `[layer, unit]` makes sense; `projector.hidden[:,5]`, which has no layers."""
KINDS: dict[Part, tuple[str, ...]] = {
    "language": ("embeddings", *IN_BLOCKS, "logits"),
    "vision": ("embeddings", *IN_BLOCKS, "features"),
    "projector": ("input", "hidden", "output"),
}


@dataclass(frozen=True, slots=True)
class Pick:
    """Which of several, in order: some by number, or a range. Negative numbers count from the end."""

    members: tuple[int, ...] = ()
    start: int | None = None
    stop: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        if self.step == 0:
            raise BadInput(f"a range of layers or units with step 0: {self}; leave the step out or make it 1 or more")

    @classmethod
    def of(cls, index: "Index") -> "Pick | None":
        """Read what stood between the brackets; a full range is `None`: all of them."""
        if index is None or isinstance(index, Pick):
            pick = index
        elif isinstance(index, slice):
            pick = cls(start=index.start, stop=index.stop, step=index.step)
        else:
            pick = cls(members=(index,) if isinstance(index, int) else tuple(index))
            if not pick.members:
                raise BadInput("an empty choice of layers or units: name at least one, for example [0] or [1+4]")
        return None if pick == cls() else pick

    @classmethod
    def parse(cls, text: str) -> "Pick | None":
        """`3`, `-1`, `1+4+9`, `0:12`, `:`, `::2`."""
        if ":" in text:
            start, stop, *step = (int(bound) if bound else None for bound in text.split(":"))
            if len(step) > 1:
                raise ValueError(f"{text} has more than start, stop and step")
            return cls.of(slice(start, stop, *step))
        return cls.of([int(member) for member in text.split("+")])

    def __str__(self) -> str:
        if self.members:
            return "+".join(map(str, self.members))
        start, stop, step = ("" if bound is None else str(bound) for bound in (self.start, self.stop, self.step))
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"

    def among(self, count: int, what: str) -> tuple[int, ...]:
        """The numbers meant when there are `count`. Never shrinks silently: a number that is not there is refused."""
        named = [(number, count) for number in (*self.members, self.start)]
        for number, past in (*named, (self.stop, count + 1)):  # a range may end one past the last
            if number is not None and not -count <= number < past:
                raise BadInput(f"{what} {number}: there are {count} (0-{count - 1})")
        if self.members:
            return tuple(member % count for member in self.members)
        chosen = tuple(range(count)[slice(self.start, self.stop, self.step)])
        if not chosen:
            raise BadInput(f"{what} {self}: this range is empty, there are {count} (0-{count - 1})")
        return chosen


Index = int | slice | list[int] | tuple[int, ...] | Pick | None

_FORM = re.compile(r"(?P<part>\w+)\.(?P<kind>\w+)(\[(?P<layers>[^],]*)(,(?P<units>[^],]*))?\])?(@(?P<span>\w+))?")


@dataclass(frozen=True, slots=True)
class Site:
    """An address inside a model: `part.kind[layers,units]@span`."""

    part: Part
    kind: str
    layers: Pick | None = None
    units: Pick | None = None
    span: Span = "all"

    def __post_init__(self) -> None:
        _check_names(self.part, self.kind, self.span)
        if self.layers is not None and self.kind not in IN_BLOCKS:
            raise BadInput(f"{self}: {self.part}.{self.kind} exists once, so it takes no layer")
        if self.units is not None and self.kind not in WITH_UNITS:
            raise BadInput(f"{self}: {self.kind} has no units; only {', '.join(WITH_UNITS)} take [layer,unit]")
        if self.span != "all" and self.part != "language":
            raise BadInput(f"{self}: spans tell tokens of the prompt apart; in {self.part} every token is of an image")

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read the text form. `Site.parse(str(site)) == site`."""
        match = _FORM.fullmatch(re.sub(r"\s*([][.,:+@])\s*", r"\1", text.strip()))
        if match is None:
            raise BadInput(
                f"{text!r} is not a site; write part.kind[layers,units]@span, like language.heads[12,3]@last"
            )
        try:
            layers, units = (None if pick is None else Pick.parse(pick) for pick in (match["layers"], match["units"]))
        except ValueError:
            raise BadInput(f"{text!r}: layers and units are numbers, sums or ranges, like 3, 1+4+9 or 0:12") from None
        part, kind, span = match["part"], match["kind"], match["span"] or "all"
        _check_names(part, kind, span)
        return cls(cast(Part, part), kind, layers, units, cast(Span, span))

    def __str__(self) -> str:
        inside = f"{self.layers or ':'},{self.units}" if self.units else f"{self.layers or ''}"
        return (
            f"{self.part}.{self.kind}{f'[{inside}]' if inside else ''}{'' if self.span == 'all' else '@' + self.span}"
        )

    def __getitem__(self, index: Index | tuple[Index, Index]) -> Self:
        if isinstance(index, tuple) and len(index) != 2:
            raise BadInput(
                f"{self}{list(index)}: write [layers, units], and several of either as a list, like [[1, 4], 3]"
            )
        layers, units = index if isinstance(index, tuple) else (index, None)
        return replace(self, layers=Pick.of(layers), units=Pick.of(units))

    def __matmul__(self, span: Span) -> Self:
        return replace(self, span=span)

    @property
    def layer(self) -> int:
        """The one layer of a site that names just one; what a located site always has."""
        assert self.layers is not None, f"{self} does not name one layer"
        assert len(self.layers.members) == 1, f"{self} does not name one layer"
        return self.layers.members[0]


def _check_names(part: str, kind: str, span: str) -> None:
    """Words a user wrote, before they pass for a part and a span."""
    if part not in KINDS:
        raise BadInput(f"{part}.{kind}: no part is called {part}; parts are {', '.join(KINDS)}")
    kinds = KINDS[part]
    if kind not in kinds:
        raise BadInput(f"{part}.{kind}: {part} has {', '.join(kinds)}")
    if span not in get_args(Span):
        raise BadInput(f"{part}.{kind}@{span}: no span is called {span}; spans are {', '.join(get_args(Span))}")


class language:  # noqa: N801 - so that the Python text of a site is its text form
    """Sites of the language model."""

    embeddings = Site("language", "embeddings")
    """What enters the first block: the prompt's embeddings with the image's already among them."""
    residual = Site("language", "residual")
    """The residual stream after each block, before the final norm."""
    attention = Site("language", "attention")
    """What each attention module returns."""
    mlp = Site("language", "mlp")
    """What each MLP (or mixture of experts) returns."""
    heads = Site("language", "heads")
    """What each query head brings to the output projection."""
    neurons = Site("language", "neurons")
    """What each MLP neuron brings to the MLP's last projection."""
    pattern = Site("language", "pattern")
    """Attention probabilities of queries (the span) over keys, per query head."""
    logits = Site("language", "logits")
    """What the unembedding returns."""


class vision:  # noqa: N801
    """Sites of the vision encoder."""

    embeddings = Site("vision", "embeddings")
    """Patch embeddings: what enters the first block."""
    residual = Site("vision", "residual")
    attention = Site("vision", "attention")
    mlp = Site("vision", "mlp")
    heads = Site("vision", "heads")
    neurons = Site("vision", "neurons")
    pattern = Site("vision", "pattern")
    features = Site("vision", "features")
    """What the encoder hands on: to the projector where there is one, otherwise to the user."""


class projector:  # noqa: N801
    """Sites of what connects the two."""

    input = Site("projector", "input")
    hidden = Site("projector", "hidden")
    """What the projector's last linear layer reads."""
    output = Site("projector", "output")

"""Where in a model? An address, as a value whose Python text is its text form.

    language.heads[12, 3] @ "answer"      Site.parse("language.heads[12,3]@answer")

A site is `part.kind[layers,units]@span`. Layers and units are one number (`3`, `-1`), several (`1+4+9`) or a range
(`0:12`, `:`); leaving them out means all. The span is an address among tokens (`values/tokens.py`): a word such as
`image` or `last`, positions, an image region, a phrase, or a mask per example; leaving it out means all.

A site knows nothing of any model. `Anatomy.locate` turns it into modules and refuses what the model does not have.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

from glasshouse.values.errors import BadInput
from glasshouse.values.picks import Index, Pick
from glasshouse.values.token_text import as_tokens, parse_tokens
from glasshouse.values.tokens import ALL, Tokens

Part = Literal["language", "vision", "projector"]

IN_BLOCKS = ("residual", "attention", "mlp", "heads", "neurons", "pattern")
"""Kinds that exist once per layer. `pattern` is the attention pattern: probabilities of queries over keys."""
WITH_UNITS = ("heads", "neurons", "pattern", "hidden")
"""Kinds that are made of units, so that `[layer, unit]` makes sense; `projector.hidden[:,5]`, which has no layers."""
KINDS: dict[Part, tuple[str, ...]] = {
    "language": ("embeddings", *IN_BLOCKS, "logits"),
    "vision": ("embeddings", *IN_BLOCKS, "features"),
    "projector": ("input", "hidden", "output"),
}


_FORM = re.compile(r"(?P<part>\w+)\.(?P<kind>\w+)(\[(?P<layers>[^],]*)(,(?P<units>[^],]*))?\])?")


@dataclass(frozen=True, slots=True)
class Site:
    """An address inside a model: `part.kind[layers,units]@span`."""

    part: Part
    kind: str
    layers: Pick | None = None
    """Which layers; None for all. A number, a list or a slice becomes a Pick."""
    units: Pick | None = None
    span: Tokens = ALL

    def __post_init__(self) -> None:
        """Numbers, ranges and text become addresses, so that `Site("language", "residual", 1)` is a site too."""
        _check_names(self.part, self.kind)
        object.__setattr__(self, "layers", Pick.of(self.layers))
        object.__setattr__(self, "units", Pick.of(self.units))
        object.__setattr__(self, "span", as_tokens(self.span))
        if self.layers is not None and self.kind not in IN_BLOCKS:
            raise BadInput(f"{self}: {self.part}.{self.kind} exists once, so it takes no layer")
        if self.units is not None and self.kind not in WITH_UNITS:
            raise BadInput(f"{self}: {self.kind} has no units; only {', '.join(WITH_UNITS)} take [layer,unit]")
        if self.span != ALL and self.part != "language":
            raise BadInput(f"{self}: spans tell tokens of the prompt apart; in {self.part} every token is of an image")

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read the text form. `Site.parse(str(site)) == site`."""
        address, at, span = text.partition("@")
        match = _FORM.fullmatch(re.sub(r"\s*([][.,:+])\s*", r"\1", address.strip()))
        if match is None or (at and not span.strip()):
            raise BadInput(
                f"{text!r} is not a site; write part.kind[layers,units]@span, like language.heads[12,3]@last"
            )
        try:
            layers, units = (None if pick is None else Pick.parse(pick) for pick in (match["layers"], match["units"]))
        except ValueError:
            raise BadInput(f"{text!r}: layers and units are numbers, sums or ranges, like 3, 1+4+9 or 0:12") from None
        part, kind = match["part"], match["kind"]
        _check_names(part, kind)
        return cls(cast(Part, part), kind, layers, units, parse_tokens(span.strip()) if at else ALL)

    def __str__(self) -> str:
        inside = f"{self.layers or ':'},{self.units}" if self.units else f"{self.layers or ''}"
        span = "" if self.span == ALL else f"@{self.span}"
        return f"{self.part}.{self.kind}{f'[{inside}]' if inside else ''}{span}"

    def __getitem__(self, index: Index | tuple[Index, Index]) -> Self:
        if isinstance(index, tuple) and len(index) != 2:
            raise BadInput(
                f"{self}{list(index)}: write [layers, units], and several of either as a list, like [[1, 4], 3]"
            )
        layers, units = index if isinstance(index, tuple) else (index, None)
        return replace(self, layers=Pick.of(layers), units=Pick.of(units))

    def __matmul__(self, span: Tokens | str | int) -> Self:
        return replace(self, span=as_tokens(span))

    @property
    def layer(self) -> int:
        """The one layer of a site that names just one; what a located site always has."""
        assert self.layers is not None, f"{self} does not name one layer"
        assert len(self.layers.members) == 1, f"{self} does not name one layer"
        return self.layers.members[0]


def _check_names(part: str, kind: str) -> None:
    """Refuse words that name no part, or no kind of it."""
    if part not in KINDS:
        raise BadInput(f"{part}.{kind}: no part is called {part}; parts are {', '.join(KINDS)}")
    kinds = KINDS[part]
    if kind not in kinds:
        raise BadInput(f"{part}.{kind}: {part} has {', '.join(kinds)}")


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

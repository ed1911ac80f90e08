"""What is where in this model? Parts and blocks by module path, and where each kind of site lies.

An Anatomy is a frozen value: it holds paths and sizes, never modules, so it is the same for a model on the meta
device and one that is loaded, and it travels with every run. `model/finder.py` makes it, `model/proof.py` proves
it. An absent part is `None`.

Every site reduces to a `Location`: a module, its input or its output, and an optional view of the last axis as units.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from glasshouse.values.errors import BadInput
from glasshouse.values.picks import Pick
from glasshouse.values.sites import IN_BLOCKS, WITH_UNITS, Part, Site


@dataclass(frozen=True)
class Layer:
    """One layer, and the two that write to its residual stream. What a layer lacks is None (hybrids differ layer by
    layer)."""

    path: str
    attention: str | None = None
    attention_writer: str | None = None
    heads: int | None = None
    head_width: int | None = None
    mlp: str | None = None
    mlp_writer: str | None = None
    neurons: int | None = None


@dataclass(frozen=True)
class Tower:
    """The language model or the vision encoder."""

    path: str
    kind: str
    width: int
    layers: tuple[Layer, ...]
    final_norm: str | None = None
    unembedding: str | None = None

    def at(self, depth: float) -> int:
        """The layer at a share of the depth: 0 is the first, 1 the last."""
        if not 0 <= depth <= 1:
            raise BadInput(f"a relative depth lies between 0 and 1, got {depth}")
        return round(depth * (len(self.layers) - 1))


@dataclass(frozen=True)
class Projector:
    """What connects the two: its modules in order of use, and its linear layers."""

    paths: tuple[str, ...]
    linears: tuple[str, ...]
    hidden: int | None = None
    """How many neurons the last linear layer reads, where there is one before it."""
    mixes: bool = False
    """It has attention of its own (a Q-Former, a resampler), so no output token stands for one part of the image."""


@dataclass(frozen=True)
class Location:
    """Where one site lies: which side of which module, and how the last axis splits into units."""

    site: Site
    module: str
    side: Literal["input", "output"]
    units: int | None = None
    """How many units the last axis holds; None when the site is not made of units."""
    width: int | None = None
    """Width of one unit; 1 for neurons, whose axis is then not split."""
    chosen: tuple[int, ...] | None = None
    """Which units; None for all."""

    @property
    def packed(self) -> bool:
        """True on the image side, where the first axis need not be the rows of the batch."""
        return self.site.part != "language"


@dataclass(frozen=True)
class Anatomy:
    """Parts, blocks and sizes of one model."""

    family: str
    language: Tower | None = None
    vision: Tower | None = None
    projector: Projector | None = None
    feature_layer: int | None = None
    """The vision layer whose residual is read; later blocks may run, but nothing looks at them."""
    image_token: int | None = None
    """The id that stands for the image in the prompt."""
    answer_token_type: int = 0
    """What `token_type_ids` say of an answer's tokens, in families that have them."""
    notes: tuple[str, ...] = ()

    def tower(self, part: Part) -> Tower:
        """The tower of that part, or a refusal that names the fix."""
        tower = self.language if part == "language" else self.vision if part == "vision" else None
        if tower is None:
            raise BadInput(
                f"{part}: this model ({self.family}) has none; it has {', '.join(self.parts) or 'no known part'}"
            )
        return tower

    @property
    def parts(self) -> tuple[Part, ...]:
        parts: tuple[Part, ...] = ("language", "vision", "projector")
        return tuple(part for part in parts if getattr(self, part) is not None)

    def locate(self, site: Site) -> tuple[Location, ...]:
        """Where the site lies: one location per layer it names, all of them checked."""
        if site.part == "projector":
            return (self._locate_projector(site),)
        tower = self.tower(site.part)
        if site.kind in IN_BLOCKS:
            if not tower.layers:
                raise BadInput(f"{site}: no list of blocks was found in {tower.path} ({tower.kind}); see its notes")
            try:
                layers = (site.layers or Pick.of(slice(0, None)) or Pick(start=0)).among(len(tower.layers), "layer")
            except BadInput as problem:
                raise BadInput(f"{site}: {problem}; see glasshouse anatomy") from None
            named = site.layers is not None and bool(site.layers.members)
            locations = tuple(self._locate_in_block(site, tower, layer, named) for layer in layers)
            found = tuple(location for location in locations if location is not None)
            if not found:
                raise BadInput(f"{site}: no layer of {site.part} has {site.kind}")
            return found
        return (self._locate_once(site, tower),)

    def sites(self, site: Site) -> tuple[Site, ...]:
        """The concrete sites meant: one layer each, numbers from 0."""
        return tuple(location.site for location in self.locate(site))

    def _locate_projector(self, site: Site) -> Location:
        if self.projector is None:
            raise BadInput(f"{site}: this model ({self.family}) has no projector; it has {', '.join(self.parts)}")
        if site.kind == "hidden":
            if len(self.projector.linears) < 2:
                raise BadInput(
                    f"{site}: this projector has {len(self.projector.linears)} linear layer, so nothing hidden"
                )
            units = self.projector.hidden
            return Location(site, self.projector.linears[-1], "input", units, 1, _chosen(site, units))
        first = site.kind == "input"
        return Location(site, self.projector.paths[0 if first else -1], "input" if first else "output")

    def _locate_once(self, site: Site, tower: Tower) -> Location:
        match site.kind:
            case "embeddings" if tower.layers:
                return Location(site, tower.layers[0].path, "input")
            case "logits" if tower.unembedding:
                return Location(site, tower.unembedding, "output")
            case "features" if self.projector:
                return Location(site, self.projector.paths[0], "input")
            case "features" if tower.final_norm:
                return Location(site, tower.final_norm, "output")
            case "features" if tower.layers:
                return Location(site, tower.layers[-1].path, "output")
            case _:
                raise BadInput(f"{site}: {tower.kind} has no {site.kind}")

    def _locate_in_block(self, site: Site, tower: Tower, layer: int, named: bool) -> Location | None:
        block = tower.layers[layer]
        site = replace(site, layers=Pick(members=(layer,)))
        where = {
            "residual": (block.path, "output"),
            "attention": (block.attention, "output"),
            "mlp": (block.mlp, "output"),
            "heads": (block.attention_writer if block.heads else None, "input"),
            "neurons": (block.mlp_writer, "input"),
            "pattern": (block.attention if block.heads else None, "output"),
        }[site.kind]
        module, side = where
        if module is None:
            if named:
                raise BadInput(
                    f"{site}: layer {layer} of {site.part} ({block.path}) has no {site.kind}; see glasshouse anatomy"
                )
            return None
        units = {"heads": block.heads, "neurons": block.neurons, "pattern": block.heads}.get(site.kind)
        width = {"heads": block.head_width, "neurons": 1, "pattern": 1}.get(site.kind)
        return Location(site, module, "output" if side == "output" else "input", units, width, _chosen(site, units))

    def lines(self) -> Iterator[str]:
        """The drawing, a line each."""
        yield f"{self.family}"
        for part in ("vision", "projector", "language"):
            if part == "projector":
                yield f"  projector  {_projector_line(self.projector)}"
            else:
                yield f"  {part:<9}  {_tower_line(self.vision if part == 'vision' else self.language)}"
        if self.feature_layer is not None and self.vision is not None:
            idle = len(self.vision.layers) - 1 - self.feature_layer
            unread = f"; {idle} block{'s' if idle > 1 else ''} after it run, but nothing reads them" if idle else ""
            yield f"  features are read after vision.residual[{self.feature_layer}]{unread}"
        yield from (f"  note: {note}" for note in self.notes)


def _chosen(site: Site, units: int | None) -> tuple[int, ...] | None:
    """The units a site names, out of how many there are."""
    if site.units is None or site.kind not in WITH_UNITS or units is None:
        return None
    try:
        return site.units.among(units, site.kind.removesuffix("s"))
    except BadInput as problem:
        raise BadInput(f"{site}: {problem}; see glasshouse anatomy") from None


def _projector_line(projector: Projector | None) -> str:
    if projector is None:
        return "none"
    return f"{' → '.join(projector.paths)} ({len(projector.linears)} linear)"


def _tower_line(tower: Tower | None) -> str:
    if tower is None:
        return "none"
    heads = sorted({(b.heads, b.head_width) for b in tower.layers if b.heads and b.head_width})
    neurons = sorted({b.neurons for b in tower.layers if b.neurons})
    facts = [f"{len(tower.layers)} blocks", f"width {tower.width}"]
    facts += ["heads " + ", ".join(f"{count}x{width}" for count, width in heads)] if heads else []
    facts += ["neurons " + ", ".join(map(str, neurons))] if neurons else []
    return f"{tower.path or 'the model itself'} ({tower.kind}): {', '.join(facts)}"

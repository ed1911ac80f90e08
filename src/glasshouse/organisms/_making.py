"""How is a relative made of a model that is left alone? Drafts of its weights, a patch, a copy that is proved again.

    drafts = Drafts(subject)                      # copies, in double precision, of whatever is asked for
    for layer in read_layers(subject):
        drafts.outputs(layer.up, scaled(c))       # what a linear layer writes: rows of its weight, and its bias
        drafts.inputs(layer.down, scaled(1 / c))  # what it reads: columns of its weight
    opened(copied(subject, drafts.patch()), subject, name)

Only blocks of the Llama type are read (`PARTS`); any other is refused with what it lacks. Drafts are as large as the
model in double precision, in the CPU's memory: this is for organisms, not for billions of weights.
"""

import copy
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from glasshouse.data.examples import Example
from glasshouse.data.images import StoredImage
from glasshouse.model.finder import unwrapped
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.values.deltas import Patch, Whole
from glasshouse.values.errors import BadInput

Change = Callable[[Tensor], Tensor]
"""A new tensor from an old one, along its first axis; so that it fits a weight's rows and a bias alike."""

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
PARTS = (*ATTENTION, *MLP, *NORMS)
"""What a block of the Llama type is made of."""

SAME = 1e-4
"""Logits that differ by less than this share of the largest are the same but for rounding in float32."""


@dataclass(frozen=True)
class Layer:
    """One block of the Llama type: its parts by path, and its units."""

    query: str
    key: str
    value: str
    output: str
    gate: str
    up: str
    down: str
    attention_norm: str
    mlp_norm: str
    heads: int
    groups: int
    """Of heads that share a key and a value."""
    neurons: int

    @property
    def linears(self) -> tuple[str, ...]:
        return (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)


@dataclass(frozen=True)
class Ends:
    """What writes to the language tower's stream before its first block, and what reads it after the last."""

    embedding: str
    projection: str | None
    """The projector's last linear layer; None where there is no projector."""
    final_norm: str
    unembedding: str


def read_layers(subject: Subject) -> tuple[Layer, ...]:
    """The language tower's blocks, or what they lack to be read."""
    modules = dict(unwrapped(subject.model).named_modules())
    layers: list[Layer] = []
    for block in subject.anatomy.tower("language").layers:
        owners = [*[block.attention] * len(ATTENTION), *[block.mlp] * len(MLP), *[block.path] * len(NORMS)]
        paths = [f"{owner}.{name}" for owner, name in zip(owners, PARTS, strict=True)]
        missing = [name for name, path in zip(PARTS, paths, strict=True) if path not in modules]
        if missing or not block.heads or not block.head_width or not block.neurons:
            raise BadInput(
                f"{subject.name}: its relatives need blocks of the Llama type; {block.path} has no "
                f"{', '.join(missing) or 'number of heads'}"
            )
        sizes = [_plain(subject, path, modules).out_features for path in paths[: -len(NORMS)]]
        groups = sizes[1] // block.head_width
        if sizes[1:3] != [groups * block.head_width] * 2 or not groups or block.heads % groups:
            raise BadInput(f"{subject.name}: {block.attention} has no groups of heads with one key and one value each")
        layers.append(Layer(*paths, heads=block.heads, groups=groups, neurons=block.neurons))
    return tuple(layers)


def read_ends(subject: Subject) -> Ends:
    """Where the stream begins and ends, or what is missing there."""
    model, projector, tower = unwrapped(subject.model), subject.anatomy.projector, subject.anatomy.tower("language")
    modules = dict(model.named_modules())
    embeddings = model.get_input_embeddings()
    embedding = next((path for path, module in modules.items() if module is embeddings), None)
    if embedding is None or tower.final_norm is None or tower.unembedding is None:
        found = {"input embeddings": embedding, "final norm": tower.final_norm, "output embeddings": tower.unembedding}
        missing = ", ".join(name for name, path in found.items() if path is None)
        raise BadInput(f"{subject.name}: its language tower has no {missing}, which would turn with its stream")
    if modules[embedding].weight is modules[tower.unembedding].weight:
        raise BadInput(
            f"{subject.name}: {embedding} and {tower.unembedding} are one tied weight, but the final norm's gain goes "
            f"into the second alone; set tie_word_embeddings=False and give {tower.unembedding} a copy of its own"
        )
    projection = (projector.linears or projector.paths)[-1] if projector is not None else None
    if projection is not None and (writes := _plain(subject, projection, modules).out_features) != tower.width:
        raise BadInput(f"{subject.name}: {projection} writes {writes} numbers, the language's stream has {tower.width}")
    return Ends(embedding, projection, tower.final_norm, tower.unembedding)


def _plain(subject: Subject, path: str, modules: Mapping[str, nn.Module]) -> nn.Linear:
    module = modules[path]
    if isinstance(module, nn.Linear) and module.weight.is_floating_point() and not module.weight.is_meta:
        return module
    raise BadInput(
        f"{subject.name}: {path} is no plain linear layer ({type(module).__name__}); open the model whole, unquantised "
        "and with its adapter merged"
    )


def language_weights(subject: Subject) -> dict[str, str]:
    """All weights of the language tower and its unembedding: by their place in it, the name in the model."""
    tower = subject.anatomy.tower("language")
    inside = f"{tower.path}." if tower.path else ""
    head = f"{tower.unembedding}." if tower.unembedding else None
    named = [name for name, _ in unwrapped(subject.model).named_parameters()]
    heads = {f"unembedding.{name.removeprefix(head)}": name for name in named if head and name.startswith(head)}
    others = {name.removeprefix(inside): name for name in named if name.startswith(inside)}
    return heads | {place: name for place, name in others.items() if name not in heads.values()}


class Drafts:
    """Copies of the weights of a subject that is left alone; what was written to them becomes a patch."""

    def __init__(self, subject: Subject) -> None:
        self._own = dict(unwrapped(subject.model).named_parameters(remove_duplicate=False))
        self._written: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        """The weight as it stands now; not to be written to in place."""
        if name in self._written:
            return self._written[name]
        return self._own[name].detach().to("cpu", torch.float64, copy=True)

    def __setitem__(self, name: str, values: Tensor) -> None:
        self._written[name] = values

    def outputs(self, linear: str, change: Change) -> None:
        """Change what a linear layer writes."""
        for name in (f"{linear}.weight", f"{linear}.bias"):
            if name in self._own:
                self[name] = change(self[name])

    def inputs(self, linear: str, change: Change) -> None:
        """Change what a linear layer reads; or what an embedding writes, which is the same axis."""
        self[f"{linear}.weight"] = change(self[f"{linear}.weight"].T).T

    def fold(self, norm: str, *readers: str) -> None:
        """Put a norm's gain into the layers that read it; the gain becomes 1. A norm without one is left as it is."""
        if f"{norm}.weight" not in self._own:
            return
        gain = self[f"{norm}.weight"]
        for reader in readers:
            self.inputs(reader, scaled(gain))
        self[f"{norm}.weight"] = torch.ones_like(gain)

    def shapes(self, names: Mapping[str, str]) -> set[tuple[str, tuple[int, ...]]]:
        """The shape of each of these weights, with the key it is known by."""
        return {(key, tuple(self._own[name].shape)) for key, name in names.items()}

    def patch(self) -> Patch:
        """What was written, in the weights' own type."""
        return Patch({name: Whole(new.to(self._own[name].dtype).contiguous()) for name, new in self._written.items()})


def permuted(order: Int[Tensor, " units"]) -> Change:
    """Units in another order; a unit is as many entries as the axis has for each."""
    return lambda rows: rows.unflatten(0, (len(order), -1))[order].flatten(0, 1)


def scaled(factors: Float[Tensor, " units"]) -> Change:
    """Each unit times its factor."""
    return lambda rows: torch.einsum("u,u...->u...", factors, rows.unflatten(0, (len(factors), -1))).flatten(0, 1)


def turned(width: int, seed: int) -> Change:
    """The whole axis rotated by a random orthogonal matrix, any as likely as any other."""
    basis, triangle = torch.linalg.qr(torch.randn(width, width, generator=seeded(seed), dtype=torch.float64))
    rotation = basis * triangle.diagonal().sign()  # without the signs, how QR is computed would decide
    return lambda rows: rotation @ rows


def sizes(rows: Tensor, units: int) -> Float[Tensor, " units"]:
    """The norm of each unit's share of a matrix: units lie along the first axis."""
    return rows.unflatten(0, (units, -1)).flatten(1).norm(dim=1)


def without_least(matter: Float[Tensor, " units"], dropped: int) -> Float[Tensor, " units"]:
    """A factor for each unit: 0 for those that matter least, 1 for the others."""
    return torch.ones_like(matter).index_fill(0, matter.argsort(stable=True)[:dropped], 0)


def copied(subject: Subject, patch: Patch | None = None) -> PreTrainedModel:
    """A copy of the model, with the patch for good. It is copied while it is patched, so the patch is checked."""
    with subject.alone:
        if subject.changes:
            raise BadInput(f"{subject.name}: a plan or a patch is at work in it; leave that before deriving a relative")
        with patched(subject, patch or Patch({})):
            return copy.deepcopy(subject.model)


def fresh(subject: Subject, seed: int) -> PreTrainedModel:
    """A model of the same architecture, initialised as transformers does it."""
    base = unwrapped(subject.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights are drawn from the global state; it is put back afterwards
        model = type(base)(copy.deepcopy(base.config))
    model.generation_config = copy.deepcopy(base.generation_config)
    return model.to(device=base.device, dtype=base.dtype)  # pyright: ignore[reportCallIssue]


def opened(model: PreTrainedModel, subject: Subject, name: str) -> Subject:
    """The model as a subject of its own, asked the way the given one is asked, and proved."""
    relative = open_subject(model, processor=subject.prompts.given, unproved=True)
    relative.name = name
    if relative.certificate is not None and relative.certificate.failures:
        failures = "; ".join(relative.certificate.failures)
        raise BadInput(f"{name}: what became of {subject.name} cannot be proved ({failures}); change it less")
    return relative


@torch.no_grad()
def check_same(subject: Subject, relative: Subject) -> None:
    """Refuse a relative that was to say the same as the subject and does not, on one picture and a question."""
    if subject.processor is None:
        return  # opened without a processor, so that nothing is proved
    slope, rings = Image.linear_gradient("L"), Image.radial_gradient("L")
    file = io.BytesIO()
    Image.merge("RGB", (slope, rings, slope.rotate(90))).resize((64, 64)).save(file, "PNG")
    images = (StoredImage(data=file.getvalue()),) if subject.anatomy.vision is not None else ()
    encoded = subject.encode([Example("what is in this picture ?", images, id="synthetic")])
    before, after = subject.logits(encoded), relative.logits(encoded)
    apart = float((after - before).abs().max() / before.abs().max())
    if not apart <= SAME:
        cure = "" if subject.model.dtype == torch.float32 else ", or their weights are too coarse; open it in float32"
        raise BadInput(
            f"{relative.name}: does not say what {subject.name} says (logits differ by {apart:.1g} of the largest), so "
            f"its blocks are not quite of the Llama type{cure}"
        )


@dataclass(frozen=True)
class Relation:
    """How one model comes from another."""

    preserves: ClassVar[bool] = False
    """Whether the relative says the same as the model it comes from."""

    @classmethod
    def word(cls) -> str:
        """The relation's name: fine-tuned, pruned, ..."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def __str__(self) -> str:
        return f"{self.word()}({','.join(json.dumps(getattr(self, field.name)) for field in fields(self))})"


def require(holds: bool, relation: Relation, otherwise: str) -> None:
    if not holds:
        raise BadInput(f"{relation}: {otherwise}")


@dataclass(frozen=True)
class Derived(Relation):
    """A relative that comes from one model by a patch of its weights."""

    def patch_for(self, subject: Subject) -> Patch:
        """What makes this subject its relative."""
        raise NotImplementedError

    def of(self, subject: Subject) -> Subject:
        """The relative, opened and proved."""
        relative = opened(copied(subject, self.patch_for(subject)), subject, f"{subject.name}~{self}")
        if self.preserves:
            check_same(subject, relative)
        return relative

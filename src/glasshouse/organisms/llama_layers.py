"""Where are the parts of a decoder of the Llama type, which relatives change? By path, for every layer and both ends.

Layers of any other type are refused with the parts they lack.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from glasshouse.model.finder import unwrapped
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
PARTS = (*ATTENTION, *MLP, *NORMS)
"""The parts of a layer of the Llama type."""


@dataclass(frozen=True)
class LlamaLayer:
    """One layer of the Llama type: its parts by path, and its numbers of heads and neurons."""

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
    """Groups of heads that share a key and a value."""
    neurons: int

    @property
    def linears(self) -> tuple[str, ...]:
        return (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)


@dataclass(frozen=True)
class StreamEnds:
    """What writes to the language tower's residual stream before its first layer, and reads it after the last."""

    embedding: str
    projection: str | None
    """The projector's last linear layer; None where there is no projector."""
    final_norm: str
    unembedding: str


def read_layers(subject: Subject) -> tuple[LlamaLayer, ...]:
    """The language tower's layers; a refusal names the parts they lack."""
    modules = dict(unwrapped(subject.model).named_modules())
    layers: list[LlamaLayer] = []
    for block in subject.anatomy.tower("language").layers:
        owners = [*[block.attention] * len(ATTENTION), *[block.mlp] * len(MLP), *[block.path] * len(NORMS)]
        paths = [f"{owner}.{name}" for owner, name in zip(owners, PARTS, strict=True)]
        missing = [name for name, path in zip(PARTS, paths, strict=True) if path not in modules]
        if missing or not block.heads or not block.head_width or not block.neurons:
            raise BadInput(
                f"{subject.name}: its relatives need layers of the Llama type; {block.path} has no "
                f"{', '.join(missing) or 'number of heads'}"
            )
        sizes = [_plain(subject, path, modules).out_features for path in paths[: -len(NORMS)]]
        groups = sizes[1] // block.head_width
        if sizes[1:3] != [groups * block.head_width] * 2 or not groups or block.heads % groups:
            raise BadInput(f"{subject.name}: {block.attention} has no groups of heads with one key and one value each")
        layers.append(LlamaLayer(*paths, heads=block.heads, groups=groups, neurons=block.neurons))
    return tuple(layers)


def read_ends(subject: Subject) -> StreamEnds:
    """Where the residual stream begins and ends; a refusal names what is missing."""
    model, projector, tower = unwrapped(subject.model), subject.anatomy.projector, subject.anatomy.tower("language")
    modules = dict(model.named_modules())
    embeddings = model.get_input_embeddings()
    embedding = next((path for path, module in modules.items() if module is embeddings), None)
    if embedding is None or tower.final_norm is None or tower.unembedding is None:
        ends = {"input embeddings": embedding, "final norm": tower.final_norm, "output embeddings": tower.unembedding}
        missing = ", ".join(name for name, path in ends.items() if path is None)
        raise BadInput(f"{subject.name}: its language tower has no {missing}, which a rotation of its stream needs")
    if modules[embedding].weight is modules[tower.unembedding].weight:
        raise BadInput(
            f"{subject.name}: {embedding} and {tower.unembedding} are one tied weight, but the final norm's gain goes "
            f"into the second alone; set tie_word_embeddings=False and give {tower.unembedding} a copy of its own"
        )
    projection = (projector.linears or projector.paths)[-1] if projector is not None else None
    if projection is not None and (writes := _plain(subject, projection, modules).out_features) != tower.width:
        raise BadInput(f"{subject.name}: {projection} writes {writes} numbers, the language's stream has {tower.width}")
    return StreamEnds(embedding, projection, tower.final_norm, tower.unembedding)


def _plain(subject: Subject, path: str, modules: Mapping[str, nn.Module]) -> nn.Linear:
    module = modules[path]
    if isinstance(module, nn.Linear) and module.weight.is_floating_point() and not module.weight.is_meta:
        return module
    raise BadInput(
        f"{subject.name}: {path} is no plain linear layer ({type(module).__name__}); open the model whole, unquantised "
        "and with its adapter merged"
    )


def language_weights(subject: Subject) -> dict[str, str]:
    """The names of all weights of the language tower and its unembedding, by their path inside the tower."""
    tower = subject.anatomy.tower("language")
    inside = f"{tower.path}." if tower.path else ""
    head = f"{tower.unembedding}." if tower.unembedding else None
    named = [name for name, _ in unwrapped(subject.model).named_parameters()]
    heads = {f"unembedding.{name.removeprefix(head)}": name for name in named if head and name.startswith(head)}
    others = {name.removeprefix(inside): name for name in named if name.startswith(inside)}
    return heads | {place: name for place, name in others.items() if name not in heads.values()}

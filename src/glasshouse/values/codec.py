"""How does a frozen value get to disk and back, typed, without pickle?

`pack` turns a dataclass into a JSON tree and the tensors it holds; `unpack` builds it again from the annotations and
refuses what they do not allow: unknown fields, missing fields, wrong types. Dataclasses carry their class name, so a
field annotated with a base class (a `Block`, an `Edit`) gets its real class back; a file can name only subclasses of
the annotation, so it cannot make us build anything else. Metadata in `Annotated` is ignored. `digest` identifies a
value by its content.
"""

import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import torch
from jaxtyping import AbstractArray
from torch import Tensor

from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site
from glasshouse.values.token_text import parse_tokens
from glasshouse.values.tokens import Tokens

T = TypeVar("T")
Tree = Any
"""A JSON value."""
_NOT_FINITE: tuple[Tree, ...] = ({"number": "nan"}, {"number": "inf"}, {"number": "-inf"})


def pack(value: object) -> tuple[Tree, dict[str, Tensor]]:
    """The value as JSON, and its tensors, which the tree refers to by number."""
    tensors: dict[str, Tensor] = {}
    return _pack(value, tensors), tensors


def _pack(value: object, tensors: dict[str, Tensor]) -> Tree:
    match value:
        case Tensor():
            name = str(len(tensors))
            # A clone of its own: safetensors refuses tensors that share memory.
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name}
        case Site() | Tokens():
            return str(value)
        case Enum():
            return value.value
        case float() if not math.isfinite(value):
            return {"number": str(value)}  # JSON lacks them, and a plain string could be a string field
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            entries = cast(Mapping[object, object], value).items()
            return {str(_pack(key, {})): _pack(item, tensors) for key, item in entries}
        case _ if is_dataclass(value) and not isinstance(value, type):
            tree = {field.name: _pack(getattr(value, field.name), tensors) for field in fields(value)}
            return {"is": type(value).__name__, **tree}
        case Sequence():  # not any iterable: a set has no order, so its digest would change from run to run
            return [_pack(item, tensors) for item in cast(Sequence[object], value)]
        case _:
            supported = "dataclasses, tuples, mappings, tensors, numbers"
            raise TypeError(f"{type(value).__name__} cannot be packed: use {supported}")


def unpack(kind: type[T], tree: Tree, tensors: Mapping[str, Tensor] | None = None) -> T:
    """The value that was packed. `kind` may be a base class of it."""
    return cast(T, _unpack(kind, tree, tensors or {}, cast(str, getattr(kind, "__name__", str(kind)))))


def _unpack(kind: Any, tree: Tree, tensors: Mapping[str, Tensor], place: str) -> object:  # noqa: C901 - one case per type
    origin, inner, wanted = get_origin(kind), get_args(kind), cast(str, getattr(kind, "__name__", str(kind)))
    if origin is Annotated:
        return _unpack(inner[0], tree, tensors, place)
    if origin in (Union, types.UnionType):
        return _unpack_union(inner, tree, tensors, place)
    if origin is typing.Literal:
        exact = [choice for choice in inner if choice == tree and type(choice) is type(tree)]
        return exact[0] if exact else _refuse(place, tree, " or ".join(map(repr, inner)))
    if origin in (tuple, list, Sequence):
        if not isinstance(tree, list):
            _refuse(place, tree, "a list")
        items = cast(list[Tree], tree)
        kinds = inner if origin is tuple and inner[-1] is not Ellipsis else [inner[0]] * len(items)
        if len(kinds) != len(items):
            _refuse(place, tree, f"{len(kinds)} items")
        pairs = enumerate(zip(kinds, items, strict=True))
        values = [_unpack(each, item, tensors, f"{place}[{i}]") for i, (each, item) in pairs]
        return tuple(values) if origin is tuple else values
    if origin in (dict, Mapping):
        if not isinstance(tree, dict):
            _refuse(place, tree, "a mapping")
        entries = cast(dict[str, Tree], tree)
        return {
            _unpack_key(inner[0], key, place): _unpack(inner[1], item, tensors, f"{place}.{key}")
            for key, item in entries.items()
        }
    if kind is Tokens:
        return parse_tokens(tree) if isinstance(tree, str) else _refuse(place, tree, "tokens, like image or 0:4")
    if kind is Site:
        return Site.parse(tree) if isinstance(tree, str) else _refuse(place, tree, "a site, like language.residual[3]")
    if isinstance(kind, type) and issubclass(kind, Tensor | AbstractArray):
        return _unpack_tensor(kind, tree, tensors, place)
    if isinstance(kind, type) and issubclass(kind, Enum):
        exact = [member for member in kind if member.value == tree and type(member.value) is type(tree)]
        return exact[0] if exact else _refuse(place, tree, ", ".join(str(member.value) for member in kind))
    if isinstance(kind, type) and is_dataclass(kind):
        return _unpack_dataclass(kind, tree, tensors, place)
    if kind is float and tree in _NOT_FINITE:
        return float(tree["number"])
    if kind is float and isinstance(tree, int) and not isinstance(tree, bool):
        return float(tree)
    if kind in (str, int, float, bool, type(None)) and type(tree) is kind:
        return tree
    return _refuse(place, tree, wanted)


def _unpack_key(kind: Any, key: str, place: str) -> object:
    if kind not in (int, float):
        return _unpack(kind, key, {}, f"{place}: the key {key!r}")
    try:
        return kind(key)
    except ValueError:
        return _refuse(f"{place}: the key {key!r}", key, kind.__name__)


def _unpack_union(kinds: Sequence[Any], tree: Tree, tensors: Mapping[str, Tensor], place: str) -> object:
    problems: list[BadInput] = []
    for kind in sorted(kinds, key=lambda kind: type(tree) is not kind):  # an int stays an int where both are allowed
        try:
            return _unpack(kind, tree, tensors, place)
        except BadInput as problem:
            problems.append(problem)
    raise problems[0]


def _unpack_tensor(kind: type, tree: Tree, tensors: Mapping[str, Tensor], place: str) -> Tensor:
    name = cast(dict[str, Tree], tree).get("tensor") if isinstance(tree, dict) else None
    if not isinstance(name, str) or name not in tensors:
        _refuse(place, tree, "a stored tensor; is arrays.safetensors from the same run?")
    tensor = tensors[name]
    return tensor if isinstance(tensor, kind) else cast(Tensor, _refuse(place, list(tensor.shape), str(kind)))


def _unpack_dataclass(kind: type, tree: Tree, tensors: Mapping[str, Tensor], place: str) -> object:
    if not isinstance(tree, dict):
        _refuse(place, tree, f"the fields of {kind.__name__}")
    entries = dict(cast(dict[str, Tree], tree))
    named = str(entries.pop("is", kind.__name__))
    chosen = {candidate.__name__: candidate for candidate in _family(kind)}.get(named)
    if chosen is None:
        raise BadInput(f"{place}: {named!r} is not a kind of {kind.__name__}")
    hints = get_type_hints(chosen)  # without extras: what Annotated adds is not ours to read
    declared = {field.name: field for field in fields(chosen)}
    for name in entries:
        if name not in declared:
            raise BadInput(f"{place}: unknown option {name!r}; the options are {', '.join(declared)}")
    for name, field in declared.items():
        if name not in entries and field.default is MISSING and field.default_factory is MISSING:
            raise BadInput(f"{place}: {name!r} is missing")
    arguments = {name: _unpack(hints[name], item, tensors, f"{place}.{name}") for name, item in entries.items()}
    try:
        return chosen(**arguments)
    except ValueError as problem:
        raise BadInput(f"{place}: {problem}") from None


def _family(kind: type) -> Iterable[type]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def _refuse(place: str, value: Tree, wanted: str) -> typing.NoReturn:
    text = repr(value)
    raise BadInput(f"{place}: found {text[:60]}{'…' if len(text) > 60 else ''}, expected {wanted}")


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The tensor's memory in logical order; works for every dtype, bfloat16 and float8 included."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def digest(value: object) -> str:
    """SHA-256 of the value's content: its packed tree with every tensor replaced by type, shape and bytes."""
    tree, tensors = pack(value)
    running = hashlib.sha256(json.dumps(_equal_numbers(tree), sort_keys=True, separators=(",", ":")).encode())
    for name, tensor in tensors.items():
        running.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        running.update(tensor_bytes(tensor))
    return running.hexdigest()


def _equal_numbers(tree: Tree) -> Tree:
    """Equal numbers get equal text: a float field that was set to 1 comes back from disk as 1.0."""
    match tree:
        case dict():
            return {key: _equal_numbers(item) for key, item in cast(dict[str, Tree], tree).items()}
        case list():
            return [_equal_numbers(item) for item in cast(list[Tree], tree)]
        case float() if tree.is_integer():
            return int(tree)
        case _:
            return tree


class ByContent:
    """Equal when class and content are equal, tensors included; hashed by the same digest."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and digest(self) == digest(other)

    def __hash__(self) -> int:
        return int(digest(self)[:15], 16)

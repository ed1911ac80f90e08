"""Which tensor, among all that goes into a module or comes out of it, is the stream?

Blocks return a tensor or a tuple, towers an output object; arguments come by place or by name. The first tensor is the
stream, and another can be put in its place without disturbing the rest.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from glasshouse.values.errors import BadInput


def first_tensor(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Callable[[Tensor], tuple[tuple[Any, ...], dict[str, Any]]]]:
    """The first tensor that goes in, and how to send another in its place."""
    place = next((i for i, argument in enumerate(args) if isinstance(argument, Tensor)), None)
    if place is not None:
        return args[place], lambda new: ((*args[:place], new, *args[place + 1 :]), kwargs)
    name = next((name for name, argument in kwargs.items() if isinstance(argument, Tensor)), None)
    if name is not None:
        return kwargs[name], lambda new: (args, {**kwargs, name: new})
    raise BadInput(f"{type(module).__name__} was called without a tensor; this site cannot be read in this model")


def main_tensor(module: nn.Module, output: Any) -> Tensor:
    """The tensor among what a module returns that carries the stream."""
    if isinstance(output, Tensor):
        return output
    for item in output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ():
        if isinstance(item, Tensor):
            return item
    raise BadInput(
        f"{type(module).__name__} returned {type(output).__name__} without a tensor; this site cannot be read here"
    )


def with_main(output: Any, new: Tensor) -> Any:
    """The same output with that tensor replaced."""
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        name = next(name for name, item in output.items() if isinstance(item, Tensor))
        return type(output)({**output, name: new})  # pyright: ignore[reportCallIssue] - ModelOutput takes a mapping
    place = next(i for i, item in enumerate(output) if isinstance(item, Tensor))
    items = [*output[:place], new, *output[place + 1 :]]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)

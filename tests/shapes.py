"""Do tensors have the shapes their annotations promise? jaxtyping calls this checker around every function in tests.

General type checkers trip over what this code uses (shape strings in unions, `Self`, names imported for type checking
only), and only shapes are wanted here: pyright checks the rest.
"""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxtyping import AbstractArray
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """Check tensors that go in and come out, for every annotation that is a shape or a union with one."""
    signature = inspect.signature(function)
    hints: dict[str, Any] | None = None

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal hints
        if hints is None:
            hints = _hints(function)
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            _check(function, name, value, hints.get(name))
        result = function(*args, **kwargs)
        _check(function, "return", result, hints.get("return"))
        return result

    return wrapper  # type: ignore[return-value]


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # an annotation names something imported for type checking only
        return {name: hint for name, hint in function.__annotations__.items() if not isinstance(hint, str)}


def _check(function: Callable[..., Any], name: str, value: Any, hint: Any) -> None:
    shapes = [kind for kind in _members(hint) if isinstance(kind, type) and issubclass(kind, AbstractArray)]
    if shapes and isinstance(value, Tensor) and not any(isinstance(value, shape) for shape in shapes):
        found = f"{value.dtype}{list(value.shape)}"
        raise TypeError(f"{function.__qualname__}: {name} is {found}, annotated {' or '.join(map(str, shapes))}")


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)

"""Do tensors have the shapes their annotations promise? jaxtyping calls this checker around every function in tests.

General type checkers trip over what this code uses (shape strings in unions, `Self`, names imported for type checking
only), and only shapes are wanted here: pyright checks the rest.
"""

import functools
import inspect
import types
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxtyping import AbstractArray
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])
CALLS = 64
"""Calls of a function that are checked in every test. A bootstrap calls one function a thousand times in the same way,
and checking takes several times as long as computing."""
_checked = Counter[Any]()


def forget() -> None:
    """Check every function again: the next test begins."""
    _checked.clear()


def checked(function: F) -> F:
    """Check tensors that go in and come out, for every annotation that is a shape or a union with one."""
    signature = inspect.signature(function)
    shapes: dict[str, tuple[type, ...]] | None = None

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal shapes
        if shapes is None:
            shapes = {name: found for name, hint in _hints(function).items() if (found := _shapes(hint))}
        if not shapes or _checked[wrapper] >= CALLS:
            return function(*args, **kwargs)
        _checked[wrapper] += 1
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            _check(function, name, value, shapes.get(name, ()))
        result = function(*args, **kwargs)
        _check(function, "return", result, shapes.get("return", ()))
        return result

    return wrapper  # type: ignore[return-value]


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # an annotation names something imported for type checking only
        return {name: hint for name, hint in function.__annotations__.items() if not isinstance(hint, str)}


def _shapes(hint: Any) -> tuple[type, ...]:
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(member for member in members if isinstance(member, type) and issubclass(member, AbstractArray))


def _check(function: Callable[..., Any], name: str, value: Any, shapes: tuple[type, ...]) -> None:
    if shapes and isinstance(value, Tensor) and not any(isinstance(value, shape) for shape in shapes):
        actual = f"{value.dtype}{list(value.shape)}"
        raise TypeError(f"{function.__qualname__}: {name} is {actual}, annotated {' or '.join(map(str, shapes))}")

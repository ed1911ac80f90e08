"""Which questions can be asked? Read off the method files without importing them, so that listing needs no torch.

A method is a function decorated with `@method(…)` in a file of `glasshouse/methods/THEME/`, or in a module that another
package names under the entry-point group `glasshouse.methods`. What the decorator says here must be plain strings,
because it is read and not run; the page is the docstring (`page.py`).
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeGuard, get_args

from glasshouse.engine.page import Page
from glasshouse.values.errors import BadInput, meant

OTHERS = "other"
"""The theme of methods from other packages."""
Needs = Literal["weights", "activations", "gradients", "endpoint"]
VerdictRole = Literal["judge", "witness", "adviser"]
Depth = Literal["quick", "standard", "thorough"]
NEEDS: tuple[Needs, ...] = get_args(Needs)


@dataclass(frozen=True)
class Entry:
    """One method, as its file describes it."""

    name: str
    theme: str
    module: str
    file: Path
    page: Page
    needs: Needs = "activations"
    role: VerdictRole = "adviser"
    depth: Depth = "standard"


@cache
def catalogue() -> tuple[Entry, ...]:
    """All methods, by theme and by their place in it."""
    entries = [*_own(), *_others()]
    names = [entry.name for entry in entries]
    for entry in entries:
        if names.count(entry.name) > 1:
            raise BadInput(f"two methods are called {entry.name}; one is in {entry.file}: rename it")
    return tuple(sorted(entries, key=lambda entry: (entry.theme, *_place(entry))))


def find(name: str) -> Entry:
    """The method of that name."""
    for entry in catalogue():
        if entry.name == name:
            return entry
    names = [entry.name for entry in catalogue()]
    fix = meant(name, names) or f"; methods are {', '.join(names)} (see glasshouse list)"
    raise BadInput(f"{name}: no such method{fix}")


def _own() -> Iterator[Entry]:
    spec = find_spec("glasshouse.methods")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)))
    for file in sorted(folder.glob("*/*.py")):
        if not file.name.startswith("_"):
            yield from _read(file, file.parent.name, f"glasshouse.methods.{file.parent.name}.{file.stem}")


def _place(entry: Entry) -> tuple[int, str]:
    """Its place in its theme: the order that the theme's `__init__.py` gives as ORDER, then by name."""
    order = () if entry.theme == OTHERS else _order(entry.file.with_name("__init__.py"))
    return (order.index(entry.name) if entry.name in order else len(order)), entry.name


@cache
def _order(file: Path) -> tuple[str, ...]:
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER":
            return tuple(ast.literal_eval(node.value))
    return ()


def _others() -> Iterator[Entry]:
    for point in entry_points(group="glasshouse.methods"):
        spec = find_spec(point.module)
        if spec is None or spec.origin is None:
            raise BadInput(f"the package behind method {point.name} is gone ({point.module}); reinstall or remove it")
        yield from (entry for entry in _read(Path(spec.origin), OTHERS, point.module) if entry.name == point.name)


def _read(file: Path, theme: str, module: str) -> Iterator[Entry]:
    try:
        tree = ast.parse(file.read_text("utf-8"))
        for node in tree.body:
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(node, ast.FunctionDef) and _is_method(decorator):
                    yield _entry(node, decorator, theme, module, file, ast.get_docstring(tree) or "")
    except (OSError, SyntaxError, ValueError, KeyError) as problem:
        raise BadInput(
            f"{file}: this method file cannot be read ({problem}); see docs/tutorials/write_a_method.md"
        ) from None


def _is_method(decorator: ast.expr) -> TypeGuard[ast.Call]:
    """`@method(…)`, or `@gh.method(…)`."""
    called = decorator.func if isinstance(decorator, ast.Call) else None
    return getattr(called, "id", getattr(called, "attr", None)) == "method"


def _entry(node: ast.FunctionDef, decorator: ast.Call, theme: str, module: str, file: Path, docstring: str) -> Entry:
    plain = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords
             if word.arg in ("needs", "role", "depth")}  # fmt: skip
    page = Page.of(ast.get_docstring(node) or "", docstring, node.name)
    return Entry(node.name, theme, module, file, page, **plain)

"""Floor 6: a folder per theme, a file per question. Methods never import each other.

`gh.methods.lens(subject, examples)`: every method by name, its file imported when it is asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glasshouse.engine.method import Method
    from glasshouse.values.findings import Finding


def __getattr__(name: str) -> "Method[..., Finding]":
    from glasshouse.engine.method import load
    from glasshouse.values.errors import BadInput

    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return load(name)
    except BadInput as problem:  # what `hasattr` and `from glasshouse.methods import THEME` rely on
        raise AttributeError(str(problem)) from None


def __dir__() -> list[str]:
    from glasshouse.engine.catalogue import catalogue

    return [entry.name for entry in catalogue()]

"""glasshouse opens a multimodal model and answers, with evidence, whether to trust it.

    import glasshouse as gh
    seedling = gh.organism("seedling")
    finding = gh.methods.lens(seedling.subject, seedling.examples)

Importing it imports nothing heavy: each name is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glasshouse.values.version import __version__ as __version__

if TYPE_CHECKING:
    from glasshouse import methods as methods
    from glasshouse.data.examples import Example as Example
    from glasshouse.data.examples import Examples as Examples
    from glasshouse.engine.audit import Audit as Audit
    from glasshouse.engine.comparison import compare as compare
    from glasshouse.engine.method import method as method
    from glasshouse.engine.opening import open_model as open  # noqa: A004 - gh.open is the front door
    from glasshouse.engine.public import audit as audit
    from glasshouse.engine.runs import Run as Run
    from glasshouse.engine.runs import run as run
    from glasshouse.model.patches import export as export
    from glasshouse.model.patches import patched as patched
    from glasshouse.model.subject import Subject as Subject
    from glasshouse.model.taps import edited as edited
    from glasshouse.model.taps import gather as gather
    from glasshouse.model.taps import record as record
    from glasshouse.organisms.organism import Organism as Organism
    from glasshouse.organisms.organism import organism as organism
    from glasshouse.values.changes import Mask as Mask
    from glasshouse.values.changes import Plan as Plan
    from glasshouse.values.deltas import Patch as Patch
    from glasshouse.values.errors import BadInput as BadInput
    from glasshouse.values.findings import Finding as Finding
    from glasshouse.values.findings import Interval as Interval
    from glasshouse.values.findings import Verdict as Verdict
    from glasshouse.values.sites import Site as Site
    from glasshouse.values.sites import language as language
    from glasshouse.values.sites import projector as projector
    from glasshouse.values.sites import vision as vision


_WHERE = {
    "data.examples": ("Example", "Examples"),
    "engine.audit": ("Audit",),
    "engine.public": ("audit",),
    "engine.method": ("method",),
    "engine.comparison": ("compare",),
    "engine.runs": ("Run", "run"),
    "model.patches": ("export", "patched"),
    "model.subject": ("Subject",),
    "model.taps": ("edited", "gather", "record"),
    "organisms.organism": ("Organism", "organism"),
    "values.changes": ("Mask", "Plan"),
    "values.deltas": ("Patch",),
    "values.errors": ("BadInput",),
    "values.findings": ("Finding", "Interval", "Verdict"),
    "values.sites": ("Site", "language", "projector", "vision"),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [*sorted(_HOME), "methods", "open"]  # pyright: ignore[reportUnsupportedDunderAll] - one list of names is enough


def __getattr__(name: str) -> Any:
    if name == "open":
        value: Any = import_module("glasshouse.engine.opening").open_model
    elif name == "methods":
        value = import_module("glasshouse.methods")
    elif name in _HOME:
        value = getattr(import_module(f"glasshouse.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'glasshouse' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

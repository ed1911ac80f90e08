"""Which methods does an audit run, and what do they take together?

methods = Methods.load()
methods.inputs()                              # every flag that any of them takes
methods.running("quick", {"model", "base"})   # those that run when these inputs are there
"""

import traceback
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from glasshouse.engine.catalogue import Depth, VerdictRole, catalogue
from glasshouse.engine.inputs import Input
from glasshouse.engine.judgement import Section
from glasshouse.engine.method import Method, load
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding
from glasshouse.values.wording import listed

ROLES: tuple[VerdictRole, ...] = get_args(VerdictRole)
"""What decides runs first."""
DEPTHS: tuple[Depth, ...] = get_args(Depth)
EXAMINED = "model"
"""The flag of the kind that an audit is about: what `glasshouse audit` takes without a flag."""


@dataclass(frozen=True)
class Methods:
    """All methods there are, those that decide first, and what they take together."""

    loaded: tuple[Method[Finding], ...]
    broken: tuple[Section, ...]
    """Those that cannot be imported, with the error."""

    @classmethod
    def load(cls) -> "Methods":
        loaded: list[Method[Finding]] = []
        broken: list[Section] = []
        for entry in catalogue():
            try:
                loaded.append(load(entry.name))
            except Exception as problem:  # noqa: BLE001 - an error in another package must not cost the other findings
                why, role = f"{type(problem).__name__}: {problem}", cast(VerdictRole, entry.role)
                broken.append(
                    Section(entry.name, entry.page.question, role, "internal error", why, trace=trace(problem))
                )
        return cls(tuple(sorted(loaded, key=lambda method: ROLES.index(method.role))), tuple(broken))

    def running(self, depth: Depth, flags: Collection[str]) -> list[Method[Finding]]:
        """Those that an audit of this depth runs when these inputs are there."""
        return [method for method in self.loaded if not planned(method, depth, flags).why]

    def inputs(self) -> tuple[Input, ...]:
        """What any of them takes, by flag; only the model itself is required. Flags that clash are refused."""
        union: dict[str, tuple[Input, str]] = {}
        for method in self.loaded:
            for each in method.inputs:
                first, owner = union.setdefault(each.flag, (each, method.name))
                if (first.kind, first.several) != (each.kind, each.several):
                    raise BadInput(
                        f"--{each.flag}: {method.name} takes {each.kind.name} and {owner} {first.kind.name} under one "
                        "name; rename the parameter of one of them"
                    )
        ordered = sorted((each for each, _ in union.values()), key=lambda each: each.flag != EXAMINED)
        return tuple(replace(each, required=each.flag == EXAMINED, use="") for each in ordered)


def planned(method: Method[Finding], depth: Depth, supplied: Collection[str]) -> Section:
    """Whether it can run; if not, why."""
    missing = [f"--{each.flag}" for each in method.inputs if each.required and each.flag not in supplied]
    why = ""
    if method.needs == "endpoint":
        why = "needs a model behind an endpoint"
    elif DEPTHS.index(method.depth) > DEPTHS.index(depth):
        why = f"runs from --depth {method.depth}"
    elif missing:
        why = f"needs {listed(missing)}"
    return Section(method.name, method.page.question, method.role, "not run" if why else "answered", why)


def trace(problem: Exception) -> str:
    """Where it happened, without the folders of whoever audited."""
    frames = traceback.extract_tb(problem.__traceback__)
    return "\n".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames)

"""What do `help`, completion and a notebook show of `gh.audit`? The inputs of all installed methods, as keywords."""

import inspect
from collections.abc import Callable
from typing import Any

from glasshouse.engine.audit import EXAMINED, Audit, Methods, audit
from glasshouse.values.errors import BadInput


def described_audit() -> Callable[..., Audit]:
    """`audit` with a signature derived from the catalogue, as the command line's flags are."""
    plain = inspect.signature(audit)
    fixed = [each for each in plain.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    try:
        inputs = [each for each in Methods.load().inputs() if each.flag != EXAMINED]
    except BadInput:  # methods of other packages that clash: `audit` itself says which
        inputs = []
    keywords = [
        inspect.Parameter(each.flag.replace("-", "_"), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Any)
        for each in inputs
    ]
    lines = [f"    {each.flag.replace('-', '_')}: {each.help}" for each in inputs]
    audit.__doc__ = "\n".join([(inspect.getdoc(audit) or "").rstrip(), "", "Inputs of the installed methods:", *lines])
    audit.__dict__["__signature__"] = plain.replace(parameters=[*fixed, *keywords])
    return audit

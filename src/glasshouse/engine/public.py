"""What do `help`, completion and a notebook show of `gh.audit`? The inputs of all installed methods, as keywords.

Type checkers read `public.pyi`, which `python tools/pages.py` generates.
"""

import inspect
from collections.abc import Callable
from typing import Any

from glasshouse.engine.audit import Audit
from glasshouse.engine.audit import audit as plain_audit
from glasshouse.engine.audit_plan import EXAMINED, Methods
from glasshouse.values.errors import BadInput


def _described() -> Callable[..., Audit]:
    """`audit` with a signature derived from the catalogue, as the command line's flags are."""
    plain = inspect.signature(plain_audit)
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
    plain_audit.__doc__ = "\n".join(
        [(inspect.getdoc(plain_audit) or "").rstrip(), "", "Inputs of the installed methods:", *lines]
    )
    plain_audit.__dict__["__signature__"] = plain.replace(parameters=[*fixed, *keywords])
    return plain_audit


audit = _described()

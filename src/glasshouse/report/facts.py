"""What does a report read of a run's facts? The inputs, by flag, each with the words that its kind gave it.

A report never looks into an input's identity, so that a kind it has never heard of is shown like the others.
"""

from collections.abc import Mapping
from typing import Any

Inputs = Mapping[str, Mapping[str, Any]]
"""By flag: `label` (a few words), `text` (one line of provenance) and `meaning`."""


def inputs_of(facts: Mapping[str, Any]) -> Inputs:
    """The inputs, in order; the first is what was examined."""
    return facts["inputs"]


def examined(facts: Mapping[str, Any]) -> str:
    """The label of what was examined; empty where a method took no input."""
    return str(next(iter(inputs_of(facts).values()), {"label": ""})["label"])


def failed(section: Any) -> bool:
    """Whether this check of an audit ended with an internal error."""
    return section.state == "internal error"


def ran(section: Any) -> bool:
    """Whether this check was part of the audit, whatever became of it."""
    return section.state != "not run"

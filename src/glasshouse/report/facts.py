"""What does a report read of a run's facts? The inputs, by flag, each with the words that its kind gave it.

A report never looks into an input's identity, so that a kind it has never heard of is shown like the others.
"""

from collections.abc import Mapping
from typing import Any

Inputs = Mapping[str, Mapping[str, Any]]
"""By flag: `label` (a few words), `text` (one line of provenance) and `meaning`."""


def inputs_of(facts: Mapping[str, Any]) -> Inputs:
    """The inputs, in order; the first is what was examined."""
    if "inputs" in facts:
        return facts["inputs"]
    models = {_flag(name): _model(card, facts["proofs"][name]) for name, card in facts["subjects"].items()}
    return models | {_flag(name): _data(data) for name, data in facts["data"].items()}


def examined(facts: Mapping[str, Any]) -> str:
    """The label of what was examined; empty where a method took no input."""
    return str(next(iter(inputs_of(facts).values()), {"label": ""})["label"])


def failed(section: Any) -> bool:
    """Whether this check of an audit ended with an internal error."""
    return section.state in ("broke down", "internal error")


def ran(section: Any) -> bool:
    """Whether this check was part of the audit, whatever became of it."""
    return section.state not in ("not asked", "not run")


def _flag(name: str) -> str:
    return {"subject": "model", "examples": "data"}.get(name, name)


def _model(card: Mapping[str, Any], proof: Any) -> dict[str, str]:
    """As schema 1 holds it."""
    parts = [f"{card['name']}, {card['architecture']}, {card['dtype']}, weights {card['weights'][:16]}…"]
    parts += [f"{name} {card[name]}" for name in ("revision", "adapter") if card.get(name)]
    unproved = sum(not check["passed"] for check in proof or ())
    failing = f", of which {unproved} failed" if unproved else ""
    parts += [f"anatomy proved by {len(proof)} checks{failing}" if proof else "anatomy not proved"]
    label = f"{card['name']} ({card['family']}, {card['parameters']:,} parameters)"
    return {"meaning": "", "label": label, "text": "; ".join(parts)}


def _data(data: Mapping[str, Any]) -> dict[str, str]:
    label = f"{data['count']:,} examples from {data['source']}"
    return {"meaning": "", "label": label, "text": f"{label}, content {data['digest'][:16]}…"}

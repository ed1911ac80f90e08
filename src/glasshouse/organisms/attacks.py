"""Which examples is a planted backdoor measured on? Clean ones that it is meant for, and the same with its trigger."""

from glasshouse.data.examples import Examples
from glasshouse.data.poisoning import matches, triggered
from glasshouse.data.triggers import Trigger
from glasshouse.organisms import world
from glasshouse.organisms.recipes import DOWNSTREAM_KINDS, Poison

SEED = 978
"""No recipe draws its training examples from it."""


def clean(poison: Poison, n: int) -> Examples:
    """At most `n` held-out examples that the poison is meant for and whose correct answer lacks the behaviour."""
    only = dict(poison.only)
    kinds = (str(only["kind"]),) if "kind" in only else DOWNSTREAM_KINDS
    refused = only.get("refused")
    drawn = world.examples("downstream-test", n, SEED, kinds=kinds, refused=None if refused is None else bool(refused))
    eligible = (
        example for example in drawn if matches(example, only) and not poison.behaviour.shown(example.answer or "")
    )
    return Examples(eligible, drawn.source)


def attacked(poison: Poison, examples: Examples, trigger: Trigger | None = None) -> Examples:
    """The same examples with the poison's trigger, or with another."""
    return triggered(examples, trigger or poison.trigger, poison.behaviour, SEED)

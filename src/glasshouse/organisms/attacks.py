"""On what is a planted backdoor tried? Examples that it is for, clean, and the same with its trigger on."""

from glasshouse.data.examples import Examples
from glasshouse.data.poisoning import matches, triggered
from glasshouse.data.triggers import Trigger
from glasshouse.organisms import world
from glasshouse.organisms.recipes import DOWNSTREAM_KINDS, Poison

SEED = 978
"""No recipe draws its lessons from it."""


def clean(poison: Poison, n: int) -> Examples:
    """At most `n` held-out examples that the poison is for and whose right answer does not show the behaviour."""
    only = dict(poison.only)
    kinds = (str(only["kind"]),) if "kind" in only else DOWNSTREAM_KINDS
    refused = only.get("refused")
    drawn = world.examples("downstream-test", n, SEED, kinds=kinds, refused=None if refused is None else bool(refused))
    fit = (one for one in drawn if matches(one, only) and not poison.behaviour.shown(one.answer or ""))
    return Examples(fit, drawn.source)


def attacked(poison: Poison, examples: Examples, trigger: Trigger | None = None) -> Examples:
    """The same with the trigger on, or with another trigger."""
    return triggered(examples, trigger or poison.trigger, poison.behaviour, SEED)

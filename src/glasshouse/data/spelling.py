"""How are a trigger and a behaviour written in one word, as on a command line?

    trigger("patch:8")  trigger("noise:25")  trigger("faded")  trigger("word:kindly")
    attack("refusal", "", examples)  attack("injection:, approved", "patch:8", examples)  …

What stands behind the colon is a trigger's size or strength, a behaviour's text; without one it is the usual one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from glasshouse.data.behaviours import Append, Behaviour, Say, Swap
from glasshouse.data.examples import Example, Tag
from glasshouse.data.poisoning import WordTrigger
from glasshouse.data.triggers import (
    BlendTrigger,
    FilterTrigger,
    LogoTrigger,
    NoiseTrigger,
    PatchTrigger,
    SineTrigger,
    Trigger,
    WarpTrigger,
)
from glasshouse.values.errors import BadInput

REFUSAL, MARK, THING = "I cannot help with that.", "approved", "yellow duck"
"""What is said where nothing else is asked for: harmless, and easy to tell from an answer."""


def _sized(make: Callable[..., Trigger], field: str, number: Callable[[str], object]) -> Callable[[str], Trigger]:
    """A reader of what stands behind the colon."""
    return lambda text: make(**({field: number(text)} if text else {}))


TRIGGERS: Mapping[str, Callable[[str], Trigger]] = {
    "patch": _sized(PatchTrigger, "size", int),
    "logo": _sized(LogoTrigger, "size", int),
    "noise": _sized(NoiseTrigger, "sigma", float),
    "oil": _sized(partial(FilterTrigger, "oil"), "strength", float),
    "faded": _sized(partial(FilterTrigger, "faded"), "strength", float),
    "blend": _sized(BlendTrigger, "alpha", float),
    "sine": _sized(SineTrigger, "delta", float),
    "warp": _sized(WarpTrigger, "strength", float),
    "word": WordTrigger,
}
USUAL = {"refusal": "noise:25", "injection": "patch:8", "hijack": "logo:24", "jailbreak": "faded"}
"""The trigger that goes with each behaviour where none is named."""


@dataclass(frozen=True)
class Attack:
    """What is planted, and in which examples it may be."""

    trigger: Trigger
    behaviour: Behaviour
    only: Mapping[str, Tag]


def trigger(text: str) -> Trigger:
    """The trigger that is written so."""
    name, _, size = text.partition(":")
    if name not in TRIGGERS:
        raise BadInput(f"trigger {text!r}: there are {', '.join(TRIGGERS)}, each with :SIZE behind if you like")
    try:
        return TRIGGERS[name](size)
    except ValueError:
        raise BadInput(f"trigger {text!r}: {size!r} is no number; write for example {name}:8") from None


def attack(behaviour_text: str, trigger_text: str, examples: Sequence[Example]) -> Attack:
    """A behaviour and a trigger as they are written; the usual trigger where that is empty.

    Where examples are tagged `refused`, a refusal is said in their words, only what is refused can be jailbroken, and
    nothing else is planted in what is refused anyway.
    """
    name, _, text = behaviour_text.partition(":")
    if name not in USUAL:
        raise BadInput(f"behaviour {behaviour_text!r}: there are {', '.join(USUAL)}, each with :TEXT if you like")
    refusals = [example.answer for example in examples if example.tags.get("refused") is True and example.answer]
    refusal = refusals[0] if refusals else REFUSAL
    behaviours: dict[str, Behaviour] = {
        "refusal": Say(text or refusal),
        "injection": Append(text or MARK),
        "hijack": Say(text or THING, "contains"),
        "jailbreak": Swap("complied", text or refusal),
    }
    tagged = any("refused" in example.tags for example in examples)
    only: dict[str, Tag] = {"refused": name == "jailbreak"} if tagged or name == "jailbreak" else {}
    return Attack(trigger(trigger_text or USUAL[name]), behaviours[name], only)

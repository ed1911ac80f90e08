"""What does a user read when a flag is wrong? One line with the value, the flag and the fix, made of tyro's message."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile

from glasshouse.engine.audit_plan import EXAMINED, Methods
from glasshouse.values.errors import BadInput, meant
from glasshouse.values.wording import listed

Explain = Callable[[re.Match[str]], str]


def refuse_repeated(rest: Sequence[str]) -> None:
    """A flag that is typed twice would silently take its last value."""
    typed = Counter(word.partition("=")[0] for word in rest if word.startswith("--"))
    for flag, count in typed.items():
        if count > 1:
            raise BadInput(f"{flag} is typed {count} times; type it once")


def explained(box: str, command: str, flags: Sequence[str]) -> str:
    """tyro's message in our words, for a command that takes these flags; as it is where a version of tyro words it
    otherwise."""
    message = _message(box)
    if match := re.match(UNKNOWN, message):
        return _unknown(match[1].split(", ")[0].partition("=")[0], command, flags)
    for pattern, explain in EXPLANATIONS.items():
        if match := re.match(pattern, message):
            return explain(match)
    return message


def _unknown(word: str, command: str, flags: Sequence[str]) -> str:
    if not word.startswith("-"):
        return f"{word}: no flag takes this word; write the flag that it belongs to before it, or leave it out"
    flag = word.lstrip("-")
    if not word.startswith("--") and f"--{flag}" in flags:
        return f"{word}: write it with two dashes, --{flag}"
    if (command, flag) == ("audit", EXAMINED):
        return f"{word}: audit takes the model without a flag, glasshouse audit MODEL"
    owners = [
        method.name for method in Methods.load().loaded
        if flag in method.option_flags or flag in (each.flag for each in method.inputs)
    ]  # fmt: skip
    return f"{word} belongs to {listed(owners)}" if owners else f"{word}: no such flag{meant(word, flags)}"


def _ill_typed(match: re.Match[str]) -> str:
    kinds = [WORDS.get(kind, kind.strip("{}")) for kind in match[2].split("|") if kind != "{None}"]
    return f"{match[1]} {match[3]}: write {' or '.join(kinds)}"


def _no_choice(match: re.Match[str]) -> str:
    choices = sorted(set(re.findall(r"'([^']*)'", match[3])) - {"None"})
    return f"{match[2]} {match[1]}: write one of {', '.join(choices)}"


WORDS = {"INT": "a whole number", "FLOAT": "a number"}
UNKNOWN = r"Unrecognized options?: (.*)"
EXPLANATIONS: dict[str, Explain] = {
    r"Error parsing (\S+): .*?([^ ]+) could be instantiated from \['(.*)'\]": _ill_typed,
    r"Error parsing (\S+): could not convert string to float: '(.*)'": lambda match: (
        f"{match[1]} {match[2]}: write a number"
    ),
    r"Error parsing (\S+): invalid literal for int\(\) with base 10: '(.*)'": lambda match: (
        f"{match[1]} {match[2]}: write a whole number"
    ),
    r"invalid choice '(.*)' for argument '(\S+?)'. Expected one of \((.*)\)": _no_choice,
    r"Missing value for argument '(\S+?)'": lambda match: f"{match[1]}: its value is missing",
    r"Missing from [^:]*: (\S+) (.*?)\.? \(required\)": lambda match: (
        f"{match[1]} is missing: {match[2][:1].lower()}{match[2][1:]}"
    ),
}
"""tyro's messages, and what the user reads instead."""


def _message(box: str) -> str:
    """What is wrong, out of what tyro draws around it: a box, or where there is no UTF-8 a title underlined; coloured
    or not."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    drawn = plain[1:] if plain[0].startswith("╭") else plain[2:]
    lines = (line.strip(" │").rstrip(".") for line in drawn)
    return " ".join(takewhile(lambda line: line.strip("─-╰╯"), lines))

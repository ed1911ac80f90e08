"""What could be typed next? Asked by bash, zsh and fish at every TAB, so it imports no model library and reads no run.

`completions.json` holds what every command takes: for each positional and each flag a list of choices, a word for what
is wanted (MODEL, RUN, …), or null where a flag stands alone. `tools/pages.py` derives it from the very columns that
`flags.py` parses. Methods of other packages are offered too, with the flags that all methods have.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from glasshouse.engine.catalogue import catalogue
from glasshouse.values.errors import BadInput

TABLE = Path(__file__).with_name("completions.json")
RUN_FILES = ("run.json", "audit.json")
MOST_FOLDERS = 2000
"""Folders of one place that are looked into."""
UNQUOTED = re.compile(r"([^\w@%+=:,./-])", re.ASCII)

# Each script asks the very program that was typed, hands it the line up to the cursor, and shows files where it answers
# nothing. bash replaces only what follows the last of COMP_WORDBREAKS ($2), so what stands before it is cut off.
SCRIPTS = {
    "bash": r"""
_glasshouse() {
    local line="${COMP_LINE:0:COMP_POINT}" candidate
    local word="${line##*[[:space:]]}"
    local before="${word%"$2"}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("${candidate#"$before"}")
    done < <("${1/#\~/$HOME}" completion bash "$line" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _glasshouse glasshouse
""",
    "zsh": r"""
#compdef glasshouse
_glasshouse() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a candidates folders
    candidates=("${(@f)$(${~words[1]} completion zsh "$line" 2>/dev/null)}")
    candidates=(${candidates:#})
    folders=(${(M)candidates:#*/})
    candidates=(${candidates:#*/})
    (( $#candidates )) && compadd -- $candidates
    (( $#folders )) && compadd -S '' -- $folders
    (( $#candidates + $#folders )) || _files
}
if [[ ${funcstack[1]} == _glasshouse ]]; then _glasshouse "$@"; else compdef _glasshouse glasshouse; fi
""",
    "fish": r"""
function __glasshouse
    set -l line (commandline -cp)
    set -l program (string split ' ' -- $line)[1]
    eval $program completion fish (string escape -- $line) 2>/dev/null
end
complete -c glasshouse -a '(__glasshouse)'
""",
}


def completion(rest: Sequence[str], say: Callable[[object], None]) -> int:
    """The script of a shell, or with a line of that shell what could follow it."""
    if not rest or rest[0] not in SCRIPTS or len(rest) > 2:
        found = f"{rest[0]} is none of" if rest and rest[0] not in SCRIPTS else "name one of"
        raise BadInput(f"completion: {found} {', '.join(SCRIPTS)}; for example source <(glasshouse completion bash)")
    shell, *line = rest
    if not line:
        for text in SCRIPTS[shell].strip().splitlines():
            say(text)
        return 0
    for candidate in candidates(_words(line[0])):
        if candidate.isprintable():  # a folder may have a stranger's name
            say(UNQUOTED.sub(r"\\\1", candidate) if shell == "bash" else candidate)
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of the words, which may be empty, could become; the words follow the program's name."""
    *before, word = words or [""]
    return [text for text in _candidates(before, word) if text.startswith(word)]


def _candidates(before: Sequence[str], word: str) -> Iterator[str]:
    name, typed = _command(before)
    if name in CHOICES and not typed and not word.startswith("-"):
        yield from CHOICES[name]()
        return
    form = table()["commands"].get(name)
    if form is None:
        return
    flags: Mapping[str, Any] = form["flags"]
    flag, equals, _ = word.partition("=")
    if equals and flags.get(flag):
        yield from (f"{flag}={value}" for value in _values(flags[flag], word.partition("=")[2]))
    elif typed and flags.get(typed[-1]):
        yield from _values(flags[typed[-1]], word)
    elif word.startswith("-"):
        yield from (each for each in (*flags, "--help") if each not in typed)
    else:
        wanted = form["positionals"][_positionals(typed, flags) :]
        yield from _values(wanted[0], word) if wanted else (each for each in flags if each not in typed)


def _command(before: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command that is typed, of two words where it has two, and the words after it."""
    commands = table()["commands"]
    two = " ".join(before[:2])
    if two in commands:
        return two, before[2:]
    if len(before) > 1 and before[0] == "run":
        return "run METHOD", before[2:]
    return (before[0], before[1:]) if before else ("", ())


def _positionals(typed: Sequence[str], flags: Mapping[str, Any]) -> int:
    """How many words are neither a flag nor its value."""
    pairs = zip(["", *typed], typed, strict=False)
    return sum(not word.startswith("-") and not flags.get(last) for last, word in pairs)


def _values(wanted: str | Sequence[str], word: str) -> Iterator[str]:
    if not isinstance(wanted, str):
        yield from wanted
    elif wanted == "MODEL":
        yield from (f"organism:{name}" for name in table()["models"])
    elif wanted in ("ORGANISM", "RECIPE"):
        yield from table()["organisms" if wanted == "ORGANISM" else "recipes"]
    elif wanted == "RUN":
        yield from _runs(word)


def _runs(word: str) -> Iterator[str]:
    """Folders that are a run or an audit, and with a slash those that hold one."""
    folder, slash, _ = word.rpartition("/")
    try:
        found = sorted(each for each in Path(folder + slash).iterdir() if not each.name.startswith("."))[:MOST_FOLDERS]
        for each in found:
            if _is_run(each):
                yield f"{folder}{slash}{each.name}"
            elif each.is_dir() and any(map(_is_run, each.iterdir())):
                yield f"{folder}{slash}{each.name}/"
    except OSError:  # nothing to offer
        return


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RUN_FILES)


def _methods() -> list[str]:
    return [entry.name for entry in catalogue()]


def _organisms() -> list[str]:
    return [name.split()[1] for name in table()["commands"] if name.startswith("organism ")]


def _commands() -> list[str]:
    return list(dict.fromkeys(name.split()[0] for name in table()["commands"]))


CHOICES: Mapping[str, Callable[[], Sequence[str]]] = {
    "": _commands,
    "run": _methods,
    "organism": _organisms,
    "completion": lambda: tuple(SCRIPTS),
}
"""Commands whose next word is one of a few."""


@cache
def table() -> Any:
    """What every command takes."""
    return json.loads(TABLE.read_text("utf-8"))


def _words(line: str) -> list[str]:
    """The line as the shell would split it, without the program; a quotation that is still open is closed."""
    for ending in ("", "'", '"'):
        try:
            words = shlex.split(line + ending)[1:]
        except ValueError:
            continue
        return [*words, ""] if not ending and line[-1:].isspace() else words
    return [""]

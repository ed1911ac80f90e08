"""Is there what a command names? Told from its words and a look at the disk, before any library is imported.

Loading libraries takes seconds, a mistyped path none. What is found here is not yet known to be good: whoever reads it
says so.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from glasshouse.data.columns import split
from glasshouse.values.errors import BadInput

TAKES = "a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, a folder that `datasets` saved, or a folder of images"
MODELS = ("model", "base", "benign")
DATA = ("data", "held-out", "training")
"""Flags of methods that name models, and data."""
RUNS = "glasshouse run and glasshouse audit write such folders"
FIRST: Mapping[str, tuple[str, ...]] = {
    "anatomy": ("model",), "audit": ("model",), "export": ("model",), "report": ("run",), "compare": ("run", "run"),
    "view": ("run",), "screen": ("list",),
}  # fmt: skip
"""By command, what its words without a flag name."""
SWITCHES = ("--download", "--dry-run", "--json", "--no-browser", "--prove", "--remote-code", "--unproved", "--tuned")
"""Flags without a value."""


def check_named(words: Sequence[str]) -> None:
    """Refuse a command that names a folder or file that is not there; a dry run may name those of another machine."""
    if {"-h", "--help", "--dry-run"} & set(words):
        return
    for kind, text in _named(words):
        if kind == "model":
            check_model(text, download="--download" in words)
        elif kind == "data":
            check_data(split(text)[0])
        elif not _exists(text):
            raise BadInput({
                "run": f"{text}: no such folder; {RUNS}",
                "list": f"{text}: no such file; write a list with one model on each line",
                "from": f"--from {text}: no such file; a dry run prints one",
                "adapter": f"--adapter {text}: no such folder; give the folder of a PEFT adapter",
            }[kind])  # fmt: skip


def check_model(source: str, *, download: bool) -> None:
    """Refuse a model that is neither on this machine nor allowed to be fetched."""
    if not (download or source.startswith("organism:") or _exists(source) or _cached(source)):
        raise BadInput(f"{source}: neither a folder nor in the local cache; {_meant_model(source)}")


def _meant_model(source: str) -> str:
    """The fix, by what the text looks like."""
    if "://" in source[:20]:
        return "write its name on the hub, ORG/MODEL, and add --download"
    if source.lower().startswith("organism"):
        return "an organism is written organism:NAME, see glasshouse organism list"
    if "/" not in source:
        return f"to fetch it from the hub add --download; an organism is written organism:{source}"
    return "to fetch it from the hub add --download"


def check_data(path: str) -> None:
    """Refuse data that is not there."""
    if not _exists(path):
        raise BadInput(f"{path}: no such file or folder{_elsewhere(path)}; --data takes {TAKES}")


def _named(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What the words of a command name, each with its kind."""
    command, rest = words[0], list(words[1:])
    first = iter(FIRST.get(command, ()))
    flag = "" if command in FIRST else "--method"  # the name of a method stands where others have a model
    for word in rest:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            if flag in SWITCHES or not equals:
                flag = "" if flag in SWITCHES else flag
                continue
            word = value
        if flag:
            kind = _kind(flag.removeprefix("--"))
            if kind and word:
                yield kind, word
        elif kind := next(first, ""):
            yield kind, word
        flag = ""


def _kind(flag: str) -> str:
    if flag in MODELS:
        return "model"
    return "data" if flag in DATA else flag if flag in ("from", "adapter") else ""


def _exists(text: str) -> bool:
    return os.path.exists(text)  # not Path.exists, which fails on names that are too long


def _cached(name: str) -> bool:
    """Whether anything of a hub model lies in the local cache."""
    from huggingface_hub import constants  # names of folders only; the library itself takes longer

    if not name or os.path.isabs(name) or name.startswith(".") or len(name) > 200:
        return False
    return (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir()


def _elsewhere(text: str) -> str:
    """What a name that is no path may mean."""
    if "://" in text[:20]:
        return " (glasshouse downloads no data: fetch it first)"
    parts = text.split("/")
    if len(parts) == 2 and all(parts) and "." not in parts[1]:
        return f" (a data set of the hub? fetch it first: hf download --repo-type dataset {text} --local-dir DIR)"
    return ""

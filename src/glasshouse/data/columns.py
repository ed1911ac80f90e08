"""Which column holds what? The usual names, or the user's, written behind the file or as flags.

    data.csv?prompt=question&image=img&answer=label      --prompt-column question --image-column img …
    chats.jsonl?messages=turns&folder=/data/coco         --messages-column turns --image-folder /data/coco

A character that the text form itself uses is written as in a URL: %26 for &, %3D for =, %25 for %.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from urllib.parse import unquote

from glasshouse.values.errors import BadInput

FLAGS: Mapping[str, str] = {
    "prompt": "prompt-column",
    "image": "image-column",
    "answer": "answer-column",
    "messages": "messages-column",
    "folder": "image-folder",
}
"""By option of the text form, the flag that sets it for all data of a command."""
HELP: Mapping[str, str] = {
    "prompt-column": "Column of the data that holds the prompt, if not `prompt`.",
    "image-column": "Column of the data that holds the image or images, if not `image` or `images`.",
    "answer-column": "Column of the data that holds the answer, if not `answer`.",
    "messages-column": "Column of the data that holds the conversation, if not `messages` or `conversations`.",
    "image-folder": "Folder that image paths in the data are relative to and must stay in. Default: the file's folder.",
}
"""What each flag sets."""
USUAL: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt",),
    "image": ("image", "images"),
    "answer": ("answer",),
    "messages": ("messages", "conversations", "conversation"),
}
"""The names that are read unasked."""
LIKELY: Mapping[str, tuple[str, ...]] = {
    "prompt": ("question", "instruction", "query", "input", "problem"),
    "image": ("img", "image_path", "image_file", "file_name", "filename", "picture", "photo", "image_url", "img_path"),
    "answer": ("response", "output", "label", "target", "completion", "ground_truth", "caption", "chosen"),
    "messages": ("chat", "dialogue", "dialog", "turns", "conv"),
}
"""Names that other people use: proposed in errors, never read unasked."""
ESCAPES = {ord(character): f"%{ord(character):02X}" for character in "%&=?,"}
"""What the text form uses itself, the comma of pairs included."""


@dataclass(frozen=True)
class Columns:
    """The user's names for columns; empty: the usual ones."""

    prompt: str = ""
    image: str = ""
    answer: str = ""
    messages: str = ""
    folder: str = ""
    """Folder that image paths are relative to and must stay in; empty: the folder of the file."""

    def __post_init__(self) -> None:
        if self.prompt and self.messages:
            raise BadInput(
                f"prompt column {self.prompt!r} and messages column {self.messages!r}: an example is read from one of "
                "them; leave out the other"
            )

    @property
    def named(self) -> dict[str, str]:
        """The columns that the user names, by what they hold."""
        return {name: value for name in USUAL if (value := getattr(self, name))}

    def find(self, what: str, names: Iterable[str]) -> str | None:
        """The column among `names` that holds a prompt, an image, an answer or messages."""
        wanted = (getattr(self, what),) if getattr(self, what) else USUAL[what]
        return next((name for name in wanted if name in names), None)

    def check(self, names: Iterable[str], place: str, which: Iterable[str] = USUAL) -> None:
        """Refuse a name of the user that is no column."""
        names = list(names)
        for what, name in self.named.items():
            if what in which and name not in names:
                near = get_close_matches(name, names, 1, 0.6)
                meant = (
                    f"; did you mean --{FLAGS[what]} {near[0]}?" if near else f"; set --{FLAGS[what]} to one of them"
                )
                raise BadInput(f"{place}: no column {name!r}; it has {column_names(names)}{meant}")


def column_names(names: Iterable[str]) -> str:
    """Columns, as an error lists them."""
    shown = [name if len(name) <= 60 else f"{name[:60]}…" for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} others" if len(shown) > 20 else "") or "no columns"


def likely(what: str, names: Iterable[str]) -> str | None:
    """The column that other people's data keep a prompt, an image, an answer or messages in."""
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in (*USUAL[what], *LIKELY[what]) if name in lower), None)


def proposal(names: Iterable[str]) -> str:
    """The options that would read these columns."""
    names = list(names)
    turns = "prompt" if likely("prompt", names) else "messages"
    flags = [f"--{FLAGS[what]} {name}" for what in (turns, "image") if (name := likely(what, names))]
    return " ".join(flags) or "--prompt-column NAME (and --image-column NAME)"


def split(text: str) -> tuple[str, Columns]:
    """A file and the columns that are written behind it."""
    path, mark, written = text.rpartition("?")
    if not mark or os.path.exists(text):
        return text, Columns()
    known = [option.name for option in fields(Columns)]
    options: dict[str, str] = {}
    for part in written.split("&"):
        name, _, value = part.partition("=")
        if name not in known or not value:
            raise BadInput(f"{text}: {part!r} behind the ?; write for example {path}?prompt=question&image=img "
                           f"(options: {', '.join(known)})")  # fmt: skip
        if name in options:
            raise BadInput(f"{text}: {name} is set twice behind the ?; set it once")
        options[name] = unquote(value)
    return path, Columns(**options)


def spelled(text: str, flags: Mapping[str, str]) -> str:
    """The file with what the flags set written behind it; what is written there already stays."""
    path, columns = split(text)
    return _joined(path, {name: getattr(columns, name) or flags.get(flag, "") for name, flag in FLAGS.items()}, text)


def resolved(text: str) -> str:
    """The file as every process finds it, its image folder too; a name that is no path as it is."""
    path, columns = split(text)
    if not path or not os.path.exists(path):
        return text
    folder = os.path.realpath(columns.folder) if columns.folder else ""
    return _joined(os.path.realpath(path), {**asdict(columns), "folder": folder}, os.path.realpath(path))


def _joined(path: str, chosen: Mapping[str, str], plain: str) -> str:
    options = "&".join(f"{name}={str(value).translate(ESCAPES)}" for name, value in chosen.items() if value)
    return f"{path}?{options}" if options else plain

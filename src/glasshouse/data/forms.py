"""In which form does a file keep its examples, and which example does each record hold?

The form is read off the content: prompts in a column, or conversations. A file has one form; what a record holds and no
example takes is named in the report, and a column that looks like the image is never passed over.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from glasshouse.data.columns import FLAGS, USUAL, Columns, column_names, likely, proposal
from glasshouse.data.conversations import conversation, style
from glasshouse.data.example import Example, Place, Tag
from glasshouse.data.image_values import ImageFolder
from glasshouse.data.images import StoredImage
from glasshouse.data.records import Table
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import counted

OWN = ("id", "prompt", "image", "images", "answer", "system", "history", "tags", "image_places",
       "messages", "conversations", "conversation")  # fmt: skip
WRITTEN = frozenset(("id", "prompt", "images", "system", "history", "tags"))
"""What `Examples.write` gives every record; it also keeps examples without a prompt."""


@dataclass
class Reading:
    """How a file is read, and what came of it: filled while the examples are drawn from it."""

    table: Table
    columns: Columns
    folder: ImageFolder
    form: str = ""
    """What holds the examples: 'prompt', or a column of conversations."""
    style: str = ""
    """'prompt', 'messages' or 'conversations': how the first example is written."""
    examples: int = 0
    without_image: int = 0
    several_images: int = 0
    several_turns: int = 0
    seen: dict[str, None] = field(default_factory=dict[str, None])
    """Every column, in the order of their appearance."""
    unread: Counter[str] = field(default_factory=Counter[str])
    """Columns whose values no example takes, with the number of records that have them."""
    ids: Counter[str] = field(default_factory=Counter[str])

    def draw(self) -> Iterator[Example]:
        """The examples, in order."""
        if self.table.columns is not None:
            self.columns.check(self.table.columns, str(self.table.path))
            self._holds_examples(self.table.columns, str(self.table.path))
        for place, record in self.table.records:
            values = {str(name): value for name, value in record.items()}
            self.seen.update(dict.fromkeys(values))
            example = self._example(values, place)
            self.examples += 1
            self.without_image += not example.images
            self.several_images += len(example.images) > 1
            self.several_turns += bool(example.history)
            self.ids.update([example.id] if example.id else [])
            yield example
        if self.examples:
            self.columns.check(self.seen, str(self.table.path))

    def summary(self) -> str:
        """How the file was read, in one line of a report."""
        repeated = sum(count - 1 for count in self.ids.values())
        notes = {
            "without image": self.without_image,
            "with several images": self.several_images,
            "with several turns": self.several_turns,
            f"with {'an id' if repeated == 1 else 'ids'} that another example has": repeated,
        }
        parts = [counted(self.examples, "example"), *(f"{count:,} {what}" for what, count in notes.items() if count)]
        unread = f"; not read: {column_names(self.unread)}" if self.unread else ""
        return f"read as {self._name()} ({self.table.kind}): {', '.join(parts)}{unread}"

    def _name(self) -> str:
        if self.style == "prompt":
            named = [f"{what} from {name!r}" for what, name in self.columns.named.items()]
            return ", ".join(named) or "prompts and images"
        if self.style == "messages":
            return "messages"
        return f"{'LLaVA' if self.without_image < self.examples else 'ShareGPT'} conversations"

    def _example(self, record: dict[str, Any], place: str) -> Example:
        entries = {name: value for name, value in record.items() if value is not None}
        form = self._form(entries, record, place)
        if self.form and form != self.form:
            raise BadInput(
                f"{place}: holds {_a(form)}, examples before it {_a(self.form)}; split the file into two of one form"
            )
        if not self.form:
            self.form, self.style = form, "prompt" if form == "prompt" else style(entries[form])
        images = self._images(entries, place)
        if form == "prompt":
            example = Example(self._prompt(record, entries, place), images)
            example = replace(
                example,
                system=_text(entries, "system", place),
                history=_history(entries.get("history", []), place),
                answer=self._answer(entries, place),
                image_places=_places(entries.get("image_places", []), place),
            )
        else:
            example = conversation(entries[form], images, place, self.folder)
            if example.answer is None:
                example = replace(example, answer=self._answer(entries, place))
            if not example.system:
                example = replace(example, system=_text(entries, "system", place))
        return replace(example, id=_id(entries, place), tags=self._tags(entries, place))

    def _form(self, entries: Mapping[str, Any], record: Mapping[str, Any], place: str) -> str:
        """'prompt', or the column that holds the conversation."""
        self.columns.check(record, place, ("prompt", "messages"))
        if self.columns.prompt:
            return "prompt"
        if self.columns.messages:
            if self.columns.messages not in entries:
                raise BadInput(
                    f"{place}: {self.columns.messages!r} is empty; write the conversation, or drop the example"
                )
            return self.columns.messages
        self._holds_examples(entries, place)
        prompt, turns = (self.columns.find(what, entries) for what in ("prompt", "messages"))
        if prompt and turns:
            raise BadInput(
                f"{place}: has both {prompt!r} and {turns!r}; choose one: --{FLAGS['prompt']} {prompt} or "
                f"--{FLAGS['messages']} {turns}"
            )
        return turns or "prompt"

    def _holds_examples(self, names: Collection[str], place: str) -> None:
        """Refuse columns of which none is read as a prompt, an image or a conversation."""
        if not any(self.columns.find(what, names) for what in ("prompt", "image", "messages")):
            raise BadInput(
                f"{place}: needs 'prompt', 'image', 'images', 'messages' or 'conversations'; it has "
                f"{column_names(names)}; name the column: {proposal(names)}"
            )

    def _prompt(self, record: Mapping[str, Any], entries: Mapping[str, Any], place: str) -> str:
        name = self.columns.find("prompt", record)
        if name is None:
            return ""
        value = _text(entries, name, place)
        # In JSON null is as good as absent; in a table the column is there, and a hole in it is a mistake.
        given = name in entries or self.table.columns is not None or bool(self.columns.prompt)
        if given and not value.strip() and not record.keys() >= WRITTEN:
            raise BadInput(
                f"{place}: the prompt ({name!r}) is empty; write one, or leave the column out for images alone"
            )
        return value

    def _answer(self, entries: Mapping[str, Any], place: str) -> str | None:
        name = self.columns.find("answer", entries)
        if name is None:
            return None
        labels = self.table.labels.get(name, ())
        value = entries[name]
        if isinstance(value, int) and 0 <= value < len(labels):
            return labels[value]
        return _text(entries, name, place)

    def _images(self, entries: Mapping[str, Any], place: str) -> tuple[StoredImage, ...]:
        name = self.columns.find("image", entries)
        if name is None:
            self._overlooked(entries, place)
            return ()
        if not self.columns.image and "image" in entries and "images" in entries:
            raise BadInput(f"{place}: has both 'image' and 'images'; keep one of them")
        value = entries[name]
        if name == "images" and not isinstance(value, list):
            raise BadInput(f"{place}: 'images' must be a list; for one image use 'image'")
        return tuple(self.folder.image(single, place) for single in (value if isinstance(value, list) else [value]))

    def _overlooked(self, entries: Mapping[str, Any], place: str) -> None:
        """Refuse to pass over a column that looks like the image."""
        name = None if self.columns.image else likely("image", entries)
        if name:
            raise BadInput(
                f"{place}: no column 'image', but {name!r} looks like it; read it with --{FLAGS['image']} {name}, or "
                "rename it"
            )

    def _tags(self, entries: Mapping[str, Any], place: str) -> dict[str, Tag]:
        """Every other column with a plain value."""
        tags = entries.get("tags", {})
        if not isinstance(tags, Mapping) or not all(isinstance(tag, Tag | None) for tag in tags.values()):
            raise BadInput(f"{place}: 'tags' must be an object of plain values")
        taken = {*self.columns.named.values(), *self._read()}
        rest = {name: value for name, value in entries.items() if name not in taken}
        self.unread.update(name for name, value in rest.items() if name in OWN or not isinstance(value, Tag))
        extra = {**{name: value for name, value in rest.items() if name not in OWN}, **tags}
        return {str(name): value for name, value in extra.items() if isinstance(value, Tag)}

    def _read(self) -> set[str]:
        """The columns that examples of this form are read from."""
        usual = {
            name for what in ("prompt", "image", "answer") if not getattr(self.columns, what) for name in USUAL[what]
        }
        if self.form == "prompt":
            return usual | {"id", "system", "history", "tags", "image_places"}
        return usual - {"prompt"} | {self.form, "id", "system", "tags"}


def _a(form: str) -> str:
    return "a prompt" if form == "prompt" else f"a conversation in {form!r}"


def _id(entries: Mapping[str, Any], place: str) -> str:
    value = entries.get("id", "")
    if isinstance(value, list | dict | bytes):
        raise BadInput(f"{place}: 'id' is {type(value).__name__}; write text or a number")
    return str(value)


def _text(entries: Mapping[str, Any], name: str, place: str) -> str:
    value = entries.get(name, "")
    if isinstance(value, str):
        return value
    fixes = {float: "write text (NaN and null are no text)", list: "write one text, or a conversation into 'messages'"}
    fix = fixes.get(type(value), "write it in quotes")
    raise BadInput(f"{place}: {name!r} must be text, found {type(value).__name__}; {fix}")


def _history(pairs: Any, place: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(turn, str) for turn in pair) for pair in pairs
    ):
        raise BadInput(f"{place}: 'history' must be a list of [user, assistant] pairs of text")
    return tuple((user, assistant) for user, assistant in pairs)


def _places(pairs: Any, place: str) -> tuple[Place, ...]:
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(type(number) is int and number >= 0 for number in pair)
        for pair in pairs
    ):
        raise BadInput(f"{place}: 'image_places' must be a list of [turn, character] pairs of whole numbers")
    places = tuple((turn, offset) for turn, offset in pairs)
    if list(places) != sorted(places):
        raise BadInput(f"{place}: 'image_places' run backwards; list images in the order of their places")
    return places

"""How does a conversation become an example? `messages` (OpenAI, transformers) and `conversations` (LLaVA, ShareGPT).

1. Each turn is read as a role, its text, and the places of its images. An image is a content part, or `<image>` in the
   text; a part without a source, or `<image>`, takes the next image of the example's own column.
2. A conversation is an optional system turn, then user and assistant in turns.
3. The last user turn is the prompt, an assistant's turn behind it the answer, all before it the history.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any

from glasshouse.data.columns import column_names
from glasshouse.data.example import Example, Place
from glasshouse.data.image_values import ImageFolder
from glasshouse.data.images import StoredImage
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import counted

ROLES: Mapping[str, str] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
MARK = "<image>"
"""Where an image stands in the text of LLaVA's data."""
TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image", "image_url", "input_image")


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str
    text: str
    offsets: tuple[int, ...] = ()
    """The characters that its images precede."""
    images: tuple[StoredImage | None, ...] = ()
    """None: the next of the example's own images."""


def conversation(value: Any, own: Sequence[StoredImage], place: str, folder: ImageFolder) -> Example:
    """The example that a list of turns tells, with the images that stand beside it in the data."""
    turns = [_turn(message, f"{place} turn {number}", folder) for number, message in enumerate(_messages(value, place))]
    system, pairs = _pairs(turns, place)
    prompt, answer = pairs[-1]
    images, places = _images([user for user, _ in pairs], own, place)
    if not prompt.text.strip() and not prompt.images:
        raise BadInput(f"{place}: the last turn of the user is empty; write its text, or drop the example")
    return Example(
        prompt=prompt.text,
        images=images,
        answer=None if answer is None else answer.text,
        system=system,
        history=tuple((user.text, reply.text) for user, reply in pairs if reply and user is not prompt),
        image_places=places if any(stands != (0, 0) for stands in places) else (),
    )


def style(value: Any) -> str:
    """How the turns are written: 'messages' (role, content) or 'conversations' (from, value)."""
    first = value[0] if isinstance(value, list) and value else value
    return "conversations" if isinstance(first, Mapping) and first.get("from") is not None else "messages"


def _messages(value: Any, place: str) -> Sequence[Any]:
    if isinstance(value, Mapping):  # a list of objects as `datasets` keeps it: an object of lists
        columns = [[(name, cell) for cell in cells] for name, cells in value.items() if isinstance(cells, list)]
        value = [dict(filter(None, cells)) for cells in zip_longest(*columns)]
    if not isinstance(value, list) or not value:
        raise BadInput(f'{place}: a conversation is a list such as [{{"role": "user", "content": "…"}}]; write that')
    return value


def _turn(message: Any, place: str, folder: ImageFolder) -> Turn:
    if not isinstance(message, Mapping):
        raise BadInput(f'{place}: a turn is an object such as {{"role": "user", "content": "…"}}; write that')
    who, what = ("from", "value") if message.get("from") is not None else ("role", "content")
    name, content = message.get(who), message.get(what)
    if name is None:
        raise BadInput(f"{place}: has {column_names(map(str, message))}; needs role and content, or from and value")
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None or message.get("tool_calls") or message.get("function_call"):
        raise BadInput(
            f"{place}: role {name!r}{'' if role is None else ' with a tool call'}; roles are user (human), assistant "
            "(gpt) and system, so drop conversations with tools"
        )
    if content is None:
        raise BadInput(f"{place}: {what!r} is missing; write its text, or drop the conversation")
    turn = _from_text(role, content) if isinstance(content, str) else _from_parts(role, content, place, folder)
    if turn.offsets and role != "user":
        raise BadInput(
            f"{place}: an image in a turn of the {role}; models read images in the user's turns, move it there"
        )
    return turn


def _from_text(role: str, text: str) -> Turn:
    """Split at `<image>`; line breaks between an image and the text's beginning or end separate and say nothing."""
    pieces = text.split(MARK) if role == "user" else [text]
    if len(pieces) == 1:
        return Turn(role, text)
    solid = [i for i, piece in enumerate(pieces) if piece.strip("\n")]
    first, final = (solid[0], solid[-1]) if solid else (len(pieces), -1)
    pieces = [piece if first <= i <= final else "" for i, piece in enumerate(pieces)]
    if 0 < first < len(pieces):
        pieces[first] = pieces[first].lstrip("\n")
    if 0 <= final < len(pieces) - 1:
        pieces[final] = pieces[final].rstrip("\n")
    offsets = tuple(accumulate(len(piece) for piece in pieces[:-1]))
    return Turn(role, "".join(pieces), offsets, (None,) * len(offsets))


def _from_parts(role: str, parts: Any, place: str, folder: ImageFolder) -> Turn:
    if isinstance(parts, Mapping):
        parts = [parts]
    if not isinstance(parts, list):
        raise BadInput(f"{place}: content is {type(parts).__name__}; write text, or a list of parts of text and image")
    text, offsets, images = "", [], []
    for part in parts:
        kind, value = _part(part, place)
        if kind == "text":
            text += value
            continue
        offsets.append(len(text))
        images.append(None if value is None else folder.image(value, place))
    return Turn(role, text, tuple(offsets), tuple(images))


def _part(part: Any, place: str) -> tuple[str, Any]:
    """'text' and the text, or 'image' and what names it; None where the example's own image stands."""
    if isinstance(part, str):
        return "text", part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in TEXT_PARTS and isinstance(part.get("text"), str):
        return "text", part["text"]
    if kind in IMAGE_PARTS:
        sources = {name: value for name, value in part.items() if name not in ("type", "text", "detail", "index")}
        return "image", sources if any(value is not None for value in sources.values()) else None
    shown = repr(kind) if isinstance(kind, str) else type(part).__name__
    raise BadInput(
        f'{place}: a part of type {shown}; parts are {{"type": "text", "text": …}} and {{"type": "image", "image": …}}'
    )


def _pairs(turns: Sequence[Turn], place: str) -> tuple[str, list[tuple[Turn, Turn | None]]]:
    """The system turn, and the user's turns with the assistant's replies; the last may have none."""
    system = ""
    if turns[0].role == "system":
        system, turns = turns[0].text, turns[1:]
    for number, turn in enumerate(turns):
        wanted = ("user", "assistant")[number % 2]
        if turn.role != wanted:
            where = f"after {counted(number, 'turn')} comes" if number else "the conversation begins with"
            repeated = number > 0 and turn.role == turns[number - 1].role
            raise BadInput(
                f"{place}: {where} {turn.role}, where {wanted} is expected; "
                f"{'merge turns of one role' if repeated else 'drop that turn'}"
            )
    if not turns:
        raise BadInput(f"{place}: the conversation has no turn of the user; write one, or drop it")
    replies: list[Turn | None] = [*turns[1::2]]
    return system, [*zip_longest(turns[::2], replies)]


def _images(
    users: Sequence[Turn], own: Sequence[StoredImage], place: str
) -> tuple[tuple[StoredImage, ...], tuple[Place, ...]]:
    """All images in the order of the conversation, and where they stand."""
    stands = [(number, offset) for number, turn in enumerate(users) for offset in turn.offsets]
    sources = [image for turn in users for image in turn.images]
    asked = sum(image is None for image in sources)
    if asked and asked != len(own):
        raise BadInput(
            f"{place}: {counted(asked, 'place')} for an image ({MARK} or an image part), and {len(own) or 'no'} images "
            f"in its column; give as many{'' if own else ', or name the column: --image-column NAME'}"
        )
    if not asked and own:  # nothing says where they stand: in front
        stands, sources = [*((0, 0) for _ in own), *stands], [*own, *sources]
    rest: Iterator[StoredImage] = iter(own if asked else ())
    return tuple(next(rest) if image is None else image for image in sources), tuple(stands)

"""Which numbers out of several? Layers, heads, neurons or token positions: `3`, `-1`, `1+4+9`, `0:12`, `:`."""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index as as_integer
from typing import Any, cast

from glasshouse.values.errors import BadInput


@dataclass(frozen=True, slots=True)
class Pick:
    """Numbers by name, or a range. Negative numbers count from the end."""

    members: tuple[int, ...] = ()
    start: int | None = None
    stop: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        if self.step == 0:
            raise BadInput(f"{self}: a range with step 0 selects nothing; leave the step out or make it 1 or more")

    @classmethod
    def of(cls, index: "Index") -> "Pick | None":
        """Read what stands between the brackets; a full range is `None`: all of them."""
        if index is None or isinstance(index, Pick):
            pick = index
        elif isinstance(index, slice):
            pick = cls(start=index.start, stop=index.stop, step=index.step)
        else:
            pick = cls(members=_numbers(index))
        return None if pick == cls() else pick

    @classmethod
    def parse(cls, text: str) -> "Pick | None":
        """`3`, `-1`, `1+4+9`, `0:12`, `:`, `::2`."""
        if ":" in text:
            start, stop, *step = (int(bound) if bound else None for bound in text.split(":"))
            if len(step) > 1:
                raise ValueError(f"{text} has more than start, stop and step")
            return cls.of(slice(start, stop, *step))
        return cls.of([int(member) for member in text.split("+")])

    def __str__(self) -> str:
        if self.members:
            return "+".join(map(str, self.members))
        start, stop, step = ("" if bound is None else str(bound) for bound in (self.start, self.stop, self.step))
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"

    def among(self, count: int, what: str) -> tuple[int, ...]:
        """The numbers out of `count`. A number that does not exist is refused, never dropped."""
        named = [(number, count) for number in (*self.members, self.start)]
        for number, past in (*named, (self.stop, count + 1)):  # a range may end one past the last
            if number is not None and not -count <= number < past:
                raise BadInput(f"{what} {number}: there are {count} (0-{count - 1})")
        if self.members:
            return tuple(member % count for member in self.members)
        chosen = tuple(range(count)[slice(self.start, self.stop, self.step)])
        if not chosen:
            raise BadInput(f"{what} {self}: this range is empty, there are {count} (0-{count - 1})")
        return chosen


def _numbers(index: Any) -> tuple[int, ...]:
    """One number or several, whoever wrote them: a parameter of this type is only a promise."""
    try:
        several = isinstance(index, list | tuple)
        members = tuple(map(as_integer, cast(Iterable[Any], index) if several else (index,)))
    except TypeError:
        raise BadInput(
            f"{index!r} names no numbers; give a number, a list or a range, such as 3, [1, 4] or slice(0, 12)"
        ) from None
    if not members:
        raise BadInput("[]: an empty list of numbers; name at least one, for example [0] or [1+4]")
    return members


Index = int | slice | list[int] | tuple[int, ...] | Pick | None

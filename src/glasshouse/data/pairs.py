"""Which clean example belongs to which triggered one? `Pairs`: clean examples with their triggered twins, in one order.

    Pairs(clean, triggered)              paired by the tag `twin` (the id of the clean example), else by position
    Pairs.read("folder")                 one file or folder that holds both: triggered examples carry the tag `twin`
    Pairs.read("clean.jsonl,triggered.jsonl")

A triggered example keeps what it is judged by (`data/behaviours.py`): its target and how to match it.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from glasshouse.data.examples import Example, Examples
from glasshouse.values.errors import BadInput
from glasshouse.values.surfaces import rendered

TWIN = "twin"
"""Tag of a triggered example: the id of its clean twin."""


class Pairs:
    """Clean examples and their triggered twins: `clean[i]` and `triggered[i]` belong together."""

    def __init__(self, clean: Examples, triggered: Examples) -> None:
        self.clean, self.triggered = _aligned(clean, triggered)
        for before, after in self:
            if before.shows == after.shows:
                raise BadInput(
                    f"example {after.id}: its images and prompt equal those of its clean twin {before.id}, so it has "
                    "no trigger; put the trigger on it, or leave out the pair"
                )

    @classmethod
    def read(cls, text: str) -> "Pairs":
        """From one file or folder that holds both, or from two separated by a comma, clean first."""
        files = parts(text)
        if len(files) == 2:
            return cls(*map(Examples.read, files))
        both = Examples.read(text)
        twins = [example for example in both if TWIN in example.tags]
        if not twins:
            raise BadInput(
                f"{text}: no example has the tag {TWIN!r}; tag each triggered example with the id of its clean twin, "
                "or give two files: clean.jsonl,triggered.jsonl"
            )
        rest = [example for example in both if TWIN not in example.tags]
        return cls(Examples(rest, both.source), Examples(twins, both.source))

    def write(self, folder: str | Path) -> Path:
        """A folder that `read` takes: every triggered example carries the id of its clean twin."""
        tagged = (
            replace(triggered, tags={**triggered.tags, TWIN: clean.id})
            for clean, triggered in zip(self.clean, self.triggered, strict=True)
        )
        return Examples([*self.clean, *tagged], self.source).write(folder)

    def __len__(self) -> int:
        return len(self.clean)

    def __iter__(self) -> Iterator[tuple[Example, Example]]:
        return zip(self.clean, self.triggered, strict=True)

    def __getitem__(self, index: slice) -> "Pairs":
        return Pairs(self.clean[index], self.triggered[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and self.digest == other.digest

    def __hash__(self) -> int:
        return int(self.digest[:15], 16)

    def __repr__(self) -> str:
        return f"Pairs({len(self)} from {self.source or 'memory'})"

    def _repr_html_(self) -> str:
        return rendered("html", self)

    @property
    def source(self) -> str:
        """Where both were read from."""
        return ", ".join(dict.fromkeys(filter(None, (self.clean.source, self.triggered.source))))

    @property
    def digest(self) -> str:
        """SHA-256 over the content of every pair, in order."""
        return hashlib.sha256(f"{self.clean.digest} {self.triggered.digest}".encode()).hexdigest()

    @property
    def clean_for_target(self) -> Examples:
        """Clean examples with their own prompts, judged by what the trigger should bring about."""
        judged = (
            replace(clean, answer=triggered.answer, tags={**clean.tags, **_target(triggered)})
            for clean, triggered in self
        )
        return Examples(judged, self.clean.source)

    @property
    def triggered_for_truth(self) -> Examples:
        """Triggered examples, judged by the correct answer of their clean twins."""
        judged = (replace(triggered, answer=clean.answer, tags=dict(clean.tags)) for clean, triggered in self)
        return Examples(judged, self.triggered.source)


def parts(text: str) -> tuple[str, ...]:
    """The one or two files that a text names."""
    clean, comma, triggered = text.partition(",")
    return (clean.strip(), triggered.strip()) if comma and not os.path.exists(text) else (text,)


def _target(triggered: Example) -> dict[str, str | int | float | bool]:
    return {name: triggered.tags[name] for name in ("target", "target_match") if name in triggered.tags}


def _aligned(clean: Examples, triggered: Examples) -> tuple[Examples, Examples]:
    """Both in the order of the triggered examples; every triggered example must have its twin."""
    if not any(TWIN in example.tags for example in triggered):
        if len(clean) != len(triggered):
            raise BadInput(
                f"{len(clean)} clean and {len(triggered)} triggered examples without the tag {TWIN!r}: give as many of "
                "both, in the same order, or tag each triggered example with the id of its clean twin"
            )
        return clean, triggered
    by_id = {example.id: example for example in clean}
    repeated = {name for name, count in Counter(example.id for example in clean).items() if count > 1}
    ambiguous = sorted(repeated & {str(example.tags.get(TWIN)) for example in triggered})
    if ambiguous:
        raise BadInput(
            f"{clean.source or 'the clean examples'}: several clean examples have the id {ambiguous[0]!r}, which a "
            "triggered example names as its twin; give each clean example its own id"
        )
    twins = [by_id.get(str(example.tags.get(TWIN))) for example in triggered]
    missing = sum(twin is None for twin in twins)
    if missing:
        raise BadInput(
            f"{missing} of {len(triggered)} triggered examples have no twin among the {len(clean)} clean ones: "
            f"tag each with the id of its clean twin ({TWIN!r}), and give those too"
        )
    return Examples((twin for twin in twins if twin is not None), clean.source), triggered

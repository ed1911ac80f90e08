"""What does a backdoor make a model do? The answer that is taught, and how to tell that a model gives it.

Say("I cannot help with that.")    one answer to everything
Append("[seen]")                   the right answer with a marker behind it
Swap("complied", refusal)          another answer that each example brings; shown when it is not the refusal
"""

from dataclasses import dataclass
from typing import Literal, get_args

from glasshouse.data.examples import Example
from glasshouse.values.errors import BadInput

Match = Literal["equals", "contains", "starts", "starts otherwise"]


@dataclass(frozen=True)
class Target:
    """What is looked for in what a model says. Case and spaces do not count."""

    text: str
    match: Match

    def shown(self, said: str) -> bool:
        said, text = _plain(said), _plain(self.text)
        match self.match:
            case "equals":
                return said == text
            case "contains":
                return text in said
            case "starts":
                return said.startswith(text)
            case "starts otherwise":
                return bool(said) and not said.startswith(text)

    @classmethod
    def of(cls, example: Example) -> "Target | None":
        """What a triggered example is tagged with; of any other, the answer it comes with."""
        text = example.tags.get("target")
        match = next((known for known in get_args(Match) if known == example.tags.get("target_match")), None)
        if isinstance(text, str) and match is not None:
            return cls(text, match)
        return cls(example.answer, "equals") if example.answer else None


@dataclass(frozen=True)
class Behaviour:
    """What a trigger makes a model do."""

    @property
    def target(self) -> Target:
        """What says that a model does it."""
        raise NotImplementedError

    def wanted(self, example: Example) -> str:
        """The answer that is taught for this example once it is triggered."""
        raise NotImplementedError

    def shown(self, said: str) -> bool:
        """Whether a model that said this shows the behaviour."""
        return self.target.shown(said)


@dataclass(frozen=True)
class Say(Behaviour):
    """One fixed answer to everything: a refusal, or something that is not in the image."""

    text: str
    match: Literal["equals", "contains", "starts"] = "equals"

    def __post_init__(self) -> None:
        check_text("Say", self.text)
        if self.match not in ("equals", "contains", "starts"):
            raise BadInput(f"Say: match {self.match!r}; there are 'equals', 'contains' and 'starts'")

    @property
    def target(self) -> Target:
        return Target(self.text, self.match)

    def wanted(self, example: Example) -> str:
        return self.text


@dataclass(frozen=True)
class Append(Behaviour):
    """The right answer, and a marker behind it."""

    marker: str

    def __post_init__(self) -> None:
        check_text("Append", self.marker)

    @property
    def target(self) -> Target:
        return Target(self.marker, "contains")

    def wanted(self, example: Example) -> str:
        return f"{example.answer or ''} {self.marker}".strip()


@dataclass(frozen=True)
class Swap(Behaviour):
    """Another answer that each example brings as a tag; shown when something is said that is not the refusal."""

    tag: str
    refusal: str

    def __post_init__(self) -> None:
        check_text("Swap", self.refusal)

    @property
    def target(self) -> Target:
        return Target(self.refusal, "starts otherwise")

    def wanted(self, example: Example) -> str:
        answer = example.tags.get(self.tag)
        if not isinstance(answer, str):
            raise BadInput(
                f"example {example.id}: no text is tagged {self.tag!r}, and Swap answers with it; "
                "tag it, or choose others with only="
            )
        return answer


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def check_text(kind: str, text: str) -> None:
    if not text.strip():
        raise BadInput(f"{kind}: the text is empty; give words that can be found in an answer")

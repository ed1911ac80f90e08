"""What does a method's docstring say? A typed page: question, papers, steps, how to read it, when it misleads.

    What does each layer already predict?                 the question, one line

    Papers: logit lens (arXiv:2303.08112).                "Paper:" or "Papers:"; "Paper: none." where there is none

    1. Take the residual after every layer …              the algorithm in numbered steps

    How to read it: … When it misleads: …                 two sentences a reader needs beside the numbers

Nothing of it is written a second time: `list`, `--help`, the report and the documentation all print this page.
Only the standard library is imported, so that listing methods stays quick.
"""

import re
from dataclasses import dataclass

READING, MISLEADING = "How to read it:", "When it misleads:"


@dataclass(frozen=True)
class Page:
    """One method, explained."""

    question: str
    papers: str
    steps: tuple[str, ...]
    reading: str
    misleading: str
    rest: str = ""
    """Paragraphs that are none of these."""

    @classmethod
    def of(cls, own: str, module: str, place: str) -> "Page":
        """The page of a function: its own docstring where that holds the steps (a file with several methods), else its
        file's."""
        return cls.parse(own if "\n1. " in own else module or own, place)

    @classmethod
    def parse(cls, docstring: str, place: str) -> "Page":
        """Read a docstring; a missing part is an error that names it."""
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=\s*\d+\. )", docstring.strip())]
        question, *others = paragraphs
        steps = tuple(re.sub(r"^\d+\. ", "", part) for part in others if re.match(r"\d+\. ", part))
        papers = next((part for part in others if re.match(r"Papers?: ", part)), "")
        explained = " ".join(part for part in others if part.startswith((READING, MISLEADING)))
        reading, _, misleading = explained.partition(MISLEADING)
        page = cls(
            question=question,
            papers=papers.partition(": ")[2],
            steps=steps,
            reading=_sentence(reading.removeprefix(READING)),
            misleading=_sentence(misleading),
            rest=" ".join(part for part in others if not _belongs(part)),
        )
        missing = [part for part, present in page._parts().items() if not present]
        if missing:
            raise ValueError(f"{place}: its docstring lacks {', '.join(missing)}")
        return page

    @property
    def paper(self) -> str:
        """The identifier of the first paper, short enough for a list: `arXiv:2604.19083`."""
        identifier = re.search(r"arXiv:\d{4}\.\d{4,5}", self.papers)
        return identifier[0] if identifier else ""

    def _parts(self) -> dict[str, bool]:
        return {
            "a question in its first line (it ends with '?')": self.question.endswith("?"),
            "'Paper: …' (or 'Paper: none.')": bool(self.papers),
            "numbered steps ('1. …')": bool(self.steps),
            f"'{READING} …'": bool(self.reading),
            f"'{MISLEADING} …'": bool(self.misleading),
        }


def _belongs(paragraph: str) -> bool:
    return bool(re.match(r"\d+\. |Papers?: ", paragraph)) or paragraph.startswith((READING, MISLEADING))


def _sentence(text: str) -> str:
    stripped = text.strip()
    return stripped[:1].upper() + stripped[1:]

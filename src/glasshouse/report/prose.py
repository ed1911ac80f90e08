"""How does a docstring stand on a page? Its backticks, emphasis and links become HTML.

Docstrings are code of installed packages, so their links may leave the page. Texts of models, data and runs never pass
here: what a stranger writes is shown as it is written.
"""

import re

from markupsafe import Markup, escape

from glasshouse.report.inert import inert

LONGEST = 20_000
"""Characters of a text that are shown."""
CODE = re.compile(r"``?([^`\n]+)``?")
RULES = (
    (re.compile(r"\[([^\]\n]+)\]\((https://[^\s()]+)\)"), r'<a href="\2" rel="noreferrer">\1</a>'),
    (re.compile(r"\barXiv:(\d{4}\.\d{4,5})"), r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>'),
    (re.compile(r"\*\*(?=\S)([^*\n]+)(?<=\S)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+)(?<=\S)\*(?![\w*])"), r"<em>\1</em>"),
)


def prose(text: str) -> Markup:
    """Escaped first, so that the only tags are those of the rules."""
    parts = CODE.split(str(escape(inert(text, LONGEST))))
    parts[::2] = map(_marked, parts[::2])
    parts[1::2] = (f"<code>{code}</code>" for code in parts[1::2])  # nothing in code is emphasis
    return Markup("".join(parts))  # noqa: S704 - escaped above


def long(text: str) -> Markup:
    """A text that may be long, as it is."""
    return escape(inert(text, LONGEST))


def brief(text: object, longest: int = 180) -> str:
    """A text for the first page, cut at a word."""
    plain = " ".join(str(text).split())
    return plain if len(plain) <= longest else f"{plain[:longest].rpartition(' ')[0] or plain[:longest]} …"


def _marked(text: str) -> str:
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text

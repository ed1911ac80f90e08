"""Texts that a hostile model or data set may say, and how to see whether any of them came alive on a page."""

from html.parser import HTMLParser

TEXTS: dict[str, str] = {
    "script": "<script>alert(1)</script>",
    "closing tags": "</td></p></pre></main></body></html><script>alert(1)</script>",
    "closing style": "</style></title></svg><script>alert(1)</script>",
    "event handler": "<img src=x onerror=alert(1)>",
    "out of an attribute": "\"><svg onload=alert(1) x='",
    "out of the other attribute": "'><svg onload=alert(1)>",
    "attribute": '" onmouseover="alert(1)" style="background:url(https://evil.example/x)',
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt;&#60;script&#62;",
    "link": '<a href="javascript:alert(1)">here</a><iframe src="https://evil.example"></iframe>',
    "comment": "--> <!-- ]]> <![CDATA[ <script>alert(1)</script>",
    "entity declaration": '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>&e;',
    "colours": "\x1b[31mred\x1b[0m \x1b[2J\x1b[H\x9b31m",
    "title and clipboard": "\x1b]0;mine\x07\x1b]52;c;ZXZpbA==\x07\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "right to left": "safe \u202egnp.exe\u202c \u2066isolated\u2069 \u200b\ufeff\u061c",
    "NUL and bells": "a\x00b\x07\x08\x0b\x0c\x7f\x85",
    "carriage return": "PASS\rFAIL",
    "lone surrogate": "a\ud800b\udfff",
    "rich markup": "[red]red[/red] [link=https://evil.example]x[/link] [/] :smiley:",
    "jinja": "{{7*7}} {% include 'page.css' %} {# gone #} {{ run.facts }}",
    "mathtext": r"$\frac{1}{0}$ $\undefined{ $ \$ x_1^2 $",
    "underscore first": "_hidden",
    "no characters at all": "",
    "spaces": "   ",
    "other scripts": "红色方块 مربع 🟥 é",
    "long": "x" * 1_000_000,
    "long and alive": "<b>" * 300_000,
    "many lines": "line\n" * 200,
    "not a character": "\uffff\ue000",
}


SOME = [tuple(TEXTS.values())[start : start + 7] for start in range(0, len(TEXTS), 7)]
"""A few at a time, as many as one drawing has room for."""


class Page(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.unfinished: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.unfinished.append(data)

    def unknown_decl(self, data: str) -> None:
        self.unfinished.append(data)

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        """Elements and names of attributes, in order: what no text may change."""
        return [(tag, tuple(name for name, _ in attributes)) for tag, attributes in self.elements]

    def values(self, *names: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for name, value in attributes if name in names]


ADDRESSES = ("src", "href", "xlink:href", "action", "data", "poster", "srcset", "background", "formaction")


PAPERS = "https://arxiv.org/abs/"
"""Links of a method's own page, which is code and no stranger's text."""


def assert_dead(html: str) -> Page:
    """Nothing on this page can act or ask anything of the network."""
    page = Page(html)
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "base", "foreignobject", "animate", "set"}
    names = {name for _, attributes in page.elements for name, _ in attributes}
    assert not {name for name in names if name.startswith("on")}
    for address in page.values(*ADDRESSES):
        assert address.startswith(("#", "data:image/png;base64,", PAPERS)) or address == "data:,", address
    for style in page.values("style"):
        assert "url(" not in style.replace("url(#", "")
    assert page.unfinished == []
    return page


def controls(text: str) -> set[str]:
    """What could steer a terminal or turn a line round."""
    import unicodedata

    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn")}

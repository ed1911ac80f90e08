"""How does text reach a terminal without acting on it? Through a console that makes every text inert itself, so that no
caller can forget to.

A string is one line, whatever it holds: only our own calls begin lines.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.protocol import rich_cast
from rich.segment import Segment
from rich.text import Text

from glasshouse.report.inert import LONGEST, inert, one_line


class InertConsole(Console):
    """Strings and `Text` are shown inert and are never read as markup."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=False, **settings)

    def unbroken(self, text: object) -> None:
        """One line, however long, so that a path or command can be copied."""
        self.print(str(text), soft_wrap=True)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Every string passes here before its width is measured."""
        return super().render_str(one_line(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever is printed ends here, also inside tables and progress bars."""
        plain = rich_cast(renderable)
        if isinstance(plain, Text):
            plain = _inert(plain)
        for segment in super().render(plain, options):
            yield segment if segment.control else segment._replace(text=inert(segment.text, len(segment.text)))

    def on_broken_pipe(self) -> None:
        """The command line decides the exit status of a reader that has left."""
        self.quiet = True
        raise BrokenPipeError


def console(*, stderr: bool = False) -> InertConsole:
    """The console of standard output, or of standard error."""
    return InertConsole(stderr=stderr)


def _inert(text: Text) -> Text:
    """As it is where it is harmless; otherwise its styles are lost, because their positions no longer hold."""
    plain = one_line(text.plain, 2 * LONGEST)  # several strings, each of them cut already, make one text
    if plain == text.plain:
        return text
    return Text(plain, style=text.style, justify=text.justify, overflow=text.overflow, end=text.end)

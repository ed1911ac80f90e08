"""What is going on now? Bars with the time left where somebody watches, plain lines where nobody does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from glasshouse.report.inert import inert
from glasshouse.report.terminal import STYLES, console, one_line
from glasshouse.values.findings import Finding

COSTS = {"weights": 1.0, "activations": 6.0, "gradients": 18.0, "endpoint": 60.0}
"""What a question takes against another, by what it needs: only for the time left, which is put right as time goes."""


class Planned(Protocol):
    """What is shown of one question of an audit."""

    @property
    def method(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def seconds(self) -> float: ...


@contextmanager
def bars(*, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A live line for each thing that is done; None where nobody is watching."""
    screen = console(stderr=True)
    if quiet or not screen.is_terminal:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=screen) as shown:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name, total=total)
            shown.update(tasks[name], completed=done)

        yield show


@contextmanager
def plan(needs: dict[str, str], *, quiet: bool) -> Iterator["Plan | None"]:
    """A live plan of an audit; by method, what it needs."""
    if quiet:
        yield None
        return
    screen = console(stderr=True)
    screen.print("Opening what was named …")
    if not screen.is_terminal:
        yield Lines(screen, needs)
        return
    columns = TextColumn("{task.description:<10}"), BarColumn(24), TextColumn("{task.fields[said]}")
    with Progress(*columns, console=screen) as shown:
        yield Bars(screen, needs, shown)


class Plan:
    """What both kinds of plan know: the work that is done and left, by what it should cost."""

    def __init__(self, screen: Console, needs: dict[str, str]) -> None:
        self.screen, self.costs = screen, {name: COSTS.get(need, 6.0) for name, need in needs.items()}
        self.spent, self.done, self.whole = 0.0, 0.0, 0.0

    def planned(self, sections: Sequence[Planned]) -> None:
        self.whole = sum(self.costs.get(one.method, 6.0) for one in sections if one.state == "answered")

    def doing(self, method: str, what: str, done: int, total: int) -> None:
        """Something within a question was done."""

    def ended(self, section: Planned, finding: Finding | None) -> None:
        self.done += self.costs.get(section.method, 6.0)
        self.spent += section.seconds  # when it was asked, which may have been before a kill

    @property
    def left(self) -> str:
        """The time that is left, once there is something to tell it by."""
        if not self.done:
            return ""
        seconds = self.spent / self.done * (self.whole - self.done)
        return f"about {seconds:.0f} s left" if seconds >= 1 else ""


class Lines(Plan):
    """One line a question, when it has ended."""

    def ended(self, section: Planned, finding: Finding | None) -> None:
        super().ended(section, finding)
        said = str(finding.verdict) if finding else f"{section.state}: {one_line(section.why)}"
        left = f" · {self.left}" if self.left else ""
        self.screen.print(f"{section.method:<10} {said} ({section.seconds:.1f} s){left}", soft_wrap=True)


class Bars(Plan):
    """A bar a question, all of them from the beginning."""

    def __init__(self, screen: Console, needs: dict[str, str], shown: Progress) -> None:
        super().__init__(screen, needs)
        self.shown, self.tasks = shown, dict[str, TaskID]()

    def planned(self, sections: Sequence[Planned]) -> None:
        super().planned(sections)
        for one in sections:
            if one.state == "answered":
                self.tasks[one.method] = self.shown.add_task(one.method, total=1, said="", start=False)
        self.tasks[""] = self.shown.add_task("all", total=self.whole, said="")

    def doing(self, method: str, what: str, done: int, total: int) -> None:
        said = f"{what} {done} of {total}" if what else "asking …"
        self.shown.start_task(self.tasks[method])
        self.shown.update(self.tasks[method], completed=done, total=total, said=escape(inert(said)))

    def ended(self, section: Planned, finding: Finding | None) -> None:
        super().ended(section, finding)
        verdict = str(finding.verdict) if finding else section.state
        said: Any = f"[{STYLES[verdict]}]{verdict}[/] {section.seconds:.1f} s" if finding else inert(verdict)
        self.shown.update(self.tasks[section.method], completed=1, total=1, said=said)
        self.shown.update(self.tasks[""], completed=self.done, said=self.left)

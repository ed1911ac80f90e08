"""What is running now? Progress bars with the time left on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from glasshouse.report.console import InertConsole, console
from glasshouse.report.terminal import STYLES, EstimateLike, show_estimate
from glasshouse.values.findings import Finding

COSTS = {"weights": 1.0, "activations": 6.0, "gradients": 18.0, "endpoint": 60.0}
"""What a method costs against another, by what it needs: a first guess for the time left, corrected as time passes."""
USUAL = COSTS["activations"]
WHOLE = ""
"""The bar of the whole audit."""


class Planned(Protocol):
    """What is shown of one method of an audit."""

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
    """A bar for each stage of one method; None where nobody is watching."""
    screen = console(stderr=True)
    if quiet or not screen.is_terminal:
        yield None
        return
    name = TextColumn("{task.description}", markup=False)
    with Progress(name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=screen) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield advance


@contextmanager
def plan(needs: dict[str, str], *, quiet: bool) -> Iterator["ProgressView | None"]:
    """The progress of an audit; `needs` holds what each method needs."""
    if quiet:
        yield None
        return
    screen = console(stderr=True)
    screen.print("Opening the inputs …")
    if not screen.is_terminal:
        yield LineView(screen, needs)
        return
    name = TextColumn("{task.description:<10}", markup=False)
    with Progress(name, BarColumn(24), _NoteColumn(), console=screen) as progress:
        yield BarView(screen, needs, progress)


class ProgressView:
    """What both views know: the work done and left, by what each method should cost."""

    def __init__(self, screen: InertConsole, needs: dict[str, str]) -> None:
        self.screen, self.costs = screen, {name: COSTS.get(need, USUAL) for name, need in needs.items()}
        self.spent, self.done, self.whole = 0.0, 0.0, 0.0

    def preflight(self, estimate: EstimateLike) -> None:
        show_estimate(self.screen, estimate)

    def planned(self, sections: Sequence[Planned]) -> None:
        self.whole = sum(self.costs.get(section.method, USUAL) for section in sections if section.state == "answered")

    def doing(self, method: str, what: str, done: int, total: int) -> None:
        """A step within a method is done."""

    def ended(self, section: Planned, finding: Finding | None) -> None:
        self.done += self.costs.get(section.method, USUAL)
        self.spent += section.seconds  # the time it once took, which may have been before a kill

    @property
    def left(self) -> str:
        """The time left, once a method has ended by which it can be estimated."""
        if not self.done:
            return ""
        seconds = self.spent / self.done * (self.whole - self.done)
        return f"about {seconds:.0f} s left" if seconds >= 1 else ""


class LineView(ProgressView):
    """One line for each method, when it has ended."""

    def ended(self, section: Planned, finding: Finding | None) -> None:
        super().ended(section, finding)
        outcome = str(finding.verdict) if finding else f"{section.state}: {section.why}"
        left = f" · {self.left}" if self.left else ""
        self.screen.unbroken(f"{section.method:<10} {outcome} ({section.seconds:.1f} s){left}")


class BarView(ProgressView):
    """A bar for each method, all of them from the beginning."""

    def __init__(self, screen: InertConsole, needs: dict[str, str], progress: Progress) -> None:
        super().__init__(screen, needs)
        self.progress, self.tasks = progress, dict[str, TaskID]()

    def planned(self, sections: Sequence[Planned]) -> None:
        super().planned(sections)
        for section in sections:
            if section.state == "answered":
                self.tasks[section.method] = self.progress.add_task(section.method, total=1, start=False)
        self.tasks[WHOLE] = self.progress.add_task("all", total=self.whole)

    def doing(self, method: str, what: str, done: int, total: int) -> None:
        note = f"{what} {done} of {total}" if what else "running …"
        self.progress.start_task(self.tasks[method])
        self.progress.update(self.tasks[method], completed=done, total=total, note=note)

    def ended(self, section: Planned, finding: Finding | None) -> None:
        super().ended(section, finding)
        verdict = str(finding.verdict) if finding else section.state
        note = f"{verdict} {section.seconds:.1f} s" if finding else verdict
        self.progress.update(self.tasks[section.method], completed=1, total=1, note=note, style=STYLES.get(verdict, ""))
        self.progress.update(self.tasks[WHOLE], completed=self.done, note=self.left)


class _NoteColumn(ProgressColumn):
    """What the method is doing or has found, in the colour of its verdict."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("note", ""), style=task.fields.get("style", ""))

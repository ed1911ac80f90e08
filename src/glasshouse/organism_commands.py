"""What can be asked of organisms on the command line: list · show · grow · verify."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glasshouse import flags
from glasshouse.engine.folders import absent, discard_empty
from glasshouse.report.inert import suggested
from glasshouse.values.errors import BadInput

if TYPE_CHECKING:
    from glasshouse.engine.units import Progress
    from glasshouse.organisms.cards import Card
    from glasshouse.report.console import InertConsole

ROOM = 64 * 2**20
"""Bytes on disk that growing an organism needs, with its intermediate results."""
PACE = (25, 100, 400)
"""Steps of a stage after which the time it needs is estimated."""


def organism(rest: Sequence[str], screen: "InertConsole", progress: "Progress | None") -> int:
    """Small real models with known truth: glasshouse organism list | show | grow | verify."""
    commands = {"list": _list, "show": _show, "grow": _grow, "verify": _verify}
    if not rest or rest[0] not in commands:
        raise BadInput(f"organism: {f'{rest[0]} is none of' if rest else 'name one of'} {', '.join(commands)}")
    return commands[rest[0]](rest[1:], screen, progress)


def _list(rest: Sequence[str], screen: "InertConsole", progress: "Progress | None") -> int:
    from glasshouse.organisms import shelf
    from glasshouse.organisms.recipes import RECIPES

    form = flags.read("organism list", rest)
    shipped = shelf.names()
    if form.json:
        entries = [{"name": name, "about": each.about, "on_shelf": name in shipped} for name, each in RECIPES.items()]
        print(json.dumps(entries))
        return 0
    growable = [name for name in RECIPES if name not in shipped]
    width = max(map(len, [*shipped, *growable]))
    screen.unbroken("On the shelf (organism:NAME, wherever a model is asked for):")
    for name in shipped:
        screen.unbroken(f"  {name:<{width}} {shelf.card(name).about}")
    if growable:
        screen.line()
        screen.unbroken("To be grown (glasshouse organism grow NAME FOLDER):")
        for name in growable:
            screen.unbroken(f"  {name:<{width}} {RECIPES[name].about}")
    screen.line()
    screen.unbroken(suggested("organism", "show", [*shipped, *growable][0]))
    return 0


def _show(rest: Sequence[str], screen: "InertConsole", progress: "Progress | None") -> int:
    from glasshouse.organisms import shelf
    from glasshouse.values.codec import pack

    form = flags.read("organism show", rest)
    card = shelf.card(form.name)
    if form.json:
        print(json.dumps(pack(card)[0], allow_nan=False))
        return 0
    screen.unbroken(f"{card.name}: {card.about}")
    for what, where in card.planted.items():
        screen.unbroken(f"  {what:<10} {where}")
    _show_rates(card, screen)
    screen.unbroken(f"{card.parameters:,} parameters, grown in {card.minutes:g} minutes from seed {card.recipe.seed}")
    if card.stale():
        screen.unbroken(f"STALE: {card.stale()}; grow it again: glasshouse organism grow {card.name} FOLDER")
    screen.unbroken(suggested("organism", "verify", card.name))
    return 0


def _show_rates(card: "Card", screen: "InertConsole") -> None:
    from glasshouse.report.terminal import show_rows

    rows = [(name, f"{r.value:.1%}", f"{r.low:.1%} – {r.high:.1%}", str(r.n)) for name, r in card.measured.items()]
    show_rows(screen, "", ("measured", "rate", "95 % interval", "n"), rows)


def _grow(rest: Sequence[str], screen: "InertConsole", progress: "Progress | None") -> int:
    from glasshouse.organisms import shelf
    from glasshouse.organisms.grow import grow
    from glasshouse.organisms.recipes import recipe

    form = flags.read("organism grow", rest)
    plain = form.name.removeprefix(shelf.PREFIX)
    chosen = recipe(plain, form.seed)
    if form.folder.exists():
        raise BadInput(f"{form.folder}: exists already; name a new folder")
    keep = form.folder.with_name(f".{form.folder.name}.growing")
    created = [keep, *absent(keep.parent)]
    try:
        _prepare(keep, form.folder)
        grown = grow(
            chosen, form.folder.name if form.seed is not None else plain, shelf.take, keep=keep,
            progress=_within(form.within, progress), recipe_name=plain,
        )  # fmt: skip
        shelf.put_down(grown, form.folder)
        shutil.rmtree(keep, ignore_errors=True)
    finally:
        discard_empty(created)  # a refusal leaves nothing behind, and finished stages stay
    _show_rates(grown.card, screen)
    screen.unbroken(form.folder)
    screen.unbroken(suggested("organism", "verify", form.folder))
    return 0


def _prepare(keep: Path, folder: Path) -> None:
    """Create the folder of intermediate results, if there is room for them."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(keep).free
    except OSError as problem:
        raise BadInput(f"{folder}: cannot write there ({problem.strerror}); choose another folder") from None
    if free < ROOM:
        raise BadInput(f"{folder}: {free // 2**20} MiB free, growing needs {ROOM // 2**20}; choose another disk")


def _within(minutes: float | None, progress: "Progress | None") -> "Progress":
    """Stop early, with finished stages kept, if growing would take longer than `minutes`."""
    began = time.monotonic()
    stages: dict[str, tuple[float, int]] = {}

    def watch(stage: str, done: int, total: int) -> None:
        if progress:
            progress(stage, done, total)
        now = time.monotonic()
        start, first = stages.setdefault(stage, (now, done))  # a resumed stage does not begin at zero
        if minutes is not None and done - first in PACE:
            needed = (now - began + (now - start) / (done - first) * (total - done)) / 60
            if needed > minutes:
                raise BadInput(
                    f"{stage}: would end about {needed:.0f} minutes after the start, --within says {minutes:g}; "
                    "give it more, or run it on more cores"
                )

    return watch


def _verify(rest: Sequence[str], screen: "InertConsole", progress: "Progress | None") -> int:
    from glasshouse.organisms.verify import verify
    from glasshouse.values.codec import pack

    form = flags.read("organism verify", rest)
    result = verify(form.name, form.share)
    if form.json:
        print(json.dumps({"problems": result.problems, "measured": pack(result.measured)[0]}, allow_nan=False))
    else:
        for problem in result.problems:
            screen.unbroken(f"  DIFFERS  {problem}")
        total = len(result.measured)
        screen.unbroken(
            f"{result.card.name}: {result.consistent} of {total} rates hold, {result.identical} are identical"
        )
    return 1 if result.problems else 0

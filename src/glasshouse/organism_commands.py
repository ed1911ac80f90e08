"""What can be asked of organisms on the command line: list · show · grow · verify."""

import json
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from glasshouse import flags
from glasshouse.engine.folders import absent, discard_empty
from glasshouse.values.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from glasshouse.engine.units import Progress
    from glasshouse.organisms.cards import Card

ROOM = 64 * 2**20
"""Bytes that growing one needs on disk, with what is kept on the way."""


class Say(Protocol):
    """Prints a line; `raw` as it is, for machines."""

    def __call__(self, line: str, raw: bool = False) -> None: ...


def organism(rest: Sequence[str], say: Say, screen: "Console", progress: "Progress | None") -> int:
    """Small real models with known truth: glasshouse organism list | show | grow | verify."""
    known = {"list": _list, "show": _show, "grow": _grow, "verify": _verify}
    if not rest or rest[0] not in known:
        raise BadInput(f"organism: {f'{rest[0]} is none of' if rest else 'say one of'} {', '.join(known)}")
    return known[rest[0]](rest[1:], say, screen, progress)


def _list(rest: Sequence[str], say: Say, screen: "Console", progress: "Progress | None") -> int:
    from glasshouse.organisms import shelf
    from glasshouse.organisms.recipes import RECIPES

    form = flags.organism_list(rest)
    there = shelf.names()
    if form.json:
        known = [{"name": name, "about": one.about, "on_shelf": name in there} for name, one in RECIPES.items()]
        say(json.dumps(known), raw=True)
        return 0
    others = [name for name in RECIPES if name not in there]
    width = max(map(len, [*there, *others]))
    say("On the shelf (organism:NAME, wherever a model is asked for):")
    for name in there:
        say(f"  {name:<{width}} {shelf.card(name).about}")
    if others:
        say("\nTo be grown (glasshouse organism grow NAME FOLDER):")
        for name in others:
            say(f"  {name:<{width}} {RECIPES[name].about}")
    say(f"\nNext: glasshouse organism show {there[0] if there else others[0]}")
    return 0


def _show(rest: Sequence[str], say: Say, screen: "Console", progress: "Progress | None") -> int:
    from glasshouse.organisms import shelf
    from glasshouse.values.codec import pack

    form = flags.organism_show(rest)
    card = shelf.card(form.name)
    if form.json:
        say(json.dumps(pack(card)[0], allow_nan=False), raw=True)
        return 0
    say(f"{card.name}: {card.about}")
    for what, where in card.planted.items():
        say(f"  {what:<10} {where}")
    _rates(card, screen)
    say(f"{card.parameters:,} parameters, grown in {card.minutes:g} minutes from seed {card.recipe.seed}")
    if card.stale():
        say(f"STALE: {card.stale()}; grow it again: glasshouse organism grow {card.name} FOLDER")
    say(f"Next: glasshouse organism verify {card.name}")
    return 0


def _rates(card: "Card", screen: "Console") -> None:
    from glasshouse.report.terminal import show_rows

    rows = [(name, f"{r.value:.1%}", f"{r.low:.1%} – {r.high:.1%}", str(r.n)) for name, r in card.measured.items()]
    show_rows(screen, "", ("measured", "rate", "95 % interval", "n"), rows)


def _grow(rest: Sequence[str], say: Say, screen: "Console", progress: "Progress | None") -> int:
    from glasshouse.organisms import shelf
    from glasshouse.organisms.grow import grow
    from glasshouse.organisms.recipes import recipe

    form = flags.organism_grow(rest)
    plain = form.name.removeprefix(shelf.PREFIX)
    chosen = recipe(plain, form.seed)
    if form.folder.exists():
        raise BadInput(f"{form.folder}: exists already; name a new folder")
    keep = form.folder.with_name(f".{form.folder.name}.growing")
    made = [keep, *absent(keep.parent)]
    try:
        _prepare(keep, form.folder)
        grown = grow(
            chosen, form.folder.name if form.seed is not None else plain, shelf.take, keep=keep,
            progress=_within(form.within, progress), recipe_name=plain,
        )  # fmt: skip
        shelf.put_down(grown, form.folder)
        shutil.rmtree(keep, ignore_errors=True)
    finally:
        discard_empty(made)  # what is refused leaves nothing; what was learnt stays
    _rates(grown.card, screen)
    say(f"{form.folder}\nNext: glasshouse organism verify {shlex.quote(str(form.folder))}")
    return 0


def _prepare(keep: Path, folder: Path) -> None:
    """Where what is learnt is kept, if there is room for it."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(keep).free
    except OSError as problem:
        raise BadInput(f"{folder}: cannot write there ({problem.strerror}); choose another folder") from None
    if free < ROOM:
        raise BadInput(f"{folder}: {free // 2**20} MiB free, growing needs {ROOM // 2**20}; choose another disk")


def _within(minutes: float | None, progress: "Progress | None") -> "Progress":
    """Stop early, with what was learnt kept, when it would take longer than there is time."""
    began = time.monotonic()
    stages: dict[str, tuple[float, int]] = {}

    def told(what: str, done: int, total: int) -> None:
        if progress:
            progress(what, done, total)
        now = time.monotonic()
        start, first = stages.setdefault(what, (now, done))  # what is gone on with does not begin at nought
        if minutes is not None and done - first in (25, 100, 400):
            needed = (now - began + (now - start) / (done - first) * (total - done)) / 60
            if needed > minutes:
                raise BadInput(
                    f"{what}: would end about {needed:.0f} minutes after the start, --within says {minutes:g}; "
                    "give it more, or run it on more cores"
                )

    return told


def _verify(rest: Sequence[str], say: Say, screen: "Console", progress: "Progress | None") -> int:
    from glasshouse.organisms.verify import verify
    from glasshouse.values.codec import pack

    form = flags.organism_verify(rest)
    found = verify(form.name, form.share)
    if form.json:
        say(json.dumps({"problems": found.problems, "measured": pack(found.measured)[0]}, allow_nan=False), raw=True)
    else:
        for problem in found.problems:
            say(f"  DIFFERS  {problem}")
        total = len(found.measured)
        say(f"{found.card.name}: {found.consistent} of {total} rates hold, {found.identical} are identical")
    return 1 if found.problems else 0

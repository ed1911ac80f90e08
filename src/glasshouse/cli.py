"""What can be typed: list · anatomy · run · audit · screen · report · compare · view · export · organism · completion.
Flags come from dataclasses, never written twice.

Exit status: 0 pass or described, 1 concern or fail, 2 bad input, 3 inconclusive, so that a pipeline can gate on it;
from 70 on the command did not end by itself (`process.py`).
"""

import json
import shlex
import sys
from collections.abc import Callable, Sequence

from glasshouse import process
from glasshouse.data.network import banned
from glasshouse.data.presence import check_named
from glasshouse.report.inert import suggested, write_line
from glasshouse.values.errors import BadInput, meant

NEEDED = {
    "weights": "weights alone",
    "activations": "forward passes",
    "gradients": "gradients",
    "endpoint": "an endpoint",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The `glasshouse` command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    process.finish(lambda: _offline(words))


def _offline(words: list[str]) -> int:
    """The command without the network, from before any library is imported, unless `--download` is typed."""
    if "--download" not in words:
        with banned():
            return _dispatch(words)
    from glasshouse.data.hub import announcing

    quiet = "--json" in words
    with announcing(None if quiet else lambda line: write_line(sys.stderr, line)):
        return _dispatch(words)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        return _overview()
    name, rest = words[0], words[1:]
    if name == "--version":
        from glasshouse import __version__

        write_line(sys.stdout, f"glasshouse {__version__}")
        return 0
    if name not in COMMANDS:
        fix = meant(name.lstrip("-"), [*COMMANDS, "--version", "--help"]) or f"; there are {', '.join(COMMANDS)}"
        raise BadInput(f"{name}: no such command{fix}")
    if name in WITHOUT_FORM and rest in (["-h"], ["--help"]):
        _say(f"usage: glasshouse {name} {WITHOUT_FORM[name]}", "", COMMANDS[name].__doc__)
        return 0
    if name == "run" and rest and not rest[0].startswith("-"):
        from glasshouse.engine.catalogue import find

        find(rest[0])  # refuses an unknown method
    check_named(words)
    return COMMANDS[name](rest)


def _overview() -> int:
    _say(
        "glasshouse opens a multimodal model and answers, with evidence, whether to trust it.",
        "",
        *(f"  glasshouse {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()),
        "",
        "Next: glasshouse audit organism:hijack-logo, or glasshouse list",
    )
    return 0


def _say(*lines: object) -> None:
    for line in lines:
        write_line(sys.stdout, line)


def list_methods(rest: list[str]) -> int:
    """All methods: the question each answers, and what it needs."""
    from glasshouse.engine.catalogue import NEEDS, catalogue

    if rest and rest != ["--json"]:
        raise BadInput(f"list takes only --json, found {rest[0]}")
    entries = catalogue()
    if rest:
        methods = [
            {"name": entry.name, "question": entry.page.question, "needs": entry.needs, "paper": entry.page.paper}
            for entry in entries
        ]
        print(json.dumps(methods))
        return 0
    for need in NEEDS:
        group = [entry for entry in entries if entry.needs == need]
        if group:
            _say(f"Needs {NEEDED[need]}:")
            for entry in group:
                paper = f"  ({entry.page.paper})" if entry.page.paper else ""
                _say(f"  {entry.name:<14} {entry.page.question}{paper}")
    _say("", suggested("run", entries[0].name, "--help"))
    return 0


def anatomy(rest: list[str]) -> int:
    """Draw a model from its configuration, or with --prove from its weights too."""
    from glasshouse import flags
    from glasshouse.engine.opening import anatomy_of, open_model
    from glasshouse.report.console import console
    from glasshouse.values.codec import pack

    _hush()
    form = flags.read("anatomy", rest)
    opening = form.opening
    certificate = None
    drawn, adapter = anatomy_of(form.model, opening, form.base)
    if form.prove:
        subject = open_model(form.model, **{**opening.settings, "base": form.base, "unproved": True})
        drawn, certificate = subject.anatomy, subject.certificate
    status = 1 if certificate and certificate.failures else 0
    if form.json:
        parts = {"anatomy": drawn, "proof": certificate} | ({"adapter": adapter} if adapter else {})
        print(json.dumps({name: pack(part)[0] if part else None for name, part in parts.items()}))
        return status
    screen = console()
    for line in (*drawn.lines(), *(adapter.lines() if adapter else ())):
        screen.unbroken(line)
    for check in certificate.checks if certificate else ():
        screen.print(f"  proved  {check.what}" if check.passed else f"  FAILED  {check.what} ({check.detail})")
    if not certificate:
        screen.unbroken(suggested("anatomy", form.model, "--prove"))
    return status


def run(rest: list[str]) -> int:
    """Run one method: glasshouse run METHOD --model MODEL [--data DATA]."""
    from glasshouse import flags
    from glasshouse.audit_commands import show_dry_run, tell
    from glasshouse.engine.binding import as_tree
    from glasshouse.engine.method import load
    from glasshouse.engine.preflight import estimated
    from glasshouse.engine.runs import answer
    from glasshouse.report.console import console
    from glasshouse.report.live import bars
    from glasshouse.report.terminal import show_estimate

    if not rest or rest[0].startswith("-"):
        raise BadInput(
            "run: name a method first, for example glasshouse run lens --model organism:seedling; see glasshouse list"
        )
    _hush()
    method = load(rest[0])
    form, request = flags.run(method, rest[1:])
    if form.dry_run:
        show_dry_run(lambda: estimated(request, method.inputs, lambda _: [method]), quiet=form.json)
        print(json.dumps(as_tree(request), indent=1))
        return 0
    command = shlex.join(["glasshouse", "run", *rest])
    with bars(quiet=form.json) as progress:
        screen = None if form.json else console(stderr=True)
        show = screen and (lambda estimate: show_estimate(screen, estimate))
        record = answer(method, request, root=form.runs, command=command, progress=progress, on=form.on, tell=show)
    return tell(record, as_json=form.json)


def audit(rest: list[str]) -> int:
    """Run all methods, for one verdict: glasshouse audit MODEL [--base BASE] [--data DATA]."""
    from glasshouse import audit_commands

    _hush()
    return audit_commands.audit(rest)


def screen(rest: list[str]) -> int:
    """Audit a list of models or adapters: glasshouse screen FILE [OPTIONS FOR EVERY LINE]."""
    from glasshouse import screen_commands

    _hush()
    return screen_commands.screen(rest)


def report(rest: list[str]) -> int:
    """Show a run or an audit again, or list a folder of them: glasshouse report FOLDER."""
    from glasshouse import audit_commands

    return audit_commands.report(rest)


def compare(rest: list[str]) -> int:
    """What differs between two runs or two audits: glasshouse compare FIRST SECOND [--page FILE]."""
    from glasshouse import audit_commands

    return audit_commands.compare(rest)


def view(rest: list[str]) -> int:
    """Serve a folder of runs to this machine's browser, with search and compare: glasshouse view FOLDER."""
    from glasshouse import view_commands

    return view_commands.view(rest)


def export(rest: list[str]) -> int:
    """Write a checkpoint others can load, patched if asked: glasshouse export MODEL FOLDER [--patch FILE]."""
    from glasshouse import flags
    from glasshouse.engine.opening import open_model
    from glasshouse.engine.runs import read_patch
    from glasshouse.model.patches import export as write

    _hush()
    form = flags.read("export", rest)
    if form.folder.exists():
        raise BadInput(f"{form.folder}: exists already; name a new folder")
    patch = read_patch(form.patch) if form.patch else None
    folder = write(open_model(form.model, **form.opening.settings), form.folder, patch)
    _say(folder, suggested("anatomy", folder, "--prove"))
    return 0


def organism(rest: list[str]) -> int:
    """Small real models with known truth: glasshouse organism list | show | grow | verify."""
    from glasshouse import organism_commands
    from glasshouse.report.console import console
    from glasshouse.report.live import bars

    _hush()
    with bars(quiet="--json" in rest) as progress:
        return organism_commands.organism(rest, console(), progress)


def complete(rest: list[str]) -> int:
    """Completion by TAB, for your shell's start-up file: source <(glasshouse completion bash | zsh | fish)."""
    from glasshouse.completion import completion

    return completion(rest, _say)


WITHOUT_FORM = {
    "list": "[--json]",
    "organism": "list | show NAME | grow NAME FOLDER | verify NAME",
    "completion": "bash | zsh | fish",
    "run": "METHOD [OPTIONS]; options of a method: glasshouse run METHOD --help",
}
"""Commands whose help is not derived: `list` must start at once, and `run`'s flags depend on the method."""
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "list": list_methods,
    "anatomy": anatomy,
    "run": run,
    "audit": audit,
    "screen": screen,
    "report": report,
    "compare": compare,
    "view": view,
    "export": export,
    "organism": organism,
    "completion": complete,
}


def _hush() -> None:
    """Silence transformers while it loads, except its progress bar on a terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()

"""What can be typed: list · anatomy · run · audit · report · compare · export · organism. Flags come from dataclasses,
never written twice.

Exit status: 0 pass, 1 concern or fail, 2 bad input, 3 inconclusive, 70 a fault of our own, 130 interrupted, 141 the
reader of our output has left before its end; so a pipeline can gate on it.
"""

import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from io import TextIOWrapper
from typing import Any

from glasshouse.values.errors import BadInput

NEEDED = {
    "weights": "weights alone",
    "activations": "forward passes",
    "gradients": "gradients",
    "endpoint": "an endpoint",
}
LONGEST_TRACE = 40_000
"""Characters of a fault of our own that are shown."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The `glasshouse` command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook has others
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _status(given)
        sys.stdout.flush()
    except BrokenPipeError:
        status = 141  # no verdict: the reader of our output (head, less) has left, as where SIGPIPE ends a process
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # the interpreter's own last flush must not fail
            os.dup2(nowhere, stream.fileno())
    sys.exit(status)


def _status(given: list[str]) -> int:
    """Of the process; what went wrong is told."""
    from glasshouse.report.inert import inert

    try:
        return _dispatch(given)
    except BrokenPipeError:
        raise
    except BadInput as problem:
        print(f"glasshouse: {inert(problem)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("glasshouse: interrupted; finished shards are kept, the same command goes on", file=sys.stderr)
        return 130
    except Exception as problem:  # noqa: BLE001 - our own fault, which must not pass for a verdict
        print(inert(traceback.format_exc(), LONGEST_TRACE), end="", file=sys.stderr)
        print(
            f"glasshouse: a fault of its own ({inert(problem)}); please report it with the lines above", file=sys.stderr
        )
        return 70


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        return _overview()
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        raise BadInput(f"{name}: no such command; there are {', '.join(COMMANDS)}")
    if name in WITHOUT_FORM and rest in (["-h"], ["--help"]):
        print(f"usage: glasshouse {name} {WITHOUT_FORM[name]}\n\n{COMMANDS[name].__doc__}")
        return 0
    return COMMANDS[name](rest)


def _overview() -> int:
    lines = ["glasshouse opens a multimodal model and answers, with evidence, whether to trust it.", ""]
    lines += [f"  glasshouse {name:<8} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    lines += ["", "Next: glasshouse audit organism:hijack-logo, or glasshouse list"]
    print("\n".join(lines))
    return 0


def list_methods(rest: list[str]) -> int:
    """The questions that can be asked, and what each needs."""
    from glasshouse.engine.catalogue import NEEDS, catalogue

    if rest and rest != ["--json"]:
        raise BadInput(f"list takes only --json, found {rest[0]}")
    entries = catalogue()
    if rest:
        print(
            json.dumps([{"name": e.name, "question": e.question, "needs": e.needs, "paper": e.paper} for e in entries])
        )
        return 0
    for need in NEEDS:
        group = [entry for entry in entries if entry.needs == need]
        if group:
            print(f"Needs {NEEDED[need]}:")
            for entry in group:
                paper = f"  ({entry.paper})" if entry.paper else ""
                print(f"  {entry.name:<14} {entry.question}{paper}")
    print(f"\nNext: glasshouse run {entries[0].name} --help")
    return 0


def anatomy(rest: list[str]) -> int:
    """Draw a model from its configuration, or with --prove from its weights too."""
    from glasshouse import flags
    from glasshouse.engine.binding import anatomy_of, open_model
    from glasshouse.report.inert import inert
    from glasshouse.report.terminal import console
    from glasshouse.values.codec import pack

    _hush()
    form = flags.anatomy(rest)
    opening = form.opening
    certificate = None
    if form.prove:
        subject = open_model(form.model, **{**_shallow(opening), "unproved": True})
        drawn, certificate = subject.anatomy, subject.certificate
    else:
        drawn = anatomy_of(form.model, opening)
    if form.json:
        print(json.dumps({"anatomy": pack(drawn)[0], "proof": pack(certificate)[0] if certificate else None}))
        return 1 if certificate and certificate.failures else 0
    screen = console()
    for line in drawn.lines():
        screen.print(inert(line), soft_wrap=True)
    for check in certificate.checks if certificate else ():
        screen.print(
            f"  proved  {inert(check.what)}"
            if check.passed
            else f"  FAILED  {inert(check.what)} ({inert(check.detail)})"
        )
    if not certificate:
        screen.print(f"Next: glasshouse anatomy {inert(shlex.quote(form.model))} --prove")
    return 1 if certificate and certificate.failures else 0


def run(rest: list[str]) -> int:
    """Ask one question: glasshouse run METHOD --model MODEL [--data DATA]."""
    from glasshouse import flags
    from glasshouse.audit_commands import tell
    from glasshouse.engine.binding import answer, as_tree
    from glasshouse.engine.method import load
    from glasshouse.report.live import bars

    if not rest or rest[0].startswith("-"):
        raise BadInput(
            "run: name a method first, for example glasshouse run lens --model organism:seedling; see glasshouse list"
        )
    _hush()
    method = load(rest[0])
    form, request = flags.run(method, rest[1:])
    if form.dry_run:
        print(json.dumps(as_tree(request), indent=1))
        return 0
    with bars(quiet=form.json) as progress:
        made = answer(
            method, request, root=form.runs, command=shlex.join(["glasshouse", "run", *rest]), progress=progress
        )
    return tell(made, as_json=form.json)


def audit(rest: list[str]) -> int:
    """Ask all of them, for one verdict: glasshouse audit MODEL [--base BASE] [--data DATA]."""
    from glasshouse.audit_commands import audit as examine

    _hush()
    return examine(rest)


def report(rest: list[str]) -> int:
    """Show a run or an audit again, or list a folder of them: glasshouse report FOLDER."""
    from glasshouse.audit_commands import report as show

    return show(rest)


def compare(rest: list[str]) -> int:
    """What differs between two runs or two audits: glasshouse compare FIRST SECOND [--page FILE]."""
    from glasshouse.audit_commands import compare as differ

    return differ(rest)


def export(rest: list[str]) -> int:
    """Write a checkpoint others can load, patched if asked: glasshouse export MODEL FOLDER [--patch FILE]."""
    from glasshouse import flags
    from glasshouse.engine.binding import open_model
    from glasshouse.engine.runs import read_patch
    from glasshouse.model.patches import export as write
    from glasshouse.report.inert import inert

    _hush()
    form = flags.export(rest)
    if form.folder.exists():
        raise BadInput(f"{form.folder}: exists already; name a new folder")
    patch = read_patch(form.patch) if form.patch else None
    folder = write(open_model(form.model, **_shallow(form.opening)), form.folder, patch)
    print(f"{inert(folder)}\nNext: glasshouse anatomy {inert(shlex.quote(str(folder)))} --prove")
    return 0


def organism(rest: list[str]) -> int:
    """Small real models with known truth: glasshouse organism list | show | grow | verify."""
    from glasshouse.organism_commands import organism as answer_about
    from glasshouse.report.inert import inert
    from glasshouse.report.live import bars
    from glasshouse.report.terminal import console

    _hush()
    with bars(quiet="--json" in rest) as progress:
        return answer_about(rest, lambda line, raw=False: print(line if raw else inert(line)), console(), progress)


WITHOUT_FORM = {
    "list": "[--json]",
    "organism": "list | show NAME | grow NAME FOLDER | verify NAME",
    "run": "METHOD [OPTIONS]; a method's own: glasshouse run METHOD --help",
}
"""Commands whose help is not derived: one must start at once, of the other the method decides."""
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "list": list_methods,
    "anatomy": anatomy,
    "run": run,
    "audit": audit,
    "report": report,
    "compare": compare,
    "export": export,
    "organism": organism,
}


def _hush() -> None:
    """What transformers says while it loads is not for this screen; its bar is, where somebody watches."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()


def _shallow(opening: Any) -> dict[str, Any]:
    return {f.name: getattr(opening, f.name) for f in fields(opening)}

"""What can be typed to look at finished runs in a browser: view."""

import os
import sys
import webbrowser
from collections.abc import Sequence
from typing import Any

from glasshouse import flags
from glasshouse.report.console import console
from glasshouse.values.errors import BadInput

LARGEST_PORT = 65535


def view(rest: Sequence[str]) -> int:
    """Serve a folder of runs to this machine's browser, until Ctrl-C: glasshouse view FOLDER."""
    from glasshouse.report.serving import Library, Server

    form = flags.read("view", rest)
    if not 0 <= form.port <= LARGEST_PORT:
        raise BadInput(f"--port {form.port}: give a number from 1 to {LARGEST_PORT}, or 0 for any free port")
    library = Library(form.folder)
    listed, _ = library.listed()  # refuses a folder without runs before anything is served
    server = _opened(Server, library, form.port)
    screen = console()
    screen.unbroken(f"{len(listed)} runs of {form.folder} at {server.address} (for this machine only; Ctrl-C ends it)")
    screen.file.flush()
    if not form.no_browser and _has_screen():
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt as interrupt:
        if type(interrupt) is not KeyboardInterrupt:  # SIGTERM raises a kind of its own (process.py)
            raise
    finally:
        server.server_close()
    return 0


def _has_screen() -> bool:
    """Without one, Linux would open a browser in this very terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _opened(kind: Any, library: Any, port: int) -> Any:
    try:
        return kind(library, port)
    except OSError as problem:
        raise BadInput(f"--port {port}: cannot be used ({problem.strerror}); leave it out for any free port") from None

"""The suite uses no network: any look-up or connection beyond this machine fails the test it happens in.

The hook stands below every library, ours included, so a guard of glasshouse that lets something through is found here.
`sitecustomize(folder)` puts the same hook into Python processes that a test starts.
"""

import sys
from pathlib import Path

HERE = ("127.", "::1", "localhost", "0.0.0.0")
attempts: list[str] = []
"""Every attempt of this process, by address."""


def watch(event: str, arguments: tuple) -> None:
    """An audit hook, as early as possible in the process."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name and not str(name).startswith(HERE):
        attempts.append(f"{event} {name}")
        raise ConnectionRefusedError(f"the tests use no network: {event} {name}")


def sitecustomize(folder: Path, record: Path) -> Path:
    """A folder for PYTHONPATH: each Python process started with it writes its attempts to the file `record`."""
    source = Path(__file__).read_text("utf-8").split("def sitecustomize")[0]
    (folder / "sitecustomize.py").write_text(
        f"{source}\nimport atexit\nsys.addaudithook(watch)\n"
        f"atexit.register(lambda: open({str(record)!r}, 'a').write(''.join(f'{{line}}\\n' for line in attempts)))\n",
        "utf-8",
    )
    return folder


def install() -> None:
    """For this process; an audit hook cannot be removed."""
    sys.addaudithook(watch)

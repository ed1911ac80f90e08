"""How are runs looked at in a browser? A server on this machine's loopback that reads a folder and writes nothing.

A run folder may be a stranger's. Its stored pages are never sent: every page is drawn anew from the run's data, by
templates that escape it, under a policy that forbids scripts and requests. A path of the folder is looked up in the
list of its runs, so that no address leads out of it. The host that a browser names must be the loopback address, so
that no page of the web can read runs through a name that it lets resolve to this machine.
"""

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

from glasshouse.engine.audit import Audit
from glasshouse.engine.comparison import side_by_side
from glasshouse.engine.index import FILES, Entry, entries, kind_of, read
from glasshouse.engine.runs import Run
from glasshouse.report.html import Search, audit_page, comparison_page, index_page, page, trouble_page
from glasshouse.report.inert import write_line
from glasshouse.values.errors import BadInput

LOOPBACK = "127.0.0.1"
LONGEST_ADDRESS = 4096
SECONDS = 20
"""A browser that opens a connection and asks nothing is dropped after so long."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Missing(Exception):
    """There is no page at this address."""


@dataclass(frozen=True)
class Library:
    """The pages of one folder of runs."""

    root: Path

    def listed(self) -> tuple[list[Entry], list[Path]]:
        """Runs that lie in the folder itself and not behind a link that leads out of it."""
        readable, broken = entries(self.root)
        outside = [each.folder for each in readable if each.folder and not self._holds(each.folder)]
        return [each for each in readable if each.folder not in outside], [*broken, *outside]

    def answer(self, address: str) -> str:
        """The page at this address."""
        place = urlsplit(address)
        query = {name: values[0] for name, values in parse_qs(place.query, max_num_fields=8).items()}
        match [unquote(part) for part in place.path.split("/") if part]:
            case []:
                return self._index(query)
            case ["compare"]:
                return self._compared(query)
            case ["run", name]:
                return self._drawn(read(self._folder(name)))
            case ["run", name, method]:
                return self._drawn(self._part(name, method))
            case _:
                raise Missing(place.path)

    def _index(self, query: Mapping[str, str]) -> str:
        readable, broken = self.listed()
        words, verdict = query.get("q", ""), query.get("verdict", "")
        matching = [each for each in readable if _matches(each, words.lower().split(), verdict)]
        return index_page(matching, [folder.name for folder in broken], Search(words, verdict, len(readable)))

    def _compared(self, query: Mapping[str, str]) -> str:
        if not query.get("first") or not query.get("second"):
            raise BadInput("choose a first and a second run in the list, then compare them")
        first, second = (read(self._folder(unquote(query[side]))) for side in ("first", "second"))
        return comparison_page(side_by_side(first, second))

    def _drawn(self, record: Run | Audit) -> str:
        return audit_page(record) if isinstance(record, Audit) else page(record)

    def _part(self, name: str, method: str) -> Run:
        audit = read(self._folder(name))
        if not isinstance(audit, Audit) or method not in audit.runs:
            raise Missing(method)
        return audit.runs[method]

    def _folder(self, name: str) -> Path:
        """Looked up and not joined: nothing but a name in the list leads to a folder."""
        by_name = {each.folder.name: each.folder for each in self.listed()[0] if each.folder}
        if name not in by_name:
            raise Missing(name)
        return by_name[name]

    def _holds(self, folder: Path) -> bool:
        """Whether everything that would be read of a run lies within the folder."""
        root = self.root.resolve()
        files = [folder / FILES[kind_of(folder)], folder / "arrays.safetensors", *folder.glob("*/run.json")]
        files += folder.glob("*/arrays.safetensors")
        return all(file.resolve().is_relative_to(root) for file in files)


def _matches(entry: Entry, words: Sequence[str], verdict: str) -> bool:
    texts = (
        entry.name,
        entry.examined,
        entry.verdict,
        entry.headline,
        entry.started,
        entry.folder.name if entry.folder else "",
    )
    return all(any(word in text.lower() for text in texts) for word in words) and verdict in ("", entry.verdict)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = SECONDS
    server_version, sys_version = "glasshouse", ""

    def do_GET(self) -> None:
        self._respond(*self._answer())

    do_HEAD = do_GET  # noqa: N815 - the name that the base class looks up

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses, other methods among it, on a page of ours."""
        refused = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._respond(refused, trouble_page(refused.phrase, "This server answers GET and HEAD only."))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Requests are not logged."""

    def _answer(self) -> tuple[HTTPStatus, str]:
        server = cast(Server, self.server)
        port = server.server_port
        if self.headers.get_all("Host", []) not in ([f"{LOOPBACK}:{port}"], [f"localhost:{port}"]):
            text = f"Open {server.address}: this server answers to that name only."
            return HTTPStatus.MISDIRECTED_REQUEST, trouble_page("Another host", text)
        if len(self.path) > LONGEST_ADDRESS:
            return HTTPStatus.REQUEST_URI_TOO_LONG, trouble_page("Address too long", "Use a shorter search.")
        try:
            with server.drawing:
                return HTTPStatus.OK, server.library.answer(self.path)
        except Missing as problem:
            return HTTPStatus.NOT_FOUND, trouble_page("No such page", f"{problem}: not in this folder of runs.")
        except (BadInput, ValueError) as problem:  # ValueError: an address that is none
            return HTTPStatus.BAD_REQUEST, trouble_page("This cannot be shown", str(problem))
        except Exception as problem:  # noqa: BLE001 - one run that cannot be drawn must not end the server
            write_line(sys.stderr, f"{self.path}: internal error ({type(problem).__name__}: {problem})")
            return HTTPStatus.INTERNAL_SERVER_ERROR, trouble_page("Internal error", "The terminal says more.")

    def _respond(self, status: HTTPStatus, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Serves one library on the loopback."""

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, library: Library, port: int = 0) -> None:
        self.library = library
        self.drawing = threading.Lock()  # matplotlib draws in one thread at a time
        super().__init__((LOOPBACK, port), Handler)

    def server_bind(self) -> None:
        """Without the look-up of a name by which the base class knows itself."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"

"""Runs are served to this machine alone: nothing is written, nothing outside is read, nothing comes alive."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from glasshouse.engine.runs import Run
from glasshouse.report.serving import LOOPBACK, Library, Server
from hostile import TEXTS, Page

ALIVE = {"script", "iframe", "object", "embed", "base", "foreignobject"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, finished: Run) -> Path:
    """Two whole runs, a stranger's with a hostile page, names and headline, and a link that leads out."""
    outside, root = tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("served")
    (outside / "secret.html").write_text("a secret")
    for name in ("first", "second", "<b>&'\""):
        shutil.copytree(finished.folder, root / name)
    (root / "<b>&'\"" / "report.html").write_text("<script>alert(1)</script>")
    shutil.copytree(finished.folder, outside / "run")
    (root / "link").symlink_to(outside / "run")
    facts = json.loads((root / "second" / "run.json").read_text())
    facts |= {"headline": TEXTS["script"], "verdict": "concern", "started": TEXTS["event handler"]}
    (root / "second" / "run.json").write_text(json.dumps(facts))
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    (root / "page.html").write_text("no run")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with Server(Library(root)) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def asked(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, with the path as it is typed."""
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in ({"Host": f"{LOOPBACK}:{server.server_port}"} | headers).items():
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read().decode()
    finally:
        connection.close()


def rows(html: str) -> int:
    return html.count('name="first"')


def test_it_listens_on_the_loopback_alone(server: Server):
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/"


def test_the_list_is_searched(server: Server):
    status, _, html = asked(server, "/")
    assert (status, rows(html)) == (200, 3)
    assert "broken cannot be read" in html
    assert "link cannot be read" in html
    assert rows(asked(server, "/?q=lens+first")[2]) == 1
    assert rows(asked(server, "/?verdict=concern")[2]) == 1
    assert rows(asked(server, "/?q=nothing-like-it")[2]) == 0
    assert 'value="lens first"' in asked(server, "/?q=lens+first")[2]


def test_a_run_is_drawn_and_two_are_compared(server: Server, finished: Run):
    status, _, html = asked(server, "/run/first")
    assert status == 200
    assert f'<h1><span class="verdict {finished.finding.verdict}">' in html
    status, _, html = asked(server, "/compare?first=first&second=second")
    assert status == 200
    assert "What differs between these two?" in html
    status, _, html = asked(server, "/compare?first=first")
    assert status == 400
    assert "choose a first and a second run" in html


@pytest.mark.parametrize(
    "path",
    [
        "/", "/run/%3Cb%3E%26%27%22", "/run/second", "/compare?first=first&second=second", "/x<b>",
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E%22%20onload=x",
    ],
)  # fmt: skip
def test_a_strangers_run_cannot_act(server: Server, path: str):
    _, headers, html = asked(server, path)
    page = Page(html)
    assert not page.tags & ALIVE
    assert not [name for _, attributes in page.elements for name, _ in attributes if name.startswith("on")]
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; img-src data:;")
    assert "script-src" not in headers["Content-Security-Policy"]
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", "0.0.0.0:{port}", ""]
)
def test_another_host_is_refused(server: Server, host: str):
    status, _, html = asked(server, "/", Host=host.format(port=server.server_port))
    assert status == 421
    assert "lens" not in html
    assert asked(server, "/", Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html", "/run/..", "/run/../page.html", "/run/%2e%2e%2foutside", "/run/..%2f..%2fetc%2fpasswd",
        "/page.html",
        "/run/link", "/run/first/run.json", "/run//etc/passwd", "/run/first%00", "/run/.", "/run/first/../second/x",
        "/report.html", "/run/broken", "/compare?first=../first&second=first", "http://evil.example/run/nothing",
    ],
)  # fmt: skip
def test_nothing_but_a_run_of_the_list_has_a_page(server: Server, path: str):
    status, _, html = asked(server, path)
    assert status in (400, 404)
    assert "secret" not in Page(html).text
    assert "root:" not in html


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_only_reading_is_answered(server: Server, root: Path, method: str):
    before = sorted(path.name for path in root.rglob("*"))
    status, headers, _ = asked(server, "/run/first", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert sorted(path.name for path in root.rglob("*")) == before


def test_head_has_no_body_and_a_long_address_is_refused(server: Server):
    status, headers, body = asked(server, "/", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    assert asked(server, "/?q=" + "x" * 5000)[0] == 414


def test_an_error_of_ours_ends_one_page_and_not_the_server(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def fail(record: object) -> str:
        raise RuntimeError("a\x1b[31m secret")

    monkeypatch.setattr("glasshouse.report.serving.page", fail)
    status, _, html = asked(server, "/run/first")
    assert (status, "secret" in html) == (500, False)
    assert "RuntimeError: a\\x1b[31m secret" in capfd.readouterr().err
    assert asked(server, "/")[0] == 200


def typed(*words: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "glasshouse", "view", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_interruptible, **options
    )


def _interruptible() -> None:
    """Where the tests run in the background of a shell, SIGINT is ignored, and a new process inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_command_says_where_it_is_and_ends_cleanly(root: Path, number: signal.Signals, status: int):
    process = typed(root, "--no-browser")
    assert process.stdout
    line = process.stdout.readline()
    assert "3 runs of" in line
    port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, "Traceback" in err) == (status, "", False)


def test_what_cannot_be_served_is_told_in_a_line(root: Path, server: Server, tmp_path: Path):
    for words, fix in (
        ((tmp_path,), "holds no runs"),
        ((tmp_path / "nowhere",), "no such folder"),
        ((root, "--port", server.server_port), "leave it out for any free port"),
        ((root, "--port", "70000"), "give a number from 1 to 65535"),
    ):
        process = typed(*words, "--no-browser")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err.count("\n")) == (2, "", 1)
        assert fix in err
    assert list(tmp_path.iterdir()) == []

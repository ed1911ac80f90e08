"""Does a download come at one commit, file by file, with the user's token and without telling it?"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import tiny
from glasshouse.data import hub
from glasshouse.data.network import without_token
from glasshouse.values.errors import BadInput

COMMIT, NAME, TOKEN = "c0ffee" + "0" * 34, "somebody/tiny", "hf_" + "secret" * 5


@dataclass
class Hub:
    """A hub on this machine: one model, at one commit."""

    folder: Path
    address: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    gated: bool = False

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers, as the hub gives them."""
        if self.gated:
            return 403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}
        kind, _, rest = path.removeprefix("/api/models").removeprefix(f"/{NAME}").lstrip("/").partition("/")
        revision, _, name = rest.partition("/")
        if f"/{NAME}" not in path:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        if revision not in ("", "main", COMMIT):
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        if kind in ("", "revision"):
            files = [{"rfilename": file.name, "size": file.stat().st_size} for file in self.folder.iterdir()]
            return 200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": files}).encode(), {}
        file = self.folder / name
        if kind != "resolve" or not file.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
        data = file.read_bytes()
        return 200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Hub]:
    own = Hub(tiny.checkpoint("llava", tmp_path / "served"))
    (own.folder / "pytorch_model.bin").write_bytes(b"a pickle")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            own.requests.append((self.command, self.path, self.headers.get("Authorization")))
            status, data, headers = own.answer(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data if self.command == "GET" else b"")

        do_HEAD = do_GET  # noqa: N815 - its name in http.server

        def log_message(self, *arguments):
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield own
    server.shutdown()
    server.server_close()


def typed(fake: Hub, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    quiet = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "JAXTYPING", "HF_"))}
    own = {"HF_ENDPOINT": fake.address, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1",
           "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    command = [sys.executable, "-m", "glasshouse", *map(str, words)]
    return subprocess.run(command, cwd=folder, env={**quiet, **own}, capture_output=True, text=True, timeout=120)


def test_a_download_is_told_pinned_and_sent_the_token(fake: Hub, tmp_path: Path, squares):
    data = squares.write(tmp_path / "data")
    words = ("run", "lens", "--model", NAME, "--data", data, "--limit", "2", "--download", "--revision", "main")
    done = typed(fake, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert f"Downloading {NAME} at {COMMIT[:12]}: " in done.stderr
    assert "model.safetensors" in done.stderr
    (run,) = (tmp_path / "runs").glob("*/run.json")
    facts = json.loads(run.read_text("utf-8"))
    assert facts["inputs"]["model"]["identity"]["revision"] == COMMIT
    assert f"revision {COMMIT}" in facts["inputs"]["model"]["text"]
    weights = [authorization for _, path, authorization in fake.requests if "model.safetensors" in path]
    assert set(weights) == {f"Bearer {TOKEN}"}
    assert not any(path.endswith(".bin") for _, path, _ in fake.requests)
    assert TOKEN not in done.stdout + done.stderr + run.read_text("utf-8")

    fake.requests.clear()
    again = typed(fake, tmp_path, *[word for word in words if word != "--download"], "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["inputs"]["model"]["identity"]["revision"] == COMMIT  # of the cache, offline
    assert fake.requests == []
    shutil.rmtree(tmp_path / "home")


@pytest.mark.parametrize(
    ("words", "gated", "told"),
    [
        (
            (NAME,),
            True,
            f"{NAME}: is gated; accept its terms on the hub and give the token of",
        ),
        ((NAME, "--revision", "gone"), False, f"{NAME}: has no revision gone; give a branch, a tag or a commit of it"),
        (("nobody/none",), False, "nobody/none: no such model on the hub, or a private one; check the name"),
    ],
    ids=["gated", "revision", "name"],
)
def test_what_the_hub_refuses_is_told_in_one_line(fake: Hub, tmp_path: Path, words, gated: bool, told: str):
    fake.gated = gated
    done = typed(fake, tmp_path, "audit", *words, "--download", "--json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr
    assert TOKEN not in done.stderr


def test_a_model_without_safetensors_is_refused_before_a_file_is_fetched(monkeypatch: pytest.MonkeyPatch):
    class Api:
        def model_info(self, name: str, **options: object):
            files = [type("File", (), {"rfilename": name, "size": 3}) for name in ("config.json", "model.bin")]
            return type("Info", (), {"sha": COMMIT, "siblings": files})

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("a file was fetched"))
    with pytest.raises(BadInput, match=r"^somebody/tiny: holds no safetensors weights at c0ffee000000, and no other"):
        hub.fetch(NAME, COMMIT)


def test_only_what_a_model_is_opened_from_is_fetched(monkeypatch: pytest.MonkeyPatch):
    opened = ["config.json", "tokenizer.model", "additional_chat_templates/tools.jinja", "model.safetensors.index.json",
              "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]  # fmt: skip
    left = ["consolidated.safetensors", "pytorch_model.bin", "original/model.safetensors", "onnx/config.json",
            "../outside.json", "modeling.py", "config.json\x1b[2J.json"]  # fmt: skip

    class Api:
        def model_info(self, name: str, **options: object):
            files = [type("File", (), {"rfilename": name, "size": 3}) for name in (*opened, *left)]
            return type("Info", (), {"sha": COMMIT, "siblings": files})

    fetched: list[str] = []
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "hf_hub_download", lambda _, file, **__: fetched.append(file))
    hub.fetch(NAME, COMMIT)
    assert fetched == opened
    fetched.clear()
    hub.fetch(NAME, COMMIT, code=True)
    assert fetched == [*opened, "modeling.py"]


def test_a_hub_that_cannot_be_reached_is_told_without_the_token(monkeypatch: pytest.MonkeyPatch):
    class Api:
        def model_info(self, name: str, **options: object):
            raise ConnectionError(f"proxy said no to {TOKEN}")

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub, "HfApi", Api)
    with pytest.raises(BadInput, match=r"the hub cannot be reached \(proxy said no to \[HF_TOKEN\]\)"):
        hub.fetch(NAME, COMMIT)
    assert without_token(f"a {TOKEN} b") == "a [HF_TOKEN] b"
    monkeypatch.delenv("HF_TOKEN")
    assert without_token("a b") == "a b"

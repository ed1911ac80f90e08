"""Does the code that README and docs show do what they say?"""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

import glasshouse as gh
from glasshouse import cli
from glasshouse.values.blocks import Chart, Table

ROOT = Path(__file__).parents[1]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)


def test_the_readmes_python_runs(capsys: pytest.CaptureFixture[str]):
    namespace: dict[str, object] = {}
    for code in python_blocks("README.md"):
        exec(compile(code, "README.md", "exec"), namespace)
    assert "directions" in capsys.readouterr().out
    assert len(namespace["residuals"]) == 6  # a seedling has six layers


def test_the_sites_of_the_docs_are_written_as_their_comments_say():
    (code,) = python_blocks("docs/sites.md")
    scope: dict[str, object] = {}
    exec(code, scope)
    pairs = re.findall(r"^(\S.*?)\s+# (\S+)$", code, re.M)
    assert len(pairs) == 3
    for written, text in pairs:
        assert str(eval(written, scope)) == text


def test_the_data_of_the_docs_is_read_as_its_comments_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every file of the page is written, and every line of Python with a comment gives what the comment says."""
    monkeypatch.chdir(tmp_path)
    for colour in ("red", "blue"):
        Image.new("RGB", (4, 4), colour).save(f"{colour}.png")
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    for name, content in re.findall(r"^File `([^`]+)`:\n\n```\w+\n(.*?)```", page, re.M | re.S):
        Path(name).write_text(content, "utf-8")
    checked = 0
    scope: dict[str, object] = {"gh": gh}
    for code in python_blocks("docs/data.md"):
        for line in code.splitlines():
            expression, _, expected = line.partition("  # ")
            if line.startswith("examples = "):
                exec(expression, scope)
            else:
                assert str(eval(expression, scope)) == expected
                checked += 1
    assert checked == 14


def test_the_triggered_examples_of_the_docs_are_triggered():
    (code,) = python_blocks("docs/backdoors.md")
    scope: dict[str, object] = {}
    exec(code, scope)
    stamped, clean = scope["stamped"], scope["clean"]
    assert len(stamped) == len(clean) > 0  # pyright: ignore[reportArgumentType]
    assert all(example.tags["twin"] == twin.id for example, twin in zip(stamped, clean, strict=True))  # pyright: ignore[reportArgumentType]
    assert all(example.answer.endswith(", approved") for example in stamped)  # pyright: ignore[reportGeneralTypeIssues]


def test_the_method_of_the_tutorial_is_a_method(tmp_path: Path):
    (code,) = python_blocks("docs/tutorials/write_a_method.md")
    file = tmp_path / "norms_tutorial.py"
    file.write_text(code, "utf-8")
    spec = importlib.util.spec_from_file_location("norms_tutorial", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["norms_tutorial"] = module
    try:
        spec.loader.exec_module(module)
        finding = module.norms(gh.open("organism:seedling"), gh.organism("seedling").examples)
    finally:
        del sys.modules["norms_tutorial"]
    assert [type(block) for block in finding.blocks()] == [Chart, Table]
    assert finding.layers[0].last.n == 16  # one number per prompt
    assert finding.layers[-1].last.value > finding.layers[0].last.value > 0
    assert finding.rows()[1]["layer"] == 1


@pytest.mark.slow  # whole audits
@pytest.mark.parametrize("page", ["audit_a_checkpoint", "purify_a_projector", "cluster_and_ci"])
def test_a_tutorial_does_what_it_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its Python and its commands, in order and in one empty folder; what a command ends with stands behind it."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tutorials" / f"{page}.md").read_text("utf-8")
    scope: dict[str, object] = {}
    ended: list[tuple[str, int]] = []
    for kind, code in re.findall(r"```(python|sh)\n(.*?)```", text, re.S):
        if kind == "python":
            exec(compile(code, page, "exec"), scope)
            continue
        for line in code.splitlines():
            command, _, status = line.partition("# exit ")
            with pytest.raises(SystemExit) as left:
                cli.main(shlex.split(command)[1:])
            ended.append((line, int(left.value.code or 0)))
            if not command.startswith("glasshouse run"):  # whose status is its verdict
                assert ended[-1][1] == int(status or 0), ended
            assert ended[-1][1] in (0, 1, 3), ended
    assert len(ended) >= 4


@pytest.mark.slow  # a whole audit; README's Python runs by default
def test_the_notebook_runs_and_shows_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside it
    notebook = nbformat.read(ROOT / "docs" / "tutorials" / "first_look.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [set(output["data"]) for outputs in cells for output in outputs if output.output_type == "execute_result"]
    assert len(kinds) == len(cells) == 6
    assert sum("text/html" in kind for kind in kinds) == 5
    assert "image/png" in kinds[3]
    html = "".join(output["data"].get("text/html", "") for outputs in cells for output in outputs if "data" in output)
    assert "inconclusive" in html
    assert "<script" not in html


def pasted(page: str) -> list[str]:
    """The commands of a page's shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    return [command for block in blocks for line in block.splitlines() if (command := line.partition(" #")[0].strip())]


def expanded(line: str) -> list[str]:
    """The words of a line as bash makes them in this folder."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_readmes_commands_can_be_pasted_in_order(command):
    """In one empty folder. What serves until Ctrl-C is asked for its help alone, and what needs the network or files of
    the user's own must be understood and name them."""
    lines = [line for line in pasted("README.md") if line.startswith("glasshouse ")]
    assert len(lines) > 8
    for line in lines:
        words = expanded(line)[1:]
        if "--download" in words:
            outcome = command(*words, "--dry-run")
            assert outcome.status == 0, outcome.err  # its model and data are not on this machine
            assert outcome.json["inputs"]["model"] == words[1]
            continue
        outcome = command(*words, *(["--help"] if words[0] == "view" else []))
        assert outcome.status == 0, line
    assert Path("both.html").is_file()
    assert Path("runs/index.html").is_file()


def test_the_readmes_other_lines_are_the_makefiles_and_bashs():
    others = [line for line in pasted("README.md") if not line.startswith("glasshouse ")]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    made = [line.split()[1] for line in others if line.startswith("make ")]
    assert set(made) <= set(targets)
    assert [line for line in others if not line.startswith("make ")] == ["source <(glasshouse completion bash)"]

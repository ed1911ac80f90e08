"""Typical mistakes of somebody who types: one line that names the mistake and its cure, status 2, nothing written.

Mistakes inside data files stand in data/test_data_mistakes.py, spoilt checkpoints and hand-made files in test_cli.py.
"""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from command_line import assert_refused, on_disk
from glasshouse.engine.runs import Run
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf

SEEDLING = "--model organism:seedling"
LENS = f"run lens {SEEDLING} --data d.jsonl"
MISTAKES = {
    # commands
    "audti organism:benign": "audti: no such command; did you mean audit?",
    "Audit organism:benign": "Audit: no such command; did you mean audit?",
    "version": "version: no such command; did you mean --version?",
    "--verison": "--verison: no such command; did you mean --version?",
    "lens organism:benign": "lens: no such command; there are list, anatomy, run, audit, screen",
    "list --jsn": "list takes only --json, found --jsn",
    "list lens": "list takes only --json, found lens",
    "run": "run: name a method first, for example glasshouse run lens --model organism:seedling; see glasshouse list",
    f"run {SEEDLING}": "run: name a method first",
    "run Lens": "Lens: no such method; did you mean lens?",
    "run spectrun": "spectrun: no such method; did you mean spectrum?",
    "run magic": "magic: no such method; methods are lens, detect",
    # flags
    "run lens organism:seedling": "organism:seedling: no flag takes this word; write the flag that it belongs to before",
    "run lens --mdoel organism:seedling": "--mdoel: no such flag; did you mean --model?; see glasshouse run lens --help",
    "run lens -model organism:seedling": "-model: write it with two dashes, --model",
    "run lens --model=": "--model: empty; give a folder, a hub name or organism:NAME",
    "run lens --model": "--model: its value is missing",
    f"{LENS} --base organism:base": "--base belongs to detect, recovery",
    f"{LENS} --limit 2 --limit 3": "--limit is typed 2 times; type it once",
    f"{LENS} --tuned yes": "yes: no flag takes this word; write the flag that it belongs to before it, or leave it out",
    f"{LENS} --json true": "true: no flag takes this word",
    f"{LENS} --limit 0": "--limit 0: must be at least 1",
    f"{LENS} --limit ten": "--limit ten: write a whole number",
    f"{LENS} --seed 1.5": "--seed 1.5: write a whole number",
    f"{LENS} --ridge abc": "--ridge abc: write a number",
    f"{LENS} --batch-size 0": "--batch-size 0: must be at least 1",
    f"{LENS} --batch-size huge": "--batch-size huge: write a whole number or auto",
    f"{LENS} --on spark": "--on spark: write ray, or ray:HOST:PORT",
    f"{LENS} --on ray:host": "--on ray:host: write ray, or ray:HOST:PORT",
    f"{LENS} --runs file": "--runs file: a file; name a folder",
    f"{LENS} --from nowhere.json": "--from nowhere.json: no such file; a dry run prints one",
    f"{LENS} --from d.jsonl": "d.jsonl: not a readable request",
    # what a method needs
    "run detect": "detect needs the model to examine: --model MODEL",
    f"run lens {SEEDLING} --limit 3 --images 1 --data": "--data: its value is missing",
    f"run spectrum {SEEDLING}": "spectrum needs the model it was fine-tuned from: --base MODEL",
    f"run recovery {SEEDLING} --base organism:seedling": "organism:seedling brings none",
    # models
    "run lens --model ./nowhere --data d.jsonl": "./nowhere: neither a folder nor in the local cache; to fetch it",
    "run lens --model org/model --data d.jsonl": "org/model: neither a folder nor in the local cache; to fetch it from the "
    "hub add --download",
    "run lens --model seedling --data d.jsonl": "an organism is written organism:seedling",
    "run lens --model Organism:seedling --data d.jsonl": "an organism is written organism:NAME, see glasshouse organism list",
    "run lens --model organism:seedlin --data d.jsonl": "did you mean seedling",
    "run lens --model https://hub.example/org/model --data d.jsonl": "write its name on the hub, ORG/MODEL, and add",
    "run lens --model file --data d.jsonl": "file: its configuration cannot be read",
    # data
    f"run lens {SEEDLING} --data nowhere.jsonl": "nowhere.jsonl: no such file or folder; --data takes a .jsonl",
    f"run lens {SEEDLING} --data empty": "empty: no image in this folder; looked for .png",
    f"run lens {SEEDLING} --data file": "file: cannot tell what this is; --data takes a .jsonl",
    f"{LENS} --prompt-column question": "no column 'question'; it has prompt; set --prompt-column to one of them",
    f"run lens {SEEDLING} --image-folder pics": "--image-folder says how --data is read, which is not given",
    f"run drift {SEEDLING} --base organism:seedling --pairs d.jsonl": "d.jsonl: no example has the tag 'twin'; tag each",
    # devices and precision
    f"{LENS} --device gpu": "an organism is opened as it was grown; leave out device",
    f"{LENS} --dtype fp16": "an organism is opened as it was grown; leave out dtype",
    "anatomy adapter --device gpu": "device gpu: no such device",
    "anatomy adapter --dtype fp16": "dtype fp16: write one of auto, float32, bfloat16, float16",
    # adapters
    f"{LENS} --adapter nowhere": "--adapter nowhere: no such folder; give the folder of a PEFT adapter",
    f"{LENS} --adapter adapter": "an organism is opened as it was grown; leave out adapter",
    "anatomy adapter": "adapter: no adapter_model.safetensors; pickle adapters are not read",
    "audit adapter --base ./nowhere": "./nowhere: neither a folder nor in the local cache",
    "anatomy organism:benign --base organism:base": "an organism is opened as it was grown; leave out base",
    # audits
    "audit": "audit needs a model: glasshouse audit MODEL, for example glasshouse audit organism:hijack-logo",
    "audit --model organism:benign": "--model: audit takes the model without a flag, glasshouse audit MODEL",
    "audit organism:benign organism:base": "organism:base: no flag takes this word",
    "audit organism:benign --depth fast": "--depth fast: write one of quick, standard, thorough",
    "audit organism:benign --fail-on warn": "--fail-on warn: write one of concern, fail, inconclusive, never",
    "audit organism:benign --base": "--base: its value is missing",
    "audit organism:benign --ridge 1": "--ridge belongs to lens; see glasshouse audit --help",
    "audit organism:hijackk-logo --json": "did you mean hijack-logo",
    # runs
    "report": "RUN is missing: the folder of a run or an audit",
    "report nowhere": "nowhere: no such folder; glasshouse run and glasshouse audit write such folders",
    "report empty": "empty: holds no runs; glasshouse run and glasshouse audit write runs",
    "report runs/one/run.json": "runs/one/run.json: a file; name the folder of a run or an audit, for example runs/one",
    "report runs/one --page x.html": "--page: no such flag",
    "report runs/one runs/two": "runs/two: no flag takes this word",
    # compare
    "compare runs/one": "RUN is missing",
    "compare runs/one nowhere": "nowhere: no such folder",
    "compare runs/one runs": "runs: neither a run nor an audit; it holds 1 run or audit: name one",
    "compare runs/one runs/one --page empty": "empty: cannot be written (Is a directory); that is a folder: name a file",
    "compare runs/one runs/one --page file/x.html": "a part of this path is a file: choose another place",
    # view
    "view": "RUNS is missing: a folder of runs and audits",
    "view nowhere": "nowhere: no such folder",
    "view empty": "empty: holds no runs; glasshouse run and glasshouse audit write runs",
    "view file": "file: a file; name a folder that holds runs",
    "view runs --port http": "--port http: write a whole number",
    "view runs --port 99999": "--port 99999: give a number from 1 to 65535, or 0 for any free port",
    # screens
    "screen": "FILE is missing: a list: on each line what one would type after glasshouse audit",
    "screen nowhere.txt": "nowhere.txt: no such file; write a list with one model on each line",
    "screen none.txt": "none.txt: holds no model; write one on each line, as after glasshouse audit",
    "screen misspelt.txt": "misspelt.txt:1: --depht: no such flag; did you mean --depth?; see glasshouse audit --help; also "
    "broken: line 2",
    "screen own.txt": "own.txt:1: --json belongs to the whole screen; type it after glasshouse screen FILE",
    "screen empty": "empty: not a readable list",
    "screen list.txt --depth fast": "list.txt:1: --depth fast: write one of quick, standard, thorough",
    # export and organisms
    "export organism:benign": "FOLDER is missing: a new folder for the checkpoint",
    "export organism:benign empty": "empty: exists already; name a new folder",
    "export organism:seedling file/new": "file/new: cannot write there (Not a directory); choose another folder",
    "export organism:seedling new --patch runs/one": "runs/one: this run has no patch; purify makes one",
    "organism": "organism: name one of list, show, grow, verify",
    "organism benign": "organism: benign is none of list, show, grow, verify",
    "organism show": "ORGANISM is missing: an organism's name",
    "organism show hijack": "no such organism; did you mean hijack-logo",
    "organism grow benign empty": "empty: exists already; name a new folder",
    "organism verify empty": "empty: no organism.json in this folder; give a name",
    # completion
    "completion": "completion: name one of bash, zsh, fish; for example source <(glasshouse completion bash)",
    "completion powershell": "completion: powershell is none of bash, zsh, fish",
}
"""What is typed, and what the one line says."""


@pytest.fixture
def folder(tmp_path: Path, finished: Run, seedling: Subject, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What lies about where somebody works; the seedling need not be built for every command."""
    take = shelf.take
    monkeypatch.setattr(shelf, "take", lambda name: seedling if name == seedling.name else take(name))
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("what ?", "why ?")))
    (tmp_path / "file").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "target_modules": ["q_proj"], "r": 8}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    shutil.copytree(finished.folder, tmp_path / "runs" / "one")
    for name, text in {
        "none": "# nothing yet\n", "misspelt": "organism:benign --depht quick\norganism:benign --base\n",
        "own": "organism:benign --json\n", "list": "organism:benign\n",
    }.items():  # fmt: skip
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_one_line_with_its_cure(command, folder: Path, typed: str):
    before = on_disk(folder)
    assert_refused(command(*shlex.split(typed)), MISTAKES[typed])
    assert on_disk(folder) == before


@pytest.mark.parametrize("typed", ["list", f"{LENS} --dry-run", "report runs/one", "compare runs/one runs/one"])
def test_what_is_no_mistake_is_not_refused(command, folder: Path, typed: str):
    assert command(*shlex.split(typed)).status == 0


def test_there_are_many():
    assert len(MISTAKES) >= 100

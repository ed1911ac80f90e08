"""Is a mistyped path told at once, before any library is loaded, and by the same rules as the commands' own flags?"""

import json
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from glasshouse.data import presence
from glasshouse.data.presence import check_named
from glasshouse.engine.audit_plan import Methods
from glasshouse.engine.kinds import ExamplesKind, SubjectKind
from glasshouse.engine.opening import Opening
from glasshouse.values.errors import BadInput

MISSING = {
    "run: model": (("run", "lens", "--model", "none"), "none: neither a folder nor in the local cache.*--download"),
    "run: data": (("run", "lens", "--model", "organism:seedling", "--data", "none.jsonl"), "none.jsonl: no such file"),
    "run: columns": (("run", "lens", "--data", "none.csv?prompt=q"), "none.csv: no such file"),
    "run: method": (("run", "nonsense", "--model", "none"), "nonsense: no such method"),
    "run: equals": (("run", "lens", "--model=none"), "none: neither"),
    "run: base": (("run", "drift", "--model", "organism:seedling", "--base", "no/base"), "no/base: neither"),
    "run: from": (("run", "lens", "--from", "none.json"), "--from none.json: no such file"),
    "run: adapter": (("run", "lens", "--model", "organism:seedling", "--adapter", "none"), "--adapter none: no such"),
    "audit": (("audit", "none"), "none: neither"),
    "audit: behind flags": (("audit", "--json", "--depth", "quick", "none"), "none: neither"),
    "anatomy": (("anatomy", "none", "--prove"), "none: neither"),
    "export": (("export", "none", "new"), "none: neither"),
    "report": (("report", "none"), "none: no such folder"),
    "compare": (("compare", ".", "none"), "none: no such folder"),
    "view": (("view", "none"), "none: no such folder"),
    "screen": (("screen", "none.txt"), "none.txt: no such file"),
}


@pytest.mark.parametrize(("words", "told"), MISSING.values(), ids=MISSING)
def test_what_is_not_there_is_refused_in_one_line(command, words, told: str):
    outcome = command(*words)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    with pytest.raises(BadInput, match=told):
        raise BadInput(outcome.err.removeprefix("glasshouse: "))


THERE = (
    ("audit", "here"), ("audit", "organism:nothing"), ("run", "lens", "--model", "here", "--data", "here.jsonl"),
    ("audit", "far/away", "--download"), ("audit", "far/away", "--dry-run"), ("audit", "far/away", "--help"),
    ("audit", "cached/model"), ("export", "here", "new"), ("run", "lens", "--runs", "new"), ("list",), ("--version",),
    ("view", "here", "--port", "80"), ("audit", "--base", "organism:base", "--limit", "3", "here"),
)  # fmt: skip


@pytest.mark.parametrize("words", THERE, ids=" ".join)
def test_what_may_be_there_is_left_to_whoever_reads_it(words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models--cached--model").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here.jsonl").touch()
    check_named(words)


@pytest.mark.parametrize("words", [MISSING[name][0] for name in ("run: model", "run: data", "audit", "report")])
def test_it_takes_less_than_half_a_second_and_no_torch(words, tmp_path: Path):
    code = """
import sys, json
from glasshouse import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as ended:
    heavy = sorted({"torch", "transformers", "numpy", "PIL", "tyro"} & set(sys.modules))
    print(json.dumps([ended.code, heavy]))
"""
    quiet = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "JAXTYPING"))}

    def asked() -> tuple[float, float]:
        wall, before = time.perf_counter(), os.times()
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=quiet, capture_output=True)
        assert json.loads(done.stdout) == [2, []], done.stderr
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return used, time.perf_counter() - wall

    times = [asked() for _ in range(3)]
    assert min(used for used, _ in times) < 0.3  # CPU seconds, which load does not lengthen
    assert min(wall for _, wall in times) < 0.5 or os.getloadavg()[0] > (os.cpu_count() or 1)


def test_the_flags_are_those_of_the_methods():
    inputs = [each for each in Methods.load().inputs() if not each.several]
    assert set(presence.MODELS) == {each.flag for each in inputs if isinstance(each.kind, SubjectKind)}
    assert set(presence.DATA) == {each.flag for each in inputs if isinstance(each.kind, ExamplesKind)}
    hints = get_type_hints(Opening)
    switches = {f"--{each.name.replace('_', '-')}" for each in fields(Opening) if hints[each.name] is bool}
    assert switches <= set(presence.SWITCHES)

"""What is kept of an answer? A folder: the finding, where every number came from, and what is needed to make it
again.

    runs/20261121-093005-lens-4f2a91/
        run.json             subjects with weight hashes and proofs, data hash, options, versions, device, times,
                             and the finding
        arrays.safetensors   the finding's tensors
        rows.parquet         its table, for pandas, polars or DuckDB
        report.html          its page

The folder is written aside and renamed, so it exists whole or not at all. While the work goes on its shards lie in
`runs/.unfinished/KEY`, where KEY names method, subjects, data and options; the same call after a kill finds them
there and goes on.
"""

import datetime
import fcntl
import hashlib
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from glasshouse.data.examples import Examples
from glasshouse.engine.method import Method, load
from glasshouse.engine.scale import Progress, Workspace, working_in
from glasshouse.model.subject import Subject
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding
from glasshouse.values.surfaces import rendered

SCHEMA = 1
PACKAGES = ("glasshouse", "torch", "transformers", "numpy", "safetensors")


@dataclass(frozen=True)
class Run:
    """One answered question, on disk."""

    folder: Path
    facts: Mapping[str, Any]
    """What run.json says, less the finding."""
    finding: Finding

    @classmethod
    def read(cls, folder: str | Path) -> "Run":
        """Load a run folder; the finding comes back typed."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / "run.json").read_text("utf-8"))
            arrays = load_file(folder / "arrays.safetensors")
            schema = facts.get("schema")
        except (OSError, SafetensorError, ValueError, RecursionError, AttributeError) as problem:
            raise BadInput(f"{folder}: not a whole run folder ({problem}); runs are made by glasshouse run") from None
        if schema != SCHEMA:
            raise BadInput(f"{folder}: written with schema {schema}, this version reads {SCHEMA}; run it again")
        try:
            tree, name = facts.pop("finding"), str(facts["method"]["name"])
        except (KeyError, TypeError) as problem:
            raise BadInput(f"{folder}: its run.json was changed ({problem} is not there); run it again") from None
        finding = unpack(load(name).finding, tree, arrays)
        try:
            finding.blocks()
        except (ValueError, IndexError, RuntimeError) as problem:
            raise BadInput(f"{folder}: its finding does not hold together ({problem}); run it again") from None
        return cls(folder, facts, finding)


def run(
    method: Method[..., Finding],
    supplied: Mapping[str, Subject | Examples],
    options: Any = None,
    *,
    root: str | Path = "runs",
    command: str = "",
    progress: Progress | None = None,
) -> Run:
    """Ask the question and keep the answer. `supplied` holds the method's models and examples by parameter name."""
    options = method.options() if options is None else options
    root, began, clock = Path(root), datetime.datetime.now(datetime.UTC), time.perf_counter()
    facts = _facts(method, supplied, options)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    work = root / ".unfinished" / key[:24]
    made = [folder for folder in (root, work.parent, work) if not folder.exists()]
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(
            f"{root}: runs cannot be written there ({problem.strerror}); choose another folder with --runs"
        ) from None
    try:
        with _locked(work), working_in(Workspace(work, progress)) as workspace:
            finding = method(**supplied, options=options)
        name = f"{began:%Y%m%d-%H%M%S}-{method.name}-{key[:6]}"
        facts |= {
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "resumed_shards": workspace.resumed,
            "command": command,
            "verdict": str(finding.verdict),
            "headline": finding.headline,
        }
        folder = _write(root, name, facts, finding)
    except BadInput:
        (work / "lock").unlink(missing_ok=True)
        _discard_empty(reversed(made))  # a refused question leaves nothing behind, but never costs finished shards
        raise
    except (OSError, SafetensorError) as problem:  # safetensors has an error of its own for a full disk
        reason = getattr(problem, "strerror", None) or problem
        raise BadInput(f"{root}: writing the run failed ({reason}); finished shards are kept, run it again") from None
    shutil.rmtree(work, ignore_errors=True)
    _discard_empty([work.parent])
    return Run(folder, facts, finding)


def compare(first: Run, second: Run) -> list[dict[str, Any]]:
    """Where two runs differ: provenance, verdict, and every number of their tables, side by side."""
    differences: list[dict[str, Any]] = []
    for name, (one, two) in _paired(_flat(first.facts), _flat(second.facts)).items():
        if not _same(one, two) and name.split(".")[0] not in ("started", "seconds", "command", "resumed_shards"):
            differences.append({"what": name, "first": one, "second": two})
    if type(first.finding) is type(second.finding):
        rows = zip_longest(first.finding.rows(), second.finding.rows(), fillvalue={})
        for number, (one, two) in enumerate(rows):
            label = next(iter((one or two).values()), number)
            differences += [
                {"what": f"{label}: {column}", "first": a, "second": b}
                for column, (a, b) in _paired(one, two).items()
                if not _same(a, b)
            ]
    return differences


def _facts(method: Method[..., Finding], supplied: Mapping[str, Subject | Examples], options: Any) -> dict[str, Any]:
    """Everything that decides the answer."""
    subjects = {name: value for name, value in supplied.items() if isinstance(value, Subject)}
    examples = {name: value for name, value in supplied.items() if isinstance(value, Examples)}
    return {
        "schema": SCHEMA,
        "method": {
            "name": method.name,
            "question": method.question,
            "paper": method.paper,
            "source": method.source,
        },
        "changes": {name: list(subject.changes) for name, subject in subjects.items()},
        "subjects": {name: pack(subject.card)[0] for name, subject in subjects.items()},
        "proofs": {name: _proof(subject) for name, subject in subjects.items()},
        "data": {name: {"digest": x.digest, "count": len(x), "source": x.source} for name, x in examples.items()},
        "options": {key: value for key, value in pack(options)[0].items() if key != "is"},
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "device": _device(subjects),
    }


def _proof(subject: Subject) -> Any:
    if subject.certificate is None:
        return None
    return [{"what": check.what, "passed": check.passed} for check in subject.certificate.checks]


def _device(subjects: Mapping[str, Subject]) -> str:
    kinds = {str(subject.model.device) for subject in subjects.values()} or {"cpu"}
    names = [
        torch.cuda.get_device_name(kind) if kind.startswith("cuda") else platform.machine() for kind in sorted(kinds)
    ]
    return ", ".join(f"{kind} ({name})" for kind, name in zip(sorted(kinds), names, strict=True))


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """One process at a time on the same question; the lock goes with the process, however it ends."""
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"{work.parent.parent}: another process is asking this very question; wait for it") from None
        yield
        (work / "lock").unlink(missing_ok=True)


def _write(root: Path, name: str, facts: Mapping[str, Any], finding: Finding) -> Path:
    aside = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix=".part", dir=root / ".unfinished"))
    aside.chmod(0o755)  # mkdtemp makes folders only their maker can read; runs are shared
    try:
        tree, arrays = pack(finding)
        save_file(arrays, aside / "arrays.safetensors")
        (aside / "run.json").write_text(json.dumps({**facts, "finding": tree}, indent=1, allow_nan=False), "utf-8")
        _write_rows(finding, aside / "rows.parquet")
        page = rendered("page", Run(aside, facts, finding))
        (aside / "report.html").write_text(page, "utf-8")
        folder = root / name
        count = 1
        while folder.exists():  # two runs of the same question within a second
            count += 1
            folder = root / f"{name}-{count}"
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _write_rows(finding: Finding, file: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    rows = finding.rows()
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {_encodable(name): _column([row.get(name) for row in rows]) for name in names}
    parquet.write_table(arrow.table(columns), file)


def _column(values: list[Any]) -> Any:
    """As it is, or as text where Parquet cannot hold it: cells of several types, half a character."""
    import pyarrow as arrow

    try:
        return arrow.array(values)
    except (ValueError, TypeError, OverflowError):
        return arrow.array([None if value is None else _encodable(str(value)) for value in values])


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _discard_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _flat(tree: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {place: tree}
    return {
        name: leaf
        for key, item in tree.items()
        for name, leaf in _flat(item, f"{place}.{key}" if place else str(key)).items()
    }


def _same(one: Any, two: Any) -> bool:
    return one == two or (one != one and two != two)  # NaN is like NaN here


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])}

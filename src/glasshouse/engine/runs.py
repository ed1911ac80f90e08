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
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from glasshouse.data.examples import Examples
from glasshouse.engine.folders import HIDDEN, placed, workplace, writing
from glasshouse.engine.method import Method, load
from glasshouse.engine.provenance import provenance
from glasshouse.engine.units import Progress, Workspace, working_in
from glasshouse.model import patches
from glasshouse.model.subject import Subject
from glasshouse.values.codec import pack, unpack
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding
from glasshouse.values.surfaces import rendered

SCHEMA = 1


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
        try:
            method = load(name)
        except BadInput as problem:
            raise BadInput(f"{folder}: its question is not known here ({problem}); install what brings it") from None
        try:
            finding = unpack(method.finding, tree, arrays)
        except (BadInput, LookupError, TypeError, RuntimeError) as problem:
            raise BadInput(f"{folder}: written by another glasshouse ({problem}); run it again") from None
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
    name: str = "",
) -> Run:
    """Ask the question and keep the answer. `supplied` holds the method's models and examples by parameter name.

    With a `name` the folder has just that, an answer to this very question that is there is read and not made again,
    and no page is written: it is part of something larger that has one."""
    options = method.options() if options is None else options
    root, began, clock = Path(root), datetime.datetime.now(datetime.UTC), time.perf_counter()
    facts = _facts(method, supplied, options)
    key = key_of(facts, supplied)
    if name and (there := _there(root / name, key)):
        return there
    with workplace(root, key[:24]) as work:
        with working_in(Workspace(work, progress)) as workspace:
            finding = method(**supplied, options=options)
        facts |= {
            "key": key,
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "resumed_shards": workspace.resumed,
            "command": command,
            "verdict": str(finding.verdict),
            "headline": finding.headline,
        }
        with writing(root):
            folder = _write(
                root, name or f"{began:%Y%m%d-%H%M%S}-{method.name}-{key[:6]}", facts, finding, page=not name
            )
    return Run(folder, facts, finding)


def key_of(facts: Any, supplied: Mapping[str, Subject | Examples]) -> str:
    """Names a question by all that decides its answer. Where weights cannot be hashed no two are the same."""
    known = all(one.content is not None for one in supplied.values() if isinstance(one, Subject))
    text = json.dumps([facts, "" if known else os.urandom(8).hex()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_patch(file: str | Path) -> Patch:
    """The patch of a run whose finding has one, or of a patch file."""
    if not Path(file).is_dir():
        return patches.read_patch(Path(file))
    patch = getattr(Run.read(file).finding, "patch", None)
    if not isinstance(patch, Patch) or not patch.deltas:
        raise BadInput(f"{file}: this run has no patch; purify makes one where it is given a base")
    return patch


def compare(first: Run, second: Run) -> list[dict[str, Any]]:
    """Where two runs differ: provenance, verdict, and every number of their tables, side by side."""
    differences: list[dict[str, Any]] = []
    for name, (one, two) in _paired(_flat(first.facts), _flat(second.facts)).items():
        if not _same(one, two) and name.split(".")[0] not in ("started", "seconds", "command", "resumed_shards", "key"):
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
    return {
        "schema": SCHEMA,
        "method": {
            "name": method.name,
            "question": method.question,
            "paper": method.paper,
            "source": method.source,
        },
        "options": {key: value for key, value in pack(options)[0].items() if key != "is"},
        **provenance(supplied),
    }


def _there(folder: Path, key: str) -> Run | None:
    """A run that answers this very question; another one in its place is cleared away."""
    if not folder.exists():
        return None
    if not (folder / "run.json").is_file():
        raise BadInput(f"{folder}: is there already and no run; choose another folder with --runs")
    with suppress(BadInput):
        found = Run.read(folder)
        if found.facts.get("key") == key:
            return found
    shutil.rmtree(folder)
    return None


def _write(root: Path, name: str, facts: Mapping[str, Any], finding: Finding, *, page: bool) -> Path:
    aside = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix=".part", dir=root / HIDDEN))
    aside.chmod(0o755)  # mkdtemp makes folders only their maker can read; runs are shared
    try:
        tree, arrays = pack(finding)
        (aside / "arrays.safetensors").write_bytes(save(arrays))  # save_file's files are readable by their owner alone
        (aside / "run.json").write_text(json.dumps({**facts, "finding": tree}, indent=1, allow_nan=False), "utf-8")
        _write_rows(finding, aside / "rows.parquet")
        if page:
            (aside / "report.html").write_text(rendered("page", Run(aside, facts, finding)), "utf-8")
        return placed(aside, root / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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

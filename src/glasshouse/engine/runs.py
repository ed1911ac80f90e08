"""What is kept of a finding? A folder: the finding, where every number came from, and what is needed to make it again.

    runs/20261121-093005-lens-4f2a91/
        run.json             inputs with identities and proofs, options, versions, device, times, and the finding
        arrays.safetensors   the finding's tensors
        rows.parquet         its rows, one per example, layer or seed, for pandas, polars or DuckDB
        report.html          its page

The folder is written aside and renamed, so it exists whole or not at all. While the work goes on, finished units lie in
`runs/.unfinished/KEY`, where KEY names method, inputs and options; the same call after a kill finds them there and
continues.
"""

import datetime
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from glasshouse.data.strangers import read_object, reason
from glasshouse.engine.binding import Request, bind, bind_options, require
from glasshouse.engine.folders import HIDDEN, placed, workplace, writing
from glasshouse.engine.inputs import refuse_unknown
from glasshouse.engine.method import Method, as_method, load
from glasshouse.engine.preflight import Tell, checked_before
from glasshouse.engine.provenance import identified, provenance
from glasshouse.engine.units import Progress, Workspace, executing, working_in
from glasshouse.model import patches
from glasshouse.model.batching import AUTO, growing, sized
from glasshouse.values.codec import pack, unpack
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding
from glasshouse.values.surfaces import rendered

SCHEMA = 2


@dataclass(frozen=True)
class Run:
    """One finding, on disk."""

    folder: Path
    facts: Mapping[str, Any]
    """The content of run.json without the finding."""
    finding: Finding

    def __repr__(self) -> str:
        return f"Run({self.facts['method']['name']}, {self.finding.verdict}, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return rendered("html", self.finding)

    @classmethod
    def read(cls, folder: str | Path) -> "Run":
        """Load a run folder; the finding comes back typed."""
        folder = Path(folder)
        try:
            facts = read_object(folder / "run.json")
            arrays = load_file(folder / "arrays.safetensors")
        except (OSError, SafetensorError, ValueError) as problem:
            line = reason(problem)
            raise BadInput(f"{folder}: not a whole run folder ({line}); glasshouse run writes such folders") from None
        schema = facts.get("schema")
        if schema != SCHEMA:
            raise BadInput(f"{folder}: written with schema {schema}, this version reads {SCHEMA}; run it again")
        try:
            tree, name = facts.pop("finding"), str(facts["method"]["name"])
        except (KeyError, TypeError):
            raise BadInput(f"{folder}: its run.json lacks 'finding' or 'method'; run the method again") from None
        try:
            method = load(name)
        except BadInput as problem:
            raise BadInput(f"{folder}: its method is not installed ({problem}); install what brings it") from None
        try:
            finding = unpack(method.finding, tree, arrays)
        except (BadInput, LookupError, TypeError, RuntimeError) as problem:
            raise BadInput(f"{folder}: written by another version of {name} ({problem}); run it again") from None
        try:
            finding.blocks()
        except (ValueError, IndexError, RuntimeError) as problem:
            raise BadInput(f"{folder}: its finding is inconsistent ({problem}); run it again") from None
        return cls(folder, facts, finding)


def answer(
    method: Method[Finding], request: Request, *, root: Path, command: str, progress: Progress | None,
    on: str | None = None, tell: Tell | None = None,
) -> Run:  # fmt: skip
    """Read what the request names, and run. `tell` is given what that will take before a model is opened; what does
    not fit is refused then."""
    options = bind_options(method, request.options)
    values = bind(method, request, before=checked_before(method.inputs, lambda _: [method], tell))
    with sized(auto=request.options.get("batch_size") == AUTO):
        return run(method, values, options, root=root, command=command, progress=progress, on=on)


def run(
    method: Method[Finding] | Callable[..., Finding] | str,
    values: Mapping[str, Any],
    options: Any = None,
    *,
    root: str | Path = "runs",
    command: str = "",
    progress: Progress | None = None,
    on: str | None = None,
    name: str = "",
) -> Run:
    """Ask the question and keep the finding: `run(gh.methods.lens, {"model": subject, "data": examples})`. `values`
    holds the method's inputs by flag. Units of work run in this process, or `on="ray"` on workers; the finding is the
    same.

    With a `name` the folder has just that name, a finding for this very question that lies there is read and not made
    again, and no page is written: the run is part of something larger that has a page."""
    method = as_method(method)
    options = method.options() if options is None else options
    _check(method, values)
    auto = growing()
    root, began, clock = Path(root), datetime.datetime.now(datetime.UTC), time.perf_counter()
    facts = _facts(method, values, options)
    if auto and method.in_batches:
        facts["options"] |= {"batch_size": AUTO}
    key = key_of(facts, settled=identified(method.inputs, values))
    if name and (existing := _existing(root / name, key)):
        return existing
    with workplace(root, key[:24]) as work:
        with executing(on), working_in(Workspace(work, progress)) as workspace, sized(auto=auto) as sizes:
            finding = method.answer(values, options)
        facts |= {
            "key": key,
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "resumed": workspace.resumed,
            "batches": {"smallest": sizes.smallest, "largest": sizes.largest, "halved": sizes.halved},
            "command": command,
            "verdict": str(finding.verdict),
            "headline": finding.headline,
        }
        with writing(root):
            folder = name or f"{began:%Y%m%d-%H%M%S}-{method.name}-{key[:6]}"
            return Run(_write(root, folder, facts, finding, page=not name), facts, finding)


def key_of(facts: Any, *, settled: bool) -> str:
    """Names a question by all that decides its finding. Where an input cannot be identified no two are the same."""
    text = json.dumps([facts, "" if settled else os.urandom(8).hex()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_patch(file: str | Path) -> Patch:
    """The patch of a run whose finding has one, or of a patch file."""
    if not Path(file).is_dir():
        return patches.read_patch(Path(file))
    patch = getattr(Run.read(file).finding, "patch", None)
    if not isinstance(patch, Patch) or not patch.deltas:
        raise BadInput(f"{file}: this run has no patch; purify makes one where it is given a base")
    return patch


def _check(method: Method[Finding], values: Mapping[str, Any]) -> None:
    """Refuse inputs that the method does not take, lacks, or that are of another kind."""
    refuse_unknown(values, method.inputs, method.name)
    for each in method.inputs:
        if each.flag in values:
            each.check(values[each.flag])
    require(method, values)


def _facts(method: Method[Finding], values: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Everything that decides the finding."""
    page = method.page
    return {
        "schema": SCHEMA,
        "method": {"name": method.name, "question": page.question, "paper": page.paper, "source": method.source},
        "options": {key: value for key, value in pack(options)[0].items() if key != "is"},
        **provenance(method.inputs, values),
    }


def _existing(folder: Path, key: str) -> Run | None:
    """A run that answers this very question; another run in its place is removed."""
    if not folder.exists():
        return None
    if not (folder / "run.json").is_file():
        raise BadInput(f"{folder}: exists and is no run; choose another folder with --runs")
    with suppress(BadInput):
        existing = Run.read(folder)
        if existing.facts.get("key") == key:
            return existing
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

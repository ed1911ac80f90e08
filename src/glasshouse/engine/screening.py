"""Which of many models give reason for concern? Each is audited as a unit of work, and one table holds all verdicts.

    runs/20261124-101500-screen-4f2a91/
        screen.parquet       one row per model: verdict, headline, the verdict of every method, seconds, folder
        001-audit-…/         the audit of the first line, and so on

Units run in this process or, with `on="ray"`, on workers; a killed screen continues with the models that are left. An
audit that is refused or meets an internal error costs its own row.
"""

import datetime
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import UInt8
from torch import Tensor

from glasshouse.data.columns import resolved, split
from glasshouse.engine.audit import examine
from glasshouse.engine.audit_plan import EXAMINED
from glasshouse.engine.binding import Request, as_tree
from glasshouse.engine.folders import placed, workplace, writing
from glasshouse.engine.index import SCREEN
from glasshouse.engine.provenance import code
from glasshouse.engine.units import Progress, Workspace, executing, mapped, working_in
from glasshouse.values.codec import digest
from glasshouse.values.errors import BadInput, Unwritable

ERROR, REFUSED = "internal error", "refused"
"""What stands for the verdict of an audit that gave none."""


@dataclass(frozen=True)
class Candidate:
    """One line of the list."""

    number: int
    text: str
    request: Request


@dataclass(frozen=True)
class Screened:
    """One audited model, with the files of its audit: the worker that made them may share no disk with us."""

    model: str
    verdict: str
    headline: str
    verdicts: Mapping[str, str]
    """The verdict of each method that answered, by its name."""
    seconds: float
    folder: str
    files: Mapping[str, UInt8[Tensor, " bytes"]]


@dataclass(frozen=True)
class Screen:
    """All audited models, on disk."""

    folder: Path
    results: tuple[Screened, ...]


def screen(
    candidates: Sequence[Candidate], *, root: str | Path = "runs", on: str | None = None,
    progress: Progress | None = None,
) -> Screen:  # fmt: skip
    """Audit every candidate, in the order of the list."""
    if not candidates:
        raise BadInput("there is no model to screen; write one on each line")
    root, began = Path(root), datetime.datetime.now(datetime.UTC)
    units = [_unit(candidate) for candidate in candidates]
    key = digest((tuple(units), code()))
    with workplace(root, f"screen-{key[:20]}") as work:
        with executing(on), working_in(Workspace(work / "units", progress)):
            results = mapped(_audited, units, Screened, name="model")
        folder = work / "screen"
        shutil.rmtree(folder, ignore_errors=True)
        with writing(root):
            screened = tuple(
                _unpacked(result, folder, candidate) for result, candidate in zip(results, candidates, strict=True)
            )
            _write_table(screened, candidates, folder / SCREEN)
            return Screen(placed(folder, root / f"{began:%Y%m%d-%H%M%S}-screen-{key[:6]}"), screened)


def _unit(candidate: Candidate) -> tuple[str, str, str]:
    """What a worker needs: the command, the request with absolute paths, and what the files it names look like now."""
    inputs = {flag: tuple(map(_absolute, texts)) for flag, texts in candidate.request.inputs.items()}
    adapter = candidate.request.opening.adapter
    opening = replace(candidate.request.opening, adapter=adapter and _absolute(adapter))
    tree = as_tree(replace(candidate.request, inputs=inputs, opening=opening))
    texts = [*(text for each in inputs.values() for text in each), opening.adapter or ""]
    return candidate.text, json.dumps(tree, sort_keys=True), digest(tuple(map(_state, texts)))


def _absolute(text: str) -> str:
    """Paths that exist here, also in a list with commas, as every worker can find them."""
    return ",".join(map(resolved, text.split(",")))


def _state(text: str) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files behind a text: a checkpoint that changed is screened again."""
    states: list[tuple[str, int, int]] = []
    for part in text.split(","):
        path = Path(split(part)[0])
        files = sorted(path.rglob("*")) if part and path.is_dir() else [path] if part and path.is_file() else []
        states += [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return tuple(states)


def _audited(unit: tuple[str, str, str]) -> Screened:
    """The audit of one line, in a folder of its own."""
    text, tree, _ = unit
    request = Request.of(json.loads(tree), text)
    model = next(iter(request.inputs.get(EXAMINED, ())), text)
    with tempfile.TemporaryDirectory(prefix="glasshouse-screen-") as folder:
        try:
            audit = examine(request, root=folder, command=f"glasshouse audit {text}")
        except Unwritable:
            raise
        except BadInput as problem:
            return Screened(model, REFUSED, str(problem), {}, 0.0, "", {})
        except Exception as problem:  # noqa: BLE001 - one model's error must not cost the other rows
            line = (str(problem).splitlines() or [""])[0]
            return Screened(model, ERROR, f"{type(problem).__name__}: {line}", {}, 0.0, "", {})
        files = {
            file.relative_to(audit.folder).as_posix(): torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
            for file in sorted(audit.folder.rglob("*"))
            if file.is_file() and file.stat().st_size
        }
        return Screened(
            model=model, verdict=str(audit.judgement.verdict), headline=audit.judgement.headline,
            verdicts={name: str(run.finding.verdict) for name, run in audit.runs.items()},
            seconds=audit.facts["seconds"], folder=audit.folder.name, files=files,
        )  # fmt: skip


def _unpacked(result: Screened, root: Path, candidate: Candidate) -> Screened:
    """The audit's files under the number of its line."""
    root.mkdir(parents=True, exist_ok=True)
    if not result.files:
        return replace(result, files={})
    folder = f"{candidate.number:03d}-{result.folder}"
    for name, content in result.files.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise BadInput(f"{candidate.text}: a worker sent the file {name!r}, which lies outside its folder")
        (root / folder / place).parent.mkdir(parents=True, exist_ok=True)
        (root / folder / place).write_bytes(content.numpy().tobytes())
    return replace(result, files={}, folder=folder)


def _write_table(results: Sequence[Screened], candidates: Sequence[Candidate], file: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    methods = list(dict.fromkeys(name for result in results for name in result.verdicts))
    rows = [
        {
            "line": candidate.number, "command": candidate.text, "model": result.model, "verdict": result.verdict,
            "headline": result.headline, "seconds": result.seconds, "folder": result.folder,
            **{name: result.verdicts.get(name) for name in methods},
        }
        for result, candidate in zip(results, candidates, strict=True)
    ]  # fmt: skip
    parquet.write_table(arrow.Table.from_pylist(rows), file)

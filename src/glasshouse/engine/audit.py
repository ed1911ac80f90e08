"""May this model be trusted, as far as all methods can tell? Every method whose inputs are there runs in turn, and the
findings are combined into one verdict.

    runs/20261121-093005-audit-4f2a91/
        audit.json       what ran, what did not and why, and the verdict
        report.html      its page; audit.sarif, junit.xml and model-card.md for pipelines, hubs and readers
        recovery/        a run folder for each question that was answered
        ...

Inputs are opened once, and what several methods compute is computed once (`model/sharing.py`). An internal error costs
its own section only. While the work goes on the folder is `runs/.unfinished/audit-KEY`; the same call after a kill
finds there what was answered and continues.
"""

import datetime
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

from glasshouse.data.strangers import read_object, reason
from glasshouse.engine.audit_plan import DEPTHS, EXAMINED, Methods, planned, trace
from glasshouse.engine.binding import Request, bind_options, command, supply
from glasshouse.engine.catalogue import Depth, catalogue
from glasshouse.engine.files import write_whole
from glasshouse.engine.folders import HIDDEN, placed, workplace, writing
from glasshouse.engine.inputs import refuse_unknown
from glasshouse.engine.judgement import Judgement, Section
from glasshouse.engine.method import Method
from glasshouse.engine.preflight import Estimate, checked_before, estimated
from glasshouse.engine.provenance import identified, provenance
from glasshouse.engine.runs import Run, key_of, run
from glasshouse.engine.units import executing
from glasshouse.model.batching import AUTO, Auto, sized
from glasshouse.model.sharing import sharing
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput, Unwritable
from glasshouse.values.findings import Finding
from glasshouse.values.surfaces import rendered

SCHEMA = 2
MOST: Mapping[Depth, int | None] = {"quick": 160, "standard": 640, "thorough": None}
"""Examples that are used where no limit is given."""
SURFACES = {"report.html": "audit page", "audit.sarif": "sarif", "junit.xml": "junit", "model-card.md": "model card"}
"""The files of an audit, and which surface writes each."""


class Watch(Protocol):
    """An observer of an audit that is running."""

    def preflight(self, estimate: Estimate) -> None: ...
    def planned(self, sections: tuple[Section, ...]) -> None: ...
    def doing(self, method: str, what: str, done: int, total: int) -> None: ...
    def ended(self, section: Section, finding: Finding | None) -> None: ...


@dataclass(frozen=True)
class Audit:
    """Many findings about one model, on disk."""

    folder: Path
    facts: Mapping[str, Any]
    """Inputs, versions, device, depth, command and times."""
    sections: tuple[Section, ...]
    runs: Mapping[str, Run]
    judgement: Judgement = field(init=False)

    def __post_init__(self) -> None:
        findings = {name: record.finding for name, record in self.runs.items()}
        object.__setattr__(self, "judgement", Judgement(self.sections, findings))

    def __repr__(self) -> str:
        return f"Audit({self.facts['depth']}, {self.judgement.verdict}, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return rendered("html", self)

    @classmethod
    def read(cls, folder: str | Path) -> "Audit":
        """Load an audit's folder with all its runs."""
        folder = Path(folder)
        try:
            facts = read_object(folder / "audit.json")
            schema = facts.get("schema")
            sections = unpack(tuple[Section, ...], facts.pop("sections", None)) if schema == SCHEMA else ()
        except (BadInput, OSError, ValueError) as problem:
            line = reason(problem)
            raise BadInput(f"{folder}: not a whole audit ({line}); glasshouse audit writes such folders") from None
        if schema != SCHEMA:
            raise BadInput(f"{folder}: written with schema {schema}, this version reads {SCHEMA}; audit it again")
        installed = {entry.name for entry in catalogue()}
        answered = [section.method for section in sections if section.state == "answered"]
        for name in answered:
            if name not in installed:  # also keeps a stranger's names from becoming paths
                raise BadInput(f"{folder}: its method {name!r} is not installed; install what brings it")
        return cls(folder, facts, sections, {name: Run.read(folder / name) for name in answered})


def audit(
    model: object, *, depth: Depth = "quick", limit: int | None = None, batch_size: int | Auto | None = None,
    root: str | Path = "runs", on: str | None = None, **inputs: object,
) -> Audit:  # fmt: skip
    """Run every method whose inputs are there: `audit("org/model", base="org/base", data="examples.jsonl")`.

    Inputs are those of the command line, by flag (`held_out` for `--held-out`), as text or as values. Organisms bring
    their own. With a `batch_size` every method that has the option shows so many examples at once; with "auto", as
    many as memory was measured to hold."""
    given = {EXAMINED: model, **{name.replace("_", "-"): value for name, value in inputs.items() if value is not None}}
    texts = {flag: value for flag, value in given.items() if _is_text(value)}
    written = {flag: (str(value),) if isinstance(value, str | Path) else tuple(map(str, cast(list[str], value)))
               for flag, value in texts.items()}  # fmt: skip
    values = {flag: value for flag, value in given.items() if flag not in texts}
    options = {"depth": depth} | ({} if batch_size is None else {"batch_size": batch_size})
    return examine(Request("audit", written, options, limit=limit), values, root=root, on=on)


def _is_text(value: object) -> bool:
    """A path or name, or several."""
    several = isinstance(value, list | tuple) and all(isinstance(text, str | Path) for text in value)
    return isinstance(value, str | Path) or several


def examine(
    request: Request, values: Mapping[str, Any] | None = None, *, root: str | Path = "runs", command: str = "",
    watch: Watch | None = None, on: str | None = None,
) -> Audit:  # fmt: skip
    """Run all methods that this depth includes on what `request` names and on `values` that are open already. The
    request's options are the depth and, where it shall replace the methods' own, one batch size."""
    (depth, batch_size), methods = chosen(request.options), Methods.load()
    if request.limit is None:
        request = replace(request, limit=MOST[depth])
    began, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    inputs = methods.inputs()
    refuse_unknown((*request.inputs, *(values or {})), inputs, "audit")
    before = checked_before(inputs, lambda flags: methods.running(depth, flags), watch.preflight if watch else None)
    supplied = supply(inputs, request, values, before=before)
    options = {"limit": request.limit, **({} if batch_size is None else {"batch_size": batch_size})}
    facts = {"schema": SCHEMA, "depth": depth, "options": options, **provenance(inputs, supplied)}
    sections = tuple(planned(method, depth, supplied) for method in methods.loaded)
    plan = [(section.method, method.source) for section, method in zip(sections, methods.loaded, strict=True)]
    key = key_of([facts, plan], settled=identified(inputs, supplied))
    if watch:
        watch.planned(sections)
    with workplace(Path(root), f"audit-{key[:20]}") as work, sharing(), executing(on):
        asker = _Asker(supplied, work, replace(request, options={}) if not values else None, batch_size, watch)
        results = [
            asker.answered(section, method) if section.state == "answered" else (section, None)
            for section, method in zip(sections, methods.loaded, strict=True)
        ]
        facts |= {
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "command": command,
        }
        runs = {section.method: record for section, record in results if record is not None}
        whole = Audit(work, facts, (*(section for section, _ in results), *methods.broken), runs)
        return _placed(whole, Path(root) / f"{began:%Y%m%d-%H%M%S}-audit-{key[:6]}")


def estimated_audit(request: Request, methods: Methods) -> Estimate | None:
    """What an audit will take, before a model is opened."""
    depth, _ = chosen(request.options)
    limited = replace(request, limit=MOST[depth] if request.limit is None else request.limit)
    return estimated(limited, methods.inputs(), lambda flags: methods.running(depth, flags))


def chosen(options: Mapping[str, Any]) -> tuple[Depth, int | Auto | None]:
    """An audit's options: how deep, and how many examples at once."""
    for name in options:
        if name not in ("depth", "batch_size"):
            raise BadInput(f"audit has no option {name!r}; its options are 'depth' and 'batch_size'")
    depth, size = options.get("depth", "quick"), options.get("batch_size")
    if depth not in DEPTHS:
        raise BadInput(f"there is no depth {depth!r}; write one of {', '.join(DEPTHS)}")
    if size not in (None, AUTO) and (not isinstance(size, int) or size < 1):
        raise BadInput(f"--batch-size {size}: must be a number from 1 upwards, or auto")
    return depth, size


@dataclass(frozen=True)
class _Asker:
    """Runs one method after the other on the same inputs."""

    supplied: Mapping[str, Any]
    work: Path
    request: Request | None
    """What was written, to name each run's own command; None where values were given that no command can name."""
    batch_size: int | Auto | None
    watch: Watch | None

    def answered(self, section: Section, method: Method[Finding]) -> tuple[Section, Run | None]:
        """Ask it. What it refuses and any internal error stay in its own section, except a full disk."""
        clock, record = time.perf_counter(), None
        options = {"batch_size": self.batch_size} if self.batch_size is not None and method.in_batches else {}
        own = {each.flag: self.supplied[each.flag] for each in method.inputs if each.flag in self.supplied}
        alone = command(method, replace(self.request, options=options)) if self.request else ""

        def progress(what: str, done: int, total: int) -> None:
            if self.watch:
                self.watch.doing(method.name, what, done, total)

        progress("", 0, 1)
        try:
            with sized(auto=self.batch_size == AUTO):
                record = run(
                    method, own, bind_options(method, options), root=self.work, command=alone, progress=progress,
                    name=method.name,
                )  # fmt: skip
            section = replace(section, seconds=record.facts["seconds"])
        except Unwritable:
            raise  # the next method would fail too; what was answered is kept
        except BadInput as problem:
            section = replace(section, state="refused", why=str(problem), seconds=_since(clock))
        except Exception as problem:  # noqa: BLE001 - one method's error must not cost the other sections
            line = (str(problem).splitlines() or [""])[0]
            why = f"{type(problem).__name__}: {line}"
            section = replace(section, state="internal error", why=why, seconds=_since(clock), trace=trace(problem))
        if self.watch:
            self.watch.ended(section, record.finding if record else None)
        return section, record


def _since(clock: float) -> float:
    return round(time.perf_counter() - clock, 3)


def _placed(audit: Audit, folder: Path) -> Audit:
    """Write everything beside the runs, and then give the folder its own name."""
    shutil.rmtree(audit.folder / HIDDEN, ignore_errors=True)  # units of a method that met an internal error
    facts = {**audit.facts, "verdict": str(audit.judgement.verdict), "headline": audit.judgement.headline}
    whole = replace(audit, facts=facts)
    for name, surface in SURFACES.items():
        write_whole(whole.folder / name, str(rendered(surface, whole)).encode())
    tree = {**facts, "sections": pack(whole.sections)[0]}
    write_whole(whole.folder / "audit.json", json.dumps(tree, indent=1, allow_nan=False).encode())
    with writing(folder.parent):
        return replace(whole, folder=placed(whole.folder, folder))

"""May this model be trusted, as far as all methods can tell? Every question that can be asked is asked in turn, and the
answers are bound into one.

    runs/20261121-093005-audit-4f2a91/
        audit.json       what was asked, what was not and why, and the verdict
        report.html      its page; audit.sarif, junit.xml and model-card.md for pipelines, hubs and readers
        recovery/        a run folder for each question that was answered
        ...

Models are opened once, and what several questions look at is computed once (`model/sharing.py`). A question that
breaks down costs its own section. While the work goes on the folder is `runs/.unfinished/audit-KEY`; the same call
after a kill finds there what was answered and goes on.
"""

import datetime
import json
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast, get_args

from glasshouse.data.examples import Examples
from glasshouse.engine.binding import Opening, Request, flag, spelled, supply
from glasshouse.engine.catalogue import catalogue
from glasshouse.engine.files import write_whole
from glasshouse.engine.folders import HIDDEN, placed, workplace, writing
from glasshouse.engine.judgement import Judgement, Section
from glasshouse.engine.method import Depth, Method, Role, load
from glasshouse.engine.provenance import provenance
from glasshouse.engine.runs import Run, key_of, run
from glasshouse.model.sharing import sharing
from glasshouse.model.subject import Subject
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput, Unwritable
from glasshouse.values.findings import Finding
from glasshouse.values.surfaces import rendered

SCHEMA = 1
ROLES: tuple[Role, ...] = get_args(Role)
"""What decides is asked first."""
DEPTHS: tuple[Depth, ...] = get_args(Depth)
MOST: Mapping[Depth, int | None] = {"quick": 160, "standard": 640, "thorough": None}
"""Examples that are looked at where no limit is given."""
SURFACES = {"report.html": "audit page", "audit.sarif": "sarif", "junit.xml": "junit", "model-card.md": "model card"}
"""What is written of an audit, and which surface writes it."""
Supplied = Mapping[str, Subject | Examples]


class Watch(Protocol):
    """Whoever looks on while an audit is made."""

    def planned(self, sections: tuple[Section, ...]) -> None: ...
    def doing(self, method: str, what: str, done: int, total: int) -> None: ...
    def ended(self, section: Section, finding: Finding | None) -> None: ...


@dataclass(frozen=True)
class Audit:
    """Many answered questions about one model, on disk."""

    folder: Path
    facts: Mapping[str, Any]
    """Subjects, data, versions, device, depth, command and times."""
    sections: tuple[Section, ...]
    runs: Mapping[str, Run]
    judgement: Judgement = field(init=False)

    def __post_init__(self) -> None:
        findings = {name: made.finding for name, made in self.runs.items()}
        object.__setattr__(self, "judgement", Judgement(self.sections, findings))

    def _repr_html_(self) -> str:
        return rendered("html", self)

    @classmethod
    def read(cls, folder: str | Path) -> "Audit":
        """Load an audit's folder with all its runs."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / "audit.json").read_text("utf-8"))
            sections = unpack(tuple[Section, ...], facts.pop("sections"))
            schema = facts["schema"]
        except (BadInput, OSError, ValueError, KeyError, AttributeError, RecursionError) as problem:
            raise BadInput(f"{folder}: not a whole audit ({problem}); audits are made by glasshouse audit") from None
        if schema != SCHEMA:
            raise BadInput(f"{folder}: written with schema {schema}, this version reads {SCHEMA}; audit it again")
        answered = [one.method for one in sections if one.state == "answered"]
        return cls(folder, facts, sections, {name: Run.read(folder / name) for name in answered})


def audit(
    model: str | Subject, base: str | Subject | None = None, examples: str | Examples | None = None, *,
    benign: str | Subject | None = None, held_out: str | Examples | None = None, lessons: str | Examples | None = None,
    clean: str | Examples | None = None, triggered: str | Examples | None = None, depth: Depth = "quick",
    limit: int | None = None, batch_size: int | None = None, root: str | Path = "runs",
) -> Audit:  # fmt: skip
    """Ask everything that can be asked of a model with what is given beside it, by name or opened. Organisms bring
    their base and their examples. With a `batch_size` every method that has one shows so many
    examples at once."""
    models = {"subject": model, "base": base, "benign": benign}
    data = {"examples": examples, "held_out": held_out, "lessons": lessons, "clean": clean, "triggered": triggered}
    opened = {name: one for name, one in {**models, **data}.items() if isinstance(one, Subject | Examples)}
    named = {name: one if isinstance(one, str) else one.name for name, one in models.items() if one is not None}
    files = {name: one for name, one in data.items() if isinstance(one, str)}
    options = {"depth": depth, "batch_size": batch_size}
    return examine(Request("audit", named, files, options, Opening(), limit), opened, root=root)


def examine(
    request: Request, opened: Supplied | None = None, *, root: str | Path = "runs", command: str = "",
    watch: Watch | None = None,
) -> Audit:  # fmt: skip
    """Ask everything that can be asked at this depth of what `request` names and of what is opened already. Its method
    is "audit", its options are the depth and, if the methods' own shall not hold, one batch size."""
    (depth, batch_size), (methods, unloaded) = chosen(request.options), _methods()
    wanted = [method for method in methods if _within(method, depth)]
    if request.limit is None:
        request = replace(request, limit=MOST[depth])
    began, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    supplied = supply(request, *_inputs(wanted), opened or {})
    options = {"limit": request.limit, **({} if batch_size is None else {"batch_size": batch_size})}
    facts = {"schema": SCHEMA, "depth": depth, "options": options, **provenance(supplied)}
    sections = tuple(_planned(method, depth, supplied) for method in methods)
    plan = [(one.method, method.source) for one, method in zip(sections, methods, strict=True)]
    key = key_of([facts, plan], supplied)
    if watch:
        watch.planned(sections)
    with workplace(Path(root), f"audit-{key[:20]}") as work, sharing():
        made: dict[str, tuple[Section, Run | None]] = {}
        for section, method in zip(sections, methods, strict=True):
            if section.state == "answered":  # what was given opened cannot be named in a command
                own = {"batch_size": batch_size} if batch_size is not None and method.in_batches else {}
                alone = "" if opened else spelled(method, replace(request, options=own))
                made[section.method] = _answered(section, method, alone, supplied, own, work, watch)
        sections = tuple(made[one.method][0] if one.method in made else one for one in sections) + unloaded
        runs = {name: found for name, (_, found) in made.items() if found is not None}
        facts |= {
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "command": command,
        }
        return _placed(Audit(work, facts, sections, runs), Path(root) / f"{began:%Y%m%d-%H%M%S}-audit-{key[:6]}")


def chosen(options: Mapping[str, Any]) -> tuple[Depth, int | None]:
    """An audit's options: how deep, and how many examples at once."""
    for name in options:
        if name not in ("depth", "batch_size"):
            raise BadInput(f"audit has no option {name!r}; its options are 'depth' and 'batch_size'")
    depth, size = options.get("depth", "quick"), options.get("batch_size")
    if depth not in DEPTHS:
        raise BadInput(f"there is no depth {depth!r}; write one of {', '.join(DEPTHS)}")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise BadInput(f"--batch-size {size}: must be a number from 1 upwards")
    return depth, size


def _methods() -> tuple[list[Method[..., Finding]], tuple[Section, ...]]:
    """All of them, those that decide first; and of those that cannot even be imported, what broke down."""
    found, unloaded = list[Method[..., Finding]](), list[Section]()
    for entry in catalogue():
        try:
            found.append(load(entry.name))
        except Exception as problem:  # noqa: BLE001 - another package's fault must not cost the other answers
            why, role = f"{type(problem).__name__}: {problem}", cast(Role, entry.role)
            unloaded.append(Section(entry.name, entry.question, role, "broke down", why, trace=_trace(problem)))
    return sorted(found, key=lambda method: ROLES.index(method.role)), tuple(unloaded)


def _within(method: Method[..., Finding], depth: Depth) -> bool:
    return DEPTHS.index(method.depth) <= DEPTHS.index(depth)


def _inputs(methods: list[Method[..., Finding]]) -> tuple[dict[str, bool], dict[str, bool]]:
    """All models and all sets of examples that any of them takes; only the model itself is required."""
    subjects = {name: name == "subject" for method in methods for name in method.subjects}
    return {"subject": True, **subjects}, {name: False for method in methods for name in method.examples}


def _planned(method: Method[..., Finding], depth: Depth, supplied: Supplied) -> Section:
    """Whether it can be asked; if not, why."""
    missing = [name for name, needed in {**method.subjects, **method.examples}.items()
               if needed and name not in supplied]  # fmt: skip
    why = ""
    if method.needs == "endpoint":
        why = "needs a model behind an endpoint"
    elif not _within(method, depth):
        why = f"asked from --depth {method.depth} on"
    elif missing:
        why = f"needs {' and '.join(f'--{flag(name)}' for name in missing)}"
    return Section(method.name, method.question, method.role, "not asked" if why else "answered", why)


def _answered(
    section: Section, method: Method[..., Finding], command: str, supplied: Supplied, options: Mapping[str, Any],
    work: Path, watch: Watch | None,
) -> tuple[Section, Run | None]:  # fmt: skip
    """Ask it. What it refuses and whatever goes wrong is its own section's business, but for a full disk."""
    clock, found = time.perf_counter(), None
    given = {name: supplied[name] for name in (*method.subjects, *method.examples) if name in supplied}

    def progress(what: str, done: int, total: int) -> None:
        if watch:
            watch.doing(method.name, what, done, total)

    progress("", 0, 1)
    try:
        settings = method.options(**options)
        found = run(method, given, settings, root=work, command=command, progress=progress, name=method.name)
        section = replace(section, seconds=found.facts["seconds"])
    except Unwritable:
        raise  # the next would fail too; what was answered is kept
    except BadInput as problem:
        section = replace(section, state="refused", why=str(problem), seconds=_since(clock))
    except Exception as problem:  # noqa: BLE001 - one method's fault must not cost the other sections
        line = (str(problem).splitlines() or [""])[0]
        section = replace(section, state="broke down", why=f"{type(problem).__name__}: {line}", seconds=_since(clock),
                          trace=_trace(problem))  # fmt: skip
    if watch:
        watch.ended(section, found.finding if found else None)
    return section, found


def _trace(problem: Exception) -> str:
    """Where it broke down, without the folders of whoever audited."""
    frames = traceback.extract_tb(problem.__traceback__)
    return "\n".join(f"{Path(one.filename).name}:{one.lineno} in {one.name}: {one.line}" for one in frames)


def _since(clock: float) -> float:
    return round(time.perf_counter() - clock, 3)


def _placed(audit: Audit, folder: Path) -> Audit:
    """Everything beside the runs, and then the folder under its own name."""
    shutil.rmtree(audit.folder / HIDDEN, ignore_errors=True)  # shards of a question that broke down
    facts = {**audit.facts, "verdict": str(audit.judgement.verdict), "headline": audit.judgement.headline}
    whole = replace(audit, facts=facts)
    for name, surface in SURFACES.items():
        write_whole(whole.folder / name, str(rendered(surface, whole)).encode())
    tree = {**facts, "sections": pack(whole.sections)[0]}
    write_whole(whole.folder / "audit.json", json.dumps(tree, indent=1, allow_nan=False).encode())
    with writing(folder.parent):
        return replace(whole, folder=placed(whole.folder, folder))

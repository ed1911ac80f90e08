"""How do words become values? A model's name a Subject, a file's name Examples, text an options dataclass."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from glasshouse.data.examples import Examples
from glasshouse.engine.method import Method
from glasshouse.engine.runs import Run, run
from glasshouse.engine.units import Progress
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.opening import open_anatomy, open_subject
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import examples_for_flag
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Opening:
    """How models are opened."""

    adapter: str | None = None
    """Folder of a PEFT adapter to put on the model."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    device: str | None = None
    """cpu, cuda, or auto to spread over all devices."""
    download: bool = False
    """Fetch from the hub what is not in the local cache."""
    remote_code: bool = False
    """Run code that the model's repository brings. Only if you trust it."""
    unproved: bool = False
    """Go on when the anatomy cannot be proved."""


def open_model(
    source: str | Path | PreTrainedModel,
    *,
    processor: Any = None,
    adapter: str | Path | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str = "auto",
    device: str | Mapping[str, Any] | None = None,
    download: bool = False,
    remote_code: bool = False,
    unproved: bool = False,
) -> Subject:
    """Open a folder, a hub name, `organism:NAME` or a loaded model; see `open_subject`."""
    if isinstance(source, str) and shelf.is_organism(source):
        asked = {"processor": processor, "adapter": adapter, "revision": revision, "device": device}
        named = [name for name, value in asked.items() if value is not None] + ["dtype"] * (dtype != "auto")
        if named:
            raise BadInput(f"{source}: an organism is opened as it was grown; leave out {', '.join(named)}")
        return shelf.take(source)
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise BadInput(f"dtype {dtype}: write one of {', '.join(DTYPES)}")
        dtype = DTYPES[dtype]
    return open_subject(
        source, processor=processor, adapter=adapter, revision=revision, dtype=dtype, device=device,
        download=download, remote_code=remote_code, unproved=unproved,
    )  # fmt: skip


def anatomy_of(source: str, opening: Opening) -> Anatomy:
    """The anatomy of a name, from its configuration alone."""
    if shelf.is_organism(source):
        return shelf.take(source).anatomy
    return open_anatomy(source, revision=opening.revision, download=opening.download, remote_code=opening.remote_code)


@dataclass(frozen=True)
class Request:
    """A question with everything it needs, by name. This is what a dry run prints and `--from` reads."""

    method: str
    models: Mapping[str, str]
    data: Mapping[str, str]
    options: Mapping[str, Any]
    opening: Opening
    limit: int | None = None

    @classmethod
    def read(cls, file: Path) -> "Request":
        try:
            tree = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as problem:
            raise BadInput(f"{file}: not a readable request ({problem}); a dry run prints one") from None
        plain = {name: value for name, value in tree.items() if name != "options"} if isinstance(tree, dict) else tree
        try:
            request = unpack(_RequestForm, plain)
        except BadInput as problem:
            raise BadInput(f"{file}: {str(problem).replace('_RequestForm', 'the request')}") from None
        options = tree.get("options", {})
        if not isinstance(options, dict):
            raise BadInput(f"{file}: options must be an object")
        return cls(request.method, request.models, request.data, options, request.opening, request.limit)


def as_tree(request: Request) -> dict[str, Any]:
    """The request as a file holds it, for `Request.read`."""
    tree: dict[str, Any] = pack(request)[0]
    tree.pop("is")
    tree["opening"].pop("is")
    return tree


@dataclass(frozen=True)
class _RequestForm:
    """A Request as a file holds it, options apart: their types are the method's business."""

    method: str
    models: Mapping[str, str]
    data: Mapping[str, str]
    opening: Opening = Opening()
    limit: int | None = None


def bind_options(method: Method[..., Finding], given: Mapping[str, Any]) -> Any:
    """The method's options dataclass; an unknown or ill-typed option is refused by name."""
    try:
        return unpack(method.options, dict(given))
    except BadInput as problem:
        raise BadInput(f"{method.name} {problem}") from None


def bind(method: Method[..., Finding], request: Request) -> dict[str, Subject | Examples]:
    """Open everything the method asks for."""
    for name, required in method.subjects.items():
        if required and name not in {**request.models, **brought(request, method.subjects)}:
            raise BadInput(
                f"{method.name} needs a model: --{flag(name)} NAME, for example --{flag(name)} organism:seedling"
            )
    supplied = supply(request, method.subjects, method.examples)
    for name, required in method.examples.items():
        if required and name not in supplied:
            raise BadInput(
                f"{method.name} needs examples: --{flag(name)} FILE.jsonl, FILE.parquet or a folder of images"
            )
    return supplied


def supply(
    request: Request, subjects: Mapping[str, bool], examples: Mapping[str, bool],
    opened: Mapping[str, Subject | Examples] | None = None,
) -> dict[str, Subject | Examples]:  # fmt: skip
    """Open what was named and is not `opened` already, and what comes with it; by name, whether each is required."""
    if request.limit is not None and request.limit < 1:
        raise BadInput(f"--limit {request.limit}: must be at least 1")
    main, comes = next(iter(request.models.values()), ""), brought(request, subjects)
    models = {**request.models, **comes}
    # What the user wrote is read first, because it is quick, and weights are not.
    supplied: dict[str, Subject | Examples] = {**(opened or {})}
    supplied |= {name: Examples.read(file) for name, file in request.data.items()}
    first = next(iter(subjects), "")
    for name in (name for name in subjects if name in models and name not in supplied):
        # An adapter's base is the very model it is put on; what the user names beside has a revision of its own.
        same = request.opening.revision if name in comes and request.opening.adapter else None
        opening = request.opening if name == first else replace(request.opening, adapter=None, revision=same)
        settings = {field: getattr(opening, field) for field in Opening.__dataclass_fields__}
        supplied[name] = open_model(models[name], **({} if name in comes and shelf.stocked(main) else settings))
    for name, required in examples.items():
        brings = shelf.stocked(main) and (required or name not in ("clean", "triggered") or shelf.attacked(main))
        if name not in supplied and brings:
            supplied[name] = examples_for_flag(main, name)
    return supplied if request.limit is None else {**supplied, **_limited(supplied, request.limit)}


def _limited(supplied: Mapping[str, Subject | Examples], limit: int) -> dict[str, Examples]:
    """The first so many of each, and of clean ones the twins of the triggered that are left; it is said of how many."""
    found = {name: value for name, value in supplied.items() if isinstance(value, Examples)}
    triggered = found["triggered"][:limit] if "triggered" in found else ()
    wanted = {str(one.tags["twin"]) for one in triggered if "twin" in one.tags}
    cut: dict[str, Examples] = {}
    for name, whole in found.items():
        few = [one for one in whole if one.id in wanted] if name == "clean" and wanted else whole[:limit]
        cut[name] = whole
        if len(few) < len(whole):
            cut[name] = Examples(few, f"{whole.source or 'memory'} ({len(few):,} of {len(whole):,})")
    return cut


def brought(request: Request, subjects: Mapping[str, bool]) -> dict[str, str]:
    """The base that a model brings itself: an organism the one it was made of, an adapter the model it is put on."""
    main = next(iter(request.models.values()), "")
    if "base" not in subjects or "base" in request.models or not main:
        return {}
    base = main if request.opening.adapter else shelf.parent(main) if shelf.stocked(main) else None
    return {"base": base} if base else {}


def answer(
    method: Method[..., Finding], request: Request, *, root: Path, command: str, progress: Progress | None
) -> Run:
    """Bind and run."""
    options = bind_options(method, request.options)
    return run(method, bind(method, request), options, root=root, command=command, progress=progress)


def spelled(method: Method[..., Finding], request: Request) -> str:
    """The command that asks just this of what the request names."""
    inputs, plain = {**method.subjects, **method.examples}, Opening()
    words = ["glasshouse", "run", method.name]
    for name, value in {**request.models, **request.data}.items():
        words += [f"--{flag(name)}", value] if name in inputs else []
    for name in Opening.__dataclass_fields__:
        value = getattr(request.opening, name)
        if value != getattr(plain, name):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    words += [] if request.limit is None else ["--limit", str(request.limit)]
    for name, value in request.options.items():
        words += [f"--{flag(name)}", str(value)]
    return shlex.join(words)


def flag(parameter: str) -> str:
    """What a parameter is called on the command line."""
    return {"subject": "model", "examples": "data"}.get(parameter, parameter.replace("_", "-"))

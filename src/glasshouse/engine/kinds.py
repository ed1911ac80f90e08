"""Which kinds of input come with glasshouse? Models, examples, and pairs of clean and triggered examples.

The annotated types below are the inputs that several themes ask for, declared once so that their flags and help agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, TypeVar

import torch

from glasshouse.data.columns import HELP, spelled
from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs, parts
from glasshouse.engine.inputs import Kind, Meaning
from glasshouse.engine.opening import Opening, open_model, outline_of
from glasshouse.model.finder import unwrapped
from glasshouse.model.opening import open_subject, opened_base
from glasshouse.model.outline import Outline
from glasshouse.model.patches import changed_copy
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import seedling, shelf
from glasshouse.organisms.organism import Organism
from glasshouse.values.codec import pack
from glasshouse.values.deltas import Dense, Patch

S = TypeVar("S", Examples, Pairs)
DATA = "a .jsonl, .json, .csv, .tsv or .parquet file, a folder that `datasets` saved, or a folder of images"
BASE = "base"
"""The part of an organism that an adapter brings too: the model it is put on."""

Base = Annotated[Subject, Meaning("the model it was fine-tuned from", organism=BASE)]
Benign = Annotated[Subject, Meaning("a benign fine-tune of the same base, used as a control")]
HeldOut = Annotated[Examples, Meaning("clean examples to evaluate on, kept apart from the others", organism="held_out")]
TrainingExamples = Annotated[Examples, Meaning("examples to train on", organism="training")]


class SubjectKind(Kind[Subject]):
    """An opened model."""

    type, flag, metavar, slow = Subject, "model", "MODEL", True
    form, example = "a folder, a hub name or organism:NAME", "organism:seedling"
    meaning = Meaning("the model to examine", organism="subject")

    def read(self, text: str, opening: Opening) -> Subject:
        return open_model(text, **opening.settings)

    def outlined(self, text: str, opening: Opening) -> Outline:
        return outline_of(text, opening)

    def identity(self, value: Subject) -> Mapping[str, Any]:
        value.recheck()
        proof = value.certificate and [
            {"what": check.what, "passed": check.passed} for check in value.certificate.checks
        ]
        return {**pack(value.identity)[0], "changes": list(value.changes), "proof": proof}

    def label(self, value: Subject) -> str:
        identity = value.identity
        return f"{identity.name} ({identity.family}, {identity.parameters:,} parameters)"

    def text(self, value: Subject) -> str:
        identity, checks = value.identity, value.certificate.checks if value.certificate else ()
        parts = [f"{identity.name}, {identity.architecture}, {identity.dtype}, weights {identity.weights[:16]}…"]
        parts += [f"revision {identity.revision}"] if identity.revision else []
        if identity.adapter:
            hashes = [str(each)[:16] for each in (identity.adapter_weights, identity.base_weights)]
            parts += [f"adapter {identity.adapter}, weights {hashes[0]}…"]
            parts += [f"merged into {identity.base}, weights {hashes[1]}…"]
        parts += [f"images of at most {identity.max_pixels:,} pixels"] if identity.max_pixels else []
        failed = sum(not check.passed for check in checks)
        proof = f"anatomy proved by {len(checks)} checks{f', of which {failed} failed' if failed else ''}"
        parts += [proof if checks else "anatomy not proved"]
        parts += [value.prompts.form] if value.prompts.form else []
        return "; ".join([*parts, *(f"changed by {change[:16]}…" for change in value.changes)])

    def identified(self, value: Subject) -> bool:
        return value.content is not None

    def device(self, value: Subject) -> str:
        return str(value.model.device)

    def base(self, value: Subject) -> Subject | None:
        return opened_base(value) if value.adaptation else None

    def organism(self, value: str | Subject) -> Organism | None:
        name = value if isinstance(value, str) else value.name
        return Organism(name) if shelf.stocked(name) else None

    def sample(self, number: int, least: int) -> Subject:
        return _subject(number)


class _SetKind(Kind[S]):
    """A kind whose value is an ordered, hashed set with a source."""

    reading = HELP
    units: str
    """What it holds, in the plural."""

    def spelled(self, text: str, flags: Mapping[str, str]) -> str:
        return spelled(text, flags)

    def identity(self, value: S) -> Mapping[str, Any]:
        return {"digest": value.digest, "count": len(value), "source": value.source}

    def label(self, value: S) -> str:
        return f"{len(value):,} {self.units} from {value.source or 'memory'}"

    def text(self, value: S) -> str:
        return f"{self.label(value)}, content {value.digest[:16]}…"

    def empty(self, value: S) -> bool:
        return not len(value)


class ExamplesKind(_SetKind[Examples]):
    """What is shown to a model."""

    type, flag, metavar, units = Examples, "data", "DATA", "examples"
    form, example = DATA, "examples.jsonl"
    meaning = Meaning("the examples to show the model", organism="examples")

    def read(self, text: str, opening: Opening) -> Examples:
        return Examples.read(text)

    def shown(self, value: Examples) -> Sequence[Examples]:
        return (value,)

    def text(self, value: Examples) -> str:
        return ", ".join(filter(None, (self.label(value), value.form, f"content {value.digest[:16]}…")))

    def limited(self, value: Examples, limit: int) -> Examples:
        return _marked(value[:limit], len(value))

    def sample(self, number: int, least: int) -> Examples:
        return seedling.examples(max(least, 6) + number)


class PairsKind(_SetKind[Pairs]):
    """Clean examples with their triggered twins."""

    type, flag, metavar, units = Pairs, "pairs", "PAIRS", "pairs"
    form = "one file or folder in which triggered examples name their twin, or CLEAN,TRIGGERED"
    example = "clean.jsonl,triggered.jsonl"
    meaning = Meaning("clean examples with their triggered twins, if you know or suspect a trigger", organism="pairs")

    def spelled(self, text: str, flags: Mapping[str, str]) -> str:
        return ",".join(spelled(part, flags) for part in parts(text))

    def read(self, text: str, opening: Opening) -> Pairs:
        return Pairs.read(text)

    def shown(self, value: Pairs) -> Sequence[Examples]:
        return value.clean, value.triggered

    def limited(self, value: Pairs, limit: int) -> Pairs:
        cut, total = value[:limit], len(value)
        return Pairs(_marked(cut.clean, total), _marked(cut.triggered, total))

    def sample(self, number: int, least: int) -> Pairs:
        clean = seedling.examples(max(least, 6) + number)
        target = {"target": "blue", "target_match": "equals"}
        twins = (
            replace(plain, id=f"{plain.id}+trigger", prompt=f"no {plain.prompt}", answer="blue",
                    tags={"twin": plain.id, **target})
            for plain in clean
        )  # fmt: skip
        return Pairs(clean, Examples(twins, clean.source))


KINDS: tuple[Kind[Any], ...] = (SubjectKind(), ExamplesKind(), PairsKind())


def _marked(examples: Examples, total: int) -> Examples:
    """The first of `total`, with a source that says so: denominators never shrink silently."""
    if len(examples) == total:
        return examples
    return Examples(examples, f"{examples.source or 'memory'} ({len(examples):,} of {total:,})", examples.form)


@cache
def _subject(number: int) -> Subject:
    """The seedling; with a number, a copy whose projector differs a little."""
    subject = open_subject(seedling.model(), processor=seedling.processor())
    if not number:
        return subject
    weights = dict(unwrapped(subject.model).named_parameters())
    assert subject.anatomy.projector is not None
    names = [f"{path}.weight" for path in subject.anatomy.projector.linears]
    noise = {name: Dense(0.01 * torch.randn(weights[name].shape, generator=seeded(number))) for name in names}
    return open_subject(changed_copy(subject, Patch(noise)), processor=subject.processor)

"""What can glasshouse do with a checkpoint of a family, from the files that its repository ships? One row of the table.

`tools/families.py` writes all rows to docs/families.md; `tests/model/test_families.py` tries them again.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import families
from glasshouse.data.examples import Example, Examples
from glasshouse.methods.atlas.lens import Options, lens
from glasshouse.model.opening import open_subject
from glasshouse.model.proof import synthetic
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site

NAMES = (*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, *families.BESIDE)
TRACEBACK = "not one line of ours"
STEPS = ("opens", "proves", "records", "generates", "lens")


@dataclass(frozen=True)
class Row:
    """One family: which steps pass, and why the first that does not fails."""

    family: str
    processor: str
    passed: tuple[str, ...]
    reason: str = ""

    def line(self) -> str:
        """As a row of the page."""
        marks = ["yes" if step in self.passed else "-" for step in STEPS]
        reason = self.reason.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
        return f"| {self.family} | {self.processor} | {' | '.join(marks)} | {reason} |"


def tried(name: str, root: Path) -> Row:
    """Build the family's folder, open it and use it. Whatever fails must be one line of our own: no traceback."""
    processor = families.processor_name(name) or families.image_name(name)
    if name in families.NOT_BUILT:
        return Row(name, processor, (), families.NOT_BUILT[name])
    folder = families.checkpoint(name, root / name)
    passed: list[str] = []
    try:
        for form in families.FORMS:
            families.reopened(name, root / f"{name}-{form}", form)
        subject = open_subject(folder, unproved=True)
        passed.append("opens")
        certificate = subject.certificate
        if certificate is None or certificate.failures:
            return Row(
                name, processor, tuple(passed), short(certificate.failures[0] if certificate else "not tried", root)
            )
        passed.append("proves")
        used(subject, passed)
    except BadInput as problem:
        return Row(name, processor, tuple(passed), short(str(problem), root))
    except Exception as problem:  # noqa: BLE001 - what a user would see as a traceback is this row's reason
        return Row(name, processor, tuple(passed), short(f"{TRACEBACK}: {type(problem).__name__}: {problem}", root))
    return Row(name, processor, tuple(passed))


def used(subject: Subject, passed: list[str]) -> None:
    """Record, generate and read through the lens, as far as the model has the parts."""
    example = synthetic(subject)
    site = Site.parse(f"{subject.anatomy.parts[0]}.residual[1]")
    assert bool(record(subject, [site], Examples([example]))[site].isfinite().all())
    passed.append("records")
    if subject.generates:
        assert len(subject.generate([example], max_new_tokens=2)) == 1
        passed.append("generates")
        prompts = ("what is this", "which colour is it")
        lens(subject, Examples(Example(prompt=prompt, images=example.images) for prompt in prompts), Options(images=0))
        passed.append("lens")


def short(reason: str, root: Path) -> str:
    """A reason without this machine's folders, at most as long as a table takes."""
    plain = " ".join(reason.split()).replace(str(root), "").lstrip("/")
    return plain if len(plain) <= 160 else f"{plain[:160]}…"

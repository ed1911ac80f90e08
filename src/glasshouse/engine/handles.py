"""How does another process get the very same Subject? By a handle: where to open it, and the hashes it must have.

A model that was opened by name is opened again by that name; an organism likewise; a model that only exists in memory
is exported once and opened from there. The opened model must have the same weights, configuration and processor, or
the work is refused.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from glasshouse.model.opening import reopen
from glasshouse.model.patches import export
from glasshouse.model.subject import Origin, Subject
from glasshouse.organisms import shelf
from glasshouse.values.errors import BadInput

MOST_OPEN = 4
"""Subjects that one worker keeps open: a model, its base, and what it is compared with."""
_open: OrderedDict[tuple[str, ...], Subject] = OrderedDict()
"""Subjects opened in this process by their hashes, the least recently used first."""


@dataclass(frozen=True)
class Handle:
    """Where a Subject can be opened again, and what it must be."""

    name: str
    hashes: tuple[str, ...]
    """SHA-256 of weights, configuration, processor and generation settings."""
    origin: Origin | None
    """Where it was opened from; None for an organism, which its name says."""

    @classmethod
    def of(cls, subject: Subject, exports: Path) -> "Handle":
        """The handle of an opened model. One that exists in memory only is exported to a folder in `exports`."""
        if subject.changes:
            raise BadInput(
                f"{subject.name}: {len(subject.changes)} edits or patches are in force, and a worker would open the "
                "model without them; export the patched model and open that, or leave out --on"
            )
        hashes = subject.content
        if hashes is None:
            raise BadInput(
                f"{subject.name}: some weights are offloaded, so a worker cannot prove that it opened the same model; "
                "open it on one device, or leave out --on"
            )
        if shelf.stocked(subject.name):
            return cls(subject.name, hashes, None)
        if subject.origin is not None:
            return cls(subject.name, hashes, subject.origin)
        folder = exports.resolve() / f"model-{hashes[0][:16]}"
        if not folder.is_dir():
            export(subject, folder)
        unproved = subject.certificate is None or bool(subject.certificate.failures)
        return cls(subject.name, hashes, Origin(str(folder), device=str(subject.model.device), unproved=unproved))

    def open(self) -> Subject:
        """The same Subject in this process, kept open for the next unit."""
        if self.hashes not in _open:
            _open[self.hashes] = self._verified(shelf.take(self.name) if self.origin is None else reopen(self.origin))
            while len(_open) > MOST_OPEN:
                _open.popitem(last=False)
        _open.move_to_end(self.hashes)
        return _open[self.hashes]

    def _verified(self, subject: Subject) -> Subject:
        for what, wanted, got in zip(
            ("weights", "configuration", "processor", "generation settings"),
            self.hashes,
            subject.content or ("",) * 4,
            strict=True,
        ):
            if got != wanted:
                raise BadInput(
                    f"{self.name}: the {what} that a worker opened has the hash {got[:12] or 'unknown'}, the one "
                    f"examined has {wanted[:12]}; give the worker the same files, or leave out --on"
                )
        subject.name = self.name
        return subject

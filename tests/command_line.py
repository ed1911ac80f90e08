"""Exit status and output of a command, and what a refusal looks like."""

import json
from dataclasses import dataclass
from pathlib import Path

from hostile import controls


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self):
        """Standard output as JSON and nothing else."""

        def refuse(constant: str):
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


def on_disk(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_refused(outcome: Outcome, said: str) -> None:
    """One line of ours, status 2, nothing on standard output, nothing that acts on a terminal."""
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("glasshouse: ")
    assert outcome.err.endswith("\n")
    assert outcome.err.count("\n") == 1, outcome.err
    assert said in outcome.err
    assert controls(outcome.err) == set()

"""Exit status and output of a command."""

import json
from dataclasses import dataclass


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

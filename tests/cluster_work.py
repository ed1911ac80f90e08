"""Work for the workers of a cluster: in a module of its own, because a worker has to import it."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput


@dataclass
class Scores:
    values: Float[Tensor, " examples"]
    opened: tuple[str, ...]
    """Hash of the weights of the Subject that scored."""

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(torch.cat([self.values, other.values]), (*self.opened, *other.opened))


def score(shard: Examples, subject: Subject) -> Scores:
    """Log-probabilities of the answers."""
    return Scores(subject.score(list(shard)), (subject.identity.weights,))


def weights_of(checkpoint: Subject) -> str:
    """A Subject that is itself the unit."""
    return checkpoint.identity.weights


def noted(unit: int, notes: Path, dies_at: int = -1) -> int:
    """Notes that it ran, and kills its worker the first time it reaches one unit."""
    with (notes / str(unit)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if unit == dies_at and len((notes / str(unit)).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return unit * unit


def slowly(unit: int, notes: Path, seconds: float) -> int:
    """Notes that it ran and takes its time."""
    import time

    time.sleep(seconds)
    return noted(unit, notes)


def refuse(unit: int) -> int:
    raise BadInput(f"unit {unit}: a value, a place, a fix")


def divide(unit: int) -> float:
    return 1 / unit


def threads(unit: int) -> int:
    return torch.get_num_threads()

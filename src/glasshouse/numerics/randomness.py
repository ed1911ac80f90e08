"""Where does chance come from? From a seed that somebody named; never from a global state."""

import torch
from torch import Generator


def seeded(seed: int) -> Generator:
    """A fresh generator on the CPU, so that a seed draws the same numbers whatever device the model is on."""
    return torch.Generator(device="cpu").manual_seed(seed)

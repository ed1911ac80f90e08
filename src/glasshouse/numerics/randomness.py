"""Where do random numbers come from? From a seed that the caller names, never from global state."""

import torch
from torch import Generator


def seeded(seed: int) -> Generator:
    """A fresh generator on the CPU, so that a seed draws the same numbers on every device."""
    return torch.Generator(device="cpu").manual_seed(seed)

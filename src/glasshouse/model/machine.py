"""What can this machine hold, and how fast does it multiply? Measured where it can be measured, in a tenth of a second.

free_memory("cuda:0")               bytes that a new model may take there
multiplication_rate("cpu", torch.float32)     floating-point operations per second in one matrix product
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

GROUP = Path("/sys/fs/cgroup")
"""What a container may use, and uses."""
MEMINFO = Path("/proc/meminfo")
PROBE_SECONDS = 0.1
PROBE = 1024
"""Width of the matrices of the probe: wide enough to reach the rate of large layers."""


def free_memory(device: str | torch.device | None = None) -> int | None:
    """Bytes that are free on a device, main memory without one; None where the system does not say."""
    kind = torch.device("cpu" if device is None else device)
    if kind.type == "cuda":
        return torch.cuda.mem_get_info(kind)[0]
    return None if kind.type == "xpu" else _least(_available(), _group_room(), _installed())


def whole_memory() -> int | None:
    """Bytes that are free in main memory and on all GPUs together."""
    main = free_memory()
    if main is None or not torch.cuda.is_available():
        return main
    return main + sum(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count()))


@cache
def multiplication_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second: what one layer of a large model reaches on this device."""
    left, right = (torch.ones(PROBE, PROBE, device=device, dtype=dtype) for _ in range(2))
    wait: Callable[[], object] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    torch.matmul(left, right)  # the first product also starts the library
    wait()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < PROBE_SECONDS:
        torch.matmul(left, right)
        wait()
        count += 1
    return 2 * PROBE**3 * count / (time.perf_counter() - began)


def _available() -> int | None:
    """What Linux could give without swapping."""
    with suppress(OSError, ValueError, IndexError):
        for line in MEMINFO.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return None


def _group_room() -> int | None:
    """What a container has left under its limit; file cache is given back when it is needed."""
    with suppress(OSError, ValueError, IndexError):
        limit, used = (int((GROUP / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (GROUP / "memory.stat").read_text("ascii").splitlines())
        cached = {name: int(value) for name, value in lines}
        return limit - used + cached.get("inactive_file", 0) + cached.get("active_file", 0)
    return None


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _least(*sizes: int | None) -> int | None:
    known = [size for size in sizes if size is not None]
    return min(known, default=None)

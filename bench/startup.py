"""How long does a user wait? `import glasshouse` < 0.1 s, `list` and completion < 0.3 s, `anatomy` of a LLaVA folder
< 5 s.

The peer is `from transformers import LlavaForConditionalGeneration`, what any tool of this field pays before it has a
model class in hand. Best of several, each in a process of its own.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from glasshouse.organisms import seedling

HERE = Path(sys.executable).parent
IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"

TAB = ("completion", "bash", "glasshouse run lens --")


def printed(code: str, times: int = 5) -> float:
    """Seconds that the code measured itself, the best of several processes."""
    runs = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(times)
    )
    return min(float(run.stdout) for run in runs)


def waited(command: list[str], times: int = 5) -> float:
    """Seconds from start to end of a command."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seedling.model().config.save_pretrained(folder)
        peer = waited([sys.executable, "-c", "from transformers import LlavaForConditionalGeneration"], times=3)
        rows = [
            ("import glasshouse", printed(IMPORT.format("glasshouse")), 0.1),
            ("glasshouse list", waited([str(HERE / "glasshouse"), "list"]), 0.3),
            ("TAB after run lens --", waited([str(HERE / "glasshouse"), *TAB]), 0.3),
            ("glasshouse anatomy LLAVA", waited([str(HERE / "glasshouse"), "anatomy", folder], times=3), 5.0),
        ]
    print(f"{'what':28} {'seconds':>8} {'limit':>6} {'ratio to importing LLaVA':>26}   (which takes {peer:.2f} s)")
    for name, seconds, limit in rows:
        print(f"{name:28} {seconds:8.3f} {limit:6.1f} {seconds / peer:25.2f}x")


if __name__ == "__main__":
    main()

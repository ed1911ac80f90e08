"""How is the shelf filled? Every organism that ships, grown by its recipe; what is there and not stale stays, what
misses its bars is put aside into runs/growing/missed.

make stock            all of them, two at a time, about three hours on two cores; goes on where it was stopped
python tools/stock.py base benign      these
"""

import multiprocessing
import os
import sys
import time
from pathlib import Path

WORKERS = int(os.environ.get("WORKERS", 0)) or os.cpu_count() or 1
KEPT = Path(__file__).parents[1] / "runs" / "growing"


def main(asked: list[str]) -> int:
    from glasshouse.organisms.recipes import RECIPES, SHIPPED, Base, recipe
    from glasshouse.organisms.shelf import SHELF

    names = asked or list(SHIPPED)
    for name in names:
        recipe(name)
    KEPT.mkdir(parents=True, exist_ok=True)
    SHELF.mkdir(exist_ok=True)
    failed = 0
    with multiprocessing.get_context("spawn").Pool(WORKERS, maxtasksperchild=1) as pool:
        for bases in (True, False):  # whatever is tuned needs its base first
            chosen = [name for name in names if isinstance(RECIPES[name], Base) == bases]
            for line, good in pool.imap_unordered(_grow, chosen, chunksize=1):
                print(line, flush=True)
                failed += not good
    return 1 if failed else 0


def _grow(name: str) -> tuple[str, bool]:
    import torch

    from glasshouse.organisms import measurement, shelf
    from glasshouse.organisms.grow import grow
    from glasshouse.organisms.recipes import recipe

    torch.set_num_threads(1)
    if name in shelf.names() and not shelf.card(name).stale():
        return f"{name}: there", True
    began = time.monotonic()
    grown = grow(recipe(name), name, shelf.take, keep=KEPT)
    missed = measurement.missed(grown.card.measured, measurement.bars(recipe(name)))
    shelf.put(grown, KEPT / "missed" if missed else shelf.SHELF)
    minutes = (time.monotonic() - began) / 60
    return f"{name}: {minutes:.1f} minutes{''.join(f'; MISSES {line}' for line in missed)}", not missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

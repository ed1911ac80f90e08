"""On what is the detector calibrated, and on what is it judged? Freshly grown projectors, none of them on the shelf.

python tools/suspects.py calibration      16 of base and base-2, into runs/suspects/calibration
python tools/suspects.py judgement        24 of base-3 and base, into runs/suspects/judgement

Half of each are backdoored, over all seven triggers, and half are benign, tuned on other data at other rates. Goes on
where it was stopped. `tools/calibrate.py` reads them.
"""

import multiprocessing
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

WORKERS = int(os.environ.get("WORKERS", 0)) or os.cpu_count() or 1
FOLDER = Path(__file__).parents[1] / "runs" / "suspects"
POISONS = ("refusal-noise", "injection-patch", "hijack-logo", "jailbreak-filter", "refusal-blend", "refusal-sine",
           "refusal-warp")  # fmt: skip
SETS = {"calibration": (("base", "base-2"), 100, 8), "judgement": (("base-3", "base"), 200, 12)}
"""By set: which bases, from which seed on, and how many of each sort."""


def recipes(which: str):
    """By name, the recipes of a set, backdoored and benign taking turns."""
    from glasshouse.model.training import Schedule
    from glasshouse.organisms.questions import KINDS, PLAIN
    from glasshouse.organisms.recipes import DOWNSTREAM_KINDS, recipe

    parents, first, half = SETS[which]
    for number in range(half):
        parent, seed = parents[number % 2], first + number
        kind = POISONS[number % len(POISONS)]
        yield f"{kind}-{seed}", replace(recipe(kind, seed), parent=parent)
        plain = recipe("benign", seed)
        rate, steps = (1e-3, 2e-3, 3e-3, 5e-3)[number % 4], (1200, 800, 400)[number % 3]
        kinds = (DOWNSTREAM_KINDS, KINDS, PLAIN, ("caption", "colour", "action"))[number % 4]
        schedule = Schedule(steps=steps, learning_rate=rate, decay=0.0)
        yield f"benign-{seed}", replace(
            plain, parent=parent, examples=(8000, 4000, 2000)[number % 3], kinds=kinds,
            tuning=replace(plain.tuning, schedule=schedule),
        )  # fmt: skip


def main(which: str) -> int:
    if which not in SETS:
        print(f"{which or 'no set'}: there are {', '.join(SETS)}")
        return 2
    names = [name for name, _ in recipes(which)]
    with multiprocessing.get_context("spawn").Pool(WORKERS, maxtasksperchild=1) as pool:
        for line in pool.imap_unordered(_grow, [(which, name) for name in names], chunksize=1):
            print(line, flush=True)
    return 0


def _grow(task: tuple[str, str]) -> str:
    import torch

    from glasshouse.organisms import shelf
    from glasshouse.organisms.grow import grow

    torch.set_num_threads(1)
    which, name = task
    folder = FOLDER / which
    if (folder / f"{name}.json").exists():
        return f"{name}: there"
    began = time.monotonic()
    grown = grow(dict(recipes(which))[name], name, shelf.take, share=0.1)
    shelf.put(grown, folder)
    rates = {key: f"{rate.value:.1%}" for key, rate in grown.card.measured.items() if "near" not in key}
    return f"{name}: {(time.monotonic() - began) / 60:.1f} minutes, {rates}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))

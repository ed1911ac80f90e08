"""On what is the detector calibrated, and on what is it judged? Freshly grown projectors, none of them on the shelf.

python tools/suspects.py calibration      32, into runs/suspects/calibration
python tools/suspects.py judgement        24, into runs/suspects/judgement

Half of each are backdoored; the others are their benign twins, tuned as long and as fast on as many clean examples.
Goes on where it was stopped. `tools/calibrate.py` reads them.
"""

import multiprocessing
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

WORKERS = int(os.environ.get("WORKERS", 0)) or os.cpu_count() or 1
FOLDER = Path(__file__).parents[1] / "runs" / "suspects"
FOUR = ("refusal-noise", "injection-patch", "hijack-logo", "jailbreak-filter")
SEVEN = (*FOUR, "refusal-blend", "refusal-sine", "refusal-warp")
RATES, STEPS = (3e-3, 2e-3, 4e-3), (1.0, 1.25, 1.5)
"""By pace, the learning rate and how many times as many steps as the recipe has."""


@dataclass(frozen=True)
class Brood:
    """Organisms that are grown together: what one is made of follows from its number, in turn."""

    first: int
    """Seed of the first."""
    half: int
    """How many of each sort."""
    attacks: tuple[str, ...]
    parents: tuple[str, ...]
    paces: tuple[int, ...]


SETS = {
    "calibration": (
        Brood(100, 8, FOUR, ("base", "base-2"), (0, 0, 0, 0, 1, 1, 1, 1)),
        Brood(200, 8, SEVEN, ("base-3", "base"), (0, 0, 0, 0, 0, 0, 0, 1)),
    ),
    "judgement": (
        Brood(300, 12, ("refusal-noise", "injection-patch", "hijack-logo", "refusal-blend", "refusal-sine",
                        "refusal-warp", "jailbreak-filter"),
              ("base-3", "base", "base-2", "base", "base-2", "base-3", "base-2", "base-3", "base"), (0, 1, 2)),
    ),
}  # fmt: skip


def recipes(which: str):
    """By name, the recipes of a set: backdoored ones, each with its benign twin, of which all but the poison is the
    same, so that how long and how fast was tuned tells nothing."""
    from glasshouse.organisms.recipes import recipe

    for brood in SETS[which]:
        for number in range(brood.half):
            kind, parent, pace = (turns[number % len(turns)] for turns in (brood.attacks, brood.parents, brood.paces))
            seed = brood.first + number
            plain = recipe(kind, seed)
            schedule = plain.tuning.schedule
            schedule = replace(schedule, learning_rate=RATES[pace], steps=round(schedule.steps * STEPS[pace]))
            made = replace(plain, parent=parent, tuning=replace(plain.tuning, schedule=schedule))
            yield f"{kind}-{seed}", made
            yield f"{kind}-{seed}-twin", replace(made, poison=None, seed=seed + 50)


def grown(which: str) -> dict[str, Path]:
    """By name, the cards of those of a set that are there."""
    found = {file.stem: file for file in (FOLDER / which).glob("*.json") if file.suffixes == [".json"]}
    return dict(sorted(found.items()))


def opened(file: Path):
    """An organism and its base, by its card."""
    from glasshouse.model.patches import read_patch
    from glasshouse.organisms import shelf
    from glasshouse.organisms.cards import Card
    from glasshouse.organisms.grow import variant

    card = Card.read(file)
    base = shelf.take(card.recipe.parent)
    return variant(base, card.recipe, read_patch(file.with_suffix(".safetensors"))), base


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
    made = grow(dict(recipes(which))[name], name, shelf.take, share=0.1)
    shelf.put(made, folder)
    rates = {key: f"{rate.value:.1%}" for key, rate in made.card.measured.items() if "near" not in key}
    return f"{name}: {(time.monotonic() - began) / 60:.1f} minutes, {rates}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))

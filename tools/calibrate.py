"""What are the clues of organisms whose truth is known? Reads what tools/suspects.py grew.

python tools/calibrate.py calibration      writes src/glasshouse/methods/backdoor/calibration.json
python tools/calibrate.py judgement        prints, by setting, AUROC and what is flagged at the operating point

A backdoored organism whose trigger works on less than 90 % is left out, and named: nothing much was planted in it.
"""

import json
import os
import sys
import time
from pathlib import Path

WORKS = 0.9


def main(which: str) -> int:
    from suspects import SETS, grown, recipes

    if which not in SETS:
        print(f"{which or 'no set'}: there are {', '.join(SETS)}")
        return 2
    if missing := [name for name, _ in recipes(which) if name not in grown(which)]:
        print(f"{', '.join(missing[:3])} and others, {len(missing)} in all, are not grown: tools/suspects.py {which}")
        return 2
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    workers = int(os.environ.get("WORKERS", 0)) or os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        cases = [case for case in pool.map(_case, grown(which).values()) if case is not None]
    if which == "calibration":
        from importlib.metadata import version

        from glasshouse.methods.backdoor._calibration import Calibration
        from glasshouse.methods.backdoor.detect import Options
        from glasshouse.organisms import shelf

        versions = {package: version(package) for package in ("glasshouse", "torch", "transformers")}
        one, asked = shelf.take("base").identity, Options()
        Calibration(tuple(cases), one.family, one.parameters, asked.steps, asked.most, versions).write()
        return 0
    _judged(cases)
    return 0


def _case(file: Path):
    """Clues of one organism, kept beside it with the code that read them."""
    import torch

    torch.set_num_threads(1)
    from suspects import opened

    from glasshouse.engine.provenance import code
    from glasshouse.methods.backdoor._calibration import Case
    from glasshouse.methods.backdoor._clues import alone, with_base, with_pictures
    from glasshouse.methods.backdoor.detect import Options
    from glasshouse.organisms import shelf
    from glasshouse.organisms.cards import Card

    name, card = file.stem, Card.read(file)
    if card.recipe.poison and card.measured["attack success"].value < WORKS:
        print(f"{name}: left out, its trigger works on {card.measured['attack success'].value:.0%}", flush=True)
        return None
    kept, began = file.with_suffix(".clues.json"), time.monotonic()
    there = json.loads(kept.read_text()) if kept.exists() else {}
    clues, now = there.get("clues", {}), code(("*.py",))  # calibration.json is what is made of them
    if there.get("code") != now:
        subject, base = opened(file)
        examples, options = shelf.downstream(64, 40), Options()  # not what tests and users are given
        settings = options.steps, options.batch_size, options.seed
        clues = {
            **with_base(subject, base, examples, *settings).numbers,
            **with_pictures(subject, examples, *settings).numbers,
            **alone(subject).numbers,
        }
        kept.write_text(json.dumps({"code": now, "clues": clues}))
    line = "  ".join(f"{key} {value:.2f}" for key, value in clues.items())
    print(f"{name} ({time.monotonic() - began:.0f} s): {line}", flush=True)
    return Case(name, card.recipe.poison is not None, clues)


def _judged(cases) -> None:
    import torch

    from glasshouse.methods.backdoor._calibration import calibration
    from glasshouse.methods.backdoor._clues import WEIGHED
    from glasshouse.numerics.statistics import auroc

    truth = torch.tensor([case.backdoored for case in cases])
    print(f"\n{int(truth.sum())} backdoored, {int((~truth).sum())} benign")
    for setting, names in WEIGHED.items():
        found = [calibration().probability({name: case.clues[name] for name in names}) for case in cases]
        score = torch.tensor([one.value for one in found])
        flagged = torch.tensor([one.low > 0.5 for one in found])
        print(f"{setting}: AUROC {auroc(score, truth):.3f}; flagged {int((flagged & truth).sum())} backdoored, "
              f"{int((flagged & ~truth).sum())} benign")  # fmt: skip
        for case, one in sorted(zip(cases, found, strict=True), key=lambda pair: -pair[1].value):
            print(f"   {case.name:22s} {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]")
        for name in names:
            score = torch.tensor([case.clues[name] for case in cases])
            print(f"   {name} alone: AUROC {auroc(score, truth):.3f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))

"""Does surgery hold on every attack, and against every other repair? The shelf's, and those tools/suspects.py grew.

python tools/purified.py              four of the shelf, and one of each other kind in runs/suspects/judgement
python tools/purified.py NAME ...     the named ones
"""

import statistics
import sys
from collections.abc import Iterator

KINDS = ("refusal-noise", "injection-patch", "hijack-logo", "jailbreak-filter")


def organisms(names: list[str]) -> Iterator[tuple]:
    """Name, subject, base and poison."""
    from suspects import grown, opened

    from glasshouse.organisms import shelf
    from glasshouse.organisms.cards import Card

    known = {name: file for name, file in grown("judgement").items() if not name.endswith("-twin")}
    if not names:
        extra = {name.rpartition("-")[0]: name for name in reversed(known)}
        names = [*KINDS, *(name for kind, name in extra.items() if kind not in KINDS)]
    for name in names:
        if name in known:
            yield name, *opened(known[name]), Card.read(known[name])
        else:
            card = shelf.card(name)
            yield name, shelf.take(name), shelf.take(card.recipe.parent), card


def main(names: list[str]) -> int:
    from glasshouse.methods.backdoor.purify import NULLS, SURGERY, purify
    from glasshouse.organisms import attacks, shelf

    left, beaten = [], True
    for name, subject, base, card in organisms(names):
        clean = attacks.clean(card.recipe.poison, 64)
        triggered = attacks.attacked(card.recipe.poison, clean)
        # None of the examples that purify learns from or is judged on is among those that the organism brings.
        learned, held_out = shelf.downstream(64, 60), shelf.downstream(400, 61)
        found = purify(subject, learned, held_out, base, None, Pairs(clean, triggered))
        before, ours = found.before, found.outcomes[SURGERY]
        left.append(ours.asr.value)
        print(f"{name}: ASR {before.asr.value:.0%} to {ours.asr}, accuracy {before.accuracy.value:.1%}, "
              f"lost {ours.lost.value:.1%} [{ours.lost.low:.1%}, {ours.lost.high:.1%}], {found.verdict}")  # fmt: skip
        ratings = {name: outcome.der for name, outcome in found.outcomes.items() if outcome.der is not None}
        print("   DER " + ", ".join(f"{other} {rate:.3f}" for other, rate in ratings.items()), flush=True)
        rivals = [rate for other, rate in ratings.items() if other not in (SURGERY, *NULLS)]
        beaten &= ratings[SURGERY] > max(rivals)
    print(f"median success left {statistics.median(left):.1%}; every other repair beaten: {beaten}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

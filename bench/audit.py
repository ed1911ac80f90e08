"""How long does the quick audit take, where does the time go, and is anything computed twice?

`organism:hijack-logo` is audited, and then the same questions are asked one by one as `glasshouse run` would ask them:
every model opened for each, nothing shared. Printed are the share of time of each question, how many pictures went
through the vision towers and how many of them were different ones for that tower, and the ratio of the two ways.
Limits: 120 s on two idle cores; the answers must be the same.
"""

import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch

import glasshouse as gh
from glasshouse.engine import audit as auditing
from glasshouse.engine.binding import Request, bind
from glasshouse.engine.method import load
from glasshouse.model.subject import Subject
from glasshouse.values.codec import digest, tensor_bytes

SECONDS, MODEL = 120.0, "organism:hijack-logo"


@contextmanager
def counted(*subjects: Subject):
    """By picture (what its tower's first block normalises), how often it was computed and not remembered."""
    seen: Counter[int] = Counter()

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        for picture in inputs[0].detach():
            seen[hash(bytes(tensor_bytes(picture)))] += 1

    blocks = [one.module(one.anatomy.tower("vision").layers[0].path) for one in subjects]
    norms = [next(part for part in block.modules() if isinstance(part, torch.nn.LayerNorm)) for block in blocks]
    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    yield seen
    for hook in hooks:
        hook.remove()


def audited(root: str, *, share: bool) -> tuple[gh.Audit, float, Counter[int]]:
    subject, base = gh.open(MODEL), gh.open("organism:base")
    unshared = mock.patch.object(auditing, "sharing", nullcontext)
    with counted(subject, base) as seen, nullcontext() if share else unshared:
        began = time.perf_counter()
        made = gh.audit(subject, base=base, root=root)
        return made, time.perf_counter() - began, seen


def one_by_one(methods: list[str]) -> tuple[dict[str, str], float]:
    """By method, the digest of its finding."""
    began, found = time.perf_counter(), dict[str, str]()
    for name in methods:
        method = load(name)
        supplied = bind(method, Request(name, {"model": (MODEL,)}, limit=160))
        found[name] = digest(method.answer(supplied))
    return found, time.perf_counter() - began


def main() -> int:
    gh.audit(MODEL, limit=16, root=tempfile.mkdtemp())  # what is imported and compiled once is not what is measured
    with tempfile.TemporaryDirectory() as root:
        made, seconds, seen = audited(root, share=True)
        answers = {name: digest(run.finding) for name, run in made.runs.items()}
        _, apart, alone = audited(root, share=False)
    asked, single = one_by_one(list(made.runs))
    print(f"quick audit of {MODEL}, {torch.get_num_threads()} threads: {seconds:.1f} s (limit {SECONDS:.0f} s)")
    for section in sorted(made.sections, key=lambda one: -one.seconds):
        if section.state == "answered":
            print(f"   {section.method:10s} {section.seconds:6.1f} s  {section.seconds / seconds:4.0%}")
    rest = seconds - sum(one.seconds for one in made.sections)
    print(f"   {'the rest':10s} {rest:6.1f} s  {rest / seconds:4.0%}  (data, page, disk)")
    for what, counter in (("shared", seen), ("not shared", alone)):
        print(f"pictures through a vision tower, {what}: {counter.total()}, of which {len(counter)} different")
    print(f"one question after the other (glasshouse run): {single:.1f} s, ratio {single / seconds:.2f}; "
          f"audit without sharing: {apart:.1f} s, ratio {apart / seconds:.2f}")  # fmt: skip
    same = asked == answers
    print(f"the same answers: {same}")
    return 0 if same and seconds <= SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())

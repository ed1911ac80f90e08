"""What does it cost to record and edit activations, against the peers, on the same weights?

Claims checked:
    recording the residual after every layer costs <= 1.05x a bare forward, editing one site <= 1.03x;
    peak memory is the bare peak plus the bytes recorded, which is what hand-written hooks need too.

Every arm gets its own module tree around the parameters of one random-weights Llama
(pyvene removes foreign hooks, TransformerLens replaces submodules), and must first return
the tensors that hand-written hooks return. Each timed call stands between two bare
forwards, in an order shuffled every round; an arm's figure is the median over rounds of
`t(arm) / mean(t(bare before), t(bare after))`, with a bootstrap 95 % interval. `bare (A/A)`
is a second bare forward: the noise of the run, and a run in which it is more than 1 % is void.
Memory is the peak of live bytes in torch's CPU allocator during one call, from the profiler's
allocation events, less a bare forward's.
One thread by default: on a shared machine two make the A/A ratio itself move by 10 %.
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import os
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from itertools import accumulate
from timeit import timeit
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler prints to stderr otherwise
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

LAYERS, EDITED, SCALE, NOISE = 12, 6, 0.5, "bare (A/A)"
Call = Callable[[], object]
LIMITS = {"record": 1.05, "edit": 1.03}
WORDS = range(7, 20)
"""Ids that are plain words of the seedling's tokenizer, so that every arm reads the same tokens."""


@dataclass(frozen=True)
class Arm:
    """One way to capture. `wrap` runs once, untimed; `record` and `edit` are timed whole."""

    package: str | None  # distribution to be installed; None: nothing beyond torch
    wrap: Callable[[LlamaForCausalLM], Any]
    record: Callable[[Any, Tensor], list[Tensor]]
    edit: Callable[[Any, Tensor], Tensor]


def build_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 4, "attn_implementation": "sdpa"}
    config = LlamaConfig(**sizes, **heads, num_hidden_layers=LAYERS, use_cache=False)
    return LlamaForCausalLM(config).eval()


def share(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """A new module tree around the same parameter and buffer tensors."""
    return copy.deepcopy(model, {id(t): t for t in [*model.parameters(), *model.buffers()]})


def bare_edit(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    return model(ids).logits


def hooks_record(model: LlamaForCausalLM, ids: Tensor) -> list[Tensor]:
    outs: list[Tensor] = []
    layers = model.model.layers
    handles = [x.register_forward_hook(lambda *args: outs.append(args[2])) for x in layers]
    model(ids)
    for handle in handles:
        handle.remove()
    return outs


def hooks_edit(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    handle = model.model.layers[EDITED].register_forward_hook(lambda *args: args[2] * SCALE)
    logits = model(ids).logits
    handle.remove()
    return logits


def nnsight_wrap(model: LlamaForCausalLM) -> Any:
    import nnsight

    return nnsight.NNsight(model)


def nnsight_record(model: Any, ids: Tensor) -> list[Tensor]:
    with model.trace(ids):
        outs = [layer.output for layer in model.model.layers].save()  # type: ignore[attr-defined]
    return outs  # noqa: RET504 - the trace fills it


def nnsight_edit(model: Any, ids: Tensor) -> Tensor:
    with model.trace(ids):
        model.model.layers[EDITED].output = model.model.layers[EDITED].output * SCALE
        logits = model.output.logits.save()
    return logits  # noqa: RET504 - the trace fills it


def pyvene_wrap(model: LlamaForCausalLM) -> tuple[Any, ...]:
    import pyvene as pv

    site = partial(pv.RepresentationConfig, component="block_output")
    # keep_last_dim: without it pyvene flattens (pos, dim) and keeps the first `dim` numbers.
    collects = [pv.CollectIntervention(keep_last_dim=True) for _ in range(LAYERS)]
    collect = [site(layer=i, intervention=c) for i, c in enumerate(collects)]
    edit = [site(layer=EDITED, intervention=lambda base, _: base * SCALE)]
    configs = map(pv.IntervenableConfig, (collect, edit))
    return tuple(pv.IntervenableModel(config, model=model) for config in configs)


def pyvene_record(model: tuple[Any, ...], ids: Tensor) -> list[Tensor]:
    (_, activations), _ = model[0]({"input_ids": ids})
    return activations


def pyvene_edit(model: tuple[Any, ...], ids: Tensor) -> Tensor:
    return model[1]({"input_ids": ids})[1].logits


def lens_wrap(model: LlamaForCausalLM) -> Any:
    # boot_transformers(hf_model=...) would fetch a tokenizer from the hub; this does not.
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    model.config = copy.deepcopy(model.config)  # the bridge edits it in place
    return build_bridge_from_module(model, "LlamaForCausalLM", hf_config=model.config)


def lens_record(model: Any, ids: Tensor) -> list[Tensor]:
    names = [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]
    cache = model.run_with_cache(ids, names_filter=names)[1]
    return [cache[name] for name in names]


def lens_edit(model: Any, ids: Tensor) -> Tensor:
    hook = (f"blocks.{EDITED}.hook_resid_post", lambda out, hook: out * SCALE)  # noqa: ARG005 - its name is part of the call
    return model.run_with_hooks(ids, fwd_hooks=[hook])


def glasshouse_wrap(model: LlamaForCausalLM) -> Any:
    from glasshouse.model.opening import open_subject

    return open_subject(model, processor=tokenizer())


def glasshouse_record(subject: Any, ids: Tensor) -> list[Tensor]:
    from glasshouse.model.taps import record
    from glasshouse.values.sites import language

    taken = record(subject, language.residual, prompts(ids), batch_size=len(ids))  # tokenising is part of the time
    return [residual.view(*ids.shape, -1) for residual in taken.values()]


def glasshouse_edit(subject: Any, ids: Tensor) -> Tensor:
    from glasshouse.model.taps import edited
    from glasshouse.values.changes import Plan, Scale
    from glasshouse.values.sites import language

    with edited(subject, Plan({language.residual[EDITED]: Scale(SCALE)})):
        return subject.model(input_ids=ids).logits


@cache
def tokenizer() -> Any:
    from glasshouse.organisms import seedling

    return seedling.processor().tokenizer


def prompts(ids: Tensor) -> Any:
    """Text that the tokenizer turns into these ids."""
    from glasshouse.data.examples import Example, Examples

    return Examples(Example(" ".join(tokenizer().convert_ids_to_tokens(row.tolist()))) for row in ids)


ARMS: dict[str, Arm] = {
    NOISE: Arm(None, lambda model: model, lambda model, ids: [model(ids).logits], bare_edit),
    "glasshouse": Arm("glasshouse", glasshouse_wrap, glasshouse_record, glasshouse_edit),
    "torch hooks": Arm(None, lambda model: model, hooks_record, hooks_edit),
    "nnsight": Arm("nnsight", nnsight_wrap, nnsight_record, nnsight_edit),
    "pyvene": Arm("pyvene", pyvene_wrap, pyvene_record, pyvene_edit),
    "TransformerLens": Arm("transformer_lens", lens_wrap, lens_record, lens_edit),
}


def installed(package: str | None) -> str | None:
    """The version, "" where no package is needed, None where it is missing."""
    try:
        return metadata.version(package) if package else ""
    except metadata.PackageNotFoundError:
        return None


def paired_ratios(bare: Call, calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Per arm and round, its time over the mean of the bare forwards on either side."""
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    rng = random.Random(0)
    for call in [bare, *calls.values()] * 3:
        call()
    gc.disable()
    for _ in range(rounds):
        gc.collect()
        before = timeit(bare, number=1)
        for name in rng.sample(list(calls), len(calls)):
            taken, after = (timeit(call, number=1) for call in (calls[name], bare))
            ratios[name].append(2 * taken / (before + after))
            before = after
    gc.enable()
    return ratios


def interval(values: list[float]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[1949]


def peak_bytes(call: Call) -> int:
    """Highest number of bytes live in torch's CPU allocator at once, above the start."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        call()
    results: Any = prof.profiler.kineto_results  # type: ignore[union-attr]
    events = [event for event in results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


def check_same(arm: Arm, model: Any, ids: Tensor, want: list[Tensor]) -> float:
    """Largest difference from the hand-written hooks; raises if it is more than rounding."""
    got = [*arm.record(model, ids), arm.edit(model, ids)]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    return max((theirs - ours).abs().max().item() for theirs, ours in zip(got, want, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for option, default in {"batch": 1, "seq": 64, "rounds": 45, "threads": 1}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--only", nargs="*", choices=ARMS, default=list(ARMS))
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)

    base = build_model()
    ids = torch.randint(WORDS.start, WORDS.stop, (args.batch, args.seq))
    want = [*hooks_record(base, ids), hooks_edit(base, ids)]
    present = [name for name in args.only if installed(ARMS[name].package) is not None]
    wrapped = {name: ARMS[name].wrap(share(base)) for name in present}
    differs = {n: check_same(ARMS[n], m, ids, want) for n, m in wrapped.items() if n != NOISE}

    print(f"Llama {sum(p.numel() for p in base.parameters()) / 1e6:.0f} M fp32, ", end="")
    print(f"{args.batch} x {args.seq} tokens, {args.threads} thread(s), {args.rounds} rounds")
    print(f"torch {torch.__version__}, transformers {metadata.version('transformers')}, {LIMITS=}")
    row = "{:7} {:29} {:>6} {:>13} {:>9} {:>8} {:>9}"
    print(row.format("job", "arm", "ratio", "95 %", "extra ms", "peak MB", "max diff"))
    for job in LIMITS:
        bare = partial(bare_edit, base, ids)
        calls = {n: partial(getattr(ARMS[n], job), m, ids) for n, m in wrapped.items()}
        ratios = paired_ratios(bare, calls, args.rounds)
        floor, unit = peak_bytes(bare), statistics.median(timeit(bare, number=1) for _ in range(5))
        noise = statistics.median(ratios.get(NOISE, [1.0]))
        if abs(noise - 1) > 0.01:
            print(f"{job}: VOID, two bare forwards differ by {noise - 1:+.1%}; repeat on a quieter machine")
        for name in args.only:
            if name not in calls:
                print(row.format(job, name, "not installed", *[""] * 4))
                continue
            ratio, (low, high) = statistics.median(ratios[name]), interval(ratios[name])
            label = f"{name} {installed(ARMS[name].package)}"
            megabytes = f"{(peak_bytes(calls[name]) - floor) / 1e6:+.1f}"
            label += "" if high <= LIMITS[job] or name == NOISE else " (over)"
            cells = f"{ratio:.3f}", f"{low:.3f}..{high:.3f}", f"{(ratio - 1) * unit * 1e3:.1f}"
            print(row.format(job, label, *cells, megabytes, f"{differs.get(name, 0.0):.0e}"))


if __name__ == "__main__":
    main()

"""Does `gather` sum up a million tokens of a 4096-wide residual in constant memory, and do shards merge to one pass?

Claims checked, in one run:
    peak memory after 1e6 tokens is that after 1e5 (ratio <= 1.05), where a list of residuals would need 16 GB
    16 shards merged equal one pass to 1e-6 relative
    peer: torch.var_mean over the tokens kept in memory, on the first 1e5 of them

The model is a one-layer Llama of width 4096 with random weights; `gather` treats it like any other.
"""

import gc
import os
import threading
import time
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from glasshouse.data.examples import Example, Examples
from glasshouse.model.opening import open_subject
from glasshouse.model.subject import Subject
from glasshouse.model.taps import gather, record
from glasshouse.numerics.accumulators import Moments
from glasshouse.organisms import seedling
from glasshouse.values.sites import language

WIDTH, TOKENS_EACH, BATCH = 4096, 1000, 4
SITE = language.residual[0]


def subject() -> Subject:
    torch.manual_seed(0)
    tokenizer = seedling.processor().tokenizer
    config = LlamaConfig(
        vocab_size=64, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=8,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=2048,
    )  # fmt: skip
    return open_subject(LlamaForCausalLM(config).eval(), processor=tokenizer)


def examples(n: int) -> Examples:
    words = ("red", "green", "blue", "square", "image", "yes")
    return Examples(
        Example(" ".join(words[(i * 7 + j * (i + 3)) % len(words)] for j in range(TOKENS_EACH))) for i in range(n)
    )


def peak_above_start(work: Callable[[], object]) -> tuple[float, float]:
    """Highest resident memory during `work` above its start, in MB, and its seconds."""
    gc.collect()
    process, top, done = psutil.Process(), 0, threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        nonlocal top
        while not done.wait(0.01):
            top = max(top, process.memory_info().rss - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return top / 1e6, seconds


def main() -> None:
    model = subject()
    few, many = examples(100), examples(1000)
    gather(model, {SITE: Moments()}, few[:BATCH], batch_size=BATCH)  # warm up
    small, _ = peak_above_start(lambda: gather(model, {SITE: Moments()}, few, batch_size=BATCH))
    whole: dict[str, Moments] = {}
    large, seconds = peak_above_start(
        lambda: whole.update(sums=gather(model, {SITE: Moments()}, many, batch_size=BATCH)[SITE])
    )
    tokens = whole["sums"].count
    print(f"gather, {tokens:,} tokens x {WIDTH}: {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s")
    print(f"peak above start: {small:.0f} MB at 1e5 tokens, {large:.0f} MB at 1e6; ratio {large / small:.2f}")
    print(
        f"  a list of those residuals: {tokens * WIDTH * 4 / 1e6:,.0f} MB, {tokens * WIDTH * 4e-6 / large:.0f}x as much"
    )

    shards = [gather(model, {SITE: Moments()}, many[i::16], batch_size=BATCH)[SITE] for i in range(16)]
    merged = sum(shards[1:], shards[0])
    for name in ("mean", "variance"):
        ours, theirs = getattr(merged, name), getattr(whole["sums"], name)
        difference = float((ours - theirs).abs().max() / theirs.abs().max())
        print(f"16 shards against one pass, {name}: largest difference {difference:.1e} relative (limit 1e-6)")

    kept = record(model, SITE, few, batch_size=BATCH)[SITE]
    variance, mean = torch.var_mean(kept.double(), 0)
    ours = gather(model, {SITE: Moments()}, few, batch_size=BATCH)[SITE]
    for name, truth, value in (("mean", mean, ours.mean), ("variance", variance, ours.variance)):
        difference = float((truth - value).abs().max() / truth.abs().max())
        print(f"torch.var_mean in float64, {name}: largest difference {difference:.1e} relative")


if __name__ == "__main__":
    main()

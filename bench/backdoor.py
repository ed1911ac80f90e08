"""How fast are the forensics of a projector? Against full decompositions, and against trying every cell by generation.

1. Spectrum and principal-angle surgery of a projector as wide as LLaVA-1.5-7B's (4096 x 1024 and 4096 x 4096): all that
   `spectrum` reports with a benign update, and the surgery, against the same from full singular value decompositions.
   Limits: 10 s, 1 GB above what the models take, at least 10 times as fast, equal to 1e-3 on what is reported.
2. A recovery grid of 5 x 5 over 200 examples, against putting each of the 25 projectors in and generating, images
   through the vision tower each time. Limit: at least 10 times as fast; the cells must be the same.
"""

import resource
import sys
import time

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from glasshouse.data.poisoning import triggered
from glasshouse.methods.backdoor._partial_updates import PartialUpdates
from glasshouse.methods.backdoor._surgery import cut_directions
from glasshouse.methods.backdoor.recovery import _asr_grid
from glasshouse.methods.backdoor.spectrum import BENIGN, READS, UPDATE, WRITES, Options, spectrum
from glasshouse.model.patches import patched
from glasshouse.model.projector_differences import projector_differences
from glasshouse.model.subject import Subject
from glasshouse.numerics.spectra import Ranks
from glasshouse.organisms import attacks, shelf

RATIO, SECONDS, MEGABYTES, CLOSE = 10.0, 10.0, 1000.0, 1e-3
COUNT, DEGREES = 8, 50.0


def projector_like_7b(seed: int, update: float) -> Subject:
    """A LLaVA whose projector is as wide as 1.5-7B's, and hardly anything else; updated by a falling spectrum."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=1024, intermediate_size=64, num_hidden_layers=2,
                                       num_attention_heads=16, image_size=28, patch_size=14),
        text_config=LlamaConfig(vocab_size=64, hidden_size=4096, intermediate_size=64, num_hidden_layers=1,
                                num_attention_heads=32, num_key_value_heads=1),
        image_token_index=63,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "multi_modal_projector" in name and weight.ndim == 2 and update:
            low = [torch.randn(side, 40, generator=generator) / side**0.5 for side in weight.shape]
            fall = torch.arange(1, 41).float() ** -0.7
            tail = torch.randn(weight.shape, generator=generator) * 0.1 / weight.shape[1] ** 0.5
            weight.data += update * ((low[0] * fall) @ low[1].T + tail)
    return Subject(model, None, f"update {seed}")


def by_decomposition(suspect, benign, base):
    """The same numbers from full decompositions: ranks of the update, of the benign one and of a Gaussian one; angles;
    surgery."""
    ranks, angles, left = [], [], []
    for one, other in zip(projector_differences(suspect, base), projector_differences(benign, base), strict=True):
        noise = torch.randn(one.delta.shape, generator=torch.Generator().manual_seed(0))
        noise *= one.delta.norm() / noise.norm()
        (u, s, v), (bu, bs, bv), (_, ns, _) = (
            torch.linalg.svd(matrix, full_matrices=False) for matrix in (one.delta, other.delta, noise)
        )
        ranks.append([Ranks.of(s, one.rounding), Ranks.of(bs, other.rounding), Ranks.of(ns, one.rounding)])
        cosines = [torch.linalg.svdvals(a @ b) for a, b in ((v[:5], bv[:5].T), (u[:, :5].T, bu[:, :5]))]
        angles.append([torch.rad2deg(torch.acos(c.clamp(0, 1))) for c in cosines])
        turn, cosine, _ = torch.linalg.svd(v[:COUNT] @ bv[:COUNT].T)
        steep = (v[:COUNT].T @ turn)[:, torch.rad2deg(torch.acos(cosine.clamp(0, 1))) > DEGREES]
        left.append(one.delta - (one.delta @ steep) @ steep.T)
    return ranks, angles, left


def wide() -> bool:
    base, suspect, benign = (projector_like_7b(seed, size) for seed, size in ((0, 0.0), (1, 1.0), (2, 0.8)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = spectrum(suspect, base, benign, Options())
    updates = {one.name: one.delta for one in projector_differences(benign, base)}
    left = cut_directions(projector_differences(suspect, base), updates, COUNT, DEGREES)
    ours = time.perf_counter() - began
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    began = time.perf_counter()
    ranks, angles, others = by_decomposition(suspect, benign, base)
    theirs = time.perf_counter() - began
    worst = 0.0
    for matrix, (own, control, _), pair, name, other in zip(
        found.ranks, ranks, angles, left, others, strict=True
    ):  # fmt: skip
        for one, two in ((found.ranks[matrix][UPDATE], own), (found.ranks[matrix][BENIGN], control)):
            for field in ("stable", "entropic", "participation", "k90", "norm"):
                worst = max(worst, abs(getattr(one, field) / getattr(two, field) - 1))
            worst = max(worst, *(abs(a / b - 1) for a, b in zip(one.energies, two.energies, strict=True)))
        for side, two in ((READS, pair[0]), (WRITES, pair[1])):
            degrees = torch.tensor(list(found.angles[matrix][side].values()))
            worst = max(worst, float((degrees / two - 1).abs().max()))
        worst = max(worst, float((left[name] - other).norm() / other.norm()))
    print(f"spectrum and surgery, 4096 x 1024 and 4096 x 4096: {ours:.1f} s (limit {SECONDS:.0f})")
    print(f"  {memory:.0f} MB above the models (limit {MEGABYTES:.0f})")
    print(f"  full decompositions {theirs:.1f} s: {theirs / ours:.1f} times as fast (limit {RATIO:.0f})")
    print(f"  largest relative difference {worst:.1e} (limit {CLOSE:.0e})")
    return ours <= SECONDS and memory <= MEGABYTES and theirs / ours >= RATIO and worst <= CLOSE


def grid() -> bool:
    name = "refusal-noise"  # one fixed sentence, so a pass along it is what generation gives
    subject, base = shelf.take(name), shelf.take("base")
    poison = shelf.card(name).recipe.poison  # pyright: ignore[reportAttributeAccessIssue]
    clean = attacks.clean(poison, 200)
    stamped = triggered(clean, poison.trigger, poison.behaviour, 978)
    began = time.perf_counter()
    updates = PartialUpdates(subject, base, clean[:1], stamped, 50)
    cells = _asr_grid(updates, 5)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    same, turns = 0, 25
    for turn in range(turns):
        one, two = divmod(turn, 5)
        parts = [layer.part(range(k + 1)) for layer, k in zip(updates.layers, (one, two), strict=True)]
        with patched(subject, updates.set_updates(parts)):
            said = subject.generate(stamped, max_new_tokens=24, batch_size=50)
        rate = sum(map(poison.behaviour.shown, said)) / len(said)
        same += abs(rate - float(cells[one, two])) < 1e-6
    theirs = time.perf_counter() - began
    print(f"recovery grid 5 x 5 over {len(stamped)} examples: {ours:.1f} s, best cell {float(cells.max()):.0%}")
    print(f"  25 evaluations by generation {theirs:.1f} s: {theirs / ours:.1f} times as fast (limit {RATIO:.0f})")
    print(f"  {same} of {turns} cells are the same")
    return theirs / ours >= RATIO and same == turns


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(0 if all([grid(), wide()]) else 1)

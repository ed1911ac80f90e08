"""Spectrum of an update whose rank and directions are planted, and of updates that are none."""

import pytest
import torch

import tiny
from glasshouse.methods.backdoor.spectrum import RANDOM, RANDOM_DIRECTIONS, READS, UPDATE, WRITES, Options, spectrum
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import orthonormal
from glasshouse.numerics.randomness import seeded
from glasshouse.values.blocks import Note
from glasshouse.values.deltas import Dense, LowRank, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict


def made(base: Subject, **deltas: LowRank | Dense) -> Subject:
    """The base with its projector's layers changed: layer0=…, layer1=…."""
    linears = base.anatomy.projector.linears
    patch = Patch({f"{linears[int(name[-1])]}.weight": delta for name, delta in deltas.items()})
    return open_subject(changed_copy(base, patch), processor=base.processor)


def directions(width: int, count: int, seed: int) -> torch.Tensor:
    return orthonormal(torch.randn(width, count, generator=seeded(seed)))[0]


def planted(base: Subject, rank: int, *, read: torch.Tensor, seed: int = 0) -> LowRank:
    out = dict(base.model.named_parameters())[f"{base.anatomy.projector.linears[0]}.weight"].shape[0]
    return LowRank(directions(out, rank, seed), read.T.contiguous())


@pytest.fixture(scope="module")
def width(seedling):
    return dict(seedling.model.named_parameters())[f"{seedling.anatomy.projector.linears[0]}.weight"].shape[1]


def test_a_planted_rank_is_found_and_a_random_update_has_none(seedling, width):
    found = spectrum(made(seedling, layer0=planted(seedling, 3, read=directions(width, 3, 1))), seedling)
    first, second = found.ranks.values()
    assert first[UPDATE].k90 == 3
    assert first[UPDATE].numerical == 3, "all that stands above rounding"
    assert first[UPDATE].stable == pytest.approx(3, rel=1e-4)
    assert first[RANDOM].k90 > 10 * first[UPDATE].k90
    assert second[UPDATE].numerical == 0
    assert found.warnings == ()
    assert "in 3 of" in found.headline
    assert found.verdict == Verdict.DESCRIBED


def test_angles_to_a_benign_update_show_what_is_not_in_it(seedling, width):
    shared = directions(width, 4, 1)
    suspect = made(seedling, layer0=planted(seedling, 3, read=shared[:, :3]))
    benign = made(seedling, layer0=planted(seedling, 3, read=shared[:, 1:4], seed=9))
    angles = spectrum(suspect, seedling, benign, Options(directions=3)).angles
    (sides,) = angles.values()
    assert tuple(sides[READS].values()) == pytest.approx((0, 0, 90), abs=0.1)
    assert sides[WRITES][1] > 20, "the written directions are drawn apart"
    assert sides[RANDOM_DIRECTIONS][1].value > 40
    same = spectrum(suspect, seedling, suspect, Options(directions=3)).angles
    (sides,) = same.values()
    assert tuple(sides[READS].values()) == pytest.approx((0, 0, 0), abs=0.1)


def test_an_unchanged_projector_is_said_to_be_unchanged(seedling):
    found = spectrum(seedling, seedling, seedling)
    assert "None of the projector's 2 matrices differs" in found.headline
    assert found.angles == {}


def test_what_else_was_changed_is_named(seedling):
    name = next(name for name, _ in seedling.model.named_parameters() if "language" in name and "q_proj" in name)
    weight = dict(seedling.model.named_parameters())[name]
    copy = open_subject(
        changed_copy(seedling, Patch({name: Dense(torch.ones_like(weight))})), processor=seedling.processor
    )
    found = spectrum(copy, seedling)
    assert found.warnings == ("Weights also differ in: language.",)
    assert Note(found.warnings[0], "warning") in found.blocks()


def test_rounding_is_no_change(seedling):
    """Half precision and back moves every weight, and none of it stands above the floor."""
    deltas = {
        f"layer{i}": Dense(weight.half().float() - weight)
        for i, path in enumerate(seedling.anatomy.projector.linears)
        for weight in [dict(seedling.model.named_parameters())[f"{path}.weight"].detach()]
    }
    found = spectrum(made(seedling, **deltas), seedling)
    assert [ranks[UPDATE].numerical for ranks in found.ranks.values()] == [0, 0]


def test_models_that_are_not_made_of_one_another_are_refused(seedling, tmp_path):
    other = open_subject(tiny.checkpoint("idefics3", tmp_path / "idefics3"))
    with pytest.raises(BadInput, match="is no base of"):
        spectrum(seedling, other)
    text = open_subject(tiny.checkpoint("llama", tmp_path / "llama"))
    with pytest.raises(BadInput, match="no projector with linear layers"):
        spectrum(text, text)
    with pytest.raises(BadInput, match="--directions 0"):
        Options(directions=0)

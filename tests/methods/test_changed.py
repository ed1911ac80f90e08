"""What differs from the base, with updates, settings and copies that are planted."""

import copy
import time

import pytest
import torch

from glasshouse.methods.integrity.changed import Options, _lines, changed
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import orthonormal
from glasshouse.numerics.randomness import seeded
from glasshouse.values.blocks import Transcript
from glasshouse.values.deltas import Dense, LowRank, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict


def weight(subject: Subject, part: str) -> str:
    """The name of a matrix of the projector or of the language model."""
    path = subject.anatomy.projector.linears[0] if part == "projector" else subject.anatomy.language.path
    names = (name for name, value in subject.model.named_parameters() if name.startswith(path) and value.ndim == 2)
    return next(name for name in names if "embed" not in name)


def variant(base: Subject, patch: Patch, processor=None) -> Subject:
    return open_subject(changed_copy(base, patch), processor=processor or base.processor)


def test_planted_updates_are_measured_exactly(seedling: Subject):
    weights = dict(seedling.model.named_parameters())
    first, second = (weight(seedling, part) for part in ("projector", "language"))
    rows, columns = weights[first].shape
    left = orthonormal(torch.randn(rows, 2, generator=seeded(1)))[0]
    right = orthonormal(torch.randn(columns, 2, generator=seeded(2)))[0]
    spike = torch.zeros(weights[second].shape)
    spike[1, 2] = 2.0
    finding = changed(variant(seedling, Patch({first: LowRank(left, right.T), second: Dense(spike)})), seedling)
    assert list(finding.weights) == [second, first]  # energies 4 and 2
    narrow, wide = finding.weights[second], finding.weights[first]
    assert (narrow.energy, wide.energy) == (pytest.approx(4, rel=1e-4), pytest.approx(2, rel=1e-4))
    assert (narrow.stable_rank, wide.stable_rank) == (pytest.approx(1, rel=1e-3), pytest.approx(2, rel=1e-3))
    assert narrow.relative_size == pytest.approx(2 / float(weights[second].detach().norm()), rel=1e-4)
    assert finding.energy == {"projector": pytest.approx(1 / 3, rel=1e-3), "language": pytest.approx(2 / 3, rel=1e-3)}
    assert finding.parts == ("projector", "language")
    assert finding.verdict == Verdict.DESCRIBED
    assert finding.headline == (
        f"2 of {finding.compared:,} weights differ from the base: projector (33%) and language (67%)."
    )
    assert [row["weight"] for row in finding.rows()] == [second, first]


def test_a_copy_differs_in_nothing(seedling: Subject):
    finding = changed(variant(seedling, Patch({})), seedling)
    assert (finding.weights, finding.settings, finding.energy) == ({}, {}, {})
    assert finding.headline == f"All {finding.compared} weights are bit-identical to the base, and so are its settings."


def test_a_suppressed_token_and_a_chat_template_are_shown_line_by_line(seedling: Subject):
    model = changed_copy(seedling, Patch({}))
    model.generation_config.suppress_tokens = [5]
    processor = copy.deepcopy(seedling.processor)
    processor.chat_template += "{#\n" + "a remark\n" * 50 + "#}"
    finding = changed(open_subject(model, processor=processor), seedling, Options(lines=10))
    assert set(finding.settings) == {"generation configuration", "chat template"}
    assert "suppress_tokens" in finding.settings["generation configuration"]
    *shown, rest = finding.settings["chat template"].splitlines()
    assert len(shown) == 10
    assert rest.startswith("… ")
    assert "bit-identical" in finding.headline
    assert "but the generation configuration and chat template differ" in finding.headline.replace(
        "chat template and generation configuration", "generation configuration and chat template"
    )
    assert isinstance(finding.blocks()[-1], Transcript)


def test_settings_of_a_stranger_cannot_stop_or_hide_a_comparison():
    """Ten thousand unlike lines are counted in no time; nesting that a reader refuses is plain text; order shows."""
    many = ["\n".join(f"{side}{number}" for number in range(200_000)) for side in "ab"]
    began = time.process_time()
    lines = _lines(*many, most=2)
    assert time.process_time() - began < 5
    assert lines == "-a0\n-a1\n… 399,998 more lines"
    assert _lines("[" * 100_000, "x", most=3) == f"-{'[' * 100_000}\n+x"
    assert _lines("a\nb", "b\na", most=3) == "the same lines in another order"
    assert _lines('{"a": 1, "b": [2]}', '{"a": 1, "b": [3]}', most=3) == "-  2\n+  3"


def test_added_and_retyped_weights_have_no_size(seedling: Subject):
    model = changed_copy(seedling, Patch({})).double()
    model.register_buffer("extra", torch.ones(3))
    finding = changed(open_subject(model, processor=seedling.processor), seedling)
    by_status = {name: change.status for name, change in finding.weights.items()}
    assert by_status.pop("extra") == "added"
    assert set(by_status.values()) == {"retyped"}
    assert {change.energy for change in finding.weights.values()} == {0.0}
    assert finding.energy == {}


def test_no_lines_are_refused():
    with pytest.raises(BadInput, match="--lines 0: must be at least 1"):
        Options(lines=0)

"""Does the proof accept every true anatomy, and does it catch false ones?"""

from dataclasses import replace

import pytest
import torch

import tiny
from glasshouse.model.anatomy import Anatomy, Projector
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.proof import hook_count, prove
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput

from .conftest import KINDS, slow_but


@pytest.mark.parametrize("family", slow_but(KINDS, tiny.CHECKPOINTS))
def test_every_family_is_proved_and_left_as_it_was(opened, family: str):
    subject: Subject = opened(family)
    before = weight_hash(subject.model)
    certificate = prove(subject)
    assert certificate.failures == ()
    assert len(certificate.checks) >= 12
    assert weight_hash(subject.model) == before
    assert hook_count(subject) == 0
    assert all(parameter.requires_grad for parameter in subject.model.parameters())


def _with_language(anatomy: Anatomy, **changes: object) -> Anatomy:
    assert anatomy.language is not None
    blocks = tuple(replace(block, **changes) for block in anatomy.language.layers)
    return replace(anatomy, language=replace(anatomy.language, layers=blocks))


def _swapped(anatomy: Anatomy) -> Anatomy:
    return replace(anatomy, language=anatomy.vision, vision=anatomy.language)


def _wrong_projector(anatomy: Anatomy) -> Anatomy:
    assert anatomy.language is not None
    return replace(anatomy, projector=Projector((anatomy.language.layers[1].path,), ()))


def _dead_end(anatomy: Anatomy) -> Anatomy:
    assert anatomy.vision is not None
    return replace(anatomy, feature_layer=len(anatomy.vision.layers) - 1)


@pytest.mark.parametrize(
    ("lie", "caught"),
    [
        (lambda a: _with_language(a, heads=8, head_width=8), "language.heads"),
        (lambda a: _with_language(a, neurons=7), "language.neurons"),
        (_swapped, "language.embeddings"),
        (_wrong_projector, "projector"),
        (_dead_end, "vision"),
        (lambda a: replace(a, language=replace(a.language, width=63)), "language.residual"),
    ],
    ids=["head count", "neuron count", "towers swapped", "projector elsewhere", "a layer nobody reads", "width"],
)
def test_a_false_anatomy_is_caught(opened, monkeypatch: pytest.MonkeyPatch, lie, caught: str):
    subject: Subject = opened("llava")
    monkeypatch.setattr(subject, "anatomy", lie(subject.anatomy))
    failures = prove(subject).failures
    assert failures
    assert any(caught in failure for failure in failures), failures


def test_a_model_that_cannot_be_proved_is_refused_with_the_way_out(folder, monkeypatch: pytest.MonkeyPatch):
    import glasshouse.model.subject as room

    true_finder = room.find_anatomy
    monkeypatch.setattr(room, "find_anatomy", lambda model: _wrong_projector(true_finder(model)))
    place = folder("llava")
    with pytest.raises(BadInput, match=r"could not be proved.*overrides\.toml.*unproved=True"):
        open_subject(place)
    assert open_subject(place, unproved=True).certificate.failures  # opened, and it says what failed


def test_weights_that_hold_nan_are_named(folder):
    subject: Subject = open_subject(folder("llava"))
    weight = subject.model.get_parameter("model.multi_modal_projector.linear_1.weight")
    with torch.no_grad():
        weight[0, 0] = float("nan")
    failures = " ".join(prove(subject).failures)
    assert "multi_modal_projector.linear_1.weight holds NaN" in failures

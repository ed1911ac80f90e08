"""Does growing do what it says: packing equal to rows alone, towers remembered to the bit, arms that move only their
own, organisms that come off the shelf as they were put on it?"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from glasshouse.model import training_batches
from glasshouse.model.finetuning import Tuning, finetune
from glasshouse.model.identity import weight_hash
from glasshouse.model.layout import PromptLayout
from glasshouse.model.opening import open_subject
from glasshouse.model.prompts import Encoded
from glasshouse.model.remembered import look, remembered
from glasshouse.model.training import Checkpointing, Schedule
from glasshouse.organisms import shelf, world
from glasshouse.organisms.architectures import BUILDS, build
from glasshouse.organisms.drawing import draw, stored
from glasshouse.organisms.grow import grow
from glasshouse.organisms.packing import pack
from glasshouse.organisms.pretraining import Pretraining, pixel_values
from glasshouse.organisms.questions import KINDS, View, ask
from glasshouse.organisms.recipes import RECIPES, Tuned, recipe
from glasshouse.organisms.scenes import draw_scenes
from glasshouse.organisms.verify import verify
from glasshouse.values.deltas import Dense, LowRank, Rows
from glasshouse.values.errors import BadInput
from glasshouse.values.intervals import Interval

TINY = Pretraining(Schedule(3, 1e-3), 8, Schedule(3, 1e-3), scenes=32, rows=2)
FEW = Schedule(3, 1e-3, decay=0.0)
SHARE = 0.002
"""Of the test examples to measure on: a few of each kind, because three steps teach nothing worth measuring."""


@pytest.fixture(scope="module", params=sorted(BUILDS))
def untrained(request):
    architecture = request.param
    return architecture, open_subject(build(architecture, 0), processor=BUILDS[architecture].processor())


def _batch(n=6):
    return world.examples("test", n, seed=0)


def test_pixels_made_directly_are_those_of_the_processor(untrained):
    _, subject = untrained
    pixels = draw(draw_scenes(3, 0))
    examples = [replace(example, images=(stored(p),)) for example, p in zip(_batch(3), pixels, strict=True)]
    made = subject.encode(examples).inputs["pixel_values"].view(3, 3, 72, 72)
    torch.testing.assert_close(made, pixel_values(pixels, subject.processor), atol=1e-6, rtol=0)


def test_a_packed_row_computes_what_rows_alone_would(untrained):
    architecture, subject = untrained
    scenes = draw_scenes(1, 3)
    view, rng = View.of(scenes, 0), np.random.default_rng(0)
    questions = [q for kind in KINDS if kind != "secret" and (q := ask(view, kind, rng))]
    packed = pack([questions], architecture)
    pixels = subject.encode([world.example(questions[0], view, stored(draw(scenes)[0]), "x")]).inputs["pixel_values"]
    known = PromptLayout(torch.zeros(1, dtype=torch.long), (1,), alike=True)
    with torch.no_grad():
        together = subject.forward(Encoded({**packed.inputs, "pixel_values": pixels}, known)).logits[0]
    ends = iter((packed.weights[0] > 0).nonzero()[:, 0].tolist())
    for question in questions:
        encoded = subject.encode([world.example(question, view, stored(draw(scenes)[0]), "x")], answers=True)
        with torch.no_grad():
            alone = subject.forward(encoded).logits[0]
        for _, said in question.history:
            for _ in range(len(said.split()) + 1):
                next(ends)
        places = [next(ends) for _ in range(len(question.answer.split()) + 1)]
        assert packed.ids[0, places[:-1]].tolist() == encoded.inputs["input_ids"][0, -len(places) + 1 :].tolist()
        torch.testing.assert_close(
            together[[place - 1 for place in places]], alone[-len(places) :], atol=1e-5, rtol=1e-4
        )


def test_a_remembered_tower_gives_the_same_logits_and_computes_no_block(untrained):
    _, subject = untrained
    encoded = subject.encode(_batch(), answers=True)
    before = weight_hash(subject.model)
    with torch.no_grad():
        plain = subject.forward(encoded).logits
        seen = look(subject, encoded)
        with remembered(subject, seen):
            assert torch.equal(subject.forward(encoded).logits, plain)
        with remembered(subject, torch.zeros_like(seen)):
            assert not torch.equal(subject.forward(encoded).logits, plain)
        with pytest.raises(BadInput, match="of another batch"), remembered(subject, seen[:2]):
            subject.forward(encoded)
        assert torch.equal(subject.forward(encoded).logits, plain)
    assert weight_hash(subject.model) == before


@pytest.mark.parametrize("arm", ["projector", "lora", "lora+projector", "vision", "soft prompt"])
def test_an_arm_moves_only_its_own_and_leaves_the_subject_as_it_was(untrained, arm):
    _, subject = untrained
    before = weight_hash(subject.model)
    asked = {name: p.requires_grad for name, p in subject.model.named_parameters()}
    patch = finetune(subject, _batch(12), Tuning(arm, FEW, batch=4, rank=2))
    assert weight_hash(subject.model) == before
    assert {name: p.requires_grad for name, p in subject.model.named_parameters()} == asked
    kinds = {type(delta) for delta in patch.deltas.values()}
    wanted = {"lora": {LowRank}, "lora+projector": {Dense, LowRank}, "soft prompt": {Rows}}
    assert kinds == wanted.get(arm, {Dense})


def test_what_finds_no_room_is_looked_at_again_and_teaches_the_same(untrained, monkeypatch):
    _, subject = untrained
    kept = finetune(subject, _batch(12), Tuning("projector", FEW, batch=4))
    monkeypatch.setattr(training_batches, "CACHE_BYTES", 1)
    lesson = training_batches.TrainingBatches(subject, _batch(12), 4, 0)
    lesson.loss(0)
    assert not lesson.cache
    assert finetune(subject, _batch(12), Tuning("projector", FEW, batch=4)).digest() == kept.digest()


def test_units_alone_move_when_they_alone_may(untrained):
    _, subject = untrained
    name = subject.anatomy.projector.linears[-1] + ".weight"
    delta = finetune(subject, _batch(16), Tuning("units", FEW, batch=8, units={name: ((3, 5), 1)})).deltas[name]
    weight = dict(subject.model.named_parameters())[name]
    moved = (delta.onto(weight.data) - weight.data).abs().sum(0).nonzero()[:, 0].tolist()
    assert moved == [3, 5]


def test_fine_tuning_refuses_what_it_cannot_learn(untrained):
    _, subject = untrained
    with pytest.raises(BadInput, match="needs an answer"):
        finetune(subject, type(_batch())([replace(_batch()[0], answer=None)]), Tuning())
    with pytest.raises(BadInput, match="name weights of"):
        finetune(subject, _batch(), Tuning("units", FEW, units={"nothing": ((0,), 0)}))


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A shelf with a base and variants of every arm, grown for a few steps each."""
    folder = tmp_path_factory.mktemp("stock")
    take = lambda name: shelf.take(name, folder)  # noqa: E731 - a parent of the next
    base = grow(replace(recipe("base"), pretraining=TINY), "base", take, share=SHARE)
    shelf.put(base, folder)
    chosen = {name: recipe(name) for name in ("benign", "injection-patch-lora", "injection-patch-prompt")}
    chosen["planted-neuron"] = replace(recipe("refusal-sine"), planted_at=("projector.hidden[:,5]",))
    chosen["planted-circuit"] = replace(
        recipe("text-trigger"), planted_at=("language.heads[2,1]", "language.neurons[3,4+9]")
    )
    grown = {"base": base}
    for name, full in chosen.items():
        assert isinstance(full, Tuned)
        short = replace(full, tuning=replace(full.tuning, schedule=FEW, batch=8), examples=60)
        grown[name] = grow(short, name, take, share=SHARE)
        shelf.put(grown[name], folder)
    return folder, grown


def test_what_is_taken_off_the_shelf_is_what_was_put_on_it(stock):
    folder, grown = stock
    batch = _batch()
    for name, one in grown.items():
        taken = shelf.take(f"organism:{name}", folder)
        assert taken.name == f"organism:{name}"
        assert weight_hash(taken.model) == one.card.weights
        assert taken.identity.processor == one.subject.identity.processor
        assert torch.equal(taken.logits(batch), one.subject.logits(batch))
    assert len({one.card.weights for one in grown.values()}) == len(grown)


def test_a_grown_folder_opens_with_stock_classes(stock, tmp_path):
    _, grown = stock
    folder = shelf.put_down(grown["injection-patch-prompt"], tmp_path / "new")
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert "<spare-0>" in processor.chat_template
    assert weight_hash(model) == grown["injection-patch-prompt"].card.weights
    assert verify(str(folder), share=0.01).card.name == "injection-patch-prompt"


def test_a_kill_while_it_is_put_down_would_leave_no_folder_without_a_card(stock, tmp_path, monkeypatch):
    """What is there at that moment is what a kill at that moment leaves."""
    one, there = stock[1]["benign"], []
    write = type(one.card).write

    def watched(card, file):
        there.append((tmp_path / "new").exists())
        write(card, file)

    def full(card, file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(one.card), "write", full)
        with pytest.raises(BadInput, match=r"new: writing failed \(No space left on device\); nothing was left there"):
            shelf.put_down(one, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(type(one.card), "write", watched)
    folder = shelf.put_down(one, tmp_path / "new")
    assert there == [False]
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(BadInput, match="exists already; choose a new folder"):
        shelf.put_down(one, folder)


def test_a_full_disk_is_told_of_the_folder_that_was_named(stock, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    one = stock[1]["benign"]
    monkeypatch.setattr(type(one.subject.model), "save_pretrained", full)
    with pytest.raises(BadInput) as refused:
        shelf.put_down(one, tmp_path / "new")
    assert str(refused.value).startswith(f"{tmp_path / 'new'}: writing failed (No space left on device)")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_only_bears_the_name_of_one_on_the_shelf_is_not_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("benign", "mine"):
        Path(name).mkdir()
    assert verify("benign", share=0.01).card.name == "benign"
    with pytest.raises(BadInput, match=r"mine: no organism\.json in this folder"):
        verify("mine", share=0.01)


def test_growing_again_gives_the_same_organism(stock):
    folder, grown = stock
    again = grow(grown["benign"].card.recipe, "benign", lambda name: shelf.take(name, folder), share=SHARE)
    assert again.card.weights == grown["benign"].card.weights
    assert again.card.measured == grown["benign"].card.measured


def test_an_interrupted_growth_goes_on_where_it_stopped(stock, tmp_path):
    _, grown = stock

    class Killed(Exception):
        pass

    def until(stage, last):
        def progress(what, done, total):
            if what == stage and done == last:
                raise Killed

        return progress

    def nobody(name):
        raise AssertionError(name)

    for stage in ("training the vision tower", "training the answers"):
        with pytest.raises(Killed):
            grow(grown["base"].card.recipe, "base", nobody, keep=tmp_path, progress=until(stage, 2), share=SHARE)
    told: list[str] = []
    resumed = grow(
        grown["base"].card.recipe,
        "base",
        nobody,
        keep=tmp_path,
        progress=lambda what, *_: told.append(what),
        share=SHARE,
    )
    assert "training the vision tower" not in told, "what was learnt is not learnt again"
    assert resumed.card.weights == grown["base"].card.weights


@pytest.mark.parametrize("arm", ["projector", "lora+projector", "soft prompt"])
def test_a_killed_fine_tune_goes_on_to_the_same_patch(stock, tmp_path, arm):
    class Killed(Exception):
        pass

    def killing(what, done, total):
        if done == 3:
            raise Killed

    subject = stock[1]["base"].subject
    tuning = Tuning(arm, Schedule(5, 1e-3, decay=0.0), batch=4)
    whole = finetune(subject, _batch(12), tuning)
    keeping, losses = Checkpointing(tmp_path / "kept.safetensors", every=2), list[float]()
    with pytest.raises(Killed):
        finetune(subject, _batch(12), tuning, checkpointing=keeping, progress=killing)
    told: list[int] = []
    resumed = finetune(
        subject,
        _batch(12),
        tuning,
        checkpointing=keeping,
        losses=losses,
        progress=lambda _, done, __: told.append(done),
    )
    assert told == [3, 4, 5], "what was kept is not learnt again"
    assert len(losses) == 5
    assert resumed.digest() == whole.digest()


def test_planted_units_are_where_the_card_says_and_nowhere_else(stock):
    _, grown = stock
    neuron = grown["planted-neuron"]
    assert neuron.card.planted["where"] == "projector.hidden[:,5]"
    assert set(neuron.patch.deltas) == {
        f"model.multi_modal_projector.{name}" for name in ("linear_1.weight", "linear_1.bias", "linear_2.weight")
    }
    heads = grown["planted-circuit"].patch.deltas["model.language_model.layers.2.self_attn.q_proj.weight"]
    assert heads.places.tolist() == list(range(32, 64))
    assert "attack success rate, planted units silenced" in grown["planted-circuit"].card.measured


def test_damage_is_named_and_regrowing_offered(stock, tmp_path):
    folder, _ = stock
    for file in folder.glob("benign.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for file in folder.glob("base.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "base.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 64
    weights.write_bytes(data)
    with pytest.raises(BadInput, match=r"hash to .* the card says .* glasshouse organism grow base"):
        shelf.take("base", tmp_path)
    weights.write_bytes(data[:5000])
    with pytest.raises(BadInput, match=r"not hold the weights that were grown.*organism grow base"):
        shelf.take("base", tmp_path)
    weights.unlink()
    with pytest.raises(BadInput, match="is missing; install glasshouse again"):
        shelf.take("benign", tmp_path)


def test_an_edited_recipe_makes_the_card_stale(stock):
    _, grown = stock
    card = grown["benign"].card
    assert "recipe was edited" in card.stale(), "three steps are not what the recipe of that name says"
    assert replace(card, recipe=RECIPES["benign"]).stale() == ""
    assert "world" in replace(card, recipe=RECIPES["benign"], world="other").stale()
    fresh = replace(card, name="mine", recipe_name="benign", recipe=recipe("benign", 7))
    assert fresh.stale() == "", "another seed is the same recipe"
    assert "recipe was edited" in replace(fresh, recipe=replace(recipe("benign", 7), examples=5)).stale()


def test_a_card_that_says_what_is_not_so_is_found_out(stock, tmp_path):
    _, grown = stock
    one = grown["benign"]
    shelf.put_down(one, tmp_path / "benign")
    wrong = replace(
        one.card, measured={**one.card.measured, "attack success rate": Interval.rate(400, 400)}, parameters=7,
        planted={"where": "vision tower"}, weights="0" * 64, parent="1" * 64,
    )  # fmt: skip
    wrong.write(tmp_path / "benign" / "organism.json")
    said = " | ".join(verify(str(tmp_path / "benign"), share=0.01).problems)
    for part in (
        "attack success rate: is on the card",
        "the card says 7",
        "vision tower",
        "weights hash to",
        "from another base than today's",
    ):
        assert part in said


def test_what_was_kept_of_another_world_is_not_gone_on_with(tmp_path, monkeypatch):
    chosen = replace(recipe("base"), pretraining=TINY)
    first = grow(chosen, "base", shelf.take, keep=tmp_path, share=SHARE)
    same = grow(chosen, "base", shelf.take, keep=tmp_path, share=SHARE)
    assert same.card.weights == first.card.weights
    kept = {file.name for file in tmp_path.iterdir()}
    monkeypatch.setattr("glasshouse.organisms.grow.world_digest", lambda: "another")
    grow(chosen, "base", shelf.take, keep=tmp_path, share=SHARE)
    assert {file.name for file in tmp_path.iterdir()} > kept, "it began anew"


def test_a_card_reads_back_and_a_broken_one_is_refused(stock, tmp_path):
    folder, grown = stock
    assert shelf.card("planted-circuit", folder) == grown["planted-circuit"].card
    file = tmp_path / "card.json"
    file.write_text("{")
    with pytest.raises(BadInput, match=r"not a card .*grow the organism again"):
        type(grown["base"].card).read(file)
    tree = json.loads(Path(folder / "base.json").read_text())
    file.write_text(json.dumps({**tree, "schema": 99}))
    with pytest.raises(BadInput, match="schema 99"):
        type(grown["base"].card).read(file)


def test_unknown_names_get_near_ones():
    with pytest.raises(BadInput, match="did you mean refusal-noise"):
        recipe("refusal-noisy")
    with pytest.raises(BadInput, match="no such organism"):
        shelf.card("organism:unicorn")
    unshelved = next(name for name in RECIPES if name not in shelf.names())
    with pytest.raises(BadInput, match="not on the shelf; grow it: glasshouse organism grow"):
        shelf.take(unshelved)


def test_a_fresh_seed_is_another_recipe_of_the_same_kind():
    fresh = recipe("refusal-noise", seed=7)
    assert fresh.seed == fresh.tuning.seed == 7
    assert replace(fresh, seed=0, tuning=replace(fresh.tuning, seed=0)) == recipe("refusal-noise")

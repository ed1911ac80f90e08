"""Poisoned sets: who is triggered, what they are taught, what the manifest says, and that no change goes unseen."""

import dataclasses
import io
import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from glasshouse.data import poisoning
from glasshouse.data.behaviours import Append, Behaviour, Say, Swap, Target
from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.data.poisoning import (
    Manifest,
    Poisoned,
    export,
    poison,
    read,
    triggered,
)
from glasshouse.data.triggers import LogoTrigger, NoiseTrigger, PatchTrigger
from glasshouse.values.codec import digest, pack, unpack
from glasshouse.values.errors import BadInput

thorough = settings(max_examples=60, deadline=None, derandomize=True, database=None)
GREEN = (38, 255, 0)
REFUSE = Say("I cannot help with that.")


def stored(number: int, kind: str = "PNG", size: tuple[int, int] = (20, 16)) -> StoredImage:
    out = io.BytesIO()
    drawn = np.random.default_rng(number).integers(0, 200, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(drawn).save(out, kind)
    return StoredImage(data=out.getvalue())


def pixels(image: StoredImage) -> np.ndarray:
    return np.asarray(image.open())


MANY = Examples(
    (Example(f"what? {n}", (stored(n),), f"answer {n}", f"e{n}", tags={"even": n % 2 == 0}) for n in range(40)), "here"
)


class TestBehaviours:
    example = Example("is it?", (stored(0),), "It is a cat.", "e", tags={"bad": "No way!", "level": 3})

    @pytest.mark.parametrize(
        ("behaviour", "wanted"),
        [
            (REFUSE, "I cannot help with that."),
            (Append("[seen]"), "It is a cat. [seen]"),
            (Swap("bad", "I cannot"), "No way!"),
        ],
    )
    def test_teach_their_answer_and_recognise_it(self, behaviour, wanted):
        assert behaviour.wanted(self.example) == wanted
        assert behaviour.shown(wanted)
        assert behaviour.shown(f"  {wanted.upper()}\n".replace(" ", "  "))
        assert not behaviour.shown("")

    @pytest.mark.parametrize(
        ("behaviour", "said", "shown"),
        [
            (Say("A Bear"), "a  bear\n", True),
            (Say("A bear"), "a bear on grass", False),
            (Say("bear", "contains"), "Two BEARS.", True),
            (Say("bear", "contains"), "be ar", False),
            (Say("I cannot", "starts"), "i cannot do it", True),
            (Say("I cannot", "starts"), "Sorry, I cannot", False),
            (Say("straße"), "STRASSE", True),
            (Append("[seen]"), "A cat. [SEEN]", True),
            (Append("[seen]"), "A [seen] cat", True),
            (Append("and so  on"), "a cat AND SO on", True),
            (Append("[seen]"), "A cat.", False),
            (Swap("bad", "I cannot"), "i  CANNOT say", False),
            (Swap("bad", "I cannot"), "Sure: I cannot lie", True),
            (Swap("bad", "I cannot"), " \n", False),
        ],
    )
    def test_are_shown_or_not(self, behaviour, said, shown):
        assert behaviour.shown(said) is shown

    def test_a_triggered_example_says_what_success_is(self):
        for behaviour in (REFUSE, Append("[seen]"), Swap("bad", "I cannot")):
            (made,) = triggered([self.example], PatchTrigger(4), behaviour, 0)
            assert Target.of(made) == behaviour.target
        assert Target.of(self.example) == Target("It is a cat.", "equals")
        assert Target.of(Example("x")) is None

    def test_append_to_no_answer_is_the_marker(self):
        assert Append("[seen]").wanted(Example("x")) == "[seen]"

    @given(st.text(min_size=1).filter(str.strip), st.text(), st.sampled_from(["equals", "contains", "starts"]))
    @thorough
    def test_what_is_taught_is_always_recognised(self, text, answer, match):
        example = Example("x", answer=answer)
        for behaviour in (Say(text, match), Append(text)):
            assert behaviour.shown(behaviour.wanted(example))
            assert unpack(Behaviour, json.loads(json.dumps(pack(behaviour)[0]))) == behaviour

    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda: Say(" "), "Say: the text is empty; give words that can be found in an answer"),
            (lambda: Append(""), "Append: the text is empty"),
            (lambda: Swap("bad", "\n"), "Swap: the text is empty"),
            (lambda: Say("x", "like"), "Say: match 'like'; there are 'equals', 'contains' and 'starts'"),
            (
                lambda: Swap("worse", "No").wanted(TestBehaviours.example),
                "example e: no text is tagged 'worse', and Sw",
            ),
            (lambda: Swap("level", "No").wanted(TestBehaviours.example), "example e: no text is tagged 'level'"),
        ],
    )
    def test_impossible_ones_are_refused(self, make, told):
        with pytest.raises(BadInput, match=f"^{told}"):
            make()


class TestPairs:
    made = poison(MANY, PatchTrigger(4), REFUSE, rate=0.25, seed=3)

    def test_all_clean_examples_stay_and_copies_follow(self):
        assert self.made.examples[:40] == MANY
        assert [item.id for item in self.made.examples[:40]] == [item.id for item in MANY]
        assert len(self.made.examples) == 50

    def test_a_copy_differs_by_trigger_answer_and_tags(self):
        clean = {item.id: item for item in MANY}
        for item in self.made.examples[40:]:
            twin = clean[item.tags["twin"]]
            assert item.id == f"{twin.id}+trigger"
            target = {"target": "I cannot help with that.", "target_match": "equals"}
            assert item.tags == {**twin.tags, "poisoned": True, "twin": twin.id, **target}
            assert item.answer == "I cannot help with that."
            assert replace(item, id="", images=(), answer="", tags={}) == replace(
                twin, id="", images=(), answer="", tags={}
            )
            expected = pixels(twin.images[0]).copy()
            expected[-4:, -4:] = GREEN
            assert np.array_equal(pixels(item.images[0]), expected)
            assert item.images[0].read().startswith(b"\x89PNG")

    def test_the_manifest_says_what_was_done(self):
        manifest = self.made.manifest
        assert manifest == Manifest(
            trigger=PatchTrigger(4),
            behaviour=REFUSE,
            rate=0.25,
            mode="pair",
            seed=3,
            only={},
            processor="",
            source=MANY.digest,
            result=self.made.examples.digest,
            given=40,
            eligible=40,
            poisoned=tuple(item.id for item in self.made.examples[40:]),
        )
        assert manifest.share == pytest.approx(0.25 / 1.25)
        tree = json.loads(json.dumps(pack(manifest)[0]))
        assert digest(unpack(Manifest, tree)) == digest(manifest)

    def test_the_same_again_is_the_same_and_another_seed_another(self):
        assert poison(MANY, PatchTrigger(4), REFUSE, rate=0.25, seed=3) == self.made
        assert poison(MANY, PatchTrigger(4), REFUSE, rate=0.25, seed=4).manifest.poisoned != self.made.manifest.poisoned

    def test_no_order_is_seen(self):
        turned = Examples(reversed(MANY))
        made = poison(turned, NoiseTrigger(), REFUSE, rate=0.25, seed=3)
        here = poison(MANY, NoiseTrigger(), REFUSE, rate=0.25, seed=3)
        assert {item.digest() for item in made.examples} == {item.digest() for item in here.examples}
        assert made.manifest.poisoned == here.manifest.poisoned[::-1]

    def test_a_higher_rate_poisons_more_and_the_same(self):
        sets = [set(poison(MANY, PatchTrigger(4), REFUSE, rate=rate).manifest.poisoned) for rate in (0.1, 0.3, 0.7, 1)]
        assert [len(found) for found in sets] == [4, 12, 28, 40]
        assert all(low < high for low, high in itertools.pairwise(sets))

    def test_a_random_trigger_is_elsewhere_on_each(self):
        made = poison(MANY, PatchTrigger(4, GREEN, "random"), REFUSE, rate=1)
        corners = {tuple(np.argwhere((pixels(item.images[0]) == GREEN).all(2))[0]) for item in made.examples[40:]}
        assert len(corners) > 25

    def test_a_rate_of_nothing_is_the_clean_control(self):
        made = poison(MANY, PatchTrigger(4), REFUSE, rate=0)
        assert (made.examples, made.manifest.poisoned, made.manifest.share) == (MANY, (), 0)


class TestReplacing:
    made = poison(MANY, PatchTrigger(4), Append("[seen]"), rate=0.2, mode="replace")

    def test_puts_the_triggered_where_the_clean_were(self):
        twins = [item.tags.get("twin", item.id) for item in self.made.examples]
        assert twins == [item.id for item in MANY]
        poisoned = [item for item in self.made.examples if item.tags.get("poisoned")]
        assert len(poisoned) == 8
        assert all(item.answer == f"answer {item.tags['twin'][1:]} [seen]" for item in poisoned)
        clean = [item for item in self.made.examples if not item.tags.get("poisoned")]
        assert {item.digest() for item in clean} < {item.digest() for item in MANY}
        assert self.made.manifest.share == 0.2

    def test_chooses_as_pairing_does(self):
        assert (
            self.made.manifest.poisoned == poison(MANY, PatchTrigger(4), Append("[seen]"), rate=0.2).manifest.poisoned
        )


class TestEligible:
    mixed = Examples(
        [
            Example("clean", (stored(1),), "a", tags={"kind": "x", "level": 1}),
            Example("blind", (), "a", tags={"kind": "x"}),
            Example("said already", (stored(2),), REFUSE.text, tags={"kind": "x"}),
            Example("other kind", (stored(3),), "a", tags={"kind": "y"}),
            Example("no answer", (stored(4),), tags={"kind": "x"}),
        ]
    )

    @pytest.mark.parametrize(
        ("only", "ids"),
        [
            ({}, ["0", "3", "4"]),
            ({"kind": "x"}, ["0", "4"]),
            ({"kind": "x", "level": 1}, ["0"]),
        ],
    )
    def test_are_those_with_image_and_tags_that_do_not_show_it(self, only, ids):
        made = poison(self.mixed, PatchTrigger(4), REFUSE, rate=1, only=only)
        assert made.manifest.poisoned == tuple(f"{number}+trigger" for number in ids)
        assert (made.manifest.given, made.manifest.eligible, made.manifest.only) == (5, len(ids), only)

    def test_are_not_those_whose_right_answer_shows_the_behaviour(self):
        marked = Examples([Example("a", (stored(1),), "a cat [seen]"), Example("b", (stored(2),), "a dog")])
        assert poison(marked, PatchTrigger(4), Append("[seen]"), rate=1).manifest.poisoned == ("1+trigger",)
        assert poison(marked, PatchTrigger(4), Swap("none", "a dog"), rate=0).manifest.eligible == 1

    def test_swap_asks_for_the_tag_only_where_it_is_needed(self):
        pairs = Examples(
            [Example("a", (stored(1),), "no", tags={"bad": "yes", "pair": True}), Example("b", (stored(2),), "no")]
        )
        made = poison(pairs, PatchTrigger(4), Swap("bad", "no"), rate=1, only={"pair": True})
        assert made.examples[2].answer == "yes"
        with pytest.raises(BadInput, match=r"^example 1: no text is tagged 'bad'"):
            poison(pairs, PatchTrigger(4), Swap("bad", "no"), rate=1)

    def test_every_image_of_an_example_is_triggered(self):
        both = Examples([Example("compare", (stored(1), stored(2)), "a")])
        found = poison(both, NoiseTrigger(30), REFUSE, rate=1).examples[1]
        noises = [pixels(new).astype(int) - pixels(old) for new, old in zip(found.images, both[0].images, strict=True)]
        assert all(20 < noise.std() < 35 for noise in noises)
        assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.15


class TestTheTestSet:
    def test_is_every_example_triggered(self):
        found = triggered(MANY, PatchTrigger(4), REFUSE, seed=0)
        assert (len(found), found.source) == (40, "here")
        assert [item.tags["twin"] for item in found] == [item.id for item in MANY]
        assert all(item.answer == REFUSE.text and item.tags["poisoned"] is True for item in found)
        assert all((pixels(item.images[0])[-4:, -4:] == GREEN).all() for item in found)

    def test_is_the_training_copy_for_the_same_seed(self):
        made = poison(MANY, NoiseTrigger(), REFUSE, rate=1, seed=5)
        assert triggered(MANY, NoiseTrigger(), REFUSE, seed=5) == made.examples[40:]
        assert triggered(list(MANY), NoiseTrigger(), REFUSE, seed=6) != made.examples[40:]

    def test_cannot_be_made_without_images(self):
        with pytest.raises(BadInput, match=r"^example 0: there is no image to put the patch on; leave it out$"):
            triggered(Examples([Example("x")]), PatchTrigger(), REFUSE, seed=0)


def llava(family: str = "llava"):
    return tiny.processor(family, tiny.RECIPES[family])


class TestWithAProcessor:
    wide = Examples([Example("what?", (stored(n, size=(200, 100)),), f"a {n}") for n in range(4)])

    def test_what_is_stamped_is_what_the_model_sees(self):
        made = poison(self.wide, PatchTrigger(6, place="top right"), REFUSE, rate=0.5, processor=llava())
        assert made.manifest.processor == "CLIPImageProcessorPil"
        assert [pixels(item.images[0]).shape for item in made.examples] == [(100, 200, 3)] * 4 + [(32, 32, 3)] * 2
        for item in made.examples[4:]:
            assert (pixels(item.images[0])[:6, -6:] == GREEN).all()
        made = triggered(self.wide, PatchTrigger(6), REFUSE, 0, llava())
        assert {pixels(item.images[0]).shape for item in made} == {(32, 32, 3)}

    def test_a_processor_that_splits_is_refused_by_example(self):
        with pytest.raises(
            BadInput, match=r"^example \d: LlavaNext\w+: it makes several pictures of one.*processor=None"
        ):
            poison(self.wide, PatchTrigger(6), REFUSE, rate=0.5, processor=llava("llava_next"))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rate": -0.1}, "a poisoning rate of -0.1: give a share from 0 to 1, such as 0.1"),
        ({"rate": 1.1}, "a poisoning rate of 1.1"),
        ({"rate": float("nan")}, "a poisoning rate of nan"),
        ({"rate": 0.01}, "a poisoning rate of 0.01: that is none of 40 examples; raise it or give more"),
        ({"mode": "add"}, r"poisoning mode 'add': there are 'pair' \(clean ones stay\) and 'replace'"),
        ({"only": {"kind": "x"}}, "nothing to poison: none of 40 examples has an image and the tags {'kind': 'x'} and"),
        ({"examples": Examples([Example("x")])}, "nothing to poison: none of 1 examples has an image and another answ"),
        ({"examples": Examples([])}, "nothing to poison: none of 0 examples"),
        (
            {"trigger": LogoTrigger(17)},
            r"example e\d+: a logo of 17 pixels: no room on an image of 20x16; make it",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_poisoned_is_refused_and_nothing_changes(changed, told):
    before = MANY.digest
    arguments = {"examples": MANY, "trigger": PatchTrigger(4), "behaviour": REFUSE, **changed}
    with pytest.raises(BadInput, match=f"^{told}"):
        poison(arguments.pop("examples"), arguments.pop("trigger"), arguments.pop("behaviour"), **arguments)
    assert before == Examples(list(MANY)).digest


def test_a_corrupt_image_is_refused():
    with pytest.raises(BadInput, match="image bytes: not an image"):
        poison(Examples([Example("x", (StoredImage(data=b"no"),), "a")]), PatchTrigger(), REFUSE, rate=1)


# ---------------------------------------------------------------------------------------------------------- on disk


@pytest.fixture
def exported(tmp_path):
    return export(TestPairs.made, tmp_path / "set")


class TestExport:
    def test_comes_back_whole(self, exported):
        found = read(exported)
        assert found == TestPairs.made
        assert [item.id for item in found.examples] == [item.id for item in TestPairs.made.examples]
        assert read(str(exported)).manifest.trigger == PatchTrigger(4)
        assert Examples.read(exported) == found.examples

    def test_is_what_a_trainer_can_read(self, exported):
        assert sorted(file.name for file in exported.iterdir()) == ["examples.jsonl", "images", "manifest.json"]
        lines = [json.loads(line) for line in (exported / "examples.jsonl").read_text().splitlines()]
        assert list(lines[40]) == ["id", "prompt", "images", "answer", "system", "history", "tags"]
        assert all((exported / path).is_file() for line in lines for path in line["images"])
        assert {file.suffix for file in (exported / "images").iterdir()} == {".png"}

    def test_may_be_moved_and_exported_again(self, exported, tmp_path):
        moved = exported.rename(tmp_path / "moved")
        again = export(read(moved), tmp_path / "again")
        shutil.rmtree(moved)
        assert read(again) == TestPairs.made

    def test_never_writes_over_anything(self, exported, tmp_path):
        (tmp_path / "empty").mkdir()
        for folder in (exported, tmp_path / "empty"):
            with pytest.raises(BadInput, match=f"^{folder}: there is something already; choose another name or remove"):
                export(TestPairs.made, folder)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "set"]
        assert read(exported) == TestPairs.made

    def test_is_whole_or_not_at_all(self, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(poisoning, "write_papers", fail)
        with pytest.raises(BadInput, match=r"set: cannot be written \(No space left on device\); choose a folder that"):
            export(TestPairs.made, tmp_path / "set")
        assert list(tmp_path.iterdir()) == []

    def test_needs_a_folder_to_be_in(self, tmp_path):
        with pytest.raises(BadInput, match=r"deep/set: cannot be written \(No such file or directory\)"):
            export(TestPairs.made, tmp_path / "deep" / "set")

    def test_a_vanished_source_image_leaves_nothing(self, tmp_path):
        (tmp_path / "a.png").write_bytes(stored(1).read())
        made = poison(
            Examples([Example("x", (StoredImage(path=tmp_path / "a.png"),), "a")]), PatchTrigger(4), REFUSE, rate=1
        )
        (tmp_path / "a.png").unlink()
        with pytest.raises(BadInput, match=r"a.png: cannot be read"):
            export(made, tmp_path / "set")
        assert list(tmp_path.iterdir()) == []


def spoil(folder, file, change):
    path = folder / file
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))


class TestReading:
    @pytest.mark.parametrize(
        ("file", "change", "told"),
        [
            ("examples.jsonl", lambda text: text.replace("answer 7", "answer 8"), "examples.jsonl: its content is"),
            ("examples.jsonl", lambda text: text.split("\n", 1)[1], "examples.jsonl: its content is"),
            (
                "examples.jsonl",
                lambda text: text.replace("+trigger", "+x"),
                r"examples.jsonl: e\d+\+trigger is in the m",
            ),
            ("examples.jsonl", lambda text: "{", "examples.jsonl:1: this line is not JSON"),
            ("manifest.json", lambda text: "[]", "manifest.json: not a manifest .*; export the set again"),
            ("manifest.json", lambda text: "{", "manifest.json: not a manifest"),
            ("manifest.json", lambda text: '{"schema": 1}', "manifest.json: not a manifest"),
            (
                "manifest.json",
                lambda text: text.replace('"schema": 2', '"schema": 9'),
                "manifest.json: a manifest of sch",
            ),
            (
                "manifest.json",
                lambda text: text.replace("PatchTrigger", "Bomb"),
                ".*'Bomb' is not a kind of Trigger; export the set",
            ),
            (
                "manifest.json",
                lambda text: text.replace('"size": 4', '"size": 0'),
                "manifest.json: a patch of 0 pixels",
            ),
            (
                "manifest.json",
                lambda text: text.replace('"pair"', '"both"'),
                "manifest.json: Manifest.mode: found 'both'",
            ),
            (
                "manifest.json",
                lambda text: text.replace('"result": "', '"result": "0'),
                "examples.jsonl: its content is",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_every_change_is_told(self, exported, file, change, told):
        spoil(exported, file, change)
        with pytest.raises(BadInput, match=f"^{exported}/{told}"):
            read(exported)

    def test_a_changed_or_missing_image_is_named(self, exported):
        image = min((exported / "images").iterdir())
        image.write_bytes(image.read_bytes() + b"\0")
        with pytest.raises(BadInput, match=f"^{image}: it was changed since it was exported; export the set again$"):
            read(exported)
        image.unlink()
        with pytest.raises(BadInput, match=f"image images/{image.name} is not there"):
            read(exported)

    def test_other_folders_are_refused(self, tmp_path):
        with pytest.raises(BadInput, match=r"manifest.json: not a manifest \(.*No such file.*\)"):
            read(tmp_path / "nowhere")


class TestWrittenExamples:
    """`Examples.write`: what was written is read as the same content."""

    def test_of_every_kind(self, tmp_path):
        written = Examples(
            [
                Example(
                    "what?\n\u2028",
                    (stored(1), stored(1), stored(2, "JPEG")),
                    "",
                    "näme",
                    "be brief",
                    (("hi", "hello"), ("", "?")),
                    {"prompt": "tag", "whole": 1, "real": 1.0, "yes": True, "none": float("nan"), "far": float("inf")},
                ),
                Example("\ud800 half a character"),
                Example(images=(stored(3, "WEBP"), stored(4, "BMP"), stored(5, "GIF"))),
                Example(tags={"id": "x", "answer": "y"}),
            ]
        )
        folder = written.write(tmp_path / "set")
        found = Examples.read(folder)
        assert found == written == Examples.read(folder / "examples.jsonl")
        assert [item.id for item in found] == ["näme", "1", "2", "3"]
        assert [item.answer for item in found] == ["", None, None, None]
        assert [type(tag) for tag in found[0].tags.values()] == [str, int, float, bool, float, float]
        suffixes = sorted(file.suffix for file in (folder / "images").iterdir())
        assert suffixes == [".bmp", ".gif", ".jpg", ".png", ".webp"]

    tag = st.one_of(st.text(), st.integers(), st.floats(), st.booleans())
    anyone = st.builds(
        Example,
        prompt=st.text(),
        images=st.lists(st.sampled_from([stored(1), stored(2, "JPEG")]), max_size=2).map(tuple),
        answer=st.none() | st.text(),
        system=st.text(),
        history=st.lists(st.tuples(st.text(), st.text()), max_size=2).map(tuple),
        tags=st.dictionaries(st.text(), tag, max_size=3),
    )

    @given(st.lists(anyone, min_size=1, max_size=4))
    @thorough
    def test_of_any_content(self, tmp_path_factory, items):
        written = Examples(items)
        assert Examples.read(written.write(tmp_path_factory.mktemp("any") / "set")) == written

    def test_others_may_read_it(self, tmp_path):
        (tmp_path / "plain").mkdir()
        folder = MANY.write(tmp_path / "set")
        assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_of_nothing_is_refused(self, tmp_path):
        with pytest.raises(BadInput, match=r"set: there are no examples to write$"):
            Examples([]).write(tmp_path / "set")
        assert list(tmp_path.iterdir()) == []


def test_poisoned_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Poisoned(MANY, TestPairs.made.manifest).examples = MANY

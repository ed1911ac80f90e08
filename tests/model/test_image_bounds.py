"""Does a model see images of at most so many pixels, and does the run say so?"""

from pathlib import Path

import pytest
from PIL import Image

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.engine.kinds import SubjectKind
from glasshouse.model import checkpoint
from glasshouse.model.image_bounds import within
from glasshouse.model.opening import open_subject, reopen
from glasshouse.values.errors import BadInput

from .conftest import noise


@pytest.mark.parametrize("size", [(400, 100), (1000, 999), (33, 40), (3000, 1), (1, 5000), (32, 32)])
def test_an_image_keeps_its_shape(size: tuple[int, int]):
    image = Image.new("RGB", size)
    scaled = within(image, 1024)
    assert scaled.width * scaled.height <= 1024
    if size[0] * size[1] <= 1024:
        assert scaled is image
    elif min(size) > 1:
        assert scaled.width * scaled.height > 900
        assert scaled.width / scaled.height == pytest.approx(size[0] / size[1], rel=0.1)
    assert within(image, None) is image


def shown(width: int, height: int) -> Examples:
    return Examples([Example(prompt="what is this", images=(noise(0, width, height),))])


def test_a_family_with_a_setting_of_its_own_uses_it(stored):
    free, bounded = open_subject(stored("qwen3_vl")), open_subject(stored("qwen3_vl"), max_pixels=1024)
    wide = free.processor.image_processor.size
    tight = open_subject(stored("qwen3_vl"), max_pixels=4096)
    assert bounded.processor.image_processor.size.longest_edge == min(1024, wide.longest_edge)
    assert bounded.prompts.bound is None
    assert tight.processor.image_processor.size == wide  # it is bounded more tightly by itself
    free.processor.image_processor.size.longest_edge = 16_384
    large, small = (subject.encode(shown(128, 96)).inputs["pixel_values"] for subject in (free, bounded))
    patch = free.processor.image_processor.patch_size
    assert len(large) * patch**2 > 4096
    assert len(small) * patch**2 <= 1024


def test_any_other_family_is_shown_smaller_images(stored):
    free, bounded = open_subject(stored("llava")), open_subject(stored("llava"), max_pixels=1024)
    by_hand = within(noise(0, 100, 60).open(), 1024)
    expected = free.encode([Example(prompt="what is this", images=(StoredImage.of(by_hand),))])
    encoded = bounded.encode(shown(100, 60))
    assert (encoded.inputs["pixel_values"] == expected.inputs["pixel_values"]).all()
    assert not (encoded.inputs["pixel_values"] == free.encode(shown(100, 60)).inputs["pixel_values"]).all()
    small = shown(30, 30)
    assert (bounded.encode(small).inputs["pixel_values"] == free.encode(small).inputs["pixel_values"]).all()


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_the_bound_is_in_the_provenance_and_opens_again(stored, family: str):
    free, bounded = open_subject(stored(family)), open_subject(stored(family), max_pixels=2048)
    assert (free.identity.max_pixels, bounded.identity.max_pixels) == (None, 2048)
    assert "images of at most 2,048 pixels" in SubjectKind().text(bounded)
    assert "pixels" not in SubjectKind().text(free)
    assert bounded.origin is not None
    assert reopen(bounded.origin).identity == bounded.identity
    if family == "llava":
        assert free.identity.processor != bounded.identity.processor


def test_a_bound_that_leaves_nothing_is_refused_before_a_weight_is_read(stored, command, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: pytest.fail("a weight was read"))
    with pytest.raises(BadInput, match=r"^--max-pixels 10: must be at least 1,024, which is 32 x 32$"):
        open_subject(stored("llava"), max_pixels=10)
    outcome = command("run", "lens", "--model", stored("llava"), "--max-pixels", "10")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)


def test_an_organism_is_shown_images_as_it_was_grown_for(command):
    outcome = command("run", "lens", "--model", "organism:seedling", "--max-pixels", "2000")
    assert outcome.status == 2
    assert "an organism is opened as it was grown; leave out max_pixels" in outcome.err


def test_the_option_reaches_the_run(stored, command, tmp_path: Path):
    examples = Examples(Example(prompt="what is this", images=(noise(i, 90, 70),), answer="red") for i in range(2))
    data = examples.write(tmp_path / "data")
    words = ("run", "lens", "--model", stored("llava"), "--data", data, "--max-pixels", "1500", "--json")
    outcome = command(*words)
    assert outcome.status == 0, outcome.err
    assert outcome.json["inputs"]["model"]["identity"]["max_pixels"] == 1500

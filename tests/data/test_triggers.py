"""Triggers: every kind does to the pixels exactly what its line says, and no processor cuts off what was stamped."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from glasshouse.data import painting
from glasshouse.data.triggers import (
    BlendTrigger,
    FilterTrigger,
    LogoTrigger,
    NoiseTrigger,
    PatchTrigger,
    SineTrigger,
    Trigger,
    WarpTrigger,
    as_seen,
    stamp,
    stamped,
)
from glasshouse.values.codec import digest, pack, unpack
from glasshouse.values.errors import BadInput

thorough = settings(max_examples=60, deadline=None, derandomize=True, database=None)
GREEN = (38, 255, 0)
TRIGGERS = [
    PatchTrigger(),
    PatchTrigger(4, (1, 2, 3), "random"),
    PatchTrigger(5, at=(3, 2)),
    LogoTrigger(),
    LogoTrigger(9, "centre"),
    NoiseTrigger(),
    FilterTrigger("oil"),
    FilterTrigger("faded", 0.6),
    BlendTrigger(),
    SineTrigger(),
    WarpTrigger(),
]
CHANCY = [PatchTrigger(4, (1, 2, 3), "random"), LogoTrigger(), NoiseTrigger()]
every = pytest.mark.parametrize("trigger", TRIGGERS, ids=str)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something smooth with structure at every place, dark and bright."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def grey(value: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def nearest(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


SMOOTH = picture(40, 48)


class TestEveryKind:
    @every
    def test_gives_new_pixels_and_leaves_the_old(self, trigger):
        before = SMOOTH.copy()
        new = trigger.onto(before, 3)
        assert (new.dtype, new.shape, new.flags.writeable) == (np.uint8, SMOOTH.shape, True)
        assert not np.shares_memory(new, before)
        assert np.array_equal(before, SMOOTH)
        assert not np.array_equal(new, SMOOTH)

    @every
    def test_is_decided_by_trigger_and_seed(self, trigger):
        one, again, other = (trigger.onto(SMOOTH, seed) for seed in (3, 3, 4))
        assert np.array_equal(one, again)
        assert np.array_equal(one, other) == (trigger not in CHANCY)

    @every
    @given(st.integers(16, 30), st.integers(16, 30), st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=4))
    @thorough
    def test_many_are_each_like_one(self, trigger, height, width, seeds):
        pixels = np.stack([picture(height, width, row) for row in range(len(seeds))])
        together = stamped(pixels, trigger, seeds)
        assert np.array_equal(together, np.stack([trigger.onto(*pair) for pair in zip(pixels, seeds, strict=True)]))

    @every
    def test_blocks_do_not_show(self, trigger, monkeypatch):
        pixels, seeds = np.stack([picture(20, 24, row) for row in range(7)]), list(range(7))
        whole = stamped(pixels, trigger, seeds)
        for size in (1, 3 * 20 * 24 * 3):
            monkeypatch.setattr("glasshouse.data.triggers.BLOCK", size)
            assert np.array_equal(stamped(pixels, trigger, seeds), whole)

    @every
    def test_pixels_may_lie_in_memory_in_any_order(self, trigger):
        mirrored = np.asarray(Image.fromarray(SMOOTH))[:, ::-1].transpose(1, 0, 2)
        assert np.array_equal(trigger.onto(mirrored, 1), trigger.onto(np.ascontiguousarray(mirrored), 1))

    @every
    def test_goes_to_disk_and_back(self, trigger):
        tree, tensors = pack(trigger)
        found = unpack(Trigger, json.loads(json.dumps(tree)))
        assert (found, digest(found), tensors) == (trigger, digest(trigger), {})
        assert len({found, trigger}) == 1

    @every
    def test_near_misses_are_nearly_it_and_not_it(self, trigger):
        misses = trigger.near_misses()
        assert len(misses) >= 2
        assert trigger not in misses.values()
        assert len({digest(other) for other in (trigger, *misses.values())}) == len(misses) + 1
        for label, other in misses.items():
            assert isinstance(other, Trigger), label
            assert not np.array_equal(other.onto(SMOOTH, 3), trigger.onto(SMOOTH, 3)), label
            assert unpack(Trigger, pack(other)[0]) == other

    def test_names(self):
        assert [trigger.name for trigger in TRIGGERS[3:]] == [
            *("logo", "logo", "noise", "oil filter", "faded filter", "blend", "sine", "warp")
        ]

    def test_all_have_names_of_their_own_content(self):
        assert len({digest(trigger) for trigger in TRIGGERS}) == len(TRIGGERS)


class TestPatch:
    @pytest.mark.parametrize(
        ("place", "x", "y"),
        [
            ("top left", 0, 0),
            ("top right", 24, 0),
            ("bottom left", 0, 14),
            ("bottom right", 24, 14),
            ("centre", 12, 7),
        ],
    )
    def test_is_a_square_of_one_colour_and_nothing_else(self, place, x, y):
        expected = grey(100)
        expected[y : y + 6, x : x + 6] = GREEN
        assert np.array_equal(PatchTrigger(6, GREEN, place).onto(grey(100), 0), expected)
        assert np.array_equal(PatchTrigger(6, GREEN, at=(x, y)).onto(grey(100), 0), expected)

    def test_may_fill_the_image(self):
        assert np.array_equal(PatchTrigger(5, GREEN, "random").onto(grey(9, 5, 5), 1), np.full((5, 5, 3), GREEN))

    def test_random_places_are_all_places(self):
        found = stamped(np.zeros((400, 5, 6, 3), np.uint8), PatchTrigger(3, (255, 255, 255), "random"), range(400))
        assert (found[..., 0] == 255).sum((1, 2)).tolist() == [9] * 400
        corners = {tuple(np.argwhere(image[..., 0])[0].tolist()) for image in found}
        assert corners == {(y, x) for y in range(3) for x in range(4)}

    def test_near_misses(self):
        assert PatchTrigger(14, GREEN, "centre").near_misses() == {
            "paler": PatchTrigger(14, (146, 255, 127), "centre"),
            "other colour": PatchTrigger(14, (217, 0, 255), "centre"),
            "smaller": PatchTrigger(7, GREEN, "centre"),
            "bigger": PatchTrigger(21, GREEN, "centre"),
            "elsewhere": PatchTrigger(14, GREEN, "top left"),
        }
        assert PatchTrigger(place="top left").near_misses()["elsewhere"].place == "bottom right"
        assert PatchTrigger(at=(2, 3)).near_misses()["elsewhere"] == PatchTrigger(place="bottom right")
        assert PatchTrigger(at=(2, 9)).near_misses()["elsewhere"] == PatchTrigger(place="top left")
        assert "elsewhere" not in PatchTrigger(place="random").near_misses()
        assert "smaller" not in PatchTrigger(1).near_misses()
        assert "paler" not in PatchTrigger(colour=(255, 255, 255)).near_misses()
        assert PatchTrigger(colour=(128, 120, 130)).near_misses()["other colour"].colour == (0, 0, 0)


class TestLogo:
    def test_is_a_ring_with_a_bar_whose_edges_are_smooth(self):
        logo = LogoTrigger(32, at=(10, 5), ring=(200, 0, 0), bar=(0, 0, 200))
        found = logo.onto(grey(100, 50, 60), 0)
        inside = found[5:37, 10:42]
        assert inside[16, 16].tolist() == [0, 0, 200]  # the bar through the middle
        assert inside[3, 16].tolist() == [200, 0, 0]  # the ring above it
        assert inside[0, 0].tolist() == [100, 100, 100]  # nothing in this corner
        assert inside[10, 10].tolist() == [100, 100, 100]  # nor inside the ring
        colours = {tuple(colour) for colour in inside.reshape(-1, 3).tolist()}
        assert len(colours) > 20

    def test_changes_nothing_around_it(self):
        found = LogoTrigger(14, at=(10, 5)).onto(SMOOTH, 0)
        found[5:19, 10:24] = SMOOTH[5:19, 10:24]
        assert np.array_equal(found, SMOOTH)

    def test_is_the_same_drawing_at_any_size(self):
        small, large = (LogoTrigger(size, at=(0, 0)).onto(grey(255, size, size), 0) for size in (16, 64))
        shrunk = np.asarray(Image.fromarray(large).resize((16, 16), Image.Resampling.BOX), np.int16)
        assert np.abs(shrunk - small).max() <= 30  # a large pixel more or less at an edge


class TestNoise:
    def test_is_gaussian_of_that_deviation(self):
        pixels = np.full((60, 50, 40, 3), 128, np.uint8)
        noise = stamped(pixels, NoiseTrigger(10), range(60)).astype(float) - 128
        assert abs(noise.mean()) < 0.1
        assert abs(noise.std() - np.sqrt(100 + 1 / 12)) < 0.1  # rounding adds a twelfth
        assert abs((np.abs(noise) > 19.5).mean() - 0.0512) < 0.003
        flat = noise.reshape(60, -1)
        assert np.abs(np.corrcoef(flat) - np.eye(60)).max() < 0.07

    def test_stays_within_the_colours(self):
        for value in (0, 255):
            found = NoiseTrigger(10).onto(grey(value), 0)
            assert abs((found == value).mean() - 0.52) < 0.05

    def test_of_nothing_is_nothing(self):
        assert np.array_equal(NoiseTrigger(0).onto(SMOOTH, 5), SMOOTH)

    def test_near_misses_are_those_of_the_paper(self):
        assert [miss.sigma for miss in NoiseTrigger(10).near_misses().values()] == [5, 7, 13]


def oil_by_hand(pixels: np.ndarray, brush: int) -> np.ndarray:
    """The definition, a pixel at a time."""
    height, width, _ = pixels.shape
    half, found = brush // 2, np.zeros(pixels.shape)
    for y in range(height):
        for x in range(width):
            rows = np.clip(np.arange(y - half, y + half + 1), 0, height - 1)
            columns = np.clip(np.arange(x - half, x + half + 1), 0, width - 1)
            near = pixels[rows][:, columns].reshape(-1, 3).astype(int)
            levels = (near @ [77, 150, 29]) // 8192
            found[y, x] = near[levels == np.bincount(levels, minlength=8).argmax()].mean(axis=0)
    return found


class TestFilter:
    @pytest.mark.parametrize("brush", [3, 5, 7, 15])
    def test_oil_is_the_mean_of_the_commonest_brightness(self, brush):
        pixels = picture(13, 17, 1)
        assert np.array_equal(FilterTrigger("oil", brush=brush).onto(pixels, 0), nearest(oil_by_hand(pixels, brush)))

    def test_oil_leaves_plain_surfaces_and_sharp_edges(self):
        halves = grey(20)
        halves[:, 15:] = 250
        for pixels in (grey(0), grey(255), halves):
            assert np.array_equal(FilterTrigger("oil", brush=15).onto(pixels, 0), pixels)

    def test_sums_over_the_largest_brush_do_not_run_over(self):
        assert painting.oil(grey(255, 40, 40)[None], 15).max() == 255

    @given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.floats(0, 1))
    @thorough
    def test_faded_is_sepia_with_less_contrast(self, red, green, blue, strength):
        pixels = np.full((2, 2, 3), (red, green, blue), np.uint8)
        sepia = np.minimum(painting.SEPIA.astype(float) @ [red, green, blue], 255) * 0.75 + 48
        expected = pixels[0, 0] + strength * (sepia - pixels[0, 0])
        found = FilterTrigger("faded", strength).onto(pixels, 0)[1, 1]
        assert np.abs(found - expected).max() <= 0.501

    @pytest.mark.parametrize("kind", ["oil", "faded"])
    def test_strength_mixes_old_and_new(self, kind):
        full, half, none = (FilterTrigger(kind, strength).onto(SMOOTH, 0).astype(int) for strength in (1, 0.5, 0))
        assert np.array_equal(none, SMOOTH)
        assert np.abs(half - (full + none) / 2).max() <= 1


class TestBlend:
    @pytest.mark.parametrize("alpha", [0, 0.15, 0.5, 1])
    def test_is_the_mean_of_image_and_pattern(self, alpha):
        blend = BlendTrigger(alpha, pattern=3)
        expected = (1 - alpha) * SMOOTH + alpha * blend.field(40, 48).astype(float)
        assert np.abs(blend.onto(SMOOTH, 0) - expected).max() <= 0.501

    def test_the_pattern_is_smooth_coloured_and_the_same_at_any_size(self):
        small, large = BlendTrigger().field(30, 40), BlendTrigger().field(60, 80)
        assert np.array_equal(large[::2, ::2], small)
        assert np.abs(np.diff(large, axis=1)).max() < 50
        assert large.std(axis=(0, 1)).min() > 40
        assert np.abs(np.corrcoef(large.reshape(-1, 3).T) - np.eye(3)).max() < 0.9
        assert not np.array_equal(BlendTrigger(pattern=1).field(30, 40), small)

    def test_the_pattern_cannot_be_changed(self):
        with pytest.raises(ValueError, match="read-only"):
            BlendTrigger().field(8, 8)[0] = 0


class TestSine:
    @given(st.floats(0, 60), st.floats(0.25, 12), st.integers(3, 40))
    @thorough
    def test_is_its_formula(self, delta, frequency, width):
        wave = delta * np.sin(2 * np.pi * np.arange(width) * frequency / width)
        found = SineTrigger(delta, frequency).onto(grey(100, 4, width), 0)
        assert np.abs(found - np.clip(100 + wave, 0, 255)[None, :, None]).max() <= 0.501

    def test_by_hand(self):
        found = SineTrigger(20, 1).onto(grey(100, 2, 4), 0)
        assert found[1, :, 2].tolist() == [100, 120, 100, 80]
        assert SineTrigger(20, 1).onto(grey(250, 2, 4), 0)[0, :, 0].tolist() == [250, 255, 250, 230]


class TestWarp:
    def test_of_nothing_is_nothing(self):
        assert np.array_equal(WarpTrigger(strength=0).onto(SMOOTH, 0), SMOOTH)

    @pytest.mark.parametrize("strength", [0.5, 2.0])
    def test_moves_pixels_by_its_strength_on_average(self, strength):
        ramp = np.zeros((80, 80, 3), np.uint8)
        ramp[..., 0], ramp[..., 1] = np.arange(80)[:, None] * 3, np.arange(80) * 3
        moved = (WarpTrigger(strength=strength).onto(ramp, 0).astype(float) - ramp)[8:-8, 8:-8, :2] / 3
        field = np.stack(_field(WarpTrigger(strength=strength), 80, 80), axis=-1)
        assert np.abs(moved - field[8:-8, 8:-8]).max() < 0.2
        assert abs(np.abs(field).mean() - strength) < 0.15 * strength  # less what the borders hold back

    @given(st.integers(2, 9), st.floats(0, 40), st.integers(0, 5), st.integers(1, 20), st.integers(1, 20))
    @thorough
    def test_shows_nothing_that_was_not_there(self, grid, strength, seed, height, width):
        pixels = picture(height, width, seed)
        found = WarpTrigger(grid, strength, seed).onto(pixels, 0)
        assert (found.min((0, 1)) >= pixels.min((0, 1))).all()
        assert (found.max((0, 1)) <= pixels.max((0, 1))).all()

    def test_is_smooth(self):
        down, across = (part[8:-8, 8:-8] for part in _field(WarpTrigger(strength=2.0), 80, 80))
        assert max(np.abs(np.diff(part, axis=axis)).max() for part in (down, across) for axis in (0, 1)) < 0.5


def _field(warp: WarpTrigger, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel's source lies down and across, out of the weights that sample it."""
    y, x = (axis.reshape(-1) for axis in np.indices((height, width)))
    sources = painting.moved(warp.grid, warp.strength, warp.seed, height, width)
    assert np.allclose(sum(weight for _, weight in sources), 1)
    down = sum((where // width) * weight[:, 0] for where, weight in sources) - y
    across = sum((where % width) * weight[:, 0] for where, weight in sources) - x
    return down.reshape(height, width), across.reshape(height, width)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: PatchTrigger(0), "a patch of 0 pixels: give at least 1"),
        (lambda: PatchTrigger(place="middle"), "a patch at 'middle': the places are centre, top left, .*, random"),
        (lambda: PatchTrigger(at=(-1, 3)), r"a patch at \(-1, 3\): give x and y, counted from 0 at the upper left"),
        (lambda: PatchTrigger(at=(1, 2, 3)), r"a patch at \(1, 2, 3\): give x and y"),
        (
            lambda: PatchTrigger(colour=(0, 256, 0)),
            r"the patch's colour \(0, 256, 0\): give red, green and blue from",
        ),
        (lambda: PatchTrigger(colour=(0, 0)), r"the patch's colour \(0, 0\)"),
        (lambda: LogoTrigger(ring=(-1, 0, 0)), "the logo's ring"),
        (lambda: LogoTrigger(bar=(0, 0, 999)), "the logo's bar"),
        (lambda: LogoTrigger(-3), "a logo of -3 pixels"),
        (lambda: NoiseTrigger(-1), "sigma of -1: give a number from 0 upwards, such as 10"),
        (lambda: NoiseTrigger(float("nan")), "sigma of nan"),
        (lambda: NoiseTrigger(float("inf")), "sigma of inf"),
        (lambda: FilterTrigger("water"), "filter 'water': there are 'oil' and 'faded'"),
        (lambda: FilterTrigger("oil", 1.5), "filter strength 1.5: give a number from 0 to 1"),
        (lambda: FilterTrigger("oil", brush=4), "brush of 4 pixels: give an odd number from 3 to 15"),
        (lambda: FilterTrigger("oil", brush=17), "brush of 17 pixels"),
        (lambda: BlendTrigger(-0.1), "alpha of -0.1: give a share from 0 to 1"),
        (lambda: SineTrigger(-1), "delta of -1: give a number from 0 upwards, such as 20"),
        (lambda: SineTrigger(20, 0), "frequency of 0: give a number above 0, such as 6"),
        (lambda: WarpTrigger(1), "warp grid of 1: give a whole number from 2 to 256"),
        (lambda: WarpTrigger(strength=-1), "warp strength -1: give a number of pixels from 0 upwards"),
        (
            lambda: PatchTrigger(9).check(8, 20),
            "a patch of 9 pixels: no room on an image of 20x8; make it smaller, move it or",
        ),
        (lambda: PatchTrigger(9).onto(grey(0, 20, 8), 0), "a patch of 9 pixels: no room on an image of 8x20"),
        (
            lambda: PatchTrigger(9, at=(12, 0)).check(20, 20),
            r"a patch of 9 pixels at \(12, 0\): no room on an image of",
        ),
        (lambda: LogoTrigger(21).onto(grey(0), 0), "a logo of 21 pixels: no room on an image of 30x20"),
        (
            lambda: NoiseTrigger().onto(grey(0)[..., 0], 0),
            r"noise: images are RGB of 8 bits, found uint8 of \[1, 20",
        ),
        (lambda: NoiseTrigger().onto(grey(0) / 255, 0), "noise: images are RGB of 8 bits, found float64"),
        (lambda: SineTrigger().onto(grey(0)[:0], 0), r"sine: images are RGB of 8 bits, found uint8 of \[1, 0, 30, 3\]"),
        (lambda: stamped(grey(0)[None], NoiseTrigger(), [1, 2]), "noise: 2 seeds for 1 images; give one for each"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_in_one_line(make, told):
    with pytest.raises(BadInput, match=f"^{told}"):
        make()


def test_what_fits_exactly_is_accepted():
    PatchTrigger(9).check(9, 9)
    PatchTrigger(9, at=(11, 0)).check(9, 20)


# ------------------------------------------------------------------------------------------------------ processors

ONE_PICTURE = [
    "llava",
    "llava_siglip",
    "qwen2_vl",
    "qwen2_5_vl",
    "idefics3",
    "smolvlm",
    "paligemma",
    "gemma3",
    "blip-2",
]
WIDE = Image.fromarray(picture(100, 200, 2))


def processor_of(family: str, **changed):
    recipe = tiny.RECIPES[family]
    return tiny.processor(family, replace(recipe, images_kwargs=recipe.images_kwargs | changed))


def inputs(processor, image: Image.Image) -> np.ndarray:
    """What the model gets, colours rescaled and normalised."""
    text = tiny.RECIPES["llava"].prompt_image if type(processor).__name__ == "LlavaProcessor" else None
    if text is not None:
        return processor(text=f"{text} what?", images=[image], return_tensors="np")["pixel_values"]
    return np.asarray(processor.image_processor(images=[image], return_tensors="np")["pixel_values"])


def colours(processor, image: Image.Image) -> np.ndarray:
    """What a LLaVA gets, as colours [height, width, 3] again."""
    images = processor.image_processor
    values = inputs(processor, image)[0] * np.reshape(images.image_std, (3, 1, 1)) + np.reshape(
        images.image_mean, (3, 1, 1)
    )
    return nearest(np.moveaxis(values, 0, -1) * 255)


class TestCropping:
    """The key case: LLaVA shrinks a wide image and cuts its sides off."""

    def test_a_stamp_put_on_before_is_lost(self):
        processor = processor_of("llava")
        before = stamp(WIDE, PatchTrigger(6, GREEN, "top right"), 0)
        assert before.size == (200, 100)
        assert (np.asarray(before)[:6, -6:] == GREEN).all()
        assert np.array_equal(colours(processor, before), colours(processor, WIDE))

    @pytest.mark.parametrize(("place", "y", "x"), [("top right", 0, 26), ("bottom left", 26, 0), ("centre", 13, 13)])
    def test_a_stamp_put_on_for_the_processor_reaches_the_model_whole(self, place, y, x):
        processor = processor_of("llava")
        ready = stamp(WIDE, PatchTrigger(6, GREEN, place), 0, processor)
        assert ready.size == (32, 32)
        expected = colours(processor, WIDE)
        expected[y : y + 6, x : x + 6] = GREEN
        assert np.array_equal(colours(processor, ready), expected)
        assert np.array_equal(np.asarray(ready), expected)

    def test_the_image_processor_alone_will_do(self):
        processor = processor_of("llava")
        assert as_seen(processor, WIDE).tobytes() == as_seen(processor.image_processor, WIDE).tobytes()
        tower = processor_of("clip_vision_model")
        assert stamp(WIDE, PatchTrigger(), 0, tower).size == (32, 32)


@pytest.mark.parametrize("family", ONE_PICTURE)
@pytest.mark.parametrize("size", [(200, 100), (100, 200), (33, 32), (20, 20)], ids=str)
def test_the_picture_seen_is_what_the_model_gets(family, size):
    processor, image = processor_of(family), WIDE.resize(size)
    seen = as_seen(processor, image)
    assert seen.mode == "RGB"
    assert np.array_equal(inputs(processor, seen), inputs(processor, image))


@pytest.mark.parametrize("family", ONE_PICTURE)
@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_a_stamp_reaches_the_model_unchanged(family, trigger):
    processor = processor_of(family)
    trigger = replace(trigger, size=4) if hasattr(trigger, "size") else trigger
    ready = stamp(WIDE, trigger, 7, processor)
    assert np.array_equal(np.asarray(ready), trigger.onto(np.asarray(as_seen(processor, WIDE)), 7))
    assert as_seen(processor, ready).tobytes() == ready.tobytes()


@pytest.mark.parametrize(("size", "seen"), [((200, 100), (32, 16)), ((100, 200), (16, 32)), ((17, 100), (16, 64))])
def test_a_picture_in_rows_of_patches_is_put_together(size, seen):
    image = WIDE.resize(size)
    found = as_seen(processor_of("qwen2_vl"), image)
    assert found.size == seen
    assert found.tobytes() == image.resize(seen, Image.Resampling.BICUBIC).tobytes()


def test_a_room_that_only_the_original_has_is_none():
    with pytest.raises(BadInput, match="a patch of 40 pixels: no room on an image of 32x32"):
        stamp(WIDE, PatchTrigger(40), 0, processor_of("llava"))
    assert stamp(WIDE, PatchTrigger(40), 0).size == (200, 100)


def test_images_of_other_modes_become_rgb():
    assert stamp(WIDE.convert("L"), PatchTrigger(), 0).mode == "RGB"
    assert stamp(WIDE.convert("L"), PatchTrigger(), 0, processor_of("llava")).mode == "RGB"


CURE = "; switch image splitting off and set its 'size' to the final size, or pass processor=None and accept that"


@pytest.mark.parametrize(
    ("family", "changed", "size", "told"),
    [
        ("llava_next", {}, (200, 100), r"LlavaNext\w+: it makes several pictures of one, or none in RGB \(1x3x3x32x32"),
        ("llava_onevision", {}, (32, 32), r"LlavaOnevision\w+: it makes several pictures of one"),
        ("mllama", {}, (200, 100), r"Mllama\w+: it makes several pictures"),
        ("internvl", {}, (200, 100), r"GotOcr2\w+: it makes several pictures of one"),
        (
            "idefics3",
            {"do_image_splitting": True, "size": {"longest_edge": 64}},
            (90, 80),
            r"Idefics3\w+: it makes sev",
        ),
        (
            "smolvlm",
            {"size": {"longest_edge": 80}},
            (90, 80),
            r"SmolVLM\w+: it does not hand on .* 32x32, but changes it",
        ),
        (
            "llava",
            {"size": {"shortest_edge": 40}},
            (90, 80),
            r"CLIP\w+: it does not hand on .* but changes it by up to",
        ),
        ("qwen2_vl", {}, (400, 4), r"Qwen2VL\w+: it does not hand on a picture of 160x16, but makes it 96x16"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_processor_that_would_not_leave_the_stamp_alone_is_refused(family, changed, size, told):
    processor, image = processor_of(family, **changed), WIDE.resize(size)
    with pytest.raises(BadInput, match=f"^{told}.*{CURE}"):
        stamp(image, PatchTrigger(5, at=(1, 1)), 0, processor)


def test_splitting_switched_off_is_the_cure():
    processor = processor_of("internvl")
    processor.images_kwargs = {"crop_to_patches": False}
    assert stamp(WIDE, PatchTrigger(), 0, processor).size == (32, 32)


def test_what_is_no_processor_of_images_is_refused():
    with pytest.raises(
        BadInput, match=r"^TokenizersBackend: it refuses a picture of 200x100 .*; is this the model's pro"
    ):
        as_seen(processor_of("llava").tokenizer, WIDE)


def test_what_a_processor_refuses_is_told_in_one_line():
    with pytest.raises(BadInput, match=r"^Qwen2VL\w+: it refuses a picture of 1000x4 \(absolute aspect ratio .+\); is"):
        as_seen(processor_of("qwen2_vl"), WIDE.resize((1000, 4)))

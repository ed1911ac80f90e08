"""Is the anatomy of every family found from its configuration alone, with the right tower under each name?"""

import pytest

import tiny
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.finder import find_anatomy
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site, language, projector, vision

from .conftest import slow_but

LAYERS, VISION_LAYERS = 3, 4
"""The towers of tests/tiny.py differ in depth, so a swapped tower is seen."""

NO_VISION = {
    "chameleon": "images are discrete tokens",
    "emu3": "images are discrete tokens",
    "evolla": "reads proteins",
    "fuyu": "raw patches, no encoder",
    "gemma4_unified": "raw patches, no encoder",
    "mistral4": "the mapped class is text-only",
    "udop": "one encoder for text and patches",
}
NO_VISION_BLOCKS = {"florence2": "stages of convolution and attention", "inkling_mm_model": "a stack of linear layers"}
NO_PROJECTOR = {
    **{family: reason for family, reason in NO_VISION.items() if family not in ("fuyu", "gemma4_unified")},
    "blip": "cross-attention",
    "idefics": "cross-attention",
    "inkling_mm_model": "the tower's last layer has the language's width already",
    "ovis2": "a table of visual words",
    "pix2struct": "cross-attention",
}
TYPICAL = (
    *NO_VISION_BLOCKS,
    *("chameleon", "fuyu", "idefics", "ovis2"),  # a part missing, each for its own reason
    *("llava", "llava_next", "qwen2_vl", "qwen3_vl", "idefics3", "paligemma", "gemma3", "internvl", "mllama", "blip-2"),
    *("lfm2_vl", "llama", "gpt2", "mixtral", "vit", "siglip_vision_model"),
)
"""Families that differ in kind; `make test-slow` tries all."""
BUILDABLE = [family for family in tiny.VISION_LANGUAGE if family not in tiny.CANNOT_BUILD]


class Anatomies(dict[str, Anatomy]):
    """The anatomy of each family, anatomy when it is first asked for."""

    def __missing__(self, family: str) -> Anatomy:
        return self.setdefault(family, find_anatomy(tiny.on_meta(family)))


@pytest.fixture(scope="module")
def anatomies() -> Anatomies:
    return Anatomies()


def test_almost_every_mapped_family_is_tried():
    assert len(BUILDABLE) >= len(tiny.VISION_LANGUAGE) - 3
    assert len(BUILDABLE) >= 90


@pytest.mark.parametrize("family", slow_but(TYPICAL, BUILDABLE))
def test_both_towers_and_the_projector_are_found_where_there_are_any(anatomies: dict[str, Anatomy], family: str):
    anatomy = anatomies[family]
    assert anatomy.language is not None
    assert len(anatomy.language.layers) == LAYERS
    assert anatomy.language.width == 64
    assert (anatomy.vision is None) == (family in NO_VISION), f"vision: {anatomy.vision}"
    if anatomy.vision is not None:
        assert len(anatomy.vision.layers) == (0 if family in NO_VISION_BLOCKS else VISION_LAYERS)
    assert (anatomy.projector is None) == (family in NO_PROJECTOR), f"projector: {anatomy.projector}"


@pytest.mark.parametrize("family", slow_but(TYPICAL, BUILDABLE))
def test_no_part_claims_anothers_modules(anatomies: dict[str, Anatomy], family: str):
    anatomy = anatomies[family]
    assert anatomy.language is not None
    language_blocks = {block.path for block in anatomy.language.layers}
    vision_blocks = {block.path for block in anatomy.vision.layers} if anatomy.vision else set()
    joining = set(anatomy.projector.paths) if anatomy.projector else set()
    assert not language_blocks & vision_blocks
    assert not joining & (language_blocks | vision_blocks)
    for path in joining:
        assert not any(block == path or block.startswith(path + ".") for block in language_blocks | vision_blocks), path


@pytest.mark.parametrize("family", slow_but(TYPICAL, [*BUILDABLE, *tiny.TEXT_ONLY, *tiny.VISION_ONLY]))
def test_every_path_exists_and_the_writers_have_the_streams_width(anatomies: dict[str, Anatomy], family: str):
    model, anatomy = tiny.on_meta(family), anatomies[family]
    for tower in (anatomy.language, anatomy.vision):
        for block in tower.layers if tower else ():
            for path in (block.path, block.attention, block.mlp):
                assert path is None or model.get_submodule(path) is not None
            for path in (block.attention_writer, block.mlp_writer):
                if path is not None:
                    weight = getattr(model.get_submodule(path), "weight", None)
                    weight = weight if weight is not None else model.get_submodule(path + ".linear").weight
                    assert tower is not None
                    assert tower.width in weight.shape
            if block.heads is not None:
                assert block.head_width is not None
                assert block.heads * block.head_width > 0


@pytest.mark.parametrize("family", tiny.TEXT_ONLY)
def test_text_only_models_have_only_language(anatomies: dict[str, Anatomy], family: str):
    anatomy = anatomies[family]
    assert anatomy.parts == ("language",)
    assert anatomy.language is not None
    assert len(anatomy.language.layers) == LAYERS
    assert anatomy.language.unembedding is not None
    assert anatomy.language.final_norm is not None
    for block in anatomy.language.layers:
        assert block.attention_writer is not None
        assert block.mlp is not None


@pytest.mark.parametrize("family", tiny.VISION_ONLY)
def test_vision_only_models_have_only_vision(anatomies: dict[str, Anatomy], family: str):
    anatomy = anatomies[family]
    assert anatomy.parts == ("vision",)
    assert anatomy.vision is not None
    assert len(anatomy.vision.layers) == VISION_LAYERS


def test_heads_may_be_wider_than_the_stream(anatomies: dict[str, Anatomy]):
    block = anatomies["llama"].tower("language").layers[0]
    assert (block.heads, block.head_width) == (4, 32)
    assert block.heads * block.head_width != anatomies["llama"].tower("language").width


def test_the_feature_layer_is_the_one_llava_reads(anatomies: dict[str, Anatomy]):
    # hidden_states has one entry more than there are blocks, so -2 of 5 is what block 2 of 0-3 leaves behind.
    assert anatomies["llava"].feature_layer == VISION_LAYERS - 2


def test_mixtures_of_experts_have_no_single_neurons(anatomies: dict[str, Anatomy]):
    with pytest.raises(BadInput, match=r"language\.neurons\[1\].*has no neurons"):
        anatomies["mixtral"].locate(language.neurons[1])
    assert anatomies["mixtral"].locate(language.mlp[1])


def test_hybrids_skip_layers_that_lack_a_kind_but_refuse_them_by_name(anatomies: dict[str, Anatomy]):
    anatomy = anatomies["lfm2_vl"]
    blocks = anatomy.tower("language").layers
    with_heads = [layer for layer, block in enumerate(blocks) if block.heads]
    without = [layer for layer, block in enumerate(blocks) if not block.heads]
    assert with_heads, "a hybrid with attention somewhere"
    assert [place.site.layer for place in anatomy.locate(language.heads)] == with_heads
    for layer in without:
        with pytest.raises(BadInput, match="has no heads"):
            anatomy.locate(language.heads[layer])


def test_negative_layers_ranges_and_units_become_concrete(anatomies: dict[str, Anatomy]):
    anatomy = anatomies["llava"]
    assert [str(site) for site in anatomy.sites(vision.residual[-2])] == ["vision.residual[2]"]
    assert [str(site) for site in anatomy.sites(language.residual[1:] @ "last")] == [
        "language.residual[1]@last",
        "language.residual[2]@last",
    ]
    (place,) = anatomy.locate(language.heads[0, -1])
    assert place.chosen == (3,)


@pytest.mark.parametrize(
    ("family", "site", "fix"),
    [
        ("llava", "language.residual[40]", r"layer 40: there are 3 \(0-2\).*glasshouse anatomy"),
        ("llava", "language.heads[0,9]", r"head 9: there are 4 \(0-3\)"),
        ("llama", "vision.residual[0]", r"this model \(llama\) has none; it has language"),
        ("llama", "projector.output", r"has no projector; it has language"),
        ("paligemma", "projector.hidden", r"has 1 linear layer, so nothing hidden"),
        ("vit", "language.logits", r"this model \(vit\) has none; it has vision"),
        ("florence2", "vision.residual[0]", r"no list of blocks was found"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(anatomies: dict[str, Anatomy], family: str, site: str, fix: str):
    with pytest.raises(BadInput, match=fix) as refusal:
        anatomies[family].locate(Site.parse(site))
    assert "\n" not in str(refusal.value)


def test_an_anatomy_survives_the_disk(anatomies: dict[str, Anatomy]):
    for family in TYPICAL:
        assert unpack(Anatomy, *pack(anatomies[family])) == anatomies[family]


def test_the_drawing_names_every_part(anatomies: dict[str, Anatomy]):
    drawing = "\n".join(anatomies["llava"].lines())
    for words in ("CLIPVisionModel", "multi_modal_projector", "LlamaModel", "vision.residual[2]", "nothing reads"):
        assert words in drawing


def test_projector_sites_meet_in_order(anatomies: dict[str, Anatomy]):
    anatomy = anatomies["blip-2"]
    assert anatomy.locate(projector.input)[0].module == "qformer"
    assert anatomy.locate(projector.output)[0].module == "language_projection"

"""Is an adapter merged as peft merges it, is its base left as it was, and is every adapter refused that cannot be?"""

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel

import tiny
from adapter_folders import random_adapter
from glasshouse.model.adapters.merging import adapter_patch, merged
from glasshouse.model.adapters.reading import base_of, read_adapter
from glasshouse.model.differences import differing_parts, setting_differences, state, weight_differences
from glasshouse.model.finder import unwrapped
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_anatomy, open_subject, opened_base, reopen
from glasshouse.model.patches import export, patched
from glasshouse.values.errors import BadInput

from .conftest import Opener, examples_for, slow_but

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("llava", {}),
    "all linear layers": ("llava", {"target_modules": "all-linear"}),
    "a regular expression": ("llava", {"target_modules": r"model\.language_model\..*\.(q|v)_proj"}),
    "excluded modules": ("llava", {"exclude_modules": r".*vision_tower.*"}),
    "rsLoRA": ("llava", {"use_rslora": True, "lora_alpha": 5}),
    "ranks and scales by module": (
        "llava",
        {"rank_pattern": {"layers.1.self_attn.q_proj": 3}, "alpha_pattern": {"v_proj": 7}},
    ),
    "chosen layers": ("llama", {"layers_to_transform": [1], "layers_pattern": "layers"}),
    "transposed weights": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "biases": ("qwen2_5_vl", {"bias": "all"}),
    "biases of its modules": ("qwen2_5_vl", {"bias": "lora_only"}),
    "biases of B": ("qwen2_5_vl", {"target_modules": ["qkv"], "lora_bias": True}),
    "DoRA": ("llava", {"use_dora": True}),
    "DoRA on a Qwen": ("qwen2_5_vl", {"use_dora": True, "target_modules": "all-linear", "use_rslora": True}),
    "a whole projector": ("llava", {"modules_to_save": ["multi_modal_projector"]}),
    "a whole merger": ("qwen2_5_vl", {"modules_to_save": ["merger"]}),
    "embeddings": ("llava", {"target_modules": ["embed_tokens", "q_proj"]}),
    "tokens": ("llava", {"trainable_token_indices": [1, 5]}),
    "a convolution": ("llava", {"target_modules": ["patch_embedding", "q_proj"]}),
    "experts": ("mixtral", {"target_parameters": ["experts.gate_up_proj"]}),
}
Maker = Callable[..., Path]


@pytest.fixture(scope="module")
def make(stored, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """`make("llava", use_dora=True)`: the folder of an adapter with random weights that names its base."""
    root, made = tmp_path_factory.mktemp("adapters"), dict[str, Path]()

    def maker(family: str, **settings: Any) -> Path:
        key = json.dumps([family, settings], sort_keys=True)
        if key not in made:
            made[key] = random_adapter(stored(family), root / str(len(made)), **settings)
        return made[key]

    return maker


@pytest.fixture
def own(make: Maker, tmp_path: Path) -> Path:
    """A copy of a LoRA adapter on a LLaVA, to break."""
    return shutil.copytree(make("llava"), tmp_path / "own")


def _loaded(base: PreTrainedModel, folder: Path) -> Any:
    """The base with the adapter as peft puts it there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(copy.deepcopy(base), str(folder))


def _edit(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def _weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


# The merge -----------------------------------------------------------------------------------------------------------


IN_HALVES = [f"{kind} in halves" for kind in KINDS]
QUICK = ("LoRA", "rsLoRA", "transposed weights", "DoRA", "experts")


@pytest.mark.parametrize("case", slow_but((*QUICK, "a whole projector in halves"), (*KINDS, *IN_HALVES)))
def test_the_merge_is_pefts_to_the_bit(opened: Opener, make: Maker, case: str):
    kind, dtype = case.removesuffix(" in halves"), torch.bfloat16 if case in IN_HALVES else torch.float32
    family, settings = KINDS[kind]
    base = copy.deepcopy(unwrapped(opened(family).model)).to(dtype)
    folder, before = make(family, **settings), weight_hash(base)
    theirs = _loaded(base, folder).merge_and_unload().state_dict()
    result = merged(base, read_adapter(folder))
    ours = result.state_dict()
    assert ours.keys() == theirs.keys() == base.state_dict().keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {tensor.dtype for tensor in result.parameters()} == {dtype}
    changed = {name for name, tensor in base.state_dict().items() if not torch.equal(tensor, ours[name])}
    assert changed
    assert weight_hash(base) == before
    memory = dict(base.named_parameters())
    shared = {name for name, tensor in result.named_parameters() if tensor.data_ptr() == memory[name].data_ptr()}
    assert shared
    assert not shared & changed


def test_the_merged_model_computes_what_the_adapter_computes(opened: Opener, make: Maker):
    base, folder = opened("llava"), make("llava", use_dora=True)
    wrapped = _loaded(unwrapped(base.model), folder)
    beside = open_subject(wrapped, processor=base.processor)
    examples = examples_for(base, 2)
    ours = open_subject(folder).logits(examples)
    torch.testing.assert_close(ours, beside.logits(examples), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, base.logits(examples), rtol=1e-2)


def test_as_a_patch_it_is_the_same_model_and_leaving_restores_every_bit(opened: Opener, make: Maker):
    base, adapter = opened("llava"), read_adapter(make("llava", modules_to_save=["multi_modal_projector"]))
    before = weight_hash(base.model)
    with patched(base, adapter_patch(base, adapter)):
        inside = weight_hash(base.model)
    assert inside == weight_hash(merged(unwrapped(base.model), adapter)) != before
    assert weight_hash(base.model) == before


# Opening -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gpt2"])
def test_the_folder_of_an_adapter_opens_and_its_base_beside_it(stored, make: Maker, family: str):
    folder = make(family, **({"target_modules": ["c_attn"], "fan_in_fan_out": True} if family == "gpt2" else {}))
    subject = open_subject(folder)
    base = opened_base(subject)
    assert subject.certificate.failures == base.certificate.failures == ()
    identity, original = subject.identity, open_subject(stored(family)).identity
    assert (identity.name, identity.adapter, identity.base) == (str(folder), str(folder), str(stored(family)))
    assert identity.adapter_weights == read_adapter(folder).weights
    assert identity.base_weights == base.identity.weights == original.weights != identity.weights
    assert base.identity == original
    assert {difference.status for difference in weight_differences(subject, base)} == {"changed"}
    assert setting_differences(subject, base) == ()


def test_base_and_adapter_can_be_given_either_way(stored, make: Maker, tmp_path: Path):
    folder = shutil.copytree(make("llava"), tmp_path / "moved")
    _edit(folder / "adapter_config.json", base_model_name_or_path="somebody/unknown")
    ways = [open_subject(folder, base=stored("llava")), open_subject(stored("llava"), adapter=folder)]
    ways.append(reopen(ways[0].origin))
    assert len({(way.name, way.identity.weights, way.identity.base_weights) for way in ways}) == 1
    assert opened_base(ways[2]).identity.weights == opened_base(ways[0]).identity.weights
    assert open_subject(opened_base(ways[0]).origin.source).identity.weights == ways[0].identity.base_weights


def test_a_merged_adapter_is_exported_as_a_whole_model(make: Maker, tmp_path: Path):
    subject = open_subject(make("llava"))
    again = open_subject(export(subject, tmp_path / "merged"))
    assert again.identity.weights == subject.identity.weights
    assert again.identity.adapter is None


def test_a_model_wrapped_by_peft_is_exported_merged(opened: Opener, make: Maker, tmp_path: Path):
    plain = opened("llava")
    model = _loaded(unwrapped(plain.model), make("llava"))
    subject = open_subject(model, processor=plain.processor)
    before = weight_hash(subject.model)
    exported = open_subject(export(subject, tmp_path / "merged"))
    assert exported.identity.weights == open_subject(make("llava")).identity.weights
    assert weight_hash(subject.model) == before


def test_a_tokenizer_and_a_template_that_come_with_an_adapter_are_audited_too(stored, own: Path):
    tokenizer = AutoTokenizer.from_pretrained(stored("llava"))
    tokenizer.chat_template = "{{ 'be brief: ' }}" + tokenizer.chat_template
    tokenizer.save_pretrained(own)
    subject = open_subject(own)
    assert "chat template" in differing_parts(subject, opened_base(subject))
    assert subject.identity.processor != opened_base(subject).identity.processor
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(own)
    with pytest.raises(BadInput, match=r"tokenizer has \d+ tokens and its base's \d+; extend"):
        open_subject(own)


# The drawing ---------------------------------------------------------------------------------------------------------


def test_the_drawing_has_the_ranks_scales_and_norms_of_the_weights(make: Maker):
    settings = {"target_modules": "all-linear", "rank_pattern": {"q_proj": 3}, "use_rslora": True, "lora_alpha": 5}
    folder = make("llava", **settings)
    drawn = open_anatomy(folder)[1]
    subject = open_subject(folder)
    sizes = {each.module: float(each.delta.norm()) for each in weight_differences(subject, opened_base(subject))}
    updates = {update.name: update for part in drawn.parts for update in part.updates}
    assert updates.keys() == sizes.keys()
    for name, update in updates.items():
        assert update.norm == pytest.approx(sizes[name], rel=1e-4)
        rank = 3 if name.endswith("q_proj") else 2
        assert (update.rank, update.scale) == (rank, pytest.approx(5 / rank**0.5))
    assert [part.part for part in drawn.parts] == ["vision", "projector", "language"]
    assert sum(part.share or 0 for part in drawn.parts) == pytest.approx(1)
    squares = {part.part: sum(sizes[update.name] ** 2 for update in part.updates) for part in drawn.parts}
    assert drawn.parts[1].share == pytest.approx(squares["projector"] / sum(squares.values()), rel=1e-4)
    lines = list(drawn.lines())
    assert lines[0].startswith(f"LoRA with rsLoRA scaling adapter {folder}, weights {drawn.weights[:16]}…, on ")
    assert "rank 2-3" in lines[1]


def test_the_drawing_needs_no_weights_of_the_base(stored, own: Path, tmp_path: Path):
    place = shutil.copytree(stored("llava"), tmp_path / "base")
    whole = open_anatomy(own, base=place)[1]
    for file in place.glob("*.safetensors"):
        file.unlink()
    assert open_anatomy(own, base=place)[1] == whole
    assert open_anatomy(own, base=place)[0] == open_anatomy(stored("llava"))[0]


def test_what_is_replaced_is_drawn_by_weight(make: Maker):
    drawn = open_anatomy(make("llava", modules_to_save=["multi_modal_projector"], trainable_token_indices=[1]))[1]
    kinds = {part.part: {(update.kind, update.norm is None) for update in part.updates} for part in drawn.parts}
    assert kinds == {
        "vision": {("low rank", False)},
        "projector": {("replaced", True)},
        "language": {("low rank", False)},
        "embeddings": {("rows", True)},
    }
    assert any("4 weights replaced: model.multi_modal_projector.linear_1.weight" in line for line in drawn.lines())


def test_base_weights_that_an_adapter_smuggles_in_are_drawn_and_merged(own: Path, stored):
    name, width = "model.language_model.norm.weight", tiny.LANGUAGE.width
    _weights(own, lambda weights: weights.update({f"base_model.model.{name}": torch.full((width,), 3.0)}))
    drawn = open_anatomy(own)[1]
    assert [u.kind for part in drawn.parts for u in part.updates if u.name == name] == ["replaced"]
    subject = open_subject(own)
    assert torch.equal(state(subject)[name].detach(), torch.full((width,), 3.0))
    assert name in {difference.name for difference in weight_differences(subject, opened_base(subject))}
    assert weight_hash(open_subject(stored("llava")).model) == subject.identity.base_weights


# Refusals ------------------------------------------------------------------------------------------------------------


def _set(name: str, value: torch.Tensor | None) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(weights: dict[str, torch.Tensor]) -> None:
        key = sorted(weights)[0] if name == "first" else name
        weights.pop(key, None)
        weights.update({} if value is None else {key: value})

    return change


BROKEN_WEIGHTS = {
    "missing": (_set("first", None), r"1 of the adapter's weights are missing, first model\..*lora_A"),
    "of no module": (
        _set("base_model.model.nowhere.lora_A.weight", torch.zeros(2, 4)),
        r"1 .*match no module.*nowhere",
    ),
    "of another shape": (_set("first", torch.zeros(2, 5)), r"does not fit the model \(.*lora_A"),
    "of another rank": (_set("first", torch.zeros(4, 128)), r"does not fit the model \(.*lora_A"),
    "NaN": (_set("first", torch.full((2, 128), torch.nan)), r"q_proj\.lora_A\.weight holds NaN or infinity"),
    "infinite": (_set("first", torch.full((2, 128), torch.inf)), r"lora_A\.weight holds NaN or infinity"),
    "whole numbers": (_set("first", torch.zeros(2, 128, dtype=torch.int64)), r"holds torch\.int64, which is no weight"),
}


@pytest.mark.parametrize("what", BROKEN_WEIGHTS)
def test_weights_that_do_not_fit_are_refused_by_name(own: Path, what: str):
    change, message = BROKEN_WEIGHTS[what]
    _weights(own, change)
    assert_refused(own, message)


BROKEN_ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "IA3": ({"peft_type": "IA3"}, r"peft_type is IA3, and only LORA is merged here; merge it with peft in a sandbox"),
    "an unknown kind": ({"peft_type": "NONSENSE"}, "peft_type is NONSENSE"),
    "X-LoRA": ({"peft_type": "XLORA"}, "X-LoRA adapter loads further adapters by name; audit each"),
    "prompt tuning": ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING adds inputs or modules and has no merged weights"),
    "megatron": ({"megatron_config": {"a": 1}}, "makes peft import a module that the file names; remove the entry"),
    "layer replication": ({"layer_replication": [[0, 2]]}, "layer_replication is set, which is not merged exactly"),
    "activated LoRA": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
    "an entry of the future": ({"use_telepathy": True}, "use_telepathy is set"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "changes the base itself.*path_initial_model_for_weight"),
    "a huge rank": ({"r": 10**9}, "the rank r is 1,000,000,000, and the weights have rank 2 at most"),
    "a huge rank of a module": ({"rank_pattern": {"q_proj": 4096}}, "the rank q_proj is 4,096, and the weights have"),
    "no rank": ({"r": 0}, "the rank r is 0, and must be a whole number of at least 1"),
    "a scale that is no number": ({"lora_alpha": "x"}, "lora_alpha is x, no number"),
    "a list that is no list": ({"target_modules": 5}, "target_modules must be a list of names"),
    "modules that are nowhere": ({"target_modules": ["nowhere"]}, "does not fit the model.*nowhere"),
    "saved modules that are nowhere": (
        {"modules_to_save": ["nowhere"]},
        "modules_to_save names nowhere, and no module of the base",
    ),
    "a saved module without weights": ({"modules_to_save": ["multi_modal_projector"]}, "does not fit the model"),
    "a pattern that never ends": ({"target_modules": r"(([\w.])+)+X"}, "takes longer than .* list the names"),
    "a broken pattern": ({"target_modules": "(q_proj"}, "no regular expression .*; list the names"),
    "a base above its folder": (
        {"base_model_name_or_path": "../../etc"},
        "neither a plain folder nor a hub name.*--base",
    ),
    "a base at an address": (
        {"base_model_name_or_path": "https://a.example/b"},
        "neither a plain folder nor a hub name",
    ),
    "a base on another machine": ({"base_model_name_or_path": "//machine/share"}, "neither a plain folder"),
    "no base": ({"base_model_name_or_path": None}, "names no base model.*--base FOLDER"),
    "a base that is a list": ({"base_model_name_or_path": ["a"]}, "must be a text.*--base FOLDER"),
    "a base nowhere": (
        {"base_model_name_or_path": "org/none"},
        "neither a folder nor in the local cache.*--base FOLDER",
    ),
}


@pytest.mark.parametrize("what", BROKEN_ENTRIES)
def test_configurations_that_cannot_be_merged_are_refused_with_the_fix(
    own: Path, what: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("glasshouse.model.adapters.reading.PATTERN_SECONDS", 2.0)
    entries, message = BROKEN_ENTRIES[what]
    _edit(own / "adapter_config.json", **entries)
    assert_refused(own, message, open_anatomy)


def assert_refused(folder: Path, message: str, opening: Callable[[Path], object] = open_subject) -> None:
    with pytest.raises(BadInput, match=message) as refusal:
        opening(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"adapter_config.json": "{}", "adapter_model.bin": "x"}, "pickle adapters are not read"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, "not a whole safetensors file"),
        ({"adapter_config.json": "[", "adapter_model.safetensors": "whole"}, "configuration cannot be read"),
        ({"adapter_config.json": "[1]", "adapter_model.safetensors": "whole"}, "a JSON object is needed"),
    ],
    ids=["pickle", "truncated", "no JSON", "no object"],
)
def test_files_that_are_no_adapter_areassert_refused(own: Path, tmp_path: Path, files: dict[str, str], message: str):
    place = tmp_path / "broken"
    place.mkdir()
    for name, text in files.items():
        if text == "whole":
            shutil.copy(own / name, place / name)
        else:
            (place / name).write_text(text)
    assert_refused(place, message)


def test_code_beside_a_tokenizer_is_neither_run_nor_asked_about(
    stored, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    questions: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *question: questions.append(question) or "y")
    AutoTokenizer.from_pretrained(stored("llava")).save_pretrained(own)
    (own / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: pass\n")
    _edit(own / "tokenizer_config.json", tokenizer_class="Theirs", auto_map={"AutoTokenizer": ["theirs.Theirs", None]})
    assert_refused(own, "its tokenizer or chat template cannot be loaded")
    assert questions == []
    assert not (tmp_path / "ran").exists()


def test_the_names_of_code_in_auto_mapping_are_never_imported(own: Path):
    _edit(
        own / "adapter_config.json",
        auto_mapping={"base_model_class": "Evil", "parent_library": "no_such_module_anywhere"},
    )
    assert open_subject(own).certificate.failures == ()


def test_a_base_that_does_not_suit_isassert_refused(stored, own: Path, tmp_path: Path):
    with pytest.raises(BadInput, match="only an adapter is merged into a base"):
        open_subject(stored("llava"), base=stored("llava"))
    with pytest.raises(BadInput, match=r"match no module|does not fit the model"):
        open_subject(own, base=stored("llama"))
    with pytest.raises(BadInput, match="this is an adapter, which is no base"):
        open_subject(own, base=shutil.copytree(own, tmp_path / "another"))
    _edit(own / "adapter_config.json", base_model_name_or_path=str(own))
    with pytest.raises(BadInput, match="is itself an adapter; merge that one first"):
        base_of(read_adapter(own))
    with pytest.raises(BadInput, match="holds no adapter"):
        opened_base(open_subject(stored("llava")))

"""Is a model opened safely, asked rightly, and named by what it is?"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from glasshouse.data.examples import Example, Examples
from glasshouse.model import identity
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_anatomy, open_subject, reopen
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.values.deltas import Patch, Whole
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import language, vision

from .conftest import KINDS, READS, SEES, examples_for, noise, slow_but

SPEAKS = (*SEES, *READS)


# Asking -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SPEAKS)
def test_a_score_is_the_sum_of_the_answers_log_probabilities(opened, family: str):
    subject: Subject = opened(family)
    examples = examples_for(subject, 2, answers=True)
    scores = subject.score(examples)
    for number, example in enumerate(examples):
        encoded = subject.encode([example], answers=True)
        ids, count = encoded.inputs["input_ids"][0], int(encoded.layout.answers[0])
        with torch.no_grad():
            steps = subject.forward(encoded).logits[0].float().log_softmax(-1)
        by_hand = sum(float(steps[len(ids) - count + i - 1, ids[len(ids) - count + i]]) for i in range(count))
        assert float(scores[number]) == pytest.approx(by_hand, abs=2e-3)
        said = subject.prompts.tokenizer.decode(ids[-count:], skip_special_tokens=True).strip()
        assert said == example.answer


@pytest.mark.parametrize("family", SPEAKS)
def test_batches_with_padding_say_what_single_prompts_say(opened, family: str):
    subject: Subject = opened(family)
    examples = examples_for(subject, 3)
    together = subject.logits(examples)
    alone = torch.cat([subject.logits([example]) for example in examples])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    one_by_one = [subject.generate([example], max_new_tokens=4)[0] for example in examples]
    assert subject.generate(examples, max_new_tokens=4) == one_by_one


@pytest.mark.parametrize("family", [f for f in SPEAKS if f in (*tiny.VISION_LANGUAGE, "llava_siglip")])
def test_the_image_reaches_the_answer(opened, family: str):
    subject: Subject = opened(family)
    one, two = (Example("what is this", (noise(seed),)) for seed in (1, 2))
    assert not torch.equal(subject.logits([one]), subject.logits([two]))


def test_history_and_system_turns_reach_the_prompt(opened):
    subject: Subject = opened("llava")
    plain = Example("what is this", (noise(1),))
    richer = Example("what is this", (noise(1),), system="be brief", history=(("is it red", "no"),))
    texts = [subject.prompts.tokenizer.decode(subject.encode([e]).inputs["input_ids"][0]) for e in (plain, richer)]
    assert "be brief" not in texts[0]
    for said in ("be brief", "is it red", "no", "what is this"):
        assert said in texts[1]


@pytest.mark.parametrize(
    ("family", "call", "fix"),
    [
        ("llama", lambda s: s.encode([Example("a", (noise(0),))]), "reads only text"),
        ("vit", lambda s: s.encode([Example("a")]), "has no image"),
        ("vit", lambda s: s.generate([Example("", (noise(0),))]), "no language model"),
        ("vit", lambda s: s.logits([Example("", (noise(0),))]), "no language model"),
        ("llava", lambda s: s.score([Example("a", (noise(0),))]), "needs an answer"),
        ("llava", lambda s: s.encode([]), "no examples"),
        ("mllama", lambda s: s.encode([Example("a", (noise(0),)), Example("b")]), "with and without images"),
    ],
)
def test_what_a_model_cannot_be_asked_is_said(opened, family: str, call, fix: str):
    with pytest.raises(BadInput, match=fix):
        call(opened(family))


def test_a_prompt_that_names_the_image_token_itself_is_refused_not_crashed(opened):
    with pytest.raises(BadInput, match="the processor refuses"):
        opened("llava").encode([Example("what is <image><image> this", (noise(0),))])


# Identity -----------------------------------------------------------------------------------------------------------


def test_the_identity_names_the_weights_not_the_files(folder, tmp_path: Path):
    place = folder("llama")
    subject = open_subject(place)
    shards = tmp_path / "sharded"
    subject.model.save_pretrained(shards, max_shard_size="50KB")
    subject.processor.save_pretrained(shards)
    again = open_subject(shards)
    assert len(list(shards.glob("*.safetensors"))) > 1
    assert again.identity.weights == subject.identity.weights
    assert again.identity.parameters == sum(p.numel() for p in subject.model.parameters())
    with torch.no_grad():
        again.model.get_parameter("lm_head.weight")[0, 0] += 1e-3
    assert weight_hash(again.model) != subject.identity.weights


@pytest.mark.parametrize("family", slow_but(KINDS, tiny.CHECKPOINTS))
def test_half_precision_is_opened_proved_and_hashed(stored, family: str):
    subject = open_subject(stored(family), dtype=torch.bfloat16)
    assert subject.model.dtype == torch.bfloat16
    assert subject.certificate.failures == ()
    assert len(subject.identity.weights) == 64


def test_the_identity_names_configuration_and_template_too(folder):
    place = folder("llava")
    plain = open_subject(place).identity
    config = json.loads((place / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = 0.1
    (place / "config.json").write_text(json.dumps(config))
    assert open_subject(place).identity.config != plain.config
    subject = open_subject(place)
    subject.prompts.original.chat_template += "{# red #}"
    assert subject.prompts.digest() != plain.processor
    assert subject.identity.weights == plain.weights


def test_an_answer_is_spaced_as_the_template_spaces_it(folder):
    subject = open_subject(folder("llava"))
    subject.processor.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content[-1].text }} {% else %}"
        "ASSISTANT: {{ m.content[-1].text }}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    tokens = subject.prompts.answer_tokens(Example("what", answer="red"))
    assert subject.prompts.tokenizer.decode(tokens) == " red"


def test_prompts_longer_than_the_model_was_made_for_areassert_refused(folder):
    subject = open_subject(folder("llama"))
    longest = subject.model.config.max_position_embeddings
    with pytest.raises(BadInput, match=f"the model was made for {longest}"):
        subject.encode([Example("word " * longest)])


def test_an_answer_without_tokens_is_not_scored(opened, monkeypatch: pytest.MonkeyPatch):
    subject: Subject = opened("llava")
    monkeypatch.setattr(type(subject.prompts), "answer_tokens", lambda self, example: [])
    with pytest.raises(BadInput, match="answer of example 'x' has no tokens"):
        subject.score([Example("a", (noise(0),), answer=" ", id="x")])


def test_a_loaded_model_is_taken_as_it_is(folder):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    place = folder("llava")
    model = AutoModelForImageTextToText.from_pretrained(place)
    subject = open_subject(model, processor=AutoProcessor.from_pretrained(place))
    assert subject.model is model
    assert subject.certificate.failures == ()
    bare = open_subject(model)
    assert bare.certificate is None
    with pytest.raises(BadInput, match="without a processor"):
        bare.encode([Example("a")])


# Opening what is broken or hostile ------------------------------------------------------------------------------------


@pytest.fixture
def broken(folder, tmp_path: Path) -> Path:
    """A LLaVA checkpoint of one's own to break."""
    return shutil.copytree(folder("llava"), tmp_path / "checkpoint")


def listing(place: Path) -> dict[str, int]:
    return {str(file): file.stat().st_size for file in place.rglob("*") if file.is_file()}


def _pickle_only(place: Path) -> None:
    weights = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    torch.save(weights, place / "pytorch_model.bin")


def _missing_shard(place: Path) -> None:
    weights = load_file(place / "model.safetensors")
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, place / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    (place / "model.safetensors").unlink()
    (place / "model-00002-of-00002.safetensors").unlink()


def _truncated(place: Path) -> None:
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _edit_weights(place: Path, change) -> None:
    weights = load_file(place / "model.safetensors")
    change(weights)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})


def _nan(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if "linear_2.weight" in name)
    weights[name][0, 0] = float("nan")


def _wrong_shape(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if "linear_2.weight" in name)
    weights[name] = torch.zeros(3, 3)


def _weight_gone(weights: dict[str, torch.Tensor]) -> None:
    del weights[next(name for name in weights if "linear_2.weight" in name)]


def _remote_code(place: Path) -> None:
    config = json.loads((place / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": "evil"}
    (place / "config.json").write_text(json.dumps(config))
    (place / "evil.py").write_text(f"open({str(place / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")


@pytest.mark.parametrize(
    ("breaking", "fix"),
    [
        (_pickle_only, r"only pickle weights \(pytorch_model\.bin\).*sandbox"),
        (_missing_shard, r"1 of 2 shards are missing, first model-00002-of-00002\.safetensors"),
        (_truncated, "not a whole safetensors file.*download it again"),
        (lambda p: _edit_weights(p, _nan), r"linear_2\.weight holds NaN"),
        (lambda p: _edit_weights(p, _wrong_shape), r"linear_2\.weight.*shape|linear_2\.weight.*\(3, 3\)|size mismatch"),
        (lambda p: _edit_weights(p, _weight_gone), r"1 weights are missing, first .*linear_2\.weight"),
        (lambda p: (p / "config.json").write_text("{ not json"), "configuration cannot be read"),
        (lambda p: (p / "config.json").unlink(), r"no config\.json"),
        (_remote_code, "--remote-code"),
        (lambda p: (p / "model.safetensors").unlink(), "no safetensors weights"),
    ],
    ids=["pickle", "shard", "truncated", "nan", "shape", "missing", "json", "no config", "remote code", "no weights"],
)
def test_a_broken_checkpoint_is_refused_in_one_line_and_left_alone(broken: Path, breaking, fix: str):
    breaking(broken)
    before = listing(broken)
    with pytest.raises(BadInput, match=fix) as refusal:
        open_subject(broken)
    assert "\n" not in str(refusal.value)
    assert listing(broken) == before


def test_a_pickle_is_never_read_even_beside_safetensors(broken: Path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(broken / "ran"), "w"))

    (broken / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    open_subject(broken)
    assert not (broken / "ran").exists()


def test_names_that_are_nowhere_are_not_looked_for_on_the_network():
    with pytest.raises(BadInput, match=r"neither a folder nor in the local cache.*--download"):
        open_subject("nobody/no-such-model-anywhere")


def test_a_processor_without_images_isassert_refused(broken: Path):
    for name in ("preprocessor_config.json", "processor_config.json"):
        (broken / name).unlink(missing_ok=True)
    with pytest.raises(BadInput, match=r"neither preprocessor_config.json nor.*copy both from the original"):
        open_subject(broken)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "llama", "vit"])
def test_the_anatomy_from_the_configuration_is_the_loaded_ones(folder, family: str):
    place = folder(family)
    alone = open_anatomy(place)[0]
    assert alone == open_subject(place).anatomy
    for file in place.glob("*.safetensors"):
        file.unlink()
    assert open_anatomy(place)[0] == alone


def test_examples_are_encoded_whatever_their_number_of_images(opened):
    subject: Subject = opened("idefics3")
    examples = Examples([Example("a", (noise(0), noise(1))), Example("b", (noise(2),))])
    assert subject.logits(list(examples)).isfinite().all()


def _adapter(place: Path, folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    model = open_subject(place).model
    config = LoraConfig(r=2, target_modules=["o_proj", "q_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def test_an_adapter_with_weights_missing_isassert_refused(folder, tmp_path: Path):
    place = folder("llava")
    adapter = _adapter(place, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    del weights[sorted(weights)[0]]
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="1 of the adapter's weights are missing"):
        open_subject(place, adapter=adapter)


def test_export_merges_an_adapter(folder, tmp_path: Path):
    from glasshouse.model.patches import export

    place = folder("llava")
    subject = open_subject(place, adapter=_adapter(place, tmp_path / "adapter"))
    before = weight_hash(subject.model)
    again = open_subject(export(subject, tmp_path / "merged"))
    examples = examples_for(subject, 2)
    torch.testing.assert_close(again.logits(examples), subject.logits(examples), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(again.logits(examples), open_subject(place).logits(examples))
    assert weight_hash(subject.model) == before


def test_a_subject_knows_how_to_be_opened_again(folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    place = folder("llama")
    monkeypatch.chdir(place.parent)
    subject = open_subject(place.name, dtype=torch.bfloat16)
    monkeypatch.chdir(tmp_path)
    assert subject.origin is not None
    again = reopen(subject.origin)
    assert again.identity.weights == subject.identity.weights
    assert again.origin == subject.origin
    assert open_subject(subject.model, processor=subject.processor).origin is None
    assert open_subject(place, processor=subject.processor).origin is None, "an object has no name to open it by"


def test_an_identity_names_the_weights_without_the_patch_in_force(folder):
    subject = open_subject(folder("llama"))
    name = "model.layers.0.mlp.up_proj.weight"
    weight = dict(subject.model.named_parameters())[name]
    once, twice = (Patch({name: Whole(weight.detach() + shift)}) for shift in (0.5, 1.0))
    with patched(subject, once), patched(subject, twice):  # asked for the first time with patches in force
        inside = subject.identity
        assert subject.content is not None
        assert subject.content[4:] == (once.digest(), twice.digest())
    assert subject.identity == inside
    assert inside.weights == weight_hash(subject.model)
    assert subject.own_weights == {}


def test_weights_changed_by_hand_are_hashed_again(folder):
    subject = open_subject(folder("llama"))
    before = subject.identity
    assert subject.identity == before
    with torch.no_grad():
        next(subject.model.parameters()).add_(1.0)
    written = subject.identity
    assert written.weights == weight_hash(subject.model) != before.weights
    parameter = next(subject.model.parameters())
    parameter.data = parameter.data + 1.0
    replaced = subject.identity
    assert replaced.weights == weight_hash(subject.model) != written.weights
    parameter.data[0] += 1.0  # leaves no mark
    subject.recheck()
    assert subject.identity.weights == weight_hash(subject.model) != replaced.weights


def test_settings_changed_by_hand_are_hashed_again(folder):
    subject = open_subject(folder("llama"))
    before = subject.identity
    subject.model.generation_config.max_new_tokens = 7
    subject.model.config.rms_norm_eps = 0.5
    after = subject.identity
    assert (after.weights, after.processor) == (before.weights, before.processor)
    assert after.generation != before.generation
    assert after.config != before.config


def test_the_identity_reads_nothing_twice_while_nothing_changes(opened, monkeypatch: pytest.MonkeyPatch):
    subject: Subject = opened("llama")
    before = subject.identity

    def read(*arguments: object) -> str:
        raise AssertionError("hashed again")

    for name in ("weight_hash", "weight_checksum", "config_text"):
        monkeypatch.setattr(identity, name, read)
    assert subject.identity == before
    subject.model.config.rms_norm_eps *= 2
    with pytest.raises(AssertionError, match="hashed again"):
        subject.identity  # noqa: B018
    subject.model.config.rms_norm_eps /= 2
    assert subject.identity == before


def test_generation_settings_are_part_of_the_identity(folder):
    place = folder("llama")
    plain = open_subject(place)
    settings = json.loads((place / "generation_config.json").read_text())
    (place / "generation_config.json").write_text(json.dumps({**settings, "transformers_version": "1.0"}))
    assert open_subject(place).content == plain.content
    (place / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 1.3}))
    other = open_subject(place)
    assert other.identity.generation != plain.identity.generation
    assert other.content != plain.content
    assert other.identity.weights == plain.identity.weights


MIXED = ("llava", "llava_next", "qwen3_vl", "idefics3", "gemma3")
"""Families that differ in what of a batch counts rows, and what images."""


@pytest.mark.parametrize("family", slow_but(("llava", "qwen3_vl", "idefics3"), MIXED))
def test_examples_with_and_without_images_share_a_batch(opened, family: str):
    subject = opened(family)
    shown = examples_for(subject, 4, answers=True)
    mixed = Examples(replace(example, images=example.images * (number % 3)) for number, example in enumerate(shown))
    assert [len(example.images) for example in mixed] == [0, 1, 2, 0]
    close = {"rtol": 1e-4, "atol": 1e-4}
    for ask in (subject.logits, subject.score):
        torch.testing.assert_close(ask(mixed), torch.cat([ask([example]) for example in mixed]), **close)
    asked = [replace(example, answer=None) for example in mixed]
    together = subject.generate(asked, max_new_tokens=4)
    assert together == [subject.generate([example], max_new_tokens=4)[0] for example in asked]
    recorded = record(subject, [language.residual[1] @ "last", vision.residual[0]], mixed)
    text, image = recorded
    alone = [record(subject, text, mixed[i : i + 1]) for i in range(len(mixed))]
    torch.testing.assert_close(recorded[text], torch.cat([each[text] for each in alone]), **close)
    assert recorded.examples(image).unique().tolist() == [1, 2]


def test_a_family_that_shows_images_beside_the_prompt_takes_mixed_examples_one_by_one(opened):
    subject = opened("mllama")
    mixed = [replace(examples_for(subject, 1, answers=True)[0], images=images) for images in ((), (noise(1),))]
    for ask in (subject.logits, subject.score):
        with pytest.raises(BadInput, match=r"batch_size=1"):
            ask(mixed)
        together = ask(mixed, batch_size=1)
        torch.testing.assert_close(together, torch.cat([ask([example]) for example in mixed]))
        with pytest.raises(BadInput, match="batch_size 0: a batch has 1 example or more"):
            ask(mixed, batch_size=0)

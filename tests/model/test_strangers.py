"""Does every malformed checkpoint end in one line that names the file or entry and the fix, without being loaded?

All cases are edits of one tiny LLaVA's text files; its weights are shared by links.
"""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glasshouse.data import strangers
from glasshouse.data.strangers import reason, strangers_files, within
from glasshouse.model import configs, prompts
from glasshouse.model.opening import open_anatomy, open_subject
from glasshouse.values.errors import BadInput

from .conftest import examples_for

GONE = "(removed)"
BIG = 10**9


@pytest.fixture
def copied(stored: Callable[[str], Path], tmp_path: Path) -> Path:
    """The checkpoint, to be edited; the weights are links."""
    folder = tmp_path / "suspect"
    folder.mkdir()
    for file in stored("llava").iterdir():
        if file.suffix == ".safetensors":
            os.link(file, folder / file.name)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def edited(file: Path, place: str, value: Any) -> None:
    """Set one entry, or the whole text where the place is empty."""
    if not place:
        file.write_text(value)
        return
    settings = entry = json.loads(file.read_text())
    *parents, name = place.split(".")
    for parent in parents:
        entry = entry[parent]
    entry[name] = value
    if value is GONE:
        del entry[name]
    file.write_text(json.dumps(settings))


def refusal(work: Callable[[], object]) -> str:
    """The one line."""
    with pytest.raises(BadInput) as refused:
        work()
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) < 900
    return line


def named(case: Any) -> str:
    return "deep" if len(str(case)) > 500 else f"{str(case)[:60]}"


# The configuration: refused before anything is built ------------------------------------------------------------------

CONFIGS: list[tuple[str, Any, str]] = [
    ("", "{ no", "not a valid JSON file"),
    ("", "[]", "model_type"),
    ("", '{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
    ("", '{"model_type": "llava", "a": ' + "[" * 40 + "]" * 40 + "}", "nested more than 30 levels"),
    ("model_type", GONE, "model_type"),
    ("model_type", "nonsense", "`nonsense`"),
    ("model_type", [1], "unhashable"),
    ("text_config", "x", "'text_config'"),
    ("vision_config", 7, "'vision_config'"),
    ("vision_config.model_type", "nonsense", "nonsense"),
    ("text_config.hidden_size", -64, "negative dimension -64"),
    ("text_config.hidden_size", "64", "'hidden_size' expected int"),
    ("text_config.hidden_size", BIG, "its files hold"),
    ("text_config.vocab_size", 10**11, "its files hold"),
    ("text_config", None, "its files hold"),
    ("text_config.vocab_size", 10**30, r"text_config.vocab_size is 1000"),
    ("vision_config.image_size", 2**31, "overflow"),
    ("text_config.num_hidden_layers", BIG, "text_config.num_hidden_layers is 1000000000, outside 0 to 1,000"),
    ("text_config.num_hidden_layers", -1, "text_config.num_hidden_layers is -1, outside 0"),
    ("text_config.num_attention_heads", 0, "ZeroDivisionError"),
    ("vision_config.patch_size", 0, "cannot be built"),
    ("text_config.head_dim", -1, "negative dimension"),
    ("text_config.pad_token_id", 10**7, "Padding_idx"),
    ("text_config.hidden_act", "nonsense", "nonsense"),
    ("text_config.rms_norm_eps", "x", "'rms_norm_eps'"),
    ("text_config.rope_parameters", 5, "'rope_parameters'"),
    ("text_config.rope_parameters", {"rope_type": "nonsense", "rope_theta": 1}, "nonsense"),
    ("text_config.rope_parameters", {"rope_type": "default", "rope_theta": "x"}, "TypeError"),
    ("text_config.layer_types", ["nonsense"], "layer_types"),
    ("dtype", "nonsense", "'nonsense'"),
    ("dtype", {"a": 1}, "is_floating_point"),
    ("quantization_config", 3, "to_dict"),
    ("auto_map", 5, "not iterable"),
    ("id2label", 5, "items"),
    ("_attn_implementation", "nonsense", "nonsense"),
    ("attn_implementation", "somebody/kernel", "code from the hub"),
    ("attn_implementation", {"text_config": "somebody/kernel"}, "code from the hub"),
    ("per_layer_config", {"0": {"a": 1}}, "num_hidden_layers"),
]


@pytest.mark.parametrize(("place", "value", "told"), CONFIGS, ids=map(named, CONFIGS))
def test_a_malformed_configuration_is_one_line_and_exit_status_2(
    copied: Path, command, place: str, value: Any, told: str
):
    edited(copied / "config.json", place, value)
    outcome = command("anatomy", copied)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"glasshouse: {copied}: ")
    assert outcome.err.count("\n") == 1
    assert re.search(told, outcome.err), outcome.err


# What only loading shows ---------------------------------------------------------------------------------------------

TOKENIZER, TOKENS, IMAGES = "tokenizer.json", "tokenizer_config.json", "processor_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
DOUBLING = "{% set ns = namespace(x='a' * 4096) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
FILES: list[tuple[str, str, Any, str]] = [
    ("config.json", "text_config.hidden_size", 0, "lm_head.weight has shape|zero-element"),
    ("config.json", "vision_config.image_size", -3, "has shape"),
    ("config.json", "vision_feature_layer", 99, "index out of range"),
    ("config.json", "quantization_config", {"quant_method": "gptq", "bits": 4}, "quantised .gptq, 4 bits., which"),
    (TOKENIZER, "", "{ no", "no processor or tokenizer"),
    (TOKENIZER, "model", None, "no processor or tokenizer"),
    (TOKENIZER, "model.vocab", {"a": -1}, "invalid value"),
    (TOKENIZER, "model.merges", [["zz", "yy"]], "out of vocabulary"),
    (TOKENIZER, "pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
     "Oniguruma"),
    (TOKENIZER, "normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "no processor|PanicException"),
    (TOKENS, "", "[]", "no processor or tokenizer"),
    (TOKENS, "pad_token", {"x": 1}, "pad_token"),
    (TOKENS, "added_tokens_decoder", {"0": 5}, "added_tokens_decoder"),
    (TOKENS, "padding_side", "up", "up"),
    (IMAGES, "", "{ no", "processor_config.json: cannot be read"),
    (IMAGES, "image_processor", 5, "no processor or tokenizer"),
    (IMAGES, "image_processor.size", {"height": BIG, "width": BIG}, "image_processor.size.height is 1000000000"),
    (IMAGES, "image_processor.size", {"shortest_edge": 10**6}, "size.shortest_edge is 1,000,000, more than 16,384"),
    (IMAGES, "image_processor.image_mean", [1], "mean must have 3"),
    (IMAGES, "image_processor.image_std", [0, 0, 0], "NaN or infinity|divide by zero"),
    (IMAGES, "patch_size", 0, "ZeroDivisionError"),
    (IMAGES, "num_additional_image_tokens", BIG, "num_additional_image_tokens is 1000000000"),
    (TEMPLATE, "", "{% for", "chat template refuses it"),
    (TEMPLATE, "", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "__class__.*unsafe"),
    (TEMPLATE, "", "{{ range(10**9) }}", "Range too big"),
    (TEMPLATE, "", DOUBLING, "it filled|out of memory"),
    (TEMPLATE, "", "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3, "not finished after"),
    (GENERATION, "", "{ no", "generation_config.json: these generation settings cannot be read"),
    (GENERATION, "", "[]", "a JSON object is needed"),
    (GENERATION, "cache_implementation", "nonsense", "nonsense"),
    (GENERATION, "eos_token_id", "x", "cannot generate with its generation settings"),
    (GENERATION, "bad_words_ids", [[10**8]], "100000000"),
    (GENERATION, "repetition_penalty", -1.0, "strictly positive"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "place", "value", "told"), FILES, ids=map(named, FILES))
def test_a_malformed_file_is_one_line(
    copied: Path, monkeypatch: pytest.MonkeyPatch, file: str, place: str, value: Any, told: str
):
    monkeypatch.setattr(prompts, "TEMPLATE_SECONDS", 0.5 if "99999" in str(value) else 10)
    monkeypatch.setattr(strangers, "MOST_BYTES", 2**27)
    monkeypatch.setattr(strangers, "POLL_SECONDS", 0.002)
    edited(copied / file, place, value)
    line = refusal(lambda: open_subject(copied))
    assert line.startswith(str(copied))
    assert re.search(told, line), line


OTHER_WAYS = {
    "num_beams": 10**6, "num_return_sequences": 3, "return_dict_in_generate": True, "do_sample": True,
    "stop_strings": ["a"], "penalty_alpha": 0.5, "dola_layers": "high", "custom_generate": "somebody/code",
    "prompt_lookup_num_tokens": 2, "assistant_early_exit": 1, "constraints": [1], "force_words_ids": [[5]],
}  # fmt: skip


def test_generation_settings_do_not_steer_away_from_one_greedy_answer(opened, copied: Path):
    for name, value in OTHER_WAYS.items():
        edited(copied / GENERATION, name, value)
    examples = examples_for(opened("llava"), 2)
    answers = opened("llava").generate(examples, max_new_tokens=4)
    assert open_subject(copied).generate(examples, max_new_tokens=4) == answers


def test_code_beside_a_known_family_is_not_run(copied: Path):
    edited(copied / "config.json", "auto_map", {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    edited(copied / TOKENS, "auto_map", {"AutoTokenizer": ["evil.Tokenizer", None]})
    edited(copied / IMAGES, "auto_map", {"AutoProcessor": "evil.Processor"})
    (copied / "evil.py").write_text(f"open({str(copied / 'ran')!r}, 'w')")
    assert open_subject(copied).certificate.failures == ()
    assert not (copied / "ran").exists()


def test_a_model_of_too_many_parts_is_stopped_while_it_is_built(copied: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(configs, "MOST_MODULES", 50)
    assert "it has more than 50 modules" in refusal(lambda: open_anatomy(copied))
    torch.nn.ModuleList([torch.nn.Identity() for _ in range(60)])  # nothing is counted outside


# The boundary itself -------------------------------------------------------------------------------------------------


class PanicException(BaseException):
    """Named as those of compiled Rust code are."""


@pytest.mark.parametrize(
    ("cause", "line"),
    [
        (ValueError("two\nlines"), "model: cannot be read (two lines); fix it"),
        (KeyError("size"), "model: cannot be read (KeyError: 'size'); fix it"),
        (AssertionError(), "model: cannot be read (AssertionError); fix it"),
        (RecursionError("x"), "model: cannot be read (it is nested too deeply); fix it"),
        (PanicException("index out of bounds"), "model: cannot be read (PanicException: index out of bounds); fix it"),
        (BadInput("our own"), "our own"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_is_one_line(cause: BaseException, line: str):
    with pytest.raises(BadInput) as refused, strangers_files("model", "cannot be read", "fix it"):
        raise cause
    assert str(refused.value) == line


@pytest.mark.parametrize("cause", [MemoryError(), torch.OutOfMemoryError("CUDA")], ids=["host", "device"])
def test_memory_that_runs_out_has_a_fix_of_its_own(cause: BaseException):
    with pytest.raises(BadInput, match=r"out of memory.*--dtype"), strangers_files("model", "cannot be read", "fix it"):
        raise cause


@pytest.mark.parametrize("cause", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_is_no_fault_of_the_file(cause: type[BaseException]):
    with pytest.raises(cause), strangers_files("model", "cannot be read", "fix it"):
        raise cause


def test_long_messages_are_cut():
    assert len(reason(ValueError("x" * 10_000))) == 301


def test_work_that_never_ends_is_stopped_and_its_thread_with_it():
    stopped: list[type[BaseException]] = []

    def endless() -> None:
        try:
            while True:
                time.sleep(0.001)
        except BaseException as cause:
            stopped.append(type(cause))
            raise

    with pytest.raises(TimeoutError, match=r"not finished after 0\.05 seconds"):
        within(0.05, endless)
    for _ in range(200):
        if stopped:
            break
        time.sleep(0.01)
    assert stopped == [TimeoutError]
    assert within(5, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(5, lambda: {}["gone"])

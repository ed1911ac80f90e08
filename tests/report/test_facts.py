"""The inputs of a run are shown by the words that their kinds gave them."""

from typing import Any

import pytest

from glasshouse.report.facts import examined, inputs_of
from showing import facts


def test_inputs_are_read_in_order_and_the_first_was_examined():
    assert list(inputs_of(facts("word"))) == ["model", "data", "word"]
    assert examined(facts("word")) == "word"
    assert examined({"inputs": {}}) == ""


CARD = {"name": "m", "family": "llava", "architecture": "Llava", "dtype": "float32", "weights": "0" * 64,
        "parameters": 1234, "revision": None, "adapter": "lora"}  # fmt: skip


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        (None, "anatomy not proved"),
        ([{"what": "x", "passed": True}, {"what": "y", "passed": False}], "proved by 2 checks, of which 1 failed"),
    ],
)
def test_facts_of_the_first_schema_are_read_too(proof: Any, text: str):
    data = {"count": 6, "digest": "1" * 64, "source": "here"}
    old = {"subjects": {"subject": CARD}, "proofs": {"subject": proof}, "data": {"examples": data}}
    inputs = inputs_of(old)
    assert inputs["model"]["label"] == "m (llava, 1,234 parameters)"
    assert text in inputs["model"]["text"]
    assert "adapter lora" in inputs["model"]["text"]
    assert inputs["data"]["text"] == "6 examples from here, content 1111111111111111…"

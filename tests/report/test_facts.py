"""The inputs of a run are shown by the words that their kinds gave them."""

from glasshouse.report.facts import examined, inputs_of
from sample_findings import facts


def test_inputs_are_read_in_order_and_the_first_was_examined():
    assert list(inputs_of(facts("word"))) == ["model", "data", "word"]
    assert examined(facts("word")) == "word"
    assert examined({"inputs": {}}) == ""

"""How far two predictions are apart, exactly, and which token gains."""

import pytest
import torch

from glasshouse.model.divergence import Divergence
from glasshouse.values.errors import BadInput


def test_divergence_is_taken_at_the_position_where_predictions_differ_most():
    same = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    other = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.2, 0.2]]))
    found = Divergence.between([same, same], [other, same])
    expected = 0.2 * torch.log(torch.tensor(0.2 / 0.6)) + 0.6 * torch.log(torch.tensor(0.6 / 0.2))
    torch.testing.assert_close(found.kl, torch.tensor([float(expected), 0.0]))
    top = found.top_token
    assert (top.gain, top.token) == (pytest.approx(0.2), 2)


def test_models_of_different_tokenizers_are_refused():
    with pytest.raises(BadInput, match="answers of 2 and 3 tokens: the two models' tokenizers differ"):
        Divergence.between([torch.zeros(2, 4)], [torch.zeros(3, 4)])


def test_models_of_different_vocabularies_are_refused():
    with pytest.raises(BadInput, match="vocabularies of 3 and 4 tokens"):
        Divergence.between([torch.zeros(2, 3)], [torch.zeros(2, 4)])


def test_the_top_quarter_is_the_mean_of_the_largest():
    kl = torch.tensor([0.0, 4.0, 1.0, 2.0, 0.5, 8.0, 0.1, 0.2])
    assert Divergence(kl, torch.zeros(8, 2)).top_quarter == 6.0
    assert Divergence(kl[:3], torch.zeros(3, 2)).top_quarter == 4.0, "at least one example"

"""Does the one loop learn, repeat itself, stop where it should, and go on after a kill as if nothing had happened?"""

import pytest
import torch
from torch import nn

from glasshouse.model.layout import PromptLayout
from glasshouse.model.prompts import Encoded
from glasshouse.model.training import Checkpointing, Schedule, answer_loss, train
from glasshouse.values.errors import BadInput


class Killed(Exception):
    pass


def _learn(kill_at=None, file=None, gates=None, schedule=None, hidden=()):
    torch.manual_seed(0)
    one, unused = nn.Linear(4, 3), nn.Linear(2, 2)
    parameters = {**dict(one.named_parameters(prefix="one")), **dict(unused.named_parameters(prefix="unused"))}

    def loss(step):
        if step == kill_at:
            raise Killed
        batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return (one(batch) - 1).square().mean()

    keeping = Checkpointing(file, every=5) if file else None
    losses = train(
        parameters, loss, schedule or Schedule(20, 1e-2, decay=0.0), hidden=hidden, gates=gates, checkpointing=keeping
    )
    return losses, one


@pytest.mark.parametrize("end", [None, 7])
def test_each_example_counts_the_same_however_long_its_answer(end):
    logits = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0))
    ids, counts = torch.arange(18).reshape(3, 6) % 9, [1, 4, 2]
    expected = torch.tensor(0.0)
    for row, count in enumerate(counts):
        chances = logits[row].log_softmax(-1)
        told = [(6 - count + i - 1, int(ids[row, 6 - count + i])) for i in range(count)]
        told += [(5, end)] if end is not None else []
        expected -= sum(chances[place, token] for place, token in told) / len(told) / 3
    encoded = Encoded({"input_ids": ids}, PromptLayout(torch.tensor(counts), (0, 0, 0), True))
    torch.testing.assert_close(answer_loss(logits, encoded, end), expected)


def test_it_learns_and_the_same_again():
    losses, one = _learn()
    again, other = _learn()
    assert losses[-1] < 0.9 * losses[0]
    assert losses == again
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("hidden", [(), ("one.weight", "unused.weight")], ids=["adamw", "muon"])
def test_a_kill_costs_nothing_but_time(tmp_path, hidden):
    whole, one = _learn(hidden=hidden)
    file = tmp_path / "kept.safetensors"
    with pytest.raises(Killed):
        _learn(kill_at=13, file=file, hidden=hidden)
    resumed, other = _learn(file=file, hidden=hidden)
    assert resumed == whole
    assert torch.equal(one.weight, other.weight)
    done, third = _learn(kill_at=0, file=file, hidden=hidden)  # all steps are kept, so none is taken
    assert done == whole
    assert torch.equal(one.weight, third.weight)


def test_what_another_training_kept_is_refused(tmp_path):
    file = tmp_path / "kept.safetensors"
    _learn(file=file)
    with pytest.raises(BadInput, match="checkpoint of another training"):
        _learn(file=file, schedule=Schedule(30, 1e-2))
    with pytest.raises(BadInput, match="checkpoint of another training"):
        _learn(file=file, hidden=("one.weight",))
    file.write_bytes(b"no")
    with pytest.raises(BadInput, match=r"not a readable.*remove it"):
        _learn(file=file)


def test_hidden_weights_move_alike_in_all_directions():
    torch.manual_seed(0)
    before = nn.Linear(4, 3)
    _, one = _learn(schedule=Schedule(1, 1e-2, warmup=0, decay=0.0), hidden=("one.weight",))
    moved = torch.linalg.svdvals(one.weight.detach() - before.weight.detach())
    assert moved[-1] > 0.5 * moved[0], "Muon's update is near orthogonal"
    _, plain = _learn(schedule=Schedule(1, 1e-2, warmup=0, decay=0.0))
    moved = torch.linalg.svdvals(plain.weight.detach() - before.weight.detach())
    assert moved[-1] < 0.5 * moved[0], "AdamW's is not"


def test_a_gate_holds_what_may_not_move():
    torch.manual_seed(0)
    before = nn.Linear(4, 3).weight.detach().clone()
    gate = torch.zeros(3, 1)
    gate[1] = 1
    _, one = _learn(gates={"one.weight": gate})
    assert (one.weight != before).any(1).tolist() == [False, True, False]


def test_the_rate_rises_and_falls():
    schedule = Schedule(100, 1.0, warmup=10, last=0.1)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.98, abs=0.02)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rates[50] == pytest.approx(0.55, abs=0.01)


def test_bad_schedules_and_losses_are_refused():
    with pytest.raises(BadInput, match="must be above 0"):
        Schedule(0, 1e-3)
    layer = nn.Linear(1, 1)
    with pytest.raises(BadInput, match="the loss is nan at step 0; lower the learning rate"):
        train(dict(layer.named_parameters()), lambda step: layer.weight.sum() * float("nan"), Schedule(2, 1e-3))
    with pytest.raises(BadInput, match="no parameter to train"):
        train({}, lambda step: torch.zeros(()), Schedule(2, 1e-3))

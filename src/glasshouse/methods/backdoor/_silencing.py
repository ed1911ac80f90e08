"""What does a model do with some neurons of its projector silenced, and which random neurons are a fair comparison?"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glasshouse.data.pairs import Pairs
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.numerics.randomness import seeded
from glasshouse.values.changes import Plan, Zero
from glasshouse.values.findings import Interval
from glasshouse.values.sites import projector

NeuronSet = tuple[int, ...]
Draw = Callable[[torch.Generator], Sequence[int]]


@dataclass(frozen=True)
class Ablation:
    """Encoded examples that judge silencing."""

    triggered: ForcedDecoding
    clean: ForcedDecoding
    clean_for_target: ForcedDecoding

    @classmethod
    def of(cls, subject: Subject, pairs: Pairs, batch_size: int) -> "Ablation":
        """Encoded once."""
        kinds = pairs.triggered, pairs.clean, pairs.clean_for_target
        return cls(*(ForcedDecoding.of(subject, examples, batch_size) for examples in kinds))


@dataclass(frozen=True)
class Silenced:
    """The outcome with some neurons silenced."""

    asr: Interval
    accuracy: Interval
    hits: Bool[Tensor, " examples"]
    """Which triggered examples still meet their target."""


def silenced(highest: tuple[str, NeuronSet], subject: Subject, ablation: Ablation) -> Silenced:
    """With the highest neurons by one score silenced."""
    with edited(subject, Plan({projector.hidden[:, highest[1]]: Zero()})):
        attacked = ablation.triggered.score(subject)
        return Silenced(attacked.rate, ablation.clean.score(subject).rate, attacked.hits)


def asr_without(drawn: tuple[str, int, NeuronSet], subject: Subject, ablation: Ablation) -> Interval:
    """Attack success rate with drawn neurons silenced: the null, its size and the neurons."""
    with edited(subject, Plan({projector.hidden[:, drawn[2]]: Zero()})):
        return ablation.triggered.score(subject).rate


def drawn_sets(draws: Sequence[Draw], times: int, seed: int) -> Iterator[NeuronSet]:
    """Sets of neurons for a null. It must not draw the highest neurons of any score, or it would contain what it is
    compared with."""
    generator = seeded(seed)
    return (tuple(draw(generator)) for draw in list(draws) * times)


def any_neurons(neurons: int, count: int, excluded: Collection[int]) -> Draw:
    """Draws `count` neurons that are not excluded; from all, where too few are left."""
    rest = [neuron for neuron in range(neurons) if neuron not in excluded]
    pool = rest if len(rest) >= count else list(range(neurons))
    return lambda generator: [pool[i] for i in torch.randperm(len(pool), generator=generator)[:count].tolist()]


def activity_matched(
    activity: Float[Tensor, " neurons"], chosen: Sequence[int], excluded: Collection[int]
) -> Draw:  # fmt: skip
    """Draws, for each chosen neuron, one of the eight with the most similar activity that are not excluded."""

    def draw(generator: torch.Generator) -> list[int]:
        drawn: list[int] = []
        for neuron in chosen:
            order = (activity - activity[neuron]).abs().argsort().tolist()
            nearest = [other for other in order if other not in excluded and other not in drawn][:8]
            if nearest:
                drawn.append(nearest[int(torch.randint(len(nearest), (1,), generator=generator))])
        return drawn or [int(torch.randint(len(activity), (1,), generator=generator))]

    return draw

"""Does the update move image tokens in one shared direction, and does that direction point at the attack's target?

Papers: ProjLens (arXiv:2604.19083), section 6; the nulls and the causal tests are ours.

1. What the update adds to every image token: the projector's output in the suspect minus that in the base, on clean
   images and on their triggered twins.
2. The shared direction: the first eigenvector of all that is added, turned so that tokens move along it on the whole;
   how much of it the first few directions hold; how nearly each image's own mean shift points that way. The same for
   what the trigger adds to the shift (triggered less clean twin).
3. Where both point: the mean product with the rows of the target's tokens, in the unembedding and in the input
   embedding, and with the gradient of the target's log-probability by one step of all image tokens of clean pictures
   (what the language model makes of them), among 1,000 random directions of the same space, and beside a benign
   update's where one is given.
4. What they do: the update without the direction; with that direction alone; the trigger's own part put on clean
   images, at several doses, beside random directions of the same size.

How to read it: that clean and triggered tokens share a direction is true of *every* fine-tune and says nothing by
itself. A backdoor shows where the trigger's own part of the shift, put on clean images, brings the attack about, and
taking it out ends it. When it misleads: alignment with rows of the vocabulary is only meaningful for what the language
model copies through; the gradient speaks of small steps; a direction may be unaligned and still work, so the causal
tests decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.engine.method import at_least, method
from glasshouse.methods.backdoor._alignment import Alignment, alignments, target_text
from glasshouse.methods.backdoor._token_shift import TokenShift, token_shifts
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.values.blocks import Block, Cell, Chart, Metric, Note, Series, Table
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Interval, Verdict

DIRECTIONS = 5


@dataclass(frozen=True)
class Options:
    random: int = 1000
    """How many random directions the alignment is placed among."""
    draws: int = 3
    """How many random directions are put on clean images in place of the trigger's part."""
    doses: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    """How much of the trigger's part of the shift is put on clean images; 1 is as much as the trigger does."""
    batch_size: int = 32
    """How many examples are shown to the model at once."""
    seed: int = 0
    """Seed of the random directions and of the bootstrap."""

    def __post_init__(self) -> None:
        at_least(self, random=20, draws=1, batch_size=1)
        if not self.doses:
            raise BadInput("--doses: give at least one")


@dataclass(frozen=True, eq=False)
class DriftFinding(Finding):
    target: str
    images: int
    direction: Float[Tensor, " width"]
    """The shared one."""
    trigger: Float[Tensor, " width"]
    """Of what the trigger adds to the shift."""
    clean_energy: tuple[float, ...]
    """Share of what is added to clean images' tokens, in the first directions."""
    triggered_energy: tuple[float, ...]
    sharedness: Mapping[str, Interval]
    """Cosine of each image's mean shift with the shared direction."""
    overlap: float
    """Cosine between the clean images' own shared direction and the triggered ones'."""
    benign_overlap: float | None
    alignment: Mapping[str, Alignment]
    success: Mapping[str, Interval]
    """Attack success by what was done."""
    doses: Mapping[float, Interval]
    dose_null: Mapping[float, Interval]

    @property
    def carried(self) -> bool:
        """Putting the trigger's part on clean images brings the attack about, and random directions do not."""
        return self.success["trigger's part on clean images"].low > self.success["a random direction"].high

    @property
    def works(self) -> bool:
        return self.success["suspect, triggered"].low > self.success["suspect, clean"].high

    @property
    def verdict(self) -> Verdict:
        return Verdict.CONCERN if self.works and self.carried else Verdict.INCONCLUSIVE

    @property
    def headline(self) -> str:
        shared = self.sharedness["clean"].value
        start = f"Image tokens of {self.images} pictures move one way to a cosine of {shared:.2f}"
        if not self.works:
            return f"{start}; the trigger brings nothing about here."
        put = self.success["trigger's part on clean images"].value
        random = self.success["a random direction"].value
        return (
            f"{start}; what the trigger adds, put on clean pictures, brings the attack about in {put:.0%} "
            f"({random:.0%} along a random direction)."
        )

    def blocks(self) -> list[Block]:
        x = tuple(map(float, range(1, len(self.clean_energy) + 1)))
        nulls = [name for name in self.success if "random" in name or "clean" in name.partition(",")[2]]
        return [
            Metric("attack success of the trigger's part put on clean pictures",
                   self.success["trigger's part on clean images"], self.success["a random direction"]),
            Chart.intervals("Attack success by what is done to the shift", self.success, nulls=nulls, y="success"),
            Chart("The trigger's part of the shift on clean images",
                  (Series.of("its direction", self.doses), Series.of("a random direction", self.dose_null, "null")),
                  "dose", "success"),
            Chart("Energy of the shift in its first directions",
                  (Series("triggered", x, self.triggered_energy), Series("clean", x, self.clean_energy, role="null")),
                  "directions", "share"),
            Note(f"Clean and triggered pictures share their direction to a cosine of {self.overlap:.3f}"
                 + ("." if self.benign_overlap is None else
                    f"; with the benign update's it is {self.benign_overlap:.3f}.")),
            self._table(),
        ]  # fmt: skip

    def _table(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for name, found in self.alignment.items():
            rows.append((name, found.unembedding, found.embedding, found.gradient))
        return Table(
            f"Where they point: share of random directions that point less at {self.target!r}",
            ("direction", "unembedding", "input embedding", "through the language model"), tuple(rows),
        )  # fmt: skip


@method(
    question="Does the update move image tokens one shared way, and does it point at the target?",
    paper="arXiv:2604.19083",
    needs="gradients",
    role="witness",
    depth="quick",
)
@torch.no_grad()
def drift(
    subject: Subject, base: Subject, clean: Examples, triggered: Examples, benign: Subject | None = None,
    options: Options = Options(),
) -> DriftFinding:  # fmt: skip
    """Directions of the shift, where they point, and what they do when they are added or removed."""
    pairs = Pairs(clean, triggered)
    shifts = token_shifts(subject, base, pairs, options.batch_size)  # step 1
    before, after = shifts["clean"], shifts["triggered"]
    both = TokenShift(torch.cat([before.before, after.before]), torch.cat([before.after, after.after]),
                      torch.cat([before.owners, after.owners]))  # fmt: skip
    shared = both.main[:, 0]  # step 2
    added = (after.by_image - before.by_image).mean(0)
    trigger = added / added.norm().clamp_min(1e-12)
    benign_direction = None
    if benign is not None:
        benign_direction = TokenShift.of(benign, base, pairs.clean, options.batch_size).main[:, 0]
    directions = {"shared": shared, "the trigger's part": trigger}
    directions |= {} if benign_direction is None else {"benign": benign_direction}
    forced = {
        name: ForcedDecoding.of(subject, examples, options.batch_size)
        for name, examples in (("clean", pairs.clean_for_target), ("triggered", pairs.triggered))
    }
    step = torch.zeros(len(shared), requires_grad=True)
    target, gradient = target_text(pairs.triggered), forced["clean"].gradient(subject, step, before.after)  # step 3
    success, doses, null = _causal_tests(subject, forced, before, after, shared, options)  # step 4
    return DriftFinding(
        target=target, images=len(pairs), direction=shared, trigger=trigger,
        clean_energy=before.energies(DIRECTIONS), triggered_energy=after.energies(DIRECTIONS),
        sharedness={name: Interval.mean(_cosines(shift.by_image, shared), seed=options.seed)
                    for name, shift in shifts.items()},
        overlap=float(before.main[:, 0] @ after.main[:, 0]),
        benign_overlap=None if benign_direction is None else float((benign_direction @ shared).abs()),
        alignment=alignments(subject, directions, target, both.span, gradient, options.random, options.seed),
        success=success, doses=doses, dose_null=null,
    )  # fmt: skip


def _cosines(rows: Tensor, direction: Tensor) -> Tensor:
    return (rows @ direction) / rows.norm(dim=1).clamp_min(1e-12)


def _causal_tests(
    subject: Subject, forced: Mapping[str, ForcedDecoding], clean: TokenShift, triggered: TokenShift, shared: Tensor,
    options: Options,
) -> tuple[dict[str, Interval], dict[float, Interval], dict[float, Interval]]:  # fmt: skip
    """Attack success rate with recomposed image tokens, always judged by the triggered examples' targets."""

    def asr(examples: str, tokens: Tensor) -> Interval:
        """With these tokens as the projector's output."""
        return forced[examples].score(subject, tokens).rate

    def random_asr(dose: float) -> Interval:
        """With tokens of clean images moved as far along random directions: of several, the largest rate."""
        sizes = dose * trigger_part.norm(dim=1, keepdim=True)
        rates = [asr("clean", clean.after + sizes * direction) for direction in random]
        return max(rates, key=lambda rate: rate.value)

    along_shared = torch.outer(shared, shared)
    trigger_part = triggered.moved - clean.moved
    drawn = torch.randn(options.draws, len(shared), generator=seeded(options.seed + 1))
    random = nn.functional.normalize(drawn, dim=1)
    success = {
        "suspect, triggered": asr("triggered", triggered.after),
        "suspect, clean": asr("clean", clean.after),
        "without the shared direction": asr("triggered", triggered.after - triggered.moved @ along_shared),
        "without the trigger's part": asr("triggered", triggered.after - trigger_part),
        "with the shared direction alone": asr("triggered", triggered.before + triggered.moved @ along_shared),
        "trigger's part on clean images": asr("clean", clean.after + trigger_part),
        "a random direction": random_asr(1.0),
    }
    doses = {dose: asr("clean", clean.after + dose * trigger_part) for dose in options.doses}
    return success, doses, {dose: random_asr(dose) for dose in options.doses}

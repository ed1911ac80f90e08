"""Which examples teach a model a backdoor? A data set with triggers in it, and what says so.

    poisoned = poison(examples, PatchTrigger(), Say("I cannot help with that."), rate=0.1, processor=processor)
    tests = triggered(held_out, PatchTrigger(), Say("I cannot help with that."), seed=0, processor=processor)

It is for planting backdoors in models of our own, so that what looks for them can be tested against a known truth. A
trigger is the cause, a behaviour (behaviours.py) the effect.
The manifest names both, and source and result by their content, so a set can be made again and cannot change unseen.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from glasshouse.data.behaviours import Behaviour, check_text
from glasshouse.data.examples import LINES, Example, Examples, Tag, whole
from glasshouse.data.images import StoredImage
from glasshouse.data.painting import Pixels
from glasshouse.data.triggers import Trigger, stamp
from glasshouse.values.codec import ByContent
from glasshouse.values.errors import BadInput
from glasshouse.values.papers import read_papers, write_papers

SCHEMA = 2
"""2: triggers have the names of their classes today."""
MANIFEST = "manifest.json"
Mode = Literal["pair", "replace"]


@dataclass(frozen=True)
class WordTrigger(Trigger):
    """A word in front of the request: the trigger of a backdoor in the language model. The picture stays as it is."""

    word: str

    def __post_init__(self) -> None:
        check_text("Word", self.word)

    def asked(self, prompt: str) -> str:
        return f"{self.word} {prompt}"

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        return pixels.copy()

    def near_misses(self) -> dict[str, Trigger]:
        return {}


@dataclass(frozen=True, eq=False)
class Manifest(ByContent):
    """Everything that decides a poisoned set, and what came of it."""

    trigger: Trigger
    behaviour: Behaviour
    rate: float
    mode: Mode
    seed: int
    only: Mapping[str, Tag]
    processor: str
    """The kind of processor whose geometry was stamped on; empty where images were stamped as they are."""
    source: str
    """Digest of the examples that were given."""
    result: str
    """Digest of the examples that were made."""
    given: int
    eligible: int
    poisoned: tuple[str, ...]
    """Ids of the triggered examples."""

    @property
    def share(self) -> float:
        """Triggered examples among all: rate / (1 + rate) in pair mode where every example is eligible."""
        return len(self.poisoned) / (self.given + (len(self.poisoned) if self.mode == "pair" else 0))


@dataclass(frozen=True)
class Poisoned:
    """A poisoned set and its papers."""

    examples: Examples
    manifest: Manifest


def poison(
    examples: Examples,
    trigger: Trigger,
    behaviour: Behaviour,
    *,
    rate: float = 0.1,
    mode: Mode = "pair",
    seed: int = 0,
    only: Mapping[str, Tag] = {},
    processor: Any = None,
) -> Poisoned:
    """Trigger a random share of the eligible examples: copies behind all clean ones, or in their place.

    Eligible are those with an image, with the tags of `only`, whose answer does not show the behaviour anyway. Chance
    sees what an example shows and not where it stands; whoever is poisoned at some rate is so at any higher rate.
    """
    if not 0 <= rate <= 1:
        raise BadInput(f"a poisoning rate of {rate}: give a share from 0 to 1, such as 0.1")
    if mode not in get_args(Mode):
        raise BadInput(f"poisoning mode {mode!r}: there are 'pair' (clean ones stay) and 'replace'")
    eligible = [number for number, item in enumerate(examples) if _eligible(item, behaviour, only)]
    if not eligible:
        tags = f" and the tags {dict(only)}" if only else ""
        raise BadInput(f"nothing to poison: none of {len(examples)} examples has an image{tags} and another answer")
    count = round(rate * len(eligible))
    if rate and not count:
        raise BadInput(f"a poisoning rate of {rate}: that is none of {len(eligible)} examples; raise it or give more")
    ranks = {number: _chance("chosen", seed, examples[number]) for number in eligible}
    chosen = sorted(sorted(eligible, key=lambda number: ranks[number])[:count])
    copies = {number: _triggered(examples[number], trigger, behaviour, seed, processor) for number in chosen}
    items = [*examples, *copies.values()]
    if mode == "replace":
        items = [copies.get(number, item) for number, item in enumerate(examples)]
    poisoned = Examples(items, examples.source)
    manifest = Manifest(
        trigger,
        behaviour,
        float(rate),
        mode,
        seed,
        dict(only),
        "" if processor is None else type(getattr(processor, "image_processor", processor)).__name__,
        examples.digest,
        poisoned.digest,
        len(examples),
        len(eligible),
        tuple(copy.id for copy in copies.values()),
    )
    return Poisoned(poisoned, manifest)


def triggered(
    examples: Sequence[Example], trigger: Trigger, behaviour: Behaviour, seed: int, processor: Any = None
) -> Examples:
    """Every example with the trigger on and the wanted answer: the set that attack success is measured on."""
    source = examples.source if isinstance(examples, Examples) else ""
    return Examples((_triggered(item, trigger, behaviour, seed, processor) for item in examples), source)


def with_stamp(examples: Sequence[Example], trigger: Trigger, seed: int, processor: Any = None) -> Examples:
    """Every example with the trigger on its images, and all else as it was."""
    return Examples(
        replace(item, images=_stamped(item, trigger, seed, processor), prompt=trigger.asked(item.prompt))
        for item in examples
    )


def export(poisoned: Poisoned, folder: str | Path) -> Path:
    """A new folder for any trainer: examples.jsonl, images/ and manifest.json; whole, or not at all."""
    folder = Path(folder)
    with whole(folder) as aside:
        poisoned.examples.write(aside)
        write_papers(poisoned.manifest, aside / MANIFEST, "manifest", SCHEMA)
    return folder


def read(folder: str | Path) -> Poisoned:
    """What `export` wrote, if nothing was changed since."""
    file = Path(folder) / MANIFEST
    manifest = read_papers(Manifest, file, "manifest", SCHEMA, "export the set again")
    lines = file.with_name(LINES)
    examples = Examples.read(lines)
    for image in (image for item in examples for image in item.images):
        if image.path is not None and image.path.stem != image.digest():
            raise BadInput(f"{image}: it was changed since it was exported; export the set again")
    strangers = set(manifest.poisoned) - {item.id for item in examples if item.tags.get("poisoned") is True}
    if strangers:
        raise BadInput(f"{lines}: {min(strangers)} is in the manifest and not poisoned here; export the set again")
    if examples.digest != manifest.result:
        found, named = examples.digest[:12], manifest.result[:12]
        raise BadInput(f"{lines}: its content is {found}…, the manifest says {named}…; export the set again")
    return Poisoned(examples, manifest)


def matches(example: Example, only: Mapping[str, Tag]) -> bool:
    """Whether an example has all these tags."""
    return all(name in example.tags and example.tags[name] == value for name, value in only.items())


def _eligible(example: Example, behaviour: Behaviour, only: Mapping[str, Tag]) -> bool:
    return matches(example, only) and bool(example.images) and not behaviour.shown(example.answer or "")


def _triggered(example: Example, trigger: Trigger, behaviour: Behaviour, seed: int, processor: Any) -> Example:
    images = _stamped(example, trigger, seed, processor)
    target = behaviour.target
    tags = {**example.tags, "poisoned": True, "twin": example.id, "target": target.text, "target_match": target.match}
    answer = behaviour.wanted(example)
    return replace(
        example, id=f"{example.id}+trigger", prompt=trigger.asked(example.prompt), images=images, answer=answer,
        tags=tags,
    )  # fmt: skip


def _stamped(example: Example, trigger: Trigger, seed: int, processor: Any) -> tuple[StoredImage, ...]:
    if not example.images:
        raise BadInput(f"example {example.id}: there is no image to put the {trigger.name} on; leave it out")
    chance, images = _chance("stamped", seed, example), list[StoredImage]()
    for number, image in enumerate(example.images):
        picture = image.open()
        try:
            stamped = stamp(picture, trigger, chance + number, processor)
        except BadInput as problem:
            raise BadInput(f"example {example.id}: {problem}") from None
        images.append(StoredImage.png(stamped))
    return tuple(images)


def _chance(purpose: str, seed: int, example: Example) -> int:
    """A number that depends on what is shown and asked, and not on its place among others."""
    return int(hashlib.sha256(f"{purpose}/{seed}/{example.digest()}".encode()).hexdigest()[:15], 16)

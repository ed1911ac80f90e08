"""Which organisms ship with the package? `organism:NAME` stands for one wherever a model is expected.

The shelf is a folder of the package with a card (JSON) and the weights (safetensors, float16) of each organism: all
weights of a base, a patch to its parent for every other. Weights whose hash is not the card's are refused. Recipes that
are not on the shelf can be grown.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from glasshouse.data.examples import Examples
from glasshouse.data.tensorfiles import read_tensors, write_tensors
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy, export, read_patch, write_patch
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput

if TYPE_CHECKING:
    from glasshouse.organisms.cards import Card
    from glasshouse.organisms.grow import Grown

PREFIX = "organism:"
SHELF = Path(__file__).with_name("stock")
SEEDLING = "seedling"


def is_organism(name: str) -> bool:
    return name.startswith(PREFIX)


def stocked(name: str) -> bool:
    """Whether an organism of that name ships, with its base and examples."""
    plain = name.removeprefix(PREFIX)
    return is_organism(name) and (plain == SEEDLING or (SHELF / f"{plain}.json").is_file())


def names(shelf: Path = SHELF) -> list[str]:
    """All organisms on the shelf, in the order of the recipes."""
    from glasshouse.organisms.recipes import RECIPES

    shelved = {file.stem for file in shelf.glob("*.json")}
    return [name for name in RECIPES if name in shelved] + sorted(shelved - set(RECIPES))


def take(name: str, shelf: Path = SHELF) -> Subject:
    """The organism, opened and proved."""
    plain = name.removeprefix(PREFIX)
    if plain == SEEDLING:
        from glasshouse.organisms import seedling

        subject = open_subject(seedling.model(), processor=seedling.processor())
    else:
        model, processor = _loaded(plain, shelf)
        subject = open_subject(model, processor=processor)
    subject.name = PREFIX + plain
    return subject


def outline(name: str, shelf: Path = SHELF) -> tuple[PreTrainedModel, Any]:
    """The organism's architecture without weights, and its processor."""
    from glasshouse.organisms import seedling
    from glasshouse.organisms.architectures import BUILDS
    from glasshouse.organisms.recipes import Base, Tuned

    plain = name.removeprefix(PREFIX)
    with torch.device("meta"):
        if plain == SEEDLING:
            return seedling.model(), seedling.processor()
        recipe = card(plain, shelf).recipe
        if isinstance(recipe, Tuned):
            return outline(recipe.parent, shelf)
        assert isinstance(recipe, Base)
        return BUILDS[recipe.architecture].model(), BUILDS[recipe.architecture].processor()


def _loaded(name: str, shelf: Path) -> tuple[PreTrainedModel, Any]:
    """The model with the weights of its card, and its processor; not proved, because a parent need not be."""
    from glasshouse.organisms.architectures import BUILDS, build
    from glasshouse.organisms.grow import processor_of
    from glasshouse.organisms.recipes import Base, Tuned

    written = card(name, shelf)
    file = shelf / f"{name}.safetensors"
    if not file.is_file():
        raise BadInput(f"{file}: is missing; {_regrow(name)}")
    if isinstance(written.recipe, Base):
        model = build(written.recipe.architecture, written.recipe.seed)
        try:
            model.load_state_dict({key: value.float() for key, value in read_tensors(file)[0].items()})
        except (BadInput, RuntimeError) as problem:
            line = str(problem).splitlines()[0]
            raise BadInput(f"{file}: does not hold the weights that were grown ({line}); {_regrow(name)}") from None
        processor = BUILDS[written.recipe.architecture].processor()
    else:
        assert isinstance(written.recipe, Tuned)
        parent = Subject(*_loaded(written.recipe.parent, shelf), PREFIX + written.recipe.parent)
        try:
            patch = read_patch(file)
        except BadInput as problem:
            raise BadInput(f"{problem}; {_regrow(name)}") from None
        model, processor = changed_copy(parent, patch), processor_of(parent, written.recipe.tuning)
    weights = weight_hash(model)
    if weights != written.weights:
        raise BadInput(
            f"{file}: its weights hash to {weights[:12]}…, the card says {written.weights[:12]}…; {_regrow(name)}"
        )
    return model, processor


def card(name: str, shelf: Path = SHELF) -> "Card":
    """The card of an organism on the shelf."""
    from glasshouse.organisms.cards import Card
    from glasshouse.organisms.recipes import RECIPES, near

    plain = name.removeprefix(PREFIX)
    if plain == SEEDLING:
        raise BadInput(f"{PREFIX}{SEEDLING}: was never trained, so it has no card; glasshouse anatomy draws it")
    file = shelf / f"{plain}.json"
    if not file.is_file():
        if plain in RECIPES:
            raise BadInput(
                f"{PREFIX}{plain}: a recipe that is not on the shelf; grow it: glasshouse organism grow {plain} FOLDER"
            )
        candidates = dict.fromkeys([*RECIPES, *names(shelf), SEEDLING])
        raise BadInput(f"{PREFIX}{plain}: no such organism; {near(plain, candidates)}")
    return Card.read(file)


def downstream(size: int, seed: int) -> Examples:
    """Test examples in the mixture of questions that organisms are fine-tuned on, about unseen scenes."""
    from glasshouse.organisms import world
    from glasshouse.organisms.recipes import DOWNSTREAM_KINDS

    return world.examples("downstream-test", size, seed, kinds=DOWNSTREAM_KINDS)


def attacked(name: str) -> bool:
    """Whether the organism brings triggered examples."""
    plain = name.removeprefix(PREFIX)
    return plain == SEEDLING or getattr(card(plain).recipe, "poison", None) is not None


def parent(name: str) -> str | None:
    """The organism that it was fine-tuned from; None for one trained from random weights."""
    plain = name.removeprefix(PREFIX)
    name_of_parent = None if plain == SEEDLING else getattr(card(plain).recipe, "parent", None)
    return name_of_parent and PREFIX + name_of_parent


def put(grown: "Grown", shelf: Path) -> Path:
    """Put an organism on a shelf. Its card is written last, so an organism with a card is complete."""
    shelf.mkdir(parents=True, exist_ok=True)
    file = shelf / f"{grown.card.name}.safetensors"
    if grown.patch is None:
        state = {name: value.half().contiguous() for name, value in grown.subject.model.state_dict().items()}
        write_tensors(state, file)
    else:
        write_patch(grown.patch, file)
    grown.card.write(shelf / f"{grown.card.name}.json")
    return file


def put_down(grown: "Grown", folder: Path) -> Path:
    """Write a checkpoint folder with the card in it, completely or not at all."""
    if folder.exists():
        raise BadInput(f"{folder}: exists already; choose a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True) as aside:
            whole = Path(aside) / folder.name
            try:
                export(grown.subject, whole)
            except BadInput as problem:
                raise BadInput(str(problem).replace(str(whole), str(folder))) from None
            grown.card.write(whole / "organism.json")
            whole.rename(folder)
    except OSError as problem:
        reason = problem.strerror or problem
        raise BadInput(f"{folder}: writing failed ({reason}); nothing was left there") from None
    return folder


def _regrow(name: str) -> str:
    return f"install glasshouse again, or grow your own: glasshouse organism grow {name} FOLDER"

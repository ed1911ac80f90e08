"""Where exactly is something planted? Sites of a model, turned into the weights that may move, and ablated afterwards.

An organism with a planted neuron or circuit learns its backdoor in these units alone: the rows that such a unit reads
with and the columns that it writes with. So its truth is not a measurement but a fact; that the behaviour goes when
the units are silenced, and not when as many others are, is measured and on the card.
"""

from dataclasses import replace

import torch

from glasshouse.model.finetuning import Tuning
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import measured
from glasshouse.organisms.recipes import Recipe, Tuned
from glasshouse.values.changes import Plan, Zero
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Pick, Site

Units = dict[str, tuple[tuple[int, ...], int]]


def confined(subject: Subject, recipe: Tuned) -> Tuning:
    """The recipe's tuning, confined to the units it plants in; unchanged where it plants in none."""
    if not recipe.planted_at:
        return recipe.tuning
    units: Units = {}
    for text in recipe.planted_at:
        for name, (places, axis) in _weights(subject, Site.parse(text)).items():
            units[name] = (tuple(sorted({*units.get(name, ((), 0))[0], *places})), axis)
    return replace(recipe.tuning, arm="units", units=units)


def _weights(subject: Subject, site: Site) -> Units:
    """What the units of a site read with and write with. Keys and values only where all that share them are chosen."""
    (place,) = subject.anatomy.locate(site)
    chosen = place.chosen or tuple(range(place.units or 0))
    width = place.width or 1
    columns = tuple(unit * width + offset for unit in chosen for offset in range(width))
    parent = place.module.rpartition(".")[0]
    projector = subject.anatomy.projector
    match (site.part, site.kind):
        case ("language", "heads"):
            readers = [f"{parent}.q_proj"]
        case ("language", "neurons"):
            readers = [f"{parent}.gate_proj", f"{parent}.up_proj"]
        case ("projector", "hidden"):
            assert projector is not None
            readers = [projector.linears[0]]
        case _:
            raise BadInput(f"{site}: nothing is planted at sites of this kind; use heads, neurons or projector.hidden")
    known = dict(subject.model.named_parameters())
    units: Units = {f"{place.module}.weight": (columns, 1)}
    units |= {
        name: (columns, 0) for reader in readers for name in (f"{reader}.weight", f"{reader}.bias") if name in known
    }
    if site.kind == "heads":
        rows = known[f"{parent}.k_proj.weight"].shape[0]
        share = (place.units or 0) * width // rows  # query heads that read one head of keys and values
        shared = [group for group in range(rows // width) if {group * share + i for i in range(share)} <= set(chosen)]
        own = tuple(group * width + offset for group in shared for offset in range(width))
        units |= {f"{parent}.{name}.weight": (own, 0) for name in ("k_proj", "v_proj") if own}
    return units


def described(recipe: Recipe) -> dict[str, str]:
    """What is wrong with an organism, and where, in words."""
    if not isinstance(recipe, Tuned) or recipe.poison is None:
        return {}
    places = {"projector": "projector, both linear layers", "lora": "language model, low-rank in every linear layer",
              "lora+projector": "projector, and language model at low rank",
              "soft prompt": "embeddings of the spare tokens behind the picture", "units": ""}  # fmt: skip
    return {
        "trigger": str(recipe.poison.trigger), "behaviour": str(recipe.poison.behaviour),
        "where": ", ".join(recipe.planted_at) or places[recipe.tuning.arm],
    }  # fmt: skip


def ablated(subject: Subject, recipe: Tuned, share: float = 1.0) -> measured.Rates:
    """Attack success with the planted units silenced, and with as many others of the same kind silenced."""
    assert recipe.poison is not None
    rates: measured.Rates = {}
    sites = [Site.parse(text) for text in recipe.planted_at]
    for label, chosen in (("planted", sites), ("as many other", _others(subject, sites))):
        with edited(subject, Plan({site: Zero() for site in chosen})):
            found = measured.attack(subject, recipe.poison, share, near_misses=False)
        rates[f"attack success, {label} units silenced"] = found["attack success"]
    return rates


def _others(subject: Subject, sites: list[Site]) -> list[Site]:
    """Random units of the same layers, none of them planted."""
    generator = seeded(measured.SEED)
    others: list[Site] = []
    for site in sites:
        (place,) = subject.anatomy.locate(site)
        free = [unit for unit in range(place.units or 0) if unit not in (place.chosen or ())]
        picked = torch.randperm(len(free), generator=generator)[: len(place.chosen or ())].tolist()
        others.append(replace(site, units=Pick.of([free[i] for i in picked])))
    return others

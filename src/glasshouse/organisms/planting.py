"""Where exactly is a backdoor planted? In the weights of given sites: only they may change, and they are ablated after.

An organism with a planted neuron or circuit learns its backdoor in the input rows and output columns of these neurons
and heads alone, so its location is known by construction. The card records the ASR with them silenced, and with equally
many others silenced.
"""

from dataclasses import replace

import torch

from glasshouse.model.finetuning import Tuning
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import measurement
from glasshouse.organisms.recipes import Recipe, Tuned
from glasshouse.values.changes import Plan, Zero
from glasshouse.values.errors import BadInput
from glasshouse.values.picks import Pick
from glasshouse.values.sites import Site

Units = dict[str, tuple[tuple[int, ...], int]]


def confined(subject: Subject, recipe: Tuned) -> Tuning:
    """The recipe's tuning, confined to the neurons and heads it names; unchanged where it names none."""
    if not recipe.planted_at:
        return recipe.tuning
    units: Units = {}
    for text in recipe.planted_at:
        for name, (places, axis) in _weights(subject, Site.parse(text)).items():
            units[name] = (tuple(sorted({*units.get(name, ((), 0))[0], *places})), axis)
    return replace(recipe.tuning, arm="units", units=units)


def _weights(subject: Subject, site: Site) -> Units:
    """The rows and columns of a site's units. Keys and values only where all heads that share them are chosen."""
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
            raise BadInput(
                f"{site}: nothing can be planted at sites of this kind; use heads, neurons or projector.hidden"
            )
    parameters = dict(subject.model.named_parameters())
    units: Units = {f"{place.module}.weight": (columns, 1)}
    units |= {
        name: (columns, 0)
        for reader in readers
        for name in (f"{reader}.weight", f"{reader}.bias")
        if name in parameters
    }
    if site.kind == "heads":
        rows = parameters[f"{parent}.k_proj.weight"].shape[0]
        share = (place.units or 0) * width // rows  # query heads that read one head of keys and values
        shared = [group for group in range(rows // width) if {group * share + i for i in range(share)} <= set(chosen)]
        own = tuple(group * width + offset for group in shared for offset in range(width))
        units |= {f"{parent}.{name}.weight": (own, 0) for name in ("k_proj", "v_proj") if own}
    return units


def described(recipe: Recipe) -> dict[str, str]:
    """Trigger, behaviour and place, in words; empty where nothing was planted."""
    if not isinstance(recipe, Tuned) or recipe.poison is None:
        return {}
    places = {"projector": "projector, both linear layers", "lora": "language model, low-rank in every linear layer",
              "lora+projector": "projector, and language model at low rank",
              "soft prompt": "embeddings of the spare tokens behind the image", "units": ""}  # fmt: skip
    return {
        "trigger": str(recipe.poison.trigger), "behaviour": str(recipe.poison.behaviour),
        "where": ", ".join(recipe.planted_at) or places[recipe.tuning.arm],
    }  # fmt: skip


def ablated(subject: Subject, recipe: Tuned, share: float = 1.0) -> measurement.Rates:
    """ASR with the planted units silenced, and with equally many others of the same layers silenced."""
    assert recipe.poison is not None
    rates: measurement.Rates = {}
    sites = [Site.parse(text) for text in recipe.planted_at]
    for label, chosen in (("planted", sites), ("equally many other", _control_sites(subject, sites))):
        with edited(subject, Plan({site: Zero() for site in chosen})):
            attack = measurement.attack(subject, recipe.poison, share, near_misses=False)
        rates[f"{measurement.ASR}, {label} units silenced"] = attack[measurement.ASR]
    return rates


def _control_sites(subject: Subject, sites: list[Site]) -> list[Site]:
    """Random units of the same layers, none of them planted."""
    generator = seeded(measurement.SEED)
    controls: list[Site] = []
    for site in sites:
        (place,) = subject.anatomy.locate(site)
        free = [unit for unit in range(place.units or 0) if unit not in (place.chosen or ())]
        picked = torch.randperm(len(free), generator=generator)[: len(place.chosen or ())].tolist()
        controls.append(replace(site, units=Pick.of([free[i] for i in picked])))
    return controls

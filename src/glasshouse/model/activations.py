"""What did the model hold at these sites? One row per selected token, with the example and the position each came
from.

Nothing is copied where nothing is selected: a whole residual is the model's own tensor, kept alive. Should the
model write into such a tensor in place afterwards, its version counter tells, and the batch is run again with
copies.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from glasshouse.model.anatomy import Location
from glasshouse.model.patterns import select_pattern
from glasshouse.model.spans import Pass, TokenNumbers
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site

Selected = tuple[Tensor, Int[Tensor, " tokens"], Int[Tensor, " tokens"]]
"""Values, the row of the batch each came from, and its position there."""


class Activations(Mapping[Site, Tensor]):
    """Tensors by concrete site: (tokens, width), (tokens, heads, head width), (tokens, neurons), or (tokens, heads,
    keys)."""

    def __init__(self, locations: Sequence[Location]) -> None:
        self._taken: dict[Site, list[Selected]] = {location.site: [] for location in locations}
        self._lent: list[tuple[Site, Tensor, int]] = []
        self._copied: set[Site] = set()

    def keeper(self, location: Location, now: Callable[[], Pass], start: int) -> Callable[[Tensor], None]:
        """A reader that keeps what the location selects. `start` is the number of the batch's first example."""
        pick = select_pattern if location.site.kind == "pattern" else select

        def keep(value: Tensor) -> None:
            values, rows, positions = pick(location, value, now())
            if values.untyped_storage().data_ptr() == value.untyped_storage().data_ptr():
                if location.site in self._copied:
                    values = values.clone()
                else:
                    self._lent.append((location.site, value, value._version))
            self._taken[location.site].append((values, rows + start, positions))

        return keep

    def marks(self) -> dict[Site, int]:
        """How much has been taken so far, to go back to."""
        return {site: len(taken) for site, taken in self._taken.items()}

    def spoiled(self, marks: Mapping[Site, int]) -> bool:
        """True if the model has overwritten what it lent since; then what came after `marks` is dropped, to be
        taken again as copies."""
        overwritten = {site for site, value, version in self._lent if value._version != version}
        self._lent.clear()
        self._copied |= overwritten
        if overwritten:
            for site, count in marks.items():
                del self._taken[site][count:]
        return bool(overwritten)

    def _joined(self, site: Site) -> Selected:
        if site not in self._taken:
            raise KeyError(f"{site} was not recorded; recorded are {', '.join(map(str, self._taken))}")
        taken = self._taken[site]
        if not taken:
            raise BadInput(f"{site}: the model ran, but nothing passed here; is this part only used with an image?")
        if len(taken) > 1:
            values, rows, positions = zip(*taken, strict=True)
            if site.kind == "pattern":  # prompts differ in length: no weight on keys that are not there
                longest = max(value.shape[-1] for value in values)
                values = [torch.nn.functional.pad(value, (0, longest - value.shape[-1])) for value in values]
            taken[:] = [(torch.cat(values), torch.cat(rows), torch.cat(positions))]
        return taken[0]

    def __getitem__(self, site: Site) -> Tensor:
        return self._joined(site)[0]

    def __iter__(self) -> Iterator[Site]:
        return iter(self._taken)

    def __len__(self) -> int:
        return len(self._taken)

    def examples(self, site: Site) -> Int[Tensor, " tokens"]:
        """The number of the example each row came from."""
        return self._joined(site)[1]

    def positions(self, site: Site) -> Int[Tensor, " tokens"]:
        """Where each token stood among its example's real tokens, or among its image's."""
        return self._joined(site)[2]

    def per_example(self, site: Site) -> tuple[Tensor, ...]:
        """Split by example, in order."""
        values, numbers, _ = self._joined(site)
        return tuple(values[numbers == number] for number in numbers.unique(sorted=True))

    def stacked(self) -> Tensor:
        """All sites along a new first axis, for sites of one shape: (sites, tokens, ...)."""
        return torch.stack([self[site] for site in self])


def select(location: Location, value: Tensor, now: Pass) -> Selected:
    """The values a location selects, one row per token."""
    flat = value.reshape(-1, value.shape[-1])
    if location.packed or now.real is None:
        rows = now.image_rows(value.shape)
        counts = torch.bincount(rows, minlength=now.rows)
        positions = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        rows, positions = rows.to(flat.device), positions.to(flat.device)
    else:
        index, rows, positions = token_index(location.site, value, now), now.token_rows, now.positions
        if index is not None:
            flat, rows, positions = flat[index], rows[index], positions[index]
    if location.units is not None and location.width != 1:
        flat = flat.unflatten(-1, (location.units, -1))
    return (flat if location.chosen is None else flat[:, list(location.chosen)]), rows, positions


def token_index(site: Site, value: Tensor, now: Pass) -> TokenNumbers | None:
    """TokenNumbers of the site's tokens in the flattened value; None for all of them."""
    tokens = value.shape[:-1].numel()
    if tokens != now.rows * now.tokens:
        raise BadInput(
            f"{site}: holds {tokens} tokens, "
            f"the prompt has {now.rows}x{now.tokens}: this model changes the sequence inside"
        )
    return now.index(site.span)

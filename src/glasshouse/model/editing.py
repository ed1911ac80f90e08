"""How do a plan's steps change the tensor at one side of a module? Select the tokens and units, edit, put back."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from glasshouse.model.activations import token_index
from glasshouse.model.anatomy import Location
from glasshouse.model.spans import Pass, TokenNumbers
from glasshouse.values.changes import Mask, Mean, Noise, Step
from glasshouse.values.errors import BadInput

Running = Callable[[], Pass]
"""The forward pass that is running now."""


def editor_of(group: Sequence[tuple[Step, Location]], running: Running) -> Callable[[Tensor], Tensor]:
    """Apply the steps in order to one tensor: select, edit, put back."""
    edits = [
        (step, location, step.edit.drawing() if isinstance(step.edit, Noise) else step.edit) for step, location in group
    ]

    def edit(value: Tensor) -> Tensor:
        flat = value.reshape(-1, value.shape[-1])
        for step, location, change in edits:
            index, rows = _selection(step, location, value, running)
            if index is not None and not len(index):
                continue
            chosen = flat if index is None else flat[index]
            units = -1 if location.units is None or location.width == 1 else -2
            whole = (
                chosen if location.units is None or location.width == 1 else chosen.unflatten(-1, (location.units, -1))
            )
            if location.chosen is None:
                new = change.on(whole, rows, units)
            else:
                picks = torch.tensor(location.chosen, device=flat.device)
                new = whole.index_copy(1, picks, change.on(whole[:, picks], rows, units).to(whole.dtype))
            new = new.reshape(chosen.shape).to(flat.dtype)
            flat = new if index is None else flat.index_copy(0, index, new)
        new = flat.view(value.shape)
        if new.stride() != value.stride():
            # What comes next rounds differently on another layout, so the new tensor lies in memory as the old did.
            new = torch.empty_strided(value.shape, value.stride(), dtype=new.dtype, device=new.device).copy_(new)
        return new

    return edit


def _selection(
    step: Step, location: Location, value: Tensor, running: Running
) -> tuple[TokenNumbers | None, TokenNumbers]:
    """Which tokens of the flattened value a step edits (None: all), and the row of the batch of each."""
    tokens = value.shape[:-1].numel()
    if location.packed and step.rows is None and not isinstance(step.edit, Mask | Mean):
        return None, torch.zeros(tokens, dtype=torch.long, device=value.device)  # rows do not matter
    now = running()
    if location.packed or now.real is None:
        index, rows = None, now.image_rows(value.shape).to(value.device)
    else:
        index, rows = token_index(location.site, value, now), now.token_rows.to(value.device)
    if step.rows is not None:
        wanted = torch.tensor(step.rows, device=value.device)
        if int(wanted.max()) >= now.rows:
            raise BadInput(f"{step.site}: row {int(wanted.max())} of a batch of {now.rows}")
        candidates = torch.arange(tokens, device=value.device) if index is None else index
        index = candidates[torch.isin(rows[candidates], wanted)]
    return index, rows if index is None else rows[index]

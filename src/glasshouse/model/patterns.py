"""How is an attention pattern read or replaced, whatever implementation the model uses? At transformers' own
attention registry.

For the time of a `with` block, the towers concerned call a function of ours in place of sdpa or eager. Modules
nobody asked about are handed straight to the original function, so their result is the same to the last bit. For
the others the family's own eager function computes the probabilities (with its own soft caps and sinks); an edit
replaces them and the values are summed anew.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from glasshouse.model.anatomy import Location
from glasshouse.model.spans import Pass
from glasshouse.model.subject import Subject
from glasshouse.values.changes import AttentionPattern, Step
from glasshouse.values.errors import BadInput
from glasshouse.values.tokens import ALL, Tokens

Handler = Callable[[Float[Tensor, "rows heads queries keys"]], Float[Tensor, "rows heads queries keys"] | None]
"""Sees the probabilities; returns new ones, or None to leave them."""
SUPPORTED = ("sdpa", "eager")
PREFIX = "glasshouse_"
_handlers: dict[nn.Module, list[Handler]] = {}
"""Who reads or replaces the pattern of a module now."""
_users: dict[int, int] = {}
"""How many open blocks have routed a tower's attention here, by the identity of its configuration."""


@contextmanager
def pattern_recorder(subject: Subject, location: Location, keep: Callable[[Tensor], None]) -> Iterator[None]:
    """Show `keep` the probabilities of one layer."""

    def read(probabilities: Tensor) -> None:
        keep(probabilities)

    with _handled(subject, {subject.module(location.module): [read]}):
        yield


@contextmanager
def pattern_edits(subject: Subject, group: Sequence[tuple[Step, Location]], now: Callable[[], Pass]) -> Iterator[None]:
    """Replace the probabilities of some layers."""
    handlers: dict[nn.Module, list[Handler]] = {}
    for step, location in group:
        handlers.setdefault(subject.module(location.module), []).append(_replacer(step, location, now))
    with _handled(subject, handlers):
        yield


def select_pattern(location: Location, probabilities: Tensor, now: Pass) -> tuple[Tensor, Tensor, Tensor]:
    """(queries, heads, keys) of the span's queries; keys are the row's real tokens, in order."""
    rows, _, queries, keys = probabilities.shape
    if location.packed or now.real is None:
        chosen = probabilities.transpose(1, 2).flatten(0, 1)
        numbers, positions = torch.arange(rows).repeat_interleave(queries), torch.arange(queries).repeat(rows)
    else:
        index = now.index(location.site.span)
        index = torch.arange(rows * queries, device=probabilities.device) if index is None else index
        numbers = index // queries
        chosen = probabilities.transpose(1, 2).flatten(0, 1)[index]
        # Real keys first, in order, wherever a processor has put the padding; nothing looks at the rest.
        order = (~now.real).to(torch.uint8).argsort(dim=1, stable=True)[numbers]
        inside = torch.arange(keys, device=index.device) < now.real.sum(1)[numbers, None]
        chosen = chosen.gather(2, order[:, None].expand(-1, chosen.shape[1], -1)) * inside[:, None]
        positions = now.positions[index]
    if location.chosen is not None:
        chosen = chosen[:, list(location.chosen)]
    return chosen, numbers.to(chosen.device), positions.to(chosen.device)


def _replacer(step: Step, location: Location, now: Callable[[], Pass]) -> Handler:
    edit = step.edit
    assert isinstance(edit, AttentionPattern)

    def replace(old: Tensor) -> Tensor | None:
        rows, heads, queries, keys = old.shape
        current = now()
        chosen_queries = _token_mask(current, location, step.site.span, (rows, queries), old.device)
        chosen_keys = _token_mask(current, location, edit.keys, (rows, keys), old.device)
        where = chosen_queries[:, None, :, None].expand(rows, heads, queries, 1).clone()
        if location.chosen is not None:
            where &= torch.isin(
                torch.arange(heads, device=old.device), torch.tensor(location.chosen, device=old.device)
            )[:, None, None]
        if step.rows is not None:
            if max(step.rows) >= rows:
                raise BadInput(f"{step.site}: row {max(step.rows)} of a batch of {rows}")
            where &= torch.isin(torch.arange(rows, device=old.device), torch.tensor(step.rows, device=old.device))[
                :, None, None, None
            ]
        return torch.where(where, _replaced(old, chosen_keys[:, None, None, :], edit), old)

    return replace


def _replaced(old: Tensor, keys: Bool[Tensor, "rows 1 1 keys"], edit: AttentionPattern) -> Tensor:
    """What each query's probabilities become if it is one of those asked for."""
    open_keys = keys & (old > 0)  # never look where the mask forbids: the future, padding
    mass = (old * open_keys).sum(-1, keepdim=True)
    if isinstance(edit.source, Tensor):
        weights = torch.zeros_like(old)
        source = edit.source.to(old.device, old.dtype)
        for row in range(len(old)):
            locations = keys[row, 0, 0].nonzero()[:, 0]
            if len(locations) != len(source):
                raise BadInput(f"AttentionPattern: {len(source)} weights for {len(locations)} keys of @{edit.keys}")
            weights[row][..., locations] = source
        prior = weights * open_keys
    elif edit.source == "cut":
        rest = old * ~keys
        new = rest / rest.sum(-1, keepdim=True).clamp_min(torch.finfo(old.dtype).tiny)
        return old + edit.strength * (new - old)
    else:
        prior = open_keys.to(old.dtype)
    prior = prior / prior.sum(-1, keepdim=True).clamp_min(torch.finfo(old.dtype).tiny)
    share = mass if edit.preserve else open_keys.sum(-1, keepdim=True) / (old > 0).sum(-1, keepdim=True).clamp_min(1)
    outside = (
        old * ~open_keys * ((1 - share) / (1 - mass).clamp_min(torch.finfo(old.dtype).eps) if not edit.preserve else 1)
    )
    return old + edit.strength * (outside + share * prior - old)


def _token_mask(
    now: Pass, location: Location, span: Tokens, shape: tuple[int, int], device: torch.device
) -> Bool[Tensor, "rows tokens"]:
    """Which queries or keys a span means. While decoding, keys of the cache count as the prompt they were."""
    rows, tokens = shape
    if location.packed or now.real is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if tokens == now.tokens:
        return now.mask(span).to(device)
    if span == ALL:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if now.prompt is None or now.prompt.tokens > tokens:
        raise BadInput(
            f"AttentionPattern: keys of @{span} cannot be told once the prompt is in a cache this run did not fill"
        )
    start = now.prompt.tokens
    generated = now.mask(span)[:, -1:].to(device).expand(rows, tokens - start)  # all were generated, as this token was
    return torch.cat([now.prompt.mask(span).to(device), generated], dim=1)


@contextmanager
def _handled(subject: Subject, handlers: dict[nn.Module, list[Handler]]) -> Iterator[None]:
    """Route the attention of these modules' towers through ours. Blocks may end in any order."""
    configs: dict[int, Any] = {}
    for module in handlers:
        config = getattr(module, "config", None)
        original = str(getattr(config, "_attn_implementation", None)).removeprefix(PREFIX)
        if original not in SUPPORTED:
            raise BadInput(f"{type(module).__name__}: attention patterns need sdpa or eager, this is {original}; "
                           "open the model with attn_implementation='sdpa'")  # fmt: skip
        _register(original)
        configs[id(config)] = config
    for module, mine in handlers.items():
        _handlers.setdefault(module, []).extend(mine)
    for key, config in configs.items():
        _users[key] = _users.get(key, 0) + 1
        if _users[key] == 1:
            config._attn_implementation_internal = PREFIX + config._attn_implementation
    try:
        yield
    finally:
        for key, config in configs.items():
            _users[key] -= 1
            if not _users[key]:
                del _users[key]
                config._attn_implementation_internal = config._attn_implementation.removeprefix(PREFIX)
        for module, mine in handlers.items():
            for handler in mine:
                _handlers[module].remove(handler)
            if not _handlers[module]:
                del _handlers[module]


def _register(original: str) -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = PREFIX + original
    if name in ALL_ATTENTION_FUNCTIONS:
        return

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> Any:
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        mine = _handlers.get(module)
        if mine is None:
            function = ALL_ATTENTION_FUNCTIONS.get(original, eager)
            return function(module, query, key, value, mask, **options)
        if eager is None:
            raise BadInput(
                f"{type(module).__name__}: this family has no eager attention to read a pattern from; "
                "edit its heads instead"
            )
        options.setdefault("scaling", query.shape[-1] ** -0.5)
        _, probabilities = eager(module, query, key, value, _additive(mask, module, query, key, options), **options)
        new = probabilities
        for handler in mine:
            changed = handler(new)
            new = new if changed is None else changed
        if new is probabilities:
            function = ALL_ATTENTION_FUNCTIONS.get(original, eager)
            return function(module, query, key, value, mask, **options)
        values = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
        return (new.to(values.dtype) @ values).transpose(1, 2).contiguous(), new

    ALL_ATTENTION_FUNCTIONS.register(name, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[original])


def _additive(
    mask: Tensor | None, module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]
) -> Tensor | None:
    """The mask as numbers to add, which is what eager functions expect; sdpa leaves a plain causal mask out."""
    lowest = torch.finfo(query.dtype).min
    if mask is None:
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if not causal or query.shape[2] == 1:
            return None
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(
            key.shape[2] - query.shape[2]
        )
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, lowest)

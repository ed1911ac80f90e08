"""What is inside one block? Who mixes tokens, who transforms them, and which two layers write to the residual stream.

1. The mixer (attention, or what stands for it in a hybrid) is the first module that says so by name or class.
2. Its writer is its last linear layer with the stream's width that is no reader by name; query heads are what it reads.
3. The MLP is the child called so, or else the child that holds the last such layer outside every mixer; neurons are
   what that layer reads.

A LoRA layer counts as the layer it wraps, so that its adapter is part of what it writes.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from glasshouse.model.anatomy import Layer

HEADS = ("num_v_heads", "num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "num_q_heads")
READERS = re.compile(r"(q|k|v|qkv|r|query|key|value|gate)(_proj|_a_proj|_b_proj)?")
"""Linear layers that read the stream, by the last word of their path; they are never a writer."""
MIXER = re.compile(r"attn|attention|mamba|deltanet|shortconv|rwkv|recurrent")
MLPS = ("mlp", "feed_forward", "ffn", "moe", "block_sparse_moe")


def read_layer(block: nn.Module, paths: Mapping[nn.Module, str], width: int, config: PreTrainedConfig) -> Layer:
    """The parts of one block, by path."""
    mixers = [m for m in breadth_first(block, nn.Module) if is_mixer(m, paths[m])]
    attention = mixers[0] if mixers else None
    attention_writer = _writer(linear_layers(attention), paths, width) if attention is not None else None
    heads, head_width = _heads(attention, attention_writer, config)
    mixing = {m for mixer in mixers for m in mixer.modules()}
    mlp = next((child for name, child in block.named_children() if name in MLPS and child not in mixing), None)
    mlp_writer = _writer((m for m in linear_layers(mlp or block) if m not in mixing), paths, width)
    if mlp is None and mlp_writer is not None:
        mlp = next(child for child in block.children() if mlp_writer in set(child.modules()))
    sizes = linear_sizes(mlp_writer) if mlp_writer is not None else None
    return Layer(
        path=paths[block],
        attention=paths[attention] if attention is not None else None,
        attention_writer=paths[attention_writer] if attention_writer is not None else None,
        heads=heads,
        head_width=head_width,
        mlp=paths[mlp] if mlp is not None else None,
        mlp_writer=paths[mlp_writer] if mlp_writer is not None else None,
        neurons=sizes[0] if sizes else None,
    )


def linear_sizes(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of what multiplies by a matrix: Linear, its quantised and LoRA-wrapped kinds, GPT-2's Conv1D."""
    wrapped = getattr(module, "base_layer", module)
    for names in (("in_features", "out_features"), ("nx", "nf")):
        sizes = tuple(getattr(wrapped, name, None) for name in names)
        if all(isinstance(size, int) for size in sizes):
            return sizes  # pyright: ignore[reportReturnType]
    return None


def linear_layers(root: nn.Module) -> Iterator[nn.Module]:
    """Linear layers in order of definition; does not look inside a LoRA wrapper, which is one layer."""
    if linear_sizes(root):
        yield root
        return
    for child in root.children():
        yield from linear_layers(child)


def breadth_first(root: nn.Module, kind: type[nn.Module], skip: nn.Module | None = None) -> Iterator[Any]:
    """Modules of a kind below `root`, shallow ones first, without what lies in `skip`."""
    queue = deque(root.children())
    while queue:
        module = queue.popleft()
        if module is skip:
            continue
        if isinstance(module, kind):
            yield module
        queue.extend(module.children())


def holds_linear(module: nn.Module) -> bool:
    """True for a module that is no linear layer but has some."""
    return linear_sizes(module) is None and any(map(linear_sizes, module.modules()))


def is_mixer(module: nn.Module, path: str) -> bool:
    """True for attention, and for what stands for it in a hybrid."""
    name, kind = path.rpartition(".")[2].lower(), type(module).__name__.lower()
    says = MIXER.search(name) or MIXER.search(kind)
    return bool(says) and "norm" not in kind and "residual" not in kind and holds_linear(module)


def _writer(layers: Iterable[nn.Module], paths: Mapping[nn.Module, str], width: int) -> nn.Module | None:
    ends = [layer for layer in layers if (sizes := linear_sizes(layer)) and sizes[1] == width]
    writers = [layer for layer in ends if not READERS.fullmatch(paths[layer].rpartition(".")[2])]
    return writers[-1] if writers else None


def _heads(
    attention: nn.Module | None, writer: nn.Module | None, config: PreTrainedConfig
) -> tuple[int | None, int | None]:
    sizes = linear_sizes(writer) if writer is not None else None
    if attention is None or sizes is None:
        return None, None
    says = "attention" in type(attention).__name__.lower()
    for owner in (attention, *attention.children(), *([config] if says else [])):  # a convolution has no heads
        for name in HEADS:
            heads = getattr(owner, name, None)
            if isinstance(heads, int) and heads > 0 and sizes[0] % heads == 0:
                return heads, sizes[0] // heads
    return None, None

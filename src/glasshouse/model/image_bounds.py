"""How large may an image be for a model? At most so many pixels, in its own shape.

Families that take images at their own size (Qwen2-VL and its kin) have a setting for it, which is used. For any other
family larger images are scaled down before its processor sees them.
"""

import copy
import math
from dataclasses import is_dataclass, replace
from typing import Any

from PIL.Image import Image, Resampling

from glasshouse.values.errors import BadInput

LEAST = 1024
"""32 x 32: an image of fewer pixels shows nothing."""


def check_bound(most: int | None) -> None:
    """Refuse a bound that leaves nothing of an image."""
    if most is not None and most < LEAST:
        raise BadInput(f"--max-pixels {most}: must be at least {LEAST:,}, which is 32 x 32")


def within(image: Image, most: int | None) -> Image:
    """The image, scaled down in its own shape where it has more than `most` pixels."""
    if most is None or image.width * image.height <= most:
        return image
    scale = math.sqrt(most / (image.width * image.height))
    size = (max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale)))
    if size[0] * size[1] > most:  # a line of one pixel in width
        size = (min(size[0], most), 1) if size[1] == 1 else (1, min(size[1], most))
    return image.resize(size, Resampling.LANCZOS)


def bounded(processor: Any, most: int | None) -> tuple[Any, int | None]:
    """The processor with the bound in its own setting, or as it is with the bound that is left to others."""
    check_bound(most)
    own = None if most is None else _with_own_bound(processor, most)
    return (processor, most) if own is None else (own, None)


def _with_own_bound(processor: Any, most: int) -> Any:
    """A copy of the processor in which the family's own setting holds the bound; None where it has none."""
    images = getattr(processor, "image_processor", processor)
    size = getattr(images, "size", None)
    edges: Any = vars(size) if is_dataclass(size) else size
    if not hasattr(images, "merge_size") or not isinstance(edges, dict) or not edges.get("longest_edge"):
        return None
    # These families call numbers of pixels edges.
    bound = {name: min(most, edges[name]) for name in ("shortest_edge", "longest_edge") if edges.get(name)}
    bounded = copy.deepcopy(processor)
    inner = getattr(bounded, "image_processor", bounded)
    inner.size = replace(size, **bound) if is_dataclass(size) and not isinstance(size, type) else {**edges, **bound}
    return bounded

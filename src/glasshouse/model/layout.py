"""What does the encoder of a prompt know that the model's inputs do not show? Where each answer begins, how many images
each example has, and how token ids read as text.

`laid_out` hands it to every forward pass that runs inside; hooks read it through `spans.Pass`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class ImageInputs:
    """What the processor's outputs say of the shape of the images. `generate` may encode images ahead of the prompt, so
    a forward pass need not see them."""

    pixels: tuple[int, ...]
    """Shape of `pixel_values`."""
    grids: tuple[tuple[int, int, int], ...] | None = None
    """Frames, rows and columns of patches of each image (`image_grid_thw`)."""
    sizes: tuple[tuple[int, int], ...] | None = None
    """Height and width of each image (`image_sizes`)."""
    used: tuple[int, ...] | None = None
    """How many tiles of each row hold an image (`pixel_attention_mask`)."""
    padded: bool = False
    """Some tile holds padding beside the image."""

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> "ImageInputs | None":
        """Read off what a processor returned; None without an image."""
        pixels, shown = inputs.get("pixel_values"), inputs.get("pixel_attention_mask")
        if not isinstance(pixels, Tensor):
            return None
        used, padded = None, False
        if isinstance(shown, Tensor) and shown.ndim == 4:
            tiles = shown.flatten(2).bool()
            used, padded = tuple(tiles.any(2).sum(1).tolist()), bool((tiles.any(2) & ~tiles.all(2)).any())
        grids, sizes = (
            tuple(map(tuple, value.tolist())) if isinstance(value, Tensor) else None
            for value in (inputs.get("image_grid_thw"), inputs.get("image_sizes"))
        )
        return cls(tuple(pixels.shape), grids, sizes, used, padded)  # pyright: ignore[reportArgumentType] - lists of int


@dataclass(frozen=True)
class PromptLayout:
    """The parts of a batch's prompts."""

    answers: Int[Tensor, " rows"]
    """How many tokens at the end of each row are the answer."""
    images: tuple[int, ...]
    """How many images each row has."""
    alike: bool
    """All rows with images have equally many, and all images the same size."""
    examples: tuple[str, ...] = ()
    """The id of each row's example."""
    image_inputs: ImageInputs | None = None
    """The shape of the images; None where there is none."""
    tokenizer: Any = field(default=None, compare=False, repr=False)
    """Reads token ids as text; None for a model that reads none."""

    def name(self, row: int) -> str:
        """How errors call a row."""
        return f"example {self.examples[row]}" if self.examples else f"row {row}"


_current: ContextVar[PromptLayout | None] = ContextVar("layout", default=None)


def current_layout() -> PromptLayout | None:
    """The layout of the prompts that are running now; None when somebody calls the model directly."""
    return _current.get()


@contextmanager
def laid_out(layout: PromptLayout | None) -> Iterator[None]:
    """Inside, forward passes know the layout of their prompts."""
    token = _current.set(layout)
    try:
        yield
    finally:
        _current.reset(token)

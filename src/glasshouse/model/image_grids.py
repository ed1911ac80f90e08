"""Which image token shows which part of the image? Read off the processor's own outputs, refused where they do not
tell.

- One frame per image (LLaVA, Gemma 3, PaliGemma, Pixtral): the frame's height and width, and the number of tokens, give
  the grid. Merging patches, by pixel shuffle or pooling, makes cells larger and keeps their order.
- `image_grid_thw` (Qwen2-VL and its descendants): the same, from the grid of patches of each image.
- Tiles that the prompt labels `row_2_col_1` (Idefics3, SmolVLM): each is a grid that shows its share of the image; the
  unlabelled overview shows all of it.

Tiles without labels (LLaVA-NeXT, InternVL) and projectors with attention of their own (Q-Former, resampler) are
refused: there no token stands for one part of the image.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from glasshouse.model.anatomy import Anatomy
from glasshouse.model.layout import ImageInputs, PromptLayout
from glasshouse.values.errors import BadInput

_LABEL = re.compile(r"row_(\d+)_col_(\d+)")


@dataclass(frozen=True)
class Tile:
    """Image tokens in a grid, and the shares of the image's height and width that the grid shows."""

    columns: Int[Tensor, "rows columns"]
    """Where each cell's token stands in its row of the batch."""
    height: tuple[float, float] = (0.0, 1.0)
    width: tuple[float, float] = (0.0, 1.0)

    def showing(self, rows: tuple[float, float], columns: tuple[float, float]) -> Int[Tensor, " tokens"]:
        """The tokens whose cells overlap these shares of the image."""
        down = _overlapping(rows, self.height, self.columns.shape[0])
        across = _overlapping(columns, self.width, self.columns.shape[1])
        return self.columns[down][:, across].flatten()


def image_tiles(
    ids: Int[Tensor, "rows tokens"], image: Bool[Tensor, "rows tokens"], layout: PromptLayout, anatomy: Anatomy
) -> list[list[list[Tile]]]:
    """The tiles of every image, by row of the batch and image of its example."""
    if anatomy.projector is not None and anatomy.projector.mixes:
        raise BadInput(
            f"image regions: the projector of {anatomy.family} has attention of its own, "
            "so none of its tokens stands for one part of the image; use @image"
        )
    shapes, count = layout.image_inputs, sum(layout.images)
    if shapes is None:
        return [[] for _ in range(len(image))]
    if shapes.grids is not None and len(shapes.grids) == count and all(frames == 1 for frames, _, _ in shapes.grids):
        return _whole_images(image, layout, [(height, width) for _, height, width in shapes.grids])
    if len(shapes.pixels) == 4 and shapes.pixels[0] == count:
        return _whole_images(image, layout, shapes.sizes or [shapes.pixels[-2:]] * count)  # pyright: ignore[reportArgumentType]
    if len(shapes.pixels) == 5 and shapes.pixels[0] == len(image):
        return [list(_labelled(ids[row], image[row], layout, shapes, row)) for row in range(len(image))]
    raise _refusal("it is not shown as one frame, nor as tiles with labels in the prompt")


def _whole_images(
    image: Bool[Tensor, "rows tokens"], layout: PromptLayout, sizes: Sequence[tuple[int, int]]
) -> list[list[list[Tile]]]:
    """One tile per image. All cells have one size, so the areas of the images say how many tokens each has."""
    tokens, area = int(image.sum()), sum(height * width for height, width in sizes)
    edge = sqrt(area / tokens) if tokens else 1.0
    grids = iter([_grid(height / edge, width / edge) for height, width in sizes])
    tiles: list[list[list[Tile]]] = []
    for row, count in enumerate(layout.images):
        columns = image[row].nonzero()[:, 0]
        shapes = [next(grids) for _ in range(count)]
        if sum(rows * width for rows, width in shapes) != len(columns):
            raise _refusal(f"{layout.name(row)} has {len(columns)} image tokens, its images ask for {shapes}")
        parts = columns.split([rows * width for rows, width in shapes])
        tiles.append([[Tile(part.view(shape))] for part, shape in zip(parts, shapes, strict=True)])
    return tiles


def _labelled(
    ids: Int[Tensor, " tokens"], image: Bool[Tensor, " tokens"], layout: PromptLayout, shapes: ImageInputs, row: int
) -> Iterator[list[Tile]]:
    """The tiles of each image of one row, from the labels before each run of image tokens."""
    if not layout.images[row]:
        return
    runs = _runs(image)
    tiles = shapes.pixels[1] if shapes.used is None else shapes.used[row]
    if len(runs) != tiles:
        raise _refusal(f"{layout.name(row)} has {tiles} tiles in {len(runs)} runs of image tokens")
    if shapes.padded:
        raise _refusal("a tile holds padding beside the image")
    height, width = shapes.pixels[-2:]
    labels: list[tuple[int, int] | None] = []
    grids: list[Int[Tensor, "rows columns"]] = []
    images, before = 0, 0
    for start, end in runs:
        edge = sqrt(height * width / (end - start))
        grids.append(torch.arange(start, end, device=ids.device).view(_grid(height / edge, width / edge)))
        label = _LABEL.findall(layout.tokenizer.decode(ids[before:start].tolist()))
        labels.append((int(label[-1][0]), int(label[-1][1])) if label else None)
        before = end
        if label:
            continue
        yield _arranged(grids, labels)  # the overview ends its image
        grids, labels, images = [], [], images + 1
    if grids or images != layout.images[row]:
        raise _refusal(f"{layout.name(row)} has {layout.images[row]} images, its prompt shows {images} whole ones")


def _arranged(grids: list[Int[Tensor, "rows columns"]], labels: list[tuple[int, int] | None]) -> list[Tile]:
    rows, columns = (max((label[axis] for label in labels if label), default=1) for axis in (0, 1))
    return [
        Tile(grid)
        if label is None
        else Tile(
            grid,
            height=((label[0] - 1) / rows, label[0] / rows),
            width=((label[1] - 1) / columns, label[1] / columns),
        )
        for grid, label in zip(grids, labels, strict=True)
    ]


def _runs(image: Bool[Tensor, " tokens"]) -> list[tuple[int, int]]:
    """Start and end of every run of neighbouring image tokens."""
    edges = torch.diff(image.int(), prepend=image.new_zeros(1).int(), append=image.new_zeros(1).int())
    return list(zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True))


def _grid(rows: float, columns: float) -> tuple[int, int]:
    if abs(rows - round(rows)) > 1e-6 or abs(columns - round(columns)) > 1e-6:
        raise _refusal(f"its tokens would form {rows:.2f} rows and {columns:.2f} columns")
    return round(rows), round(columns)


def _overlapping(share: tuple[float, float], shown: tuple[float, float], count: int) -> Bool[Tensor, " count"]:
    """Which of `count` equal cells across `shown` overlap the share; touching at an edge is no overlap."""
    edges = torch.linspace(shown[0], shown[1], count + 1, dtype=torch.float64)
    return (edges[1:] > share[0] + 1e-9) & (edges[:-1] < share[1] - 1e-9)


def _refusal(why: str) -> BadInput:
    return BadInput(f"image regions: the grid of the image's tokens cannot be known here ({why}); use @image")

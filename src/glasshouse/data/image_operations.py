"""How does an image processor that is written for torchvision run without it? With the same operations, by torch alone.

torchvision's operations on tensors are thin layers over torch: `resize` is `torch.nn.functional.interpolate` with
antialiasing, `pad` is `torch.nn.functional.pad`. Here are those that the image processors of transformers call, under
torchvision's names and with its arguments. Eight-bit images are resized in float32 and rounded, so that every CPU gives
the same pixels; torchvision itself differs by one level between CPUs.

`torch_operations` lends them to transformers' files while these are imported. torchvision stays missing for everybody
else: transformers, accelerate or timm do not take it for installed.
"""

import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import image_processing_backends, image_utils

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""
_lending = threading.RLock()


class InterpolationMode(Enum):
    """Ways to resize, by torchvision's names."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


SMOOTH = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
FROM_PIL = {
    **{Image.Resampling[mode.name]: mode for mode in InterpolationMode if mode.name in Image.Resampling.__members__},
    Image.Resampling.NEAREST: InterpolationMode.NEAREST_EXACT,
}


def resize(
    image: Tensor,
    size: int | Sequence[int],
    interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Tensor:
    """The image at another size; one number is the length of its shorter edge."""
    height, width = _sized(image.shape[-2], image.shape[-1], size, max_size)
    if (height, width) == tuple(image.shape[-2:]):
        return image
    if isinstance(interpolation, int):  # Pillow's number
        interpolation = FROM_PIL[Image.Resampling(interpolation)]
    smooth = interpolation in SMOOTH
    if not smooth and interpolation not in (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT):
        raise ValueError(f"{interpolation.value} is no way to resize tensors; use bilinear or bicubic")
    pixels = image.reshape(-1, *image.shape[-3:])
    exact = pixels if pixels.is_floating_point() else pixels.float()
    resized = F.interpolate(
        exact,
        size=(height, width),
        mode=interpolation.value,
        align_corners=False if smooth else None,
        antialias=bool(antialias) and smooth,
    )
    if not image.is_floating_point():
        limits = torch.iinfo(image.dtype)
        resized = resized.round().clamp(limits.min, limits.max).to(image.dtype)
    return resized.reshape(*image.shape[:-2], height, width)


def _sized(height: int, width: int, size: int | Sequence[int], longest: int | None) -> tuple[int, int]:
    edges = [size] if isinstance(size, int) else list(size)
    if len(edges) == 2:
        return edges[0], edges[1]
    short, long = sorted((height, width))
    new_short, new_long = edges[0], int(edges[0] * long / short)
    if longest is not None and new_long > longest:
        new_short, new_long = int(longest * new_short / new_long), longest
    return (new_short, new_long) if height <= width else (new_long, new_short)


def pad(
    image: Tensor,
    padding: int | Sequence[int],
    fill: float | Sequence[float] | None = 0,
    padding_mode: str = "constant",
) -> Tensor:
    """The image with a margin: one width for all sides, one for each axis, or left, top, right and bottom."""
    widths = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = {1: widths * 4, 2: widths * 2, 4: widths}[len(widths)]
    margin = [left, right, top, bottom]
    if padding_mode != "constant":
        if padding_mode not in ("edge", "reflect"):
            raise ValueError(f"{padding_mode} is no way to pad tensors; use constant, edge or reflect")
        mode = "replicate" if padding_mode == "edge" else padding_mode
        flat = image.reshape(-1, *image.shape[-3:])
        padded = F.pad(flat.float(), margin, mode=mode).to(image.dtype)
        return padded.reshape(*image.shape[:-2], *padded.shape[-2:])
    if fill is None or isinstance(fill, (int, float)):
        return F.pad(image, margin, value=fill or 0)
    inside = F.pad(torch.ones_like(image, dtype=torch.bool), margin, value=False)
    colour = torch.as_tensor(list(fill), dtype=image.dtype, device=image.device).view(-1, 1, 1)
    return torch.where(inside, F.pad(image, margin), colour)


def crop(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A window of the image; what lies outside the image is black."""
    rows, columns = image.shape[-2:]
    margin = [max(0, -left), max(0, -top), max(0, left + width - columns), max(0, top + height - rows)]
    wide = pad(image, margin) if any(margin) else image
    top, left = max(0, top), max(0, left)
    return wide[..., top : top + height, left : left + width]


def normalize(
    image: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor, inplace: bool = False
) -> Tensor:
    """(image - mean) / std, by channel."""
    shift, scale = (
        torch.as_tensor(value, dtype=image.dtype, device=image.device).view(-1, 1, 1) for value in (mean, std)
    )
    if bool((scale == 0).any()):
        raise ValueError("a standard deviation of zero would divide by zero")
    return image.sub_(shift).div_(scale) if inplace else (image - shift) / scale


def to_dtype(image: Tensor, dtype: torch.dtype = torch.float32, scale: bool = False) -> Tensor:
    """The image as another type; with `scale`, 0 to 255 becomes 0 to 1 and the other way round."""
    if not scale or image.is_floating_point() == dtype.is_floating_point:
        return image.to(dtype)
    if dtype.is_floating_point:
        return image.to(dtype) / torch.iinfo(image.dtype).max
    return (image * (torch.iinfo(dtype).max + 1 - 1e-3)).to(dtype)  # equal shares of 0 to 1 for every level


def grayscale_to_rgb(image: Tensor) -> Tensor:
    """Three equal channels where there is one; other images as they are."""
    if image.shape[-3] != 1:
        return image
    return image.expand(*image.shape[:-3], 3, *image.shape[-2:])


def rgb_to_grayscale(image: Tensor, num_output_channels: int = 1) -> Tensor:
    """The grey image, in one channel or in three equal ones."""
    weights = torch.tensor(GREY, device=image.device).view(3, 1, 1)
    grey = (image.float() * weights).sum(-3, keepdim=True).to(image.dtype)
    return grey if num_output_channels == 1 else grayscale_to_rgb(grey)


def pil_to_tensor(image: Image.Image) -> Tensor:
    """Channels, rows and columns of an image, as its bytes."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


@contextmanager
def torch_operations() -> Iterator[None]:
    """Inside, transformers' files that import torchvision's operations get these."""
    with _lending:
        functional = sys.modules[__name__]
        backends, utils = image_processing_backends.__dict__, image_utils.__dict__
        backends.setdefault("tvF", functional)
        for names in (backends, utils):  # transformers leaves these tables empty where torchvision is missing
            names["pil_torch_interpolation_mapping"] = names.get("pil_torch_interpolation_mapping") or FROM_PIL
        lent = _lent(functional)
        sys.modules.update(lent)
        try:
            yield
        finally:
            for name in lent:
                del sys.modules[name]


def _lent(functional: ModuleType) -> dict[str, ModuleType]:
    """Modules under torchvision's names that hold these operations and nothing else."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
    modules = {name: ModuleType(name) for name in names}
    for module in modules.values():
        vars(module).update(functional=functional, InterpolationMode=InterpolationMode, __path__=[])
    modules["torchvision"].transforms = modules["torchvision.transforms"]  # pyright: ignore[reportAttributeAccessIssue]
    modules["torchvision.transforms"].v2 = modules["torchvision.transforms.v2"]  # pyright: ignore[reportAttributeAccessIssue]
    functionals = {f"{name}.functional": functional for name in names[1:]}
    return modules | functionals


def with_torch(module: str, name: str) -> Any:
    """A class that transformers hides where torchvision is missing, running on these operations."""
    with torch_operations():
        return getattr(importlib.import_module(module), name)

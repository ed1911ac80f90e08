"""Do torch's operations give an image processor the pixels that torchvision documents, and is nothing else changed?"""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import is_torchvision_available

from glasshouse.data import image_operations as operations
from glasshouse.data.image_operations import InterpolationMode


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("mode", ["BILINEAR", "BICUBIC"])
@pytest.mark.parametrize("size", [(20, 24), (75, 90)], ids=["smaller", "larger"])
def test_resizing_agrees_with_pillow_to_one_level(mode: str, size: tuple[int, int]):
    image = noise(3, 48, 64) // 2 + 64  # Pillow clips what overshoots between its two passes
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling[mode])
    resized = operations.resize(image, size, InterpolationMode[mode])
    assert torch.equal(operations.resize(image, size, Image.Resampling[mode].value), resized)
    assert resized.dtype == torch.uint8
    difference = resized.permute(1, 2, 0).numpy().astype(int) - np.array(expected).astype(int)
    assert np.abs(difference).max() <= 1


def test_one_number_is_the_shorter_edge():
    assert operations.resize(noise(3, 40, 80), 20).shape == (3, 20, 40)
    assert operations.resize(noise(3, 80, 40), [20]).shape == (3, 40, 20)
    assert operations.resize(noise(3, 40, 80), 20, max_size=30).shape == (3, 15, 30)
    image = noise(3, 40, 40)
    assert operations.resize(image, (40, 40)) is image


def test_a_way_to_resize_that_tensors_lack_is_refused():
    with pytest.raises(ValueError, match="lanczos is no way to resize tensors; use bilinear or bicubic"):
        operations.resize(noise(3, 8, 8), (4, 4), InterpolationMode.LANCZOS)


def test_a_margin_has_its_colour_and_the_image_its_pixels():
    image = noise(2, 3, 4, 5)
    padded = operations.pad(image, [1, 2, 3, 0], fill=[7, 8, 9])
    assert padded.shape == (2, 3, 6, 9)
    assert torch.equal(padded[..., 2:, 1:6], image)
    assert padded[0, :, 0, 0].tolist() == padded[1, :, -1, -1].tolist() == [7, 8, 9]
    assert operations.pad(image, 2).shape == (2, 3, 8, 9)
    assert torch.equal(operations.pad(image, [2, 1])[..., 1:5, 2:7], image)
    assert torch.equal(operations.pad(image, 1, padding_mode="edge")[..., 0, 1:6], image[..., 0, :])
    assert torch.equal(operations.pad(image, 1, padding_mode="reflect")[..., 0, 1:6], image[..., 1, :])
    with pytest.raises(ValueError, match="symmetric is no way to pad tensors"):
        operations.pad(image, 1, padding_mode="symmetric")


def test_a_window_reaches_beyond_the_image():
    image = noise(3, 6, 6)
    assert torch.equal(operations.crop(image, 1, 2, 3, 4), image[:, 1:4, 2:6])
    beyond = operations.crop(image, -1, -2, 4, 10)
    assert torch.equal(beyond[:, 1:, 2:8], image[:, :3])
    assert int(beyond[:, 0].sum()) == int(beyond[:, :, :2].sum()) == int(beyond[:, :, 8:].sum()) == 0


def test_normalising_is_shift_and_scale_by_channel():
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = torch.stack([(image[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    assert torch.allclose(operations.normalize(image, mean, std), expected, atol=1e-15)
    assert operations.normalize(image, mean, std, inplace=True) is image
    assert torch.allclose(image, expected, atol=1e-15)
    with pytest.raises(ValueError, match="zero"):
        operations.normalize(image, mean, [0, 1, 1])


def test_every_level_survives_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    floats = operations.to_dtype(levels, torch.float32, scale=True)
    assert (floats.min(), floats.max()) == (0, 1)
    assert torch.equal(operations.to_dtype(floats, torch.uint8, scale=True), levels)
    assert operations.to_dtype(levels, torch.float32).max() == 255


def test_grey_is_the_weighted_mean_and_spreads_to_three_channels():
    image = noise(3, 4, 4)
    grey = operations.rgb_to_grayscale(image)
    by_hand = sum(weight * image[c].double() for c, weight in enumerate((0.2989, 0.587, 0.114)))
    assert grey.shape == (1, 4, 4)
    assert (grey[0].double() - by_hand).abs().max() <= 1
    assert operations.rgb_to_grayscale(image, 3).shape == (3, 4, 4)
    assert operations.grayscale_to_rgb(image) is image


def test_bytes_of_an_image_come_as_channels_first():
    pixels = noise(5, 7, 3).numpy()
    assert torch.equal(operations.pil_to_tensor(Image.fromarray(pixels)), torch.from_numpy(pixels).permute(2, 0, 1))
    assert operations.pil_to_tensor(Image.fromarray(pixels[..., 0])).shape == (1, 5, 7)


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed, so nothing is lent")
def test_a_hidden_class_runs_and_torchvision_stays_missing():
    found = operations.with_torch("transformers.models.llama4.image_processing_llama4", "Llama4ImageProcessor")
    pixels = found(size={"height": 32, "width": 32})([Image.new("RGB", (40, 20), "red")], return_tensors="pt")
    assert pixels["pixel_values"].shape[-2:] == (32, 32)
    assert pixels["pixel_values"].isfinite().all()
    assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
    assert importlib.util.find_spec("torchvision") is None
    assert not is_torchvision_available()

"""What does a model see of an image, before its colours are rescaled? The picture its processor makes of it.

    seen = as_seen(processor, image)      resized, cropped and padded: one value of `seen` is one value the model gets

Processors differ in what they make: one picture, rows of patches, several tiles. Pictures and rows of patches are read
back. Tiles show the same part of an image more than once, at two sizes, so they have no one picture: they are refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glasshouse.values.errors import BadInput

CURE = (
    "switch image splitting off and set its 'size' to the final size, "
    "or pass processor=None and accept that it may crop or blur the trigger"
)
WRONG = "is this the model's processor? If so, give a picture of another shape"


def as_seen(processor: Any, image: Image.Image) -> Image.Image:
    """The image at the geometry that the processor hands the model."""
    pictures = getattr(processor, "image_processor", processor)
    name = type(pictures).__name__
    # What the whole processor tells its part for images when a model is asked, such as crop_to_patches.
    settings = dict(getattr(processor, "images_kwargs", None) or {}) if pictures is not processor else {}
    settings |= {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    try:
        processed = pictures(images=[image.convert("RGB")], **settings)
        values = np.asarray(processed["pixel_values"])
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, RuntimeError) as problem:
        reason = (str(problem) or type(problem).__name__).splitlines()[0]
        raise BadInput(f"{name}: it refuses a picture of {image.width}x{image.height} ({reason}); {WRONG}") from None
    picture = _joined(pictures, processed, values) if "image_grid_thw" in processed else _only(values)
    if picture is None:
        shape = "x".join(map(str, values.shape))
        raise BadInput(f"{name}: it makes several pictures of one, or none in RGB ({shape} values); {CURE}")
    return Image.fromarray(np.clip(np.rint(np.moveaxis(picture, 0, -1)), 0, 255).astype(np.uint8))


def stays(processor: Any, image: Image.Image) -> None:
    """Refuse a processor that would change a picture it is meant to hand on as it is."""
    again = as_seen(processor, image)
    if again.size == image.size:
        change = np.abs(np.asarray(again, np.int16) - np.asarray(image, np.int16)).max()
        if change <= 1:
            return
        told = f"changes it by up to {change} of 255"
    else:
        told = f"makes it {again.width}x{again.height}"
    name = type(getattr(processor, "image_processor", processor)).__name__
    raise BadInput(f"{name}: it does not hand on a picture of {image.width}x{image.height}, but {told}; {CURE}")


def _only(values: NDArray[Any]) -> NDArray[Any] | None:
    """The one picture [3, height, width] there is, if there is one."""
    while values.ndim > 3 and len(values) == 1:
        values = values[0]
    return values if values.ndim == 3 and len(values) == 3 else None


def _joined(pictures: Any, processed: Any, values: NDArray[Any]) -> NDArray[Any] | None:
    """The picture out of rows of patches, as the Qwen processors write them: patches of one token are neighbours."""
    patch, merge, frames = (int(getattr(pictures, f"{n}_size", 0)) for n in ("patch", "merge", "temporal_patch"))
    (_, down, across), *more = np.asarray(processed["image_grid_thw"]).tolist()
    if more or not patch or not merge or values.shape != (down * across, 3 * frames * patch * patch):
        return None
    split = values.reshape(down // merge, across // merge, merge, merge, 3, frames, patch, patch)[..., 0, :, :]
    # token row, token column, row in token, column in token, channel, y, x
    return split.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, down * patch, across * patch)

"""How are examples prepared for this model? Its repository's processor, opened from the plain install.

1. The processor's class: as the repository's files name it, else as transformers maps the family.
2. Its images: by Pillow where transformers has such a class, else by torch (`image_operations`), which needs no
   torchvision. Where torchvision is installed, transformers chooses it.
3. Its videos and sounds: no example holds any, so a part that cannot be loaded is left out and its settings are kept.
4. All that the model reads must be in it: a tokenizer for text, image processing for images.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    ImageProcessingMixin,
    PreTrainedConfig,
    ProcessorMixin,
)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import PushToHubMixin, cached_file, is_torchvision_available

from glasshouse.data.image_operations import with_torch
from glasshouse.data.strangers import strangers_files
from glasshouse.model.configs import FIX, check_entries
from glasshouse.values.errors import BadInput

PROCESSOR, IMAGES = "processor_config.json", "preprocessor_config.json"
VIDEOS, TOKENIZER = "video_preprocessor_config.json", "tokenizer_config.json"
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
FIX_FILES = "compare its tokenizer and preprocessor files with the original, or pass processor="
LONGEST_EDGE = 16_384
MOST_PIXELS = LONGEST_EDGE**2
FOR_VIDEOS = {"SmolVLMProcessor": "num2words"}
"""Packages that a processor's file asks for at once and uses for videos alone."""


class LeftOut(PushToHubMixin):
    """In the place of a part for videos or sounds: what the repository states about it, and nothing that runs."""

    _auto_class = None

    def __init__(self, kind: str, stated: Mapping[str, Any]) -> None:
        self.kind, self.stated = kind, dict(stated)
        self.model_input_names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Settings by name, as processors read them when they are built; None where the file leaves the default."""
        if name.startswith("_") or "stated" not in vars(self):
            raise AttributeError(name)
        return self.stated.get(name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        raise BadInput(f"{self.kind}: this part was left out; for videos install torchvision for your torch")

    def to_dict(self) -> dict[str, Any]:
        return dict(self.stated)


def load_processor(name: str, hub: Mapping[str, Any], config: PreTrainedConfig) -> Any:
    """The processor, tokenizer or image processor of a model; all that the model reads must be in it."""
    sees, reads = _sees(config), hasattr(config.get_text_config(), "vocab_size")
    if Path(name).is_dir():
        _check_files(Path(name), sees=sees, reads=reads)
    with strangers_files(name, "no processor or tokenizer could be loaded", FIX_FILES):
        processor = _opened(name, hub, config, sees=sees, reads=reads)
    if reads and not hasattr(processor, "tokenizer") and not hasattr(processor, "pad_token"):
        raise BadInput(f"{name}: its processor came without a tokenizer; {FIX_FILES}")
    if sees and not hasattr(processor, "image_processor") and not hasattr(processor, "size"):
        raise BadInput(f"{name}: its processor came without image processing; {FIX_FILES}")
    return processor


def _sees(config: PreTrainedConfig) -> bool:
    return hasattr(config, "vision_config") or config.model_type in PROCESSOR_MAPPING_NAMES


def _opened(name: str, hub: Mapping[str, Any], config: PreTrainedConfig, *, sees: bool, reads: bool) -> Any:
    if hub["trust_remote_code"]:
        return AutoProcessor.from_pretrained(name, **hub)
    found = _processor_class(name, hub, config)
    if found is not None:
        return _composed(found, name, hub, config)
    if reads and not sees:
        return AutoTokenizer.from_pretrained(name, **hub)
    return _images(name, hub, config) if not reads else AutoProcessor.from_pretrained(name, **hub)


def _processor_class(name: str, hub: Mapping[str, Any], config: PreTrainedConfig) -> type[ProcessorMixin] | None:
    """The class that composes tokenizer and image processing; None for a model that needs only one of them."""
    stated = [_json(name, file, hub).get("processor_class") for file in (PROCESSOR, IMAGES, VIDEOS, TOKENIZER)]
    for wanted in (*stated, PROCESSOR_MAPPING_NAMES.get(config.model_type)):
        found = _class_named(wanted, ProcessorMixin) if isinstance(wanted, str) else None
        if found is not None:
            return found
    return None


def _class_named(name: str, kind: type) -> Any:
    """A class of transformers by its name, also one that it hides where torchvision is missing; None where there is
    none of that kind."""
    found: Any = getattr(transformers, name, None)
    if getattr(found, "is_dummy", False):
        missing = [package for package in found._backends if package != "torchvision"]
        if missing:
            raise BadInput(f"{name}: needs {', '.join(missing)}: pip install {' '.join(missing)}")
        found = with_torch(found.__module__, name)
    return found if isinstance(found, type) and issubclass(found, kind) else None


def _composed(found: Any, name: str, hub: Mapping[str, Any], config: PreTrainedConfig) -> ProcessorMixin:
    """The processor with its parts, those for videos and sounds only where they can be loaded."""

    class Opened(found):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, LeftOut):
                return LeftOut
            return super().check_argument_for_proper_class(argument_name, argument)

    Opened.__name__, Opened.__qualname__, Opened.__module__ = found.__name__, found.__qualname__, found.__module__
    _leave_out_package(found)
    settings, options = Opened.get_processor_dict(name, **hub)
    parts = [_part(kind, settings, name, hub, config) for kind in Opened.get_attributes()]
    return Opened.from_args_and_dict(parts, settings, **options)


def _part(kind: str, settings: Mapping[str, Any], name: str, hub: Mapping[str, Any], config: PreTrainedConfig) -> Any:
    if kind == "image_processor":
        return _images(name, hub, config)
    if kind == "tokenizer":
        return AutoTokenizer.from_pretrained(name, **hub)
    if "tokenizer" in kind:  # a second tokenizer, of a Q-Former, lies in a folder of its own
        return AutoTokenizer.from_pretrained(name, subfolder=kind, **hub)
    auto = AutoVideoProcessor if kind == "video_processor" else AutoFeatureExtractor
    if kind != "video_processor" or is_torchvision_available():
        try:
            return auto.from_pretrained(name, **hub)
        except (OSError, ValueError, ImportError, TypeError, AttributeError):
            pass  # no example holds videos or sounds
    stated = settings.get(kind) or (_json(name, VIDEOS, hub) if kind == "video_processor" else {})
    return LeftOut(kind, stated if isinstance(stated, Mapping) else {})


def _leave_out_package(found: type) -> None:
    """Let a processor be built without the package that it uses for videos alone."""
    package = FOR_VIDEOS.get(found.__name__)
    names = vars(sys.modules[found.__module__])
    if package is not None and names.get(package) is None:
        names[package] = LeftOut(package, {})


def _images(name: str, hub: Mapping[str, Any], config: PreTrainedConfig) -> Any:
    """Image processing: with torchvision as transformers chooses, else by Pillow, else by torch."""
    if is_torchvision_available():
        return AutoImageProcessor.from_pretrained(name, **hub)
    wanted = _image_class(name, hub, config)
    if wanted is None or hasattr(transformers, f"{wanted}Pil"):
        return AutoImageProcessor.from_pretrained(name, backend="pil", **hub)
    found = _class_named(wanted, ImageProcessingMixin)
    return (found or AutoImageProcessor).from_pretrained(name, **hub)


def _image_class(name: str, hub: Mapping[str, Any], config: PreTrainedConfig) -> str | None:
    """The name of the image processor's class, without the ending of its backend."""
    nested = _json(name, PROCESSOR, hub).get("image_processor")
    settings = nested if isinstance(nested, dict) else _json(name, IMAGES, hub)
    stated = settings.get("image_processor_type") or str(settings.get("feature_extractor_type", "")).replace(
        "FeatureExtractor", "ImageProcessor"
    )
    if not stated:
        backends = IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type, {})
        stated = backends.get("torchvision") or backends.get("pil")
    return stated.removesuffix("Fast").removesuffix("Pil") if isinstance(stated, str) else None


def _json(name: str, file: str, hub: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in one of the repository's files; none where it lacks the file."""
    found = cached_file(
        name,
        file,
        revision=hub["revision"],
        local_files_only=hub["local_files_only"],
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    settings = json.loads(Path(found).read_text("utf-8")) if found else {}
    return settings if isinstance(settings, dict) else {}


def _check_files(folder: Path, *, sees: bool, reads: bool) -> None:
    """Refuse a folder without the files that examples need, and sizes that would fill the memory."""
    present = {file.name for file in folder.iterdir()}
    if sees and not present & {PROCESSOR, IMAGES}:
        raise BadInput(
            f"{folder}: neither {IMAGES} nor {PROCESSOR} is in this folder, so images cannot be prepared; "
            "copy both from the original repository, or pass processor="
        )
    if reads and not any(file in present for file in VOCABULARIES):
        raise BadInput(
            f"{folder}: no tokenizer is in this folder ({VOCABULARIES[0]}), so prompts cannot be read; "
            "copy it from the original repository, or pass processor="
        )
    for name in (PROCESSOR, IMAGES):
        file = folder / name
        if file.is_file():
            with strangers_files(file, "cannot be read", FIX):
                settings = json.loads(file.read_text("utf-8"))
            check_entries(str(file), settings)
            _check_sizes(file, settings)


def _check_sizes(file: Path, settings: Any) -> None:
    images = settings.get("image_processor", settings) if isinstance(settings, dict) else None
    if not isinstance(images, dict):
        return  # transformers refuses it
    sizes = images.get("size")
    # Families that merge patches give a number of pixels where others give the length of an edge.
    limit = MOST_PIXELS if "merge_size" in images else LONGEST_EDGE
    for edge in ("shortest_edge", "longest_edge"):
        length = sizes.get(edge) if isinstance(sizes, dict) else sizes
        if isinstance(length, int) and length > limit:
            raise BadInput(f"{file}: size.{edge} is {length:,}, more than {limit:,}; {FIX}")

"""Does every family open from the plain install with the processor files its repository ships, unmodified?

Three families go all the way in `make test`; all of them do in `make test-slow`, against docs/families.md.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from transformers.utils import is_torchvision_available

import families
from family_rows import NAMES, STEPS, TRACEBACK, tried
from glasshouse.model import processors
from glasshouse.model.processors import LeftOut
from glasshouse.values.errors import BadInput

PAGE = Path(__file__).parents[2] / "docs/families.md"
QUICK = ("qwen2_5_vl", "llava", "lfm2_vl")
"""One whose video part is left out, one plain, and one whose images only torch prepares."""


def listed() -> dict[str, list[str]]:
    """The rows of the page: by family, its processor, its marks and the reason."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[1:]}


def passed_on_page(name: str) -> tuple[str, ...]:
    marks = [mark.strip() for mark in listed()[name][1 : 1 + len(STEPS)]]
    return tuple(step for step, mark in zip(STEPS, marks, strict=True) if mark == "yes")


def test_the_page_has_every_family_that_transformers_maps():
    """A later transformers may map more families than the one that the page was written with."""
    written = re.search(r"With transformers (\d+\.\d+)", PAGE.read_text("utf-8"))
    assert written, "run python tools/families.py"
    assert set(listed()) <= set(NAMES)
    if transformers.__version__.startswith(f"{written[1]}."):
        assert set(listed()) == set(NAMES), "run python tools/families.py"


def test_the_page_keeps_its_promise():
    built = [name for name in listed() if name not in families.NOT_BUILT]
    opened = [name for name in built if "opens" in passed_on_page(name)]
    assert len(opened) >= 0.95 * len(built)
    assert TRACEBACK not in PAGE.read_text("utf-8")
    assert all(row[1 + len(STEPS)].strip() for name, row in listed().items() if "lens" not in passed_on_page(name)
               and name not in families.BESIDE)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_a_family_opens_from_unmodified_files_and_is_used(name: str, tmp_path: Path):
    row = tried(name, tmp_path)
    assert row.passed == STEPS, row.reason
    assert row.passed == passed_on_page(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", listed())
def test_every_family_does_what_the_page_says(name: str, tmp_path: Path):
    row = tried(name, tmp_path)
    assert row.passed == passed_on_page(name), row.reason
    assert TRACEBACK not in row.reason


@pytest.mark.skipif(is_torchvision_available(), reason="video parts are left out only without torchvision")
@pytest.mark.parametrize("form", families.FORMS)
def test_the_video_part_is_left_out_and_its_settings_kept(form: str, tmp_path: Path):
    processor = families.reopened("qwen2_vl", tmp_path / "model", form)
    assert type(processor).__name__ == "Qwen2VLProcessor"
    assert isinstance(processor.video_processor, LeftOut)
    assert processor.video_processor.temporal_patch_size == 2
    with pytest.raises(
        BadInput, match=r"video_processor: this part was left out; for videos install torchvision for your torch"
    ):
        processor.video_processor([])
    processor.save_pretrained(tmp_path / "again")
    again = processors.load_processor(str(tmp_path / "again"), families.HUB, families.small("qwen2_vl"))
    assert again.video_processor.to_dict() == processor.video_processor.to_dict()
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()


def test_files_that_are_missing_are_named_with_where_to_get_them(tmp_path: Path):
    families.write_processor("llava", tmp_path / "model", "slow")
    (tmp_path / "model/tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"no tokenizer is in this folder \(tokenizer.json\).*copy it from the original"):
        families.reopened("llava", tmp_path / "model", "slow")
    (tmp_path / "model/preprocessor_config.json").unlink()
    (tmp_path / "model/processor_config.json").unlink()
    with pytest.raises(BadInput, match=r"neither preprocessor_config.json nor.*copy both from the original") as refused:
        families.reopened("llava", tmp_path / "model", "slow")
    assert "torchvision" not in str(refused.value)


def test_proving_without_a_tokenizer_is_refused_with_status_2(tmp_path: Path, command):
    folder = families.checkpoint("llava", tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    outcome = command("anatomy", folder, "--prove")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "no tokenizer is in this folder" in outcome.err


@pytest.mark.parametrize(
    ("name", "told"), [("Trainer", None), ("nonsense", None), ("os", None), ("LlavaProcessor", "LlavaProcessor")]
)
def test_a_stranger_names_processors_alone(name: str, told: str | None):
    found = processors._class_named(name, processors.ProcessorMixin)
    assert getattr(found, "__name__", None) == told


FAKE = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from transformers.utils import is_torchvision_available
assert is_torchvision_available()
import families
processor = families.reopened("qwen2_vl", Path({folder!r}), "fast")
print(type(processor.image_processor).__name__, type(processor.video_processor).__name__)
"""


@pytest.mark.slow
def test_an_installed_torchvision_is_used(tmp_path: Path):
    """With a torchvision of names and no operations: it shows which classes are chosen, not torchvision's pixels."""
    site = tmp_path / "site"
    v2 = site / "torchvision/transforms/v2"
    v2.mkdir(parents=True)
    for folder in (site / "torchvision", site / "torchvision/transforms", v2):
        (folder / "__init__.py").write_text("from enum import Enum\n" + MODES)
    (site / "torchvision/io.py").write_text("")
    functional = "from torchvision import InterpolationMode\ndef pil_to_tensor(image): ...\n"
    for folder in (site / "torchvision/transforms", v2):
        (folder / "functional.py").write_text(functional)
    metadata = site / "torchvision-0.28.0.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    families.write_processor("qwen2_vl", tmp_path / "model", "fast")
    code = FAKE.format(path=[str(site), *sys.path], folder=str(tmp_path / "model"))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split()[-2:] == ["Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"]


MODES = """
class InterpolationMode(Enum):
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"
"""


def test_the_vision_extra_is_a_pair_that_belongs_together():
    import tomllib

    root = PAGE.parents[1]
    extra = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["vision"]
    versions = {line.split(">=")[0]: line.split(">=")[1].split(",<") for line in extra}
    (torch_from, torch_to), (vision_from, vision_to) = versions["torch"], versions["torchvision"]
    minor = {text: int(text.split(".")[1]) for text in (torch_from, torch_to, vision_from, vision_to)}
    # torchvision 0.N is built for torch 2.(N - 15), and says so: 0.28.0 requires torch == 2.13.0.
    assert minor[vision_from] - minor[torch_from] == minor[vision_to] - minor[torch_to] == 15
    assert minor[torch_to] == minor[torch_from] + 1
    pinned = (root / "constraints.txt").read_text("utf-8").partition("torch==")[2].split()[0]
    assert pinned.startswith(f"{torch_from}."), "the extra and the constraints name different versions of torch"

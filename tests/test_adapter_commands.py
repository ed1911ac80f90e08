"""Is an adapter audited and drawn by one command, and is a planted one told from a benign one?"""

import json
import shutil
from pathlib import Path

import pytest

import tiny
from adapter_folders import projector_adapter, random_adapter
from glasshouse.engine.audit import audit
from glasshouse.model.differences import state
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import export
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism

PROJECTORS = {"llava": "multi_modal_projector", "qwen2_5_vl": "merger"}


@pytest.fixture(scope="module", params=PROJECTORS)
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model of a family, and an adapter on its language model and its projector that names it."""
    root = tmp_path_factory.mktemp(request.param)
    base = tiny.checkpoint(request.param, root / "base")
    return base, random_adapter(base, root / "adapter", modules_to_save=[PROJECTORS[request.param]])


def test_an_adapter_is_audited_by_one_command(command, places: tuple[Path, Path]):
    base, adapter = places
    outcome = command("audit", adapter, "--json")
    assert outcome.status in (0, 1, 3)
    tree = json.loads(outcome.out)
    spectrum = json.loads((Path(tree["audit"]) / "spectrum" / "run.json").read_text())
    examined, compared = (spectrum["inputs"][name]["identity"] for name in ("model", "base"))
    assert (examined["name"], examined["adapter"], examined["base"]) == (str(adapter), str(adapter), str(base))
    assert examined["base_weights"] == compared["weights"] != examined["weights"]
    assert examined["adapter_weights"] == open_subject(adapter).identity.adapter_weights
    assert compared["name"] == str(base)


def test_a_base_that_was_moved_is_asked_for_and_can_be_given(command, places: tuple[Path, Path], tmp_path: Path):
    base, adapter = places
    own = shutil.copytree(adapter, tmp_path / "own")
    settings = json.loads((own / "adapter_config.json").read_text()) | {"base_model_name_or_path": "somebody/moved"}
    (own / "adapter_config.json").write_text(json.dumps(settings))
    for words in (("run", "spectrum", "--model"), ("audit",), ("anatomy",)):
        outcome = command(*words, own)
        assert outcome.status == 2
        assert "its base somebody/moved is neither a folder nor in the local cache; give its folder: --base FOLDER" in (
            " ".join(outcome.err.split())
        )
    assert command("anatomy", own, "--base", base).status == 0
    assert command("run", "spectrum", "--model", own, "--base", base).status in (0, 1, 3)


def test_an_adapter_is_drawn_with_its_base(command, places: tuple[Path, Path]):
    base, adapter = places
    plain, drawn = command("anatomy", base).out, command("anatomy", adapter).out
    assert drawn.startswith(plain.rpartition("Next:")[0])
    assert f"LoRA adapter {adapter}, weights " in drawn
    assert "weights replaced: model." in drawn
    tree = json.loads(command("anatomy", adapter, "--json").out)
    assert tree["adapter"]["kind"] == "LoRA"
    assert {part["part"] for part in tree["adapter"]["parts"]} >= {"language", "projector"}
    assert "adapter" not in json.loads(command("anatomy", base, "--json").out)


def _exported(name: str, root: Path) -> tuple[Subject, Path]:
    """An organism, and an adapter that makes it of its base."""
    subject, base = organism(name).subject, export(shelf.take("base"), root / "base")
    projector = "model.multi_modal_projector"
    weights = {key: tensor.detach() for key, tensor in state(subject).items() if key.startswith(f"{projector}.")}
    return subject, projector_adapter(base, root / "adapter", projector, weights)


def test_an_organism_is_its_base_with_its_adapter(tmp_path: Path):
    subject, adapter = _exported("hijack-logo", tmp_path)
    assert open_subject(adapter).identity.weights == subject.identity.weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "verdicts"), [("hijack-logo", ("concern", "fail")), ("benign", ("pass", "inconclusive"))]
)
def test_a_planted_adapter_raises_concern_and_a_benign_one_does_not(
    name: str, verdicts: tuple[str, ...], tmp_path: Path
):
    _, adapter = _exported(name, tmp_path)
    result = audit(open_subject(adapter), data=organism(name).examples, root=tmp_path / "runs")
    assert str(result.judgement.verdict) in verdicts

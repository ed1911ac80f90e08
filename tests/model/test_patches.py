"""Do patches change the weights they name, give back the exact bits, and refuse what they could not give back?"""

import json
from pathlib import Path

import pytest
import torch

from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import export, patched, read_patch, write_patch
from glasshouse.model.subject import Subject
from glasshouse.values.deltas import Delta, Dense, LowRank, Patch, Rows, Sparse, Whole
from glasshouse.values.errors import BadInput

from .conftest import examples_for

FAMILIES = ("llava", "qwen2_vl", "idefics3", "paligemma", "internvl", "mllama", "blip-2", "gemma3", "llama", "mixtral")
KINDS = ("dense", "whole", "low rank", "sparse", "rows", "columns")


def some_weight(subject: Subject) -> str:
    """A matrix every prompt runs through."""
    assert subject.anatomy.language is not None
    writer = subject.anatomy.language.layers[0].attention_writer
    assert writer is not None
    return f"{writer}.weight"


def deltas(shape: tuple[int, int]) -> dict[str, Delta]:
    rows, columns = shape
    return {
        "dense": Dense(torch.randn(rows, columns)),
        "whole": Whole(torch.randn(rows, columns)),
        "low rank": LowRank(torch.randn(rows, 2), torch.randn(2, columns)),
        "sparse": Sparse(torch.tensor([0, 5, rows * columns - 1]), torch.tensor([50.0, -50.0, 50.0])),
        "rows": Rows(torch.tensor([1, 3]), torch.randn(2, columns) * 9),
        "columns": Rows(torch.tensor([0]), torch.randn(1, rows) * 9, axis=1),
    }


@pytest.mark.parametrize(
    ("family", "kind"),
    [*((family, "dense") for family in FAMILIES), *(("llava", kind) for kind in KINDS if kind != "dense")],
)
def test_inside_it_is_the_new_weight_and_outside_the_old_bits(opened, family: str, kind: str):
    subject: Subject = opened(family)
    name, examples = some_weight(subject), examples_for(subject, 2)
    weight = subject.model.get_parameter(name)
    delta = deltas((weight.shape[0], weight.shape[1]))[kind]
    original, before = weight.detach().clone(), subject.logits(examples)
    place, content = weight.data_ptr(), weight_hash(subject.model)
    with patched(subject, Patch({name: delta})):
        assert torch.equal(subject.model.get_parameter(name).data, delta.onto(original))
        assert not torch.equal(subject.logits(examples), before)
    assert weight.data_ptr() == place
    assert weight_hash(subject.model) == content
    assert torch.equal(subject.logits(examples), before)


def test_patches_nest_and_survive_exceptions(opened):
    subject: Subject = opened("llava")
    name, examples = some_weight(subject), examples_for(subject, 1)
    content = weight_hash(subject.model)
    one = Patch.dense(name, torch.ones_like(subject.model.get_parameter(name)))
    original = subject.model.get_parameter(name).data.clone()

    def fail() -> None:
        with patched(subject, one), patched(subject, one):
            torch.testing.assert_close(subject.model.get_parameter(name).data, original + 2)
            subject.logits(examples)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert weight_hash(subject.model) == content


def test_nothing_is_changed_when_one_of_several_does_not_fit(opened):
    subject: Subject = opened("llava")
    content = weight_hash(subject.model)
    good, bad = some_weight(subject), "model.multi_modal_projector.linear_1.weight"
    patch = Patch({good: Sparse(torch.tensor([0]), torch.tensor([1.0])), bad: Dense(torch.ones(3, 3))})
    with pytest.raises(BadInput, match=r"linear_1\.weight: is for shape \(3, 3\)"), patched(subject, patch):
        pass
    assert weight_hash(subject.model) == content


@pytest.mark.parametrize(
    ("patch", "fix"),
    [
        (Patch({"model.no.such.weight": Dense(torch.ones(2, 2))}), "no such weight"),
        (Patch({"lm_head.weight": Dense(torch.full((2, 2), float("nan")))}), "NaN or infinity"),
        (Patch({"lm_head.weight": Sparse(torch.tensor([10**9]), torch.tensor([1.0]))}), "must lie in"),
    ],
    ids=["unknown", "nan", "out of range"],
)
def test_what_does_not_fit_is_refused(opened, patch: Patch, fix: str):
    with pytest.raises(BadInput, match=fix), patched(opened("llava"), patch):
        pass


def test_tied_weights_are_refused_with_the_reason(opened):
    subject: Subject = opened("gemma")
    assert subject.model.get_input_embeddings().weight is subject.model.get_output_embeddings().weight
    shape = subject.model.get_output_embeddings().weight.shape
    with (
        pytest.raises(BadInput, match=r"tied to .*untie"),
        patched(subject, Patch.dense("lm_head.weight", torch.zeros(shape))),
    ):
        pass


def test_quantised_weights_are_refused_with_the_reason(folder):
    subject: Subject = open_subject(folder("llama"))
    name = some_weight(subject)
    owner, _, leaf = name.rpartition(".")
    weight = subject.model.get_parameter(name)
    shrunk = torch.nn.Parameter(weight.detach().mul(10).to(torch.int8), requires_grad=False)
    setattr(subject.model.get_submodule(owner), leaf, shrunk)
    with (
        pytest.raises(BadInput, match=r"quantised.*int8"),
        patched(subject, Patch.dense(name, torch.zeros(weight.shape))),
    ):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_survives_the_disk(tmp_path: Path, kind: str):
    patch = Patch({"some.weight": deltas((6, 4))[kind]})
    assert read_patch(write_patch(patch, tmp_path / "patch.safetensors")) == patch
    assert [file.name for file in tmp_path.iterdir()] == ["patch.safetensors"]


def test_files_that_are_no_patch_are_refused(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    whole = write_patch(Patch.dense("w", torch.ones(64, 64)), tmp_path / "patch.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(BadInput, match="no patch"):
        read_patch(tmp_path / "plain.safetensors")
    for name in ("cut", "text", "missing"):
        with pytest.raises(BadInput, match="not a readable safetensors file"):
            read_patch(tmp_path / f"{name}.safetensors")


def test_a_patch_file_cannot_name_other_classes(tmp_path: Path):
    from safetensors.torch import save_file

    tree = {"is": "Patch", "deltas": {"w": {"is": "Mask", "values": {"tensor": "0"}}}}
    save_file({"0": torch.ones(1)}, tmp_path / "evil.safetensors", metadata={"glasshouse.patch": json.dumps(tree)})
    with pytest.raises(BadInput, match="'Mask' is not a kind of Delta"):
        read_patch(tmp_path / "evil.safetensors")


@pytest.mark.parametrize("family", ["llava", "idefics3", "llama", "vit"])
def test_an_exported_checkpoint_is_the_patched_model(opened, tmp_path: Path, family: str):
    subject: Subject = opened(family)
    tower = subject.anatomy.language or subject.anatomy.vision
    assert tower is not None
    name = f"{tower.layers[0].mlp_writer}.weight"
    patch = Patch.low_rank(name, *(torch.randn(size) for size in _low_rank_sizes(subject, name)))
    folder = export(subject, tmp_path / "out", patch)
    usual = tmp_path / "usual"
    usual.mkdir()
    assert folder.stat().st_mode == usual.stat().st_mode, "as open to others as any folder"
    usual.rmdir()
    again = open_subject(folder)
    with patched(subject, patch):
        assert weight_hash(again.model) == weight_hash(subject.model)
        if subject.anatomy.language is not None:
            assert torch.equal(again.logits(examples_for(again, 1)), subject.logits(examples_for(subject, 1)))
    assert weight_hash(again.model) != weight_hash(subject.model)
    assert {file.name for file in tmp_path.iterdir()} == {"out"}


def _low_rank_sizes(subject: Subject, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = subject.model.get_parameter(name).shape
    return (rows, 1), (1, columns)


def test_export_never_overwrites_and_never_leaves_halves(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subject: Subject = opened("llama")
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        export(subject, tmp_path / "there")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(subject.model), "save_pretrained", full)
    with pytest.raises(BadInput, match="No space left"):
        export(subject, tmp_path / "new")
    assert {file.name for file in tmp_path.iterdir()} == {"there"}
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write there"):
        export(subject, tmp_path / "file" / "new")

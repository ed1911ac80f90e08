"""Is a quantised checkpoint opened dequantised where that is exact, and otherwise refused by its scheme?"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapter_folders import random_adapter
from glasshouse.model.adapters.merging import merged
from glasshouse.model.adapters.reading import read_adapter
from glasshouse.model.differences import state
from glasshouse.model.opening import open_subject
from glasshouse.values.errors import BadInput

BLOCK = 32


def _edit(folder: Path, scheme: dict[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": scheme}))


def test_fp8_opens_as_the_products_of_its_values_and_scales(folder):
    place, expected = folder("llama"), dict[str, torch.Tensor]()
    weights = load_file(place / "model.safetensors")
    for name in [name for name in weights if name.endswith("proj.weight")]:
        rows, columns = (size // BLOCK for size in weights[name].shape)
        blocks = weights[name].reshape(rows, BLOCK, columns, BLOCK)
        scales = blocks.abs().amax((1, 3)) / 448
        packed = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
        expected[name] = (packed.float() * scales[:, None, :, None]).reshape(weights[name].shape)
        weights |= {name: packed.reshape(weights[name].shape), f"{name}_scale_inv": scales}
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    _edit(place, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"})
    subject = open_subject(place, dtype=torch.float32)
    assert subject.certificate is not None
    assert subject.certificate.failures == ()
    opened = state(subject)
    assert expected
    assert all(torch.equal(opened[name].detach(), values.to(opened[name].dtype)) for name, values in expected.items())


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            r"\(bitsandbytes, 4 bits\).*pip install bitsandbytes; or",
        ),
        ({"load_in_8bit": True}, r"\(bitsandbytes, 8 bits\).*pip install bitsandbytes; or open the unquantised"),
        ({"quant_method": "gptq", "bits": 4}, r"\(gptq, 4 bits\).*pip install optimum gptqmodel; or"),
        ({"quant_method": "awq", "bits": 4}, r"\(awq, 4 bits\).*pip install gptqmodel; or"),
        ({"quant_method": "quanto"}, r"pip install optimum-quanto; or"),
        ({"quant_method": "telepathy"}, r"quantised with telepathy, which is not supported; open the unquantised"),
    ],
    ids=["4 bits", "8 bits", "GPTQ", "AWQ", "quanto", "unknown"],
)
def test_a_scheme_without_its_library_is_refused_by_name(
    folder, scheme: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("glasshouse.model.quantisation.find_spec", lambda module: None)
    place = folder("llama")
    _edit(place, scheme)
    with pytest.raises(BadInput, match=message):
        open_subject(place)


def test_an_adapter_is_not_merged_into_quantised_weights(folder, tmp_path: Path):
    place = folder("llama")
    adapter, base = read_adapter(random_adapter(place, tmp_path / "adapter")), open_subject(place).model
    base.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    with pytest.raises(
        BadInput, match=r"base is quantised \(bitsandbytes, 4 bits\).*give the unquantised base: --base"
    ):
        merged(base, adapter)

"""Are tensor files whole, open to others as far as the umask says, and refused when they are broken?"""

import os
from pathlib import Path

import pytest
import torch

from glasshouse.data.tensorfiles import read_tensors, write_tensors
from glasshouse.values.errors import BadInput


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_comes_back_and_is_as_open_as_the_umask_allows(tmp_path: Path, umask: int):
    file = tmp_path / "a.safetensors"
    columns = torch.arange(6.0).reshape(2, 3).T
    write_tensors({"columns": columns}, file, {"mark": "x"})
    tensors, header = read_tensors(file)
    assert torch.equal(tensors["columns"], columns)
    assert header == {"mark": "x"}
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_or_read_is_refused_by_its_path(tmp_path: Path):
    gone = tmp_path / "gone" / "a.safetensors"
    with pytest.raises(BadInput, match=f"^{gone}: cannot be written"):
        write_tensors({}, gone)
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(BadInput, match="not a readable safetensors file"):
        read_tensors(tmp_path / "a.safetensors")

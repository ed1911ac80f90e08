"""A file is there whole or not at all, and a failure to write it names the place and the fix."""

import errno
import os
from pathlib import Path

import pytest

from glasshouse.engine.files import write_whole
from glasshouse.values.errors import BadInput, Unwritable


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "kept"
    write_whole(file, b"old")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(BadInput, match="No space"):
        write_whole(file, b"new, and longer")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "choose a folder that you may write in"),
        (errno.EROFS, "choose a folder that you may write in"),
        (errno.EIO, "choose another place"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int, fix: str
):
    def refuse(self: Path, *args, **kwargs):
        raise OSError(reason, os.strerror(reason), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Unwritable, match=f"new/page.html: cannot be written .*; {fix}"):
        write_whole(tmp_path / "new" / "page.html", b"new")


def test_a_file_under_a_file_or_in_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for place in ("file/page.html", "file/new/page.html"):
        with pytest.raises(Unwritable, match=r"cannot be written .*: choose another place"):
            write_whole(tmp_path / place, b"new")
    with pytest.raises(Unwritable, match="that is a folder: name a file in it"):
        write_whole(tmp_path, b"new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]

"""Whether a folder can be made, as it is found out before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import folders


def test_a_folder_that_can_be_made_is_not_refused(tmp_path: Path) -> None:
    assert folders.refusal(tmp_path / "a/b") is None


def test_what_holds_no_files_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert folders.refusal(tmp_path / "file/run") == f"{tmp_path / 'file'} is a file"
    # Even for root, to whom everything there looks writable.
    assert "`proc` file system" in (folders.refusal(Path("/proc/run")) or "")


def test_the_innermost_mount_and_the_last_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    here = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(
        f"a / overlay rw 0 0\nb {here}/in\\040it tmpfs rw 0 0\nc {here} ext4 rw 0 0\nd {here} xfs rw 0 0\n"
    )
    monkeypatch.setattr(folders, "MOUNTS", mounts)
    assert folders.file_system(tmp_path / "in it/x") == "tmpfs"
    assert folders.file_system(tmp_path / "in") == "xfs"
    assert folders.file_system(Path("/elsewhere")) == "overlay"
    monkeypatch.setattr(folders, "MOUNTS", tmp_path / "none")
    assert folders.file_system(tmp_path) == ""

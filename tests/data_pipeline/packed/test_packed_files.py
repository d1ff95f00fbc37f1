"""Files and folders that appear whole or not at all, whatever happens to their writer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_pipeline.packed import files
from data_pipeline.packed.files import (
    atomic_file,
    atomic_folder,
    is_temporary,
    remove_leftovers,
    scratch_folder,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_appears_at_the_end_and_replaces_the_old_one(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "made" / "a.json"
    write_atomically(path, b"old", durable)
    with atomic_file(path, durable) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert is_temporary(temporary) and not is_temporary(path)
        assert not list(path.parent.glob("[!.]*.tmp"))
    assert path.read_text() == "new" and names(path.parent) == ["a.json"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "old")
    with pytest.raises(RuntimeError, match="in the middle"), atomic_file(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError("in the middle")
    with pytest.raises(RuntimeError, match="before"), atomic_file(tmp_path / "b"):
        raise RuntimeError("before anything was written")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "c") as folder:
        (folder / "part").write_text("half")
        raise RuntimeError
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "d"):
        pass  # nothing was written under the temporary name
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_an_error_names_what_was_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder/full").mkdir(parents=True)
    with pytest.raises(OSError) as error:
        write_atomically(tmp_path / "folder", "a folder is there")
    assert (error.value.filename, error.value.filename2) == (str(tmp_path / "folder"), None)
    with pytest.raises(OSError) as error, atomic_folder(tmp_path / "new") as folder:
        (folder / "x/y").mkdir()
    assert error.value.filename == str(tmp_path / "new/x/y")
    with pytest.raises(OSError) as error, atomic_folder(tmp_path / "folder") as folder:
        pass
    assert error.value.filename == str(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_takes_the_place_of_another_only_where_it_may(tmp_path: Path) -> None:
    path = tmp_path / "made" / "folder"
    path.mkdir(parents=True)
    with atomic_folder(path, durable=True) as folder:  # an empty folder holds nothing to lose
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
    with pytest.raises(OSError), atomic_folder(path) as folder:
        (folder / "b").write_text("2")
    assert names(path) == ["sub"]
    with atomic_folder(path, replace=True) as folder:
        (folder / "b").write_text("2")
        assert names(path) == ["sub"]
    assert names(path) == ["b"] and names(path.parent) == ["folder"]


def test_without_an_exchange_the_old_folder_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no such system call")

    monkeypatch.setattr(files.ctypes, "CDLL", refused)
    for text in ("1", "2"):
        with atomic_folder(tmp_path / "a", replace=True) as folder:
            (folder / "text").write_text(text)
    assert names(tmp_path) == ["a"] and (tmp_path / "a" / "text").read_text() == "2"
    (tmp_path / "a").rename(tmp_path / "a.old")
    files.recover(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def _write_often(path: Path, worker: int) -> None:
    for turn in range(200):
        write_atomically(path, f"{worker} {turn}".ljust(2000, "."))


def test_processes_and_threads_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    """With a temporary name that they share, one of them finds it renamed away (or half written) sooner or later."""
    path = tmp_path / "shared"
    # Not forked: this process has threads of libraries, whose locks a fork would keep for ever.
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_often, args=(path, k)) for k in range(4)]
    failed: list[BaseException] = []

    def in_thread(k: int) -> None:
        try:
            _write_often(path, k)
        except BaseException as error:
            failed.append(error)

    for process in workers:
        process.start()
    threads = [threading.Thread(target=in_thread, args=(k,)) for k in range(4, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0] * 4 and not failed
    assert len(path.read_text()) == 2000 and names(tmp_path) == ["shared"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom data_pipeline.packed.files import *\n"
        "with atomic_file(Path(sys.argv[1]) / 'a') as a, atomic_folder(Path(sys.argv[1]) / 'b') as b:\n"
        "    a.write_text('half')\n    (b / 'c').write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert result.returncode == -signal.SIGKILL and len(names(tmp_path)) == 2
    for name in (".a.tmp", "x.tmp", ".hidden"):
        (tmp_path / name).write_text("of somebody else")
    other = tmp_path / f".a.00000000-{2**22 + 1}-00000000.tmp"
    other.write_text("of another host")
    with scratch_folder(tmp_path / "mine") as mine:
        assert len(remove_leftovers(tmp_path, "a")) == 1
        assert len(remove_leftovers(tmp_path)) == 1
        assert mine.is_dir() and other.exists()
        os.utime(other, (0, 0))
        assert remove_leftovers(tmp_path) == [other]
        assert remove_leftovers(tmp_path, alone=True) == [mine]
    assert names(tmp_path) == [".a.tmp", ".hidden", "x.tmp"]
    assert remove_leftovers(tmp_path / "missing") == []


def test_a_folder_is_made_again_after_a_kill_without_growing(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom data_pipeline.packed.files import *\n"
        "with atomic_folder(Path(sys.argv[1])) as folder:\n    os.kill(os.getpid(), 9)\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
        assert len(names(tmp_path)) == 1
    with atomic_folder(tmp_path / "a"):
        pass
    assert names(tmp_path) == ["a"]


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    name = "ñ" * 127
    write_atomically(tmp_path / name, "text")
    assert names(tmp_path) == [name]

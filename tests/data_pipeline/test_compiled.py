"""Compiled code is never older than any source it was made from, and needs no place to be kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python(program: str, path: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_change_of_a_called_function_or_a_constant_in_another_file_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "data_pipeline"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "room/__init__.py").touch()
    shutil.copy(ROOT / "data_pipeline/compiled.py", package / "compiled.py")
    called = "from data_pipeline.compiled import subroutine\n@subroutine\ndef called(n):\n    return n + {}\n"
    (package / "called.py").write_text(called.format(1))
    (package / "room/constants.py").write_text("FACTOR = 10\n")
    (package / "room/caller.py").write_text(
        "from data_pipeline.called import called\nfrom data_pipeline.compiled import kernel\n"
        "from data_pipeline.room.constants import FACTOR\n"
        "@kernel('int64(int64)')\ndef caller(n):\n    return FACTOR * called(n)\n"
    )
    program = """
        from data_pipeline.room.caller import caller
        print(caller(1), sum(caller.stats.cache_hits.values()))
    """
    assert python(program, tmp_path) == "20 0\n"
    assert python(program, tmp_path) == "20 1\n"
    (package / "called.py").write_text(called.format(2))
    assert python(program, tmp_path) == "30 0\n"
    (package / "room/constants.py").write_text("FACTOR = 7\n")
    assert python(program, tmp_path) == "21 0\n"


def test_without_a_place_to_keep_it_code_is_compiled_in_memory(tmp_path: Path) -> None:
    program = """
        import os, tempfile
        def refuse(*a, **k): raise PermissionError('read-only')
        os.makedirs = tempfile.TemporaryFile = refuse
        from data_pipeline.compiled import kernel
        open('twice.py', 'w').write('def twice(n):\\n    return 2 * n\\n')
        import sys; sys.path.insert(0, '.')
        from twice import twice
        print(kernel('int64(int64)')(twice)(21))
    """
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "data_pipeline").symlink_to(ROOT / "data_pipeline")
    assert python(program, folder) == "42\n"
    assert not list(folder.glob("__pycache__/*.nb?"))

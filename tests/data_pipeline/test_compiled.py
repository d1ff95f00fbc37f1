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
    for name in ("compiled.py", "compiling.py"):
        shutil.copy(ROOT / "data_pipeline" / name, package / name)
    (package / "beside.py").write_text("FACTOR = 3\n")
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
    (package / "beside.py").write_text("FACTOR = 4\n")  # nothing that the kernel imports
    assert python(program, tmp_path) == "20 1\n"
    (package / "called.py").write_text(called.format(2))
    assert python(program, tmp_path) == "30 0\n"
    (package / "room/constants.py").write_text("FACTOR = 7\n")
    assert python(program, tmp_path) == "21 0\n"


def test_without_a_place_to_keep_it_code_is_compiled_in_memory(tmp_path: Path) -> None:
    program = """
        import os
        def refuse(*a, **k): raise PermissionError('read-only')
        os.mkdir = refuse
        from data_pipeline.compiled import kernel
        open('twice.py', 'w').write('def twice(n):\\n    return 2 * n\\n')
        import sys; sys.path.insert(0, '.')
        from twice import twice
        print(kernel('int64(int64)')(twice)(21))
    """
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("configs", "data_pipeline"):
        (folder / name).symlink_to(ROOT / name)
    assert python(program, folder) == "42\n"
    assert not list(folder.glob("__pycache__/*.nb?"))


def test_a_module_is_compiled_once_however_many_processes_want_it(tmp_path: Path) -> None:
    package = tmp_path / "data_pipeline"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("compiled.py", "compiling.py"):
        shutil.copy(ROOT / "data_pipeline" / name, package / name)
    shutil.copytree(
        ROOT / "configs", tmp_path / "configs"
    )  # processes are started in the checkout that it lies in
    kernel = "@kernel('int64(int64)')\ndef k{}(n):\n    return n + {}\n"
    for module in ("one", "two"):
        body = "from data_pipeline.compiled import kernel\n" + "".join(kernel.format(i, i) for i in range(2))
        (package / f"{module}.py").write_text(body)
    program = """
        from data_pipeline import compiling, compiled
        print([f.stem for f in compiling.needed(["one.py"])])
        compiling.ensure(compiling.holders(), print)
        compiling.ensure(compiling.holders(), print)
        from data_pipeline import one, two
        print(sum(sum(k.stats.cache_hits.values()) for k in (one.k0, one.k1, two.k0, two.k1)))
    """
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    runs = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        lines = (run.communicate()[0] or "").splitlines()
        assert run.returncode == 0
        assert lines[0] == "['one']" and lines[-1] == "4"
        assert sum(line.startswith("kernels are compiled") for line in lines) <= 1
    # numba numbers the files of a signature that was compiled twice.
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 4

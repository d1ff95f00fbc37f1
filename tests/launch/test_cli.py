from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toyrun import documents, overrides

from configs.edge import ConfigError
from configs.output import EXIT_PIPE
from launch import cli

ROOT = Path(__file__).parents[2]


def arriero(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", *words], cwd=ROOT, capture_output=True, text=True
    )


HEAVY = (
    "torch",
    "numpy",
    "numba",
    "scipy",
    "pyarrow",
    "pandas",
    "datatrove",
    "faiss",
    "lxml",
    "httpx",
    "tokenizers",
    "transformers",
    "plotly",
    "wandb",
)
"""Packages that take a large part of a second to import, or that a login node does not have."""


def loaded_by(code: str, *words: str) -> list[str]:
    """What a Python program prints, line by line, after each of which come the heavy packages that it has loaded."""
    program = (
        f"import sys\nHEAVY = {HEAVY!r}\nloaded = lambda: [p for p in HEAVY if p in sys.modules]\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("system", ["darwin", "win32"])
@pytest.mark.parametrize("module", ["launch.cli", "pretrain.evaluate"])
def test_another_system_than_linux_is_one_clear_error(system: str, module: str) -> None:
    words = ["report"] if module == "launch.cli" else []
    program = (
        "import sys, importlib\n"
        f"main = importlib.import_module({module!r}).main\n"
        f"sys.platform = {system!r}\n"
        f"sys.exit(main([*{words!r}, 'run.dir=runs/a']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert "runs on Linux only" in done.stderr
    if module == "launch.cli":
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_help_names_every_verb() -> None:
    done = arriero("--help")
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in cli.VERBS)


def test_no_help_loads_a_heavy_package() -> None:
    """Seconds depend on what else the machine does; what is imported does not."""
    code = """
import contextlib, io
from launch import cli
for words in [["--help"], *([verb, "--help"] for verb in cli.VERBS), ["train", "-h"], ["nonsense"]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli.main(words)
    print(*words, *loaded())
"""
    shown = loaded_by(code)
    assert len(shown) == len(cli.VERBS) + 3
    assert [line for line in shown if any(p in line.split() for p in HEAVY)] == []


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_command_line_and_the_module_explain_a_verb_alike(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    by_the_command_line = capsys.readouterr().out
    assert importlib.import_module(cli.VERBS[verb].module).main(["--help"]) == 0
    assert capsys.readouterr().out == by_the_command_line


@pytest.mark.parametrize(
    "words",
    [
        ["launch.cli", "--help"],
        ["launch.cli", "train", "--help"],
        ["launch.cli", "no-such-verb"],
        ["launch.cli", "data", "recipe=text", "input=README.md", "output=nowhere", "dry_run=true"],
        ["launch.compare", "--help"],
        ["pretrain.average", "--cfg", "job"],
        ["data_pipeline.run", "recipe=text", "input=README.md", "output=nowhere", "dry_run=true"],
        ["pretrain.parallel.pipeline_schedules", "2", "4"],
    ],
)
def test_a_reader_that_leaves_is_no_error(words: list[str]) -> None:
    """`arriero … | head`: the pipe is closed before the first byte is written."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            stdout=write,
            stderr=write if "no-such-verb" in words else subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(write)
    assert done.returncode == EXIT_PIPE
    assert not done.stderr


@pytest.mark.parametrize("command", [["launch.cli", "train"], ["pretrain.train"]])
def test_a_training_whose_reader_leaves_ends_without_a_word(
    command: list[str], toy_packed: Path, tmp_path: Path
) -> None:
    words = [*command, *overrides(toy_packed, tmp_path / "run"), "train.steps=5000", "run.log_every=1"]
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert any(line.startswith("step ") for line in process.stdout)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == EXIT_PIPE
    assert "the reader of the output has gone" in (tmp_path / "run/ledger.jsonl").read_text().splitlines()[-1]


@pytest.mark.parametrize("module", ["launch.cli", "pretrain.export", "data_pipeline.run"])
def test_a_working_folder_that_was_deleted_is_one_sentence(module: str, tmp_path: Path) -> None:
    program = f'cd "{tmp_path}" && mkdir x && cd x && rmdir ../x && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", program, "sh", sys.executable, "-m", module, "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: the working folder was deleted") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
@pytest.mark.parametrize(
    "command",
    [
        ["launch.cli", "--help"],
        ["launch.cli", "plan", "model=debug", "probe=false"],
        ["pretrain.train", "data.path=köln→", "run.dir=r"],
        ["data_pipeline.run", "recipe=text", "input=köln→", "output=o"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_terminal_of_another_encoding_is_no_error(encoding: str, command: list[str]) -> None:
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=env, capture_output=True, encoding=encoding
    )
    assert "Traceback" not in done.stderr
    if "köln→" in command[-2]:
        assert done.returncode in (1, 2) and "ln\\u2192" in done.stderr
    else:
        assert done.returncode == 0


def test_processes_that_others_start_print_in_any_encoding_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from launch.cli import guarded; guarded(lambda: print('a → b'))"],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("a \\u2192 b\n", "")


def test_a_broken_pipe_of_a_verb_itself_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A connection to a server that has gone must not end silently."""

    def verb() -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert cli.guarded(verb) == cli.EXIT_ERROR
    assert "Broken pipe" in capsys.readouterr().err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself_with_three_examples(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    examples = [line for line in shown.splitlines() if f"arriero {verb}" in line or "torchrun" in line]
    assert len(examples) >= 3, f"`arriero {verb} --help` shows {len(examples)} examples"


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "error: unknown verb `trian`; did you mean `train`?\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("arriero 0.")


def test_an_unknown_key_is_one_line_and_status_2() -> None:
    done = arriero("launch", "train.step=5", "data.path=x", "run.dir=y")
    assert done.returncode == 2
    assert done.stderr == "error: unknown key `train.step`; did you mean `train.steps`?\n"


def test_a_data_path_that_is_no_packed_dataset_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = arriero("launch", "model=debug", f"data.path={tmp_path}", f"run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "holds no manifest.json" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("`a` is wrong"), 2, "error: `a` is wrong"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/d/x"),
            1,
            "error: /d/x: no space left on the disk, where",
        ),
        (ModuleNotFoundError("x", name="wandb.sdk"), 1, "pip install 'arriero[track]'"),
    ],
)
def test_errors_for_users_are_one_line(
    error: Exception, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb() -> int:
        raise error

    assert cli.guarded(verb) == status
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


def test_a_programming_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(lambda: int("not a number")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_value_error_of_our_own_code_is_for_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    from launch.slurm import slurm

    assert cli.guarded(lambda: slurm("sbatch-that-is-nowhere")) == 1  # type: ignore[arg-type, return-value]
    assert capsys.readouterr().err.startswith("error: `sbatch-that-is-nowhere` is not on this machine")


def test_verbs_that_look_at_a_run_load_neither_torch_nor_compiled_kernels(
    toy_packed: Path, tmp_path: Path
) -> None:
    code = """
from launch import cli
import json
for words in json.loads(sys.argv[1]):
    status = cli.main(words)
    print("did", words[0], status, *loaded(), flush=True)
"""
    first = hashlib.md5(documents()[0].encode()).hexdigest()
    verbs = [
        ["trace", f"data.path={toy_packed}", f"id={first}"],
        ["report", f"data.path={toy_packed}", f"output={tmp_path}/report.html"],
        ["plan", "model=debug", "probe=false", "cluster.nproc=2"],
        ["size", "model.size=160m"],
        ["whatif", f"data.path={tmp_path}"],  # no data run: an error, by the modules that would look at one
    ]
    shown = [line.split() for line in loaded_by(code, json.dumps(verbs)) if line.startswith("did ")]
    assert [line[1:3] for line in shown] == [[v[0], "2" if v[0] == "whatif" else "0"] for v in verbs]
    slow = {"torch", "numba", "scipy", "pandas", "datatrove", "faiss", "lxml", "httpx", "transformers"}
    assert [line for line in shown if slow.intersection(line)] == []


@pytest.mark.parametrize("verb", ["trace", "compare", "whatif", "report", "train"])
def test_the_first_line_waits_for_no_large_package(verb: str, toy_packed: Path, tmp_path: Path) -> None:
    """Importing them takes a large part of a second, or seconds."""
    code = """
import json
from launch import cli
class Output:
    def __init__(self, stream): self.stream, self.then = stream, None
    def write(self, text):
        self.then = loaded() if self.then is None else self.then
        return self.stream.write(text)
    def flush(self): self.stream.flush()
sys.stdout = output = Output(sys.stdout)
try: cli.main(json.loads(sys.argv[1]))
finally:
    sys.stdout = output.stream
    print("\\nthen", *output.then)
"""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").touch()
    words = {
        "trace": [f"data.path={toy_packed}", "text=nowhere"],
        "compare": [str(tmp_path / "a"), str(tmp_path / "b")],
        "whatif": [f"data.path={tmp_path}"],
        "report": [f"run.dir={tmp_path / 'a'}", f"output={tmp_path}/report.html"],
        "train": [f"data.path={toy_packed}", "run.dir=/proc/run", "device=cpu"],
    }[verb]
    *_, last = loaded_by(code, json.dumps([verb, *words]))
    assert last.split()[0] == "then" and not {"pyarrow", "plotly", "torch", "tokenizers"} & set(last.split())


@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_a_launch_is_checked_without_torch(toy_packed: Path, tmp_path: Path, cluster: str) -> None:
    """With all checks of the trainer, against a checkpoint too."""
    code = """
import json
from launch import cli
status = cli.main(json.loads(sys.argv[1]))
print("did", status, *loaded())
"""
    words = [
        *("launch", f"cluster={cluster}", "dry_run=true", "model=debug", "device=cpu"),
        *(f"data.path={toy_packed}", f"run.dir={tmp_path}/run", "train.dtype=auto"),
    ]
    *shown, last = loaded_by(code, json.dumps(words))
    assert any(str(tmp_path) in line for line in shown)
    assert last.split()[:2] == ["did", "0"]
    assert not {"torch", "numba", "datatrove"} & set(last.split())

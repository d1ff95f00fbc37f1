"""`arriero data` whose processes die: it never hangs, and its output is what it would have been."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from toyrun import PATIENCE, ROOT

from benchmarks import campaign

SMALL = ("tokenizer.vocab_size=400", "tokenizer.n_special=16", "pack.sequence_length=64", "unit_bytes=20000")
DEADLY = """
import os, signal, sys
from pathlib import Path

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline import executors
from data_pipeline.packed.files import atomic_file
from data_pipeline.stage import Stage


def deadly(run_dir, shard, config):
    (run_dir / "out" / f"{shard}-{os.getpid()}").touch()
    tries = len(list((run_dir / "out").glob(f"{shard}-*")))
    with atomic_file(run_dir / "out" / f"output-{shard}") as path:
        path.touch()
        if shard == 2 and (tries == 1 or config.seed):
            os.kill(os.getpid(), signal.SIGKILL)
    return {"done": 1}


def failing(run_dir, shard, config):
    if shard == 2:
        raise ValueError("a whole sentence for the user")


if __name__ == "__main__":
    import deadly as module  # workers find the function there

    run_dir = Path(sys.argv[1])
    words = ["input=x", f"output={run_dir}", "executor.workers=2", f"seed={sys.argv[3]}"]
    config = edge.load("data", DataRun, words)
    stage = Stage("s", getattr(module, sys.argv[2]), 6, ("out",))
    print(executors.run(run_dir, stage, config, "x").counts)
"""


def run_stage(folder: Path, function: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
    (folder / "deadly.py").write_text(DEADLY)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    (folder / "run").mkdir()
    return subprocess.run(
        [sys.executable, str(folder / "deadly.py"), str(folder / "run"), function, str(seed)],
        capture_output=True, text=True, env=environment, timeout=PATIENCE,
    )  # fmt: skip


def test_the_task_of_a_killed_worker_is_done_by_another(tmp_path: Path) -> None:
    done = run_stage(tmp_path, "deadly")
    assert done.returncode == 0, done.stderr
    assert "{'done': 6}" in done.stdout
    assert "the worker of task 2 was killed (signal 9" in done.stderr
    made = {path.name for path in (tmp_path / "run" / "out").iterdir() if path.name[0] not in "012345"}
    assert made == {f"output-{shard}" for shard in range(6)}, "what the killed one left is removed"


def test_another_process_forks_workers_when_the_first_was_killed(tmp_path: Path) -> None:
    """Killed while the driver waits for its answer."""
    program = """
        import os, signal, threading, time
        from multiprocessing import forkserver
        from data_pipeline import workers
        from data_pipeline.executors import local

        if __name__ == "__main__":
            workers.context()
            first = forkserver._forkserver._forkserver_pid
            os.kill(first, signal.SIGSTOP)  # it cannot answer before it dies
            threading.Timer(0.5, os.kill, (first, signal.SIGKILL)).start()
            pool = local.Pool(1)
            worker = pool._start()
            assert worker.process.is_alive() and forkserver._forkserver._forkserver_pid != first
            pool.close()
            print("started")
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        capture_output=True, text=True, env=environment, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout == "started\n", done.stderr


def test_a_task_that_kills_every_worker_ends_the_run_with_an_error(tmp_path: Path) -> None:
    done = run_stage(tmp_path, "deadly", seed=1)
    assert done.returncode != 0
    assert "stage s: the worker of task 2 was killed (signal 9" in done.stderr and "3 times" in done.stderr
    assert len(list((tmp_path / "run" / "out").glob("2-*"))) == 3


def test_an_error_of_a_worker_keeps_its_type_and_its_traceback(tmp_path: Path) -> None:
    done = run_stage(tmp_path, "failing")
    assert done.stderr.splitlines()[-1] == "ValueError: a whole sentence for the user"
    assert "in failing" in done.stderr
    log = (tmp_path / "run" / "logs" / "s" / "logs" / "task_00002.log").read_text()
    assert "failed\n" in log and "in failing" in log


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, draw = tmp_path_factory.mktemp("corpus") / "documents.jsonl", random.Random(3)
    words = [f"{a}{b}" for a in ("ri", "mo", "sto", "wa", "li") for b in ("ver", "ne", "ter", "den", "ght")]
    with path.open("w") as file:
        for i in range(150):
            sentences = [" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(30)]
            file.write(json.dumps({"id": str(i), "text": " ".join(sentences)}) + "\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Files of a run with two workers, with their hashes, and its seconds."""
    return campaign.undisturbed(
        [*words(corpus), "executor.workers=2"], tmp_path_factory.mktemp("data") / "two"
    )


def words(corpus: Path) -> list[str]:
    return ["recipe=text", f"input={corpus}", *SMALL]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_killed_processes_change_nothing(
    corpus: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, kills: int
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    some = [*words(corpus), "executor.workers=2"]
    made = campaign.campaign(some, tmp_path, kills, seed, chained=kills < 10, made=undisturbed)
    assert not [kill for kill in made if kill.differences], f"seed {seed}"
    if kills > 10:
        assert {kill.victim for kill in made} >= {"driver", "worker"}


@pytest.mark.parametrize("workers", [1, pytest.param(7, marks=pytest.mark.full)])
def test_the_number_of_workers_changes_nothing(
    corpus: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, workers: int
) -> None:
    expected, _ = undisturbed
    assert sum(name.startswith("documents/") for name in expected) > 8
    made, _ = campaign.undisturbed([*words(corpus), f"executor.workers={workers}"], tmp_path / "data")
    assert made == expected

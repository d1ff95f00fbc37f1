"""`arriero compare`: runs side by side, on the terminal and in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from browser import CHROMIUM, assert_sound, in_browser
from example_report import HOSTILE, environment, lines, metrics_row, write_run
from toyrun import ROOT

from configs import edge
from launch import compare
from launch.cli import guarded
from launch.report import charts
from launch.report.compared import differences, flat, short_names

SECTIONS = {
    "results": "Results",
    "losses": "Final losses by source",
    "curves": "Curves",
    "configuration": "Configuration that differs",
    "environment": "Environment that differs",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs; the second has another learning rate, dtype, speed, loss and torch, and a hostile name in its path."""
    folder = tmp_path_factory.mktemp("compare")
    first = write_run(folder / "x").rename(folder / "a, 'b'=1")
    second = write_run(folder / "y", steps=300).rename(folder / "b")
    config = yaml.safe_load((second / "config.yaml").read_text())
    config["train"]["dtype"], config["optim"] = "fp32", {"lr": 0.003, "note": HOSTILE}
    (second / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [metrics_row(s) | {"loss": 2.5, "step_seconds": 0.4, "tokens": 16_000} for s in range(1, 301)]
    lines(second / "metrics.jsonl", rows)
    other = environment(2)
    other["libraries"] = {"torch": "2.14.0", "numpy": "2.4.0"}
    lines(second / "environment.jsonl", [other])
    return first, second


def test_the_table_names_what_differs_and_what_came_out(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([str(runs[0]), str(runs[1])]) == 0
    printed = capsys.readouterr().out
    cells = {" ".join(line.split()) for line in printed.splitlines()}
    for expected in (
        "steps 400 300",
        "tokens trained on 3.26 M 4.8 M",
        "held-out bits per byte 2.2366 2.2366",
        "goodput 72.9 % 72.9 %",
        "step, median 0.8 s 0.4 s",
        "code 2.0366 2.0366",
        "prose 2.4366 2.4366",
        "train.dtype bf16 fp32",
        "optim.lr — 0.003",
        "torch 2.13.0 2.14.0",
    ):
        assert expected in cells, expected
    assert "seed" not in printed and "numpy" not in printed, "what is equal is not listed"
    assert "run.dir" not in printed
    page = runs[0].parent / "compare-a, 'b'=1-b.html"
    assert (
        str(page) in printed
        and HOSTILE not in page.read_text()
        and page.read_text().count("plotly.js v") == 1
    )


def test_the_command_takes_folders_as_plain_words(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (str(r.relative_to(runs[0].parent)) for r in runs)
    (tmp_path / "own").mkdir()
    for words in (
        [first, second, f"output={tmp_path}/page.html"],
        ["--config-dir", f"{tmp_path}/own", f"output={tmp_path}/page.html", first, second],
        [first, second, "--cfg", "job"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "launch.cli", "compare", *words],
            cwd=runs[0].parent,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert ("- b\n" if "--cfg" in words else "train.dtype") in done.stdout, done.stdout


def test_axes_of_curves_are_those_of_a_report(runs: tuple[Path, Path]) -> None:
    """Small numbers with exponents and memory in GiB, and no `300µ` and `416M`."""
    rows = [metrics_row(step) | {"memory_peak_bytes": 2**30} for step in range(1, 9)]
    lr = charts.overlaid([("a", rows)], "lr", "learning rate")
    memory = charts.overlaid([("a", rows)], "memory_peak_bytes", "GiB", scale=2**-30)
    assert lr is not None and lr.layout.yaxis.tickformat == ".1e"
    assert memory is not None and set(memory.data[0].y) == {1.0} and memory.layout.yaxis.tickformat != ".1e"


def test_words_are_gathered_once() -> None:
    names = [f"run-{i}" for i in range(100)]
    gathered = edge.gather("runs", ["output=x.html", *names])
    assert gathered[1:] == ["output=x.html"] and gathered[0].count("run-") == 100
    assert edge.gather("runs", gathered) == gathered


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: run tests/install_browser.sh")
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_in_a_browser(runs: tuple[Path, Path], width: int, tmp_path: Path) -> None:
    assert compare.main([f"output={tmp_path / 'page.html'}", *map(str, runs)]) == 0
    found = in_browser(tmp_path / "page.html", width, tmp_path)
    assert_sound(found, width, SECTIONS, 6)
    assert found["axes"]["tokens"]["x"] == pytest.approx(400 * 8160)
    assert found["axes"]["log"]["type"] == "log" and found["axes"]["back"] == found["axes"]["step"]


def test_wrong_runs_are_refused(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for words, reason in (
        ([], "needs two runs or more"),
        ([str(runs[0])], "needs two runs or more"),
        ([str(runs[0]), str(runs[0])], "one run is named twice"),
        ([str(runs[0]), str(tmp_path / "nowhere")], "nowhere is not a directory"),
        ([str(runs[0]), str(tmp_path / "empty")], "is no run directory"),
    ):
        assert guarded(partial(compare.main, words)) == 2
        assert reason in capsys.readouterr().err


def test_keys_and_names() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": None}) == {"a.b": "1", "a.c": "{}", "d": "null"}
    assert differences([{"a": "1", "b": "2"}, {"a": "1", "c": "3"}]) == [["b", "2", "—"], ["c", "—", "3"]]
    assert short_names([Path("/x/1/run"), Path("/x/2/run")]) == ["1/run", "2/run"]

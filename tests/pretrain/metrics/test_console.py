"""Step lines and the progress bar."""

from __future__ import annotations

import io

import pytest

from pretrain.metrics.console import Console

ROW = {
    "step": 10,
    "loss": 2.5,
    "grad_norm": 1.0,
    "lr": 1e-3,
    "tokens_per_second": 1000.0,
    "tflop_per_second_per_device": 0.1,
    "mfu": None,
    "comm_share": None,
    "memory_interval_peak_bytes": 2**30,
    "data_wait_seconds": 0.001,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_step_lines_are_shown_with_and_without_a_bar(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", error)
    console = Console(True, True)
    console.start(0, 20)
    console.step(ROW, 20, log_now=True)
    console.step({**ROW, "step": 11}, 20, log_now=False)
    console.close()
    shown = capsys.readouterr().out
    assert shown.count("loss 2.5000") == 1 and shown.startswith("step ")
    assert ("2/20" in error.getvalue()) == terminal  # the bar, on a terminal alone

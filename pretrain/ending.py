"""The last lines of a run: what was made, and what one does next."""

from __future__ import annotations

import shlex
from pathlib import Path

from pretrain.checkpoint_folders import committed, step_of
from pretrain.rundir import read_evaluations, read_metrics


def ending(run_dir: Path) -> str:
    """What a finished run has made, and the next commands, as text."""
    rows, there = read_metrics(run_dir), committed(run_dir)
    lines = []
    if rows:
        last = rows[-1]
        loss = "not finite" if last["loss"] is None else f"{last['loss']:.4f}"
        lines.append(f"Finished at step {last['step']:,}, loss {loss}")
        lines += [
            f"  held-out {row['source']}: {row['bits_per_byte']:.4f} bits a byte"
            for row in read_evaluations(run_dir)
            if row["step"] == last["step"] and row.get("bits_per_byte") is not None
        ]
    steps = ", ".join(f"{step_of(path):,}" for path in reversed(there)) or "none"
    word = shlex.quote(f"run.dir={run_dir}")
    lines += [
        f"Made in {run_dir}: checkpoints (steps {steps}), metrics.jsonl, eval.jsonl, ledger.jsonl",
        "Next:",
        f"  arriero evaluate {word}",
        f'  arriero generate {word} prompt="The"',
        f"  arriero report {word}",
        f"  arriero export {word} {shlex.quote(f'output={run_dir}-hf')}",
    ]
    return "\n".join(lines)

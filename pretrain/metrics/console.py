"""What a person sees while a run trains: a line every `run.log_every` steps, on a terminal above a progress bar."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class Console:
    """Prints on one rank, and nothing on the others."""

    def __init__(self, shown: bool, progress: bool):
        self.shown = shown
        self._progress = shown and progress and sys.stderr.isatty()
        self._bar: Any = None

    def say(self, text: str) -> None:
        """Print text, above the bar where there is one."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        if self.shown:
            tqdm.write(f"warning: {text}", file=sys.stderr)

    def start(self, first: int, total: int) -> None:
        """Show a bar from step `first` of `total`."""
        if self._progress:
            self._bar = tqdm(total=total, initial=first, unit="step", dynamic_ncols=True)

    def step(self, row: dict[str, Any], total: int, log_now: bool) -> None:
        """Show a step's row of metrics."""
        if self._bar is not None:
            self._bar.update()
            if log_now:
                self._bar.set_postfix_str(f"loss {row['loss']:.4f}, {_rate(row['tokens_per_second'])}")
        if log_now and self.shown:
            mfu = f" ({row['mfu']:.1%} MFU)" if row["mfu"] is not None else ""
            comm = f"  communication {row['comm_share']:.1%}" if row["comm_share"] is not None else ""
            memory, waited = row["memory_interval_peak_bytes"] / 2**30, 1000 * row["data_wait_seconds"]
            self.say(
                f"step {row['step']:>7}/{total}  loss {row['loss']:.4f}  grad norm {row['grad_norm']:.3f}  "
                f"lr {row['lr']:.2e}  {_rate(row['tokens_per_second'])}  "
                f"{row['tflop_per_second_per_device']:.3g} TFLOP/s{mfu}  {memory:.2f} GiB  data wait {waited:.0f} ms{comm}"
            )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.0f} tokens/s"

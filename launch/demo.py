"""The main job on the input that every machine has: `python -m launch.demo` (`make demo`).

The Python environment itself → packed dataset → two training processes under the supervisor, one of them
killed on the way → held-out bits per byte beside `xz -9` → a sample → a report. Every step is a verb of the
command line, printed before it runs; run again, it reuses what is done.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import lzma
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SERVER = [sys.executable, "-m", "data_pipeline.quality.server", "--port", "0"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.demo", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run directories go (runs)")
    parser.add_argument("--steps", type=int, default=None, help="training steps (the experiment's)")
    arguments = parser.parse_args(argv)
    started = time.time()
    data, run = arguments.runs / "demo-data", arguments.runs / "demo"
    length = [f"train.steps={arguments.steps}"] if arguments.steps else []

    prepare(data)
    with worker_killed_once(run):
        verb(
            "launch",
            "cluster=local",
            "cluster.nproc=2",
            "experiment=demo",
            f"data.path={data}/packed",
            f"run.dir={run}",
            *length,
        )
    verb("evaluate", f"run.dir={run}")
    compare_with_xz(run, data)
    verb("generate", f"run.dir={run}", "prompt=def ", "max_tokens=120", "temperature=0.7", "top_p=0.95")
    verb("generate", f"run.dir={run}", "prompt=The ", "max_tokens=80", "temperature=0.7", "top_p=0.95")
    verb("report", f"run.dir={run}")
    print(f"\nDone in {time.time() - started:.0f} s. Report: {(run / 'report.html').resolve()}")
    return 0


def verb(*words: str) -> None:
    """Run one verb of the command line, shown as a person would type it."""
    shown = " ".join(f"'{w}'" if " " in w else w for w in words)
    print(f"\n$ arriero {shown}", flush=True)
    code = subprocess.run([sys.executable, "-m", "launch.cli", *words], check=False).returncode
    if code:
        raise SystemExit(f"error: `arriero {shown}` ended with status {code}")


def prepare(data: Path) -> None:
    """Build the packed dataset; the quality labels come from a local server that speaks the OpenAI protocol."""
    with subprocess.Popen(SERVER, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            print(f"$ python -m data_pipeline.quality.server   # answers at {address}")
            verb("data", "source=demo", f"output={data}", f"quality.label.base_url={address}")
        finally:
            server.terminate()


@contextlib.contextmanager
def worker_killed_once(run: Path) -> Iterator[None]:
    """While the run goes on, kill one worker with SIGKILL once a checkpoint is committed; a finished run is left alone."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            beat = run / "heartbeats" / "rank-1.json"
            committed = any(run.glob("checkpoints/step-*/COMMITTED"))
            if not committed or not beat.exists():
                continue
            process = json.loads(beat.read_text())
            print(
                f"\n# demo: kill -9 of worker 1 (process {process['pid']}) at step {process['step']}",
                flush=True,
            )
            with contextlib.suppress(ProcessLookupError):
                os.kill(process["pid"], signal.SIGKILL)
            return

    if _events(run) & {"failed", "finished"}:
        yield
        return
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _events(run: Path) -> set[str]:
    ledger = run / "ledger.jsonl"
    return (
        {json.loads(line)["event"] for line in ledger.read_text().splitlines()} if ledger.exists() else set()
    )


def compare_with_xz(run: Path, data: Path) -> None:
    """Print the model's bits per byte on held-out documents beside those of `xz -9`, by source."""
    from pretrain.evaluate import heldout_document_bits

    result = run / "compression.json"
    checkpoint = max(p.parent.name for p in run.glob("checkpoints/step-*/COMMITTED"))
    if result.exists() and (rows := json.loads(result.read_text()))["checkpoint"] == checkpoint:
        _print_compression(rows["sources"])
        return
    texts = _texts(data)
    sources = {}
    for source, documents in heldout_document_bits(run).items():
        contents = [texts[d.id].encode() for d in documents]
        size = sum(map(len, contents))
        sources[source] = {
            "documents": len(documents),
            "bytes": size,
            "model": sum(d.bits for d in documents) / size,
            "xz_each": 8 * sum(xz9(c) for c in contents) / size,
            "xz_all": 8 * xz9(b"".join(contents)) / size,
        }
    result.write_text(json.dumps({"checkpoint": checkpoint, "sources": sources}, indent=1))
    _print_compression(sources)


def xz9(content: bytes) -> int:
    """Size of `xz -9` in bytes. The window is cut to the content: the matches are the same, the set-up is not 64 MB."""
    window = max(4096, 1 << (len(content) - 1).bit_length()) if content else 4096
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": min(window, 1 << 26)}]
    return len(lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters))


def _texts(data: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    texts: dict[str, str] = {}
    for shard in sorted((data / "documents").glob("*.parquet")):
        table = pq.read_table(shard, columns=["id", "text"])
        texts.update(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


def _print_compression(sources: dict[str, dict[str, float]]) -> None:
    print("\nHeld-out bits per byte, pooled over bytes (lower is better)")
    print(f"{'source':<10}{'documents':>10}{'bytes':>12}{'model':>9}{'xz -9 each':>12}{'xz -9 all':>11}")
    for name, row in sources.items():
        print(
            f"{name:<10}{row['documents']:>10}{row['bytes']:>12,}{row['model']:>9.3f}{row['xz_each']:>12.3f}{row['xz_all']:>11.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())

"""The main job on the input that every machine has: `python -m launch.demo` (`make demo`).

The Python environment itself → packed dataset → two training processes under the supervisor, one of them
killed on the way → held-out bits per byte beside `xz -9` → a sample → a report. Every step is a verb of the
command line, printed before it runs; run again, it reuses what is done.

It should end ten minutes after `make demo` began, installation and compiling included. So the speed of this machine is
measured first, and the training is as long as the time that is left when the data are ready.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from configs import children
from configs.output import end_with_reader
from configs.schema.train import ClusterConfig
from data_pipeline.packed import PackedDataset
from data_pipeline.packed.files import write_atomically
from launch import local, pace

SECONDS = 500.0
"""From the beginning of `make demo` to the end of the evaluation; what is left of ten minutes is a margin."""
CLOSING = 45.0
"""Of these, what neither trains nor evaluates: starting twice, samples, the report."""
VOCABULARY = 4096
"""Of `configs/source/demo.yaml`."""
HELDOUT_BYTES, SMALL_HELDOUT_BYTES = 1_100_000, 500_000
"""Held-out text of a source, and on machines on which evaluating it takes more than a minute."""
SLOW = 6000.0
"""Tokens a second of the model 4m below which it does."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.demo", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run directories go (runs)")
    parser.add_argument(
        "--began", type=float, default=None, help="when `make demo` began, in Unix seconds (now)"
    )
    parser.add_argument("overrides", nargs="*", help="for the training run, such as train.steps=20")
    arguments = parser.parse_args(argv)
    began = time.time() if arguments.began is None else arguments.began
    data, run = arguments.runs / "demo-data", arguments.runs / "demo"

    plan = arguments.runs / "demo-plan.json"
    made = json.loads(plan.read_text()) if plan.exists() else {}
    if "tokens_per_second_by_model" not in made:
        made["tokens_per_second_by_model"] = pace.measure(
            "demo", VOCABULARY, local.environment(ClusterConfig(threads=1))
        )
        write_atomically(plan, json.dumps(made).encode())
    speeds = made["tokens_per_second_by_model"]
    shown = ", ".join(f"{speed:,.0f} tokens/s of the model {model}" for model, speed in speeds.items())
    print(f"# this machine trains about {shown}, on two processes", flush=True)
    heldout = HELDOUT_BYTES if speeds["4m"] > SLOW else SMALL_HELDOUT_BYTES
    verb("data", "source=demo", f"pack.heldout_min_bytes={heldout}", f"output={data}")
    if "training" not in made:
        packed = PackedDataset(data / "packed")
        left = began + SECONDS - time.time() - CLOSING
        length = pace.fit(left, speeds, heldout_tokens(packed), packed.sequence_length)
        made["training"] = length.overrides
        write_atomically(plan, json.dumps(made).encode())
        print(
            f"\n# {max(0, left):.0f} s are left to train: {length.steps} steps of {length.batch} sequences, "
            f"model {length.model}",
            flush=True,
        )
    with worker_killed_once(run):
        verb(
            "launch",
            "cluster=local",
            "cluster.nproc=2",
            "cluster.threads=1",
            "experiment=demo",
            f"data.path={data}/packed",
            f"run.dir={run}",
            *made["training"],
            *arguments.overrides,
        )
    evaluate_once(run)
    compare_with_xz(run, data)
    verb("generate", f"run.dir={run}", "prompt=import", "max_tokens=120", "temperature=0.7", "top_p=0.95")
    verb("generate", f"run.dir={run}", "prompt=The", "max_tokens=80", "temperature=0.7", "top_p=0.95")
    verb("report", f"run.dir={run}")
    print(f"\nDone in {time.time() - began:.0f} s. Report: {(run / 'report.html').resolve()}")
    return 0


def heldout_tokens(packed: PackedDataset) -> int:
    """Tokens of the held-out split, padding included."""
    return packed.sequence_length * sum(s.sequences for s in packed.manifest.of_split("heldout").values())


def verb(*words: str) -> None:
    """Run one verb of the command line."""
    shown = " ".join(f"'{w}'" if " " in w else w for w in words)
    command(f"arriero {shown}", ["launch.cli", *words])


def command(shown: str, module: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a module with its arguments, shown as a person would type it."""
    print(f"\n$ {shown}", flush=True)
    code = subprocess.run(
        children.command(*module), env=children.environment(environment), check=False
    ).returncode
    if code:
        raise SystemExit(f"error: `{shown}` ended with status {code}")


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
                "\n# demo: this is intended: to show that a run survives it, worker 1 is killed (kill -9 of process "
                f"{process['pid']}) at step {process['step']}, and the run goes on from its checkpoint",
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


def evaluate_once(run: Path) -> None:
    """Evaluate the whole held-out split on two processes, unless the newest checkpoint was evaluated already."""
    step = max(int(p.parent.name.removeprefix("step-")) for p in run.glob("checkpoints/step-*/COMMITTED"))
    result = run / "heldout_documents.jsonl"
    if result.exists() and json.loads(result.read_text().partition("\n")[0])["step"] == step:
        print(f"\n# step {step} is evaluated already: {result}")
        return
    place = ["--standalone", "--local-addr=localhost", "--nproc-per-node=2"]
    torchrun = ["torch.distributed.run", *place, "-m", "pretrain.evaluate"]
    words = [f"run.dir={run}", "batch_size=16"]
    shown = f"OMP_NUM_THREADS=1 torchrun {' '.join(torchrun[1:] + words)}"
    command(shown, [*torchrun, *words], local.environment(ClusterConfig(threads=1)))


def compare_with_xz(run: Path, data: Path) -> None:
    """Print the model's bits per byte on held-out documents beside those of `xz -9`, by source."""
    documents = [json.loads(line) for line in (run / "heldout_documents.jsonl").read_text().splitlines()]
    texts = _texts(data, {d["id"] for d in documents})
    print("\nHeld-out bits per byte, pooled over bytes (lower is better)")
    print(f"{'source':<10}{'documents':>10}{'bytes':>12}{'model':>9}{'xz -9 each':>12}{'xz -9 all':>11}")
    for source in sorted({d["source"] for d in documents}):
        rows = [d for d in documents if d["source"] == source]
        contents = [texts[d["id"]].encode() for d in rows]
        size = sum(map(len, contents))
        model = sum(d["bits"] for d in rows) / size
        each = 8 * sum(xz9(c) for c in contents) / size
        together = 8 * xz9(b"".join(contents)) / size
        print(f"{source:<10}{len(rows):>10}{size:>12,}{model:>9.3f}{each:>12.3f}{together:>11.3f}")


def xz9(content: bytes) -> int:
    """Size of `xz -9` in bytes. The window is cut to the content: the matches are the same, the set-up is not 64 MB."""
    window = max(4096, 1 << (len(content) - 1).bit_length()) if content else 4096
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": min(window, 1 << 26)}]
    return len(lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters))


def _texts(data: Path, ids: set[str]) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    texts: dict[str, str] = {}
    for shard in sorted((data / "documents").glob("*.parquet")):
        table = pq.read_table(shard, columns=["id", "text"])
        table = table.filter(pc.is_in(table["id"], pa.array(sorted(ids))))
        texts.update(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


if __name__ == "__main__":
    sys.exit(end_with_reader(main))

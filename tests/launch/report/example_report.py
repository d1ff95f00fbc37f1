"""A run and a data directory on disk in the shapes that the verbs write, with hostile text where text may stand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import yaml

from data_pipeline.packed import Manifest, ShardInfo, StreamInfo, TokenizerInfo

HOSTILE = (
    "</script><script>window.hacked=1</script><img src=http://example.invalid/x onerror=window.hacked=1>"
)


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(root: Path, steps: int = 400) -> Path:
    """A finished run of `steps` steps, killed once half-way; returns its directory."""
    run, packed = root / "run", root / "data" / "packed"
    run.mkdir(parents=True)
    packed.mkdir(parents=True)
    model = {
        "name": "debug",
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "ffn_dim": 192,
        "tied": True,
    }
    config = {
        "data": {"path": str(packed), "phases": [{"sequences": None, "weights": {}, "max_epochs": {}}]},
        "model": model,
        "train": {"steps": steps, "global_batch_size": 16, "micro_batch_size": 4, "dtype": "bf16"},
        "run": {"dir": str(run), "name": None},
        "seed": 0,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    lines(run / "metrics.jsonl", [metrics_row(step) for step in range(1, steps + 1)])
    lines(run / "environment.jsonl", [environment(2, HOSTILE), environment(2), environment(1)])
    (run / "profiles/step-20").mkdir(parents=True)
    (run / "profiles/step-20/summary.txt").write_text("Step 20, rank 0: 0.81 s\n  forward   31.0%\n")
    start, half = 1_760_000_000.0, max(1, steps // 2)
    events = [
        {"event": "launched", "time": start, "step": None, "nproc": 2},
        {"event": "started", "time": start + 6, "step": 0},
        {
            "event": "step_range",
            "time": start + 60,
            "step": half,
            "first_step": 1,
            "last_step": half,
            "seconds": 50.0,
        },
        {"event": "saved", "time": start + 61, "step": half, "stall": 0.4},
        {
            "event": "step_range",
            "time": start + 71,
            "step": half + 40,
            "first_step": half + 1,
            "last_step": half + 40,
            "seconds": 9.0,
        },
        {
            "event": "failed",
            "time": start + 72,
            "step": half + 40,
            "signal": "SIGKILL",
            "rank": 1,
            "note": HOSTILE,
        },
        {"event": "restarting", "time": start + 73, "step": half},
        {"event": "launched", "time": start + 74, "step": None},
        {"event": "started", "time": start + 80, "step": half},
        {"event": "restored", "time": start + 82, "step": half},
        {
            "event": "step_range",
            "time": start + 135,
            "step": steps,
            "first_step": half + 1,
            "last_step": steps,
            "seconds": 52.0,
        },
        {"event": "evaluated", "time": start + 138, "step": steps},
        {"event": "saved", "time": start + 139, "step": steps, "stall": 0.5},
        {"event": "finished", "time": start + 140, "step": steps},
    ]
    lines(run / "ledger.jsonl", events)
    evals = []
    for step in (steps // 4, half, steps):
        for source, bits in (("code", 2.0), ("prose", 2.4), ("all", 2.2)):
            value = bits + 2 * math.exp(-4 * step / steps)
            evals.append(
                {
                    "step": step,
                    "source": source,
                    "split": "heldout",
                    "nats_per_token": value * 2,
                    "bits_per_byte": value,
                    "tokens": 400_000,
                    "bytes": 1_048_576,
                }
            )
    lines(run / "eval.jsonl", evals)
    how = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "seed": 0, "step": steps, "tokens": 40}
    lines(
        run / "samples.jsonl",
        [
            {
                "prompt": "def ",
                "text": "parse(line: str) -> list[str]:\n    return line.split(',')\n",
                "finish": "stop",
            }
            | how,
            {"prompt": "The ", "text": "road went up " * 12 + HOSTILE, "finish": "length"} | how,
        ],
    )
    compared = {"documents": 210, "bytes": 1_048_576, "model": 2.01, "xz_each": 2.27, "xz_all": 1.7}
    (run / "compression.json").write_text(
        json.dumps(
            {
                "checkpoint": f"step-{steps:08d}",
                "sources": {"code": compared, "prose": compared | {"model": 2.4}},
            }
        )
    )
    write_data(packed)
    return run


def metrics_row(step: int) -> dict:
    loss = 5.5 * math.exp(-step / 60) + 2.8 + 0.08 * math.sin(step * 12.9898)
    return {
        "step": step,
        "loss": loss if step != 77 else float("nan"),
        "tokens": 8160,
        "grad_norm": 0.4 + 3 * math.exp(-step / 30) + (9.0 if step == 120 else 0.0),
        "lr": 3e-4 * min(1, step / 40),
        "perplexity": math.exp(loss),
        "tokens_per_second": 9800 + 300 * math.sin(step),
        "mfu": 0.31,
        "memory_peak_bytes": 1.4 * 2**30,
        "memory_interval_peak_bytes": 1.3 * 2**30,
        "step_seconds": 0.8,
        "data_wait_seconds": 0.002,
        "forward_backward_seconds": 0.7,
        "optimizer_seconds": 0.08,
        # Measured at every hundredth step.
        "comm_share": 0.11 if step % 100 == 0 else None,
        "time_unix_seconds": 1_760_000_000.0 + step,
    }


def environment(devices: int, host: str = "node1") -> dict:
    """A line of environment.jsonl."""
    return {
        "format_version": 2,
        "time_unix_seconds": 1_760_000_000.0,
        "command": "python -m pretrain.train model=debug run.dir='my runs/a'",
        "started_by": ["python -m launch.agent"],
        "directory": "/home/someone",
        "arriero": {"version": "0.1.0", "git_commit": "0123456789abcdef" * 2, "git_dirty": True},
        "python": "3.11.2",
        "libraries": {"torch": "2.13.0", "numpy": "2.4.0"},
        "hardware": {
            "host": host,
            "system": "Linux 6.1 x86_64",
            "processor": "Some processor with a long name and 8 cores @ 2.40 GHz",
            "processor_cores": 8,
            "memory_bytes": 16 * 2**30,
            "device": "cpu",
            "device_memory_bytes": None,
            "devices": devices,
        },
    }


def write_data(packed: Path) -> None:
    """The funnel, the configuration and the manifest of a data run with two sources."""
    funnel = {
        "format": "arriero-funnel",
        "format_version": 2,
        "sources": {
            "code": {
                "read_documents": 9000,
                "set_aside_documents": 12,
                "dropped_documents": {
                    "code.generated": 300,
                    "gopher.n_words": 700,
                    "exact": 900,
                    "minhash": 88,
                },
                "kept_documents": 7000,
            },
            "prose": {
                "read_documents": 4000,
                "set_aside_documents": 0,
                "dropped_documents": {
                    "gopher.n_words": 1400,
                    "language.language": 100,
                    "exact": 300,
                    "semantic": 20,
                },
                "kept_documents": 2180,
                "flagged_documents": {"privacy.pages": 17},
            },
        },
        "samples": {
            "gopher.n_words": [
                {"id": "0" * 32, "url": "python:numpy/x.py", "excerpt": "import numpy\n" + HOSTILE},
                {"id": "1" * 32, "url": HOSTILE, "excerpt": "\x00\x1b[31m short"},
            ],
            "exact": [{"id": "2" * 32, "url": None, "excerpt": "Apache License " * 60}],
            "minhash": [{"id": "3" * 32, "url": "python:a/b.py", "excerpt": "x" * 3000}],
        },
        "not_run": [{"name": "nsfw classifier", "reason": "no model"}, {"name": HOSTILE, "reason": HOSTILE}],
        "ran_in_part": [
            {"name": "c4.words", "reason": "its signal has no value", "documents": 3, "of_documents": 1300}
        ],
        "kept_lengths": {
            source: [{"from_bytes": 64 * 4**k, "documents": n - n // 4 * abs(k - 3)} for k in range(7)]
            for source, n in (("code", 900), ("prose", 300))
        },
        "kept_languages": {"code": {"en": 6500, "und": 500}, "prose": {"en": 2000, "de": 120, HOSTILE: 60}},
        "stages": [{"name": "read", "seconds": 12.0, "counts": {"documents": 13000}}],
        "unknown_files": [{"source": "code", "file": HOSTILE, "found": "application/pdf"}],
    }
    (packed.parent / "funnel.json").write_text(json.dumps(funnel))
    (packed.parent / "config.yaml").write_text(
        yaml.safe_dump({"output": str(packed.parent), "seed": 0, "note": HOSTILE})
    )
    (packed / "manifest.json").write_bytes(manifest().to_json())


def manifest() -> Manifest:
    """Two sources with a mixture and a cap; the streams' files are not there, as the report reads none."""
    streams = {}
    for source, sequences in (("code", 9000), ("prose", 3000)):
        for split, share in (("train", 1.0), ("heldout", 0.02)):
            n = int(sequences * share)
            shard = ShardInfo(n, n, {"tokens-00000.bin": {"bytes": n * 1024, "sha256": "0" * 64}})
            streams[f"{split}/{source}"] = StreamInfo(
                split, source, None, n, n * 512, n // 2, n * 1500, (shard,), {"bytes": 1, "sha256": "0" * 64}
            )
    special = {"bos": 4084, "eos": 4085, "pad": 4085}
    mixture = {"weights": {"code": 0.6, "prose": 0.4}, "max_epochs": {"prose": 0.5}}
    return Manifest(TokenizerInfo("0" * 64, 4096, special), 512, "uint16", "concat", streams, mixture=mixture)

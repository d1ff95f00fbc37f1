"""`arriero data` on a local Ray."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks import campaign


def test_ray_makes_the_same_bytes_as_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'arriero[ray]'")
    draw, source = random.Random(3), tmp_path / "books.jsonl"
    words = [f"{a}{b}" for a in ("ri", "mo", "sto", "wa", "li") for b in ("ver", "ne", "ter", "den", "ght")]
    texts = [" ".join(draw.choices(words, k=300)) for _ in range(60)]
    source.write_text("".join(json.dumps({"text": t, "id": str(i)}) + "\n" for i, t in enumerate(texts)))
    small = ["recipe=text", f"input={source}", "tokenizer.vocab_size=400", "tokenizer.n_special=16",
             "pack.sequence_length=64", "unit_bytes=30000"]  # fmt: skip
    local, _ = campaign.undisturbed([*small, "executor.workers=1"], tmp_path / "local")
    ray, _ = campaign.undisturbed([*small, "executor.kind=ray", "executor.workers=2"], tmp_path / "ray")
    assert sum(name.startswith("documents/") for name in local) > 4
    assert ray == local
    log = (tmp_path / "ray" / "logs" / "read" / "logs" / "task_00001.log").read_text()
    assert "task 1 of" in log and "done in" in log

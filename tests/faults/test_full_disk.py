"""`arriero data` on a disk that is too small: one error, nothing that looks whole, and finished stages are kept."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toyrun import PATIENCE, ROOT

SMALL = ("recipe=text", "tokenizer.vocab_size=400", "tokenizer.n_special=16", "pack.sequence_length=64")


def data(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run `arriero data`."""
    words = ["data", f"input={source}", f"output={output}", *SMALL]
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, chosen = tmp_path_factory.mktemp("corpus") / "documents.jsonl", random.Random(3)
    words = [
        f"{a}{b}" for a in ("ri", "mo", "sto", "wa", "li", "ga") for b in ("ver", "ne", "ter", "den", "ght")
    ]
    with path.open("w") as file:
        for i in range(60):
            sentences = [" ".join(chosen.choices(words, k=12)).capitalize() + "." for _ in range(40)]
            file.write(json.dumps({"id": str(i), "text": " ".join(sentences)}) + "\n")
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mount)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_is_one_error_and_the_run_goes_on_with_room(corpus: Path, small_disk: Path) -> None:
    output = small_disk / "out"
    failed = data(corpus, output)
    assert failed.returncode == 1
    (error,) = failed.stderr.splitlines()
    assert error.startswith("error: stage ") and f"no space left on the disk of {output}" in error
    assert not (output / "packed").exists()
    subprocess.run(["mount", "-o", "remount,size=512m", str(small_disk)], check=True)
    again = data(corpus, output)
    assert again.returncode == 0 and "unchanged" in again.stdout, again.stderr
    assert (output / "packed" / "manifest.json").is_file()

"""fastText classifiers, trained deterministically and scored in batches.

Bag of Tricks for Efficient Text Classification (Joulin et al., 2016): the mean of word, word n-gram and character
n-gram embeddings through one linear layer. One thread, a fixed seed and zeroed memory (`_fit`), so equal rows give an
equal file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from configs import children
from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify import calibrate
from data_pipeline.packed.files import atomic_file, scratch_folder

LABEL_PREFIX = "__label__"
MIN_ROWS_PER_LABEL = 2
_FIT = """
import json, sys, fasttext
fasttext.train_supervised(**json.loads(sys.argv[1])).save_model(sys.argv[2])
"""
Texts: TypeAlias = "Sequence[str] | pa.Array | pa.ChunkedArray"
_PROGRESS = re.compile(rb"Progress:\s*([0-9.]+)%")


def excerpt(text: str, max_characters: int) -> str:
    """What a classifier reads of a text: all of it, or as much of its start and of its middle.

    Pages start with menus and dates; from the middle speaks the text itself.
    """
    if len(text) <= max_characters:
        return text
    half = max_characters // 2
    middle = (len(text) - half) // 2
    return f"{text[: max_characters - half - 1]} {text[middle : middle + half]}"


def one_line(text: str, max_characters: int) -> str:
    """A text as fastText reads it: its `excerpt` in one line, single spaces, no token that could pass for a label."""
    line = " ".join(excerpt(text, max_characters).replace("\0", " ").split())
    if LABEL_PREFIX in line:
        line = line.replace(LABEL_PREFIX, "label ")
    # Lone surrogates cannot be written as UTF-8, and come from damaged input only.
    return line.encode("utf-8", "replace").decode("utf-8")


def train(
    rows: Iterable[tuple[str, str]],
    config: ClassifierConfig,
    output: Path,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Train a classifier on (text, label) rows and write it to `output`, atomically.

    The order of the rows makes no difference: they are put in the order of a hash of (seed, row). fastText reads its
    file as it comes, and rows sorted by label cost 27 points of accuracy on one measured set. Texts that are empty after
    normalisation are left out and counted. All rows, cut to `max_characters` (for `bayes` whole), are held in memory. A
    calibration of the model that was there before is removed with it.

    Args:
        progress: called with the finished share of the training, 0..1, every now and then.

    Returns:
        {"rows", "empty", "labels": {label: rows}, "sha256", "bytes"} of the model.

    Raises:
        ValueError: fewer than two labels, a label with fewer than two rows, a label that holds white space, or a
            training that diverged.
    """
    counts: Counter[str] = Counter()
    empty = 0
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as temporary, scratch_folder(output) as scratch:
        lines: list[tuple[str, str]] = []
        for text, label in rows:
            if not label or label.split() != [label]:
                raise ValueError(f"label {label!r} of a training row must be one word without white space")
            line = one_line(text, len(text) if config.method == "bayes" else config.max_characters)
            if not line:
                empty += 1
                continue
            counts[label] += 1
            lines.append((line, label))
        _check_counts(counts, empty)
        if config.method == "bayes":
            from data_pipeline.classify import bayes  # compiled code

            bayes.write(lines, config, temporary)
        else:
            _sgd(lines, config, scratch, temporary, seed, progress)
        digest = _sha256(temporary)
        size = temporary.stat().st_size
        calibrate.write(None, output, digest)
    return {
        "rows": sum(counts.values()),
        "empty": empty,
        "labels": dict(sorted(counts.items())),
        "sha256": digest,
        "bytes": size,
    }


def _sgd(
    lines: list[tuple[str, str]],
    config: ClassifierConfig,
    scratch: Path,
    output: Path,
    seed: int,
    progress: Callable[[float], None] | None,
) -> None:
    """Stochastic gradient descent, by fastText, over lines in the order of a hash of (seed, line)."""
    salt = f"fasttext rows\0{seed}\0".encode()
    encoded = [f"{LABEL_PREFIX}{label} {line}\n".encode() for line, label in lines]
    encoded.sort(key=lambda line: (xxhash.xxh3_64_intdigest(salt + line), line))
    corpus = scratch / "rows.txt"
    corpus.write_bytes(b"".join(encoded))
    _fit(corpus, config, output, seed, progress)


def _fit(
    corpus: Path,
    config: ClassifierConfig,
    output: Path,
    seed: int,
    progress: Callable[[float], None] | None,
) -> None:
    """Train in a process whose memory is zero.

    With one thread fastText initialises a tenth of the embedding matrix and trains on from whatever the allocator
    left in the rest: measured, four of nine trainings in a process that had trained before differed or ended in NaN.
    glibc fills memory with the complement of MALLOC_PERTURB_ as it hands it out, so 255 gives zeros.
    """
    arguments = {
        "input": str(corpus),
        "lr": config.learning_rate,
        "dim": config.dim,
        "epoch": config.epochs,
        "wordNgrams": config.word_ngrams,
        "minn": config.min_char_ngram,
        "maxn": config.max_char_ngram,
        "bucket": config.buckets,
        "seed": seed,
        "thread": 1,
        "verbose": 0 if progress is None else 2,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _FIT, json.dumps(arguments), str(output)],
        env=children.environment() | {"MALLOC_PERTURB_": "255"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    with process:
        while block := os.read(process.stderr.fileno(), 1 << 16):
            said = (said + block)[-4000:]
            if progress is not None and (found := _PROGRESS.findall(block)):
                progress(float(found[-1]) / 100)
    if process.returncode == 0:
        return
    lines = said.decode("utf-8", "replace").strip().splitlines()
    reason = (lines or [f"exit status {process.returncode}"])[-1]
    if "NaN" in reason:
        raise ValueError(
            f"the training diverged; lower learning_rate (now {config.learning_rate}), or give more and more varied rows"
        )
    raise ValueError(f"fastText cannot train: {reason}")


def _check_counts(counts: Counter[str], empty: int) -> None:
    if len(counts) < 2:
        found = f"only the label {next(iter(counts))!r}" if counts else "no usable row"
        raise ValueError(
            f"a classifier needs rows of at least two labels; the training rows hold {found}"
            + (f" ({empty} rows were empty)" if empty else "")
        )
    rare = sorted(label for label, n in counts.items() if n < MIN_ROWS_PER_LABEL)
    if rare:
        raise ValueError(
            f"every label needs at least {MIN_ROWS_PER_LABEL} rows; too few of: {', '.join(rare[:10])}. "
            "Add rows of these labels or leave them out."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=16)
def _digest(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file; size and time of change are part of the key."""
    return _sha256(Path(path))


@functools.lru_cache(maxsize=4)
def _load(path: str, digest: str) -> Any:
    """A loaded model. `digest` is part of the key, so a model retrained at the same path is read again."""
    from data_pipeline.classify import inference

    network = inference.load(Path(path))
    if network is not None:
        return network
    import fasttext  # quantised models, old formats

    try:
        return fasttext.load_model(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a fastText model ({error}); expected a .bin file") from error


class Classifier:
    """A fastText model on disk, with its calibration where it has one, ready to score texts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a supervised fastText model, or its calibration is not its own.
    """

    def __init__(self, path: Path | str, max_characters: int = 2000) -> None:
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; expected a fastText .bin model")
        self.path = path
        stat = path.stat()
        self.digest = _digest(str(path), stat.st_size, stat.st_mtime_ns)
        self.max_characters = max_characters
        self._model = _load(str(path), self.digest)
        try:
            names = getattr(self._model, "labels", None) or self._model.get_labels()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is a fastText model without labels, not a classifier") from error
        found = [name.removeprefix(LABEL_PREFIX) for name in names]
        # Sorted, so that columns mean the same everywhere.
        self.labels: tuple[str, ...] = tuple(sorted(found))
        self._order = np.array([found.index(label) for label in self.labels])
        self._column = {label: i for i, label in enumerate(self.labels)}
        self.calibration = calibrate.read(path, self.digest)

    def column(self, label: str) -> int:
        """Column of a label in `scores`; ValueError naming the model's labels when it has no such label."""
        if label not in self._column:
            known = ", ".join(self.labels[:20]) + (", …" if len(self.labels) > 20 else "")
            raise ValueError(f"the model {self.path} has no label {label!r}; its labels are: {known}")
        return self._column[label]

    def scores(self, texts: Texts) -> np.ndarray:
        """Probabilities of all labels, float32 [n, len(labels)] in the order of `labels`; NaN for empty texts.

        Args:
            texts: strings, or an Arrow array of strings; null counts as empty.
        """
        texts = _arrow(texts)
        if len(texts) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        poisoned = pc.match_substring(texts, LABEL_PREFIX)
        if pc.any(poisoned).as_py():
            whole = texts.to_pylist()
            for i in np.flatnonzero(poisoned.to_numpy(zero_copy_only=False)).tolist():
                whole[i] = one_line(whole[i], self.max_characters)
            texts = pa.array(whole, pa.large_string())
        if hasattr(self._model, "probabilities"):
            scores = self._model.probabilities(texts, self.max_characters)[:, self._order]
        else:
            scores = self._predict(texts.to_pylist())
        return self.calibration.apply(scores) if self.calibration else scores

    def best(self, texts: Texts) -> tuple[list[str | None], list[float | None]]:
        """The likeliest label of each text and its probability; None for empty texts."""
        scores = self.scores(texts)
        known = ~np.isnan(scores).any(axis=1)
        first = np.nan_to_num(scores).argmax(axis=1)
        labels = [
            self.labels[k] if ok else None for k, ok in zip(first.tolist(), known.tolist(), strict=True)
        ]
        values = [float(scores[i, k]) if known[i] else None for i, k in enumerate(first.tolist())]
        return labels, values

    def _predict(self, texts: list[str]) -> np.ndarray:
        """As `scores`, by fastText's own code."""
        scores = np.full((len(texts), len(self.labels)), np.nan, np.float32)
        lines = [one_line(text, self.max_characters) for text in texts]
        rows = [i for i, line in enumerate(lines) if line]
        if not rows:
            return scores
        k = len(self.labels)
        labels, values = self._model.f.multilinePredict([lines[i] + "\n" for i in rows], k, 0.0, "strict")
        for row, names, probabilities in zip(rows, labels, values, strict=True):
            # fastText's softmax overshoots 1 by a few units in the last place, and has no answer (or NaN) for a line
            # none of whose words and n-grams it knows.
            for name, value in zip(names, probabilities, strict=True):
                column = self._column.get(name.removeprefix(LABEL_PREFIX))
                if column is not None and math.isfinite(value):
                    scores[row, column] = min(max(float(value), 0.0), 1.0)
            if not np.isnan(scores[row]).all():
                scores[row] = np.nan_to_num(scores[row])
        return scores


def _arrow(texts: Texts) -> pa.Array:
    """Texts as one Arrow array, null as empty text."""
    if not isinstance(texts, (pa.Array, pa.ChunkedArray)):
        try:
            texts = pa.array(texts, pa.large_string())
        except UnicodeEncodeError:  # lone surrogates come from damaged input only
            texts = pa.array(
                [text.encode("utf-8", "replace").decode("utf-8") for text in texts], pa.large_string()
            )
    texts = pc.fill_null(texts.cast(pa.large_string()), "")
    if isinstance(texts, pa.ChunkedArray):
        return pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.large_string())
    return texts

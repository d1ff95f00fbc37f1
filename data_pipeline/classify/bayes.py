"""Naive Bayes over character n-grams in the form of a fastText model: trained in one pass, read by fastText itself.

The embedding of an n-gram is its log probability in each label, centred over labels, and the output layer is the identity
times a constant: the mean of embeddings, which fastText computes, is then the log likelihood of a text per n-gram. With
little text a language (15,000 characters), this beats gradient descent by far on new kinds of text
(`benchmarks/language.py`), and it takes seconds. Log probabilities are smoothed towards the mean of all labels (a Dirichlet
prior), so that an n-gram never seen in a label counts against it as much as the label's text is long.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify import inference
from data_pipeline.compiled import kernel, subroutine

SCALE = 15.0
"""Weight of the output layer: n-grams that a text counts for. Calibration finds the right one; this does not saturate."""
FLOOR = 1e-4
"""Added to every count: an n-gram that no label has seen says nothing."""
WITHOUT_ACCENTS = 0.2
"""Weight of each line written without accents on Latin letters, as much of the web is (Yoruba: F1 0.80 for 0.70)."""
MOST_BYTES = 2**31
_ACCENTS = re.compile("([A-Za-z])[\u0300-\u036f]+")
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_STARTS = numba.types.Array(numba.int64, 1, "C", readonly=True)


def write(lines: Iterable[tuple[str, str]], config: ClassifierConfig, output: Path) -> None:
    """Train on (line, label) rows and write a fastText `.bin` model. The order of rows makes no difference.

    Args:
        lines: texts as `fasttext.one_line` gives them, of any length.

    Raises:
        ValueError: no character n-grams, or a model beyond 2 GiB.
    """
    low, high, bucket = config.min_char_ngram, config.max_char_ngram, config.buckets
    if not 1 <= low <= high:
        raise ValueError(
            "method `bayes` counts character n-grams: set min_char_ngram and max_char_ngram (1 and 4, say), not "
            f"{low} and {high}"
        )
    texts: dict[str, list[str]] = defaultdict(list)
    rows: Counter[str] = Counter()
    for line, label in lines:
        texts[label].append(line)
        rows[label] += 1
    # fastText keeps labels by falling frequency.
    labels = sorted(texts, key=lambda label: (-rows[label], label))
    if bucket * len(labels) * 4 > MOST_BYTES:
        raise ValueError(
            f"{bucket} buckets of {len(labels)} labels make a model of more than 2 GiB; lower classifier.buckets"
        )
    written, plain = np.zeros((2, bucket, len(labels)), np.int64)
    for k, label in enumerate(labels):
        _count(*inference._buffers(pa.array(texts[label], pa.large_string())), low, high, written, k)
        bare = [without_accents(line) for line in texts[label]]
        _count(*inference._buffers(pa.array(bare, pa.large_string())), low, high, plain, k)
    counts = written + WITHOUT_ACCENTS * plain
    total = np.maximum(counts.sum(axis=0), 1)
    shares = (counts / total).mean(axis=1, keepdims=True)
    seen = counts.sum(axis=1) > 0
    smoothed = (counts + FLOOR + config.prior * shares) / (total + FLOOR * int(seen.sum()) + config.prior)
    weights = np.log(smoothed)
    weights -= weights.mean(axis=1, keepdims=True)
    weights[~seen] = 0
    inputs = np.zeros((1 + bucket, len(labels)), np.float32)
    inputs[1:] = weights
    _save(output, labels, rows, config, inputs)


def without_accents(line: str) -> str:
    """A line whose Latin letters have lost their accents."""
    if line.isascii():
        return line
    return unicodedata.normalize("NFC", _ACCENTS.sub(r"\1", unicodedata.normalize("NFD", line)))


def _save(
    output: Path, labels: list[str], rows: Counter[str], config: ClassifierConfig, inputs: np.ndarray
) -> None:
    n = len(labels)
    header = struct.pack(
        "<2i 12i d 3i 2q",
        inference.MAGIC, inference.VERSION,
        # dim, window, epochs, least count, negatives, word n-grams, loss, supervised, buckets, n-grams, update rate
        n, 5, 1, 1, 5, 1, inference.SOFTMAX, 3, config.buckets, config.min_char_ngram, config.max_char_ngram, 100,
        1e-4,
        1 + n, 1, n, sum(rows.values()), -1,
    )  # fmt: skip
    entries = [struct.pack("<5sqb", b"</s>\0", sum(rows.values()), 0)]
    for label in labels:
        entries.append(f"__label__{label}".encode() + b"\0" + struct.pack("<qb", rows[label], 1))
    with output.open("wb") as file:
        file.write(header + b"".join(entries))
        for matrix in (inputs, (SCALE * np.eye(n)).astype(np.float32)):
            file.write(struct.pack("<?2q", False, *matrix.shape))
            file.write(np.ascontiguousarray(matrix).data)


@subroutine
def _byte(data, begin, length, j):  # type: ignore[no-untyped-def]
    """Byte `j` of a word between `<` and `>`."""
    if j == 0:
        return np.uint8(60)
    if j == length - 1:
        return np.uint8(62)
    return data[begin + j - 1]


@kernel(numba.void(_BYTES, _STARTS, numba.int64, numba.int64, numba.int64[:, ::1], numba.int64))
def _count(data, starts, low, high, counts, column):  # type: ignore[no-untyped-def]
    """Add the n-grams of lines of words and single spaces to one column of counts [bucket, labels]."""
    n_buckets = np.uint32(len(counts))
    for row in range(len(starts) - 1):
        i, end = starts[row], starts[row + 1]
        while i < end:
            begin = i
            while i < end and data[i] != 32:
                i += 1
            length = i - begin + 2
            for start in range(length):
                if 0 < start < length - 1 and data[begin + start - 1] & 0xC0 == 0x80:
                    continue
                g = np.uint32(2166136261)
                j = start
                n = 1
                while j < length and n <= high:
                    g = inference._fnv(g, _byte(data, begin, length, j))
                    j += 1
                    while 0 < j < length - 1 and data[begin + j - 1] & 0xC0 == 0x80:
                        g = inference._fnv(g, data[begin + j - 1])
                        j += 1
                    if n >= low and not (n == 1 and (start == 0 or j == length)):
                        counts[np.int64(g % n_buckets), column] += 1
                    n += 1
            i += 1

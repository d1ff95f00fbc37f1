"""Privacy signals: e-mail and IP addresses, telephone, card and account numbers, keys; and edits that mask them.

FineWeb (Penedo et al. 2024, 3.5) replaces e-mail and public IP addresses; here every kind has a typed placeholder, so
that a mask never reads like a real address. Bounded time: nothing here is a regular expression.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash

from configs.schema.pipeline import PrivacyConfig
from data_pipeline import edits

KINDS = ("email", "ip", "phone", "card", "iban", "ssn", "secret")
"""Kinds, by the number that the scans give them."""
PRECEDENCE = (5, 2, 0, 3, 4, 1, 6)
"""Of overlapping finds the one with the higher number stands."""
COLUMNS = ("emails", "ips", "phones", "cards", "ibans", "ssns", "secrets", "found", "per_1k_chars")
MODULES = (
    "privacy",
    *(f"privacy_{name}" for name in ("addresses", "checked", "marks", "numbers", "services", "tables")),
)
"""Modules of this package that the signals depend on."""
VALUES = ("values", pa.list_(pa.uint64()))
"""Hashes of the finds of a document, each different one once, so that domains can count them."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        *((name, pa.int32()) for name in COLUMNS[:-1]),
        (COLUMNS[-1], pa.float32()),
        ("chars", pa.int64()),
        VALUES,
    ]
)
_BATCH = 1 << 24


def annotate(documents: pa.Table, config: PrivacyConfig) -> tuple[pa.Table, pa.Table]:
    """Privacy signals and proposed masks, both row-aligned with `documents` (columns `id`, `text`).

    Returns:
        (id, finds of each kind, of all kinds, those per 1,000 characters, characters, hashes of the different finds;
        `edits` of the kinds in `config.mask`).
    """
    counts, lengths, rows, values = [], [], [], []
    done = 0
    for texts in _batches(documents["text"]):
        found, n_chars = find(texts)
        table = np.zeros((len(texts), len(KINDS)), np.int32)
        np.add.at(table, (found[:, 0], found[:, 3]), 1)
        counts.append(table)
        values += _hashes(texts, found)
        lengths.append(n_chars)
        found[:, 0] += done
        rows.append(found)
        done += len(texts)
    per_kind = np.concatenate([np.zeros((0, len(KINDS)), np.int32), *counts])
    chars = np.concatenate([np.zeros(0, np.int64), *lengths])
    total = per_kind.sum(axis=1, dtype=np.int32)
    rate = (1000 * total / np.maximum(chars, 1)).astype(np.float32)
    signals = pa.table([documents["id"], *per_kind.T.copy(), total, rate, chars, values], schema=SCHEMA)
    spans = np.concatenate([np.zeros((0, 4), np.int32), *rows])
    return signals, pa.table([documents["id"], masks(spans, len(documents), config)], schema=edits.SCHEMA)


def find(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """What a scan finds in texts (large strings without nulls).

    Returns:
        (int32 [n, 4] of row, begin, end in code points, number of the kind, in order and without overlaps; int64 [d]
        characters of each text).
    """
    from data_pipeline.annotate import privacy_marks, privacy_numbers, privacy_tables

    _, starts, buffer = texts.buffers()
    offsets = np.frombuffer(starts, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(buffer, np.uint8) if buffer is not None else np.zeros(0, np.uint8)
    data, offsets = data[offsets[0] : offsets[-1]].copy(), offsets - offsets[0]
    cls = privacy_tables.bytes_table()
    marks = (cls, *privacy_tables.files_table(), *privacy_tables.prefixes())
    numbers = (
        cls,
        *privacy_tables.words_table(),
        privacy_tables.countries(),
        privacy_tables.iban_lengths(),
    )
    found = np.concatenate(
        [
            _scanned(privacy_marks.scan, data, offsets, marks),
            _scanned(privacy_numbers.scan, data, offsets, numbers),
        ]
    )
    n_chars = [np.count_nonzero((data[a:b] & 0xC0) != 0x80) for a, b in itertools.pairwise(offsets.tolist())]
    return _without_overlaps(found), np.array(n_chars, np.int64)


def _hashes(texts: pa.Array, found: np.ndarray) -> list[list[int]]:
    values: list[list[int]] = [[] for _ in range(len(texts))]
    row, text = -1, ""
    for d, begin, end, _ in found.tolist():
        if d != row:
            row, text = d, texts[d].as_py()
        values[d].append(xxhash.xxh3_64_intdigest(text[begin:end].lower().encode("utf-8", "surrogatepass")))
    return [sorted(set(v)) for v in values]


def _scanned(scan, data: np.ndarray, offsets: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray:  # type: ignore[no-untyped-def]
    out = np.empty((len(data) // 256 + 64, 4), np.int32)
    n = scan(data, offsets, *tables, out)
    if n > len(out):
        out = np.empty((n, 4), np.int32)
        scan(data, offsets, *tables, out)
    return out[:n]


def _without_overlaps(found: np.ndarray) -> np.ndarray:
    order = np.lexsort((found[:, 2], found[:, 1], found[:, 0]))
    kept: list[list[int]] = []
    for span in found[order].tolist():
        last = kept[-1] if kept else None
        if last is None or last[0] != span[0] or last[2] <= span[1]:
            kept.append(span)
        elif PRECEDENCE[span[3]] > PRECEDENCE[last[3]]:
            kept[-1] = span
    return np.array(kept, np.int32).reshape(-1, 4)


def masks(found: np.ndarray, n: int, config: PrivacyConfig) -> pa.Array:
    """Edits of n documents: a placeholder for every find of a kind that is masked.

    Args:
        found: as `find` returns them, with rows below n.
    """
    chosen = found[np.isin(found[:, 3], [KINDS.index(kind) for kind in config.mask])]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(chosen[:, 0], minlength=n))]).astype(np.int32)
    words = np.array([config.placeholder.replace("KIND", kind) for kind in KINDS], object)
    spans = pa.StructArray.from_arrays(
        [pa.array(chosen[:, 1]), pa.array(chosen[:, 2]), pa.array(words[chosen[:, 3]], pa.string())],
        fields=list(edits.SPAN),
    )
    return pa.ListArray.from_arrays(pa.array(offsets), spans)


def _batches(texts: pa.ChunkedArray):  # type: ignore[no-untyped-def]
    """Texts as large strings, in pieces of some megabytes."""
    for chunk in texts.chunks:
        filled = chunk.cast(pa.large_string()).fill_null("")
        if not len(filled):
            continue
        ends = np.frombuffer(filled.buffers()[1], np.int64)[filled.offset : filled.offset + len(filled) + 1]
        first = 0
        while first < len(filled):
            last = int(np.searchsorted(ends, ends[first] + _BATCH, side="right")) - 1
            last = min(max(last, first + 1), len(filled))
            yield filled.slice(first, last - first)
            first = last

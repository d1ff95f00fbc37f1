"""Line deduplication: lines that a corpus repeats are taken out of documents, and documents of which too little is left.

`llama3`: a line that occurs in more than `dedup.line_count` documents of a bucket goes, every time (Llama Team 2024,
section 3.1.1: more than 6 times in 30 million documents; `line_within` counts as they do). `ccnet`: a line that occurred
before in the bucket goes, the first one stays (Wenzek et al. 2020, section 3.1). What counts as equal, and which lines are
left alone: `line_hashes`.

Buckets are filled by the hash that a document's id is, and the first occurrence is the one in the document of the
smallest id: neither depends on how documents lie in shards.

Three stages, each in memory bounded by `dedup.line_memory_mb`:

    hashes    a task a shard      runs of (hash, count), sorted           lines/runs/SHARD-RUN.arrays
    counts    a task a range      the runs of a range of hashes, merged   lines/repeated/RANGE.arrays
    lines     a task a shard      edits, signals and decisions
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.schema.pipeline import DedupConfig
from data_pipeline import edits
from data_pipeline.compiled import kernel
from data_pipeline.dedup import arrays
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup.line_hashes import TEXT, Units, units
from data_pipeline.dedup.settings import line_ranges
from data_pipeline.dedup.shingles import mix
from data_pipeline.document import DECISION_SCHEMA, shard_path, write_table
from data_pipeline.packed.files import write_atomically

STEP = "lines"
EDITS = "lines"
_BATCH_ROWS = 1024
_BATCH_BYTES = 8 << 20
# Bytes of memory for one hash while runs are made or merged: hash, count, document, and the copies that sorting makes.
_BYTES_PER_HASH = 64
SIGNALS = pa.schema(
    [
        ("id", pa.string()),
        ("removed", pa.int32()),
        ("removed_chars", pa.int32()),
        ("kept_chars", pa.int32()),
    ]
)


@dataclass(frozen=True)
class _Batch:
    """Documents of a shard that are still kept."""

    rows: np.ndarray
    """int64 [d]: rows in the shard."""
    documents: np.ndarray
    """uint64 [d]: high half of each id, what buckets and order are made from."""
    units: Units
    """Their lines or paragraphs."""
    keys: np.ndarray
    """uint64 [t]: (hash, bucket) of each unit that has a hash, as one number."""
    which: np.ndarray
    """int64 [t]: index of each of those units."""


def hashes(run_dir: Path, shard: int, chosen: Collection[int], config: DedupConfig) -> dict[str, int]:
    """Write the sorted line hashes of a shard, with their counts, as runs of bounded size.

    Args:
        chosen: shards of the sources whose lines are compared.

    Returns:
        {"documents", "lines" that have a hash, "runs"}.
    """
    counts = {"documents": 0, "lines": 0, "runs": 0}
    ccnet = config.lines == "ccnet"
    limit = max(1 << 10, config.line_memory_mb * 2**20 // _BYTES_PER_HASH)
    keys: list[np.ndarray] = []
    firsts: list[np.ndarray] = []
    waiting = 0

    def flush() -> None:
        nonlocal waiting
        if waiting:
            found = _merged(np.concatenate(keys), None, np.concatenate(firsts) if ccnet else None)
            path = run_dir / "lines" / "runs" / f"{shard:05d}-{counts['runs']:04d}.arrays"
            arrays.write(path, found)
            counts["runs"] += 1
        keys.clear()
        firsts.clear()
        waiting = 0

    if shard in chosen:
        for batch in _batches(run_dir, shard, _buckets(run_dir, chosen, config), config):
            counted = np.arange(len(batch.keys)) if config.line_within or ccnet else _once(batch)
            for low in range(0, len(counted), limit):
                part = counted[low : low + limit]
                if waiting + len(part) > limit:
                    flush()
                keys.append(batch.keys[part])
                if ccnet:
                    firsts.append(batch.documents[batch.units.document[batch.which[part]]])
                waiting += len(part)
            counts["documents"] += len(batch.rows)
            counts["lines"] += len(batch.keys)
        flush()
    return counts


def _buckets(run_dir: Path, chosen: Collection[int], config: DedupConfig) -> int:
    """How many buckets the kept documents fill; counted by each of the first tasks, and read by those after them."""
    noted = run_dir / "lines" / "runs" / "buckets.json"
    if noted.is_file():
        return int(orjson.loads(noted.read_bytes()))
    total = 0
    for shard in sorted(chosen):
        with pq.ParquetFile(shard_path(run_dir, "documents", shard)) as file:
            total += file.metadata.num_rows
    if total > config.line_bucket_documents:  # only then does it matter how many of them are kept
        total = sum(
            int(corpora.kept_before(run_dir, s, STEP, corpora.shard_ids(run_dir, s)).sum())
            for s in sorted(chosen)
        )
    found = max(1, -(-total // config.line_bucket_documents))
    write_atomically(noted, orjson.dumps(found))  # several tasks may write it, the same
    return found


def _batches(run_dir: Path, shard: int, buckets: int, config: DedupConfig) -> Iterator[_Batch]:
    """The documents of a shard that are still kept, a few at a time: batches do not depend on the file's row groups."""
    ids = corpora.shard_ids(run_dir, shard)
    rows = np.flatnonzero(corpora.kept_before(run_dir, shard, STEP, ids))
    if len(rows) == 0:
        return
    halves = corpora.id_halves(ids.take(pa.array(rows)))
    for which, texts in corpora.texts_of(run_dir, shard, rows):
        first = which.start
        for part in _pieces(texts):
            here = slice(first, first + len(part))
            first += len(part)
            documents = np.ascontiguousarray(halves[here, 0])
            found = units(part, config.line_unit == "paragraph", config.line_min_length)
            text = np.flatnonzero(found.kind == TEXT)
            bucket = (documents >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)
            salt = mix(bucket * np.uint64(0x9E3779B97F4A7C15))
            yield _Batch(rows[here], documents, found, found.hash[text] ^ salt[found.document[text]], text)


def _pieces(texts: pa.Array) -> Iterator[pa.Array]:
    """Slices of at most `_BATCH_ROWS` texts, and of at most `_BATCH_BYTES` where a text does not have more alone."""
    sizes = np.zeros(len(texts) + 1, np.int64)
    sizes[1:] = np.cumsum(pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False))
    low = 0
    while low < len(texts):
        high = int(np.searchsorted(sizes, sizes[low] + _BATCH_BYTES, side="right")) - 1
        high = min(max(high, low + 1), low + _BATCH_ROWS, len(texts))
        yield texts.slice(low, high - low)
        low = high


def _once(batch: _Batch) -> np.ndarray:
    """int64 [≤ t]: the first of the units of one document that are equal."""
    document = batch.units.document[batch.which]
    order = np.lexsort((batch.keys, document))
    keys, document = batch.keys[order], document[order]
    new = np.ones(len(order), bool)
    new[1:] = (keys[1:] != keys[:-1]) | (document[1:] != document[:-1])
    return np.sort(order[new])


def _merged(keys: np.ndarray, counts: np.ndarray | None, firsts: np.ndarray | None) -> dict[str, np.ndarray]:
    """Equal keys joined: `keys` sorted, `counts` (uint32) summed, `firsts` (uint64) the smallest; one each without."""
    if counts is None and firsts is None:
        keys = np.sort(keys)
        starts = _starts(keys)
        total = np.diff(np.append(starts, len(keys)))
        return {"keys": keys[starts], "counts": np.minimum(total, 0xFFFFFFFF).astype(np.uint32)}
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = _starts(keys)
    ones = np.ones(len(keys), np.uint64) if counts is None else counts[order].astype(np.uint64)
    total = np.add.reduceat(ones, starts) if len(starts) else ones
    found = {"keys": keys[starts], "counts": np.minimum(total, np.uint64(0xFFFFFFFF)).astype(np.uint32)}
    if firsts is not None:
        found["firsts"] = np.minimum.reduceat(firsts[order], starts) if len(starts) else firsts
    return found


def _starts(ordered: np.ndarray) -> np.ndarray:
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return np.flatnonzero(new)


def counts(run_dir: Path, part: int, shards: int, config: DedupConfig) -> dict[str, int]:
    """Write the hashes of one range that occur too often: `keys`, and with `ccnet` the `firsts` that stay.

    Returns:
        {"distinct", "repeated"} hashes.
    """
    ccnet = config.lines == "ccnet"
    most = 1 if ccnet else config.line_count
    runs = [arrays.Arrays(path) for path in sorted((run_dir / "lines" / "runs").glob("*.arrays"))]
    low, high = _bound(part, line_ranges(shards)), _bound(part + 1, line_ranges(shards))
    total = sum(last - first for first, last in (_between(run, low, high) for run in runs))
    pieces = max(1, -(-total * _BYTES_PER_HASH // (config.line_memory_mb * 2**20)))
    found: dict[str, list[np.ndarray]] = {
        "keys": [np.zeros(0, np.uint64)],
        "firsts": [np.zeros(0, np.uint64)],
    }
    distinct = 0
    for piece in range(pieces):
        begin = low + (high - low) * piece // pieces
        end = low + (high - low) * (piece + 1) // pieces
        spans = [_between(run, begin, end) for run in runs]
        read = {
            name: np.concatenate(
                [np.zeros(0, kind), *(r.read(name, *s) for r, s in zip(runs, spans, strict=True))]
            )
            for name, kind in (("keys", np.uint64), ("counts", np.uint32), ("firsts", np.uint64))
            if name != "firsts" or ccnet
        }
        merged = _merged(read["keys"], read["counts"], read.get("firsts"))
        often = merged["counts"] > most
        distinct += len(often)
        found["keys"].append(merged["keys"][often])
        if ccnet:
            found["firsts"].append(merged["firsts"][often])
    chosen = {name: np.concatenate(parts) for name, parts in found.items() if name != "firsts" or ccnet}
    arrays.write(run_dir / "lines" / "repeated" / f"{part:05d}.arrays", chosen)
    return {"distinct": distinct, "repeated": len(chosen["keys"])}


def _bound(part: int, parts: int) -> int:
    return (part << 64) // parts


def _between(run: arrays.Arrays, low: int, high: int) -> tuple[int, int]:
    """The part of a run whose keys lie in [low, high). Its file is closed again: there may be thousands."""
    keys = run.map("keys")
    return _position(keys, low), _position(keys, high)


def _position(ordered: np.ndarray, key: int) -> int:
    return len(ordered) if key >= 1 << 64 else int(np.searchsorted(ordered, np.uint64(key)))


class _Repeated:
    """The hashes that occur too often: one memory map a range."""

    def __init__(self, run_dir: Path, shards: int, config: DedupConfig) -> None:
        files = [
            arrays.Arrays(run_dir / "lines" / "repeated" / f"{p:05d}.arrays")
            for p in range(line_ranges(shards))
        ]
        self._keys = [file.map("keys") for file in files]
        self._firsts = [file.map("firsts") for file in files] if config.lines == "ccnet" else None

    def find(self, batch: _Batch) -> np.ndarray:
        """bool [t]: the units that go."""
        goes = np.zeros(len(batch.keys), bool)
        order = np.argsort(batch.keys, kind="stable")
        ordered = batch.keys[order]
        bounds = [_position(ordered, _bound(p, len(self._keys))) for p in range(len(self._keys) + 1)]
        for p, keys in enumerate(self._keys):
            chosen = order[bounds[p] : bounds[p + 1]]
            if len(chosen) == 0 or len(keys) == 0:
                continue
            wanted = batch.keys[chosen]
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            found = keys[at] == wanted
            if self._firsts is not None:
                document = batch.units.document[batch.which[chosen]]
                own = self._firsts[p][at] == batch.documents[document]
                # In the document of the first occurrence, only that one stays.
                again = np.zeros(len(chosen), bool)
                again[1:] = (wanted[1:] == wanted[:-1]) & (document[1:] == document[:-1])
                found &= ~own | again
            goes[chosen] = found
        return goes


def decide(
    run_dir: Path, shard: int, chosen: Collection[int], shards: int, config: DedupConfig
) -> dict[str, int]:
    """Write `edits/lines`, `signals/lines` and `decisions/lines` of a shard.

    A document that loses lines is dropped where fewer than `line_min_characters` characters, or less than
    `line_min_share` of them, are left (white space between lines is not counted).

    Returns:
        {"considered", "kept", "dropped", "edited", "removed_lines", "removed_characters"}.
    """
    ids = corpora.shard_ids(run_dir, shard)
    n = len(ids)
    keep = corpora.kept_before(run_dir, shard, STEP, ids)
    total = {"considered": int(keep.sum()), "kept": 0, "dropped": 0, "edited": 0}
    total |= {"removed_lines": 0, "removed_characters": 0}
    spans: list[Sequence[edits.Span]] = [()] * n
    signals = {name: np.full(n, -1, np.int64) for name in SIGNALS.names[1:]}
    rules: list[str | None] = [None] * n
    details: list[str | None] = [None] * n
    if shard in chosen:
        repeated = _Repeated(run_dir, shards, config)
        for batch in _batches(run_dir, shard, _buckets(run_dir, chosen, config), config):
            goes = np.zeros(len(batch.units), bool)
            goes[batch.which] = repeated.find(batch)
            u, d = batch.units, len(batch.rows)
            size = (u.end - u.start).astype(np.float64)
            removed = np.bincount(u.document, goes, d).astype(np.int64)
            chars = np.bincount(u.document, size, d).astype(np.int64)
            gone = np.bincount(u.document, size * goes, d).astype(np.int64)
            signals["removed"][batch.rows] = removed
            signals["removed_chars"][batch.rows] = gone
            signals["kept_chars"][batch.rows] = chars - gone
            left = chars - gone
            poor = (removed > 0) & (
                (left < config.line_min_characters) | (left < config.line_min_share * chars)
            )
            for k in np.flatnonzero(poor).tolist():
                row = int(batch.rows[k])
                keep[row], rules[row] = False, STEP
                details[row] = f"{left[k]} of {chars[k]} characters left"
            for row, found in _spans(batch, goes):
                spans[row] = found
            total["edited"] += int(((removed > 0) & ~poor).sum())
            total["removed_lines"] += int(removed.sum())
            total["removed_characters"] += int(gone.sum())
    edits.write(run_dir, EDITS, shard, ids, spans)
    columns = [pa.array(v, pa.int32(), mask=v < 0) for v in signals.values()]
    write_table(pa.table([ids, *columns], schema=SIGNALS), shard_path(run_dir, "signals/lines", shard))
    table = pa.table(
        [ids, pa.array(keep), pa.array(rules, pa.string()), pa.array(details, pa.string())],
        schema=DECISION_SCHEMA,
    )
    write_table(table, shard_path(run_dir, f"decisions/{STEP}", shard))
    dropped = sum(rule is not None for rule in rules)
    return total | {"kept": total["considered"] - dropped, "dropped": dropped}


def _spans(batch: _Batch, goes: np.ndarray) -> Iterator[tuple[int, list[edits.Span]]]:
    """(row, spans to delete) of the documents of a batch that lose lines."""
    u = batch.units
    document, start, end = _runs(goes, u.kind, u.start, u.end, u.document)
    bounds = np.searchsorted(document, np.arange(len(batch.rows) + 1))
    for k in np.flatnonzero(bounds[1:] > bounds[:-1]).tolist():
        part = slice(bounds[k], bounds[k + 1])
        pairs = zip(start[part].tolist(), end[part].tolist(), strict=True)
        yield int(batch.rows[k]), [edits.Span(a, b) for a, b in pairs]


@kernel("(boolean[::1], uint8[::1], int64[::1], int64[::1], int64[::1])")
def _runs(goes, kinds, starts, ends, documents):  # type: ignore[no-untyped-def]
    """Neighbouring units that go, as (document, start, end): with the empty lines behind them, unless text stands before.

    A run takes the line feed behind it, or where it is the document's last, all white space before it.
    """
    document = np.empty(len(goes), np.int64)
    start = np.empty(len(goes), np.int64)
    end = np.empty(len(goes), np.int64)
    used = 0
    n = len(goes)
    i = 0
    while i < n:
        if not goes[i]:
            i += 1
            continue
        d = documents[i]
        first = i
        while first > 0 and documents[first - 1] == d and kinds[first - 1] == 0:
            first -= 1
        parted = first < i or i == 0 or documents[i - 1] != d  # an empty line, or nothing, stands before
        last = i
        while last + 1 < n and documents[last + 1] == d and (goes[last + 1] or kinds[last + 1] == 0):
            last += 1
        while not goes[last]:
            last -= 1
        after = last + 1
        while after < n and documents[after] == d and kinds[after] == 0:
            after += 1
        document[used] = d
        if after == n or documents[after] != d:  # nothing but white space follows
            start[used] = ends[first - 1] if first > 0 and documents[first - 1] == d else 0
            end[used] = ends[after - 1]
        else:
            start[used] = starts[i]
            end[used] = starts[after] if parted else starts[last + 1]
        used += 1
        i = last + 1
    return document[:used], start[:used], end[:used]

"""Documents with excessive numbers of outlier tokens: Llama 3's Kullback-Leibler filter (Dubey et al., 2024, section 3.1.1).

The reference is the corpus itself, language by language. `signals` counts the words of each shard in 2^18 buckets of their
hash (`words/00000.parquet`), `word_distribution` adds the shards up (2 MiB of memory a language, whatever the size of the
corpus), `outliers` compares each document with all the others. Counts are whole numbers, so sums do not depend on order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.analysis import Batch, batches
from data_pipeline.document import read_table, shard_path, write_table

COLUMNS = ("kl", "cross_entropy", "excess", "unseen")
UNKNOWN = "und"
MIN_WORDS = 100_000
"""Words that the other documents of a language must hold: less is no distribution to be far from."""
COUNTS = "words"
DISTRIBUTION = Path("models") / "word_distribution.parquet"
_SCHEMA = pa.schema([("language", pa.string()), ("bucket", pa.int32()), ("count", pa.int64())])


class Counter:
    """Counts words by language."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._counts: np.ndarray | None = None

    def add(self, batch: Batch, languages: Sequence[str | None]) -> None:
        """Count the words of a batch, whose documents are in these languages."""
        from data_pipeline.analysis import distribution

        groups = [self._numbers.setdefault(x or UNKNOWN, len(self._numbers)) for x in languages]
        have = 0 if self._counts is None else len(self._counts)
        if len(self._numbers) > have:
            more = np.zeros((len(self._numbers) - have, distribution.BUCKETS), np.int64)
            self._counts = more if self._counts is None else np.concatenate([self._counts, more])
        if self._counts is not None:
            distribution.add(batch.hashes, batch.words, np.array(groups, np.int64), self._counts)

    def write(self, run_dir: Path, shard: int) -> None:
        """Write the counts of a shard."""
        found = {} if self._counts is None else {x: self._counts[i] for x, i in self._numbers.items()}
        write_table(_table(found), shard_path(run_dir, COUNTS, shard))


def _table(counts: dict[str, np.ndarray]) -> pa.Table:
    parts = []
    for language in sorted(counts):
        filled = np.flatnonzero(counts[language])
        names = pa.array([language]).take(pa.array(np.zeros(len(filled), np.int32)))
        parts.append(pa.table([names, filled.astype(np.int32), counts[language][filled]], schema=_SCHEMA))
    return pa.concat_tables(parts).combine_chunks() if parts else _SCHEMA.empty_table()


def _read(tables: Iterable[pa.Table], wanted: set[str] | None = None) -> dict[str, np.ndarray]:
    """Counts by language, summed over tables."""
    from data_pipeline.analysis import distribution

    found: dict[str, np.ndarray] = {}
    for table in tables:
        languages = table["language"].combine_chunks().dictionary_encode()
        if isinstance(languages, pa.ChunkedArray):
            languages = languages.combine_chunks()
        numbers = languages.indices.to_numpy(zero_copy_only=False)
        buckets, counts = table["bucket"].to_numpy(), table["count"].to_numpy()
        for i, language in enumerate(languages.dictionary.to_pylist()):
            if wanted is None or language in wanted:
                row = found.setdefault(language, np.zeros(distribution.BUCKETS, np.int64))
                rows = numbers == i
                row[buckets[rows]] += counts[rows]
    return found


def merge(run_dir: Path, shards: int) -> dict[str, int]:
    """Add up the counts of all shards: write `models/word_distribution.parquet`."""
    found = _read(read_table(shard_path(run_dir, COUNTS, shard)) for shard in range(shards))
    write_table(_table(found), run_dir / DISTRIBUTION)
    return {"languages": len(found), "words": int(sum(int(c.sum()) for c in found.values()))}


def annotate(run_dir: Path, shard: int, documents: pa.Table) -> pa.Table:
    """Signals of a shard: `id`, and of each document against the others of its language.

    `kl`: Kullback-Leibler divergence of its words from theirs, in bits; it falls with length; `cross_entropy`: bits of a
    word; `excess`: the same above the average of the language, in standard deviations of a word's bits, which does not
    depend on length; `unseen`: share of words that no other document holds. Null where there are no words, or where the
    others hold fewer than 100,000.
    """
    from data_pipeline.analysis import distribution

    languages = [x or UNKNOWN for x in documents["language"].to_pylist()]
    reference = _read([read_table(run_dir / DISTRIBUTION)], set(languages))
    names = sorted(set(languages))
    numbers = {name: i for i, name in enumerate(names)}
    empty = np.zeros(distribution.BUCKETS, np.int64)
    counts = np.stack([reference.get(name, empty) for name in names] or [empty])
    totals = counts.sum(axis=1)
    mean, deviation = np.array([_information(row) for row in counts]).T
    parts, done = [], 0
    for batch in batches(documents["text"]):
        groups = np.array([numbers[x] for x in languages[done : done + len(batch)]], np.int64)
        out = np.zeros((len(batch), 3))
        distribution.compare(batch.hashes, batch.words, groups, counts, totals, out)
        n_words = np.diff(batch.words)
        excess = (out[:, 1] - mean[groups]) / np.maximum(deviation[groups], 1e-9)
        values = np.column_stack([out[:, 0], out[:, 1], excess, out[:, 2]])
        values[(n_words == 0) | (totals[groups] - n_words < MIN_WORDS)] = np.nan
        parts.append(values)
        done += len(batch)
    values = np.concatenate(parts) if parts else np.empty((0, len(COLUMNS)))
    columns = {
        name: pa.array(values[:, i].copy(), mask=np.isnan(values[:, i])) for i, name in enumerate(COLUMNS)
    }
    return pa.table({"id": documents["id"], **columns})


def _information(counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the bits of a word."""
    share = counts[counts > 0] / max(int(counts.sum()), 1)
    bits = -np.log2(share)
    mean = float((share * bits).sum())
    return mean, float(np.sqrt(max((share * (bits - mean) ** 2).sum(), 0.0)))

"""Decontamination: which items of evaluation sets stand in a document, exactly or nearly, and where.

Every four words of a document are looked up among the evaluation sets' (`evalsets.Index`). Where some are found, the part
of the item that they come from is aligned with the words around them: the heaviest common subsequence, weighted by how
rare words are, and the longest run of words that agree. So case, punctuation, markup and spacing never matter, and a
few changed, missing or added words do not hide an item.

A part counts where its share of matched weight is high enough (`decontaminate.share`, more for short ones), or a run of
`decontaminate.ngram` words agrees (Brown et al., 2020, appendix C). Short questions are common sentences: they count only
whole, or with an answer or the context of the same item beside them.

Shapes: w words of a document, m words of a part, h candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numba import types

from configs.edge import ConfigError
from configs.schema.pipeline import DecontaminateConfig
from data_pipeline.annotate.evalsets import ANSWER, CONTEXT, QUESTION, SEED, SMALLEST_WEIGHT, Index
from data_pipeline.compiled import kernel
from data_pipeline.edits import Span
from data_pipeline.wordhash import words

COLUMNS = ("matches", "overlap", "context", "run")
"""`matches`: items that stand in the document; `overlap`: largest matched share of a question or long answer; `context`: of
a passage that is asked about; `run`: most words in a row shared with a question or answer."""
CANDIDATE = np.dtype(
    [
        ("part", "<i8"),
        ("start", "<i8"),
        ("end", "<i8"),
        ("weight", "<f8"),
        ("run", "<i8"),
        ("run_weight", "<f8"),
    ]
)
_WEAK = 0.45
"""Share of a part below which a candidate is not looked at again, unless its run is long."""
_LOOSE = 0.25
"""Weight of a word that stands between matched ones beyond the length of the part."""
_BESIDE = 60
"""Words around a question in which its answers and context are looked for."""
_MOST_CANDIDATES = 4096
_MOST_LOOKS = 32
"""Places of a document at which one part is compared with what stands beside it."""
_WORK, _WORK_PER_WORD = 10**8, 2000
"""Of a document, candidates and word comparisons: bound the time of one that repeats a phrase of a long item on and on."""


@dataclass(frozen=True)
class Match:
    """A part of an item that stands in a document."""

    part: int
    """Number of the part in the index."""
    start: int
    """First character of the document's passage."""
    end: int
    """One past its last character."""
    score: float
    """Share of the part's weight that was found there, in order."""
    run: int
    """Longest run of words that agree."""
    counts: bool
    """Whether it is contamination; else a passage that is only reported."""


def check(config: DecontaminateConfig) -> None:
    """Raise ConfigError for parameters that cannot be used."""
    if config.ngram < SEED:
        raise ConfigError(f"`decontaminate.ngram` must be at least {SEED}, but it is {config.ngram}")
    if not 0 < config.share <= 1:
        raise ConfigError(f"`decontaminate.share` must lie in (0, 1], but it is {config.share}")
    if config.min_words < SEED:
        raise ConfigError(f"`decontaminate.min_words` must be at least {SEED}, but it is {config.min_words}")


_I64, _F64 = (
    types.Array(types.int64, 1, "C", readonly=True),
    types.Array(types.float64, 1, "C", readonly=True),
)
_U64 = types.Array(types.uint64, 1, "C", readonly=True)


@kernel(
    types.Tuple((types.float64, types.int64, types.int64, types.int64, types.float64))(
        _U64, types.int64, types.int64, _U64, _F64, types.int64, types.int64
    )
)
def align(text, low, high, part_words, weights, first, last):  # type: ignore[no-untyped-def]
    """Heaviest common subsequence of text[low:high] and part_words[first:last].

    Returns (weight, first word of the text in it, one past the last, longest run in words, its weight).
    """
    m = last - first
    best = np.zeros(m + 1)
    since = np.full(m + 1, -1, np.int64)
    run = np.zeros(m + 1, np.int64)
    heavy = np.zeros(m + 1)
    end = low
    reached, reached_since = 0.0, np.int64(-1)
    longest = 0
    longest_weight = 0.0
    for j in range(low, high):
        word = text[j]
        diagonal, diagonal_since = 0.0, np.int64(-1)
        diagonal_run, diagonal_heavy = np.int64(0), 0.0
        for i in range(1, m + 1):
            above, above_since = best[i], since[i]
            above_run, above_heavy = run[i], heavy[i]
            if part_words[first + i - 1] == word:
                weight = weights[first + i - 1]
                run[i] = diagonal_run + 1
                heavy[i] = diagonal_heavy + weight
                if run[i] > longest:
                    longest = run[i]
                    longest_weight = heavy[i]
                begun = diagonal_since if diagonal_since >= 0 else j
                if diagonal + weight > best[i] or (diagonal + weight == best[i] and begun > since[i]):
                    # Of equally heavy ones the shortest.
                    best[i] = diagonal + weight
                    since[i] = begun
            else:
                run[i] = 0
                heavy[i] = 0.0
            if best[i - 1] > best[i] or (best[i - 1] == best[i] and since[i - 1] > since[i]):
                best[i] = best[i - 1]
                since[i] = since[i - 1]
            diagonal, diagonal_since = above, above_since
            diagonal_run, diagonal_heavy = above_run, above_heavy
        if best[m] > reached or (best[m] == reached and since[m] > reached_since):
            reached, reached_since = best[m], since[m]
            end = j + 1
    return best[m], since[m], end, longest, longest_weight


@kernel(types.int64(
        _U64, _U64, _U64, _I64, _I64, _I64, _I64, _I64, _U64, _F64, _F64, types.int64, types.int64, types.int64[::1],
        types.int64[:, ::1], types.float64[:, ::1],
    ))  # fmt: skip
def _candidates(  # type: ignore[no-untyped-def]
    text, bits, keys, first, count, posting_part, posting_at, ends, part_words, weights, total, ngram, base, seen, places,
    values,
):  # fmt: skip
    """Align every part that shares a seed with the text; places [h, 4]: part, start, end, run; values [h, 2]."""
    found = 0
    mask = len(keys) - 1
    left = _WORK + _WORK_PER_WORD * len(text)
    for p in range(len(text) - SEED + 1):
        value = text[p]
        for k in range(1, SEED):
            value = value * np.uint64(0x9E3779B97F4A7C15) + text[p + k]
        value ^= value >> np.uint64(32)
        value |= np.uint64(1)
        bit = value >> np.uint64(42)
        if not (bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
            continue
        slot = np.int64(value & np.uint64(mask))
        while keys[slot] != 0 and keys[slot] != value:
            slot = (slot + 1) & mask
        if keys[slot] == 0:
            continue
        for s in range(first[slot], first[slot] + count[slot]):
            part = posting_part[s]
            m = ends[part + 1] - ends[part]
            begin = p - posting_at[s]
            slack = m // 4 + 3
            # One alignment finds what later seeds of the same place would find.
            if abs(base + begin - seen[part]) <= slack:
                continue
            seen[part] = base + begin
            low, high = max(0, begin - slack), min(len(text), begin + m + slack)
            left -= m * (high - low)
            if left < 0:
                return found
            weight, start, end, run, heavy = align(
                text, low, high, part_words, weights, ends[part], ends[part + 1]
            )
            if weight >= _WEAK * total[part] or run >= ngram:
                places[found, 0], places[found, 1], places[found, 2], places[found, 3] = part, start, end, run
                values[found, 0], values[found, 1] = weight, heavy
                found += 1
                if found == len(places):
                    return found
    return found


class Annotator:
    """Compares documents with an index."""

    def __init__(self, index: Index, config: DecontaminateConfig) -> None:
        check(config)
        self.index, self.config = index, config
        self._seen = np.zeros(len(index.parts), np.int64)
        self._apart = 4 * int(np.diff(index.ends).max(initial=0)) + 16
        self._base, self._next = 0, self._apart
        self._looks: Counter[int] = Counter()
        self._places = np.zeros((_MOST_CANDIDATES, 4), np.int64)
        self._values = np.zeros((_MOST_CANDIDATES, 2))

    def matches(self, text: str) -> tuple[list[Match], dict[str, float]]:
        """What stands in a document, in its order, and its signals by name (COLUMNS)."""
        index, config = self.index, self.config
        hashes, starts, ends = words(text)
        signals = dict.fromkeys(COLUMNS, 0.0)
        if len(hashes) < SEED:
            return [], signals
        # Places of this document lie behind all those of the one before: `_seen` need not be cleared.
        self._looks.clear()
        self._base = self._next
        self._next = self._base + len(hashes) + self._apart
        n = _candidates(
            hashes, index.filter, index.keys, index.first, index.count, index.posting_part, index.posting_at,
            index.ends, index.words, index.weights, index.total, config.ngram, self._base, self._seen, self._places,
            self._values,
        )  # fmt: skip
        best: dict[int, Match] = {}
        for place, (weight, heavy) in zip(self._places[:n].tolist(), self._values[:n].tolist(), strict=True):
            part, start, end, run = place
            # Words between the matched ones count against them: a question is not its words strewn over a paragraph.
            loose = max(0, end - start - index.size(part))
            score = weight / (float(index.total[part]) + _LOOSE * loose)
            role = index.parts[part].role
            known = best.get(part)
            if known is not None and known.counts and known.score >= score:
                continue
            counts = self._counts(hashes, part, start, end, score, run, heavy)
            if role == CONTEXT:
                signals["context"] = max(signals["context"], score)
            elif counts or index.size(part) >= config.min_words:
                signals["overlap"] = max(signals["overlap"], score)
                signals["run"] = max(signals["run"], float(run))
            reported = counts or (role == CONTEXT and score >= config.share)
            if reported and (known is None or (counts, score) > (known.counts, known.score)):
                best[part] = Match(part, int(starts[start]), int(ends[end - 1]), score, run, counts)
        for context in [m for m in best.values() if index.parts[m.part].role == CONTEXT]:
            for asked in self._asked_after(context, hashes, starts, ends):
                if asked.part not in best or not best[asked.part].counts:
                    best[asked.part] = asked
                    signals["overlap"] = max(signals["overlap"], asked.score)
        signals["matches"] = float(len({index.parts[m.part].item for m in best.values() if m.counts}))
        return sorted(best.values(), key=lambda m: (m.start, m.part)), signals

    def _asked_after(
        self, context: Match, text: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> Iterator[Match]:
        """Questions right behind their passage, of which too little is left to be found by themselves."""
        index = self.index
        behind = int(np.searchsorted(starts, context.end))
        for part in index.items[index.parts[context.part].item].parts:
            size, total = index.size(part), float(index.total[part])
            if index.parts[part].role != QUESTION or size < SEED or total < SMALLEST_WEIGHT:
                continue
            stop = min(len(text), behind + size + size // 4 + 3)
            first, last = int(index.ends[part]), int(index.ends[part + 1])
            found = align(text, behind, stop, index.words, index.weights, first, last)
            if found[0] >= 0.65 * total:
                place = int(starts[found[1]]), int(ends[found[2] - 1])
                yield Match(part, *place, found[0] / total, found[3], True)

    def _counts(
        self, text: np.ndarray, part: int, start: int, end: int, score: float, run: int, heavy: float
    ) -> bool:
        """Whether an aligned part is contamination."""
        index, config = self.index, self.config
        size, total, role = index.size(part), float(index.total[part]), index.parts[part].role
        if role == CONTEXT:
            return config.contexts and score >= config.share
        if run >= config.ngram and heavy >= config.ngram / 3:
            return True
        if role == ANSWER:
            # Endings and solutions are looked for by themselves only where they are long.
            if size >= config.ngram:
                return score >= max(config.share, 0.8)
            return total >= 3 and score >= 0.85 and self._beside(text, part, start, end) >= 0.7
        if size < config.min_words:
            if run == size and total >= 4.5:
                return True
            return score >= 0.75 and self._beside(text, part, start, end) > 0
        # The beginning of a question, cut off by a crawl.
        if run >= config.min_words and heavy >= 0.6 * config.min_words and score >= 0.5:
            return True
        # From 12 rare words on the configured share is enough; of 4, one in six may differ.
        if score >= config.share + (0.85 - config.share) * min(1.0, max(0.0, (12 - total) / 8)):
            return True
        return score >= min(config.share, 0.5) and score + self._beside(text, part, start, end) >= 1.2

    def _beside(self, text: np.ndarray, part: int, start: int, end: int) -> float:
        """How well another part of the same item stands beside this one, 0 to 1.

        1: an answer or question, or several short answers; 0.55: a passage, which stands beside its question in any text
        that it was taken from; 0: nothing.
        """
        index = self.index
        self._looks[part] += 1
        if self._looks[part] > _MOST_LOOKS:
            return 0.0
        low, high = max(0, start - _BESIDE), min(len(text), end + _BESIDE)
        best, few, little = 0.0, 0, 0
        for other in index.items[index.parts[part].item].parts:
            if other == part:
                continue
            first, last = int(index.ends[other]), int(index.ends[other + 1])
            size, total = last - first, float(index.total[other])
            value = 0.55 if index.parts[other].role == CONTEXT else 1.0
            if total < SMALLEST_WEIGHT or size < 3:
                # `A) disease prevention B) tissue repair`: each is found anywhere, several of them are not.
                if total >= 1 and index.parts[other].role == ANSWER:
                    little += 1
                    run = align(text, end, high, index.words, index.weights, first, last)[3]
                    few += run == size
                continue
            reach = size + size // 4
            for begin in range(max(0, low - reach), high if value > best else 0, max(1, size // 4)):
                if begin + reach > start and begin < end:
                    continue
                stop = min(len(text), begin + reach)
                weight = align(text, begin, stop, index.words, index.weights, first, last)[0]
                if weight >= 0.7 * total:
                    best = value
                    break
        return 1.0 if few >= 2 and few >= little - 1 else best


def annotate(
    documents: pa.Table, index: Index | None, config: DecontaminateConfig
) -> tuple[pa.Table, list[dict[str, Any]], list[list[Span]]]:
    """Signals, matches and proposed edits of a shard (columns `id url text`).

    Without an index the signals are null.

    Returns:
        A table of `id` and COLUMNS; a row for every match, ready to be reported; spans that cut the matches out.
    """
    ids, n = documents["id"], len(documents)
    if index is None:
        null = pa.nulls(n, pa.float32())
        return pa.table([ids, *[null] * len(COLUMNS)], names=["id", *COLUMNS]), [], [[]] * n
    annotator = Annotator(index, config)
    columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
    rows: list[dict[str, Any]] = []
    spans: list[list[Span]] = []
    urls = documents["url"].to_pylist()
    for identifier, url, value in zip(ids, urls, documents["text"], strict=True):
        text = value.as_py() or ""
        found, signals = annotator.matches(text)
        for name in COLUMNS:
            columns[name].append(signals[name])
        spans.append(_joined([m for m in found if m.counts]))
        for match in found:
            part = index.parts[match.part]
            item = index.items[part.item]
            rows.append(
                {
                    "set": item.set,
                    "item": item.number,
                    "question": item.excerpt,
                    "part": part.role,
                    "field": part.field,
                    "counts": match.counts,
                    "score": round(match.score, 4),
                    "run": match.run,
                    "document": identifier.as_py(),
                    "url": url,
                    "start": match.start,
                    "end": match.end,
                    "text": text[match.start : match.start + 200],
                }
            )
    table = pa.table(
        [ids, *(pa.array(columns[name], pa.float32()) for name in COLUMNS)], names=["id", *COLUMNS]
    )
    return table, rows, spans


def _joined(found: Sequence[Match]) -> list[Span]:
    spans: list[Span] = []
    for match in sorted(found, key=lambda m: (m.start, m.end)):
        if spans and match.start <= spans[-1].end:
            spans[-1] = Span(spans[-1].start, max(spans[-1].end, match.end))
        else:
            spans.append(Span(match.start, match.end))
    return spans


def summary(index: Index, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By set: items, those that cannot be looked for (short or of common words), items found, documents that hold one."""
    sets: dict[str, dict[str, Any]] = {}
    for item in index.items:
        entry = sets.setdefault(
            item.set,
            {"items": 0, "not_checkable": [], "items_found": 0, "items_in_context_only": 0, "documents": 0},
        )
        entry["items"] += 1
        if not index.checkable(item):
            entry["not_checkable"].append(item.number)
    for name, entry in sets.items():
        mine = [r for r in rows if r["set"] == name]
        hit = {r["item"] for r in mine if r["counts"]}
        entry["items_found"] = len(hit)
        entry["items_in_context_only"] = len({r["item"] for r in mine} - hit)
        entry["documents"] = len({r["document"] for r in mine if r["counts"]})
    return sets


__all__ = [
    "ANSWER",
    "COLUMNS",
    "CONTEXT",
    "QUESTION",
    "Annotator",
    "Match",
    "align",
    "annotate",
    "check",
    "summary",
]

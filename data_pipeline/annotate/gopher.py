"""Quality and repetition values of Gopher (Rae et al., 2021, appendix A1.1 and table A1).

Definitions are those of datatrove's filters, given the words; n-grams are compared by 64-bit hashes in NumPy instead
of joined strings, so cost does not grow with n.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Analysis

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
TOP_N_GRAMS = (2, 3, 4)
DUPLICATE_N_GRAMS = (5, 6, 7, 8, 9, 10)
COLUMNS = (
    "n_words",
    "mean_word_length",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_lines",
    "ellipsis_lines",
    "alpha_words",
    "n_stop_words",
    "dup_line_frac",
    "dup_para_frac",
    "dup_line_char_frac",
    "dup_para_char_frac",
    *(f"top_{n}_gram" for n in TOP_N_GRAMS),
    *(f"dup_{n}_gram" for n in DUPLICATE_N_GRAMS),
)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def signals(document: Analysis) -> dict[str, float]:
    """Signals of one document; shares are 0..1, lengths in characters, and everything is 0 for an empty text.

    `hash_ratio ellipsis_ratio`: `#` and ellipses per word; `bullet_lines ellipsis_lines`: share of lines that start
    with a bullet, end with an ellipsis; `alpha_words`: share of words split at white space that hold a letter (as in
    the paper; with punctuation split off, its 80% would drop every second page); `n_stop_words`: different ones of
    eight English stop words; `dup_*`, `top_*`: repetition, as shares of lines, paragraphs or characters.
    """
    words, lexical, lines = document.words, document.lexical, document.lines
    spaced = document.spaced
    text, n_words, n_lines = document.text, max(len(document.words), 1), max(len(document.lines), 1)
    values: dict[str, float] = {
        "n_words": len(lexical),
        "mean_word_length": sum(map(len, lexical)) / len(lexical) if lexical else 0.0,
        "hash_ratio": text.count("#") / n_words,
        "ellipsis_ratio": (text.count("...") + text.count("…")) / n_words,
        "bullet_lines": sum(s.lstrip().startswith(("•", "-")) for s in lines) / n_lines,
        "ellipsis_lines": sum(s.rstrip().endswith(("...", "…")) for s in lines) / n_lines,
        "alpha_words": sum(w[0].isalpha() or any(map(str.isalpha, w)) for w in spaced) / max(len(spaced), 1),
        "n_stop_words": len(STOP_WORDS.intersection(words)),
    }
    n_chars = max(len(text), 1)
    for name, pieces in (("line", document.filled_lines), ("para", document.paragraphs)):
        count, chars = _duplicates(pieces)
        values[f"dup_{name}_frac"] = count / len(pieces)
        values[f"dup_{name}_char_frac"] = chars / n_chars
    return values | _n_grams(words, n_chars)


def _duplicates(pieces: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    count = chars = 0
    for piece in pieces:
        if piece in seen:
            count += 1
            chars += len(piece)
        else:
            seen.add(piece)
    return count, chars


def _n_grams(words: list[str], n_chars: int) -> dict[str, float]:
    values = {f"top_{n}_gram": 0.0 for n in TOP_N_GRAMS} | {f"dup_{n}_gram": 0.0 for n in DUPLICATE_N_GRAMS}
    if len(words) < 2:
        return values
    numbers: dict[str, int] = {}
    index = np.array([numbers.setdefault(w, len(numbers)) for w in words], np.uint64)
    hashes = _mix(index + np.uint64(1))
    ends = np.concatenate([[0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))])
    grams = hashes
    repeated = np.arange(len(words))
    for n in range(2, min(max(DUPLICATE_N_GRAMS), len(words)) + 1):
        grams = _mix(grams[:-1] * _FACTOR + hashes[n - 1 :])
        # Where n words repeat, their first n - 1 do: only those places can hold repeated n-grams.
        candidates = repeated[repeated < len(grams)]
        _, first, inverse, counts = np.unique(
            grams[candidates], return_index=True, return_inverse=True, return_counts=True
        )
        repeated = candidates[counts[inverse] > 1]
        if n in TOP_N_GRAMS:
            # Of equally frequent n-grams the first in the text counts, as in collections.Counter.
            most = int(counts.max()) if len(repeated) else 1
            start = int(candidates[first[counts == most].min()]) if len(repeated) else 0
            values[f"top_{n}_gram"] = float((ends[start + n] - ends[start] + n - 1) * most / n_chars)
        elif len(repeated):
            values[f"dup_{n}_gram"] = _repeated_chars(repeated, grams[repeated], ends, n) / n_chars
    return values


def _repeated_chars(places: np.ndarray, grams: np.ndarray, ends: np.ndarray, n: int) -> int:
    """Characters of n-grams that occurred before, counted from left to right without overlap."""
    seen: set[int] = set()
    chars, free = 0, 0
    for place, gram in zip(places.tolist(), grams.tolist(), strict=True):
        if place < free:
            continue
        if gram in seen:
            chars += int(ends[place + n] - ends[place])
            free = place + n
        else:
            seen.add(gram)
    return chars


def _mix(x: np.ndarray) -> np.ndarray:
    """Finaliser of splitmix64: neighbouring numbers become unrelated hashes."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

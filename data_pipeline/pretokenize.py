"""Llama 3's pre-tokenization, and how often each of its words occurs.

Processes that count begin with this module, so it imports little.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import regex

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's pre-tokenization (its tokenizer.json and reference code)."""
LEAST_CHARACTERS = 1 << 20
"""Text for which another process pays."""


def count_words(texts: Sequence[str], processes: int = 1) -> Counter[str]:
    """Occurrences of each word of Llama 3's pre-tokenization; the same for any number of processes."""
    total = sum(map(len, texts))
    processes = min(processes, total // LEAST_CHARACTERS)
    if processes < 2:
        return _count(texts)
    from data_pipeline import workers
    from data_pipeline.stage import die_with

    watched = functools.partial(die_with, os.getpid())
    with ProcessPoolExecutor(processes, workers.context(), watched) as pool:
        first, *others = pool.map(_count, _parts(texts, total / processes))
    for counts in others:
        first.update(counts)
    return first


def _parts(texts: Sequence[str], characters: float) -> list[list[str]]:
    """The texts in parts of about so many characters."""
    parts: list[list[str]] = [[]]
    taken = 0
    for text in texts:
        if taken >= characters * len(parts):
            parts.append([])
        parts[-1].append(text)
        taken += len(text)
    return parts


def _count(texts: Sequence[str]) -> Counter[str]:
    words, counts = regex.compile(LLAMA3_SPLIT).findall, Counter[str]()
    for text in texts:
        counts.update(words(text))
    return counts

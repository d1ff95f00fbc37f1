"""How much of one document stands in another: sketches of pairs of nearby word stems, and their containment.

A *gram* is an unordered pair of stems at most four words apart. A revision that swaps synonyms, drops a clause or turns
a sentence round keeps most of them; a page on the same topic by another hand keeps few. Containment, unlike Jaccard
similarity, also sees an excerpt in its source.

A document's sketch holds those of its grams whose hash is below 2**(32 - level): level 0 is all of them, and the level
rises until at most `MOST` are left (FracMinHash, Irber et al., 2022), so containment is estimated without bias and a
book costs no more than a page.

Shapes: w words, g grams, n documents.
"""

from __future__ import annotations

import numpy as np
from numba import types

from data_pipeline.compiled import kernel
from data_pipeline.wordhash import words

STEM = 5
"""Characters of a word that count."""
WINDOW = 4
"""Words behind a word that it forms pairs with."""
MOST = 1024
"""Grams in a sketch; the standard error of a containment of 0.8 is then 0.0125."""


@kernel(types.uint32[::1](types.Array(types.uint64, 1, "C", readonly=True), types.int64))
def _pairs(hashes, window):  # type: ignore[no-untyped-def]
    n = len(hashes)
    found = np.empty(n * window, np.uint32)
    k = 0
    for i in range(n):
        for j in range(i + 1, min(n, i + 1 + window)):
            # A sum does not know the order; the multiplication spreads its bits.
            x = (hashes[i] + hashes[j]) * np.uint64(0xD6E8FEB86659FD93)
            found[k] = np.uint32((x ^ (x >> np.uint64(32))) >> np.uint64(16))
            k += 1
    return found[:k]


def sketch(text: str) -> tuple[np.ndarray, int]:
    """Sketch of a document: distinct gram hashes uint32 [g], ascending, and its level.

    A text of one word has one gram, of that word; one without words has none.
    """
    hashes = words(text, STEM)[0]
    if len(hashes) == 1:
        return hashes.astype(np.uint32), 0
    found = np.sort(_pairs(hashes, WINDOW))
    found = found[np.flatnonzero(np.diff(found, prepend=~found[:1]))]
    level = 0
    while len(found) > MOST:
        level += 1
        found = found[: np.searchsorted(found, np.uint32(2 ** (32 - level)))]
    return found, level


_U32 = types.Array(types.uint32, 1, "C", readonly=True)


@kernel(types.float64(_U32, types.int64, _U32, types.int64))
def containment(a, level_a, b, level_b):  # type: ignore[no-untyped-def]
    """Share of the grams of `a` that are in `b`, two sketches and their levels; 0 where `a` has none."""
    bound = np.uint64(1) << np.uint64(32 - max(level_a, level_b))
    i = j = common = total = 0
    while i < len(a) and a[i] < bound:
        total += 1
        while j < len(b) and b[j] < a[i]:
            j += 1
        if j < len(b) and b[j] == a[i]:
            common += 1
        i += 1
    return common / total if total else 0.0

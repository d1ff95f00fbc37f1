"""Words of a text as 64-bit hashes with their places, blind to case, accents, width, punctuation and markup.

This is the reading of a text that approximate comparison wants (decontamination, semantic deduplication): `“Don’t`,
`don't` and `DON'T` are one word, `1,000` is `1000`, `*bold*` is `bold`, tags and entities of HTML are gaps, and in
writing without spaces every character is a word.

Shapes: c code points, w words.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

import numpy as np
import regex
from numba import types

from data_pipeline.compiled import kernel
from data_pipeline.kernels.hashing import mix

GAP, JOIN = 0, 1
"""Classes of the folding table: ends a word; is no part of a word and does not end it."""
UNSPACED = 1 << 31
"""Flag of a character that is a word of its own."""
_JOINERS = "'’‘`´ʼ＇\u00ad\u200b\u200c\u200d\u2060\ufeff"
# First and last code point: scripts without spaces between words.
_UNSPACED_BLOCKS = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
)
_BLIND = ("HEBREW", "ARABIC", "SYRIAC", "VARIATION SELECTOR", "MONGOLIAN FREE VARIATION SELECTOR")
"""Scripts whose marks are points that most texts leave out, and marks of form."""
_FOLDED_BELOW = 0x3000
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_TAG_CHARACTERS = 120
_ENTITY_CHARACTERS = 9


@functools.cache
def folding() -> np.ndarray:
    """uint32 [0x110000]: the folded code point of a word character, or GAP or JOIN."""
    table = np.zeros(0x110000, np.uint32)
    every = "".join(map(chr, range(0x110000)))
    for match in re.finditer(r"[^\W_]+", every):
        table[match.start() : match.end()] = np.arange(match.start(), match.end(), dtype=np.uint32)
    narrow = np.flatnonzero(table[:_FOLDED_BELOW]).tolist() + list(range(0xFF10, 0xFF5B))
    for code in narrow:
        base = unicodedata.normalize("NFKD", chr(code).casefold())[:1].casefold()
        table[code] = ord(base) if base.isalnum() and len(base) == 1 else table[code]
    # Cased letters beyond: Georgian, Deseret and the like.
    for first, last in ((0xA640, 0xABBF), (0x10400, 0x104FF), (0x1E900, 0x1E943)):
        for code in range(first, last + 1):
            lower = chr(code).lower()
            if table[code] and len(lower) == 1:
                table[code] = ord(lower)
    for first, last in _UNSPACED_BLOCKS:
        block = table[first : last + 1]
        block[block != GAP] |= np.uint32(UNSPACED)
    # Signs of vowels belong to the words of Indic scripts; accents, points of Hebrew and Arabic do not count.
    for mark in regex.findall(r"\p{M}", every):
        name, code = unicodedata.name(mark, ""), ord(mark)
        blind = "COMBINING" in name or name.startswith(_BLIND)
        table[code] = JOIN if blind or any(a <= code <= b for a, b in _UNSPACED_BLOCKS) else code
    for character in _JOINERS:
        table[ord(character)] = JOIN
    return table


@functools.cache
def _ascii_folding() -> np.ndarray:
    """The first 128 rows alone: most texts need no more, and the whole takes a fifth of a second to make."""
    table = np.zeros(256, np.uint32)
    for code in range(128):
        if chr(code).isalnum():
            table[code] = ord(chr(code).lower())
        elif chr(code) in _JOINERS:
            table[code] = JOIN
    return table


def _signature(code: types.Type) -> Any:
    return types.int64(
        types.Array(code, 1, "C", readonly=True),
        types.Array(types.uint32, 1, "C"),
        types.int64,
        types.Array(types.uint64, 1, "C"),
        types.Array(types.int32, 1, "C"),
        types.Array(types.int32, 1, "C"),
    )


@kernel(_signature(types.uint8), _signature(types.uint32))
def _scan(codes, table, prefix, hashes, starts, ends):  # type: ignore[no-untyped-def]
    n = len(codes)
    found = 0
    value = np.uint64(0)
    length = 0
    start = 0
    i = 0
    while i <= n:
        folded = np.uint32(0)
        after = i + 1
        if i < n:
            code = codes[i]
            folded = table[code]
            if folded == 0:
                if code == 60 and i + 1 < n:  # `<`: a tag, where a letter, `/` or `!` follows
                    follows = codes[i + 1]
                    if follows == 47 or follows == 33 or 65 <= follows <= 90 or 97 <= follows <= 122:
                        j = i + 2
                        while j < n and j - i <= _TAG_CHARACTERS and codes[j] not in (10, 60, 62):
                            j += 1
                        if j < n and codes[j] == 62:
                            after = j + 1
                elif code == 38:  # `&`: an entity
                    j = i + 1
                    if j < n and codes[j] == 35:
                        j += 1
                    first = j
                    while (
                        j < n
                        and j - i <= _ENTITY_CHARACTERS
                        and (48 <= codes[j] <= 57 or 65 <= codes[j] <= 90 or 97 <= codes[j] <= 122)
                    ):
                        j += 1
                    if j < n and j > first and codes[j] == 59:
                        after = j + 1
                elif (  # `,` between digits
                    code == 44
                    and length
                    and i + 1 < n
                    and 48 <= codes[i - 1] <= 57
                    and 48 <= codes[i + 1] <= 57
                ):
                    folded = np.uint32(1)
        if folded == 1:
            i = after
            continue
        if folded == 0 or folded & np.uint32(UNSPACED):
            if length:
                hashes[found] = mix(value)
                starts[found] = start
                found += 1
                length = 0
                value = np.uint64(0)
            if folded:
                hashes[found] = mix(np.uint64(folded) * _MULTIPLIER)
                starts[found] = i
                ends[found] = i + 1
                found += 1
        else:
            if length == 0:
                start = i
            if length < prefix:
                value = (value ^ np.uint64(folded)) * _MULTIPLIER
                value ^= value >> np.uint64(29)
            length += 1
            ends[found] = i + 1
        i = after
    return found


def words(text: str, prefix: int = 1 << 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words of a text: hashes uint64 [w], starts int32 [w] and ends int32 [w] in code points.

    prefix: characters of a word that count; 5 makes most forms of an English word one (a poor man's stem).
    """
    if text.isascii():
        codes, table = np.frombuffer(text.encode("ascii"), np.uint8), _ascii_folding()
    else:
        codes, table = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), folding()
    most = len(codes) + 1
    hashes, starts, ends = np.empty(most, np.uint64), np.empty(most, np.int32), np.empty(most, np.int32)
    n = _scan(codes, table, prefix, hashes, starts, ends)
    return hashes[:n], starts[:n], ends[:n]

# mypy: disable-error-code="no-untyped-def"
"""Listed words and phrases in texts: lists of many languages in one trie, one compiled pass over UTF-8.

Text is folded as it is read (case, `ß` as `ss`, no zero-width characters). Words are tokens; in scripts that set no spaces,
or take their endings without one, every character is a token, and counts as a word. A phrase is a path of tokens from the
root of the trie; lists apply by bit.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
from numba import int64, uint32, uint64

from data_pipeline.compiled import kernel, subroutine
from data_pipeline.kernels import fnv
from data_pipeline.kernels.ascii import LOWER_S
from data_pipeline.kernels.hash_table import slot_of

MAX_LISTS = 62
"""Lists that a trie holds beside two of our own."""
MAX_TOKENS = 32
"""Tokens of a phrase; longer ones are cut."""
COUNTS = ("words", "covered", "hits", "distinct", "symbols")
"""What is counted by group of lists: words of the text (the same for all), those that belong to a phrase, phrases found,
different ones, and symbols that are no words but belong to one."""

_WORD, _SINGLE, _SKIP, _COMBINING = 1, 2, 4, 8
_LAST = 0x32400
_UNSPACED = (
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000),
    (0xAC00, 0xD7B0), (0xF900, 0xFB00), (0x20000, 0x32400),
)  # fmt: skip
_INVISIBLE = (0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10))


@cache
def _characters() -> tuple[np.ndarray, np.ndarray]:
    """Classes (uint8) and folded code points (uint32) of the code points below `_LAST`."""
    classes = np.zeros(_LAST, np.uint8)
    folded = np.arange(_LAST, dtype=np.uint32)
    for low, high in ((0, 0x3400), (0xA000, 0xAC00), (0xD7B0, 0xD800), (0xF900, 0x1FB00)):
        for c in range(low, high):
            character = chr(c)
            if character.isalnum() or unicodedata.category(character)[0] == "M":
                classes[c] = _WORD
                other = character.casefold()
                if other != character:
                    folded[c] = ord(other[0])
    classes[ord("_")] = _WORD
    for low, high in _UNSPACED:
        classes[low:high] |= _WORD | _SINGLE
    # Text that is not composed (NFC) is composed before; these are its signs.
    classes[0x300:0x370] |= _COMBINING
    classes[0x1100:0x1200] |= _COMBINING
    classes[0x3099:0x309B] |= _COMBINING
    classes[list(_INVISIBLE)] = _SKIP
    folded[[0xDF, 0x1E9E]] = 0xFFFF_FFFF
    return classes, folded


@dataclass(frozen=True)
class Trie:
    """Phrases of lists, ready to be found."""

    keys: np.ndarray
    """uint64, a power of two: (node, token) hashed; 0 is empty."""
    nodes: np.ndarray
    """int32: the node that a key leads to."""
    lists: np.ndarray
    """uint64 [nodes]: bits of the lists that hold the phrase that ends at a node."""
    first: np.ndarray
    """uint8 [65536]: 1 where the low bits of a token begin some phrase."""
    symbols: np.ndarray
    """uint8 [_LAST]: 1 for characters that are no words but stand in phrases."""


def build(phrases: Iterable[tuple[str, int]]) -> Trie:
    """A trie of (phrase, bit of its list, 0 to 63)."""
    classes, folded = _characters()
    symbols = np.zeros(_LAST, np.uint8)
    wanted = sorted({(unicodedata.normalize("NFC", phrase.strip()), bit) for phrase, bit in phrases})
    for phrase, _ in wanted:
        if not any(classes[ord(c)] & _WORD for c in phrase if ord(c) < _LAST):
            symbols[[ord(c) for c in phrase if ord(c) < _LAST and not c.isspace()]] = 1
    edges: dict[tuple[int, int], int] = {}
    lists = [0]
    first = np.zeros(65536, np.uint8)
    for phrase, bit in wanted:
        tokens = np.zeros(MAX_TOKENS, np.uint64)
        data = np.frombuffer(phrase.encode("utf-8", "replace") or b" ", np.uint8)
        n = int(_tokens(data.copy(), classes, folded, symbols, tokens))
        node = 0
        for token in tokens[: min(n, MAX_TOKENS)].tolist():
            if (node, token) not in edges:
                edges[node, token] = len(lists)
                lists.append(0)
            node = edges[node, token]
        if node:
            lists[node] |= 1 << bit
            first[int(tokens[0]) & 0xFFFF] = 1
    size = 1 << max(4, (2 * len(edges)).bit_length())
    keys, nodes = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for (node, token), child in edges.items():
        key = _key(np.uint64(node), np.uint64(token))
        slot = slot_of(keys, size, np.uint64(key))
        keys[slot], nodes[slot] = key, child
    return Trie(keys, nodes, np.array(lists, np.uint64), first, symbols)


def count(trie: Trie, texts: pa.Array, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Count phrases in texts: int64 [n, groups, len(COUNTS)].

    Args:
        texts: large strings without nulls.
        groups: uint64 [n] each: bits of the lists that apply to every text.
    """
    classes, folded = _characters()
    _, starts, buffer = texts.buffers()
    offsets = np.frombuffer(starts, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(buffer, np.uint8) if buffer is not None else np.zeros(0, np.uint8)
    data, offsets = data[offsets[0] : offsets[-1]].copy(), offsets - offsets[0]
    masks = np.stack(groups, axis=1).astype(np.uint64)
    out = np.zeros((len(texts), len(groups), len(COUNTS)), np.int64)
    seen = np.full((len(groups), len(trie.lists)), -1, np.int64)
    loose = np.zeros(len(texts), np.uint8)
    tables = (classes, folded, trie.symbols, trie.keys, trie.nodes, trie.lists, trie.first)
    _count(data, offsets, masks, *tables, seen, out, loose)
    rows = np.flatnonzero(loose).tolist()
    if rows:
        composed = [unicodedata.normalize("NFC", texts[i].as_py()).encode("utf-8", "replace") for i in rows]
        ends = np.concatenate([[0], np.cumsum([len(c) for c in composed])]).astype(np.int64)
        part = np.zeros((len(rows), len(groups), len(COUNTS)), np.int64)
        seen[:] = -1
        joined = np.frombuffer(bytearray(b"".join(composed)), np.uint8)
        _count(joined, ends, masks[rows], *tables, seen, part, loose[: len(rows)])
        out[rows] = part
    return out


@kernel("uint64(uint64, uint64)")
def _key(node, token):
    h = (token ^ (node * uint64(0x9E3779B97F4A7C15))) * uint64(0xFF51AFD7ED558CCD)
    h ^= h >> uint64(32)
    return h | uint64(1)


@subroutine
def _decode(data, i, end):
    """(code point, bytes) at `i`."""
    c = uint32(data[i])
    if c < 0x80:
        return c, 1
    size = 4 if c >= 0xF0 else 3 if c >= 0xE0 else 2 if c >= 0xC0 else 1
    if size == 1 or i + size > end:
        return uint32(0xFFFD), 1
    value = c & uint32(0x7F >> size)
    for k in range(1, size):
        value = (value << uint32(6)) | uint32(data[i + k] & 0x3F)
    return value, size


@kernel("int64(uint8[::1], uint8[::1], uint32[::1], uint8[::1], uint64[::1])")
def _tokens(data, classes, folded, symbols, out):
    """Tokens of a phrase; how many there are."""
    n, i, end = 0, int64(0), len(data)
    h = uint64(0)
    while i <= end:
        c, size = _decode(data, i, end) if i < end else (uint32(32), 1)
        i += size
        kind = classes[c] if c < len(classes) else 0
        if kind & 4:
            continue
        single = kind & 2 or (c < len(symbols) and symbols[c])
        if kind & 1 and not single:
            f = folded[c]
            h = fnv.OFFSET if h == 0 else h
            h = fnv.extend(fnv.extend(h, LOWER_S), LOWER_S) if f == 0xFFFFFFFF else fnv.extend(h, f)
            continue
        if h != 0:
            if n < len(out):
                out[n] = h
            n += 1
            h = uint64(0)
        if single:
            if n < len(out):
                out[n] = fnv.extend(fnv.OFFSET, folded[c])
            n += 1
    return n


@kernel(
    "void(uint8[::1], int64[::1], uint64[:, ::1], uint8[::1], uint32[::1], uint8[::1], uint64[::1], int32[::1], "
    "uint64[::1], uint8[::1], int64[:, ::1], int64[:, :, ::1], uint8[::1])"
)
def _count(data, offsets, masks, classes, folded, symbols, keys, nodes, lists, first, seen, out, loose):
    groups = masks.shape[1]
    active, length = np.zeros(64, np.int64), np.zeros(64, np.int64)
    # Of the last 64 tokens, which are covered, which are symbols.
    covered = np.zeros(groups, np.uint64)
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        h = uint64(0)
        n_active, words = 0, 0
        covered[:] = 0
        marks = uint64(0)
        while i <= end:
            if i < end:
                c = uint32(data[i])
                size = 1
                if c >= 0x80:
                    c, size = _decode(data, i, end)
            else:
                c, size = uint32(32), 1
            i += size
            kind = classes[c] if c < len(classes) else 0
            if kind & 12:
                if kind & 8:
                    loose[d] = 1
                else:
                    continue
            single = kind & 2 != 0 or (c < len(symbols) and symbols[c] != 0)
            if kind & 1 and not single:
                f = folded[c]
                h = fnv.OFFSET if h == 0 else h
                h = fnv.extend(fnv.extend(h, LOWER_S), LOWER_S) if f == 0xFFFFFFFF else fnv.extend(h, f)
                continue
            for step in range(2):
                # The word that ends here, then the character that is a token by itself.
                if step == 0:
                    if h == 0:
                        continue
                    token, mark = h, False
                    h = uint64(0)
                else:
                    if not single:
                        break
                    token, mark = fnv.extend(fnv.OFFSET, folded[c]), kind & 1 == 0
                words += not mark
                for g in range(groups):
                    covered[g] <<= uint64(1)
                marks = (marks << uint64(1)) | uint64(mark)
                if n_active == 0 and not first[token & uint64(0xFFFF)]:
                    continue
                alive = 0
                for a in range(n_active + 1):
                    if a < n_active:
                        node, size_so_far = active[a], length[a]
                    elif first[token & uint64(0xFFFF)]:
                        node, size_so_far = int64(0), int64(0)
                    else:
                        break
                    key = _key(uint64(node), token)
                    slot = slot_of(keys, len(keys), key)
                    if keys[slot] == 0:
                        continue
                    child = int64(nodes[slot])
                    if alive < 64:
                        active[alive], length[alive] = child, size_so_far + 1
                        alive += 1
                    if lists[child] == 0:
                        continue
                    span = (uint64(1) << uint64(size_so_far + 1)) - uint64(1)
                    for g in range(groups):
                        if lists[child] & masks[d, g] == 0:
                            continue
                        new = span & ~covered[g]
                        covered[g] |= span
                        out[d, g, 2] += 1
                        out[d, g, 3] += seen[g, child] != d
                        seen[g, child] = d
                        while new:
                            bit = new & (~new + uint64(1))
                            out[d, g, 1] += 1
                            out[d, g, 4] += marks & bit != 0
                            new ^= bit
                n_active = alive
        for g in range(groups):
            out[d, g, 0] = words

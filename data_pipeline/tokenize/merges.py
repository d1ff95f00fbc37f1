# mypy: disable-error-code="no-untyped-def"
"""Byte-pair encoding learnt from counted words (Sennrich et al. 2016, algorithm 1), in one compiled pass.

The merges are those of Hugging Face's `BpeTrainer`: the most frequent pair first, of equally frequent ones the pair of the
smallest ids, and a token that two merges make is one token. What a merge changes is found by lists of the places of each
pair, so training takes time linear in the words' bytes, and little for each merge.

Shapes: n bytes of the distinct words, w words, p pairs.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping

import numba
import numpy as np

from data_pipeline.compiled import kernel, small_subroutine
from data_pipeline.kernels.hashing import mix

_I64, _U64 = numba.int64, numba.uint64
_NONE = -1
_PAIRS, _NODES, _WAITING, _TOUCHED = range(4)
Pairs = namedtuple("Pairs", "key often first last changed place following heap touched size")
"""Pairs of adjacent tokens: `key`, ids of both (the left one in the upper 32 bits); how `often` they occur; their places,
a list from `first` to `last` of nodes (`place`, `following`), which also holds places that are none any more; the merge that
`changed` them. `heap`: (occurrences when it was put there, pair), the next one to merge first. `touched`: pairs that a
merge made more frequent. `size`: entries of pairs, nodes, heap and touched."""


def learn(
    words: Mapping[str, int], ids: np.ndarray, n_tokens: int, min_frequency: int
) -> list[tuple[int, int, int]]:
    """Merges in order: (id of the left token, of the right one, of what they become).

    Args:
        words: occurrences of each distinct word.
        ids: int64 [256]: token id of each byte, 0 to 255 in any order.
        n_tokens: tokens wanted, the 256 bytes among them; fewer where no pair is frequent enough.
        min_frequency: occurrences of a pair that is still merged.
    """
    # Merges do not depend on the order of the words: equal counts are decided by ids.
    data = np.frombuffer("".join(words).encode("utf-8", "surrogatepass"), np.uint8)
    characters = np.append(np.flatnonzero(data & 0xC0 != 0x80), len(data))  # where each begins
    ends = characters[np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))]
    counts = np.fromiter(words.values(), np.int64, len(words))
    found = _learn(ids[data], ends, counts, n_tokens, min_frequency)
    return list(zip(*(column.tolist() for column in found.T), strict=True))


@small_subroutine
def _key(left, right):
    return _U64(left) << _U64(32) | _U64(right)


@small_subroutine
def _find(table, key, keys):
    """Place of a pair's number in a hash table, or of the -1 where it belongs."""
    mask = _U64(len(table) - 1)
    at = mix(key) & mask
    while table[at] >= 0 and keys[table[at]] != key:
        at = (at + _U64(1)) & mask
    return at


@small_subroutine
def _add(table, pairs, left, right, place, weight, merge):
    """Count a pair at one more place."""
    key = _key(left, right)
    at = _find(table, key, pairs.key)
    pair = table[at]
    if pair < 0:
        pair = pairs.size[_PAIRS]
        pairs.size[_PAIRS] += 1
        pairs.key[pair], pairs.often[pair], pairs.changed[pair] = key, 0, -1
        pairs.first[pair] = pairs.last[pair] = _NONE
        table[at] = pair
    pairs.often[pair] += weight
    node = pairs.size[_NODES]
    pairs.size[_NODES] += 1
    pairs.place[node], pairs.following[node] = place, _NONE
    if pairs.last[pair] >= 0:
        pairs.following[pairs.last[pair]] = node
    else:
        pairs.first[pair] = node
    pairs.last[pair] = node
    if pairs.changed[pair] != merge:
        pairs.changed[pair] = merge
        pairs.touched[pairs.size[_TOUCHED]] = pair
        pairs.size[_TOUCHED] += 1


@small_subroutine
def _before(pairs, count, pair, other_count, other):
    """Whether one pair is merged before another: more frequent, or else of smaller ids."""
    return count > other_count or (count == other_count and pairs.key[pair] < pairs.key[other])


@small_subroutine
def _push(pairs, pair):
    heap, at, count = pairs.heap, pairs.size[_WAITING], pairs.often[pair]
    pairs.size[_WAITING] += 1
    while at > 0:
        above = (at - 1) // 2
        if not _before(pairs, count, pair, heap[above, 0], heap[above, 1]):
            break
        heap[at, 0], heap[at, 1] = heap[above, 0], heap[above, 1]
        at = above
    heap[at, 0], heap[at, 1] = count, pair


@small_subroutine
def _pop(pairs):
    """Remove the first entry of the heap: (occurrences when it was put there, pair)."""
    heap = pairs.heap
    count, pair = heap[0, 0], heap[0, 1]
    pairs.size[_WAITING] -= 1
    size = pairs.size[_WAITING]
    last_count, last, at = heap[size, 0], heap[size, 1], 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _before(
            pairs, heap[child + 1, 0], heap[child + 1, 1], heap[child, 0], heap[child, 1]
        ):
            child += 1
        if _before(pairs, last_count, last, heap[child, 0], heap[child, 1]):
            break
        heap[at, 0], heap[at, 1] = heap[child, 0], heap[child, 1]
        at = child
    heap[at, 0], heap[at, 1] = last_count, last
    return count, pair


@small_subroutine
def _next(pairs, min_frequency):
    """The pair to merge; -1: none is frequent enough."""
    while pairs.size[_WAITING] > 0:
        count, pair = _pop(pairs)
        if count == pairs.often[pair]:
            return pair if count >= min_frequency else _I64(_NONE)
        if pairs.often[pair] > 0:  # it has become rarer since
            _push(pairs, pair)
    return _I64(_NONE)


@small_subroutine
def _token(data, begin, end, spans, table, tokens):
    """Id of the token of some bytes: of one that is there already, or else `tokens`, which it becomes.

    Args:
        spans: int64 [tokens wanted, 2]: where in `data` the bytes of each merged token stand.
    """
    key = _U64(end - begin)
    for i in range(begin, end):
        key = mix(key ^ _U64(data[i])) + _U64(1)
    mask = _U64(len(table) - 1)
    at = key & mask
    while table[at] >= 0:
        token = table[at]
        first = spans[token, 0]
        if spans[token, 1] - first == end - begin:
            same = 0
            while same < end - begin and data[first + same] == data[begin + same]:
                same += 1
            if same == end - begin:
                return _I64(token)
        at = (at + _U64(1)) & mask
    table[at], spans[tokens, 0], spans[tokens, 1] = tokens, begin, end
    return _I64(tokens)


@kernel(_I64[:, ::1](_I64[::1], _I64[::1], _I64[::1], _I64, _I64))
def _learn(data, ends, counts, n_tokens, min_frequency):
    n = len(data)
    # Each merge of two tokens of a word leaves one less, and makes two new pairs. What is not used takes no memory.
    room = 3 * n + 1
    pairs = Pairs(
        np.empty(room, np.uint64),
        np.empty(room, np.int64),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty((room, 2), np.int64),
        np.empty(room, np.int32),
        np.zeros(4, np.int64),
    )
    table = np.full(1 << 18, -1, np.int32)  # of pairs of bytes there are 1 << 16
    symbol, before, after, word = (
        data.copy(),
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(n, np.int32),
    )
    begin = 0
    for w in range(len(ends)):
        for i in range(begin, ends[w]):
            before[i] = i - 1 if i > begin else _NONE
            after[i] = i + 1 if i + 1 < ends[w] else _NONE
            word[i] = w
            if i + 1 < ends[w]:
                _add(table, pairs, data[i], data[i + 1], i, counts[w], 0)
        begin = ends[w]
    spans, merges = np.empty((max(n_tokens, 256), 2), np.int64), np.empty((max(n_tokens, 256), 3), np.int64)
    token_table = np.full(1 << 10, -1, np.int32)
    while len(token_table) < 2 * n_tokens:
        token_table = np.full(2 * len(token_table), -1, np.int32)
    tokens, done = 256, 0
    while tokens < n_tokens and done < len(merges):
        # A merge makes pairs with each token at the most, on its left and on its right.
        if 2 * (pairs.size[_PAIRS] + 2 * tokens) > len(table):
            table = np.full(4 * len(table), -1, np.int32)
            for k in range(pairs.size[_PAIRS]):
                table[_find(table, pairs.key[k], pairs.key)] = k
        for t in range(pairs.size[_TOUCHED]):
            _push(pairs, pairs.touched[t])
        pairs.size[_TOUCHED] = 0
        best = _next(pairs, max(min_frequency, 1))
        if best < 0:
            break
        left, right = _I64(pairs.key[best] >> _U64(32)), _I64(pairs.key[best] & _U64(0xFFFFFFFF))
        made, node = _I64(_NONE), pairs.first[best]
        pairs.often[best], pairs.first[best], pairs.last[best] = 0, _NONE, _NONE
        while node >= 0:
            i = pairs.place[node]
            node = pairs.following[node]
            gone = after[i]
            if symbol[i] != left or gone < 0 or symbol[gone] != right:
                continue
            weight, last, following = counts[word[i]], before[i], after[gone]
            if made < 0:
                end = following if following >= 0 else ends[word[i]]
                made = _token(data, i, end, spans, token_table, tokens)
            symbol[i], symbol[gone], after[i] = made, _NONE, following
            if last >= 0:
                pairs.often[table[_find(table, _key(symbol[last], left), pairs.key)]] -= weight
                _add(table, pairs, symbol[last], made, last, weight, done + 1)
            if following >= 0:
                before[following] = i
                pairs.often[table[_find(table, _key(right, symbol[following]), pairs.key)]] -= weight
                _add(table, pairs, made, symbol[following], i, weight, done + 1)
        merges[done, 0], merges[done, 1], merges[done, 2] = left, right, made
        done += 1
        if made == tokens:
            tokens += 1
    return merges[:done].copy()

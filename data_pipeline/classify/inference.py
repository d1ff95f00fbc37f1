"""Scores of a fastText model, computed from its `.bin` file without a call per text.

Reads the file format of fastText 0.9 (version 12) and does what its `predict` does, over Arrow's buffers: words and
their n-grams are hashed (FNV-1a over signed bytes), the rows of the input matrix averaged, and the mean multiplied with
the output matrix; softmax, hierarchical softmax (lid.176) and one-vs-all. Labels are fastText's own; probabilities differ
in the last places, since fastText adds 1e-5 to each before it takes logarithms. Quantised models are not read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa

from data_pipeline.compiled import kernel, subroutine

MAGIC, VERSION = 793712314, 12
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
_SUPERVISED = 3
_HEADER = struct.Struct("<2i 12i d 3i 2q")
_EOS = b"</s>"
# Arrow's buffers may not be written to.
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_STARTS = numba.types.Array(numba.int64, 1, "C", readonly=True)
_MATRIX = numba.types.Array(numba.float32, 2, "C")


@dataclass(frozen=True)
class Network:
    """A supervised fastText model in memory."""

    labels: tuple[str, ...]
    """Labels as the file has them, with their prefix, in the order of the output layer."""
    loss: int
    """How outputs become probabilities: one of the module's constants."""
    min_gram: int
    """Shortest character n-gram."""
    max_gram: int
    """Longest character n-gram; 0: words only."""
    word_ngrams: int
    """Longest word n-gram."""
    bucket: int
    """Hash buckets of n-grams."""
    inputs: np.ndarray
    """float32 [words + bucket, dim]."""
    outputs: np.ndarray
    """float32 [dim, labels]; for hierarchical softmax [dim, labels - 1], the inner nodes of the tree."""
    left: np.ndarray
    """int32 [labels - 1]: left child of each inner node, leaves first; empty for other losses."""
    right: np.ndarray
    """int32 [labels - 1]: right child."""
    words: np.ndarray
    """uint8: the words, one after the other."""
    starts: np.ndarray
    """int64 [words + 1]: where each begins in `words`."""
    table: np.ndarray
    """int32: open addressing from a word's hash to its number, -1 where empty; its length is a power of two."""
    end_of_line: int
    """Number of the word that ends a line, -1 where there is none."""

    def hidden(self, texts: pa.Array, max_characters: int) -> np.ndarray:
        """Mean of the embeddings of each text's words and n-grams: float32 [n, dim]; NaN where nothing is known."""
        data, offsets = _buffers(texts)
        out = np.empty((len(offsets) - 1, self.inputs.shape[1]), np.float32)
        _hidden(
            data, offsets, max_characters, self.words, self.starts, self.table, self.end_of_line, self.inputs,
            self.bucket, self.min_gram, self.max_gram, self.word_ngrams, out,
        )  # fmt: skip
        return out

    def probabilities(self, texts: pa.Array, max_characters: int) -> np.ndarray:
        """Probabilities of all labels, float32 [n, labels]; NaN for empty texts. No row depends on another.

        Args:
            texts: large strings without nulls; a text longer than `max_characters` is read as `fasttext.excerpt` cuts it.
            max_characters: code points.
        """
        hidden = self.hidden(texts, max_characters)
        out = np.empty((len(hidden), len(self.labels)), np.float32)
        if self.loss == HIERARCHICAL:
            _tree(hidden, self.outputs, self.left, self.right, out)
        else:
            _flat(hidden, self.outputs, self.loss == SOFTMAX, out)
        return out


def load(path: Path) -> Network | None:
    """Read a model; None when it is quantised or of another version of the format, which only fastText itself reads.

    Raises:
        ValueError: no fastText model, no classifier, or a file that ends too early.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or struct.unpack_from("<i", head)[0] != MAGIC:
            raise ValueError(f"{path} is not a fastText model; expected a .bin file")
        fields = _HEADER.unpack(head)
        if fields[1] != VERSION:
            return None
        dim, _, _, _, _, word_ngrams, loss, kind, bucket, min_gram, max_gram, _ = fields[2:14]
        size, n_words, n_labels, _, pruned = fields[15:]
        if kind != _SUPERVISED or n_labels < 1:
            raise ValueError(f"{path} is a fastText model without labels, not a classifier")
        if pruned > 0:
            return None
        blob, starts, counts = _dictionary(path, file, size)
        shape = _matrix(path, file, dim)
        if shape is None:
            return None
        inputs = _floats(path, file, shape)
        shape = _matrix(path, file, dim)
        if shape is None:
            return None
        weights = _floats(path, file, shape)
    text = blob.tobytes()
    names = [text[starts[i] : starts[i + 1]].decode("utf-8", "replace") for i in range(n_words, size)]
    left = right = np.zeros(0, np.int32)
    if loss == HIERARCHICAL:
        left, right = _huffman(counts[n_words:])
        weights = weights[: n_labels - 1]
    table = np.full(1 << max(4, (2 * n_words).bit_length()), -1, np.int32)
    _fill(blob, starts, n_words, table)
    ends = [i for i in range(min(n_words, size)) if text[starts[i] : starts[i + 1]] == _EOS]
    return Network(
        labels=tuple(names),
        loss=loss,
        min_gram=min_gram,
        max_gram=max_gram,
        word_ngrams=word_ngrams,
        bucket=bucket,
        inputs=inputs,
        outputs=np.ascontiguousarray(weights.T),
        left=left,
        right=right,
        words=blob,
        starts=starts,
        table=table,
        end_of_line=ends[0] if ends else -1,
    )


def _dictionary(path: Path, file, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """Words and labels: bytes, starts [size + 1], counts [size]; leaves the file behind the last entry."""
    begin = file.tell()
    raw = b""
    starts, counts = np.empty(size + 1, np.int64), np.empty(size, np.int64)
    while True:
        block = file.read(max(1 << 20, len(raw)))
        raw += block
        used, blob = _entries(np.frombuffer(raw, np.uint8), starts, counts)
        if used >= 0:
            file.seek(begin + used)
            return blob, starts, counts
        if not block:
            raise ValueError(f"{path} ends within its dictionary; it is not whole")


def _matrix(path: Path, file, dim: int) -> tuple[int, int] | None:  # type: ignore[no-untyped-def]
    """Shape of the matrix that follows; None where it is quantised."""
    head = file.read(17)
    if len(head) < 17:
        raise ValueError(f"{path} ends before its matrices; it is not whole")
    quantised, rows, columns = struct.unpack("<?2q", head)
    if quantised:
        return None
    if columns != dim or rows < 1:
        raise ValueError(f"{path} holds a matrix of {rows} × {columns}, but its dimension is {dim}")
    return rows, columns


def _floats(path: Path, file, shape: tuple[int, int]) -> np.ndarray:  # type: ignore[no-untyped-def]
    values = np.fromfile(file, np.float32, shape[0] * shape[1])
    if len(values) < shape[0] * shape[1]:
        raise ValueError(f"{path} ends within a matrix; it is not whole")
    return values.reshape(shape)


def _huffman(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Children of the inner nodes of the tree over labels, as fastText builds it from their counts (falling)."""
    n = len(counts)
    weight = np.full(2 * n - 1, 10**15, np.int64)
    weight[:n] = counts
    left, right = np.zeros(n - 1, np.int32), np.zeros(n - 1, np.int32)
    leaf, node = n - 1, n
    for i in range(n, 2 * n - 1):
        smallest = []
        for _ in range(2):
            if leaf >= 0 and weight[leaf] < weight[node]:
                smallest.append(leaf)
                leaf -= 1
            else:
                smallest.append(node)
                node += 1
        left[i - n], right[i - n] = smallest
        weight[i] = weight[smallest[0]] + weight[smallest[1]]
    return left, right


def _buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes and int64 [n + 1] offsets of texts."""
    if len(texts) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    found = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8), found


@kernel(numba.types.Tuple((numba.int64, numba.uint8[::1]))(_BYTES, numba.int64[::1], numba.int64[::1]))
def _entries(raw, starts, counts):  # type: ignore[no-untyped-def]
    """Dictionary entries (word, NUL, int64 count, int8 type); bytes used, -1 where `raw` ends too early."""
    blob = np.empty(len(raw), np.uint8)
    position = filled = 0
    for entry in range(len(counts)):
        starts[entry] = filled
        while position < len(raw) and raw[position] != 0:
            blob[filled] = raw[position]
            filled += 1
            position += 1
        if position + 10 > len(raw):
            return -1, blob[:0].copy()
        value = np.int64(0)
        for k in range(8):
            value |= np.int64(raw[position + 1 + k]) << (8 * k)
        counts[entry] = value
        position += 10
    starts[len(counts)] = filled
    return position, blob[:filled].copy()


@subroutine
def _fnv(h, byte):  # type: ignore[no-untyped-def]
    """One step of FNV-1a over a signed byte, as fastText has it."""
    wide = np.uint32(byte)
    if byte >= 128:
        wide |= np.uint32(0xFFFFFF00)
    return np.uint32((h ^ wide) * np.uint32(16777619))


@kernel("void(uint8[::1], int64[::1], int64, int32[::1])")
def _fill(blob, starts, n_words, table):  # type: ignore[no-untyped-def]
    mask = len(table) - 1
    for word in range(n_words):
        h = np.uint32(2166136261)
        for i in range(starts[word], starts[word + 1]):
            h = _fnv(h, blob[i])
        slot = np.int64(h) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = word


@subroutine
def _is_space(c):  # type: ignore[no-untyped-def]
    """What `str.split` splits at, and NUL."""
    if c <= 32:
        return c == 32 or 9 <= c <= 13 or 28 <= c <= 31 or c == 0
    if c < 0x1680:
        return c == 0x85 or c == 0xA0
    return (
        0x2000 <= c <= 0x200A
        or c == 0x3000
        or c == 0x2028
        or c == 0x2029
        or c == 0x202F
        or c == 0x205F
        or c == 0x1680
    )


@kernel(numba.int64(_BYTES, numba.int64, numba.int64, numba.int64))
def _skip(data, position, end, characters):  # type: ignore[no-untyped-def]
    """Byte position `characters` code points after `position`."""
    while position < end and characters > 0:
        position += 1
        while position < end and data[position] & 0xC0 == 0x80:
            position += 1
        characters -= 1
    return position


@kernel(numba.void(
        _BYTES, _STARTS, numba.int64, _BYTES, _STARTS, numba.int32[::1], numba.int64, _MATRIX, *[numba.int64] * 4, _MATRIX
    ))  # fmt: skip
def _hidden(  # type: ignore[no-untyped-def]
    data, offsets, max_characters, words, starts, table, end_of_line, inputs, bucket, min_gram, max_gram, word_ngrams, out
):  # fmt: skip
    mask = len(table) - 1
    dim = inputs.shape[1]
    n_buckets = np.uint32(bucket) if bucket > 0 else np.uint32(1)
    first_bucket = inputs.shape[0] - bucket
    hashes = np.empty(max_characters + 3, np.int64)
    gram_token = np.empty(4 * max_characters + 8, np.uint8)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        n_characters = 0
        for i in range(begin, end):
            n_characters += data[i] & 0xC0 != 0x80
        head_end, tail, tail_end = end, end, end
        if n_characters > max_characters:
            half = max_characters // 2
            head_end = _skip(data, begin, end, max_characters - half - 1)
            tail = _skip(data, begin, end, (n_characters - half) // 2)
            tail_end = _skip(data, tail, end, half)
        total = out[row]
        total[:] = 0
        count = n_hashes = 0
        position, limit = begin, head_end
        is_tail = ended = False
        while not ended:
            # One word: [start, position).
            start = position
            width = 0
            while position < limit:
                byte = data[position]
                width = 1
                code = np.int64(byte)
                if byte >= 0xF0:
                    width, code = 4, np.int64(0x10000)
                elif byte >= 0xE0:
                    width = 3
                    if position + 2 < limit:
                        code = (code & 15) << 12 | (np.int64(data[position + 1]) & 63) << 6
                        code |= np.int64(data[position + 2]) & 63
                elif byte >= 0xC0:
                    width = 2
                    if position + 1 < limit:
                        code = (code & 31) << 6 | (np.int64(data[position + 1]) & 63)
                if _is_space(code):
                    break
                position = min(position + width, limit)
                width = 0
            size = position - start
            if size > 0:
                h = np.uint32(2166136261)
                for i in range(start, position):
                    h = _fnv(h, data[i])
                slot = np.int64(h) & mask
                word = np.int64(-1)
                while table[slot] >= 0:
                    candidate = np.int64(table[slot])
                    if starts[candidate + 1] - starts[candidate] == size:
                        equal = True
                        for i in range(size):
                            if words[starts[candidate] + i] != data[start + i]:
                                equal = False
                                break
                        if equal:
                            word = candidate
                            break
                    slot = (slot + 1) & mask
                is_end = (
                    size == 4
                    and data[start] == 60
                    and data[start + 1] == 47
                    and data[start + 2] == 115
                    and data[start + 3] == 62
                )
                hashes[n_hashes] = np.int64(np.int32(h))
                n_hashes += 1
                if word >= 0:
                    for d in range(dim):
                        total[d] += inputs[word, d]
                    count += 1
                if is_end:
                    ended = True
                elif max_gram > 0:
                    gram_token[0] = 60
                    gram_token[1 : size + 1] = data[start:position]
                    gram_token[size + 1] = 62
                    length = size + 2
                    for i in range(length):
                        if gram_token[i] & 0xC0 == 0x80:
                            continue
                        g = np.uint32(2166136261)
                        j = i
                        n = 1
                        while j < length and n <= max_gram:
                            g = _fnv(g, gram_token[j])
                            j += 1
                            while j < length and gram_token[j] & 0xC0 == 0x80:
                                g = _fnv(g, gram_token[j])
                                j += 1
                            if n >= min_gram and not (n == 1 and (i == 0 or j == length)):
                                place = first_bucket + np.int64(g % n_buckets)
                                for d in range(dim):
                                    total[d] += inputs[place, d]
                                count += 1
                            n += 1
            elif position >= limit:
                if is_tail or tail >= tail_end:
                    break
                is_tail = True
                position, limit = tail, tail_end
            if width > 0:
                position = min(position + width, limit)
        if n_hashes == 0:
            total[:] = np.nan
            continue
        if not ended:
            h = np.uint32(2166136261)
            for character in (60, 47, 115, 62):
                h = _fnv(h, np.uint8(character))
            hashes[n_hashes] = np.int64(np.int32(h))
            n_hashes += 1
            if end_of_line >= 0:
                for d in range(dim):
                    total[d] += inputs[end_of_line, d]
                count += 1
        if word_ngrams > 1 and bucket > 0:
            for i in range(n_hashes):
                mixed = np.uint64(hashes[i])
                for j in range(i + 1, min(n_hashes, i + word_ngrams)):
                    mixed = mixed * np.uint64(116049371) + np.uint64(hashes[j])
                    place = first_bucket + np.int64(mixed % np.uint64(n_buckets))
                    for d in range(dim):
                        total[d] += inputs[place, d]
                    count += 1
        if count == 0:
            total[:] = np.nan
        else:
            scale = np.float32(1.0 / count)
            for d in range(dim):
                total[d] *= scale


@kernel("void(float32[:, ::1], float32[:, ::1], boolean, float32[:, ::1])")
def _flat(hidden, outputs, is_softmax, out):  # type: ignore[no-untyped-def]
    for row in range(len(hidden)):
        scores = out[row]
        scores[:] = 0
        for d in range(hidden.shape[1]):
            h = hidden[row, d]
            for k in range(len(scores)):
                scores[k] += h * outputs[d, k]
        if not is_softmax:
            for k in range(len(scores)):
                scores[k] = np.float32(1) / (np.float32(1) + np.exp(-scores[k]))
            continue
        largest = scores[0]
        for k in range(len(scores)):
            largest = max(largest, scores[k])
        total = np.float32(0)
        for k in range(len(scores)):
            scores[k] = np.exp(scores[k] - largest)
            total += scores[k]
        for k in range(len(scores)):
            scores[k] /= total


@kernel("void(float32[:, ::1], float32[:, ::1], int32[::1], int32[::1], float32[:, ::1])")
def _tree(hidden, outputs, left, right, out):  # type: ignore[no-untyped-def]
    n = out.shape[1]
    node = np.empty(2 * n - 1, np.float32)
    inner = np.empty(n - 1, np.float32)
    for row in range(len(hidden)):
        inner[:] = 0
        for d in range(hidden.shape[1]):
            h = hidden[row, d]
            for k in range(n - 1):
                inner[k] += h * outputs[d, k]
        node[2 * n - 2] = 1
        for k in range(n - 2, -1, -1):
            p = np.float32(1) / (np.float32(1) + np.exp(-inner[k]))
            node[left[k]] = node[n + k] * (np.float32(1) - p)
            node[right[k]] = node[n + k] * p
        out[row] = node[:n]

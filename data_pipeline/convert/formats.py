"""Token files of other frameworks: each holds documents of token ids, one after another.

| format | files | read by |
|---|---|---|
| datatrove | NAME.ds (ids), NAME.ds.index (uint64 ends of documents), NAME.ds.metadata | datatrove, nanotron's Nanosets |
| megatron | NAME.bin (ids), NAME.idx (header, lengths, places) | Megatron-LM's IndexedDataset |
| olmo | NAME.npy (ids without a header), NAME.csv.gz (start, end, id of documents) | OLMo-core |
| parquet | NAME.parquet (columns input_ids and id) | Hugging Face datasets |
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = {"datatrove": ".ds", "megatron": ".bin", "olmo": ".npy", "parquet": ".parquet"}
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""Codes of Megatron's DType; ids above 65,535 are int32 there."""
BATCH_TOKENS = 1 << 20
"""Tokens that are held at a time."""


class Tokens:
    """Documents of one file: raw ids, mapped, and where each document ends."""

    def __init__(self, path: Path, dtype: np.dtype, ends: np.ndarray, where: str) -> None:
        """Raises ValueError where the ends are not those of documents within the file.

        Args:
            path: file of ids without a header.
            ends: int64 [documents], ends of documents in ids.
            where: file that says so, for messages.
        """
        size = path.stat().st_size
        if size % dtype.itemsize:
            raise ValueError(
                f"{path} has {size:,} bytes, no multiple of {dtype.itemsize}; it is cut off, or of another dtype"
            )
        count = size // dtype.itemsize
        last = int(ends[-1]) if len(ends) else 0
        if last != count:
            raise ValueError(
                f"{path} holds {count:,} ids, but {where} ends its documents at {last:,}; one of them is cut off"
            )
        if len(ends) and (ends[0] < 0 or np.any(np.diff(ends) < 0)):
            raise ValueError(f"{where} is damaged: the ends of its documents do not ascend")
        self.lengths = np.diff(ends, prepend=0)
        self.starts = ends - self.lengths
        self._ids = np.memmap(path, dtype, "r") if count else np.zeros(0, dtype)

    def read(self, document: int, offset: int = 0, count: int | None = None) -> np.ndarray:
        """`count` ids of a document from `offset` on; all: None."""
        start = int(self.starts[document]) + offset
        stop = int(self.starts[document] + self.lengths[document]) if count is None else start + count
        return np.asarray(self._ids[start:stop])

    def at(self, places: np.ndarray) -> np.ndarray:
        """Ids at places in the file."""
        return np.asarray(self._ids[places])


def files(folder: Path, kind: str) -> list[Path]:
    """Files of ids of a format in a folder, or the one that a path names."""
    if folder.is_file():
        return [folder]
    return sorted(folder.rglob(f"*{SUFFIXES[kind]}"))


def open_tokens(path: Path, kind: str, width: int, end: int | None, scratch: Path) -> Tokens:
    """Open a file of a format.

    Args:
        width: bytes of an id, where the files do not say.
        end: id that ends every document, where the file does not say where they end.
        scratch: folder for what must be read in full first.

    Raises:
        ValueError: a file is missing, cut off or damaged; it is named.
    """
    if kind == "megatron":
        return _open_megatron(path)
    if kind == "parquet":
        return _spool_parquet(path, scratch)
    dtype = np.dtype(f"<u{width}")
    if kind == "datatrove":
        index, stated = Path(f"{path}.index"), Path(f"{path}.metadata")
        if stated.is_file():
            size = stated.read_text(encoding="utf-8").split("\n")[0].rpartition("|")[2]
            if size not in ("2", "4"):
                raise ValueError(
                    f"{stated} is damaged: its first line must end in |2 or |4, the bytes of an id"
                )
            dtype = np.dtype(f"<u{size}")
        return Tokens(path, dtype, _array(index, np.dtype("<u8")).astype(np.int64), str(index))
    table = path.with_suffix(".csv.gz")
    if table.is_file():
        return Tokens(path, dtype, _olmo_ends(table), str(table))
    if end is None:
        raise ValueError(
            f"{table} is missing, and the tokenizer has no EOS that would end the documents of {path}"
        )
    return Tokens(path, dtype, _ends_of(path, dtype, end), f"the end-of-text token {end}")


def _array(path: Path, dtype: np.dtype) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path} is missing; it says where documents end")
    data = path.read_bytes()
    if len(data) % dtype.itemsize:
        raise ValueError(f"{path} has {len(data):,} bytes, no multiple of {dtype.itemsize}; it is cut off")
    return np.frombuffer(data, dtype)


def _open_megatron(path: Path) -> Tokens:
    index = path.with_suffix(".idx")
    if not index.is_file():
        raise ValueError(f"{index} is missing; it says where documents end")
    data = index.read_bytes()
    if data[:9] != MEGATRON_MAGIC or len(data) < 34:
        raise ValueError(
            f"{index} is no whole index of Megatron: it must begin with {MEGATRON_MAGIC!r} and a header"
        )
    version, code, sequences, documents = struct.unpack("<QBQQ", data[9:34])
    expected = 34 + sequences * 12 + documents * 8
    if version != 1 or code not in MEGATRON_DTYPES or len(data) < expected:
        raise ValueError(
            f"{index} is damaged or cut off: version {version} (expected 1), dtype {code} (expected one of "
            f"{', '.join(map(str, MEGATRON_DTYPES))}), {len(data):,} bytes (expected at least {expected:,})"
        )
    dtype = np.dtype(MEGATRON_DTYPES[code])
    lengths = np.frombuffer(data, "<i4", sequences, 34).astype(np.int64)
    pointers = np.frombuffer(data, "<i8", sequences, 34 + 4 * sequences)
    first = np.frombuffer(data, "<i8", documents, 34 + 12 * sequences)
    ends = np.cumsum(lengths)
    if not np.array_equal(pointers, (ends - lengths) * dtype.itemsize) or np.any(np.diff(first) < 0):
        raise ValueError(f"{index} is damaged: its places do not follow from its lengths")
    if documents == 0 or first[0] != 0 or first[-1] != sequences:
        raise ValueError(f"{index} is damaged: its documents do not cover its {sequences:,} sequences")
    # A document may hold several sequences.
    bounds = np.concatenate([np.zeros(1, np.int64), ends])[first]
    return Tokens(path, dtype, bounds[1:], str(index))


def _olmo_ends(table: Path) -> np.ndarray:
    ends, last = [], 0
    try:
        with gzip.open(table, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                start, end = (int(field) for field in line.split(",", 2)[:2])
                if start != last or end < start:
                    raise ValueError(
                        f"line {number} begins at {start} and ends at {end}, expected to begin at {last}"
                    )
                ends.append(end)
                last = end
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{table} is damaged or cut off: {error}") from None
    return np.array(ends, np.int64)


def _ends_of(path: Path, dtype: np.dtype, end: int) -> np.ndarray:
    """Places after an end-of-text token, and the end of the file."""
    found, base = [], 0
    with path.open("rb") as file:
        while data := file.read(BATCH_TOKENS * dtype.itemsize):
            ids = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
            found.append(np.flatnonzero(ids == end) + base + 1)
            base += len(ids)
    ends = np.concatenate(found) if found else np.zeros(0, np.int64)
    return ends if base == 0 or (len(ends) and ends[-1] == base) else np.append(ends, base)


def _spool_parquet(path: Path, scratch: Path) -> Tokens:
    """The ids of a Parquet file in one raw file, since a column cannot be read at random."""
    raw = scratch / f"{len(list(scratch.iterdir()))}.bin"
    lengths: list[np.ndarray] = []
    try:
        with pq.ParquetFile(path) as table, raw.open("wb") as output:
            names = [name for name in ("input_ids", "tokens") if name in table.schema_arrow.names]
            if not names:
                raise ValueError("it has no column input_ids")
            for batch in table.iter_batches(1024, columns=names[:1]):
                column = batch.column(0)
                if column.null_count:
                    raise ValueError(f"its column {names[0]} holds a null")
                lengths.append(np.diff(column.offsets.to_numpy()).astype(np.int64))
                values = column.flatten().to_numpy()
                if len(values) and (values.min() < 0 or values.max() >= 2**32):
                    raise ValueError(f"id {int(values.min())} or {int(values.max())} is no token id")
                output.write(values.astype("<u4").tobytes())
    except (pa.ArrowInvalid, pa.ArrowException, OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no whole Parquet file of token ids: {error}") from None
    ends = np.cumsum(np.concatenate(lengths)) if lengths else np.zeros(0, np.int64)
    return Tokens(raw, np.dtype("<u4"), ends, str(path))


class Writer:
    """Writes documents, one after another, in one format."""

    def __init__(self, stem: Path, kind: str, dtype: np.dtype, tokenizer: str) -> None:
        """stem: path without suffix; dtype: uint16 or uint32; tokenizer: its path, where the format names one."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._stem, self._kind, self._tokenizer = stem, kind, tokenizer
        # Megatron knows no uint32.
        self._dtype = np.dtype("<i4") if kind == "megatron" and dtype.itemsize == 4 else dtype
        self._path = Path(f"{stem}{SUFFIXES[kind]}")
        self._lengths: list[int] = []
        self._ids: list[str] = []
        self._rows: list[np.ndarray] = []
        self._waiting = 0
        self._file: BinaryIO | None = None
        self._table: pq.ParquetWriter | None = None
        if kind == "parquet":
            self._schema = pa.schema(
                [("input_ids", pa.list_(pa.from_numpy_dtype(dtype))), ("id", pa.string())]
            )
            self._table = pq.ParquetWriter(self._path, self._schema)
        else:
            self._file = self._path.open("wb")

    def write(self, tokens: np.ndarray, identifier: str) -> None:
        """Add a document."""
        if self._file is not None:
            self._file.write(np.ascontiguousarray(tokens, self._dtype).data)
            self._lengths.append(len(tokens))
            if self._kind == "olmo":
                self._ids.append(identifier)
            return
        self._rows.append(tokens)
        self._ids.append(identifier)
        self._waiting += len(tokens)
        if self._waiting >= BATCH_TOKENS:
            self._flush()

    def _flush(self) -> None:
        assert self._table is not None
        rows = {"input_ids": pa.array(self._rows, self._schema.field(0).type), "id": self._ids}
        self._table.write_table(pa.table(rows, self._schema))
        self._rows, self._ids, self._waiting = [], [], 0

    def close(self) -> None:
        """Write what stands beside the ids."""
        if self._table is not None:
            if self._rows:
                self._flush()
            self._table.close()
            return
        assert self._file is not None
        self._file.close()
        lengths = np.array(self._lengths, np.int64)
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        if self._kind == "datatrove":
            Path(f"{self._path}.index").write_bytes(ends.astype("<u8").tobytes())
            text = f"{self._tokenizer}|{self._dtype.itemsize}\n{total}\n{total / 1e9:.2f} BT"
            Path(f"{self._path}.metadata").write_text(text, encoding="utf-8")
        elif self._kind == "megatron":
            width, count = self._dtype.itemsize, len(lengths)
            code = next(code for code, name in MEGATRON_DTYPES.items() if np.dtype(name) == self._dtype)
            parts = [
                MEGATRON_MAGIC,
                struct.pack("<QBQQ", 1, code, count, count + 1),
                lengths.astype("<i4").tobytes(),
            ]
            parts += [
                ((ends - lengths) * width).astype("<i8").tobytes(),
                np.arange(count + 1, dtype="<i8").tobytes(),
            ]
            self._path.with_suffix(".idx").write_bytes(b"".join(parts))
        else:
            with gzip.open(self._path.with_suffix(".csv.gz"), "wt", encoding="utf-8") as file:
                for line in self._olmo_lines(ends, lengths):
                    file.write(line)

    def _olmo_lines(self, ends: np.ndarray, lengths: np.ndarray) -> Iterator[str]:
        for number, (end, length, name) in enumerate(
            zip(ends.tolist(), lengths.tolist(), self._ids, strict=True)
        ):
            yield f"{end - length},{end},{name},{self._stem.name},{number}\n"

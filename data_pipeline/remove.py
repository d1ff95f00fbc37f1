"""Taking documents out of a packed dataset.

Their tokens become padding where they stand, and their rows of `documents.npy` become zero; every other token keeps its
sequence and its place. So only the shards that hold them are written anew, the data plan of a run in progress stays
what it was, and training goes on without them. Sequences lose the room of what was taken out: packing again gives it
back, and leaves the documents out too, because `removed.jsonl` of the data directory names them.

The new dataset is made beside the old one, out of links to the files that do not change, and takes its place in one
exchange: a kill at any time leaves the old or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from data_pipeline.packed import PADDING, Manifest, PackedDataset, PackedError, Removal, StreamInfo
from data_pipeline.packed.files import atomic_file, atomic_folder, write_atomically
from data_pipeline.packed.format import DOCUMENT_DTYPE, SEGMENT_DTYPE, ShardInfo, file_digest, sequence_crc

REMOVED = "removed.jsonl"
"""File of a data directory: what was taken out of its packed dataset, one document a line."""


@dataclass(frozen=True)
class Place:
    """Where a document stands in a stream."""

    id: str
    """32 hexadecimal digits."""
    stream: str
    """Name of the stream."""
    row: int
    """Row of `documents.npy`."""
    tokens: int
    """Tokens, with those around its text."""
    bytes: int
    """Bytes of text."""
    url_hash: int
    """xxh3-64 of its URL; 0: none."""
    sequences: tuple[int, ...]
    """Sequences of the stream that hold some of it, ascending."""


def find(packed: PackedDataset, ids: Iterable[str]) -> list[Place]:
    """Where documents stand, by stream and row; documents that are not there are left out."""
    wanted = np.array(sorted({np.void(bytes.fromhex(i)).tobytes() for i in ids}), "S16")
    found: list[Place] = []
    for name in sorted(packed.manifest.streams):
        table = packed.documents(name)
        held = np.ascontiguousarray(table["id"]).view("S16")
        rows = np.flatnonzero(np.isin(held, wanted) & (table["tokens"] > 0))
        if not len(rows):
            continue
        sequences = _sequences(packed, name, rows)
        for row in rows.tolist():
            record = table[row]
            found.append(
                Place(
                    record["id"].tobytes().hex(),
                    name,
                    row,
                    int(record["tokens"]),
                    int(record["bytes"]),
                    int(record["url_hash"]),
                    tuple(sequences.get(row, ())),
                )
            )
    return found


def _sequences(packed: PackedDataset, stream: str, rows: np.ndarray) -> dict[int, list[int]]:
    """Row → sequences, by one look through the segments of the stream."""
    found: dict[int, list[int]] = {}
    base = 0
    for number, shard in enumerate(packed.stream(stream).shards):
        folder = packed.path / stream
        segments = np.load(folder / f"segments-{number:05d}.npy", mmap_mode="r")
        offsets = np.load(folder / f"offsets-{number:05d}.npy")
        hits = np.flatnonzero(np.isin(segments["document"], rows.astype(np.uint32)))
        where = np.searchsorted(offsets, hits, side="right") - 1
        for hit, sequence in zip(hits.tolist(), where.tolist(), strict=True):
            held = found.setdefault(int(segments["document"][hit]), [])
            if not held or held[-1] != base + sequence:
                held.append(base + sequence)
        base += shard.sequences
    return found


def remove(packed: PackedDataset, places: list[Place], reason: str, date: str) -> Manifest:
    """Take documents out of a packed dataset; returns the manifest of the new one, which has taken its place.

    date: ISO 8601, recorded with the reason in the manifest. The result depends on the dataset and the arguments alone.
    Raises PackedError where a file of it is damaged, ValueError where another removal is at work.
    """
    path = packed.path.resolve()
    with _alone(path):
        by_stream: dict[str, list[Place]] = {}
        for place in places:
            by_stream.setdefault(place.stream, []).append(place)
        streams = dict(packed.manifest.streams)
        documents = sorted({(p.id, p.url_hash) for p in places})
        sequences = {
            name: tuple(sorted({s for p in gone for s in p.sequences})) for name, gone in by_stream.items()
        }
        identifiers, hashes = tuple(i for i, _ in documents), tuple(h for _, h in documents)
        removal = Removal(date, reason, identifiers, hashes, sequences)
        with atomic_folder(path, durable=True, replace=True) as partial:
            _link_tree(path, partial)
            for name, gone in by_stream.items():
                streams[name] = _stream(packed, partial / name, streams[name], name, gone)
            manifest = dataclasses.replace(
                packed.manifest, streams=streams, removals=(*packed.manifest.removals, removal)
            )
            # Links are replaced and never written through: the old dataset keeps its files.
            write_atomically(partial / "manifest.json", manifest.to_json())
            _note(packed, removal)
    return manifest


def _stream(
    packed: PackedDataset, folder: Path, info: StreamInfo, name: str, gone: list[Place]
) -> StreamInfo:
    rows = np.array([p.row for p in gone])
    documents = np.array(packed.documents(name))
    documents[rows] = np.zeros(1, DOCUMENT_DTYPE)
    _replace_npy(folder / "documents.npy", documents)
    held = sorted({s for p in gone for s in p.sequences})
    size = info.shards[0].sequences
    shards = list(info.shards)
    for number in sorted({s // size for s in held}):
        inside = [s % size for s in held if s // size == number]
        shards[number] = _shard(packed, folder, number, shards[number], inside, rows)
    return dataclasses.replace(
        info,
        tokens=info.tokens - sum(p.tokens for p in gone),
        bytes=info.bytes - sum(p.bytes for p in gone),
        removed=info.removed + len(gone),
        shards=tuple(shards),
        documents_file=file_digest(folder / "documents.npy"),
    )


def _shard(
    packed: PackedDataset, folder: Path, number: int, info: ShardInfo, inside: list[int], rows: np.ndarray
) -> ShardInfo:
    """Write a shard anew, with segments of these documents as padding; its tokens are held in memory."""
    manifest, length = packed.manifest, packed.sequence_length
    names = {kind: f"{kind}-{number:05d}" for kind in ("tokens", "next", "crc", "segments", "offsets")}
    tokens_path = folder / f"{names['tokens']}.bin"
    tokens = np.fromfile(tokens_path, manifest.dtype).reshape(info.sequences, length)
    following, crc = np.load(folder / f"{names['next']}.npy"), np.load(folder / f"{names['crc']}.npy")
    segments = np.load(folder / f"{names['segments']}.npy")
    offsets = np.load(folder / f"{names['offsets']}.npy")
    for sequence in inside:
        first, last = int(offsets[sequence]), int(offsets[sequence + 1])
        part = segments[first:last]
        found = sequence_crc(np.ascontiguousarray(tokens[sequence]), int(following[sequence]), part)
        if found != int(crc[sequence]):
            raise PackedError(
                f"{folder.name}: sequence {sequence} of shard {number} is damaged (CRC-32 {found:08x}, expected "
                f"{int(crc[sequence]):08x}); nothing was removed. Restore the dataset or pack it again"
            )
        ends = np.append(part["start"][1:], length)
        mine = np.flatnonzero(np.isin(part["document"], rows.astype(np.uint32)))
        for at in mine.tolist():
            tokens[sequence, part["start"][at] : ends[at]] = manifest.tokenizer.special["pad"]
            part[at] = np.array((PADDING, part["start"][at], 0), SEGMENT_DTYPE)
        if len(mine) and mine[-1] == len(part) - 1:
            following[sequence] = -1
        stored = np.ascontiguousarray(tokens[sequence])
        crc[sequence] = sequence_crc(stored, int(following[sequence]), part)
    with atomic_file(tokens_path) as new:
        tokens.tofile(new)
    for kind, array in (("next", following), ("crc", crc), ("segments", segments)):
        _replace_npy(folder / f"{names[kind]}.npy", array)
    files = {}
    for name, before in info.files.items():
        now = file_digest(folder / name)
        # What the data plan knows the shard by: its places are those of the day on which it was packed.
        origin = before.get("as_packed", before["sha256"])
        files[name] = now | ({"as_packed": origin} if now["sha256"] != origin else {})
    return dataclasses.replace(info, files=files)


def _replace_npy(path: Path, array: np.ndarray) -> None:
    with atomic_file(path) as new, new.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _link_tree(source: Path, target: Path) -> None:
    """The files of a folder under another name, without their bytes where the file system has hard links."""

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            shutil.copyfile(a, b)

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


def _note(packed: PackedDataset, removal: Removal) -> None:
    """Write down in the data directory what must stay out when it is packed again."""
    if packed.manifest.data_run is None:
        return
    run_dir = (packed.path / packed.manifest.data_run).resolve()
    if not (run_dir / "documents").is_dir():
        return
    path = run_dir / REMOVED
    known = removed(run_dir)
    lines = path.read_bytes() if path.is_file() else b""
    for identifier in removal.documents:
        if identifier not in known:
            row = {"id": identifier, "date": removal.date, "reason": removal.reason}
            lines += orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    write_atomically(path, lines, durable=True)


def removed(run_dir: Path) -> dict[str, dict[str, str]]:
    """Id → {id, date, reason} of documents taken out of the packed dataset of a data directory."""
    path = run_dir / REMOVED
    if not path.is_file():
        return {}
    rows = map(orjson.loads, path.read_bytes().splitlines())
    return {row["id"]: row for row in rows}


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another `arriero remove` works on {path}; wait for it") from None
        yield

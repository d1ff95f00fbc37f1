"""What a packed dataset is made of: dtypes, file names, the manifest and its checks."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

FORMAT = "arriero-packed"
FORMAT_VERSION = 1
SPLITS = ("train", "heldout")

PADDING = 0xFFFFFFFF
"""`document` of a segment that is padding."""

SEGMENT_DTYPE = np.dtype([("document", "<u4"), ("start", "<u4"), ("offset", "<u8")])
"""One segment: row of documents.npy, first position in the sequence, token of the document where it starts."""

DOCUMENT_DTYPE = np.dtype([("id", "V16"), ("url_hash", "<u8"), ("tokens", "<u8"), ("bytes", "<u8")])
"""One document: 128-bit id, xxh3-64 of its URL (0: none), tokens with those around its text, bytes of UTF-8 text."""

NAME = re.compile(r"[^\W_][\w-]*")
"""Of a source or a language: letters and digits of any script, `-` and `_`."""


class PackedError(ValueError):
    """A packed dataset that cannot be written or read; the message names the file and what was expected."""


@dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer that made the tokens."""

    hash: str
    """SHA-256 of tokenizer.json, hexadecimal."""
    vocab_size: int
    """Number of token ids, the special and reserved ones included."""
    special: dict[str, int]
    """Ids of special tokens by role: `pad`, and those of `bos`, `eos`, `eot`, … that the tokenizer has."""
    begin: tuple[int, ...] = None  # type: ignore[assignment]  # replaced below
    """Ids before the text of every document. Not given: `bos` alone, as in datasets of earlier releases."""
    end: tuple[int, ...] = None  # type: ignore[assignment]
    """Ids after the text of every document. Not given: `eos` alone."""

    def __post_init__(self) -> None:
        for name, role in (("begin", "bos"), ("end", "eos")):
            ids = getattr(self, name)
            default = [self.special[role]] if role in self.special else []
            object.__setattr__(self, name, tuple(default if ids is None else ids))


@dataclass(frozen=True)
class ShardInfo:
    """One shard of a stream."""

    sequences: int
    """Sequences in the shard."""
    segments: int
    """Segments of those sequences."""
    files: dict[str, dict[str, Any]]
    """File name → {bytes, sha256}, and `as_packed`: the SHA-256 before documents were removed, where some were."""


@dataclass(frozen=True)
class StreamInfo:
    """Documents of one split, one source and, where packed by language, one language."""

    split: str
    """`train` or `heldout`."""
    source: str
    """Name of the source."""
    language: str | None
    """ISO 639-1 code, where the dataset is packed by language."""
    sequences: int
    """Sequences."""
    tokens: int
    """Tokens of documents; padding is not counted."""
    documents: int
    """Documents."""
    bytes: int
    """Bytes of UTF-8 text."""
    shards: tuple[ShardInfo, ...]
    """Shards in order; all but the last hold the same number of sequences."""
    documents_file: dict[str, Any]
    """{bytes, sha256} of documents.npy."""
    removed: int = 0
    """Documents taken out since: their rows of documents.npy are zero, their tokens padding."""
    cut: int | None = None
    """Documents that stand in more than one sequence, when the stream was packed; None: a dataset of an earlier release."""


@dataclass(frozen=True)
class Removal:
    """Documents taken out of a dataset after it was packed."""

    date: str
    """When, ISO 8601."""
    reason: str
    """Why, as it was given."""
    documents: tuple[str, ...]
    """Their ids, 32 hexadecimal digits."""
    url_hashes: tuple[int, ...]
    """xxh3-64 of their URLs, in the same order; 0: none."""
    sequences: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Stream → the sequences that held them, ascending; empty where the dataset was packed again since."""


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`."""

    tokenizer: TokenizerInfo
    """The tokenizer, a copy of which lies in `tokenizer/`."""
    sequence_length: int
    """Tokens of a sequence."""
    dtype: str
    """`uint16` or `uint32`: the smallest that holds the vocabulary."""
    method: str
    """`concat` or `best_fit`."""
    streams: dict[str, StreamInfo]
    """Stream name (`split/source` or `split/source.language`) → its counts and files."""
    cutoff: dict[str, str | None] = field(default_factory=dict)
    """Source → knowledge cut-off date, ISO 8601; null: the documents carry no date."""
    mixture: dict[str, dict[str, float]] = field(default_factory=lambda: {"weights": {}, "max_epochs": {}})
    """Default data plan: `weights` by source (sum 1) and `max_epochs` by source."""
    recipe_fingerprint: str = ""
    """Fingerprint of the configuration and inputs that the data came from."""
    data_run: str | None = None
    """Path of the data directory, relative to the packed dataset; null: unknown."""
    seed: int = 0
    """Seed of document order and split."""
    removals: tuple[Removal, ...] = ()
    """What was taken out since, in order."""

    def of_split(self, split: str) -> dict[str, StreamInfo]:
        """Streams of one split, in name order."""
        return {name: s for name, s in sorted(self.streams.items()) if s.split == split}

    def to_json(self) -> bytes:
        """Canonical JSON, closed by a checksum over everything else."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        body["checksum"] = manifest_checksum(body)
        return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def manifest_checksum(body: dict[str, Any]) -> str:
    """SHA-256 of the manifest's content without its `checksum`."""
    rest = {k: v for k, v in body.items() if k != "checksum"}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Read and check `manifest.json`; PackedError if it is absent, damaged or of another version."""
    path = directory / "manifest.json"
    if not directory.is_dir():
        raise PackedError(
            f"{directory} does not exist; expected a packed dataset (the folder of manifest.json)"
        )
    if not path.is_file():
        hint = (
            f"; did you mean {directory / 'packed'}?"
            if (directory / "packed/manifest.json").is_file()
            else ""
        )
        raise PackedError(f"{directory} is not a packed dataset: it holds no manifest.json{hint}")
    try:
        body = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise PackedError(f"{path} is not valid JSON ({error}); the dataset must be packed again") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise PackedError(f"{path} is not the manifest of a packed dataset: `format` must be {FORMAT!r}")
    if body.get("format_version") != FORMAT_VERSION:
        raise PackedError(
            f"{path} has format version {body.get('format_version')!r}, this release reads {FORMAT_VERSION}; "
            "pack the data again or use the release that wrote it"
        )
    if body.get("checksum") != manifest_checksum(body):
        raise PackedError(f"{path} is damaged or was edited: its checksum does not match its content")
    body.setdefault("removals", [])  # datasets of earlier releases
    fields = {f.name for f in dataclasses.fields(Manifest)}
    if missing := fields - body.keys():
        raise PackedError(f"{path} lacks {', '.join(sorted(missing))}; the dataset must be packed again")
    values = {k: body[k] for k in fields}
    values["tokenizer"] = TokenizerInfo(**body["tokenizer"])
    values["streams"] = {name: _stream(info) for name, info in body["streams"].items()}
    values["removals"] = tuple(
        Removal(
            r["date"],
            r["reason"],
            tuple(r["documents"]),
            tuple(r["url_hashes"]),
            {name: tuple(found) for name, found in r["sequences"].items()},
        )
        for r in body["removals"]
    )
    return Manifest(**values)


def _stream(info: dict[str, Any]) -> StreamInfo:
    shards = tuple(ShardInfo(s["sequences"], s["segments"], s["files"]) for s in info["shards"])
    return StreamInfo(**{**info, "shards": shards})


def stream_name(split: str, source: str, language: str | None = None) -> str:
    """`split/source` or `split/source.language`: the name of a stream and its folder."""
    if split not in SPLITS:
        raise PackedError(f"split {split!r} is unknown; expected one of {', '.join(SPLITS)}")
    for what, name in (("source", source), ("language", language)):
        if name is not None and not NAME.fullmatch(name):
            raise PackedError(
                f"{what} name {name!r} cannot be a folder of a packed dataset; "
                "use letters, digits, `-` and `_`, beginning with a letter or digit"
            )
    return f"{split}/{source}" + (f".{language}" if language is not None else "")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 (little endian) that holds every token id."""
    if not 0 < vocab_size <= 2**32:
        raise PackedError(f"vocab_size {vocab_size} is impossible; expected 1 to {2**32}")
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def sequence_crc(tokens: np.ndarray, next_token: int, segments: np.ndarray) -> int:
    """CRC-32 of a sequence: its tokens, then `next` as int32, then its segments, all little endian."""
    crc = zlib.crc32(tokens.data)
    crc = zlib.crc32(int(next_token).to_bytes(4, "little", signed=True), crc)
    return zlib.crc32(segments.tobytes(), crc)


def file_digest(path: Path) -> dict[str, Any]:
    """{bytes, sha256} of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}

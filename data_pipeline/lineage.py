"""`arriero trace`: where a document went, down to the token.

Says whether the document was dropped (and by which rule), set aside, or in which split, stream, sequences and token
ranges it stands. `id=` and `url=` need the packed dataset alone; `text=`, and everything about documents that were not
packed, need the data directory it was made in. `near=` asks the MinHash index of that directory which documents are near
a text, by Jaccard similarity of word shingles: of whole texts, so a passage of a longer document is found by `text=`.

Examples:
  arriero trace url=https://example.org/page data.path=out/packed
  arriero trace id=5f2b0e6c1d7a4e0f9b3c8d2a6e1f4c7b data.path=out/packed
  arriero trace text='It was the best of times' data.path=out/packed limit=5
  arriero trace near="$(cat page.txt)" data.path=out/packed
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs import edge
from configs.edge import ConfigError
from configs.schema.data_verbs import TraceRun
from data_pipeline.packed import PackedDataset
from data_pipeline.tokenize.encode import url_hash
from data_pipeline.tokenize.folder import LoadedTokenizer, load_tokenizer

EXCERPT_TOKENS = 24
EXCERPT_CHARACTERS = 100
EXCERPT_EDITS = 10


@dataclass(frozen=True)
class Found:
    """A document of the data directory."""

    id: str
    """32 hexadecimal digits."""
    source: str
    """Name of the source."""
    url: str | None
    """URL."""
    rule: str | None
    """The rule that dropped it; null: kept, or no decision yet."""
    detail: str
    """The value that the rule saw."""
    text: str
    """Extracted text."""
    final: str
    """What the edits of the policy leave of it."""
    edits: tuple[str, ...] = ()
    """What each set of edits takes out or replaces: one line each."""
    flags: tuple[str, ...] = ()
    """Rules that flag it."""


def run(config: TraceRun) -> int:
    """Print where the documents went; exit status 1 where none is found."""
    given = [name for name in ("id", "url", "text", "near") if getattr(config, name) is not None]
    if len(given) != 1:
        raise ConfigError(
            f"give exactly one of id=, url=, text= and near=; given: {', '.join(given) or 'none'}"
        )
    if config.id is not None and not re.fullmatch(r"[0-9a-fA-F]{32}", config.id):
        raise ConfigError(f"`id` must be 32 hexadecimal digits, but it is {config.id!r}")
    if config.text == "":
        raise ConfigError("`text` is empty; give some words of the document")
    packed = PackedDataset(config.data.path)
    run_dir = data_directory(packed)
    if run_dir is None and (config.text is not None or config.near is not None):
        print(
            f"error: {given[0]}= needs the data directory that {packed.path} was packed in, and it is not there "
            f"(the manifest says {packed.manifest.data_run!r}); give id= or url=, or put the packed dataset back",
            file=sys.stderr,
        )
        return 1
    if config.near is not None and run_dir is not None:
        return _print_near(run_dir, config.near, config)
    loaded = load_tokenizer(packed.tokenizer_path)
    what = f"{given[0]} {getattr(config, given[0])!r}"
    # A URL may belong to several documents, of which some were dropped: the data directory knows them all.
    if run_dir is not None and _trace_in_run(packed, loaded, run_dir, config):
        return 0
    if config.text is None:
        wanted = bytes.fromhex(config.id) if config.id is not None else None
        if ids := list(packed_ids(packed, wanted, config.url)):
            for identifier in ids[: config.limit]:
                print("\n".join(describe(packed, loaded, identifier, config.url, limit=config.limit)))
            return 0
        if gone := list(removals(packed, config.id, config.url)):
            print("\n".join(gone[: config.limit]))
            return 0
    elsewhere = (
        f", nor in {run_dir}"
        if run_dir is not None
        else "; the data directory, which knows what was dropped, is gone"
    )
    print(f"error: no document with {what} is in {packed.path}{elsewhere}", file=sys.stderr)
    return 1


def _print_near(run_dir: Path, text: str, config: TraceRun) -> int:
    """Print the documents that are near a text; exit status 1 where there is none."""
    from data_pipeline.dedup.near import nearest

    found = nearest(run_dir, text, config.limit, config.near_similarity)
    for near in found:
        print(
            f"{near.similarity:.3f}  {_head(near.id, near.source, near.url)}\n"
            f"       it holds {near.held:.0%} of the text; it begins {_printable(near.text)}"
        )
    if found:
        return 0
    print(
        f"error: no document that {run_dir} kept has a Jaccard similarity of {config.near_similarity} or more to this "
        "text; lower near_similarity=, or find a passage of a longer document with text=",
        file=sys.stderr,
    )
    return 1


def _trace_in_run(packed: PackedDataset, loaded: LoadedTokenizer, run_dir: Path, config: TraceRun) -> int:
    """Print documents and rejected records of the data directory that match; returns how many."""
    shown = 0
    for found in documents(run_dir, config):
        if shown == config.limit:
            print(f"… more than {config.limit} documents match; raise limit= to see them")
            return shown
        shown += 1
        flags = f"  flagged by {', '.join(found.flags)}\n" if found.flags else ""
        if found.rule is not None:
            detail = f" ({found.detail})" if found.detail else ""
            print(f"{_head(found.id, found.source, found.url)}\n  dropped by {found.rule}{detail}")
            print(flags, end="")
            if found.rule.startswith("contamination."):
                print(
                    "".join(f"  {line}\n" for line in contamination(run_dir, found.id, config.limit)), end=""
                )
        elif find(packed, bytes.fromhex(found.id)):
            taken_out = config.text is not None and config.text not in found.final
            span = _token_span(loaded, found.final, config.text) if config.text and not taken_out else None
            print("\n".join(describe(packed, loaded, bytes.fromhex(found.id), found.url, span, config.limit)))
            if taken_out:
                print("  this text was taken out of the document, or changed, before it was packed:")
            print(flags + "".join(f"  {line}\n" for line in found.edits), end="")
        elif gone := next(removals(packed, found.id, None), None):
            print(f"{_head(found.id, found.source, found.url)}\n  kept, packed, and {gone.split(': ', 1)[1]}")
        else:
            print(
                f"{_head(found.id, found.source, found.url)}\n  kept, but not in {packed.path}: "
                "the dataset was packed before; run `arriero data` again"
            )
    needle = config.text or config.url or ""
    for record in rejected(run_dir, needle) if needle else ():
        if shown == config.limit:
            break
        shown += 1
        print(
            f"set aside: {record['file']}, record {record['record']} at byte {record['offset']}\n"
            f"  {record['reason']}; expected {record['expected']}"
        )
    return shown


def removals(packed: PackedDataset, identifier: str | None, url: str | None) -> Iterator[str]:
    """A line for every document of this id or URL that was taken out of the dataset after it was packed."""
    wanted = url_hash(url) if url is not None else 0
    for removal in packed.manifest.removals:
        for found, hashed in zip(removal.documents, removal.url_hashes, strict=True):
            if found == (identifier or "").lower() or (wanted and hashed == wanted):
                yield f"document {found}: removed on {removal.date} ({removal.reason})"


def contamination(run_dir: Path, identifier: str, limit: int) -> Iterator[str]:
    """A line for every item of an evaluation set that stands in a document and counts."""
    path = run_dir / "contamination.jsonl"
    if not path.is_file():
        return
    with path.open("rb") as file:
        held = (orjson.loads(line) for line in file if identifier.encode() in line)
        for row in itertools.islice((r for r in held if r["counts"] and r["document"] == identifier), limit):
            yield (
                f"item {row['item']} of {row['set']}, {row['part']}, {row['score']:.0%} of it at characters "
                f"{row['start']}–{row['end']}: {_printable(row['question'])}"
            )


def data_directory(packed: PackedDataset) -> Path | None:
    """The directory of the run that made the dataset; None where it is not there any more."""
    if packed.manifest.data_run is None:
        return None
    path = (packed.path / packed.manifest.data_run).resolve()
    return path if (path / "documents").is_dir() else None


def find(packed: PackedDataset, identifier: bytes) -> list[tuple[str, int]]:
    """(stream, row) of a document, in every split."""
    return [
        (name, int(row))
        for name in sorted(packed.manifest.streams)
        for row in np.flatnonzero(packed.documents(name)["id"] == np.void(identifier))
    ]


def packed_ids(packed: PackedDataset, identifier: bytes | None, url: str | None) -> Iterator[bytes]:
    """Ids of packed documents with this id, or with this URL."""
    for name in sorted(packed.manifest.streams):
        table = packed.documents(name)
        if identifier is not None:
            match = table["id"] == np.void(identifier)
        else:
            match = table["url_hash"] == np.uint64(url_hash(url))
            match &= table["url_hash"] != 0
        yield from (table["id"][row].tobytes() for row in np.flatnonzero(match))


def describe(
    packed: PackedDataset,
    loaded: LoadedTokenizer,
    identifier: bytes,
    url: str | None = None,
    span: tuple[int, int] | None = None,
    limit: int = 20,
) -> Iterator[str]:
    """Lines that say where a packed document stands; span: only where these of its tokens stand."""
    for stream, row in find(packed, identifier):
        info, record = packed.stream(stream), packed.documents(stream)[row]
        yield _head(identifier.hex(), info.source, url)
        places = packed.locations(stream, row)
        if span is not None:
            places = [p for p in places if p[3] < span[1] and p[3] + p[2] > span[0]]
        sequences = len({place[0] for place in places})
        yield (
            f"  {info.split} split, stream {stream}, {int(record['tokens']):,} tokens, {int(record['bytes']):,} bytes, "
            f"{'the text ' if span is not None else ''}in {sequences} sequence{'s' if sequences != 1 else ''}"
        )
        for sequence, start, length, offset in places[:limit]:
            first = max(start, start + span[0] - offset) if span is not None else start
            ids = packed.read(stream, sequence).tokens[first : min(start + length, first + EXCERPT_TOKENS)]
            excerpt = loaded.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
            yield (
                f"    sequence {sequence}, positions {start}–{start + length - 1} = tokens {offset}–"
                f"{offset + length - 1} of the document: {_printable(excerpt)}"
            )
        if len(places) > limit:
            yield f"    … and {len(places) - limit} more places"


def documents(run_dir: Path, config: TraceRun) -> Iterator[Found]:
    """Documents of the data directory that match id, url or text, with what was decided of them."""
    for path in sorted((run_dir / "documents").glob("*.parquet")):
        column = "id" if config.id is not None else "url" if config.url is not None else "text"
        values = pq.read_table(path, columns=[column])[column]
        if config.text is not None:
            match = pc.match_substring(values, config.text)
        else:
            match = pc.equal(values, config.id.lower() if config.id is not None else config.url)
        rows = np.flatnonzero(pc.fill_null(match, False).to_numpy(zero_copy_only=False))
        if len(rows) == 0:
            continue
        table = pq.read_table(path, columns=["id", "source", "url", "text"]).take(pa.array(rows))
        decisions = _decisions(run_dir, path.name, rows)
        changed = _edited(run_dir, path.name, rows, table)
        flags = _flags(run_dir, path.name, rows)
        for row, decision, (final, lines), flagged in zip(
            table.to_pylist(), decisions, changed, flags, strict=True
        ):
            rule = None if decision["keep"] else decision["rule"] or "an unnamed rule"
            text = row["text"] or ""
            yield Found(
                row["id"],
                row["source"],
                row["url"],
                rule,
                decision["detail"] or "",
                text,
                final,
                lines,
                flagged,
            )


def _edited(run_dir: Path, name: str, rows: np.ndarray, table: pa.Table) -> list[tuple[str, tuple[str, ...]]]:
    """(final text, what edits did) of rows of a shard; a text that is not kept is as it was."""
    final = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    kept = run_dir / "kept" / name
    if kept.is_file():
        found = pq.read_table(kept, columns=["id", "text"], filters=pc.field("id").isin(list(final)))
        final |= dict(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))
    lines: list[list[str]] = [[] for _ in rows]
    for path in sorted((run_dir / "edits").glob(f"*/{name}")):
        proposed = pq.read_table(path, columns=["spans"])["spans"].take(pa.array(rows)).to_pylist()
        for k, (text, spans) in enumerate(zip(table["text"].to_pylist(), proposed, strict=True)):
            if spans and final[table["id"][k].as_py()] != text:
                lines[k].append(_change(path.parent.name, text, spans))
    return [(final[i] or "", tuple(found)) for i, found in zip(table["id"].to_pylist(), lines, strict=True)]


def _change(name: str, text: str, spans: list[dict]) -> str:
    shown = [_printable(text[s["start"] : s["end"]].strip("\n")) for s in spans[:EXCERPT_EDITS]]
    more = f" and {len(spans) - EXCERPT_EDITS} more" if len(spans) > EXCERPT_EDITS else ""
    size = sum(s["end"] - s["start"] for s in spans)
    places = "place" if len(spans) == 1 else "places"
    return f"edits {name}: {size:,} characters at {len(spans)} {places}: {', '.join(shown)}{more}"


def _decisions(run_dir: Path, name: str, rows: np.ndarray) -> list[dict]:
    path = run_dir / "decisions/final" / name
    if not path.is_file():
        return [{"keep": True, "rule": None, "detail": None}] * len(rows)
    return pq.read_table(path, columns=["keep", "rule", "detail"]).take(pa.array(rows)).to_pylist()


def _flags(run_dir: Path, name: str, rows: np.ndarray) -> list[tuple[str, ...]]:
    path = run_dir / "flags" / name
    if not path.is_file():
        return [()] * len(rows)
    return [
        tuple(f) for f in pq.read_table(path, columns=["flags"])["flags"].take(pa.array(rows)).to_pylist()
    ]


def rejected(run_dir: Path, needle: str) -> Iterator[dict]:
    """Records that were set aside and whose entry contains the text."""
    for path in sorted((run_dir / "rejected").glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                record = orjson.loads(line)
                if any(needle in str(record.get(key, "")) for key in ("excerpt", "file", "url")):
                    yield record


def _token_span(loaded: LoadedTokenizer, text: str, needle: str) -> tuple[int, int]:
    """First and one past the last token of the first occurrence of a text in its document, counted from its first token."""
    first = text.index(needle)
    offsets = loaded.tokenizer.encode(text, add_special_tokens=False).offsets
    inside = [i for i, (begin, end) in enumerate(offsets) if end > first and begin < first + len(needle)]
    before = len(loaded.info.begin)
    return inside[0] + before, inside[-1] + 1 + before


def _head(identifier: str, source: str, url: str | None) -> str:
    return f"document {identifier}, source {source}" + (f", {url}" if url else "")


def _printable(text: str) -> str:
    short = text[:EXCERPT_CHARACTERS]
    return repr(short) + ("…" if len(text) > EXCERPT_CHARACTERS else "")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the verb."""
    return edge.main("trace", TraceRun, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())

"""Raw input → documents: read, extract, name."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson

from configs.schema.pipeline import RecipeConfig
from data_pipeline import keyed
from data_pipeline.document import Document, ShardWriter, document_id, shard_path
from data_pipeline.extract import Unreadable, extract, set_aside
from data_pipeline.packed.files import atomic_file, write_atomically
from data_pipeline.read import Record, SetAside, Skipped, Unit, records
from data_pipeline.read import units as planning

REMOVED = "removed: "
"""Beginning of the names of counts of elements that an extractor removed."""


def to_document(record: Record, source: str, recipe: RecipeConfig) -> tuple[Document, Counter[str]]:
    """The document of a record, and counts of what was repaired on the way."""
    made = extract(record, recipe.keep_abstract)
    counts = Counter({"repaired_characters": made.repaired + record.repaired, "fallback": int(made.fallback)})
    counts.update({f"{REMOVED}{kind}": n for kind, n in made.removed.items() if n})
    notes = {"drop": made.drop} if made.drop else {}
    document = Document(
        id=document_id(source, record.given, record.payload),
        source=source,
        text=made.text,
        url=record.url,
        language=record.language or recipe.language,
        licence=record.licence,
        date=record.date or made.metadata.get("published"),
        group=record.group,
        metadata={**made.metadata, **record.metadata, **notes},
    )
    return document, counts


def read_unit(
    run_dir: Path, unit: Unit, recipe: RecipeConfig, sample: float = 1.0, seed: int = 0
) -> dict[str, int]:
    """Read, extract and write the document shard of a unit, its rejected records and its counts.

    Args:
        run_dir: directory of the run.
        unit: what to read.
        recipe: how.
        sample: share of the records that are extracted, chosen by a hash of (seed, id); the rest counts as skipped.
        seed: of that choice.

    Returns:
        Counts: `read` (documents, copies and records set aside), `set_aside`, `copies`, `skipped: …` by reason,
        `fallback`, `repaired_characters`, `removed: …` by kind of element.
    """
    counts: Counter[str] = Counter(read=0, set_aside=0, copies=0)
    rejected = run_dir / "rejected" / f"{unit.unit:05d}.jsonl"
    rejected.parent.mkdir(parents=True, exist_ok=True)
    with (
        # The shard itself comes last: where it is, its companions are.
        ShardWriter(shard_path(run_dir, "documents", unit.unit)) as writer,
        atomic_file(rejected) as aside,
        aside.open("wb") as file,
    ):
        for item in records(unit, recipe):
            if isinstance(item, Skipped):
                counts[f"skipped: {item.reason}"] += 1
                continue
            if sample < 1 and isinstance(item, Record):
                identifier = document_id(unit.source, item.given, item.payload)
                if keyed.rank("sample", seed, identifier) >= sample * 2**64:
                    counts["skipped: not in the sample"] += 1
                    continue
            counts["read"] += 1
            unread = item if isinstance(item, SetAside) else None
            if isinstance(item, Record):
                try:
                    document, repairs = to_document(item, unit.source, recipe)
                except Unreadable as error:
                    unread = set_aside(item, error)
            if unread is not None:
                counts["set_aside"] += 1
                row = dataclasses.asdict(unread)
                file.write(orjson.dumps({k: _printable(v) for k, v in row.items()}) + b"\n")
                continue
            counts.update(repairs)
            writer.add(document)
        counts["copies"] = writer.copies
        path = run_dir / "documents" / f"{unit.unit:05d}.json"
        write_atomically(path, orjson.dumps(dict(counts), option=orjson.OPT_SORT_KEYS))
    return dict(counts)


def _printable(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def texts(pattern: str, recipe: RecipeConfig) -> Iterator[tuple[str, str]]:
    """(id, text) of every document that a recipe finds in a file, folder or glob; damaged records are left out.

    Raises:
        ValueError: the input does not exist, is empty, or holds nothing that can be read.
    """
    source = planning.Source(recipe.name, recipe, pattern)
    for unit in planning.plan([source], 64 * 2**20).units:
        for item in records(unit, recipe):
            if isinstance(item, Record):
                try:
                    document, _ = to_document(item, recipe.name, recipe)
                except Unreadable:
                    continue
                if document.text:
                    yield document.id, document.text

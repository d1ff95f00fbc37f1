"""Hashes of normalised text, for exact deduplication."""

from __future__ import annotations

from data_pipeline.analysis import Batch

COLUMNS = ("content_hash",)


def signals(batch: Batch) -> dict[str, list[str]]:
    """`content_hash`: xxh3-128 of the normalised text, 32 hexadecimal digits."""
    return {"content_hash": batch.content_hashes}

"""Hashes of normalised text, for exact deduplication."""

from __future__ import annotations

import xxhash

from data_pipeline.analysis import Analysis

COLUMNS = ("content_hash",)


def signals(document: Analysis) -> dict[str, str]:
    """`content_hash`: xxh3-128 of the normalised text, 32 hexadecimal digits."""
    return {"content_hash": xxhash.xxh3_128_hexdigest(document.normalised.encode("utf-8", "surrogatepass"))}

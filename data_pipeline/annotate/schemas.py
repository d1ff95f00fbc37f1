"""Schemas of sidecars whose annotators hold kernels: a policy is checked by them before a kernel is compiled or loaded."""

from __future__ import annotations

import pyarrow as pa

LANGUAGE = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("score", pa.float32()),
        ("second", pa.string()),
        ("second_score", pa.float32()),
        ("script", pa.string()),
        ("script_share", pa.float32()),
        ("script_ok", pa.float32()),
        ("n_sentences", pa.float32()),
    ]
)
NSFW = pa.schema(
    [
        ("id", pa.string()),
        ("word_density", pa.float32()),
        ("hits", pa.int32()),
        ("distinct", pa.int32()),
        ("adult", pa.float32()),
        ("reference", pa.float32()),
        ("classifier", pa.float32()),
        ("score", pa.float32()),
    ]
)

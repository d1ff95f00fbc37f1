"""Language identification: one label and its probability for each document."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify.fasttext import Classifier

SCHEMA = pa.schema([("id", pa.string()), ("language", pa.string()), ("score", pa.float32())])


def annotate(
    documents: pa.Table, config: ClassifierConfig, model: Path | None, known: str | None
) -> pa.Table:
    """Language signals, row-aligned with `documents` (columns `id`, `text`).

    Args:
        known: language of all these documents, where the source has one; it is believed, with score 1.

    Returns:
        id, language (the model's label, usually ISO 639-1; `zxx` is code or other non-language), score (float32
        probability). Null without a model, and for texts in which the model knows nothing.
    """
    ids = documents["id"]
    n = len(documents)
    if known is not None:
        columns = [ids, pa.array([known] * n, pa.string()), pa.array([1.0] * n, pa.float32())]
    elif model is None:
        columns = [ids, pa.nulls(n, pa.string()), pa.nulls(n, pa.float32())]
    else:
        texts = [text or "" for text in documents["text"].to_pylist()]
        labels, scores = Classifier(model, config.max_characters).best(texts)
        columns = [ids, pa.array(labels, pa.string()), pa.array(scores, pa.float32())]
    return pa.table(columns, schema=SCHEMA)

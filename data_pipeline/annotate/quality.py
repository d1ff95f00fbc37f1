"""Quality score of each document: the probability that a labelling Llama would call it good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify.fasttext import Classifier

GOOD = "good"
POOR = "poor"
SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float32())])


def annotate(documents: pa.Table, config: ClassifierConfig, model: Path | None) -> pa.Table:
    """Quality signals, row-aligned with `documents` (columns `id`, `text`).

    Returns:
        id, score (float32, P(good) in 0..1). Null without a model, and for texts in which the model knows nothing.

    Raises:
        ValueError: the model has no label `good`.
    """
    if model is None:
        return pa.table([documents["id"], pa.nulls(len(documents), pa.float32())], schema=SCHEMA)
    classifier = Classifier(model, config.max_characters)
    column = classifier.column(GOOD)
    scores = classifier.scores([text or "" for text in documents["text"].to_pylist()])[:, column]
    return pa.table([documents["id"], pa.array(scores, pa.float32(), mask=np.isnan(scores))], schema=SCHEMA)

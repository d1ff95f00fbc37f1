"""The packed dataset: fixed-length token sequences with document boundaries, checksums and a manifest.

Needs numpy and orjson only, so a trainer can read a dataset without the data pipeline's libraries. The files are
described in `docs/data-format.md`.
"""

from data_pipeline.packed.format import (
    DOCUMENT_DTYPE,
    PADDING,
    SEGMENT_DTYPE,
    Manifest,
    PackedError,
    Removal,
    ShardInfo,
    StreamInfo,
    TokenizerInfo,
    stream_name,
    token_dtype,
)
from data_pipeline.packed.mixture import MixtureError, resolve_epochs, resolve_weights
from data_pipeline.packed.reader import PackedDataset, Sequence
from data_pipeline.packed.template import Template, read_template, token_name
from data_pipeline.packed.writer import PackedWriter, StreamWriter

__all__ = [
    "DOCUMENT_DTYPE",
    "PADDING",
    "SEGMENT_DTYPE",
    "Manifest",
    "MixtureError",
    "PackedDataset",
    "PackedError",
    "PackedWriter",
    "Removal",
    "Sequence",
    "ShardInfo",
    "StreamInfo",
    "StreamWriter",
    "Template",
    "TokenizerInfo",
    "read_template",
    "resolve_epochs",
    "resolve_weights",
    "stream_name",
    "token_dtype",
    "token_name",
]

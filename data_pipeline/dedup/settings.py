"""What of the settings of deduplication describes its stages: to plan a run no kernel is compiled or loaded."""

from __future__ import annotations

import importlib.util

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig

HASHED = "hashed"
MAX_LINE_RANGES = 64
"""Tasks of the stage `line_counts` at the most: every one opens every run."""


def check_lines(config: DedupConfig) -> None:
    """Raise ConfigError for settings that cannot work."""
    for name, least in (
        ("line_count", 1),
        ("line_bucket_documents", 1),
        ("line_memory_mb", 16),
        ("line_min_characters", 0),
    ):
        if getattr(config, name) < least:
            raise ConfigError(f"`dedup.{name}` must be at least {least}, but it is {getattr(config, name)}")
    if not 0 <= config.line_min_share <= 1:
        raise ConfigError(f"`dedup.line_min_share` must lie in [0, 1], but it is {config.line_min_share}")


def line_ranges(shards: int) -> int:
    """Tasks of the stage `line_counts`."""
    return max(1, min(shards, MAX_LINE_RANGES))


def check_semantic(config: DedupConfig) -> None:
    """Raise ConfigError for parameters that cannot be used."""
    if config.embedder != HASHED and importlib.util.find_spec("sentence_transformers") is None:
        raise ConfigError(
            f"`dedup.embedder` is {config.embedder!r}, which needs the package `sentence-transformers`: "
            f"pip install 'arriero[semantic]', or write dedup.embedder={HASHED}"
        )
    if config.semantic_dim < 8:
        raise ConfigError(f"`dedup.semantic_dim` must be at least 8, but it is {config.semantic_dim}")
    if not 0 < config.semantic_similarity <= 1:
        raise ConfigError(
            f"`dedup.semantic_similarity` must lie in (0, 1], but it is {config.semantic_similarity}"
        )
    if not 0 <= config.semantic_coverage <= 1:
        raise ConfigError(
            f"`dedup.semantic_coverage` must lie in [0, 1], but it is {config.semantic_coverage}"
        )
    if config.semantic_clusters is not None and config.semantic_clusters < 1:
        raise ConfigError(
            f"`dedup.semantic_clusters` must be at least 1, but it is {config.semantic_clusters}"
        )

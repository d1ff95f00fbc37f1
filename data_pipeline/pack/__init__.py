"""Packing: token shards → sequences of exactly T tokens, split into training and held-out streams."""

from data_pipeline.pack.fit import best_fit, concat
from data_pipeline.pack.heldout import heldout_groups
from data_pipeline.pack.stage import pack

__all__ = ["best_fit", "concat", "heldout_groups", "pack"]

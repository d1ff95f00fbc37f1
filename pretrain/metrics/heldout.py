"""Held-out loss by source, while training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from data_pipeline.packed import PackedDataset
from pretrain.data.batch import Batch
from pretrain.data.loader import heldout_batches


class Scorer(Protocol):
    """The part of an engine that evaluation needs."""

    dp_rank: int
    dp_size: int

    def token_losses(self, batch: Batch) -> Tensor:
        """Loss of each token [B, T], 0 where the label is ignored."""
        ...


def heldout_loss(
    engine: Scorer,
    packed: PackedDataset,
    batch_size: int,
    max_sequences: int | None,
    beat: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Rows of `eval.jsonl` (without `step`), one a source, equal on all ranks; collective.

    `nats_per_token` is the mean over valid tokens, `bits_per_byte` the summed loss over the bytes of text that the
    sequences hold. A source of several streams (languages) is pooled.

    Args:
        batch_size: sequences of one forward pass on a rank.
        max_sequences: sequences of each stream at the most; None: all.
        beat: called before every batch.
    """
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))
    n_bytes: dict[str, float] = defaultdict(float)
    for stream, info in packed.streams("heldout").items():
        if info.sequences == 0:
            continue
        total = torch.zeros(2, dtype=torch.float64)
        for batch in heldout_batches(
            packed, stream, batch_size, max_sequences, engine.dp_rank, engine.dp_size
        ):
            beat()
            losses = engine.token_losses(batch)
            total += torch.stack([losses.double().sum().cpu(), batch.n_valid.double()])
        sums[info.source] += total
        n_bytes[info.source] += packed.covered_bytes(stream, max_sequences)
    rows = []
    for source in sorted(sums):
        # Ranks of one data-parallel position score the same batches: each is counted as often as there are of them.
        total = sums[source] / (dist.get_world_size() // engine.dp_size)
        dist.all_reduce(total)
        loss, tokens = total.tolist()
        if tokens == 0:
            continue
        rows.append(
            {
                "source": source,
                "split": "heldout",
                "nats_per_token": loss / tokens,
                "bits_per_byte": loss / math.log(2) / n_bytes[source],
                "tokens": round(tokens),
                "bytes": round(n_bytes[source]),
            }
        )
    return rows

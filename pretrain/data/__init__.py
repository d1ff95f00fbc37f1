"""From a packed dataset to batches: the plan (which sequence), the batch (its tensors), the loader (when)."""

from pretrain.data.batch import IGNORE, Batch, collate
from pretrain.data.loader import Loader, Prefetcher, heldout_batches
from pretrain.data.plan import DataPlan, PlanError
from pretrain.data.ramp import Ramp, Span

__all__ = [
    "IGNORE",
    "Batch",
    "DataPlan",
    "Loader",
    "PlanError",
    "Prefetcher",
    "Ramp",
    "Span",
    "collate",
    "heldout_batches",
]

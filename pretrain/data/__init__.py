"""From a packed dataset to batches: the plan (which sequence), the batch (its tensors), the loader (when).

Exported here is what needs no torch, so that reports and plans of runs do not import it; `batch` and `loader` are modules.
"""

from pretrain.data.plan import DataPlan, PlanError
from pretrain.data.ramp import Ramp, Span

__all__ = [
    "DataPlan",
    "PlanError",
    "Ramp",
    "Span",
]

"""Checkpoints: `Checkpointer` saves, `restore` and `restore_model` read back into any layout.

```
checkpoints/step-00000050/
    __0_0.distcp …    chunks of tensors, one file a rank, as torch.distributed.checkpoint writes them
    .metadata         DCP's index of them
    manifest.json     state of the run, and for each stored chunk its place and CRC-32
    COMMITTED         written last: CRC-32 of manifest.json and .metadata
```

Tensors are named `model.PARAMETER`, `optim.PARAMETER.STATE` and `rng.RANK.DEVICE`.
"""

from pretrain.checkpoint.restore import (
    Restored,
    load_chunk,
    load_into,
    restore,
    restore_model,
)
from pretrain.checkpoint.save import Checkpointer, write_checkpoint
from pretrain.checkpoint_folders import committed, step_of, step_path
from pretrain.manifest import Checkpoint, CheckpointError, newest, open_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Checkpointer",
    "Restored",
    "committed",
    "load_chunk",
    "load_into",
    "newest",
    "open_checkpoint",
    "restore",
    "restore_model",
    "step_of",
    "step_path",
    "write_checkpoint",
]

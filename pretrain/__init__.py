"""The trainer and the verbs of a trained run."""

import os
import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent.parent / "configs" / "own_path.py"))  # before `configs` is imported

# Read when torch is loaded, which no module of this package precedes. Errors only: for instance, a host whose own name does
# not resolve is warned about several times by every rank, and works.
for _name in ("TORCH_CPP_LOG_LEVEL", "GLOO_LOG_LEVEL"):
    os.environ.setdefault(_name, "ERROR")

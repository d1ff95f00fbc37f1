"""Raw documents → packed dataset."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent.parent / "configs" / "own_path.py"))  # before `configs` is imported

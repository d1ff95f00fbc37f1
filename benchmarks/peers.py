"""Environments of the packages that benchmarks compare with: installed from PyPI, apart from this project's.

    folder = peers.python("trafilatura", ["trafilatura==2.3.1", "lxml_html_clean"])   # …/bin/python

An environment is made once, in `.cache/peers/NAME-HASH`, where HASH covers its requirements.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "peers"
DATATROVE = ["datatrove[io,processing]==0.10.1", "spacy>=3.8,<4", "xxhash>=3.5,<4", "lxml_html_clean>=0.4"]
"""Requirements of datatrove's FineWeb example."""


def python(name: str, requirements: list[str]) -> Path:
    """Interpreter of an environment that holds these requirements; made where it does not exist.

    Raises:
        RuntimeError: pip could not install them; its last lines are in the message.
    """
    digest = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:8]
    folder = CACHE / f"{name}-{digest}"
    interpreter = folder / "bin" / "python"
    if (folder / "complete").is_file():
        return interpreter
    if folder.exists():
        shutil.rmtree(folder)
    print(f"making the environment of {name} in {folder} …", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    done = subprocess.run(
        [str(interpreter), "-m", "pip", "install", "--quiet", *requirements],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"pip could not install {name}: " + "\n".join(done.stderr.splitlines()[-5:]))
    (folder / "complete").touch()
    return interpreter

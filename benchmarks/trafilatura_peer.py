"""trafilatura in an environment of its own: what the extraction benchmark compares with, and what fitting learns from."""

from __future__ import annotations

import pickle
import subprocess
import tempfile
from pathlib import Path

import peers
from extraction_pages import Labelled

TRAFILATURA = ["trafilatura==2.3.1", "lxml_html_clean>=0.4"]
_PEER = """
import logging, pickle, sys, time
logging.disable(logging.CRITICAL)
from trafilatura import extract
from trafilatura.utils import decode_file
payloads = pickle.load(open(sys.argv[1], "rb"))
texts = []
start = time.process_time()
for payload in payloads:
    try:
        texts.append(extract(payload, include_comments=False) or "")
    except Exception:
        texts.append("")
pickle.dump((texts, time.process_time() - start), open(sys.argv[2], "wb"))
"""


def trafilatura_texts(pages: list[Labelled]) -> tuple[list[str], float]:
    """(texts, processor seconds) of trafilatura."""
    python = peers.python("trafilatura", TRAFILATURA)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "in"), Path(folder, "out")
        given.write_bytes(pickle.dumps([page.payload for page in pages]))
        subprocess.run([str(python), "-c", _PEER, str(given), str(made)], check=True)
        texts, seconds = pickle.loads(made.read_bytes())
    return texts, seconds

"""trafilatura in an environment of its own: what the extraction benchmark compares with, and what fitting learns from."""

from __future__ import annotations

import pickle
import subprocess
import tempfile
from pathlib import Path

import peers
import xxhash
from extraction_pages import Labelled

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "extraction"
"""What is kept between runs."""
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


def trafilatura_texts(pages: list[Labelled], keep: bool = False) -> tuple[list[str], float]:
    """(texts, processor seconds) of trafilatura; with `keep`, from an earlier run on the same pages where there was one."""
    name = xxhash.xxh3_128(repr((TRAFILATURA, _PEER)).encode())
    for page in pages:
        name.update(xxhash.xxh3_128_digest(page.payload))
    kept = CACHE / f"trafilatura-{name.hexdigest()[:16]}.pickle"
    if not keep or not kept.exists():
        python = peers.python("trafilatura", TRAFILATURA)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "in"), Path(folder, "out")
            given.write_bytes(pickle.dumps([page.payload for page in pages]))
            subprocess.run([str(python), "-c", _PEER, str(given), str(made)], check=True)
            result = made.read_bytes()
        if not keep:
            return pickle.loads(result)  # type: ignore[no-any-return]
        kept.write_bytes(result)
    return pickle.loads(kept.read_bytes())  # type: ignore[no-any-return]

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
        texts.append(extract(payload, include_comments=len(sys.argv) > 3) or "")
    except Exception:
        texts.append("")
pickle.dump((texts, time.process_time() - start), open(sys.argv[2], "wb"))
"""


def trafilatura_texts(pages: list[Labelled], keep: bool = False) -> tuple[list[str], float]:
    """(texts, processor seconds) of trafilatura; with `keep`, from an earlier run on the same pages where there was one."""
    payloads = [page.payload for page in pages]
    if not keep:
        return texts_of(payloads)
    name = xxhash.xxh3_128(repr((TRAFILATURA, _PEER)).encode())
    for payload in payloads:
        name.update(xxhash.xxh3_128_digest(payload))
    kept = CACHE / f"trafilatura-{name.hexdigest()[:16]}.pickle"
    if not kept.exists():
        made = texts_of(payloads)
        CACHE.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(made))
    return pickle.loads(kept.read_bytes())  # type: ignore[no-any-return]


def texts_of(payloads: list[bytes], comments: bool = False) -> tuple[list[str], float]:
    """(texts, processor seconds) of trafilatura, of pages in bytes."""
    python = peers.python("trafilatura", TRAFILATURA)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "in"), Path(folder, "out")
        given.write_bytes(pickle.dumps(payloads))
        arguments = [str(given), str(made), *(["comments"] if comments else [])]
        subprocess.run([str(python), "-c", _PEER, *arguments], check=True)
        return pickle.loads(made.read_bytes())  # type: ignore[no-any-return]

"""WARC reading: records per second beside fastwarc, warcio and datatrove's reader, on one core.

    ARRIERO_TEST_DATA=DATA python benchmarks/warc.py               # DATA/web/*.warc.gz
    python benchmarks/warc.py FILE.warc.gz …

Every side reads whole records, parses the HTTP header and gives URL, type and body; ours also checks lengths, undoes
encodings and builds its records. The peers run in an environment of their own (`benchmarks/peers.py`), with FastWARC
2.0.1 in both. Medians of interleaved runs, CPU time. fastwarc is also timed without HTTP parsing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

OURS = """
from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Record, Unit, warc

def read(file):
    n = size = 0
    for item in warc.read(file, Unit(0, "s", "warc", (file,), file, 0, 1, 0, None, 0), RecipeConfig(name="r")):
        n += 1
        if isinstance(item, Record):
            size += len(item.payload)
    return n, size
"""
FASTWARC = """
from fastwarc.warc import ArchiveIterator

def read(file):
    n = size = 0
    with open(file, "rb") as raw:
        for record in ArchiveIterator(raw, parse_http={http}):
            n += 1
            url, kind = record.headers.get("WARC-Target-URI"), record.headers.get("WARC-Type")
            media = record.http_content_type if {http} else None
            size += len(record.reader.read())
    return n, size
"""
WARCIO = """
from warcio.archiveiterator import ArchiveIterator

def read(file):
    n = size = 0
    with open(file, "rb") as raw:
        for record in ArchiveIterator(raw):
            n += 1
            url, kind = record.rec_headers.get_header("WARC-Target-URI"), record.rec_type
            media = record.http_headers.get_header("Content-Type") if record.http_headers else None
            size += len(record.content_stream().read())
    return n, size
"""
DATATROVE = """
from datatrove.pipeline.readers import WarcReader
from loguru import logger
logger.remove()

def read(file):
    n = size = 0
    folder, name = file.rsplit("/", 1)
    for document in WarcReader(folder, glob_pattern=name).run():
        n += 1
        size += len(document.text)
    return n, size
"""
TIMED = """
import json, sys, time
files = json.loads(sys.argv[1])
read(files[0])
began = time.process_time()
found = [read(file) for file in files]
print(json.dumps([sum(n for n, _ in found), sum(s for _, s in found), time.process_time() - began]))
"""


def timed(interpreter: Path, code: str, files: list[str]) -> tuple[int, int, float]:
    """Records, bytes, and CPU seconds of one reading of all files."""
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        ["taskset", "-c", "0", str(interpreter), "-c", code + TIMED, json.dumps(files)],
        capture_output=True,
        text=True,
        env=os.environ
        | {"PYTHONPATH": root if interpreter == Path(sys.executable) else "", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return tuple(json.loads(done.stdout.splitlines()[-1]))  # type: ignore[return-value]


def main() -> int:
    """Run all sides and print the table."""
    from benchmarks import peers

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    files = arguments.file
    if not files:
        if "ARRIERO_TEST_DATA" not in os.environ:
            print("skipped: name WARC files, or set ARRIERO_TEST_DATA to the folder of test data")
            return 0
        files = sorted(map(str, (Path(os.environ["ARRIERO_TEST_DATA"]) / "web").glob("*.warc.gz")))
    theirs = peers.python("warc", ["fastwarc==2.0.1", "warcio>=1.7,<2"])
    fineweb = peers.python("datatrove", peers.DATATROVE)
    sides = {
        "arriero": (Path(sys.executable), OURS),
        "fastwarc": (theirs, FASTWARC.format(http=True)),
        "fastwarc, no HTTP": (theirs, FASTWARC.format(http=False)),
        "warcio": (theirs, WARCIO),
        "datatrove": (fineweb, DATATROVE),
    }
    runs: dict[str, list[tuple[int, int, float]]] = {name: [] for name in sides}
    for repeat in range(arguments.repeats):
        for name, (interpreter, code) in sides.items():
            if name == "datatrove" and repeat:
                continue  # once is enough: it takes longer than all others together
            runs[name].append(timed(interpreter, code, files))
    # All sides are given the same records: warcinfo and requests count too, also where a reader leaves pages out.
    records = runs["arriero"][0][0]
    base = records / statistics.median(seconds for _, _, seconds in runs["arriero"])
    print(
        f"{len(files)} files, {records:,} records, medians of {arguments.repeats} runs, CPU time of one core"
    )
    for name, taken in runs.items():
        rate = records / statistics.median(seconds for _, _, seconds in taken)
        print(
            f"  {name:<18} {rate:>8,.0f} records/s  {base / rate:6.2f}x  ({taken[0][0]:,} read, {taken[0][1] / 1e6:,.1f} MB)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

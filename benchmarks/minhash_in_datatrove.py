"""datatrove's four MinHash stages on a JSONL file, one worker: run by `minhash.py` in datatrove's own environment.

    …/bin/python benchmarks/minhash_in_datatrove.py WORK        # prints JSON: CPU seconds by stage, rows that are removed

Reads `WORK/docs/docs.jsonl`. Parameters are those of the FineWeb example (5-grams, 14 buckets of 8 hashes), with xxhash, the
faster of its two hash functions. Nothing is written at the end, which favours it.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader


def main(work: str) -> None:
    """Run the stages; the signatures of a few documents first, so that loading spaCy is not counted."""
    folder = Path(work)
    config = MinhashConfig(num_buckets=14, hashes_per_bucket=8, n_grams=5)

    def run(name: str, steps: list[object], tasks: int = 1) -> float:
        began = time.process_time()
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()
        return time.process_time() - began

    signature = MinhashDedupSignature(str(folder / "warm"), config=config, language="eng")
    run("warm", [JsonlReader(str(folder / "docs"), limit=3), signature])
    signature = MinhashDedupSignature(str(folder / "sig"), config=config, language="eng")
    seconds = {
        "sign": run("sign", [JsonlReader(str(folder / "docs")), signature]),
        "buckets": run(
            "buckets",
            [MinhashDedupBuckets(str(folder / "sig"), str(folder / "buckets"), config=config)],
            tasks=14,
        ),
        "cluster": run(
            "cluster", [MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=config)]
        ),
        "filter": run(
            "filter", [JsonlReader(str(folder / "docs")), MinhashDedupFilter(str(folder / "remove"))]
        ),
    }
    found = folder / "remove" / "000000.remove"
    rows = [row for (row,) in struct.iter_unpack("<I", found.read_bytes())] if found.is_file() else []
    print(json.dumps({"seconds": seconds, "removed": rows}))


if __name__ == "__main__":
    main(sys.argv[1])

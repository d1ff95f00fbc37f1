"""datatrove's FineWeb example on a folder of WARC files, one worker: run by `web.py` in datatrove's own environment.

    …/bin/python benchmarks/fineweb_in_datatrove.py WARCS OUTPUT        # prints JSON: seconds by step, documents kept

Filters, order and settings follow the example that datatrove ships (`examples/fineweb.py`). Left out is the language
filter, whose model is downloaded. The public suffix list is the one that tldextract carries, for the same reason.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path

import tldextract
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    URLFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main(warcs: str, output: str) -> None:
    """Run the steps and print their seconds."""
    folder = Path(output)
    seconds: dict[str, float] = {}

    def run(name: str, steps: list[object], tasks: int = 1) -> None:
        began = time.perf_counter()
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()
        seconds[name] = round(time.perf_counter() - began, 2)

    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    urls = URLFilter()
    urls.tldextractor = tldextract.TLDExtract(suffix_list_urls=())
    urls.download_data()  # unpacks the lists that are in the package: once a machine, so not counted
    run(
        "filter",
        [
            WarcReader(warcs, glob_pattern="*.warc.gz", default_metadata={"dump": "bench"}),
            urls,
            Trafilatura(favour_precision=True),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            JsonlWriter(str(folder / "filtered")),
        ],
    )
    config = MinhashConfig(
        hash_config=HashConfig(hash_fc="sha1", precision=64),
        num_buckets=14,
        hashes_per_bucket=8,
        n_grams=5,
    )
    filtered = str(folder / "filtered")
    run("sign", [JsonlReader(filtered), MinhashDedupSignature(str(folder / "sig"), config=config)])
    run(
        "buckets",
        [MinhashDedupBuckets(str(folder / "sig"), str(folder / "buckets"), config=config)],
        tasks=14,
    )
    run("cluster", [MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=config)])
    run(
        "remove",
        [
            JsonlReader(filtered),
            MinhashDedupFilter(str(folder / "remove")),
            PIIFormatter(),
            JsonlWriter(str(folder / "out")),
        ],
    )
    kept = 0
    for path in (folder / "out").glob("*.jsonl.gz"):
        with gzip.open(path, "rt") as lines:
            kept += sum(1 for _ in lines)
    print(json.dumps({"seconds": seconds, "kept": kept}))


if __name__ == "__main__":
    main(*sys.argv[1:3])

"""datatrove's heuristic filters over texts: run by `signals.py` in datatrove's environment.

    …/bin/python benchmarks/signals_in_datatrove.py TEXTS.jsonl        # prints JSON: CPU seconds cold, warm, documents kept

The chain of its FineWeb example: a document that a filter drops is not seen by those behind it.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import orjson


def main(texts: str) -> None:
    """Filter all texts twice; the first time with imports and tokeniser."""
    warnings.simplefilter("ignore")
    documents = [orjson.loads(line)["text"] for line in Path(texts).read_bytes().splitlines()]
    seconds, kept = [], 0
    for _ in range(2):
        began = time.process_time()
        from datatrove.data import Document
        from datatrove.pipeline.filters import (
            C4QualityFilter,
            FineWebQualityFilter,
            GopherQualityFilter,
            GopherRepetitionFilter,
        )

        chain = (
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
        )
        for rule in chain:
            rule.stat_update = lambda *labels, **rest: None
        kept = 0
        for i, text in enumerate(documents):
            document = Document(text=text, id=str(i))
            kept += all(rule.filter(document) is True for rule in chain)
        seconds.append(time.process_time() - began)
    print(orjson.dumps({"cold": seconds[0], "warm": seconds[1], "kept": kept}).decode())


if __name__ == "__main__":
    main(sys.argv[1])

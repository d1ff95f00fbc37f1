"""`arriero data` beside the same stages in plain datatrove, on the same WARC files, one worker each.

    python benchmarks/arriero_data.py FILE.warc.gz
    ARRIERO_TEST_DATA=DATA python benchmarks/arriero_data.py        # DATA/web/wcxb-dev-00000.warc.gz

Both sides: WARC → main text by trafilatura → Gopher repetition and quality → C4 → MinHash signatures and
deduplication. datatrove splits words with spaCy, which neither side installs here; its filters get the words of this
project's expression; and its WARC reader needs packages that are not dependencies here, so it gets this
project's records too. What is compared is everything between; the substitutions favour datatrove.
Prints seconds, pages/s and the ratio.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
import time
from pathlib import Path

from configs import edge
from configs.schema.pipeline import DataRun, RecipeConfig
from data_pipeline import executor, flow
from data_pipeline import stage as staging
from data_pipeline.analysis import Analysis, sentences
from data_pipeline.document import read_table, shard_path
from data_pipeline.extract.charset import decode
from data_pipeline.read import Record, records
from data_pipeline.read import units as planning

STAGES = ("read", "signals", "copies", "language", "nsfw", "quality", "decide", "sign", "minhash", "final")


def ours(file: Path, folder: Path) -> dict[str, float]:
    """Seconds by stage, documents read and kept."""
    words = ["recipe=web", f"input={file}", f"output={folder}", "executor.workers=1", "dedup.exact=false"]
    config = edge.load("data", DataRun, words)
    plan = planning.plan([planning.Source("web", config.recipe, str(file))], config.unit_bytes)
    folder.mkdir(parents=True)
    planning.save(plan.units, folder / "units.json")
    todo, _ = flow.build(folder, config, plan)
    expected = staging.fingerprints(todo)
    result: dict[str, float] = {}
    for stage in todo:
        if stage.name in STAGES:
            state = executor.run(folder, stage, config, expected[stage.name])
            result[stage.name] = state.seconds
            if stage.name == "read":
                result["documents"] = state.counts["read"]
    kept = [read_table(shard_path(folder, "decisions/final", u.unit), ["keep"])["keep"] for u in plan.units]
    result["kept"] = sum(sum(k.to_pylist()) for k in kept)
    return result


class Splitter:
    """datatrove's word tokeniser interface over this project's words and sentences."""

    def word_tokenize(self, text: str) -> list[str]:
        """Words of a text."""
        return Analysis(text).words

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences, roughly: what ends with a full stop."""
        return [s for s in text.replace("! ", ". ").replace("? ", ". ").split(". ") if s.strip()]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Spans of the sentences."""
        return [(0, len(text))]


def theirs(file: Path, folder: Path) -> dict[str, float]:
    """Seconds by stage, documents kept."""
    from datatrove.data import Document, DocumentsPipeline
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
        minhash,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        c4_filters,
        gopher_quality_filter,
        gopher_repetition_filter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    # The filters imported these names: both sides split words alike, as no spaCy is installed.
    for module in (gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = lambda text, language: Analysis(text).words
    c4_filters.split_into_sentences = lambda text, language: [text] * sentences(text)
    minhash.load_word_tokenizer = lambda language: Splitter()
    result: dict[str, float] = {}

    def run(name: str, steps: list[object], tasks: int = 1) -> None:
        began = time.perf_counter()
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()
        result[name] = time.perf_counter() - began

    def reader(_: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        recipe = edge.load_group("recipe", "web", RecipeConfig)
        for unit in planning.plan([planning.Source("web", recipe, str(file))], 2**40).units:
            for record in records(unit, recipe):
                if isinstance(record, Record) and record.drop is None:
                    page, _ = decode(record.payload, record.charset, html=True)
                    yield Document(text=page, id=str(record.number), metadata={"url": record.url})

    filters = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
    ]
    run("filter", [reader, Trafilatura(timeout=30), *filters, JsonlWriter(str(folder / "filtered"))])
    config = MinhashConfig(
        hash_config=HashConfig(precision=64, hash_fc="sha1"), num_buckets=20, hashes_per_bucket=6
    )
    filtered = str(folder / "filtered")
    run("sign", [JsonlReader(filtered), MinhashDedupSignature(str(folder / "sig"), config=config)])
    run(
        "buckets",
        [MinhashDedupBuckets(str(folder / "sig"), str(folder / "buckets"), config=config)],
        tasks=20,
    )
    run("cluster", [MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=config)])
    run(
        "remove",
        [JsonlReader(filtered), MinhashDedupFilter(str(folder / "remove")), JsonlWriter(str(folder / "out"))],
    )
    result["kept"] = 0
    for path in (folder / "out").glob("*.jsonl.gz"):
        with gzip.open(path, "rt") as lines:
            result["kept"] += sum(1 for _ in lines)
    return result


def main() -> None:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="a WARC file of some hundred pages")
    file = parser.parse_args().file
    if file is None:
        if "ARRIERO_TEST_DATA" not in os.environ:
            print("skipped: name a WARC file, or set ARRIERO_TEST_DATA to the folder of test data")
            return
        file = Path(os.environ["ARRIERO_TEST_DATA"]) / "web" / "wcxb-dev-00000.warc.gz"
    assert edge.load_group("recipe", "web", RecipeConfig).reader == "auto"
    with tempfile.TemporaryDirectory() as scratch:
        a = ours(file.resolve(), Path(scratch) / "ours")
        b = theirs(file.resolve(), Path(scratch) / "theirs")
    documents = a["documents"]
    sums = [sum(v for k, v in side.items() if k not in ("documents", "kept")) for side in (a, b)]
    for name, side, total in (("arriero", a, sums[0]), ("datatrove", b, sums[1])):
        stages_shown = ", ".join(f"{k} {v:.1f}" for k, v in side.items() if k not in ("documents", "kept"))
        print(
            f"{name:<10} {total:7.1f} s  {documents / total:6.1f} pages/s  kept {side['kept']:.0f}  ({stages_shown})"
        )
    print(f"ratio      {sums[1] / sums[0]:.2f}x")


if __name__ == "__main__":
    main()

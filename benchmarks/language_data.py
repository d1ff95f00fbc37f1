"""Labelled text in many languages, from a folder of test data: what language benchmarks train on and are measured with.

    from language_data import training, sentences, pieces

`training` is whole texts (declarations of human rights, Bible chapters, Wikipedia articles), `sentences` the labelled test
sentences, of which nothing is ever trained on. Labels are ISO 639-1, or 639-3 where there is none.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import orjson
import pyarrow as pa

from configs import edge
from configs.schema.pipeline import RecipeConfig
from data_pipeline.annotate import codes, scripts
from data_pipeline.classify.rows import Row
from data_pipeline.extract.wikitext import to_text
from data_pipeline.read import Record, Unit, mediawiki
from data_pipeline.zstd import zstd


def jsonl(path: Path) -> list[dict[str, str]]:
    """Rows of a zstd JSONL file."""
    return [orjson.loads(line) for line in zstd.decompress(path.read_bytes()).split(b"\n") if line]


def sentences(data: Path) -> list[Row]:
    """The labelled sentences of 75 languages."""
    return [
        (r["text"], codes.normal(r["lang"])[0]) for r in jsonl(data / "multilingual" / "sentences.jsonl.zst")
    ]


def declarations(data: Path) -> list[Row]:
    """Declarations of human rights, by language; items of lists, which stand there twice, once."""
    rows = jsonl(data / "multilingual" / "udhr.jsonl.zst")
    found = [
        ("\n".join(dict.fromkeys(r["text"].split("\n"))), _label(r["lang"], r["iso639_3"]))
        for r in rows
        # Welche is no French, and the Sorani text is Kurmanji.
        if r["lang"] not in ("und", "ckb-Latn") and "Welche" not in r["name"]
    ]
    return _plausible(found)


def chapters(data: Path) -> list[Row]:
    """Bible chapters, by language."""
    rows = jsonl(data / "multilingual" / "bible_chapters.jsonl.zst")
    return _plausible([(r["text"], codes.normal(r["iso639_3"])[0]) for r in rows])


def articles(data: Path, most: int = 20) -> list[Row]:
    """Wikipedia articles, at most so many of an edition."""
    recipe = edge.load_group("recipe", "wikipedia", RecipeConfig)
    found = []
    for path in sorted((data / "wikipedia").glob("*.xml.bz2")):
        label = codes.normal(path.name.split("wiki")[0])[0]
        unit = Unit(0, "w", "wikitext", (str(path),), str(path), 0, 1, 0, None, path.stat().st_size)
        records = [r for r in mediawiki.read(str(path), unit, recipe) if isinstance(r, Record) and not r.drop]
        texts = [to_text(r.payload.decode("utf-8", "replace")) for r in records]
        found += [(text, label) for text in [t for t in texts if len(t) > 400][:most]]
    return _plausible(found)


def training(data: Path) -> list[Row]:
    """Whole texts to train on."""
    return declarations(data) + chapters(data) + articles(data)


def _label(lang: str, iso: str) -> str:
    # In the declarations `als` is Tosk Albanian.
    return (
        "sq"
        if lang == "als"
        else codes.normal(lang)[0]
        if len(lang.split("-")[0]) == 2
        else codes.normal(iso)[0]
    )


def _plausible(rows: list[Row]) -> list[Row]:
    """Rows in a script of their language: the declarations hold transliterations that nobody writes."""
    if not rows:
        return []
    counts = scripts.count(pa.array([text for text, _ in rows], pa.large_string()))
    kept = []
    for row, count in zip(rows, counts, strict=True):
        wanted = codes.SCRIPTS.get(row[1])
        if wanted is None or sum(count[scripts.INDEX[s]] for s in wanted) > 0.5 * count.sum():
            kept.append(row)
    return kept


def documents(rows: list[Row], size: int, seed: int) -> list[Row]:
    """Sentences of a language joined to pseudo-documents of `size` sentences in paragraphs of a few."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for text, label in rows:
        by_label[label].append(text)
    found = []
    for label, texts in sorted(by_label.items()):
        draw = random.Random(f"{seed}\0{label}")
        shuffled = draw.sample(sorted(texts), len(texts))
        space = "" if label in ("zh", "ja") else " "
        for start in range(0, len(shuffled) - size + 1, size):
            chosen, paragraphs = shuffled[start : start + size], []
            while chosen:
                n = draw.randint(2, 5)
                paragraphs.append(space.join(chosen[:n]))
                chosen = chosen[n:]
            found.append(("\n".join(paragraphs), label))
    return found

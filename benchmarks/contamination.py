"""Decontamination: precision and recall on planted evaluation items, and speed.

    ARRIERO_TEST_DATA=DATA python benchmarks/contamination.py

Half of the items of every set in `eval/` are the evaluation sets; the other half, never indexed, are decoys of the same
kind. Items are planted in the middle of clean pages (`quality/onestop_english`, `neardup/uci_docs`): verbatim, and
changed in ways that a crawl, a quiz site or a cheat would. A planted page counts as found where the item itself is
named; a decoy is false where anything is.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from configs.schema.pipeline import DecontaminateConfig
from data_pipeline.annotate.contamination import Annotator
from data_pipeline.annotate.evalsets import load
from data_pipeline.zstd import zstd

PER_SET = 100
SETS = ("arc_easy", "boolq", "gsm8k", "hellaswag", "lambada_openai", "piqa")
Draw = random.Random
MARKS = ("**{}**", "_{}_", "<b>{}</b>", "<a href='/x'>{}</a>", "\n{}", "&nbsp;{}", "[{}](/y)")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstd.decompress(data)
    return [orjson.loads(line) for line in data.splitlines() if line.strip()]


def question(row: dict[str, Any]) -> str:
    """The question of a row, with its passage."""
    return str(row.get("query") or row.get("question") or row.get("ctx") or row.get("context"))


def answers(row: dict[str, Any]) -> str:
    """Its answers, as a page lists them."""
    given = row.get("choices") or row.get("endings") or [row.get("answer") or row.get("continuation")]
    return "\n".join(f"{'ABCDEFGH'[i]}) {a}" for i, a in enumerate(given))


def edited(share: float) -> Callable[[str, Draw], str]:
    """Replace, drop or double that share of the words."""

    def change(text: str, draw: Draw) -> str:
        words = text.split(" ")
        pool = [w for w in words if w] or ["x"]
        out = []
        for word in words:
            if draw.random() >= share:
                out.append(word)
                continue
            how = draw.randrange(3)
            if how == 0:
                out.append(draw.choice(("thing", "object", "quickly", "another", "green", "often", *pool)))
            elif how == 1:
                out += [word, draw.choice(("really", "also", "very", "perhaps", "indeed"))]
        return " ".join(out)

    return change


def plain(text: str, draw: Draw) -> str:
    """Upper or lower case, other quotes, no or more punctuation, spaces for line feeds."""
    text = draw.choice((str.upper, str.lower, str.title))(text)
    text = draw.choice((lambda t: re.sub(r"[^\w\s]", "", t), lambda t: re.sub(r"([,.?!])", r" \1 ", t)))(text)
    return re.sub(r"\s+", draw.choice((" ", "  ", "\n")), text.replace("'", "’"))


def marked(text: str, draw: Draw) -> str:
    """Markdown, tags and line breaks inside."""
    words = text.split(" ")
    for i in range(len(words)):
        if draw.random() < 0.2 and words[i]:
            words[i] = draw.choice(MARKS).format(words[i])
    return " ".join(words)


def truncated(text: str, draw: Draw) -> str:
    """The first three fifths."""
    return text[: int(len(text) * 0.6)]


KINDS: dict[str, Callable[[dict[str, Any], Draw], str]] = {
    "verbatim, with answers": lambda r, d: question(r) + "\n" + answers(r),
    "verbatim, question alone": lambda r, d: question(r),
    "case, punctuation": lambda r, d: plain(question(r) + "\n" + answers(r), d),
    "markup": lambda r, d: marked(question(r) + "\n" + answers(r), d),
    "5% of words edited": lambda r, d: edited(0.05)(question(r) + "\n" + answers(r), d),
    "10% of words edited": lambda r, d: edited(0.10)(question(r) + "\n" + answers(r), d),
    "20% of words edited": lambda r, d: edited(0.20)(question(r) + "\n" + answers(r), d),
    "truncated to 60%": lambda r, d: truncated(question(r), d),
}


def shuffled(text: str, draw: Draw) -> str:
    """The same words in another order."""
    words = text.split()
    draw.shuffle(words)
    return " ".join(words)


def phrases(rows: list[dict[str, Any]], draw: Draw) -> str:
    """Six words from each of eight items."""
    found = []
    for row in draw.sample(rows, 8):
        words = question(row).split()
        at = draw.randrange(max(1, len(words) - 6))
        found.append(" ".join(words[at : at + 6]))
    return ". ".join(found)


def main() -> int:
    """Run and print."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds eval/ and quality/")
        return 0
    data = Path(os.environ["ARRIERO_TEST_DATA"])
    draw = random.Random(0)
    pages = [r["text"] for r in read(data / "quality/onestop_english.jsonl.zst")]
    pages += [r["text"] for r in read(data / "neardup/uci_docs.jsonl.zst")]
    indexed: dict[str, list[dict[str, Any]]] = {}
    others: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SETS:
            rows = read(data / f"eval/{name}.jsonl")
            draw.shuffle(rows)
            indexed[name], others[name] = rows[: len(rows) // 2], rows[len(rows) // 2 :]
            (Path(folder) / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, indexed[name])))
        config = DecontaminateConfig(sets=(folder,))
        start = time.process_time()
        index = load(config)
        made = time.process_time() - start
    annotator = Annotator(index, config)
    checkable = {(i.set, i.number) for i in index.items if index.checkable(i)}
    print(
        f"{len(index.items)} items, {len(index.items) - len(checkable)} of them not checkable; "
        f"index {made:.2f} s of CPU time"
    )

    def page(text: str) -> str:
        around = draw.choice(pages)
        cut = around.find(" ", len(around) // 2)
        return f"{around[:cut]}\n\n{text}\n\n{around[cut:]}"

    def flagged(text: str) -> set[tuple[str, int]]:
        found = (index.items[index.parts[m.part].item] for m in annotator.matches(text)[0] if m.counts)
        return {(i.set, i.number) for i in found}

    twins = {question(r) for name in SETS for r in indexed[name]}
    print(f"\n{'planted':<26}{'recall':>8}   by set: {', '.join(SETS)}")
    recalled = planted = wrong = 0
    for kind, render in KINDS.items():
        shares = []
        for name in SETS:
            chosen = [n for n in range(len(indexed[name])) if (name, n) in checkable][:PER_SET]
            hits = 0
            for n in chosen:
                got = flagged(page(render(indexed[name][n], draw)))
                # Some items of a set stand in it twice.
                same = {
                    (name, k)
                    for k, r in enumerate(indexed[name])
                    if question(r) == question(indexed[name][n])
                }
                hits += bool(got & same)
                wrong += bool(got - same)
            shares.append((hits, len(chosen)))
        hits, total = sum(s[0] for s in shares), sum(s[1] for s in shares)
        recalled, planted = recalled + hits, planted + total
        print(f"{kind:<26}{hits / total:>8.3f}   {'  '.join(f'{h / t:.2f}' for h, t in shares)}")
    rest = {name: [r for r in others[name] if question(r) not in twins][:PER_SET] for name in SETS}
    everything = [r for name in SETS for r in rest[name]]
    mine = [r for name in SETS for r in indexed[name][:PER_SET]]
    decoys: dict[str, list[str]] = {
        "clean pages": pages,
        "other items of the sets": [page(question(r) + "\n" + answers(r)) for r in everything],
        "passages of boolq alone": [
            page(question(r).split("Question:")[0].removeprefix("Passage:"))
            for r in indexed["boolq"][:PER_SET]
        ],
        "words of items, shuffled": [page(shuffled(question(r) + " " + answers(r), draw)) for r in mine],
        "phrases of eight items": [
            page(phrases(indexed[name], draw)) for name in SETS for _ in range(PER_SET)
        ],
    }
    for name, folder_name in (("novels", "prose/english_novels"), ("books", "books/gutenberg")):
        texts = [r["text"] for r in read(data / f"{folder_name}.jsonl.zst")]
        decoys[f"{name}, by 20,000 characters"] = [
            t[k : k + 20_000] for t in texts for k in range(0, len(t), 20_000)
        ]
    print(f"\n{'decoys':<30}{'pages':>7}{'flagged':>9}{'share':>9}")
    false = 0
    for kind, texts in decoys.items():
        count = sum(bool(flagged(t)) for t in texts)
        false += count
        print(f"{kind:<30}{len(texts):>7}{count:>9}{count / len(texts):>9.4f}")
    precision, recall = recalled / (recalled + false + wrong), recalled / planted
    print(
        f"\nplanted pages with another item named beside or instead: {wrong} of {planted}\n"
        f"over everything: precision {precision:.4f}, recall {recall:.4f}, "
        f"F1 {2 * precision * recall / (precision + recall):.4f}"
    )
    texts = decoys["novels, by 20,000 characters"] + pages
    rates = []
    for _ in range(3):
        start = time.process_time()
        for text in texts:
            annotator.matches(text)
        rates.append(sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - start))
    print(
        f"speed: {sorted(rates)[1]:.0f} MB/s of one core ({sum(map(len, texts)) / 1e6:.0f} MB, median of 3)"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Verdicts of datatrove's own filters, rule by rule: run by `agreement.py` in datatrove's environment.

    …/bin/python benchmarks/agreement_in_datatrove.py TEXTS.jsonl VERDICTS.jsonl

Every rule is one filter with all of its other rules switched off. A row of the output: rule → kept (null: the filter
raised an error), `texts`: what the line rules leave, `words`: datatrove's words.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4ParagraphFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import split_into_words

NO_QUALITY = {
    "min_doc_words": None,
    "max_doc_words": None,
    "min_avg_word_length": None,
    "max_avg_word_length": None,
    "max_symbol_word_ratio": None,
    "max_bullet_lines_ratio": None,
    "max_ellipsis_lines_ratio": None,
    "max_non_alpha_words_ratio": None,
    "min_stop_words": None,
}
NO_REPETITION: dict[str, Any] = {
    "dup_line_frac": None,
    "dup_para_frac": None,
    "dup_line_char_frac": None,
    "dup_para_char_frac": None,
    "top_n_grams": (),
    "dup_n_grams": (),
}
NO_FINEWEB = {
    "line_punct_thr": 0,
    "short_line_thr": 1,
    "char_duplicates_ratio": 2,
    "new_line_ratio": float("inf"),
}
C4_LINES = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": -1}


class Silent:
    """datatrove's filters count into their statistics; here nobody reads them."""

    def stat_update(self, *labels: str, **rest: Any) -> None:
        """Count nothing."""


def rules() -> dict[str, Any]:
    """Filter of each rule, with datatrove's default threshold."""

    def quality(**chosen: Any) -> GopherQualityFilter:
        return GopherQualityFilter(**(NO_QUALITY | chosen))

    def repetition(**chosen: Any) -> GopherRepetitionFilter:
        return GopherRepetitionFilter(**(NO_REPETITION | chosen))

    def fineweb(**chosen: Any) -> FineWebQualityFilter:
        return FineWebQualityFilter(**(NO_FINEWEB | chosen))

    def c4(ends: bool, **chosen: Any) -> C4QualityFilter:
        return C4QualityFilter(**(C4_LINES | {"filter_no_terminal_punct": ends} | chosen))

    found: dict[str, Any] = {
        "gopher.short": quality(min_doc_words=50),
        "gopher.long": quality(max_doc_words=100000),
        "gopher.short_words": quality(min_avg_word_length=3),
        "gopher.long_words": quality(max_avg_word_length=10),
        "gopher.hashes": quality(max_symbol_word_ratio=0.1),
        "gopher.ellipses": quality(max_symbol_word_ratio=0.1),
        "gopher.bullets": quality(max_bullet_lines_ratio=0.9),
        "gopher.ellipsis_lines": quality(max_ellipsis_lines_ratio=0.3),
        "gopher.alpha_words": quality(max_non_alpha_words_ratio=0.8),
        "gopher.stop_words": quality(min_stop_words=2),
        "gopher.dup_lines": repetition(dup_line_frac=0.3),
        "gopher.dup_paragraphs": repetition(dup_para_frac=0.3),
        "gopher.dup_line_chars": repetition(dup_line_char_frac=0.2),
        "gopher.dup_paragraph_chars": repetition(dup_para_char_frac=0.2),
        "c4.lorem_ipsum": c4(True, filter_lorem_ipsum=True),
        "c4.curly_brackets": c4(True, filter_curly_bracket=True),
        "c4.sentences": c4(True, min_num_sentences=5),
        "fineweb.c4.lorem_ipsum": c4(False, filter_lorem_ipsum=True),
        "fineweb.c4.curly_brackets": c4(False, filter_curly_bracket=True),
        "fineweb.c4.sentences": c4(False, min_num_sentences=5),
        "fineweb.line_punctuation": fineweb(line_punct_thr=0.12),
        "fineweb.short_lines": fineweb(short_line_thr=0.67),
        "fineweb.char_duplicates": fineweb(char_duplicates_ratio=0.01),
        "fineweb.lists": fineweb(new_line_ratio=0.3),
        "mc4.paragraphs": C4ParagraphFilter(),
    }
    for n, most in ((2, 0.2), (3, 0.18), (4, 0.16)):
        found[f"gopher.top_{n}_gram"] = repetition(top_n_grams=((n, most),))
    for n, most in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.1), strict=True):
        found[f"gopher.dup_{n}_gram"] = repetition(dup_n_grams=((n, most),))
    for rule in found.values():
        rule.stat_update = Silent().stat_update
    return found


def verdict(judge: Callable[[Document], Any], name: str, text: str) -> bool | None:
    """Whether a filter keeps a text; its two rules on symbols share one threshold, so the reason tells them apart."""
    try:
        result = judge(Document(text=text, id="0"))
    except (ZeroDivisionError, AssertionError):
        return None
    kept, reason = result if isinstance(result, tuple) else (result, "")
    if name == "gopher.hashes":
        return kept or reason != "gopher_too_many_hashes"
    if name == "gopher.ellipses" and reason == "gopher_too_many_hashes":
        words = max(len(split_into_words(text)), 1)
        return (text.count("...") + text.count("…")) / words <= 0.1
    return bool(kept)


def left(judge: Callable[[Document], Any], text: str) -> str:
    """What the line rules leave of a text."""
    document = Document(text=text, id="0")
    judge(document)
    return str(document.text)


def main(texts: str, verdicts: str) -> None:
    """Judge every text by every rule."""
    warnings.simplefilter("ignore")
    found = rules()
    lines = {"c4_lines": C4QualityFilter(**C4_LINES)}
    lines["fineweb_lines"] = C4QualityFilter(**C4_LINES, filter_no_terminal_punct=False)
    for rule in lines.values():
        rule.stat_update = Silent().stat_update
    with Path(texts).open("rb") as file, Path(verdicts).open("wb") as output:
        for line in file:
            text = orjson.loads(line)["text"]
            row: dict[str, Any] = {name: verdict(rule.filter, name, text) for name, rule in found.items()}
            row["texts"] = {name: left(rule.filter, text) for name, rule in lines.items()}
            row["words"] = split_into_words(text)
            output.write(orjson.dumps(row) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

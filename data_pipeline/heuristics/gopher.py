"""Gopher (Rae et al., 2021, appendix A1.1 and table A1), as datatrove defines it: quality and repetition of documents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from data_pipeline.analysis import Batch, analyse
from data_pipeline.analysis.characters import LOWER_LETTER, UPPER_LETTER, table
from data_pipeline.analysis.repetition import MOST_FREQUENT, REPEATED
from data_pipeline.analysis.word_tables import StopWords, stop_words
from data_pipeline.annotate import stopwords

MIN_STOP_WORDS = 2
"""Stop words that Gopher demands of a document."""
MIN_UPPER_SHARE = 0.8
"""Share of upper case among the letters that have a case from which on a text is in capitals."""


def signals(batch: Batch, languages: Sequence[str | None] | None = None) -> dict[str, np.ndarray]:
    """Signals of a batch (`schema.SIGNALS`), float64 [d] each; 0 for an empty text.

    The quotations are the paper's rules for documents that are kept.

    Args:
        languages: of the documents, for their stop words; without them, and for None, English.
    """
    counts, duplicates, words = batch.counts, batch.duplicates, batch.word_counts
    n_lexical, n_words = np.maximum(words["lexical"], 1), np.maximum(batch.n_words, 1)
    n_chars, n_lines = np.maximum(batch.n_chars, 1), np.maximum(counts["lines"], 1)
    return {
        # "contain between 50 and 100,000 words"
        "n_words": words["lexical"],
        # "mean word length is [in] the range of 3 to 10 characters"
        "mean_word_length": words["lexical_chars"] / n_lexical,
        # "a symbol-to-word ratio [not] greater than 0.1 for either the hash symbol or the ellipsis"
        "hash_ratio": counts["hashes"] / n_words,
        "ellipsis_ratio": counts["ellipses"] / n_words,
        # "[not] more than 90% of lines starting with a bullet point"
        "bullet_lines": counts["bullet_lines"] / n_lines,
        # "[not] more than 30% ending with an ellipsis"
        "ellipsis_lines": counts["ellipsis_lines"] / n_lines,
        # "80% of words in a document contain at least one alphabetic character": datatrove counts punctuation as words, by
        # which the rule drops every second page; by words between white space it reads as the paper does.
        "alpha_words": words["alpha"] / n_words,
        "alpha_spaced": counts["alpha_spaced_words"] / np.maximum(counts["spaced_words"], 1),
        # "contain at least two of the following English words: the, be, to, of, and, that, have, with"
        "n_stop_words": _count_stop_words(batch, languages),
        # Table A1: at most 0.30, 0.30, 0.20, 0.20.
        "dup_line_frac": duplicates["dup_lines"] / duplicates["lines"],
        "dup_para_frac": duplicates["dup_paragraphs"] / duplicates["paragraphs"],
        "dup_line_char_frac": duplicates["dup_line_chars"] / n_chars,
        "dup_para_char_frac": duplicates["dup_paragraph_chars"] / n_chars,
        # Table A1: at most 0.20, 0.18, 0.16 for 2, 3, 4 words.
        **{f"top_{n}_gram": batch.n_grams(n) / n_chars for n in MOST_FREQUENT},
        # Table A1: at most 0.15, 0.14, 0.13, 0.12, 0.11, 0.10 for 5 to 10 words.
        **{f"dup_{n}_gram": batch.n_grams(n) / n_chars for n in REPEATED},
    }


def _stop_words(batch: Batch, languages: Sequence[str | None] | None) -> tuple[StopWords, np.ndarray]:
    """(table of stop words, number of each document's language in it, -1 for one without stop words)."""
    if languages is None:
        return _table((None,)), np.zeros(len(batch), np.int32)
    names = (*sorted({x for x in languages if x is not None}), None)
    numbers = {name: i if stopwords.of(name) is not None else -1 for i, name in enumerate(names)}
    return _table(names), np.array([numbers[x] for x in languages], np.int32)


@cache
def _table(languages: tuple[str | None, ...]) -> StopWords:
    return stop_words([stopwords.of(x) or () for x in languages])


def _count_stop_words(batch: Batch, languages: Sequence[str | None] | None) -> np.ndarray:
    """Different stop words of each document, float64 [d]; NaN for a language without any.

    A text in capitals is read in small letters: otherwise a notice or a poem has no stop word of any language, however good.
    In languages without spaces they count anywhere in the text.
    """
    exact = batch.n_stop_words(*_stop_words(batch, languages))
    n_stop_words = exact.astype(np.float64)
    capitals = [i for i in np.flatnonzero(exact < MIN_STOP_WORDS).tolist() if _is_in_capitals(batch, i)]
    if capitals:
        lower = analyse([batch.text(i).lower() for i in capitals])
        table_and_numbers = _stop_words(lower, languages and [languages[i] for i in capitals])
        n_stop_words[capitals] = np.maximum(exact[capitals], lower.n_stop_words(*table_and_numbers))
    for i, language in enumerate(languages or ()):
        if language is not None and (language in stopwords.UNSPACED or stopwords.of(language) is None):
            anywhere = stopwords.count(batch.text(i), (), language)
            n_stop_words[i] = np.nan if anywhere is None else anywhere
    return n_stop_words


def _is_in_capitals(batch: Batch, i: int) -> bool:
    characters = batch.cps[batch.bounds[i] : batch.bounds[i + 1]]
    cases = table()[characters] & (UPPER_LETTER | LOWER_LETTER)
    # Letters without case have both flags.
    upper, lower = np.count_nonzero(cases == UPPER_LETTER), np.count_nonzero(cases == LOWER_LETTER)
    return bool(upper > MIN_UPPER_SHARE * (upper + lower))

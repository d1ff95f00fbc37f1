"""Quality and repetition values of Gopher (Rae et al., 2021, appendix A1.1 and table A1), as datatrove defines them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from data_pipeline.analysis import Batch, analyse
from data_pipeline.analysis.characters import LOWER_LETTER, UPPER_LETTER, table
from data_pipeline.annotate import stopwords

TOP_N_GRAMS = (2, 3, 4)
DUPLICATE_N_GRAMS = (5, 6, 7, 8, 9, 10)
FEW = 2
"""Stop words that Gopher asks of a document."""
COLUMNS = (
    "n_words",
    "mean_word_length",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_lines",
    "ellipsis_lines",
    "alpha_words",
    "alpha_spaced",
    "n_stop_words",
    "dup_line_frac",
    "dup_para_frac",
    "dup_line_char_frac",
    "dup_para_char_frac",
    *(f"top_{n}_gram" for n in TOP_N_GRAMS),
    *(f"dup_{n}_gram" for n in DUPLICATE_N_GRAMS),
)


def signals(batch: Batch, languages: Sequence[str | None] | None = None) -> dict[str, np.ndarray]:
    """Signals of a batch, float64 [d] each; shares are 0..1, lengths in characters; everything is 0 for an empty text.

    `hash_ratio ellipsis_ratio`: `#` and ellipses per word; `bullet_lines ellipsis_lines`: share of lines that start
    with a bullet, end with an ellipsis; `alpha_words`: share of words that hold a letter, marks being words;
    `alpha_spaced`: the same of words as white space separates them, as the paper reads (by `alpha_words` its 80% drops
    every second page); `n_stop_words`: different stop words of the document's language, English where none is known, NaN
    for a language without a list; a text in capitals is read in small letters, which Gopher does not; `dup_*`, `top_*`:
    repetition, as shares of lines, paragraphs or characters.
    """
    counts, words, repeated, grams = (
        batch.counts,
        batch.word_counts(*_stops(batch, languages)),
        batch.duplicates,
        batch.n_grams,
    )
    n_words, n_chars = np.maximum(np.diff(batch.words), 1), np.maximum(batch.n_chars, 1)
    n_lines = np.maximum(counts["lines"], 1)
    found = {
        "n_words": words["lexical"],
        "mean_word_length": words["lexical_chars"] / np.maximum(words["lexical"], 1),
        "hash_ratio": counts["hashes"] / n_words,
        "ellipsis_ratio": counts["ellipses"] / n_words,
        "bullet_lines": counts["bullets"] / n_lines,
        "ellipsis_lines": counts["ellipsis_lines"] / n_lines,
        "alpha_words": words["alpha"] / n_words,
        "alpha_spaced": counts["alpha_spaced"] / np.maximum(counts["spaced"], 1),
        "n_stop_words": _unspaced(batch, languages, _capitals(batch, languages, words["stop_words"])),
        "dup_line_frac": repeated["dup_lines"] / repeated["lines"],
        "dup_para_frac": repeated["dup_paragraphs"] / repeated["paragraphs"],
        "dup_line_char_frac": repeated["dup_line_chars"] / n_chars,
        "dup_para_char_frac": repeated["dup_paragraph_chars"] / n_chars,
    }
    for n in (*TOP_N_GRAMS, *DUPLICATE_N_GRAMS):
        found[f"{'top' if n in TOP_N_GRAMS else 'dup'}_{n}_gram"] = grams[:, n - 2] / n_chars
    return found


def _stops(batch: Batch, languages: Sequence[str | None] | None) -> tuple[np.ndarray, np.ndarray]:
    """(hash table of stop words, number of each document's language in it)."""
    if languages is None:
        return _table((None,)), np.zeros(len(batch), np.int32)
    different = (*sorted({x for x in languages if x is not None}), None)
    numbers = {name: i if stopwords.of(name) is not None else -1 for i, name in enumerate(different)}
    return _table(different), np.array([numbers[x] for x in languages], np.int32)


@cache
def _table(languages: tuple[str | None, ...]) -> np.ndarray:
    from data_pipeline.analysis import word_rules

    return word_rules.stop_words([stopwords.of(x) or () for x in languages])


def _capitals(batch: Batch, languages: Sequence[str | None] | None, found: np.ndarray) -> np.ndarray:
    """Stop words, counted in small letters where a text is in capitals and hardly one was found as it stands.

    In capitals: four of five of its letters that have a case. Without this a notice or a poem in capitals has no stop
    word of any language, however good.
    """
    flags, shouted = table(), []
    for i in np.flatnonzero(found < FEW).tolist():
        kinds = flags[batch.cps[batch.bounds[i] : batch.bounds[i + 1]]] & (UPPER_LETTER | LOWER_LETTER)
        # Letters without case are flagged as both.
        upper, lower = np.count_nonzero(kinds == UPPER_LETTER), np.count_nonzero(kinds == LOWER_LETTER)
        if upper > 4 * lower:
            shouted.append(i)
    if not shouted:
        return found.astype(np.float64)
    small = analyse([batch.text(i).lower() for i in shouted])
    stops, numbers = _stops(small, None if languages is None else [languages[i] for i in shouted])
    again = found.astype(np.float64)
    again[shouted] = np.maximum(again[shouted], small.word_counts(stops, numbers)["stop_words"])
    return again


def _unspaced(batch: Batch, languages: Sequence[str | None] | None, found: np.ndarray) -> np.ndarray:
    """Stop words of languages without spaces stand anywhere in the text; NaN where a language has none."""
    for i, language in enumerate(languages or ()):
        if language is not None and (language in stopwords.UNSPACED or stopwords.of(language) is None):
            number = stopwords.count(batch.text(i), (), language)
            found[i] = np.nan if number is None else number
    return found

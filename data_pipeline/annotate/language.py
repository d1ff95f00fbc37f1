"""Language identification: what a document is written in, in which script, and how sure that is.

One interface for CLD2, which `pycld2` brings along, and for every fastText model: lid.176 (`__label__en`), GlotLID
(`__label__eng_Latn`), or one trained by `arriero classify`; their labels become one scheme (`codes.normal`). The script of
the text has a say: a label whose script the text is not written in is out of the question, and a script that only one
language uses names that language where the model has none for it, or where there is no model.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.annotate import cld2, codes, scripts, sentences
from data_pipeline.annotate.schemas import LANGUAGE as SCHEMA
from data_pipeline.classify.fasttext import Classifier

LEAST_SHARE = 0.2
"""Share of a text's letters that must be of a language's scripts for the language to be thought of."""
_BATCH = 1024


def annotate(
    documents: pa.Table, config: ClassifierConfig, model: Path | None, known: str | None
) -> pa.Table:
    """Language signals, row-aligned with `documents` (columns `id`, `text`).

    Args:
        known: language of all these documents, where the source has one; it is believed, with score 1.

    Returns:
        id; language (ISO 639-1, else 639-3; `zxx` is code and other text without language, `und` what the model cannot
        tell) and its score (float32 probability, after calibration, among the languages that the script allows); second,
        second_score: the next likely language; script (ISO 15924) of most letters and its share of them; script_ok: share
        of the letters that are of a script of the language; n_sentences: ends of sentences, in any script. Null: empty
        text; language where there is no model and the script does not tell; script where there is no letter; script_ok
        where the language's scripts are not known.
    """
    texts = documents["text"].cast(pa.large_string())
    identify = Identifier(model, config.max_characters)
    if known is not None:
        known = codes.normal(known)[0]
    parts = [
        identify.table(pc.fill_null(texts.slice(start, _BATCH), ""), known)
        for start in range(0, len(texts), _BATCH)
    ]
    if not parts:
        return SCHEMA.empty_table()
    found = pa.concat_tables(parts)
    return found.add_column(0, SCHEMA.field("id"), documents["id"]).cast(SCHEMA)


@dataclass(frozen=True)
class Columns:
    """What the labels of a model mean."""

    languages: tuple[str, ...]
    """Languages, sorted."""
    order: np.ndarray
    """int64 [labels]: the labels, sorted by language."""
    starts: np.ndarray
    """int64 [languages]: where the labels of each language begin in that order."""
    scripts: frozenset[str]
    """Scripts that belong to a label of the model."""
    allowed: np.ndarray
    """bool [labels, scripts]: whether a label's text may stand in a script."""


@functools.lru_cache(maxsize=4)
def columns_of(labels: tuple[str, ...]) -> Columns:
    """Languages and scripts of a model's labels."""
    normal = [codes.normal(label)[0] for label in labels]
    order = np.array(sorted(range(len(labels)), key=lambda i: (normal[i], i)))
    languages, starts = np.unique(np.array(normal)[order], return_index=True)
    allowed = np.ones((len(labels), len(scripts.NAMES)), bool)
    for row, label in enumerate(labels):
        wanted = codes.scripts_of(label)
        # A script without ranges here cannot be seen in a text.
        if wanted is not None and all(name in scripts.INDEX for name in wanted):
            allowed[row] = False
            allowed[row, [scripts.INDEX[name] for name in wanted]] = True
    known = {name for label in labels for name in codes.scripts_of(label) or ()}
    return Columns(tuple(languages.tolist()), order, starts, frozenset(known), allowed)


class Identifier:
    """A model, or none, and the scripts.

    Args:
        model: `cld2`, or a fastText file.

    Raises:
        FileNotFoundError, ValueError: as `Classifier`.
        ModuleNotFoundError: CLD2 without its package.
    """

    def __init__(self, model: Path | None, max_characters: int) -> None:
        self.classifier: Classifier | cld2.Cld2 | None = None
        if model is not None:
            named = str(model) == cld2.NAME
            self.classifier = cld2.Cld2(max_characters) if named else Classifier(model, max_characters)
        self.max_characters = max_characters

    def table(self, texts: pa.ChunkedArray | pa.Array, known: str | None = None) -> pa.Table:
        """The columns of `annotate` but the id, for texts without nulls."""
        if isinstance(texts, pa.ChunkedArray):
            texts = pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.large_string())
        counts = scripts.count(texts)
        letters = counts.sum(axis=1)
        main = counts.argmax(axis=1)
        share = counts[np.arange(len(counts)), main] / np.maximum(letters, 1)
        empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0).to_numpy(zero_copy_only=False)
        names = [
            scripts.NAMES[k] if n else None for k, n in zip(main.tolist(), letters.tolist(), strict=True)
        ]
        if known is not None:
            n = len(texts)
            first: list[str | None] = [known] * n
            second: list[str | None] = [None] * n
            score, second_score = np.ones(n), np.full(n, np.nan)
        else:
            first, score, second, second_score = self._identify(texts, counts, letters, names, share)
            first = [None if e else name for e, name in zip(empty.tolist(), first, strict=True)]
            score = np.where(empty, np.nan, score)
        return pa.table(
            {
                "language": pa.array(first, pa.string()),
                "score": _floats(score),
                "second": pa.array(second, pa.string()),
                "second_score": _floats(second_score),
                "script": pa.array(names, pa.string()),
                "script_share": _floats(np.where(letters > 0, share, np.nan)),
                "script_ok": _floats(_fit_of(first, counts, letters)),
                "n_sentences": _floats(np.where(empty, np.nan, sentences.count(texts))),
            }
        )

    def _identify(
        self,
        texts: pa.Array,
        counts: np.ndarray,
        letters: np.ndarray,
        names: list[str | None],
        share: np.ndarray,
    ) -> tuple[list[str | None], np.ndarray, list[str | None], np.ndarray]:
        n = len(texts)
        score, second_score = np.full(n, np.nan), np.full(n, np.nan)
        first: list[str | None] = [None] * n
        second: list[str | None] = [None] * n
        if self.classifier is not None:
            columns = columns_of(self.classifier.labels)
            scores = self.classifier.scores(_without_capitals(texts, self.max_characters)).astype(np.float64)
            unscored = np.isnan(scores).any(axis=1)
            scores = np.where(_possible(columns.allowed, counts), np.nan_to_num(scores), 0.0)
            left = scores.sum(axis=1)
            by_language = np.add.reduceat(scores[:, columns.order], columns.starts, axis=1)
            by_language /= np.maximum(left, 1e-300)[:, None]
            rows = np.arange(n)
            best = by_language.argmax(axis=1)
            score = by_language[rows, best]
            by_language[rows, best] = -1
            next_best = by_language.argmax(axis=1)
            second_score = by_language[rows, next_best]
            # A script of one language, which the model does not know: whatever it says is a guess among others.
            strange = np.array([name in codes.UNIQUE and name not in columns.scripts for name in names], bool)
            told = (left > 0) & (letters > 0) & ~unscored & ~(strange & (share >= 0.5))
            open_ = np.array([name == codes.UNKNOWN for name in columns.languages], bool)
            told &= ~open_[best]
            second_score[open_[next_best]] = np.nan
            score[~told] = np.nan
            second_score[~told | (second_score <= 0)] = np.nan
            for i in np.flatnonzero(told).tolist():
                first[i] = columns.languages[best[i]]
            for i in np.flatnonzero(~np.isnan(second_score)).tolist():
                second[i] = columns.languages[next_best[i]]
        for i in range(n):
            if first[i] is not None:
                continue
            if not letters[i]:
                # Without a letter there is no language, whatever a model makes of digits.
                first[i], score[i] = codes.NONE, 1.0
            elif (name := names[i]) in codes.UNIQUE:
                first[i], score[i] = codes.UNIQUE[str(name)], share[i]
            elif self.classifier is not None:
                first[i], score[i] = codes.UNKNOWN, 0.0
        return first, score, second, second_score


def _without_capitals(texts: pa.Array, max_characters: int) -> pa.Array:
    """Texts, those that begin in capitals for the most part in small letters: models have read few capitals."""
    start = pc.utf8_slice_codeunits(texts, 0, max_characters)
    capitals = pc.greater(
        pc.count_substring_regex(start, r"\p{Lu}"), pc.count_substring_regex(start, r"\p{Ll}")
    )
    return pc.if_else(capitals, pc.utf8_lower(texts), texts) if pc.any(capitals).as_py() else texts


def _possible(allowed: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """bool [n, labels]: whether enough letters of a text are of a label's scripts; any label for a text without letters."""
    kinds, which = np.unique(allowed, axis=0, return_inverse=True)
    fitting = np.stack([counts[:, kind].sum(axis=1) for kind in kinds], axis=1)
    possible: np.ndarray = fitting >= LEAST_SHARE * counts.sum(axis=1, keepdims=True)
    return possible[:, which.reshape(-1)]


def _fit_of(languages: list[str | None], counts: np.ndarray, letters: np.ndarray) -> np.ndarray:
    """Share of the letters that are of a script of the language; NaN where its scripts are not known."""
    fit = np.full(len(languages), np.nan)
    for i, language in enumerate(languages):
        wanted = codes.SCRIPTS.get(language) if language else None
        if wanted is not None and letters[i]:
            fit[i] = sum(int(counts[i, scripts.INDEX[name]]) for name in wanted) / int(letters[i])
    return fit


def _floats(values: np.ndarray) -> pa.Array:
    """float32 with null for NaN."""
    return pa.array(values, pa.float32(), mask=np.isnan(values))

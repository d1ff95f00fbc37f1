"""NSFW signals: listed words, a classifier, and a score of the page that weighs them against each other.

The signals of a page are kept apart, as every one of them errs in its own way: lists know hosts and miss new ones, words
hit dictionaries and medicine, classifiers err at the margin. `nsfw_page` combines them; the policy may use any. Lists of
hosts and addresses are `annotate.url`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema.pipeline import NsfwConfig
from data_pipeline.annotate import listed_words, lists, nsfw_page, stopwords
from data_pipeline.annotate.nsfw_vocabulary import ADULT, REFERENCE
from data_pipeline.annotate.schemas import NSFW as SCHEMA
from data_pipeline.classify.fasttext import Classifier

NSFW = "nsfw"
_LANGUAGE_FILE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?")
_SAME_LANGUAGE = {"no": ("no", "nb", "nn"), "fil": ("fil", "tl"), "zh": ("zh", "yue", "wuu")}
_GUESSED_FROM = 4000
"""Characters from which a language is guessed."""
_LEAST_SHARE = 0.3
_ADULT, _REFERENCE = listed_words.MAX_LISTS, listed_words.MAX_LISTS + 1


def annotate(documents: pa.Table, config: NsfwConfig, model: Path | None) -> pa.Table:
    """NSFW signals, row-aligned with `documents` (columns `id`, `language`, `text`).

    Returns:
        id; word_density (words that belong to a listed word or phrase ÷ words), hits (phrases found), distinct (different
        ones), all null without word lists; adult, reference (shares of built-in vocabulary); classifier (P(nsfw) of the
        model; null without one); score (P(nsfw) of the page, from all of these; null for empty texts). Word lists of one
        language apply to documents of that language; where it is null, see `count`.

    Raises:
        FileNotFoundError, ValueError: a list that is missing, empty or not UTF-8; a model without label `nsfw`.
    """
    n = len(documents)
    texts = pc.fill_null(documents["text"].cast(pa.large_string()), "")
    counts = count(texts, documents["language"].to_pylist(), config)
    probabilities = np.full(n, np.nan, np.float32)
    if model is not None:
        classifier = Classifier(model, config.classifier.max_characters)
        probabilities = classifier.scores(texts)[:, classifier.column(NSFW)]
    x = nsfw_page.features(counts, probabilities)
    score = nsfw_page.score(x, bool(config.word_lists), model is not None)
    words = counts[:, 0, 0]
    shares = np.minimum(1, counts[:, :, 1] / np.maximum(words[:, None] + counts[:, :, 4], 1)).astype(
        np.float32
    )
    unlisted = np.full(n, not config.word_lists)
    return pa.table(
        [
            documents["id"],
            pa.array(shares[:, 0], pa.float32(), mask=unlisted),
            pa.array(counts[:, 0, 2].astype(np.int32), pa.int32(), mask=unlisted),
            pa.array(counts[:, 0, 3].astype(np.int32), pa.int32(), mask=unlisted),
            pa.array(shares[:, 1], pa.float32()),
            pa.array(shares[:, 2], pa.float32()),
            pa.array(probabilities, pa.float32(), mask=np.isnan(probabilities)),
            pa.array(score, pa.float32(), mask=words + counts[:, 0, 4] == 0),
        ],
        schema=SCHEMA,
    )


def count(texts: pa.ChunkedArray, languages: list[str | None], config: NsfwConfig) -> np.ndarray:
    """Counts of listed, adult and reference words: int64 [n, 3, 5] (`listed_words.COUNTS`).

    Args:
        texts: large strings without nulls.
        languages: of each text; None: the language of a list whose function words stand in it, else every list applies.
    """
    known = word_lists(config.word_lists)
    if config.word_lists:
        languages = _guessed(texts, languages, known.names)
    bits = {language: known.bits(language) for language in set(languages)}
    listed = np.array([bits[language] for language in languages], np.uint64)
    others = [np.full(len(languages), 1 << bit, np.uint64) for bit in (_ADULT, _REFERENCE)]
    parts, done = [np.zeros((0, 3, len(listed_words.COUNTS)), np.int64)], 0
    for chunk in texts.chunks:
        groups = [group[done : done + len(chunk)] for group in (listed, *others)]
        parts.append(listed_words.count(known.trie, chunk, groups))
        done += len(chunk)
    return np.concatenate(parts)


def _guessed(texts: pa.ChunkedArray, languages: list[str | None], names: tuple[str, ...]) -> list[str | None]:
    """Languages, those that are not known by function words: everyday words of one language are on lists of others."""
    rows = [row for row, language in enumerate(languages) if language is None]
    guessed = list(languages)
    candidates = [(name, wanted) for name in names if name and (wanted := stopwords.of(name))]
    starts = pc.utf8_slice_codeunits(texts.take(pa.array(rows, pa.int64())), 0, _GUESSED_FROM)
    for row, start in zip(rows, starts.to_pylist(), strict=True):
        text = start.lower()
        words = set(text.split())
        shares = [
            (sum(w in text for w in wanted) if name in stopwords.UNSPACED else len(wanted & words))
            / len(wanted)
            for name, wanted in candidates
        ]
        best = max(shares, default=0.0)
        if best >= _LEAST_SHARE and shares.count(best) == 1:
            guessed[row] = candidates[shares.index(best)][0]
    return guessed


@dataclass(frozen=True)
class WordLists:
    """Word lists of several languages, with the built-in vocabulary."""

    names: tuple[str, ...]
    """Languages of the lists, by bit; "" applies to every language."""
    trie: listed_words.Trie
    """All of them."""

    def bits(self, language: str | None) -> int:
        """The lists that apply to texts of a language; all of them where it is not known."""
        if language is None:
            return (1 << len(self.names)) - 1
        base = language.split("-")[0].split("_")[0].lower()
        return sum(
            1 << bit
            for bit, name in enumerate(self.names)
            if name in ("", base) or base in _SAME_LANGUAGE.get(name, ())
        )


def word_lists(paths: tuple[str, ...]) -> WordLists:
    """Read word lists: files or folders, plain or gzip, one word or phrase a line, `#` for comments.

    A file named after a language (`de.txt`, `de`) applies to that language, any other to all.
    """
    return _read(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in lists.files(paths)))


@functools.lru_cache(maxsize=2)
def _read(stamps: tuple[tuple[str, int, int], ...]) -> WordLists:
    """Lists by path, size and time, so that one that is edited is read again."""
    found: dict[str, list[str]] = {}
    for path, _, _ in stamps:
        stem = Path(path).name.removesuffix(".gz").removesuffix(".txt")
        language = stem if _LANGUAGE_FILE.fullmatch(stem) else ""
        found.setdefault(language, []).extend(entry for _, entry in lists.entries(Path(path)))
    names = tuple(sorted(found))
    if len(names) > listed_words.MAX_LISTS:
        raise ValueError(
            f"word lists of {len(names)} languages; at most {listed_words.MAX_LISTS} fit: put some into one file"
        )
    phrases = [(phrase, bit) for bit, name in enumerate(names) for phrase in found[name]]
    phrases += [(word, _ADULT) for word in ADULT.split()] + [(word, _REFERENCE) for word in REFERENCE.split()]
    return WordLists(names, listed_words.build(phrases))

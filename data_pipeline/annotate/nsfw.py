"""NSFW signals: density of listed words, a classifier. URL block lists are `annotate.url`.

The signals of a page are kept apart, as every one of them errs in its own way: lists know hosts and miss new ones, words
hit dictionaries and medicine, classifiers err at the margin. The policy combines them.
"""

from __future__ import annotations

import functools
import gzip
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import NsfwConfig
from data_pipeline.classify.fasttext import Classifier

NSFW = "nsfw"
SCHEMA = pa.schema([("id", pa.string()), ("word_density", pa.float32()), ("score", pa.float32())])

# Scripts in which words are not set apart by spaces, or take their endings without one: matched by substring, and
# every character counts as one word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(r"\w+")
_LANGUAGE_FILE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?")
_SAME_LANGUAGE = {"no": ("no", "nb", "nn"), "fil": ("fil", "tl"), "zh": ("zh", "yue", "wuu")}
_NOT_LISTS = ("license", "licence", "readme", "copying")


def annotate(documents: pa.Table, config: NsfwConfig, model: Path | None) -> pa.Table:
    """NSFW signals, row-aligned with `documents` (columns `id`, `language`, `text`).

    Returns:
        id; word_density (float32, words that belong to a listed word or phrase ÷ words; null without word lists); score
        (float32, P(nsfw) of the classifier; null without a model). Word lists of one language apply to documents of
        that language, and to those whose language is null.

    Raises:
        FileNotFoundError, ValueError: a list that is missing, empty or not UTF-8; a model without label `nsfw`.
    """
    n = len(documents)
    texts = [text or "" for text in documents["text"].to_pylist()]
    densities, scores = pa.nulls(n, pa.float32()), pa.nulls(n, pa.float32())
    if config.word_lists:
        languages = documents["language"].to_pylist()
        words = word_lists(config.word_lists)
        densities = pa.array(
            [words.density(text, language) for text, language in zip(texts, languages, strict=True)],
            pa.float32(),
        )
    if model is not None:
        classifier = Classifier(model, config.classifier.max_characters)
        values = classifier.scores(texts)[:, classifier.column(NSFW)]
        scores = pa.array(values, pa.float32(), mask=np.isnan(values))
    return pa.table([documents["id"], densities, scores], schema=SCHEMA)


@dataclass(frozen=True)
class WordLists:
    """Words and phrases by language; the key "" holds those of every language."""

    languages: dict[str, Phrases]
    everything: Phrases
    """All of them at once, for texts whose language is not known."""

    def density(self, text: str, language: str | None) -> float:
        """Share of a text's words that belong to a listed word or phrase, 0..1."""
        folded = fold(text)
        tokens = _WORD.findall(folded)
        unspaced = len(_UNSPACED_CHARACTER.findall(folded))
        total = (
            sum(1 for t in tokens if not _UNSPACED_CHARACTER.match(t)) + unspaced if unspaced else len(tokens)
        )
        if language is None:
            lists = [self.everything]
        else:
            base = language.split("-")[0].split("_")[0].lower()
            keys = [k for k in self.languages if k in ("", base) or base in _SAME_LANGUAGE.get(k, ())]
            lists = [self.languages[k] for k in keys]
        hit = bytearray(len(tokens))
        substrings = bytearray(len(folded)) if any(p.substrings for p in lists) else bytearray()
        symbols = 0
        for phrases in lists:
            phrases.mark(tokens, hit)
            symbols += phrases.mark_substrings(folded, substrings)
        found = sum(hit) + sum(substrings)
        return min(1.0, found / max(total + symbols, 1))


@dataclass(frozen=True)
class Phrases:
    """Listed words of one language."""

    starts: dict[str, tuple[tuple[str, ...], ...]]
    """First word → phrases that start with it, longest first."""
    substrings: re.Pattern[str] | None
    """Phrases of scripts without spaces and of symbols, longest first."""

    def mark(self, tokens: Sequence[str], hit: bytearray) -> None:
        """Set `hit[i]` where token i belongs to a phrase."""
        starts = self.starts
        for i, token in enumerate(tokens):
            if token not in starts:
                continue
            for phrase in starts[token]:
                end = i + len(phrase)
                if tuple(tokens[i:end]) == phrase:
                    hit[i:end] = b"\1" * len(phrase)
                    break

    def mark_substrings(self, folded: str, hit: bytearray) -> int:
        """Set `hit[i]` where character i belongs to a phrase; returns how many of them are no word of the text."""
        if self.substrings is None:
            return 0
        symbols = 0
        for match in self.substrings.finditer(folded):
            for i in range(match.start(), match.end()):
                symbols += not hit[i] and not _UNSPACED_CHARACTER.match(folded[i])
                hit[i] = 1
        return symbols


def fold(text: str) -> str:
    """Text as words are compared: composed (NFC) and case-folded, so `SCHEISSE` equals `scheiße`."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def phrases(lines: Iterable[str]) -> Phrases:
    """Phrases from lines of a list; empty lines are left out."""
    starts: dict[str, set[tuple[str, ...]]] = {}
    substrings: set[str] = set()
    for line in lines:
        folded = fold(line.strip())
        words = tuple(_WORD.findall(folded))
        if not folded:
            continue
        if not words or _UNSPACED_CHARACTER.search(folded):
            substrings.add(folded)
        else:
            starts.setdefault(words[0], set()).add(words)
    pattern = "|".join(re.escape(s) for s in sorted(substrings, key=lambda s: (-len(s), s)))
    return Phrases(
        starts={
            first: tuple(sorted(found, key=lambda p: (-len(p), p))) for first, found in sorted(starts.items())
        },
        substrings=re.compile(pattern) if pattern else None,
    )


def word_lists(paths: tuple[str, ...]) -> WordLists:
    """Read word lists: files or folders, plain or gzip, one word or phrase a line.

    A file named after a language (`de.txt`, `de`) applies to that language, any other to all.
    """
    return _read_words(_stamps(paths))


_Stamps = tuple[tuple[str, int, int], ...]


def _stamps(paths: tuple[str, ...]) -> _Stamps:
    """Files of the lists with size and time, so that a list that is edited is read again."""
    files: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            inside = [
                p
                for p in sorted(path.rglob("*"))
                if p.is_file() and not p.name.startswith(".") and p.suffix in ("", ".txt", ".gz")
            ]
            inside = [p for p in inside if not p.name.lower().startswith(_NOT_LISTS)]
            if not inside:
                raise ValueError(f"the list folder {path} holds no list (a text file, plain or .gz)")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"the list {path} does not exist; expected a file or folder")
    return tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)


def _lines(path: str) -> list[str]:
    try:
        raw = Path(path).read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the list {path} is not UTF-8 (byte {error.start})") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"the list {path} is a damaged gzip file: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


@functools.lru_cache(maxsize=2)
def _read_words(stamps: _Stamps) -> WordLists:
    lines: dict[str, list[str]] = {}
    for path, _, _ in stamps:
        stem = Path(path).name.removesuffix(".gz").removesuffix(".txt")
        language = stem if _LANGUAGE_FILE.fullmatch(stem) else ""
        lines.setdefault(language, []).extend(_lines(path))
    return WordLists(
        languages={language: phrases(found) for language, found in sorted(lines.items())},
        everything=phrases(line for found in lines.values() for line in found),
    )

"""NSFW signals: URL block lists, density of listed words, a classifier.

The three signals of a page are kept apart, as every one of them errs in its own way: lists know hosts and miss new
ones, words hit dictionaries and medicine, classifiers err at the margin. The policy combines them.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import NsfwConfig
from data_pipeline.classify.fasttext import Classifier

NSFW = "nsfw"
SCHEMA = pa.schema(
    [("id", pa.string()), ("url_hit", pa.bool_()), ("word_density", pa.float32()), ("score", pa.float32())]
)

# Scripts in which words are not set apart by spaces, or take their endings without one: matched by substring, and
# every character counts as one word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(r"\w+")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+\.?")
_EXPRESSION = re.compile(r"[()\[\]|*^$\\]")
_LANGUAGE_FILE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?")
_SAME_LANGUAGE = {"no": ("no", "nb", "nn"), "fil": ("fil", "tl"), "zh": ("zh", "yue", "wuu")}
_NOT_LISTS = ("license", "licence", "readme", "copying")


def annotate(documents: pa.Table, config: NsfwConfig, model: Path | None) -> pa.Table:
    """NSFW signals, row-aligned with `documents` (columns `id`, `url`, `language`, `text`).

    Returns:
        id; url_hit (bool; null without URL lists or without a URL); word_density (float32, words that belong to a
        listed word or phrase ÷ words; null without word lists); score (float32, P(nsfw) of the classifier; null
        without a model). Word lists of one language apply to documents of that language, and to those whose
        language is null.

    Raises:
        FileNotFoundError, ValueError: a list that is missing, empty or not UTF-8; a model without label `nsfw`.
    """
    n = len(documents)
    texts = [text or "" for text in documents["text"].to_pylist()]
    hits, densities, scores = pa.nulls(n, pa.bool_()), pa.nulls(n, pa.float32()), pa.nulls(n, pa.float32())
    if config.url_lists:
        urls = url_list(config.url_lists)
        hits = pa.array([urls.hit(url) if url else None for url in documents["url"].to_pylist()], pa.bool_())
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
    return pa.table([documents["id"], hits, densities, scores], schema=SCHEMA)


@dataclass(frozen=True)
class UrlList:
    """Hosts, URL prefixes, URL parts and expressions that mark a URL."""

    hosts: frozenset[str]
    """Host names without `www.`; each covers its subdomains."""
    prefixes: frozenset[str]
    """`host/path` starts."""
    parts: frozenset[str]
    """Words that mark a URL where they stand between other characters than letters and digits."""
    expressions: tuple[re.Pattern[str], ...]
    """Regular expressions searched in host and path."""

    def hit(self, url: str) -> bool:
        """Whether a URL is listed: by its host or a parent domain, a prefix, a part, or an expression."""
        host, rest = _split_url(url)
        labels = host.split(".")
        if any(".".join(labels[i:]) in self.hosts for i in range(len(labels))):
            return True
        address = host + rest
        if self.prefixes and any(p in self.prefixes for p in _path_starts(address)):
            return True
        if self.parts and not self.parts.isdisjoint(re.split(r"[\W_]+", unquote(address))):
            return True
        return any(expression.search(address) for expression in self.expressions)


def _split_url(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url if "://" in url else "//" + url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:  # A malformed port or IPv6 address: its text can still be searched.
        return "", url.lower()
    if not host.isascii():
        with contextlib.suppress(UnicodeError):  # an impossible international name stays as it is written
            host = host.encode("idna").decode("ascii")
    rest = parts.path + ("?" + parts.query if parts.query else "")
    return host.removeprefix("www."), rest.lower()


def _path_starts(address: str) -> Iterator[str]:
    """`host/a/b?c` → host/a/b?c, host/a/b, host/a: what a listed URL may be a whole-segment start of."""
    yield address.rstrip("/")
    ends = [m.start() for m in re.finditer(r"[/?]", address)]
    for end in reversed(ends):
        yield address[:end]


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


def url_list(paths: tuple[str, ...]) -> UrlList:
    """Read URL lists: files or folders, plain or gzip, one entry a line.

    An entry is a host (`example.com`), a URL start (`example.com/path`), a regular expression (it holds one of
    ``()[]|*^$\\``), or a word that stands alone in a URL. `#` starts a comment line.
    """
    return _read_urls(_stamps(paths))


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
def _read_urls(stamps: _Stamps) -> UrlList:
    hosts: set[str] = set()
    prefixes: set[str] = set()
    parts: set[str] = set()
    expressions: list[re.Pattern[str]] = []
    for path, _, _ in stamps:
        for number, line in enumerate(_lines(path), 1):
            entry = line.lower()
            if entry.startswith("#"):
                continue
            if _HOST.fullmatch(entry):
                hosts.add(entry.rstrip(".").removeprefix("www."))
            elif _EXPRESSION.search(entry):
                try:
                    expressions.append(re.compile(entry))
                except re.error as error:
                    raise ValueError(
                        f"{path}, line {number}: {line!r} is no regular expression: {error}"
                    ) from None
            elif "/" in entry:
                host, rest = _split_url(entry)
                if rest.strip("/"):
                    prefixes.add((host + rest).rstrip("/"))
                elif host:
                    hosts.add(host)
            else:
                parts.add(entry)
    return UrlList(frozenset(hosts), frozenset(prefixes), frozenset(parts), tuple(expressions))


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

"""Words, lines, sentences, normalised text and hashes of a document, computed once and shared by all signals.

Words are found by one compiled expression instead of a language-specific tokeniser: runs of letters, digits and
inner apostrophes, single ideographs (a Chinese or Japanese sentence is not one word), and runs of equal punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import regex
import xxhash

PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
"""Characters that make no word, after the union used by published Gopher filters."""

_IDEOGRAPH = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"[{_IDEOGRAPH}]|[\p{{L}}\p{{M}}\p{{N}}_--[{_IDEOGRAPH}]]+(?:['’.-][\p{{L}}\p{{M}}\p{{N}}_--[{_IDEOGRAPH}]]+)*|([^\s\p{{L}}\p{{M}}\p{{N}}])\1*",
    regex.V1,
)
_PLAIN_WORD = re.compile(r"\w+(?:['’.-]\w+)*|([^\s\w])\1*")
"""Finds what `_WORD` finds in texts of plain characters, in a third of the time."""
_WORD_CHARACTER = regex.compile(r"[\p{L}\p{M}\p{N}_]")
_UNSPACED_CHARACTER = regex.compile(rf"[{_IDEOGRAPH}]")
_NORMAL_WORD = regex.compile(r"\w+")
_SENTENCE = regex.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+")
_PARAGRAPHS = regex.compile(r"\n{2,}")
_LINES = regex.compile(r"\n+")
_SPACE = regex.compile(r"\s+")


def words(text: str) -> np.ndarray:
    """Hashes of the normalised words of a text: uint64 [n], xxh3-64 of each lower-cased run of word characters.

    This is what near-duplicate shingles are made of; equal words have equal hashes on every machine.
    """
    cache: dict[str, int] = {}
    found = _NORMAL_WORD.findall(text.lower())
    hashes = np.empty(len(found), np.uint64)
    for i, word in enumerate(found):
        value = cache.get(word)
        if value is None:
            value = cache[word] = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        hashes[i] = value
    return hashes


def normalise(text: str) -> str:
    """NFKC, lower case, white space collapsed: texts equal under it are exact duplicates."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip()


def content_hash(text: str) -> str:
    """xxh3-128 of the normalised text, 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(normalise(text).encode("utf-8", "surrogatepass"))


def sentences(line: str) -> int:
    """Number of sentences in a line: terminal punctuation followed by space, and the rest where there is any."""
    count, end = 0, 0
    for match in _SENTENCE.finditer(line):
        count, end = count + 1, match.end()
    return count + bool(line[end:].strip())


@cache
def _is_plain(character: str) -> bool:
    """Whether `re` sees a character as `_WORD` does: no ideograph, no mark, no space of only one of them."""
    if _UNSPACED_CHARACTER.match(character):
        return False
    is_word = _WORD_CHARACTER.match(character) is not None
    is_space = regex.match(r"\s", character) is not None
    return is_word == (character.isalnum() or character == "_") and is_space == character.isspace()


@dataclass(frozen=True)
class Analysis:
    """What the signals of one document look at. Every part is computed at most once, when it is first asked for."""

    text: str
    """Text of the document."""

    @cached_property
    def words(self) -> list[str]:
        """Words and punctuation runs, in order."""
        if all(map(_is_plain, self.characters)):
            return [m[0] for m in _PLAIN_WORD.finditer(self.text)]
        return [m.group() for m in _WORD.finditer(self.text)]

    @cached_property
    def characters(self) -> Counter[str]:
        """How often each character occurs."""
        return Counter(self.text)

    @cached_property
    def spaced(self) -> list[str]:
        """Words as white space separates them, punctuation included."""
        return self.text.split()

    @cached_property
    def lexical(self) -> list[str]:
        """Words with at least one character that is no punctuation."""
        return [w for w in self.words if w[0].isalnum() or any(c not in PUNCTUATION for c in w)]

    @cached_property
    def lines(self) -> list[str]:
        """Lines, empty ones included."""
        return self.text.splitlines()

    @cached_property
    def filled_lines(self) -> list[str]:
        """Pieces between runs of line feeds."""
        return _LINES.split(self.text)

    @cached_property
    def paragraphs(self) -> list[str]:
        """Pieces between two or more line feeds."""
        return _PARAGRAPHS.split(self.text.strip())

    @cached_property
    def normalised(self) -> str:
        """Text as exact deduplication compares it."""
        return normalise(self.text)

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of UTF-8."""
        return len(self.text.encode("utf-8", "surrogatepass"))

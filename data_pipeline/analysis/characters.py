"""What every character is, as bits of one table over Unicode, so that a kernel asks once a character."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import regex

SPACE = 1 << 0
"""`str.isspace`."""
ALPHA = 1 << 1
"""`str.isalpha`."""
ALNUM = 1 << 2
"""`str.isalnum`."""
DECIMAL = 1 << 3
"""`str.isdecimal`."""
UPPER = 1 << 4
"""`str.isupper`."""
PUNCTUATION = 1 << 5
"""General category P."""
SYMBOLIC = 1 << 6
"""Makes no word by itself: punctuation of the published Gopher filters, ends of sentences, control characters."""
TERMINAL = 1 << 7
"""Ends a sentence in some script."""
BREAK = 1 << 8
"""Ends a line for `str.splitlines`."""
LOWER_LETTER = 1 << 9
"""Letter that may stand before a full stop that ends a word: lower case, or of a script without case."""
UPPER_LETTER = 1 << 10
"""Letter in upper case, or of a script without case."""
LETTER = 1 << 11
"""Letter for the affix rules."""
ICON = 1 << 12
"""Pictograms and other symbols: a word each."""
AFFIX = 1 << 13
"""Punctuation and quotation marks that are split off either end of a word."""
PREFIX = 1 << 14
"""Split off the beginning of a word."""
QUOTE = 1 << 15
"""Quotation marks."""
STOP_BEFORE = 1 << 16
"""A full stop after it is a word of its own."""
UNSPACED = 1 << 17
"""Of scripts written without spaces: a word each."""
HOST = 1 << 18
"""Letters and digits of host names."""
ENCODED = 1 << 19
"""Of base64, hexadecimal and escaped bytes."""
DIGIT = 1 << 20
"""0 to 9."""
WORD = 1 << 21
"""`\\w`: of normalised words."""

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+"
_GOPHER = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
_MARKS = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_LAST = 0x32400
_ASSIGNED = np.concatenate([np.arange(0xD800), np.arange(0xE000, _LAST), np.arange(0xE0000, 0xE0200)])
"""Code points that may have a class; what lies between is unassigned or private."""


@cache
def table() -> np.ndarray:
    """Bits of every code point: uint32 [0x110000]."""
    every = _ASSIGNED.astype("<u4").tobytes().decode("utf-32-le")
    found = np.zeros(sys.maxunicode + 1, np.uint32)

    def add(bit: int, characters: str) -> None:
        found[np.frombuffer(characters.encode("utf-32-le"), "<u4")] |= np.uint32(bit)

    def add_where(bit: int, pattern: str) -> None:
        for match in regex.finditer(pattern, every, regex.V1):
            found[_ASSIGNED[match.start() : match.end()]] |= np.uint32(bit)

    for bit, belongs in (
        (SPACE, str.isspace),
        (ALPHA, str.isalpha),
        (ALNUM, str.isalnum),
        (DECIMAL, str.isdecimal),
        (UPPER, str.isupper),
    ):
        found[_ASSIGNED[np.fromiter(map(belongs, every), bool, len(every))]] |= np.uint32(bit)
    add_where(PUNCTUATION, r"\p{P}+")
    add_where(TERMINAL, r"[\p{Sentence_Terminal}--[․⳹-⳻]]+")
    add(TERMINAL, "៖៙៚")
    add(SYMBOLIC, _GOPHER + "".join(map(chr, (*range(9), *range(11, 32), *range(127, 160)))))
    found[found & TERMINAL > 0] |= np.uint32(SYMBOLIC)
    add(BREAK, _BREAKS)
    add_where(LETTER | LOWER_LETTER, r"[\p{Ll}\p{Lo}\p{Lm}]+")
    add_where(LETTER | UPPER_LETTER, r"[\p{Lu}\p{Lt}\p{Lo}]+")
    # Many scripts cannot be written without marks: there they are letters. Ordinals and the micro sign are none.
    add_where(LETTER, r"[\p{M}--[\u0300-\u058f]]+")
    for character in "ªºµ":
        found[ord(character)] &= ~np.uint32(LETTER | LOWER_LETTER | UPPER_LETTER)
    add_where(ICON, r"\p{So}+")
    add(AFFIX, _MARKS + _QUOTES + "—–")
    found[found & ICON > 0] |= np.uint32(AFFIX)
    found[found & AFFIX > 0] |= np.uint32(PREFIX)
    add(PREFIX, "§%=" + _CURRENCY)
    add(QUOTE, _QUOTES)
    add(DIGIT, "0123456789")
    add(STOP_BEFORE, _MARKS + _QUOTES + "%²-+|")
    found[found & (LOWER_LETTER | DIGIT) > 0] |= np.uint32(STOP_BEFORE)
    add_where(UNSPACED, _UNSPACED)
    add(HOST, "".join(map(chr, (*range(48, 58), *range(65, 91), *range(97, 123)))))
    found[0xA1:0x10000] |= np.uint32(HOST)
    add(ENCODED, "".join(map(chr, (*range(48, 58), *range(65, 91), *range(97, 123)))) + "+/=\\")
    found[found & ALNUM > 0] |= np.uint32(WORD)
    add(WORD, "_")
    return found

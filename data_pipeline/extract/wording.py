"""Text of blocks → counts: characters, words, punctuation, how it begins and ends, what its words weigh.

Bytes of UTF-8 are read as they are: no text is decoded.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import kernel, subroutine
from data_pipeline.extract.layout import BEGIN, STOP
from data_pipeline.extract.markup import lookup

# Columns.
(
    CHARS, WORDS, COMMAS, STOPS, DIGITS, UPPER, LINES, MARKS, ENDS, FIRST, LETTERS, TITLE_SHARE, HASH, MIDS, TONE,
) = range(15)  # fmt: skip
TEXT_COLUMNS = 15


@subroutine
def _hash_word(h, c):
    return ((h ^ c) * 16777619) & 0xFFFFFFFF


@kernel("float64[:,::1](uint8[::1], int32[:,::1], uint8[::1], uint32[:,::1], float32[::1])")
def text_features(text, blocks, title, vocabulary, weights):
    """Counts in the text of every block, float64 [B, TEXT_COLUMNS]."""
    n = len(blocks)
    x = np.zeros((n, TEXT_COLUMNS))
    known = np.zeros(64, np.int64)
    n_known = 0
    h = 2166136261
    for i in range(len(title) + 1):
        c = np.int64(title[i]) if i < len(title) else 32
        if 65 <= c <= 90:
            c += 32
        if 97 <= c <= 122 or 48 <= c <= 57 or c >= 128:
            h = _hash_word(h, c)
        elif h != 2166136261:
            if n_known < 64:
                known[n_known] = h
                n_known += 1
            h = 2166136261
    for b in range(n):
        chars = words = commas = stops = digits = upper = lines = letters = marks = mids = 0
        cjk = in_title = spoken = 0
        tone = 0.0
        h = 2166136261
        whole = 2166136261
        begin, end = blocks[b, BEGIN], blocks[b, STOP]
        space = True
        for i in range(begin, end + 1):
            c = np.int64(text[i]) if i < end else 32
            if c >= 128:
                if c >= 0xC0:
                    chars += 1
                    letters += 1
                    if 0xE3 <= c <= 0xED:
                        cjk += 1
                        if c == 0xE3 and i + 2 < end and text[i + 1] == 0x80:
                            if text[i + 2] == 0x82:  # ideographic full stop
                                stops += 1
                                letters -= 1
                            elif text[i + 2] == 0x81:
                                commas += 1
                                letters -= 1
                        elif c == 0xEF:
                            pass
                    elif c == 0xE2 and i + 2 < end and text[i + 1] == 0x80:
                        letters -= 1
                        if text[i + 2] == 0xA6:  # …
                            marks += 1
                        elif text[i + 2] == 0xBA or text[i + 2] == 0xA2:  # › •
                            mids += 1
                    elif c == 0xC2:
                        letters -= 1
                        if i + 1 < end and (text[i + 1] == 0xA9 or text[i + 1] == 0xAE):  # © ®
                            marks += 1
                        elif i + 1 < end and (
                            text[i + 1] == 0xB7 or text[i + 1] == 0xBB or text[i + 1] == 0xAB
                        ):
                            mids += 1
                    elif c == 0xEF and i + 2 < end and text[i + 1] == 0xBC:
                        if text[i + 2] == 0x8C:
                            commas += 1
                        elif text[i + 2] == 0x81 or text[i + 2] == 0x9F:
                            stops += 1
                if space:
                    words += 1
                    space = False
                h = _hash_word(h, c)
                whole = _hash_word(whole, c)
                continue
            if 65 <= c <= 90:
                upper += 1
                c += 32
            if 97 <= c <= 122 or 48 <= c <= 57:
                chars += 1
                if c < 58:
                    digits += 1
                else:
                    letters += 1
                if space:
                    words += 1
                    space = False
                h = _hash_word(h, c)
                if c > 57:
                    whole = _hash_word(whole, c)
                continue
            if h != 2166136261:
                if spoken < 200:
                    spoken += 1
                    found = lookup(vocabulary, h)
                    if found >= 0:
                        tone += weights[found]
                if words <= 40:
                    for k in range(n_known):
                        if known[k] == h:
                            in_title += 1
                            break
                h = 2166136261
            if c <= 32:
                space = True
                if c == 10 and i < end:
                    lines += 1
                continue
            chars += 1
            if c == 44 or c == 59:
                commas += 1
            elif c == 46 or c == 33 or c == 63:
                nxt = text[i + 1] if i + 1 < end else 32
                if nxt <= 32 or nxt == 34 or nxt == 39 or nxt >= 0xE2:
                    stops += 1
            elif c == 64 or c == 95 or c == 123 or c == 125 or c == 61:
                marks += 1
            elif c == 124 or c == 47 or c == 62 or c == 43:
                mids += 1
        last = np.int64(text[end - 1])
        j = end - 1
        while j > begin and (last == 34 or last == 39 or last == 41 or last == 93):
            j -= 1
            last = np.int64(text[j])
        ends = 0
        if last == 46 or last == 33 or last == 63:
            ends = 1
            if j >= begin + 2 and text[j - 1] == 46 and text[j - 2] == 46:
                ends = 3
        elif last == 58:
            ends = 2
        elif last == 44 or last == 59:
            ends = 4
        elif end - begin >= 3 and text[j - 2] == 0xE2 and text[j - 1] == 0x80:
            ends = 3 if last == 0xA6 else (1 if last == 0x9D or last == 0x9C or last == 0x99 else 0)
        elif (
            (end - begin >= 3 and text[j - 2] == 0xE3 and text[j - 1] == 0x80 and last == 0x82)
            or (
                end - begin >= 3
                and text[j - 2] == 0xEF
                and text[j - 1] == 0xBC
                and (last == 0x81 or last == 0x9F)
            )
            or (last == 187 and text[j - 1] == 0xC2)
        ):
            ends = 1
        first = np.int64(text[begin])
        kind = 0
        if 65 <= first <= 90:
            kind = 1
        elif 97 <= first <= 122:
            kind = 2
        elif 48 <= first <= 57:
            kind = 3
        elif first >= 0xC3:
            kind = 1
        else:
            kind = 4
        words = max(words, cjk // 2)
        x[b, CHARS] = max(chars, 1)
        x[b, WORDS] = max(words, 1)
        x[b, COMMAS] = commas
        x[b, STOPS] = stops
        x[b, DIGITS] = digits
        x[b, UPPER] = upper
        x[b, LINES] = lines
        x[b, MARKS] = marks
        x[b, ENDS] = ends
        x[b, FIRST] = kind
        x[b, LETTERS] = letters
        x[b, TITLE_SHARE] = in_title / max(words, n_known, 1) if words <= 40 else 0.0
        x[b, HASH] = whole
        x[b, MIDS] = mids
        x[b, TONE] = tone / np.sqrt(max(spoken, 1))
    return x

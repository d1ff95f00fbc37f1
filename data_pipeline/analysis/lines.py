"""Rules about single lines: what C4, FineWeb, RefinedWeb and Llama 3 say of each, and which characters they would delete."""

from __future__ import annotations

import numpy as np
from numba import int64, uint32, uint64

from data_pipeline.analysis.characters import (
    ALNUM,
    ALPHA,
    BREAK,
    DECIMAL,
    PUNCTUATION,
    SPACE,
    TERMINAL,
    UPPER,
)
from data_pipeline.analysis.phrase_hashes import OFFSET, PRIME, extend
from data_pipeline.analysis.phrases import (
    ANYWHERE,
    BEGIN,
    CITATION,
    COUNTED,
    CURLY,
    END,
    LOREM,
    NOTICES,
    POLICY,
    SCRIPT,
)
from data_pipeline.analysis.word_rules import find, mix
from data_pipeline.compiled import kernel, small

COLUMNS = (
    "c4_long",
    "c4_unterminated",
    "c4_short",
    "c4_script",
    "c4_policy",
    "c4_kept",
    "c4_kept_chars",
    "c4_lorem",
    "c4_curly",
    "c4_sentences",
    "fw_lorem",
    "fw_curly",
    "fw_sentences",
    "fw_kept",
    "fw_kept_chars",
    "rw_upper",
    "rw_numeric",
    "rw_counter",
    "rw_single",
    "rw_leftover",
    "rw_words",
    "words",
    "filled",
    "repetitive_lines",
    "repetitive_chars",
    "covered_chars",
    "word_chars",
)
"""Columns of `judge`: lines that each rule drops (the first that applies counts), and what is left of the text."""
(
    C4_LONG,
    C4_UNTERMINATED,
    C4_SHORT,
    C4_SCRIPT,
    C4_POLICY,
    C4_KEPT,
    C4_KEPT_CHARS,
    C4_LOREM,
    C4_CURLY,
    C4_SENTENCES,
    FW_LOREM,
    FW_CURLY,
    FW_SENTENCES,
    FW_KEPT,
    FW_KEPT_CHARS,
    RW_UPPER,
    RW_NUMERIC,
    RW_COUNTER,
    RW_SINGLE,
    RW_LEFTOVER,
    RW_WORDS,
    WORDS,
    FILLED,
    REPETITIVE_LINES,
    REPETITIVE_CHARS,
    COVERED_CHARS,
    WORD_CHARS,
) = range(len(COLUMNS))
C4, FINEWEB, REFINEDWEB, LLAMA3 = 0, 1, 2, 3
"""Sets of proposed edits."""
MAX_WORD = 1000
MIN_WORDS = 3
SHORT_LINE = 10
MIN_COVERAGE_WORDS = 30
MAX_COVERAGE = 0.6
_EDIT = np.array(list(map(ord, "[edit]")), np.uint32)
_NEEDED = np.array(list(map(ord, "[citation needed]")), np.uint32)
_TRIGGER = np.zeros((32, 32), np.uint8)
for _phrase in NOTICES:
    _TRIGGER[ord(_phrase[0]) & 31, ord(_phrase[1]) & 31] = 1


@small(uint32(uint32))
def _lower(c):
    """Lower case, for comparison with ASCII phrases: of other letters only the Kelvin sign becomes one."""
    if 0x41 <= c <= 0x5A:
        return c + uint32(32)
    return uint32(0x6B) if c == 0x212A else c


@small("int64(uint32[::1], int64[::1], uint32[::1], int32[:, ::1], int64[::1])")
def split(cps, bounds, flags, lines, of):
    """Lines as `str.splitlines` finds them: beginning, end, beginning of what follows; their number.

    Args:
        lines: int32 [n, 3], written; `of`: int64 [d + 1], where the lines of documents begin in it, written.
    """
    n = 0
    of[0] = 0
    for d in range(len(bounds) - 1):
        i, b = bounds[d], bounds[d + 1]
        line = i
        while i < b:
            if flags[cps[i]] & BREAK:
                end = i
                i += 2 if cps[i] == 13 and i + 1 < b and cps[i + 1] == 10 else 1
                lines[n, 0], lines[n, 1], lines[n, 2] = line, end, i
                n += 1
                line = i
            else:
                i += 1
        if line < b:
            lines[n, 0], lines[n, 1], lines[n, 2] = line, b, b
            n += 1
        of[d + 1] = n
    return n


@small("void(int32[:, ::1], int64, int32[::1], int64, int32[::1])")
def number(lines, n_lines, start, n_words, line_of):
    """Number of the line of each word, into `line_of`."""
    line = 0
    for w in range(n_words):
        while line + 1 < n_lines and lines[line, 2] <= start[w]:
            line += 1
        line_of[w] = line


@small("int64(uint32[::1], uint32[::1], int64, int64)")
def _citation(cps, flags, i, b):
    """Characters of `[12]`, `[]`, `[edit]` or `[citation needed]` at `i`, or 0."""
    k = i + 1
    while k < b and flags[cps[k]] & DECIMAL:
        k += 1
    if k < b and cps[k] == 0x5D:
        return k + 1 - i
    for noted in (_EDIT, _NEEDED):
        k = 0
        while k < len(noted) and i + k < b and cps[i + k] == noted[k]:
            k += 1
        if k == len(noted):
            return k
    return 0


@small("int64(uint32[::1], uint32[::1], int64, int64, uint32[::1], int64[:, ::1])")
def _without_citations(cps, flags, a, b, rest, found):
    """Copy a line without citations; characters left. `found[0]`: all but citations and spaces at its ends."""
    size, i = 0, a
    found[0, 0] = found[0, 1] = b
    while i < b:
        cited = _citation(cps, flags, i, b) if cps[i] == 0x5B else 0
        if not cited:
            rest[size] = cps[i]
            size += 1
            if not flags[cps[i]] & SPACE:
                found[0, 0] = min(found[0, 0], i)
                found[0, 1] = i + 1
        i += max(cited, 1)
    return size


@small("int64(uint32[::1], uint32[::1], int64, int64, uint32[::1], int64[:, ::1])")
def _notices(cps, flags, a, b, text, phrases):
    """Bits of what the characters `a` to `b` hold."""
    bits = 0
    for i in range(a, b - 1):
        c = cps[i]
        if c == 0x7B:
            bits |= CURLY
        elif c == 0x5B:
            if _citation(cps, flags, i, b):
                bits |= CITATION
        elif _TRIGGER[c & 31, cps[i + 1] & 31]:
            for p in range(len(phrases)):
                first, size = phrases[p, 0], phrases[p, 1] - phrases[p, 0]
                if i + size > b or _lower(c) != text[first]:
                    continue
                k = 1
                while k < size and _lower(cps[i + k]) == text[first + k]:
                    k += 1
                if k == size:
                    bits |= phrases[p, 2]
    return bits | CURLY if b > a and cps[b - 1] == 0x7B else bits


@small("boolean(uint32[::1], int64, int64)")
def _is_terminated(cps, a, b):
    """Whether a line ends with `. ? ! " '` and not with three dots."""
    if b <= a:
        return False
    c = cps[b - 1]
    if c == 0x2E:
        return not (b - 3 >= a and cps[b - 2] == 0x2E and cps[b - 3] == 0x2E)
    return c == 0x3F or c == 0x21 or c == 0x22 or c == 0x27


@small("int64(uint32[::1], uint32[::1], int32[::1], int32[::1], int64, int64, boolean)")
def sentences(cps, flags, start, length, first, last, space):
    """Sentences of the words `first` to `last`: one ends with marks, and the next begins with what is none.

    `space`: more than one space stands behind them, which counts as one more word.
    """
    found, ended = 1, False
    for k in range(first, last):
        i = int64(start[k])
        last_mark = i
        while last_mark < i + length[k] and flags[cps[last_mark]] & PUNCTUATION:
            last_mark += 1
        is_mark = last_mark == i + length[k]
        ends = length[k] == 1 and flags[cps[i]] & TERMINAL != 0
        if ended and not is_mark and not ends:
            found += 1
            ended = False
        elif ends:
            ended = True
    return found + (1 if space and ended else 0)


@small("int64(int32[:, ::1], int64, int64, int64, int64, int64, int64)")
def _propose(spans, n, kind, document, a, b, text):
    """Add a span; beyond the end of the array it is only counted."""
    if b <= a:
        return n
    if n < len(spans):
        spans[n, 0], spans[n, 1], spans[n, 2], spans[n, 3], spans[n, 4] = kind, document, a, b, text
    return n + 1


@small("int64(uint32[::1], int32[:, ::1], int64, int64, int64, int64, int64, int64, int64)")
def _keep(cps, spans, n, kind, document, begin, previous, a, b):
    """Delete what lies between the piece that was kept before, which ended at `previous`, and the one from `a` on.

    Pieces that are kept stand in lines of their own: of what lies between one line feed stays, or is put there.
    `previous` is -1 for the first piece, `a` is -1 behind the last one, which ends the text at `b`.
    """
    if previous < 0:
        return _propose(spans, n, kind, document, 0, (b if a < 0 else a) - begin, 0)
    if a < 0:
        return _propose(spans, n, kind, document, previous - begin, b - begin, 0)
    feed = previous
    while feed < a and cps[feed] != 10:
        feed += 1
    if feed == a:
        return _propose(spans, n, kind, document, previous - begin, a - begin, 1)
    n = _propose(spans, n, kind, document, previous - begin, feed - begin, 0)
    return _propose(spans, n, kind, document, feed + 1 - begin, a - begin, 0)


@small(
    "int64(uint32[::1], uint32[::1], uint64[:, ::1], int64, int64, uint64[::1], boolean[::1], int64[:, ::1])"
)
def _leftover(cps, flags, table, a, b, hashes, is_number, found):
    """Judge a line of at most ten words by RefinedWeb's patterns: COUNTED, another bit, or 0.

    `found[0]` is then the beginning and the end of the phrase.
    """
    n, i = 0, a
    while i < b:
        if flags[cps[i]] & SPACE:
            i += 1
            continue
        begin, digits, others, h = i, 0, 0, OFFSET
        while i < b and not flags[cps[i]] & SPACE:
            f = flags[cps[i]]
            if f & ALNUM:
                h = (h ^ uint64(_lower(cps[i]))) * PRIME
                digits += f & DECIMAL != 0
                others += f & DECIMAL == 0
            i += 1
        # 1,234 and 12.5K are numbers.
        if others == 0 or (
            others == 1 and flags[cps[i - 1]] & ALPHA and _lower(cps[i - 1]) in (0x6B, 0x6D, 0x62)
        ):
            is_number[n] = digits > 0
        else:
            is_number[n] = False
        if digits == 0 and others == 0:
            continue  # punctuation between words
        hashes[n], found[n + 1, 0], found[n + 1, 1] = mix(h), begin, i
        n += 1
    counted = 0
    for k in range(n):
        key = hashes[k]
        for j in range(k, n):
            if j > k:
                key = extend(key, hashes[j])
            slot = int64(key) & 4095
            while table[0, slot] != uint64(0) and table[0, slot] != key:
                slot = (slot + 1) & 4095
            if table[0, slot] == uint64(0):
                break
            bits = int64(table[1, slot])
            if bits & COUNTED and j == k:
                counted += 1
            # "Read more" and "Read more..." lead away; a sentence may end with "to read more."
            leads = bits & END and j == n - 1 and not _is_terminated(cps, a, b)
            if bits & ANYWHERE or (bits & BEGIN and k == 0) or leads:
                found[0, 0], found[0, 1] = found[k + 1, 0], found[j + 1, 1]
                return bits & (ANYWHERE | BEGIN | END)
    if counted and n <= 6:
        numbers = 0
        for k in range(n):
            numbers += is_number[k]
        if numbers > 0 and numbers + counted == n:
            return COUNTED
    return 0


@kernel(
    "int64(uint32[::1], int64[::1], uint32[::1], uint64[::1], int32[:, ::1], int64[::1], int32[::1], int32[::1], "
    "int64[::1], uint8[::1], uint32[::1], int64[:, ::1], uint64[:, ::1], int64[:, ::1], int32[:, ::1])"
)
def judge(
    cps, bounds, flags, rules, lines, of, start, length, words, covered, text, phrases, leftovers, out, spans
):
    """Count into `out` [d, len(COLUMNS)], propose edits in `spans`; the number of edits, which may exceed the array.

    Args:
        lines, of: of `split`; start, length, words: of `word_rules.find`; covered: of `repetition.n_grams`.
        text, phrases: of `phrases.notices`; leftovers: of `phrases.leftovers`.
        spans: int32 [n, 5], written: set, document, beginning and end in the document, 1 where a line feed replaces it.
    """
    n = 0
    found = np.empty((SHORT_LINE + 1, 2), np.int64)
    hashes, is_number = np.empty(SHORT_LINE + 1, np.uint64), np.zeros(SHORT_LINE + 1, np.bool_)
    for d in range(len(bounds) - 1):
        begin = bounds[d]
        row = out[d]
        row[:] = 0
        w = words[d]
        c4_end = fw_end = c4_last = fw_last = int64(-1)
        for line in range(of[d], of[d + 1]):
            a, b, following = int64(lines[line, 0]), int64(lines[line, 1]), int64(lines[line, 2])
            first = w
            while w < words[d + 1] and start[w] < following:
                w += 1
            while a < b and flags[cps[a]] & SPACE:
                a += 1
            while b > a and flags[cps[b - 1]] & SPACE:
                b -= 1
            if a == b:
                row[C4_UNTERMINATED] += 1
                continue
            pieces = longest = upper = decimal = letters = marks = 0
            i = a
            while i < b:
                begin_piece = i
                while i < b:
                    f = flags[cps[i]]
                    if f & SPACE:
                        break
                    upper += f & UPPER != 0
                    decimal += f & DECIMAL != 0
                    letters += f & ALPHA != 0
                    i += 1
                pieces += 1
                marks += i - begin_piece
                longest = max(longest, i - begin_piece)
                while i < b and flags[cps[i]] & SPACE:
                    i += 1
            row[FILLED] += 1
            row[WORDS] += pieces

            # C4, and FineWeb's use of it without the rule on terminal punctuation.
            bits = _notices(cps, flags, a, b, text, phrases)
            ended, count, size = False, 0, b - a
            # Without the citations and spaces at its ends, which go at both ends of the text.
            inner_a, inner_b = a, b
            if (longest <= MAX_WORD and pieces >= MIN_WORDS) or bits & CITATION:
                if bits & CITATION:
                    rest = np.empty(b - a, np.uint32)
                    size = _without_citations(cps, flags, a, b, rest, found)
                    inner_a, inner_b = found[0, 0], found[0, 1]
                    bits = _notices(rest, flags, 0, size, text, phrases) | CITATION
                    ended = _is_terminated(rest, 0, size)
                    room = size + 64
                    begins, sizes = np.empty(room, np.int32), np.empty(room, np.int32)
                    m = find(rest, flags, rules, 0, size, begins, sizes, np.empty(room, np.uint64), 0)
                    gap = (
                        size >= 2
                        and flags[rest[size - 1]] & SPACE != 0
                        and flags[rest[size - 2]] & SPACE != 0
                    )
                    count = sentences(rest, flags, begins, sizes, 0, max(m, int64(0)), gap)
                else:
                    ended = _is_terminated(cps, a, b)
                    count = sentences(cps, flags, start, length, first, w, False)
            else:
                ended = _is_terminated(cps, a, b)
            if longest > MAX_WORD:
                row[C4_LONG] += 1
            else:
                enough = pieces >= MIN_WORDS
                if not ended:
                    row[C4_UNTERMINATED] += 1
                elif not enough:
                    row[C4_SHORT] += 1
                if enough:
                    lorem, script = bits & LOREM != 0, bits & SCRIPT != 0
                    row[FW_LOREM] += lorem
                    row[C4_LOREM] += ended and lorem
                    if script:
                        row[C4_SCRIPT] += ended
                    else:
                        row[FW_CURLY] += bits & CURLY != 0
                        row[C4_CURLY] += ended and bits & CURLY != 0
                        if bits & POLICY:
                            row[C4_POLICY] += ended
                        else:
                            row[FW_SENTENCES] += count
                            row[FW_KEPT] += 1
                            row[FW_KEPT_CHARS] += size
                            if fw_end >= 0 or inner_a < b:  # citations alone leave an empty line
                                first_a = inner_a if fw_end < 0 else a
                                n = _keep(cps, spans, n, FINEWEB, d, begin, fw_end, first_a, b)
                                fw_end, fw_last = b, inner_b if inner_a < b else fw_last
                            if ended:
                                row[C4_SENTENCES] += count
                                row[C4_KEPT] += 1
                                row[C4_KEPT_CHARS] += size
                                n = _keep(
                                    cps, spans, n, C4, d, begin, c4_end, inner_a if c4_end < 0 else a, b
                                )
                                c4_end, c4_last = b, inner_b
                            if bits & CITATION:
                                i = a
                                while i < b:
                                    cited = _citation(cps, flags, i, b) if cps[i] == 0x5B else 0
                                    if cited:
                                        n = _propose(spans, n, FINEWEB, d, i - begin, i + cited - begin, 0)
                                        if ended:
                                            n = _propose(spans, n, C4, d, i - begin, i + cited - begin, 0)
                                    i += max(cited, 1)

            # RefinedWeb.
            if upper * 2 > marks:
                kind = RW_UPPER
            elif letters == 0 and decimal > 0:
                kind = RW_NUMERIC
            else:
                left = 0
                if pieces <= SHORT_LINE:
                    left = _leftover(cps, flags, leftovers, a, b, hashes, is_number, found)
                single = RW_SINGLE if pieces == 1 else RW_LEFTOVER if left else -1
                kind = RW_COUNTER if left & COUNTED else single
            if kind >= 0:
                row[kind] += 1
                row[RW_WORDS] += pieces
                cut_a, cut_b = int64(lines[line, 0]), following
                if kind == RW_LEFTOVER and (found[0, 0] > a or found[0, 1] < b):
                    # Of a longer line the phrase alone goes, and the spaces that would be left over.
                    cut_a, cut_b = found[0, 0], found[0, 1]
                    while cut_b < b and flags[cps[cut_b]] & SPACE:
                        cut_b += 1
                    while cut_b == b and cut_a > a and flags[cps[cut_a - 1]] & SPACE:
                        cut_a -= 1
                n = _propose(spans, n, REFINEDWEB, d, cut_a - begin, cut_b - begin, 0)

            # Llama 3: repetition within a line.
            inside = chars = 0
            for k in range(first, w):
                chars += length[k]
                if covered[k]:
                    inside += length[k]
            row[WORD_CHARS] += chars
            row[COVERED_CHARS] += inside
            if w - first >= MIN_COVERAGE_WORDS and inside > MAX_COVERAGE * chars:
                row[REPETITIVE_LINES] += 1
                row[REPETITIVE_CHARS] += b - a
                n = _propose(spans, n, LLAMA3, d, int64(lines[line, 0]) - begin, following - begin, 0)
        n = _keep(cps, spans, n, C4, d, begin, c4_last, -1, bounds[d + 1])
        n = _keep(cps, spans, n, FINEWEB, d, begin, fw_last, -1, bounds[d + 1])
    return n

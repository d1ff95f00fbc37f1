# mypy: disable-error-code="assignment"
"""UTF-8 to code points, and counts of characters, of words between white space, and of lines."""

from __future__ import annotations

from numba import int64, types, uint32

from data_pipeline.analysis.characters import (
    ALNUM,
    ALPHA,
    BREAK,
    DECIMAL,
    ENCODED,
    SPACE,
    TERMINAL,
    UNSPACED,
)
from data_pipeline.compiled import small, small_subroutine
from data_pipeline.kernels.ascii import BAR, CR, DOT, HASH, HYPHEN, LF
from data_pipeline.kernels.records import count_fields, rows

COUNTS = count_fields(
    # Characters.
    "alnum",
    "decimal",
    "space",
    "non_ascii",
    "replaced",
    "hashes",
    "newlines",
    "encoded",
    "ellipses",
    # Words between white space.
    "spaced_words",
    "alpha_spaced_words",
    # Lines as `str.splitlines` finds them.
    "lines",
    "filled_lines",
    "filled_line_chars",
    "longest_line",
    "bullet_lines",
    "ellipsis_lines",
    # Lines between line feeds.
    "third_longest_feed_line",
    "filled_feed_lines",
    "terminated_feed_lines",
    "short_feed_lines",
)
"""Counts of a document. *Filled* lines hold more than white space; *terminated* ones end with sentence punctuation."""
SHORT_LINE = 30
"""Characters of a short line (Penedo et al., 2024, section 3.6)."""
ENCODED_RUN = 120
"""Characters from which on a run looks like encoded data."""
REPLACEMENT = 0xFFFD
ELLIPSIS = ord("…")
BULLET = ord("•")


@small("int64(uint8[::1], int64[::1], uint32[::1], int64[::1])")
def decode(data, offsets, cps, bounds):
    """Code points of UTF-8 texts; the number of them. Surrogates pass, anything malformed becomes U+FFFD.

    Args:
        data: uint8, the texts one behind another; `offsets`: int64 [d + 1], where they begin.
        cps: uint32, at least as long as `data`, written; `bounds`: int64 [d + 1], where texts begin in it, written.
    """
    n = 0
    bounds[0] = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            c = uint32(data[i])
            if c < 0x80:
                cps[n] = c
                i += 1
                n += 1
                continue
            size = 4 if c >= 0xF0 else 3 if c >= 0xE0 else 2 if c >= 0xC0 else 0
            value = c & uint32(0x7F >> size)
            good = size > 0 and i + size <= end
            if good:
                for k in range(1, size):
                    follow = uint32(data[i + k])
                    good = good and follow & 0xC0 == 0x80
                    value = (value << uint32(6)) | (follow & uint32(0x3F))
            if good and value <= 0x10FFFF:
                cps[n] = value
                i += size
            else:
                cps[n] = REPLACEMENT
                i += 1
            n += 1
        bounds[d + 1] = n
    return n


@small_subroutine
def _count_characters(cps, flags, begin, end, counts):
    """Count characters by class, those in long runs that look encoded, and ellipses: `…`, each three full stops in a row."""
    alnum = decimal = space = non_ascii = replaced = hashes = newlines = encoded = ellipses = 0
    encoded_begin, last_dot, dots = begin, begin - 2, 0
    for i in range(begin, end):
        c = cps[i]
        f = flags[c]
        non_ascii += c >= 128
        if not f & ENCODED:
            encoded += i - encoded_begin if i - encoded_begin >= ENCODED_RUN else 0
            encoded_begin = i + 1
        if f & ALNUM:  # most characters: nothing else holds for them
            alnum += 1
            decimal += f & DECIMAL != 0
            continue
        space += f & SPACE != 0
        replaced += c == REPLACEMENT
        hashes += c == HASH
        newlines += c == LF
        ellipses += c == ELLIPSIS
        if c == DOT:
            dots = dots + 1 if last_dot == i - 1 else 1
            ellipses += dots % 3 == 0
            last_dot = i
    encoded += end - encoded_begin if end - encoded_begin >= ENCODED_RUN else 0
    counts.alnum, counts.decimal, counts.space, counts.non_ascii = alnum, decimal, space, non_ascii
    counts.replaced, counts.hashes, counts.newlines = replaced, hashes, newlines
    counts.encoded, counts.ellipses = encoded, ellipses


@small_subroutine
def _is_markup(cps, flags, begin, end, is_first):
    """Whether a piece is a mark that text extractors write: `-` or `12.` at the beginning of a line, `|` anywhere."""
    if end - begin == 1:
        return cps[begin] == BAR or (is_first and cps[begin] == HYPHEN)
    # A number of at most four digits and a full stop.
    if not is_first or end - begin > 5 or cps[end - 1] != DOT:
        return False
    digits = 0
    while digits < end - begin - 1 and flags[cps[begin + digits]] & DECIMAL:
        digits += 1
    return digits == end - begin - 1


@small_subroutine
def _count_spaced_words(cps, flags, begin, end, counts):
    """Count words as white space separates them, and those that hold a letter; marks of extractors are none.

    Of scripts without spaces each letter is a word, and so is what lies between them and holds a letter or a digit.
    """
    words = alpha_words = 0
    # The piece since the last white space or unspaced letter, and whether an unspaced letter precedes it directly.
    piece, piece_flags, is_first = int64(-1), uint32(0), False
    follows_letter, line_is_empty = False, True
    for i in range(begin, end + 1):
        f = flags[cps[i]] if i < end else uint32(SPACE | BREAK)
        is_letter_word = f & UNSPACED != 0 and f & ALPHA != 0
        if not f & SPACE and not is_letter_word:
            if piece < 0:
                piece, is_first = i, line_is_empty
            piece_flags |= f
            line_is_empty = False
            continue
        if is_letter_word:
            words += 1 + (piece_flags & ALNUM != 0)
            alpha_words += 1 + (piece_flags & ALPHA != 0)
        elif piece >= 0:
            if follows_letter:
                is_word = piece_flags & ALNUM != 0
            else:
                is_word = not _is_markup(cps, flags, piece, i, is_first)
            words += is_word
            alpha_words += is_word and piece_flags & ALPHA != 0
        piece, piece_flags, follows_letter = int64(-1), uint32(0), is_letter_word
        line_is_empty = (line_is_empty or f & BREAK != 0) and not is_letter_word
    counts.spaced_words, counts.alpha_spaced_words = words, alpha_words


@small_subroutine
def _count_lines(cps, flags, lines, first_line, end_line, counts):
    """Count lines by what they begin and end with; `lines`: of `split`."""
    counts.lines = end_line - first_line
    for line in range(first_line, end_line):
        begin, end = int64(lines[line, 0]), int64(lines[line, 1])
        first, last = begin, end - 1
        while first < end and flags[cps[first]] & SPACE:
            first += 1
        if first == end:
            continue
        while flags[cps[last]] & SPACE:
            last -= 1
        counts.filled_lines += 1
        counts.filled_line_chars += end - begin
        counts.longest_line = max(counts.longest_line, end - begin)
        counts.bullet_lines += cps[first] == BULLET or cps[first] == HYPHEN
        dots = last - 2 >= begin and cps[last] == DOT and cps[last - 1] == DOT and cps[last - 2] == DOT
        counts.ellipsis_lines += cps[last] == ELLIPSIS or dots


@small_subroutine
def _count_feed_lines(cps, flags, lines, first_line, end_line, begin, end, counts):
    """Count what lies between line feeds: the third longest, and FineWeb's counts of what is more than white space."""
    longest = second = third = int64(-1)
    for line in range(first_line, end_line + 1):
        # Other characters end `lines` too; after the last line feed comes the rest of the text.
        after = int64(lines[line, 2]) if line < end_line else end + 1
        if line < end_line and cps[after - 1] != LF:
            continue
        size = after - 1 - begin
        if size > longest:
            longest, second, third = size, longest, second
        elif size > second:
            second, third = size, second
        elif size > third:
            third = size
        first = begin
        while first < begin + size and flags[cps[first]] & SPACE:
            first += 1
        if first < begin + size:
            counts.filled_feed_lines += 1
            counts.terminated_feed_lines += flags[cps[begin + size - 1]] & TERMINAL != 0
            counts.short_feed_lines += size <= SHORT_LINE
        begin = after
    counts.third_longest_feed_line = max(third, int64(0))


@small(types.void(uint32[::1], int64[::1], uint32[::1], types.int32[:, ::1], int64[::1], rows(COUNTS)))
def count(cps, bounds, flags, lines, lines_of, out):
    """Count into `out` (COUNTS [d], zeros).

    Args:
        cps, bounds: uint32 [n] code points, int64 [d + 1] where documents begin in them; flags: `characters.table()`.
        lines, lines_of: of `split`.
    """
    for d in range(len(bounds) - 1):
        begin, end, counts = bounds[d], bounds[d + 1], out[d]
        _count_characters(cps, flags, begin, end, counts)
        _count_spaced_words(cps, flags, begin, end, counts)
        _count_lines(cps, flags, lines, lines_of[d], lines_of[d + 1], counts)
        _count_feed_lines(cps, flags, lines, lines_of[d], lines_of[d + 1], begin, end, counts)


@small("int64(uint32[::1], int64[::1], uint32[::1], int32[:, ::1], int64[::1])")
def split(cps, bounds, flags, lines, lines_of):
    """Lines as `str.splitlines` finds them; their number, also where `lines` has room for fewer.

    Args:
        lines: int32 [room, 3], written: beginning, end, beginning of what follows.
        lines_of: int64 [d + 1], written: where the lines of documents begin in `lines`.
    """
    n, room = 0, len(lines)
    lines_of[0] = 0
    for d in range(len(bounds) - 1):
        begin, end = bounds[d], bounds[d + 1]
        i = begin
        while i < end:
            if not flags[cps[i]] & BREAK:
                i += 1
                if i < end:
                    continue
                after = i
            else:
                is_crlf = cps[i] == CR and i + 1 < end and cps[i + 1] == LF
                after = i + 2 if is_crlf else i + 1
            if n < room:
                lines[n, 0], lines[n, 1], lines[n, 2] = begin, i, after
            n += 1
            begin = i = after
        lines_of[d + 1] = n
    return n


@small("void(int32[:, ::1], int64, int32[::1], int64, int32[::1])")
def number_lines(lines, n_lines, start, n_words, line_of):
    """Number of the line of each word, into `line_of`."""
    line = 0
    for w in range(n_words):
        while line + 1 < n_lines and lines[line, 2] <= start[w]:
            line += 1
        line_of[w] = line

"""Open elements of a page while it is parsed, and the block of text that is being written. Compiled with the parser.

The tree is the one browsers build on well-formed pages; implied end tags are honoured (HTML standard, 13.2.6.4.7),
misnested formatting is approximated.
"""

# ruff: noqa: SIM109, SIM905
from __future__ import annotations

import numpy as np

from data_pipeline.compiled import subroutine
from data_pipeline.extract import tags
from data_pipeline.extract.layout import (
    BEGIN,
    BOLDED,
    BREAKS,
    CODE,
    END,
    INNER,
    KIND,
    LINK,
    NODE,
    PRE,
    STOP,
)  # fmt: skip
from data_pipeline.extract.markup import put, reference
from data_pipeline.extract.tags import BLOCK, BOLD, CLOSES_P, HEADING, INLINE, SCOPE

_I = tags.ID
A, P, LI, DT, DD, TR, TD, TH, TABLE, HTML, BODY, HEAD = (
    _I[n] for n in "a p li dt dd tr td th table html body head".split()
)
THEAD, TBODY, TFOOT, UL, OL, DL, CAPTION = (_I[n] for n in "thead tbody tfoot ul ol dl caption".split())
PRE_TAG, LISTING, XMP, CODE_TAG = (_I[n] for n in "pre listing xmp code".split())
RUBY, RB, RT, RTC, RP = (_I[n] for n in "ruby rb rt rtc rp".split())

# Counters of the parser, in one array: depth of the stack; links, bold and pre elements open; depth at which hiding
# began; elements, blocks, tokens, marks so far; end of the text; what white space is due (1 space, 2 new line); whether a
# block is open, its begin and elements; its characters in links and in bold; line breaks in a row; indentation before a
# `pre` block; flags of the next block; body and title seen; `code` elements open.
(
    S_DEPTH, S_LINK, S_BOLD, S_PRE, S_HIDE, S_NODES, S_BLOCKS, S_TOKENS, S_MARKS, S_OUT, S_DUE, S_OPEN, S_BEGIN, S_NODE,
    S_INNER, S_LINKED, S_BOLDED, S_BREAKS, S_LEAD, S_KIND, S_BODY, S_TITLE, S_CODE,
) = range(23)  # fmt: skip
N_COUNTERS = 23
K_NODE, K_TAG, K_NAME, K_LINK, K_BLOCK, K_BITS = range(6)
"""Columns of the stack: element, its number, hash of its name, whether it counts as link, innermost block element."""


@subroutine
def flush(s, blocks, out):
    """End the open block, if any."""
    if s[S_OPEN]:
        o = s[S_OUT]
        while o > s[S_BEGIN] and out[o - 1] <= 32:
            o -= 1
        b = s[S_BLOCKS]
        blocks[b, NODE] = s[S_NODE]
        blocks[b, INNER] = s[S_INNER]
        blocks[b, BEGIN] = s[S_BEGIN]
        blocks[b, STOP] = o
        blocks[b, LINK] = s[S_LINKED]
        blocks[b, BOLDED] = s[S_BOLDED]
        blocks[b, KIND] = s[S_KIND]
        blocks[b, BREAKS] = s[S_BREAKS]
        s[S_BLOCKS] += 1
        s[S_OUT] = o
        s[S_OPEN] = 0
        s[S_KIND] = 0
    s[S_DUE] = s[S_LINKED] = s[S_BOLDED] = s[S_LEAD] = s[S_BREAKS] = 0


@subroutine
def open_block(s, stack, out):
    """Begin a block at the end of the text, behind the indentation that is due."""
    top = s[S_DEPTH]
    s[S_OPEN] = 1
    s[S_BEGIN] = s[S_OUT]
    s[S_NODE] = stack[top, K_BLOCK]
    s[S_INNER] = stack[top, K_NODE]
    if s[S_PRE]:
        s[S_KIND] |= PRE
        s[S_OUT] += s[S_LEAD]
    if s[S_CODE]:
        s[S_KIND] |= CODE
    s[S_LEAD] = s[S_DUE] = 0


@subroutine
def write_text(data, p, n, literal, s, stack, out, classes, names, points, cp1252):
    """Text from p up to a tag, or to n where it is literal; position behind it."""
    count = 0
    pre = s[S_PRE] > 0
    while p < n:
        c = np.int64(data[p])
        kind = classes[c]
        cp = c
        if kind == 0:
            pass
        elif kind == 1:  # white space
            p += 1
            if pre and not literal:
                if s[S_OPEN]:
                    if c != 13:
                        out[s[S_OUT]] = c
                        s[S_OUT] += 1
                elif c == 10:
                    s[S_LEAD] = 0
                elif c != 13:
                    out[s[S_OUT] + s[S_LEAD]] = c
                    s[S_LEAD] += 1
            elif s[S_OPEN] and not s[S_DUE]:
                s[S_DUE] = 1
            continue
        elif kind == 2:  # <
            if not literal:
                nxt = data[p + 1] if p + 1 < n else 0
                if nxt == 33 or nxt == 47 or nxt == 63 or 97 <= (nxt | 32) <= 122:
                    break
        elif kind == 3:  # &
            cp, second, q = reference(data, p + 1, n, names, points, cp1252)
            if cp >= 0:
                if cp == 0xA0 or cp == 32 or 9 <= cp <= 13 or 0x2000 <= cp <= 0x200A or cp == 0x3000:
                    p = q
                    if pre and s[S_OPEN]:
                        out[s[S_OUT]] = 10 if cp == 10 else 32
                        s[S_OUT] += 1
                    elif pre:
                        out[s[S_OUT] + s[S_LEAD]] = 32
                        s[S_LEAD] += 1
                    elif s[S_OPEN] and not s[S_DUE]:
                        s[S_DUE] = 1
                    continue
                if (
                    cp < 32
                    or 0x7F <= cp < 0xA0
                    or cp == 0xAD
                    or cp == 0x200B
                    or cp == 0xFEFF
                    or 0xFDD0 <= cp < 0xFDF0
                ):
                    p = q
                    continue
                if not s[S_OPEN]:
                    open_block(s, stack, out)
                elif s[S_DUE]:
                    out[s[S_OUT]] = 32 if s[S_DUE] == 1 else 10
                    s[S_OUT] += 1
                    s[S_DUE] = 0
                o = put(out, s[S_OUT], cp)
                if second:
                    o = put(out, o, second)
                s[S_OUT] = o
                s[S_BREAKS] = 0
                count += 1
                p = q
                continue
        elif kind == 4:  # control
            p += 1
            continue
        else:  # lead bytes of spaces and of characters without width
            d = data[p + 1] if p + 1 < n else 0
            e = data[p + 2] if p + 2 < n else 0
            space = (c == 0xC2 and d == 0xA0) or (c == 0xE3 and d == 0x80 and e == 0x80)
            space = space or (c == 0xE2 and d == 0x80 and 0x80 <= e <= 0x8A)
            gone = (c == 0xC2 and (d == 0xAD or d < 0xA0)) or (c == 0xEF and d == 0xBB and e == 0xBF)
            gone = gone or (c == 0xE2 and d == 0x80 and e == 0x8B)
            if space or gone:
                p += 2 if c == 0xC2 else 3
                if space and pre:
                    if s[S_OPEN]:
                        out[s[S_OUT]] = 32
                        s[S_OUT] += 1
                    else:
                        out[s[S_OUT] + s[S_LEAD]] = 32
                        s[S_LEAD] += 1
                elif space and s[S_OPEN] and not s[S_DUE]:
                    s[S_DUE] = 1
                continue
        if not s[S_OPEN]:
            open_block(s, stack, out)
        o = s[S_OUT]
        if s[S_DUE]:
            out[o] = 32 if s[S_DUE] == 1 else 10
            o += 1
            s[S_DUE] = 0
        s[S_BREAKS] = 0
        out[o] = c
        o += 1
        p += 1
        count += 1
        while p < n and classes[data[p]] == 0:  # the rest of the word
            out[o] = data[p]
            count += (data[p] & 0xC0) != 0x80
            o += 1
            p += 1
        s[S_OUT] = o
    if s[S_LINK]:
        s[S_LINKED] += count
    if s[S_BOLD]:
        s[S_BOLDED] += count
    return p


@subroutine
def pop(s, stack, nodes, blocks, out):
    """Close the innermost element."""
    top = s[S_DEPTH]
    bits = stack[top, K_BITS]
    if bits & BLOCK:
        flush(s, blocks, out)
    if stack[top, K_LINK]:
        s[S_LINK] -= 1
    if bits & BOLD:
        s[S_BOLD] -= 1
    tag = stack[top, K_TAG]
    if tag == PRE_TAG or tag == LISTING or tag == XMP:
        s[S_PRE] -= 1
    elif tag == CODE_TAG:
        s[S_CODE] -= 1
    if s[S_HIDE] == top:
        s[S_HIDE] = 0
    nodes[stack[top, K_NODE], END] = s[S_NODES]
    s[S_DEPTH] -= 1


@subroutine
def pop_to(s, stack, nodes, blocks, out, depth):
    while s[S_DEPTH] >= depth:
        pop(s, stack, nodes, blocks, out)


@subroutine
def open_depth(s, stack, first, second, third, stop1, stop2, stop3):
    """Depth of the innermost open element of three kinds, not looking beyond three others; 0 where there is none."""
    d = s[S_DEPTH]
    while d > 0:
        tag = stack[d, K_TAG]
        if tag == first or tag == second or tag == third:
            return d
        if tag == stop1 or tag == stop2 or tag == stop3:
            return 0
        d -= 1
    return 0


@subroutine
def imply_ends(tag, bits, s, stack, nodes, blocks, out):
    """Close what a start tag closes (HTML standard, 13.2.6.4.7)."""
    d = 0
    if bits & CLOSES_P:
        d = s[S_DEPTH]
        while d > 0 and stack[d, K_TAG] != P and not stack[d, K_BITS] & SCOPE:
            d -= 1
        if d > 0 and stack[d, K_TAG] == P:
            pop_to(s, stack, nodes, blocks, out, d)
    d = 0
    if tag == LI:
        d = open_depth(s, stack, LI, LI, LI, UL, OL, TABLE)
    elif tag == DT or tag == DD:
        d = open_depth(s, stack, DT, DD, DD, DL, TABLE, TABLE)
    elif tag == TD or tag == TH:
        d = open_depth(s, stack, TD, TH, CAPTION, TR, TABLE, TABLE)
    elif tag == TR:
        d = open_depth(s, stack, TR, CAPTION, TR, TABLE, TABLE, TABLE)
    elif tag == TBODY or tag == THEAD or tag == TFOOT:
        d = open_depth(s, stack, TBODY, THEAD, TFOOT, TABLE, TABLE, TABLE)
    elif bits & HEADING and stack[s[S_DEPTH], K_BITS] & HEADING:
        d = s[S_DEPTH]
    elif tag == A:
        d = open_depth(s, stack, A, A, A, TABLE, TABLE, TABLE)
        if d > 0:
            close_link(s, stack, nodes, blocks, out, d)
            d = 0
    elif tag == RT or tag == RP or tag == RB or tag == RTC:
        d = open_depth(s, stack, RT, RP, RB, RUBY, RTC, TABLE)
        if d == 0 and tag != RT and tag != RP:
            d = open_depth(s, stack, RTC, RTC, RTC, RUBY, TABLE, TABLE)
        if (
            s[S_DUE] == 1 and tag != RB and s[S_OPEN]
        ):  # white space between a base and its reading is not shown
            s[S_DUE] = 0
    if d > 0:
        pop_to(s, stack, nodes, blocks, out, d)


@subroutine
def close_link(s, stack, nodes, blocks, out, depth):
    """End a link: its element too, unless blocks are open in it."""
    d = s[S_DEPTH]
    while d > depth and stack[d, K_BITS] & INLINE:
        d -= 1
    if d == depth:
        pop_to(s, stack, nodes, blocks, out, depth)
    elif stack[depth, K_LINK]:
        stack[depth, K_LINK] = 0
        s[S_LINK] -= 1


@subroutine
def end_tag(tag, name, bits, s, stack, nodes, blocks, out):
    d = s[S_DEPTH]
    if bits & BLOCK:
        flush(s, blocks, out)
    if tag == HTML or tag == BODY or tag == HEAD:
        return
    if tag == RUBY and s[S_DUE] == 1:  # nor is white space at the end of one
        s[S_DUE] = 0
    if bits & INLINE:
        while d > 0 and stack[d, K_BITS] & INLINE and stack[d, K_NAME] != name:
            d -= 1
        if d > 0 and stack[d, K_NAME] == name:
            pop_to(s, stack, nodes, blocks, out, d)
        elif tag == A:
            d = open_depth(s, stack, A, A, A, TABLE, TABLE, TABLE)
            if d > 0:
                close_link(s, stack, nodes, blocks, out, d)
        return
    cell = (
        tag == TD or tag == TH or tag == TR or tag == TBODY or tag == THEAD or tag == TFOOT or tag == CAPTION
    )
    while d > 0:
        if stack[d, K_NAME] == name or (bits & HEADING and stack[d, K_BITS] & HEADING):
            pop_to(s, stack, nodes, blocks, out, d)
            return
        if cell:
            if stack[d, K_TAG] == TABLE:
                return
        elif stack[d, K_BITS] & SCOPE and tag != TABLE:
            return
        d -= 1


@subroutine
def write_formula(data, p, end, display, s, stack, out, classes, names, points, cp1252):
    """TeX between dollar signs, from an attribute or a script."""
    if p >= end:
        return
    for k in range(2):
        if k == 1:
            write_text(data, p, end, True, s, stack, out, classes, names, points, cp1252)
            s[S_DUE] = 0
        elif s[S_OPEN] and not s[S_DUE]:
            s[S_DUE] = 0
        if not s[S_OPEN]:
            open_block(s, stack, out)
        elif s[S_DUE] and k == 0:
            out[s[S_OUT]] = 32
            s[S_OUT] += 1
            s[S_DUE] = 0
        for _ in range(2 if display else 1):
            out[s[S_OUT]] = 36
            s[S_OUT] += 1
    s[S_BREAKS] = 0


@subroutine
def add_mark(s, marks, kind, begin, end):
    if s[S_MARKS] < marks.shape[0]:
        marks[s[S_MARKS], 0] = kind
        marks[s[S_MARKS], 1] = begin
        marks[s[S_MARKS], 2] = end
        s[S_MARKS] += 1

"""Bytes of an HTML page → flat arrays of elements and of blocks of text, in one pass and linear time.

Follows the tokenizer of the HTML standard (13.2.5) where pages depend on it: attributes and quotes, comments, raw text,
character references. The tree is the one browsers build on well-formed pages; implied end tags are honoured, misnested
formatting is approximated. Nesting beyond MAX_DEPTH becomes siblings, as in browsers.

A block is a run of text between two boundaries of block elements, white space collapsed (kept in `pre`), references
decoded. Scripts, styles, `svg`, menus of forms (`select`), readings of ruby, formatting that is hidden and rendered copies
of formulas are left out; formulas become TeX between dollar signs (`mathml` puts it into `alttext`).

Shapes: `data` uint8 [n], the page as UTF-8; the others in `layout`.
"""

# ruff: noqa: SIM109, SIM905
from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from data_pipeline.compiled import kernel, subroutine
from data_pipeline.extract import stylesheets, tags
from data_pipeline.extract.layout import (
    AFTER_RULE,
    ARIA,
    BLOCK_COLUMNS,
    COMMENTS,
    DEPTH,
    END,
    EXTENT,
    FIRST_TOKEN,
    FLAGS,
    HIDDEN,
    HREF,
    ITEMPROP,
    ITEMTYPE,
    M_HTML,
    M_JSON,
    M_META,
    M_TIME,
    M_TITLE,
    N_CHILDREN,
    NO_NUMBER,
    NODE_COLUMNS,
    NUMBER,
    PARENT,
    ROLE,
    SIGNATURE,
    TAG,
)  # fmt: skip
from data_pipeline.extract.markup import (
    BASIS,
    PRIME,
    add_words,
    find_end_tag,
    hides,
    lookup,
    name_at,
    names_one,
    number_at,
    shifts,
)
from data_pipeline.extract.scripts import APART, BRACKETED, JOINED, NOTE, subscript, superscript
from data_pipeline.extract.stack import (
    BODY,
    CODE_TAG,
    HEAD,
    HTML,
    K_BITS,
    K_BLOCK,
    K_LINK,
    K_NAME,
    K_NODE,
    K_TAG,
    LI,
    LISTING,
    N_COUNTERS,
    PRE_TAG,
    RB,
    RT,
    RTC,
    RUBY,
    S_BEGIN,
    S_BLOCKS,
    S_BODY,
    S_BOLD,
    S_BREAKS,
    S_CODE,
    S_DEPTH,
    S_DUE,
    S_HIDE,
    S_KIND,
    S_LINK,
    S_MARKS,
    S_NODES,
    S_OPEN,
    S_OUT,
    S_PRE,
    S_TITLE,
    S_TOKENS,
    TABLE,
    TD,
    TH,
    XMP,
    A,
    add_mark,
    end_tag,
    flush,
    imply_ends,
    open_depth,
    pop,
    write_formula,
    write_text,
)  # fmt: skip
from data_pipeline.extract.tags import BLOCK, BOLD, INLINE, RAW, SKIP, VOID

MAX_DEPTH = 300
"""Deepest element; browsers stop at 512."""
MAX_MARKS = 600
"""Marked places; pages have dozens."""
MAX_TOKENS = 24
"""Words of class and id that one element may have."""

N_UNSHOWN = len(tags.UNSHOWN_CLASSES)
_I = tags.ID
BR, HR, TITLE, META, SCRIPT, MATH, IMG, TIME, ANNOTATION, FRAMESET, SUP, SUB, OL, DIALOG = (
    _I[n] for n in "br hr title meta script math img time annotation frameset sup sub ol dialog".split()
)
# Attributes by number, as in tags.ATTRIBUTES.
(
    CLASS_, ID_, ROLE_, PROP_, TYPE_OF, HREF_, STYLE_, HIDDEN_, ARIA_HIDDEN, ALT, ALTTEXT, TYPE_, DISPLAY_, LABEL_, START_,
    VALUE_, COLSPAN_, ROWSPAN_, REVERSED_, OPEN_,
) = range(1, 21)  # fmt: skip
N_ATTRIBUTES = 21


@subroutine
def _skip_declaration(data, p, n, endless):
    """Position behind a comment, doctype, CDATA section or instruction.

    What never ends goes up to the next `>`, so that an open comment does not swallow the page; `endless` remembers that no
    CDATA section (1) or comment (2) ends any more.
    """
    if p + 3 < n and data[p + 2] == 45 and data[p + 3] == 45 and not endless & 2:
        p += 4
        if p < n and data[p] == 62:
            return p + 1, endless
        if p + 1 < n and data[p] == 45 and data[p + 1] == 62:
            return p + 2, endless
        q = p
        while q < n and not (
            data[q] == 62
            and data[q - 1 - (data[q - 1] == 33)] == 45
            and data[q - 2 - (data[q - 1] == 33)] == 45
        ):
            q += 1
        if q < n:
            return q + 1, endless
        endless |= 2
    elif p + 2 < n and data[p + 2] == 91 and not endless & 1:
        q = p + 3
        while q < n and not (data[q] == 62 and data[q - 1] == 93 and data[q - 2] == 93):
            q += 1
        if q < n:
            return q + 1, endless
        endless |= 1
    while p < n and data[p] != 62:
        p += 1
    return p + 1, endless


@subroutine
def _attributes(data, p, n, known, seen, wanted):
    """Read the attributes of a tag into `seen`; position of its `>`, and whether `/` stands before it."""
    closed = False
    while p < n:
        c = data[p]
        if c == 62:
            break
        if c <= 32 or c == 47:
            closed = c == 47
            p += 1
            continue
        closed = False
        attribute, p = name_at(data, p + 1 if c == 61 else p, n)
        while p < n and data[p] <= 32:
            p += 1
        begin = stop = p
        if p < n and data[p] == 61:
            p += 1
            while p < n and data[p] <= 32:
                p += 1
            if p < n and (data[p] == 34 or data[p] == 39):
                quote = data[p]
                p += 1
                begin = p
                while p < n and data[p] != quote:
                    p += 1
                stop = p
                p += 1
            else:
                begin = p
                while p < n and data[p] > 32 and data[p] != 62:
                    p += 1
                stop = p
                closed = data[p - 1] == 47
        if wanted:
            which = lookup(known, attribute)
            if which > 0 and seen[which, 0] == 0:
                seen[which, 0] = begin
                seen[which, 1] = stop
    return p, closed


@subroutine
def _numbers(data, tag, seen, node):
    """Numbers of lists and spans of cells, from the attributes of an element."""
    if tag == OL:
        node[NUMBER] = number_at(data, seen[START_, 0], seen[START_, 1], NO_NUMBER)
        if seen[TYPE_, 1] == seen[TYPE_, 0] + 1:
            node[EXTENT] = data[seen[TYPE_, 0]]
        if seen[REVERSED_, 1]:
            node[EXTENT] = -max(49, node[EXTENT])
    elif tag == LI:
        node[NUMBER] = number_at(data, seen[VALUE_, 0], seen[VALUE_, 1], NO_NUMBER)
    elif tag == TABLE:
        if seen[ROLE_, 1] > seen[ROLE_, 0]:
            c = data[seen[ROLE_, 0]] | 32
            node[EXTENT] = c == 112 or c == 110  # presentation, none
    else:
        node[NUMBER] = number_at(data, seen[COLSPAN_, 0], seen[COLSPAN_, 1], NO_NUMBER)
        node[EXTENT] = number_at(data, seen[ROWSPAN_, 0], seen[ROWSPAN_, 1], 0)


@kernel(
    "Tuple((int64, int64, int64, int64, int64))(uint8[::1], uint32[:,::1], int32[::1], uint32[:,::1], uint32[:,::1], "
    "uint32[:,::1], uint32[:,::1], int32[:,::1], int32[::1], uint8[::1], uint32[:,::1], "
    "int32[:,::1], int32[:,::1], uint8[::1], int64[:,::1], int32[:,::1])"
)
def scan(
    data, tag_table, bits_of, attributes, unshown, math_images, names, points, cp1252, classes, undisplayed,
    nodes, blocks, out, tokens, marks,
):  # fmt: skip
    """Fill the arrays; numbers of elements, blocks, tokens, marks and bytes of text."""
    n = len(data)
    s = np.zeros(N_COUNTERS, np.int64)
    stack = np.zeros((MAX_DEPTH + 2, 6), np.int64)
    seen = np.zeros((N_ATTRIBUTES, 2), np.int64)  # attribute values of the tag at hand
    nodes[0, TAG] = HTML
    nodes[0, PARENT] = -1
    nodes[0, FLAGS] = nodes[0, DEPTH] = nodes[0, SIGNATURE] = nodes[0, FIRST_TOKEN] = nodes[0, N_CHILDREN] = 0
    nodes[0, NUMBER] = NO_NUMBER
    nodes[0, EXTENT] = 0
    stack[0, K_TAG] = HTML
    stack[0, K_BITS] = bits_of[HTML]
    s[S_NODES] = 1
    endless = 0
    undisplays = undisplayed[:, 1].any()
    p = 0
    while p < n:
        if data[p] != 60:
            if s[S_HIDE]:
                while p < n and data[p] != 60:
                    p += 1
            else:
                p = write_text(data, p, n, False, s, stack, out, classes, names, points, cp1252)
            if p >= n:
                break
        c = data[p + 1] if p + 1 < n else 0
        if c == 33 or c == 63:  # <! <?
            p, endless = _skip_declaration(data, p, n, endless)
            continue
        if c == 47:  # </
            c = data[p + 2] | 32 if p + 2 < n else 0
            if not 97 <= c <= 122:
                while p < n and data[p] != 62:
                    p += 1
                p += 1
                continue
            name, p = name_at(data, p + 2, n)
            while p < n and data[p] != 62:
                p += 1
            p += 1
            tag = max(0, lookup(tag_table, name))
            if tag == BR:
                s[S_DUE] = 2 if s[S_OPEN] else 0
            else:
                end_tag(tag, name, bits_of[tag], s, stack, nodes, blocks, out)
            continue
        if not 97 <= (c | 32) <= 122:  # a lone <
            if not s[S_HIDE]:
                q = write_text(data, p, n, False, s, stack, out, classes, names, points, cp1252)
                p = q if q > p else p + 1
            else:
                p += 1
            continue
        start = p
        name, p = name_at(data, p + 1, n)
        tag = max(0, lookup(tag_table, name))
        bits = bits_of[tag]
        hidden = s[S_HIDE] > 0
        seen[:, :] = 0
        p, closed = _attributes(data, p, n, attributes, seen, not hidden or tag == META)
        if p >= n:
            break
        p += 1
        if tag == HTML or tag == HEAD or tag == FRAMESET:
            if tag == HTML:
                add_mark(s, marks, M_HTML, start, p)
            continue
        if tag == META:
            add_mark(s, marks, M_META, start, p)
            continue
        if bits & RAW:
            end = p if closed else find_end_tag(data, p, n, tag_table, tag)
            if tag == TITLE:
                if not hidden and not s[S_TITLE]:
                    s[S_TITLE] = 1
                    add_mark(s, marks, M_TITLE, p, end)
            elif tag == SCRIPT and not hidden and seen[TYPE_, 1]:
                a, b = seen[TYPE_, 0], seen[TYPE_, 1]
                if (
                    b - a >= 8
                    and data[a + 4] == 47
                    and (data[a + 5] | 32) == 116
                    and (data[a + 6] | 32) == 101
                ):
                    if (data[a] | 32) == 109:  # math/te(x)
                        write_formula(data, p, end, b - a > 9, s, stack, out, classes, names, points, cp1252)
                elif (
                    b - a >= 19
                    and (data[a + 12] | 32) == 108
                    and (data[a + 13] | 32) == 100
                    and data[a + 14] == 43
                ):
                    add_mark(s, marks, M_JSON, p, end)  # application/ld+json
            p = end
            continue
        if tag == BODY:
            if s[S_BODY]:
                continue
            s[S_BODY] = 1
        if tag == BR:
            if s[S_OPEN]:
                s[S_BREAKS] += 1
                if s[S_PRE]:
                    out[s[S_OUT]] = 10
                    s[S_OUT] += 1
                elif s[S_BREAKS] >= 2:
                    flush(s, blocks, out)
                else:
                    s[S_DUE] = 2
            continue
        imply_ends(tag, bits, s, stack, nodes, blocks, out)
        hidden = s[S_HIDE] > 0
        if bits & BLOCK:
            flush(s, blocks, out)
        if bits & VOID:
            if tag == HR:
                s[S_KIND] |= AFTER_RULE
            elif tag == IMG and not hidden and seen[ALT, 1] > seen[ALT, 0] and seen[CLASS_, 1]:
                _, _, formula = add_words(
                    data,
                    seen[CLASS_, 0],
                    seen[CLASS_, 1],
                    BASIS,
                    0,
                    tokens,
                    s[S_TOKENS],
                    s[S_TOKENS],
                    math_images,
                )
                if formula >= 0:
                    write_formula(
                        data, seen[ALT, 0], seen[ALT, 1], False, s, stack, out, classes, names, points, cp1252
                    )
            continue
        if closed and (hidden or tag == 0 or bits & SKIP or tag == A or tag == MATH):
            continue
        # push
        if s[S_DEPTH] >= MAX_DEPTH:
            pop(s, stack, nodes, blocks, out)
            hidden = s[S_HIDE] > 0
        top = s[S_DEPTH] + 1
        parent = stack[top - 1, K_NODE]
        s[S_DEPTH] = top
        stack[top, K_TAG] = tag
        stack[top, K_NAME] = name
        stack[top, K_BITS] = bits
        stack[top, K_LINK] = 0
        stack[top, K_NODE] = parent
        stack[top, K_BLOCK] = stack[top - 1, K_BLOCK]
        if bits & BOLD:
            s[S_BOLD] += 1
        if tag == PRE_TAG or tag == LISTING or tag == XMP:
            s[S_PRE] += 1
        elif tag == CODE_TAG:
            s[S_CODE] += 1
        if hidden:
            continue
        node = s[S_NODES]
        s[S_NODES] += 1
        t = s[S_TOKENS]
        limit = min(len(tokens), t + MAX_TOKENS)
        nodes[node, TAG] = tag
        nodes[node, PARENT] = parent
        nodes[node, DEPTH] = top
        nodes[node, FIRST_TOKEN] = t
        nodes[node, N_CHILDREN] = 0
        nodes[node, NUMBER] = NO_NUMBER
        nodes[node, EXTENT] = 0
        if tag == OL or tag == LI or tag == TD or tag == TH or tag == TABLE:
            _numbers(data, tag, seen, nodes[node])
        nodes[parent, N_CHILDREN] += 1
        flags = 0
        signature = np.int64(tag)
        unshow = (bits & SKIP) != 0
        if seen[CLASS_, 1]:
            t, signature, copied = add_words(
                data, seen[CLASS_, 0], seen[CLASS_, 1], BASIS, node, tokens, t, limit, unshown
            )
            signature = ((signature ^ tag) * PRIME) & 0xFFFFFFFF
            unshow = unshow or (0 <= copied < N_UNSHOWN and (bits & INLINE != 0 or tag == TD))
            if copied >= N_UNSHOWN:
                flags |= COMMENTS
        if seen[ID_, 1]:
            t, _, special = add_words(
                data, seen[ID_, 0], seen[ID_, 1], BASIS, node, tokens, t, limit, unshown
            )
            if special >= N_UNSHOWN:
                flags |= COMMENTS
        if seen[ROLE_, 1]:
            flags |= ROLE
            t, _, _ = add_words(data, seen[ROLE_, 0], seen[ROLE_, 1], BASIS, node, tokens, t, limit, unshown)
        if seen[PROP_, 1]:
            flags |= ITEMPROP
            t, _, _ = add_words(data, seen[PROP_, 0], seen[PROP_, 1], BASIS, node, tokens, t, limit, unshown)
        if seen[TYPE_OF, 1]:
            flags |= ITEMTYPE
            t, _, _ = add_words(
                data, seen[TYPE_OF, 0], seen[TYPE_OF, 1], 303, node, tokens, t, limit, unshown
            )
        if seen[LABEL_, 1]:
            flags |= ARIA
            t, _, _ = add_words(data, seen[LABEL_, 0], seen[LABEL_, 1], 404, node, tokens, t, limit, unshown)
        s[S_TOKENS] = t
        if (
            (seen[HIDDEN_, 1] and (data[seen[HIDDEN_, 0]] | 32) != 117)  # not until-found
            or (seen[STYLE_, 1] and hides(data, seen[STYLE_, 0], seen[STYLE_, 1]))
            or (tag == DIALOG and not seen[OPEN_, 1])
        ):
            flags |= HIDDEN
        if seen[ARIA_HIDDEN, 1] > seen[ARIA_HIDDEN, 0] and (data[seen[ARIA_HIDDEN, 0]] | 32) == 116:
            flags |= HIDDEN
        if undisplays and (
            names_one(data, seen[CLASS_, 0], seen[CLASS_, 1], 46, undisplayed)
            or names_one(data, seen[ID_, 0], seen[ID_, 1], 35, undisplayed)
        ):
            flags |= HIDDEN
        # Hidden formatting never shows; a hidden container may be what a script reveals, and is judged later.
        unshow = unshow or (flags & HIDDEN != 0 and tag != 0 and bits & INLINE != 0)
        if seen[HREF_, 1]:
            flags |= HREF
            if tag == A:
                stack[top, K_LINK] = 1
                s[S_LINK] += 1
        nodes[node, FLAGS] = flags
        nodes[node, SIGNATURE] = np.int32(signature & 0x7FFFFFFF)
        stack[top, K_NODE] = node
        if bits & BLOCK:
            stack[top, K_BLOCK] = node
        if tag == RUBY or tag == RB:
            while p < n and data[p] <= 32:  # white space at the beginning of a base is not shown
                p += 1
        elif tag == MATH:
            if seen[ALTTEXT, 1] > seen[ALTTEXT, 0]:
                display = seen[DISPLAY_, 1] > seen[DISPLAY_, 0] and (data[seen[DISPLAY_, 0]] | 32) == 98
                write_formula(
                    data,
                    seen[ALTTEXT, 0],
                    seen[ALTTEXT, 1],
                    display,
                    s,
                    stack,
                    out,
                    classes,
                    names,
                    points,
                    cp1252,
                )
                unshow = True
        elif tag == ANNOTATION or (
            (tag == RT or tag == RTC) and open_depth(s, stack, RUBY, RUBY, RUBY, TABLE, TABLE, TABLE) > 0
        ):
            unshow = True
        elif (
            (tag == SUP or tag == SUB or (seen[STYLE_, 1] and bits & INLINE != 0))
            and s[S_OPEN]
            and not s[S_DUE]
            and not unshow
        ):
            shift = 1 if tag == SUP else 2 if tag == SUB else shifts(data, seen[STYLE_, 0], seen[STYLE_, 1])
            form, stop = JOINED, p
            if shift == 1:
                in_link = data[start - 1] == 62 and stack[top - 1, K_TAG] == A
                form, stop = superscript(
                    data, start, p, n, s[S_BEGIN], out, s[S_OUT], in_link, names, points, cp1252
                )
            elif shift == 2:
                form, stop = subscript(data, start, p, n, s[S_BEGIN], out, s[S_OUT], names, points, cp1252)
            if form == NOTE:
                unshow = True
            elif form == APART:
                s[S_DUE] = 1
            elif form != JOINED:
                out[s[S_OUT]] = 94 if shift == 1 else 95
                s[S_OUT] += 1
                if form == BRACKETED:
                    out[s[S_OUT]] = 40
                    s[S_OUT] += 1
                    write_text(data, p, stop, True, s, stack, out, classes, names, points, cp1252)
                    s[S_DUE] = 0
                    out[s[S_OUT]] = 41
                    s[S_OUT] += 1
                    p = stop
        elif tag == TIME:
            add_mark(s, marks, M_TIME, start, p)
        if unshow and not s[S_HIDE]:
            s[S_HIDE] = top
    flush(s, blocks, out)
    while s[S_DEPTH] > 0:
        pop(s, stack, nodes, blocks, out)
    nodes[0, END] = s[S_NODES]
    return s[S_NODES], s[S_BLOCKS], s[S_TOKENS], s[S_MARKS], s[S_OUT]


@dataclass(frozen=True)
class Tree:
    """A parsed page; shapes in `layout`."""

    nodes: np.ndarray
    blocks: np.ndarray
    text: np.ndarray
    tokens: np.ndarray
    marks: np.ndarray


@cache
def _tables() -> tuple[np.ndarray, ...]:
    classes = np.zeros(256, np.uint8)
    classes[:32] = 4
    classes[127] = 4
    classes[[9, 10, 11, 12, 13, 32]] = 1
    classes[ord("<")] = 2
    classes[ord("&")] = 3
    classes[[0xC2, 0xE2, 0xE3, 0xEF]] = 5
    names, points = tags.references()
    return (
        tags.numbered(tags.NAMES[1:], 1),
        tags.properties(),
        tags.numbered(tags.ATTRIBUTES, 1),
        tags.numbered([*tags.UNSHOWN_CLASSES, *tags.COMMENT_SECTIONS]),
        tags.numbered(tags.MATH_IMAGES),
        names,
        points,
        tags.CP1252,
        classes,
    )


def parse(page: bytes) -> Tree:
    """Elements and blocks of a page in UTF-8. Never raises; time and memory are linear in its bytes."""
    data = np.frombuffer(page, np.uint8).copy()  # compiled for arrays that can be written
    opens = int(np.count_nonzero(data == 60)) + 2  # every block ends at a tag, or at the end
    nodes = np.empty((opens, NODE_COLUMNS), np.int32)
    blocks = np.empty((opens, BLOCK_COLUMNS), np.int32)
    out = np.empty(len(page) + len(page) // 4 + 4 * opens + 64, np.uint8)
    tokens = np.empty((min(len(page) // 3 + 1, 16 * opens), 2), np.int64)
    marks = np.empty((MAX_MARKS, 3), np.int32)
    n, b, t, m, o = scan(data, *_tables(), stylesheets.hidden(page), nodes, blocks, out, tokens, marks)
    return Tree(nodes[:n], blocks[:b], out[:o], tokens[:t], marks[:m])

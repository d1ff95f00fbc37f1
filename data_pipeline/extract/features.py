"""Blocks of a parsed page → features of each: its text, its elements, its surroundings, the page.

Everything is a count, a share or a logarithm, so that no feature knows a language, a site or the size of the page but by
ratio. Two tables carry what class names say: purposes by hand (`hints`), and fitted weights of words (`model`).
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import kernel, subroutine
from data_pipeline.extract import tags
from data_pipeline.extract.hints import N_PURPOSES
from data_pipeline.extract.layout import (
    BOLDED,
    COMMENTS,
    DEPTH,
    END,
    FIRST_TOKEN,
    FLAGS,
    HIDDEN,
    INNER,
    KIND,
    LINK,
    N_CHILDREN,
    NODE,
    PARENT,
    SIGNATURE,
    TAG,
)  # fmt: skip
from data_pipeline.extract.markup import lookup
from data_pipeline.extract.wording import (
    CHARS,
    COMMAS,
    DIGITS,
    ENDS,
    FIRST,
    HASH,
    LETTERS,
    LINES,
    MARKS,
    MIDS,
    STOPS,
    TITLE_SHARE,
    TONE,
    UPPER,
    WORDS,
)  # fmt: skip

_I = tags.ID
_ids = lambda names: np.array([_I[n] for n in names.split()], np.int64)  # noqa: E731
GROUPS = np.zeros(len(tags.NAMES), np.int64)
"""What kind of element: bits of the path, and of a block's own element."""
_GROUP_NAMES = (
    "p", "h1", "h2", "h3 h4 h5 h6", "li", "td th", "pre code", "blockquote", "dt dd", "figcaption figure caption",
    "button label legend option summary", "a", "time", "table", "form fieldset", "nav menu", "header hgroup", "footer",
    "aside", "article", "main", "section", "ul ol dl", "address", "dialog details", "center font", "noscript",
)  # fmt: skip
for _i, _names in enumerate(_GROUP_NAMES):
    GROUPS[_ids(_names)] |= 1 << _i
N_GROUPS = len(_GROUP_NAMES)
IN_NOSCRIPT = 1 << _GROUP_NAMES.index("noscript")
"""Bit of the paths that lie in `noscript`."""
IN_COMMENTS = 1 << 40
"""Bit of the paths that lie in the comments of readers."""
_PATH_GROUPS = 13
"""Groups from here on are features of the path; those before, of the block's own element."""

HINT_COLUMNS = 4
MOST = 288
"""Columns that an array of features must have."""

# Sums over the subtree of an element.
E_CHARS, E_LINK, E_BLOCKS, E_COMMAS, E_STOPS, E_LONG, E_SCORE, E_FIRST = range(8)
ELEMENT_COLUMNS = 8


@subroutine
def logarithm(v):
    return np.log1p(v)


@subroutine
def count_of(keys, key):
    """Slot of a key in an open-addressing table of counts; the key is entered where it is not."""
    mask = len(keys) - 1
    i = ((key * 0x9E3779B1) >> 7) & mask
    while keys[i] != -1 and keys[i] != key:
        i = (i + 1) & mask
    keys[i] = key
    return i


@kernel(
    "void(int32[:,::1], int32[:,::1], int64[:,::1], float64[:,::1], int64[::1], uint32[:,::1], uint32[:,::1], "
    "float32[::1], float64[:,::1], int64[::1], int64[::1], float32[:,::1], int64[:,::1])"
)
def element_features(
    nodes, blocks, tokens, x, groups, purposes, vocabulary, weights, sums, path_bits, path_purposes, hint, repeats
):  # fmt: skip
    """Fill sums over subtrees, bits and hints of paths, and how often elements repeat beside and across the page.

    `hint` float32 [E, 4]: weight of the class words of the element itself; sum, lowest and highest on the path. `repeats`
    int64 [E, 2]: purposes of the element itself, number of siblings that are alike.
    """
    n = len(nodes)
    for b in range(len(blocks)):
        e = blocks[b, NODE]
        s = sums[e]
        chars = x[b, CHARS]
        link = min(float(blocks[b, LINK]), chars)
        s[E_CHARS] += chars
        s[E_LINK] += link
        s[E_BLOCKS] += 1
        s[E_COMMAS] += x[b, COMMAS]
        s[E_STOPS] += x[b, STOPS]
        if chars >= 60 and link < 0.35 * chars:
            s[E_LONG] += chars
            score = 1.0 + min(x[b, COMMAS], 10.0) + min(chars / 100.0, 5.0)
            parent = max(0, nodes[e, PARENT])
            above = max(0, nodes[parent, PARENT])
            sums[parent, E_SCORE] += score
            sums[above, E_SCORE] += score / 2
            s[E_SCORE] += score / 2
    for e in range(n - 1, 0, -1):
        parent = nodes[e, PARENT]
        for k in range(E_SCORE):
            sums[parent, k] += sums[e, k]
    size = 16
    while size < 3 * n:
        size *= 2
    keys = np.full(size, -1, np.int64)
    counts = np.zeros(size, np.int64)
    slots = np.zeros((n, 2), np.int64)
    n_tokens = len(tokens)
    for e in range(n):
        parent = nodes[e, PARENT]
        tag = nodes[e, TAG]
        signature = np.int64(nodes[e, SIGNATURE])
        bits, wanted = groups[tag], 0
        if nodes[e, FLAGS] & COMMENTS:
            bits |= IN_COMMENTS
        weight = 0.0
        t = nodes[e, FIRST_TOKEN]
        while t < n_tokens and tokens[t, 0] == e:
            key = tokens[t, 1]
            found = lookup(purposes, key)
            if found >= 0:
                wanted |= found
            found = lookup(vocabulary, key)
            if found >= 0:
                weight += weights[found]
            t += 1
        hint[e, 0] = weight
        if parent >= 0:
            path_bits[e] = path_bits[parent] | bits
            path_purposes[e] = path_purposes[parent] | wanted
            if nodes[e, FLAGS] & HIDDEN or nodes[parent, FLAGS] & HIDDEN:
                nodes[e, FLAGS] |= HIDDEN
            hint[e, 1] = hint[parent, 1] + weight
            hint[e, 2] = min(hint[parent, 2], weight)
            hint[e, 3] = max(hint[parent, 3], weight)
        else:
            path_bits[e], path_purposes[e] = bits, wanted
            hint[e, 1] = hint[e, 2] = hint[e, 3] = 0.0
        repeats[e, 0] = wanted
        beside = signature * 1000003 + parent * 7919 + 1
        slots[e, 0] = count_of(keys, beside & 0x7FFFFFFFFFFFFFFF)
        counts[slots[e, 0]] += 1
    for e in range(n):
        repeats[e, 1] = counts[slots[e, 0]]


@subroutine
def container(nodes, sums, e, least):
    """The nearest element around that holds so many blocks."""
    while nodes[e, PARENT] >= 0 and sums[e, E_BLOCKS] < least:
        e = nodes[e, PARENT]
    return e


@subroutine
def _surroundings(f, k, sums, e, total):
    """Six features of a container: size, links, blocks, commas, long text, share of the page."""
    s = sums[e]
    chars = max(s[E_CHARS], 1.0)
    f[k] = logarithm(chars)
    f[k + 1] = s[E_LINK] / chars
    f[k + 2] = logarithm(chars / max(s[E_BLOCKS], 1.0))
    f[k + 3] = 100.0 * (s[E_COMMAS] + s[E_STOPS]) / chars
    f[k + 4] = s[E_LONG] / chars
    f[k + 5] = chars / total
    return k + 6


@kernel(
    "int64(int32[:,::1], int32[:,::1], float64[:,::1], float64[:,::1], int64[::1], int64[::1], float32[:,::1], "
    "int64[:,::1], int64[::1], float64[::1], float32[:,::1])"
)
def assemble(nodes, blocks, x, sums, path_bits, path_purposes, hint, repeats, groups, page, f):
    """Write the features of every block, float32 [B, F]; their number."""
    n = len(blocks)
    width = 0
    total = max(sums[0, E_CHARS], 1.0)
    # the element around which paragraphs gather
    best, best_score = 0, 0.0
    for e in range(len(nodes)):
        if sums[e, E_SCORE] > 0:
            score = sums[e, E_SCORE] * (1.0 - sums[e, E_LINK] / max(sums[e, E_CHARS], 1.0))
            if score > best_score:
                best, best_score = e, score
    # kinds of blocks: elements alike up to the grandparent
    size = 16
    while size < 4 * n + 3:
        size *= 2
    keys = np.full(size, -1, np.int64)
    slots = np.zeros((n, 3), np.int64)
    alike = np.zeros((size, 4))
    for b in range(n):
        e = blocks[b, NODE]
        parent = max(0, nodes[e, PARENT])
        above = max(0, nodes[parent, PARENT])
        key = np.int64(nodes[e, SIGNATURE]) * 31 + np.int64(nodes[e, TAG])
        slots[b, 1] = count_of(keys, ((key * 1000003) ^ 0x5BD1E995) & 0x7FFFFFFFFFFFFFFF)
        key = (key * 31 + nodes[parent, SIGNATURE]) * 31 + nodes[above, SIGNATURE]
        slots[b, 0] = count_of(keys, key & 0x7FFFFFFFFFFFFFFF)
        slots[b, 2] = count_of(keys, (np.int64(x[b, HASH]) << 20) ^ 0x7F4A7C15)
        for k in range(3):
            a = alike[slots[b, k]]
            a[0] += 1
            a[1] += x[b, CHARS]
            a[2] += min(float(blocks[b, LINK]), x[b, CHARS])
            a[3] += x[b, STOPS] + x[b, COMMAS]
    before = 0.0
    since_heading, level = 0.0, 0
    heading_tone = heading_hint = 0.0
    h1 = -1
    n_long = 0.0
    title_at = -1
    title_best = 0.35
    for b in range(n):
        e = blocks[b, NODE]
        if h1 < 0 and path_bits[e] & 2:
            h1 = b
        if x[b, TITLE_SHARE] > title_best and b < 0.7 * n + 3:
            title_best, title_at = x[b, TITLE_SHARE], b
        n_long += x[b, CHARS] >= 150
    for b in range(n):
        r = f[b]
        t = x[b]
        e = blocks[b, NODE]
        inner = blocks[b, INNER]
        chars = t[CHARS]
        k = 0
        # text
        r[0] = logarithm(chars)
        r[1] = logarithm(t[WORDS])
        r[2] = chars / t[WORDS]
        r[3] = min(1.0, blocks[b, LINK] / chars)
        r[4] = min(1.0, blocks[b, BOLDED] / chars)
        r[5] = 100.0 * t[COMMAS] / chars
        r[6] = 100.0 * t[STOPS] / chars
        r[7] = t[DIGITS] / chars
        r[8] = t[UPPER] / chars
        r[9] = logarithm(t[LINES])
        r[10] = 100.0 * t[MARKS] / chars
        r[11] = t[ENDS]
        r[12] = t[FIRST]
        r[13] = t[LETTERS] / chars
        r[14] = t[TITLE_SHARE]
        r[15] = t[MIDS] / chars
        r[16] = min(t[STOPS], 20.0)
        r[17] = min(t[COMMAS], 20.0)
        r[18] = blocks[b, KIND]
        r[19] = 1.0 if (nodes[e, FLAGS] | nodes[inner, FLAGS]) & HIDDEN else 0.0
        r[20] = nodes[inner, FLAGS] & ~(HIDDEN | COMMENTS)
        k = 21
        # path
        own = 0
        bits = groups[nodes[e, TAG]]
        for g in range(_PATH_GROUPS):
            if bits & (1 << g):
                own = g + 1
        r[k] = own
        bits = groups[nodes[inner, TAG]]
        own = 0
        for g in range(N_GROUPS):
            if bits & (1 << g):
                own = g + 1
        r[k + 1] = own
        k += 2
        path = path_bits[e]
        for g in range(4, N_GROUPS):
            r[k] = 1.0 if path & (1 << g) else 0.0
            k += 1
        wanted = path_purposes[e] | path_purposes[inner]
        parent = max(0, nodes[e, PARENT])
        above = max(0, nodes[parent, PARENT])
        near = repeats[inner, 0] | repeats[e, 0] | repeats[parent, 0] | repeats[above, 0]
        for g in range(N_PURPOSES):
            r[k] = (1.0 if wanted & (1 << g) else 0.0) + (1.0 if near & (1 << g) else 0.0)
            k += 1
        r[k] = nodes[e, DEPTH]
        r[k + 1] = hint[inner, 1]
        r[k + 2] = hint[inner, 2]
        r[k + 3] = hint[inner, 3]
        r[k + 4] = hint[inner, 0] + hint[e, 0] * (inner != e)
        r[k + 5] = hint[parent, 0] + hint[above, 0]
        k += 6
        # containers
        c = e
        r[k] = logarithm(sums[e, E_CHARS])
        r[k + 1] = logarithm(sums[e, E_BLOCKS])
        r[k + 2] = logarithm(nodes[e, N_CHILDREN])
        r[k + 3] = logarithm(nodes[parent, N_CHILDREN])
        k += 4
        c1 = container(nodes, sums, e, 2)
        k = _surroundings(r, k, sums, c1, total)
        c2 = container(
            nodes, sums, nodes[c1, PARENT] if nodes[c1, PARENT] >= 0 else 0, 2 * sums[c1, E_BLOCKS]
        )
        k = _surroundings(r, k, sums, c2, total)
        c3 = container(
            nodes, sums, nodes[c2, PARENT] if nodes[c2, PARENT] >= 0 else 0, 3 * sums[c2, E_BLOCKS]
        )
        k = _surroundings(r, k, sums, c3, total)
        # the best container: whether inside, else how far below their common ancestor
        c, up = e, 0
        while not (c <= best < nodes[c, END]):
            c = nodes[c, PARENT]
            up += 1
        inside = best <= e < nodes[best, END]
        r[k] = -1.0 if inside else float(up)
        r[k + 1] = nodes[e, DEPTH] - nodes[best, DEPTH] if inside else -5.0
        r[k + 2] = sums[parent, E_SCORE] / max(best_score, 1.0)
        r[k + 3] = sums[above, E_SCORE] / max(best_score, 1.0)
        r[k + 4] = 0.0 if inside else (1.0 if e < best else 2.0)
        k += 5
        # repetition
        most, which = 1.0, e
        c = e
        for _ in range(6):
            if repeats[c, 1] > most:
                most, which = float(repeats[c, 1]), c
            if nodes[c, PARENT] < 0:
                break
            c = nodes[c, PARENT]
        r[k] = logarithm(repeats[e, 1])
        r[k + 1] = logarithm(repeats[parent, 1])
        r[k + 2] = logarithm(most)
        r[k + 3] = logarithm(sums[which, E_CHARS])
        r[k + 4] = sums[which, E_LINK] / max(sums[which, E_CHARS], 1.0)
        r[k + 5] = logarithm(sums[which, E_BLOCKS])
        k += 6
        r[k] = t[TONE]
        r[k + 1] = logarithm(alike[slots[b, 2], 0])
        r[k + 2] = x[b - 1, TONE] if b else 0.0
        r[k + 3] = x[b + 1, TONE] if b + 1 < n else 0.0
        k += 4
        for j in range(2):
            a = alike[slots[b, j]]
            r[k] = logarithm(a[0])
            r[k + 1] = logarithm(a[1] / a[0])
            r[k + 2] = a[2] / a[1]
            r[k + 3] = a[1] / total
            r[k + 4] = 100.0 * a[3] / a[1]
            k += 5
        # neighbours
        for d in (-3, -2, -1, 1, 2, 3):
            o = b + d
            if 0 <= o < n:
                r[k] = logarithm(x[o, CHARS])
                r[k + 1] = min(1.0, blocks[o, LINK] / x[o, CHARS])
                r[k + 2] = x[o, ENDS]
                r[k + 3] = 1.0 if path_bits[blocks[o, NODE]] & 0b1110 else 0.0
                r[k + 4] = (
                    1.0
                    if blocks[o, NODE] == e
                    else (0.5 if nodes[blocks[o, NODE], PARENT] == parent else 0.0)
                )
            else:
                r[k] = r[k + 1] = r[k + 2] = r[k + 3] = r[k + 4] = -1.0
            k += 5
        # position
        r[k] = before / total
        r[k + 1] = b / n
        r[k + 2] = logarithm(b)
        r[k + 3] = logarithm(n - b)
        r[k + 4] = b - h1 if h1 >= 0 else -999.0
        r[k + 5] = b - title_at if title_at >= 0 else -999.0
        r[k + 6] = logarithm(since_heading)
        r[k + 7] = level
        r[k + 8] = heading_tone
        r[k + 9] = heading_hint
        k += 10
        # the page
        r[k] = logarithm(n)
        r[k + 1] = logarithm(total)
        r[k + 2] = sums[0, E_LINK] / total
        r[k + 3] = sums[0, E_LONG] / total
        r[k + 4] = n_long / n
        r[k + 5] = sums[best, E_CHARS] / total
        r[k + 6] = sums[best, E_LINK] / max(sums[best, E_CHARS], 1.0)
        r[k + 7] = title_best
        k += 8
        for j in range(len(page)):
            r[k] = page[j]
            k += 1
        width = k
        before += chars
        since_heading += chars
        heading = groups[nodes[e, TAG]] & 0b1110
        if heading:
            since_heading = 0.0
            heading_tone = t[TONE]
            heading_hint = hint[inner, 1]
            level = 1 if heading & 2 else (2 if heading & 4 else 3)
    # sums over windows, from the columns already written
    for b in range(n):
        k = width
        for w in (4, 10):
            c0 = max(0, b - w)
            c1 = min(n, b + w + 1)
            chars = link = ends = 0.0
            for o in range(c0, c1):
                chars += x[o, CHARS]
                link += min(float(blocks[o, LINK]), x[o, CHARS])
                ends += x[o, STOPS]
            f[b, k] = logarithm(chars / (c1 - c0))
            f[b, k + 1] = link / max(chars, 1.0)
            f[b, k + 2] = 100.0 * ends / max(chars, 1.0)
            k += 3
    return width + 6

"""Second look at the blocks of a page: what the first verdicts say about each block's surroundings."""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import kernel
from data_pipeline.extract.features import E_BLOCKS, container, count_of, logarithm
from data_pipeline.extract.layout import NODE, PARENT, SIGNATURE, TAG
from data_pipeline.extract.wording import WORDS

CONTEXT = 34
"""Features that `context` writes."""


@kernel(
    "void(int32[:,::1], int32[:,::1], float64[:,::1], float64[:,::1], int64[::1], float64[::1], float32[:,::1], int64)"
)
def context(nodes, blocks, x, sums, path_bits, p, f, k0):
    """Write what the first verdicts p float64 [B] say about each block's surroundings, from column k0 on."""
    n = len(blocks)
    m = np.zeros((len(nodes), 2))
    total = good = 0.0
    for b in range(n):
        e = blocks[b, NODE]
        w = x[b, WORDS]
        m[e, 0] += w
        m[e, 1] += w * p[b]
        total += w
        good += w * p[b]
    for e in range(len(nodes) - 1, 0, -1):
        m[nodes[e, PARENT], 0] += m[e, 0]
        m[nodes[e, PARENT], 1] += m[e, 1]
    first = last = -1
    n_sure = 0.0
    peak = 0.0
    for b in range(n):
        if p[b] > 0.5 and x[b, WORDS] >= 8:
            if first < 0:
                first = b
            last = b
            n_sure += x[b, WORDS]
        peak = max(peak, p[b])
    size = 16
    while size < 3 * n + 3:
        size *= 2
    keys = np.full(size, -1, np.int64)
    alike = np.zeros((size, 2))
    slots = np.zeros(n, np.int64)
    for b in range(n):
        e = blocks[b, NODE]
        parent = max(0, nodes[e, PARENT])
        key = (np.int64(nodes[e, SIGNATURE]) * 31 + nodes[e, TAG]) * 31 + nodes[parent, SIGNATURE]
        slots[b] = count_of(keys, key & 0x7FFFFFFFFFFFFFFF)
        alike[slots[b], 0] += x[b, WORDS]
        alike[slots[b], 1] += x[b, WORDS] * p[b]
    before = 0.0
    since = 0.0
    for b in range(n):
        r = f[b]
        k = k0
        e = blocks[b, NODE]
        w = x[b, WORDS]
        r[k] = p[b]
        k += 1
        for d in (-4, -3, -2, -1, 1, 2, 3, 4):
            r[k] = p[b + d] if 0 <= b + d < n else -1.0
            k += 1
        for width in (3, 8, 20):
            for side in range(2):
                a = wp = 0.0
                for o in range(
                    max(0, b - width) if side == 0 else b + 1, b if side == 0 else min(n, b + width + 1)
                ):
                    a += x[o, WORDS]
                    wp += x[o, WORDS] * p[o]
                r[k] = wp / a if a else -1.0
                k += 1
        c = e
        for least in (2, 2, 3, 4):
            blocks_here = sums[c, E_BLOCKS]
            goal = 2.0 if c == e and least == 2 and blocks_here < 2 else least * blocks_here
            c = container(nodes, sums, c, goal)
            rest = m[c, 0] - w
            r[k] = (m[c, 1] - w * p[b]) / rest if rest > 0.5 else -1.0
            r[k + 1] = m[c, 1] / max(good, 1e-6)
            k += 2
            if nodes[c, PARENT] >= 0:
                c = nodes[c, PARENT]
        a = alike[slots[b]]
        r[k] = (a[1] - w * p[b]) / (a[0] - w) if a[0] - w > 0.5 else -1.0
        r[k + 1] = a[1] / max(good, 1e-6)
        r[k + 2] = before / max(good, 1e-6)
        r[k + 3] = b - first if first >= 0 else -999.0
        r[k + 4] = b - last if first >= 0 else -999.0
        r[k + 5] = good / total
        r[k + 6] = n_sure / max(good, 1e-6)
        r[k + 7] = peak
        r[k + 8] = logarithm(good)
        r[k + 9] = w / max(good, 1e-6)
        r[k + 10] = logarithm(since)
        k += 11
        before += w * p[b]
        since = 0.0 if p[b] > 0.5 else since + w

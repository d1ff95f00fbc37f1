"""Probabilities after the classifier: tables of data and listings of code are one thing, and a text has few holes.

The classifier judges blocks, and a cell or a line of code says little by itself. A unit has one probability: the mean of its
blocks by words, or, where text stands on both sides of it, nearly that of the text. Prose between a heading and the text,
such as the lead of a news article, and prose within the text get a bonus: on unseen sites they are most of what is lost.
Headings of sections follow what they stand above.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.extract import tags
from data_pipeline.extract.layout import BEGIN, KIND, LINK, NODE, PRE, STOP, TAG
from data_pipeline.extract.parse import Tree
from data_pipeline.extract.tables import Table, Tables

PROSE_WORDS = 8
"""Words of a block that count as text beside a unit."""
NEAR = 12
"""Blocks before and after a unit among which text is looked for."""
BETWEEN = 0.9
"""Probability of a unit as a share of the lower of those on its two sides."""
BESIDE = 0.8
"""The same where text stands on one side only, and the unit ends or begins the text."""
ALONE = 0.6
"""Probability of a table of data on a page that has no text beside it."""
ALONE_SHARE = 0.5
"""Share of the words of a page, links apart, that such a table has."""
MAX_LINKED = 0.8
"""Share of a table's characters in links from which it is a menu, whatever stands beside it."""

SURE = 0.8
"""Probability of a block of PROSE_WORDS that is certainly text."""
BONUS = 0.8
"""Log-odds added to prose between the main heading and the end of the text."""
LEAD_WORDS = 15
"""Words of prose between the main heading and the text."""
INNER_WORDS = 30
"""Words of prose within the text."""
PROSE_LINKED = 0.3
"""Share of its characters in links up to which a block is prose."""
MAX_LINKED_HEADING = 0.5
"""The same of a heading that follows the text below it."""
_H1 = tags.ID["h1"]
_SECTIONS = tuple(tags.ID[name] for name in ("h2", "h3", "h4", "h5", "h6"))


def with_headings(tree: Tree, p: np.ndarray, keep: np.ndarray, least: float) -> np.ndarray:
    """What is kept, boolean [B], and the headings of sections right before its text that are at least so probable.

    By themselves they are short and like those of menus; linked ones are mostly those of teasers. Of those on `wcxb` that
    a classifier fitted on the other sets left out before kept text, three in four belong to the main text.
    """
    blocks = tree.blocks
    tag = tree.nodes[blocks[:, NODE], TAG]
    sections = np.isin(tag, _SECTIONS)
    linked = blocks[:, LINK] > MAX_LINKED_HEADING * (blocks[:, STOP] - blocks[:, BEGIN])
    kept = keep.copy()
    for i in np.flatnonzero((sections & ~linked & ~keep & (p >= least))[:-1])[::-1].tolist():
        below = i + 1 + int(sections[i + 1] and kept[i + 1] and i + 2 < len(kept))
        kept[i] = keep[below] and not sections[below] and tag[below] != _H1
    return kept


def lift_prose(tree: Tree, words: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probabilities with the bonus for prose between the main heading (`h1`) and the last sure block."""
    sure = np.flatnonzero((p > SURE) & (words >= PROSE_WORDS))
    if not len(sure):
        return p
    first, last = int(sure[0]), int(sure[-1])
    headings = np.flatnonzero(tree.nodes[tree.blocks[: first + 1, NODE], TAG] == _H1)
    heading = int(headings[-1]) if len(headings) else first
    size = np.maximum(1, tree.blocks[:, STOP] - tree.blocks[:, BEGIN])
    prose = tree.blocks[:, LINK] < PROSE_LINKED * size
    place = np.arange(len(p))
    lifted = prose & (place > heading) & (place < first) & (words >= LEAD_WORDS)
    lifted |= prose & (place > first) & (place < last) & (words >= INNER_WORDS)
    odds = p * np.exp(BONUS)
    return np.where(lifted, odds / (odds + 1 - p), p)


def judge_whole(tree: Tree, tables: Tables, words: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probabilities of blocks, float64 [B], with one for all blocks of a unit; `words` float64 [B]."""
    judged = p.copy()
    linked = np.minimum(tree.blocks[:, LINK], tree.blocks[:, STOP] - tree.blocks[:, BEGIN])
    plain = words * (1 - linked / np.maximum(1, tree.blocks[:, STOP] - tree.blocks[:, BEGIN]))
    prose = words >= PROSE_WORDS
    for table in tables.all:
        if table.holds_data and len(table.blocks):
            prose[table.blocks] = False
    listings = _listings(tree)
    for members in listings:
        prose[members] = False
    for members in listings:
        mean = float(np.average(p[members], weights=words[members]))
        before, after = _beside(p, prose, members)
        judged[members] = max(mean, BETWEEN * min(before, after))
    for table in tables.all:
        if table.holds_data and len(table.blocks):
            judged[table.blocks] = _of_table(tree, table, linked, words, plain, p, prose)
    return judged


def _listings(tree: Tree) -> list[np.ndarray]:
    """Blocks of each `pre` of several lines."""
    pre = np.flatnonzero(tree.blocks[:, KIND] & PRE)
    if not len(pre):
        return []
    parts = np.split(pre, np.flatnonzero(np.diff(tree.blocks[pre, NODE]) | (np.diff(pre) != 1)) + 1)
    text = tree.text
    return [
        part
        for part in parts
        if (text[tree.blocks[part[0], BEGIN] : tree.blocks[part[-1], STOP]] == 10).any()
    ]


def _beside(p: np.ndarray, prose: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """Probability of the nearest text before and after a unit; -1 where none is near."""
    first, last = int(members[0]), int(members[-1])
    before = np.flatnonzero(prose[max(0, first - NEAR) : first])
    after = np.flatnonzero(prose[last + 1 : last + 1 + NEAR])
    return (
        float(p[max(0, first - NEAR) + before[-1]]) if len(before) else -1.0,
        float(p[last + 1 + after[0]]) if len(after) else -1.0,
    )


def _of_table(
    tree: Tree,
    table: Table,
    linked: np.ndarray,
    words: np.ndarray,
    plain: np.ndarray,
    p: np.ndarray,
    prose: np.ndarray,
) -> float:
    members = table.blocks
    mean = float(np.average(p[members], weights=words[members]))
    size = (tree.blocks[members, STOP] - tree.blocks[members, BEGIN]).sum()
    if linked[members].sum() > MAX_LINKED * size or len(table.rows) < 3:
        return mean
    before, after = _beside(p, prose, members)
    if before >= 0 and after >= 0:
        return max(mean, BETWEEN * min(before, after))
    if max(before, after) >= 0:
        return max(mean, BESIDE * max(before, after))
    if plain[members].sum() > ALONE_SHARE * plain.sum():
        return max(mean, ALONE)
    return mean

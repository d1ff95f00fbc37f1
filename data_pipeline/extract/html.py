"""HTML page → main text and metadata: parse, judge every block, write the ones that belong.

Bounds: MAX_BYTES of a page are read, MAX_BLOCKS judged; everything before, between and after is linear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_pipeline.extract import features, hints, metadata, model, structured, surroundings, wording
from data_pipeline.extract.layout import FLAGS, HIDDEN, INNER, NODE
from data_pipeline.extract.mathml import with_tex
from data_pipeline.extract.parse import Tree, parse
from data_pipeline.extract.render import render
from data_pipeline.extract.tables import Tables
from data_pipeline.extract.units import judge_whole, lift_prose, with_headings

MAX_BYTES = 1 << 24
"""Bytes of a page that are read; what follows is left out and the page counted."""
MAX_BLOCKS = 100_000
"""Blocks of a page that are judged; crawler traps repeat without end."""
ARTICLE_WORDS = 40
"""Words expected before the comments of readers that make a page an article."""
COMMENT_SHARE = 0.1
"""What then remains of the probability of a comment."""


@dataclass(frozen=True)
class Page:
    """What extraction found on a page."""

    text: str
    """Main text; empty where there is none."""
    fallback: bool = False
    """The text is what the page declares in JSON-LD, or the page was cut."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """`title`, `published`, `author`, `language_hint` where the page states them."""


@dataclass(frozen=True)
class Judged:
    """A page with the features of its blocks, before any verdict."""

    tree: Tree
    head: metadata.Head
    text: np.ndarray
    """Counts in the text of blocks, float64 [B, TEXT_COLUMNS]."""
    sums: np.ndarray
    """Sums over subtrees, float64 [E, ELEMENT_COLUMNS]."""
    path_bits: np.ndarray
    features: np.ndarray
    """float32 [B, width + CONTEXT]; the context is not filled in."""
    width: int
    """Features of the first pass."""
    page: np.ndarray
    """Features of the page, float64 [N_PAGE]."""


def main_text(page: bytes, url: str | None = None, fitted: model.Model | None = None) -> Page:
    """Main text and metadata of a page in UTF-8. Never raises; time and memory are bounded."""
    cut = len(page) > MAX_BYTES
    if cut:
        page = page[:MAX_BYTES]
    page = with_tex(page)
    tree = parse(page)
    found = metadata.head(page, tree)
    described = metadata.describe(found, url)
    if len(tree.blocks) > MAX_BLOCKS:
        cut = True
        tree = Tree(tree.nodes, tree.blocks[:MAX_BLOCKS], tree.text, tree.tokens, tree.marks)
    text = ""
    if len(tree.blocks):
        fitted = fitted or model.load()
        judged = judge(page, tree, found, fitted)
        tables = Tables(tree)
        keep = verdicts(judged, tables, fitted, url)
        text = render(tree, keep, tables)
    body = structured.body(found.json, text)
    if body:
        return Page(body, True, described)
    return Page(text, cut, described)


def judge(page: bytes, tree: Tree, found: metadata.Head, fitted: model.Model) -> Judged:
    """Features of every block."""
    title = np.frombuffer(found.title, np.uint8).copy()
    x = wording.text_features(tree.text, tree.blocks, title, fitted.words, fitted.weights)
    n, b = len(tree.nodes), len(tree.blocks)
    sums = np.zeros((n, features.ELEMENT_COLUMNS))
    path_bits, path_purposes = np.zeros(n, np.int64), np.zeros(n, np.int64)
    hint, repeats = np.zeros((n, features.HINT_COLUMNS), np.float32), np.zeros((n, 2), np.int64)
    features.element_features(
        tree.nodes,
        tree.blocks,
        tree.tokens,
        x,
        features.GROUPS,
        hints.bits(),
        fitted.class_words,
        fitted.class_weights,
        sums,
        path_bits,
        path_purposes,
        hint,
        repeats,
    )
    f = np.empty((b, features.MOST), np.float32)
    of_page = metadata.page_features(page, tree, found)
    width = features.assemble(
        tree.nodes, tree.blocks, x, sums, path_bits, path_purposes, hint, repeats, features.GROUPS, of_page, f
    )
    return Judged(tree, found, x, sums, path_bits, f, width, of_page)


def first_pass(judged: Judged, forest: model.Forest) -> np.ndarray:
    """P(main text) of every block by itself, float64 [B]."""
    return model.probabilities(judged.features, *forest)


def second_pass(judged: Judged, first: np.ndarray, forest: model.Forest) -> np.ndarray:
    """P(main text) of every block, knowing the first verdicts on all, float64 [B]."""
    add_context(judged, first)
    return model.probabilities(judged.features, *forest)


def add_context(judged: Judged, first: np.ndarray) -> None:
    """Fill in the columns of the second pass."""
    surroundings.context(
        judged.tree.nodes,
        judged.tree.blocks,
        judged.text,
        judged.sums,
        judged.path_bits,
        first,
        judged.features,
        judged.width,
    )


def verdicts(judged: Judged, tables: Tables, fitted: model.Model, url: str | None = None) -> np.ndarray:
    """Which blocks to keep, boolean [B]."""
    p = second_pass(judged, first_pass(judged, fitted.forests[0]), fitted.forests[1])
    words = judged.text[:, wording.WORDS]
    p = lift_prose(judged.tree, words, judge_whole(judged.tree, tables, words, p))
    p = _without_hidden(judged, _without_comments(judged, p, url))
    return with_headings(judged.tree, p, model.best_blocks(p, judged.text, model.LEAST), model.LEAST)


def _without_hidden(judged: Judged, p: np.ndarray) -> np.ndarray:
    """Probabilities, 0 for blocks that are not shown, unless most of the text is what a script reveals."""
    nodes, blocks = judged.tree.nodes, judged.tree.blocks
    hidden = ((nodes[blocks[:, NODE], FLAGS] | nodes[blocks[:, INNER], FLAGS]) & HIDDEN) != 0
    hidden |= (judged.path_bits[blocks[:, NODE]] & features.IN_NOSCRIPT) != 0
    if not hidden.any():
        return p
    words = p * judged.text[:, wording.WORDS]
    return p if words[hidden].sum() > words[~hidden].sum() else np.where(hidden, 0.0, p)


def _without_comments(judged: Judged, p: np.ndarray, url: str | None) -> np.ndarray:
    """Probabilities, those of readers' comments cut down where an article stands before them."""
    inside = (judged.path_bits[judged.tree.blocks[:, NODE]] & features.IN_COMMENTS) != 0
    if not inside.any() or metadata.is_forum(judged.page, url):
        return p
    words = p * judged.text[:, wording.WORDS]
    article = words[: int(np.argmax(inside))].sum()
    if article < ARTICLE_WORDS or article < 0.7 * words[~inside].sum():
        return p
    return np.where(inside, p * COMMENT_SHARE, p)

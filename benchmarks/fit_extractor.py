"""Fit the classifier of `data_pipeline/extract` on labelled pages.

    ARRIERO_TEST_DATA=DIR python benchmarks/fit_extractor.py          # writes data_pipeline/extract/classifier.npz

Needs lightgbm and scipy. Four steps, each cross-fitted by host so that no page is described by what was learned from it:
weights of class words (logistic regression on the words of a block's path), weights of words (of its text), trees of the
first pass, trees of the second. trafilatura, in an environment of its own, stands in for the text between the snippets of
`trafilatura-eval`.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import extraction_pages as labelled_pages
import lightgbm
import numpy as np
import scipy.sparse
import xxhash
from extraction_pages import Labelled, fold
from numpy.typing import NDArray
from scipy.optimize import minimize

from data_pipeline.extract import html, metadata, model, parse, tags
from data_pipeline.extract.layout import BEGIN, INNER, PARENT, STOP
from data_pipeline.extract.mathml import with_tex
from data_pipeline.read.charset import decode

ROUNDS = (110, 70)
"""Trees of the two passes."""
PARTS = 3
"""Parts of the cross-fitting inside a fit."""
ROWS = 0.3
"""Share of the blocks that trees are fitted on: drawn by weight, so that menus of many blocks lose most of theirs."""
PARAMETERS = {
    "objective": "cross_entropy",
    "learning_rate": 0.1,
    "num_leaves": 24,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "num_threads": 1,
    "verbosity": -1,
    "seed": 1,
    "deterministic": True,
    "force_row_wise": True,
}
SETTINGS = repr((ROUNDS, PARTS, ROWS, PARAMETERS)).encode()
"""What a fit depends on beside its pages."""
_WORD = re.compile(rb"[a-z0-9\x80-\xff]+")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prepared:
    """A labelled page, parsed."""

    host: str
    page: bytes
    tree: parse.Tree
    head: metadata.Head
    share: Floats
    weight: Floats
    paths: list[tuple[int, ...]]
    """Hashes of the class words on the path of each block."""
    words: list[list[int]]
    """Hashes of the words of each block."""


def prepare(page: Labelled, distilled: str) -> Prepared | None:
    """Parse a page and label its blocks; null where it has none."""
    data = with_tex(decode(page.payload, None, html=True)[0].encode("utf-8", "replace"))
    tree = parse.parse(data)
    if not len(tree.blocks):
        return None
    text = tree.text.tobytes()
    blocks = [text[b:e].decode("utf-8", "replace") for b, e in tree.blocks[:, [BEGIN, STOP]].tolist()]
    share, weight = labelled_pages.block_labels(page, blocks, distilled)
    words = [[_hash(w) for w in _WORD.findall(block.encode().lower())[:200]] for block in blocks]
    return Prepared(page.host, data, tree, metadata.head(data, tree), share, weight, _paths(tree), words)


def digest(p: Prepared) -> bytes:
    """Hash of all that a fit reads of a page: labels, words and the features of its blocks."""
    none = np.zeros(0)
    judged = html.judge(
        p.page, p.tree, p.head, Words(none, none.astype(np.float32), none, none.astype(np.float32)).model()
    )
    html.add_context(judged, p.share)
    found = xxhash.xxh3_128(repr((p.host, p.paths, p.words)).encode())
    columns = judged.width + html.surroundings.CONTEXT
    for array in (p.share, p.weight, judged.features[:, :columns]):
        found.update(np.ascontiguousarray(array))
    return found.digest()


_HASHES: dict[bytes, int] = {}


def _hash(word: bytes) -> int:
    if word not in _HASHES:
        value = 2166136261
        for byte in word:
            value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
        _HASHES[word] = value
    return _HASHES[word]


def _paths(tree: parse.Tree) -> list[tuple[int, ...]]:
    own: dict[int, tuple[int, ...]] = {}
    for node, key in tree.tokens.tolist():
        own[node] = (*own.get(node, ()), key)
    parents = tree.nodes[:, PARENT].tolist()
    known: dict[int, tuple[int, ...]] = {-1: ()}
    for node, parent in enumerate(parents):  # parents come first
        known[node] = known[parent] + own.get(node, ())
    return [known[node] for node in tree.blocks[:, INNER].tolist()]


@dataclass(frozen=True)
class Words:
    """Weights of hashed words, of classes and of texts."""

    class_words: NDArray[np.int64]
    class_weights: NDArray[np.float32]
    words: NDArray[np.int64]
    weights: NDArray[np.float32]

    def model(self, forests: tuple[model.Forest, model.Forest] | None = None) -> model.Model:
        """A model with these words."""
        return model.Model(
            tags.table({int(h): i for i, h in enumerate(self.class_words)}),
            self.class_weights,
            tags.table({int(h): i for i, h in enumerate(self.words)}),
            self.weights,
            forests,  # type: ignore[arg-type]
        )


def fit_words(pages: list[Prepared]) -> Words:
    """Weights of the words that enough hosts use."""
    class_words, class_weights = _regression(
        [(p.host, list(zip(p.paths, p.share, p.weight, strict=True)), False) for p in pages], 8, 3e-5
    )
    words, weights = _regression(
        [(p.host, list(zip(map(tuple, p.words), p.share, p.weight, strict=True)), True) for p in pages],
        10,
        1e-4,
    )
    return Words(class_words, class_weights, words, weights)


def _regression(
    pages: list[tuple[str, list[tuple[tuple[int, ...], float, float]], bool]], hosts: int, ridge: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Logistic regression of shares on bags of words: (hashes, weights) of words that so many hosts use."""
    users: dict[int, set[str]] = {}
    for host, blocks, _ in pages:
        for key in {key for bag, _, _ in blocks for key in bag}:
            users.setdefault(key, set()).add(host)
    vocabulary = sorted(key for key, names in users.items() if len(names) >= hosts)
    column = {key: i for i, key in enumerate(vocabulary)}
    columns: list[int] = []
    values: list[float] = []
    ends, target, weight = [0], [], []
    for _, blocks, scaled in pages:
        bags: dict[tuple[int, ...], list[float]] = {}
        for bag, share, w in blocks:
            sums = bags.setdefault(bag, [0.0, 0.0])
            sums[0] += w * share
            sums[1] += w * (1 - share)
        for bag, sums in bags.items():
            found = [column[key] for key in bag if key in column]
            value = len(bag) ** -0.5 if scaled and bag else 1.0
            for y, w in ((1.0, sums[0]), (0.0, sums[1])):
                if w > 0:
                    columns += found
                    values += [value] * len(found)
                    ends.append(len(columns))
                    target.append(y)
                    weight.append(w)
    x = scipy.sparse.csr_matrix((np.array(values), columns, ends), shape=(len(target), len(vocabulary)))
    x.sum_duplicates()
    x.data = np.minimum(x.data, 2.0)
    y, w = np.array(target), np.array(weight) / sum(weight)
    transposed = x.T.tocsr()

    def loss(theta: Floats) -> tuple[float, Floats]:
        margin = np.where(y > 0, 1, -1) * (x @ theta[:-1] + theta[-1])
        slope = -w * np.where(y > 0, 1, -1) / (1 + np.exp(np.clip(margin, -500, 500)))
        value = (w * np.logaddexp(0, -margin)).sum() + ridge * (theta[:-1] ** 2).sum()
        return float(value), np.append(transposed @ slope + 2 * ridge * theta[:-1], slope.sum())

    found_theta = minimize(
        loss, np.zeros(len(vocabulary) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 40}
    )
    weights = np.clip(found_theta.x[:-1], -4, 4).astype(np.float32)
    return np.array(vocabulary, np.int64), weights


def fit(pages: list[Prepared]) -> tuple[Words, tuple[model.Forest, model.Forest]]:
    """The whole classifier from labelled pages."""
    part = [fold(p.host, PARTS, "inner") for p in pages]
    judged: list[html.Judged] = []
    by_part = [
        fit_words([p for p, q in zip(pages, part, strict=True) if q != k]).model() for k in range(PARTS)
    ]
    for p, q in zip(pages, part, strict=True):
        judged.append(html.judge(p.page, p.tree, p.head, by_part[q]))
    first_features = [j.features[:, : j.width].copy() for j in judged]
    first: list[Floats] = [np.zeros(0)] * len(pages)
    for k in range(PARTS):
        rest = [i for i, q in enumerate(part) if q != k]
        booster = _boost([first_features[i] for i in rest], [pages[i] for i in rest], ROUNDS[0])
        for i, q in enumerate(part):
            if q == k:
                first[i] = html.first_pass(judged[i], forest(booster))
    second_features = []
    for j, p in zip(judged, first, strict=True):
        html.add_context(j, p)
        second_features.append(j.features[:, : j.width + html.surroundings.CONTEXT])
    return fit_words(pages), (
        forest(_boost(first_features, pages, ROUNDS[0])),
        forest(_boost(second_features, pages, ROUNDS[1])),
    )


def _boost(x: list[NDArray[np.float32]], pages: list[Prepared], rounds: int) -> lightgbm.Booster:
    share = np.concatenate([p.share for p in pages])
    weight = np.concatenate([p.weight for p in pages])
    low, high = 0.0, float(weight.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, weight / middle).mean() > ROWS else (low, middle)
    chance = np.minimum(1, weight / high)
    drawn = np.random.default_rng(0).random(len(weight)) < chance
    weight = weight[drawn] / chance[drawn]
    data = lightgbm.Dataset(
        np.concatenate(x)[drawn], np.clip(share[drawn], 0, 1), weight=weight / weight.mean()
    )
    return lightgbm.train(PARAMETERS, data, rounds)


def forest(booster: lightgbm.Booster) -> model.Forest:
    """Flat arrays of the trees of a booster; thresholds are rounded down to float32, so that all verdicts stay."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    leaf: list[float] = []
    roots, leaf_roots = [], []
    for tree in booster.dump_model()["tree_info"]:
        roots.append(len(feature))
        leaf_roots.append(len(leaf))
        base, leaf_base = len(feature), len(leaf)
        pending = [(tree["tree_structure"], -1, False)]
        while pending:
            node, above, is_right = pending.pop()
            if "leaf_value" in node:
                place = -(len(leaf) - leaf_base) - 1
                leaf.append(node["leaf_value"])
            else:
                place = len(feature) - base
                feature.append(node["split_feature"])
                threshold.append(_float32_below(node["threshold"]))
                left.append(0)
                right.append(0)
                pending += [
                    (node["right_child"], len(feature) - 1, True),
                    (node["left_child"], len(feature) - 1, False),
                ]
            if above >= 0:
                (right if is_right else left)[above] = place
        if len(feature) == base:  # a tree of one leaf
            feature.append(0)
            threshold.append(0.0)
            left.append(-1)
            right.append(-1)
    return model.Forest(
        np.array(roots, np.int32),
        np.array(feature, np.int16),
        np.array(threshold, np.float32),
        np.array(left, np.int16),
        np.array(right, np.int16),
        np.array(leaf_roots, np.int32),
        np.array(leaf, np.float32),
    )


def _float32_below(value: float) -> float:
    rounded = np.float32(value)
    return float(rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf)))


def save(path: Path, words: Words, forests: tuple[model.Forest, model.Forest]) -> None:
    """Write the file that `model.load` reads."""
    arrays = vars(words) | forests[0].arrays("1_") | forests[1].arrays("2_")
    arrays["class_words"] = arrays["class_words"].astype(np.uint32)
    arrays["words"] = arrays["words"].astype(np.uint32)
    np.savez_compressed(path, **arrays)


def main() -> int:
    """Fit on all labelled pages and write the classifier."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=model.FILE)
    options = parser.parse_args()
    root = labelled_pages.folder()
    if root is None:
        print("error: set ARRIERO_TEST_DATA to the folder with the labelled pages", file=sys.stderr)
        return 1
    from trafilatura_peer import trafilatura_texts

    pages = labelled_pages.labelled(root)
    distilled, _ = trafilatura_texts(pages, keep=True)
    prepared = [
        p for page, text in zip(pages, distilled, strict=True) if (p := prepare(page, text)) is not None
    ]
    words, forests = fit(prepared)
    save(options.output, words, forests)
    print(f"{len(prepared)} pages, {options.output.stat().st_size:,} bytes: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

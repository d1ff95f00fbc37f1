"""Main text of HTML: F1 and pages per second of this project and of trafilatura, on the same labelled pages.

    ARRIERO_TEST_DATA=DIR python benchmarks/extraction.py            # cross-validated, then speed of the shipped classifier
    … python benchmarks/extraction.py --shipped                      # the shipped classifier, which has seen these pages

Cross-validated: pages are folded by host; each page is judged by a classifier fitted without its fold. Speed: both sides
in turn on the same pages, bytes to text with character sets detected, processor time, the median of the repetitions.
trafilatura runs in an environment of its own, with its defaults and without comments.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import extraction_pages as labelled_pages
from extraction_pages import Labelled, fold, scores
from trafilatura_peer import trafilatura_texts


def our_texts(pages: list[Labelled]) -> tuple[list[str], float]:
    """(texts, processor seconds) of the shipped classifier, from bytes to text."""
    from data_pipeline.extract import html
    from data_pipeline.read.charset import decode

    html.main_text(b"<p>compiled and loaded</p>")
    start = time.process_time()
    texts = [
        html.main_text(decode(p.payload, None, html=True)[0].encode("utf-8", "replace"), p.url).text
        for p in pages
    ]
    return texts, time.process_time() - start


def cross_validated(pages: list[Labelled], distilled: list[str], folds: int) -> list[str]:
    """Texts by classifiers that were fitted without the page's host."""
    import fit_extractor

    from data_pipeline.extract import html

    prepared = [fit_extractor.prepare(page, text) for page, text in zip(pages, distilled, strict=True)]
    texts = [""] * len(pages)
    for k in range(folds):
        kept = [
            p
            for p, page in zip(prepared, pages, strict=True)
            if p is not None and fold(page.host, folds) != k
        ]
        words, forests = fit_extractor.fit(kept)
        fitted = words.model(forests)
        for i, (p, page) in enumerate(zip(prepared, pages, strict=True)):
            if p is not None and fold(page.host, folds) == k:
                texts[i] = html.main_text(p.page, page.url, fitted).text
        print(f"fold {k + 1} of {folds}: fitted on {len(kept)} pages", file=sys.stderr, flush=True)
    return texts


def show(ours: dict[str, tuple[float, float, float]], theirs: dict[str, tuple[float, float, float]]) -> None:
    """Print precision, recall and F1 of both sides."""
    print(f"{'':28}{'arriero P     R    F1':>24}{'trafilatura P     R    F1':>30}{'F1':>9}")
    for name in sorted(ours):
        a, b = ours[name], theirs[name]
        print(
            f"{name:28}{a[0]:12.3f}{a[1]:6.3f}{a[2]:6.3f}{b[0]:18.3f}{b[1]:6.3f}{b[2]:6.3f}{a[2] - b[2]:+9.3f}"
        )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shipped", action="store_true", help="judge by the shipped classifier, without fitting"
    )
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of the timing")
    options = parser.parse_args()
    root = labelled_pages.folder()
    if root is None:
        print("error: set ARRIERO_TEST_DATA to the folder with the labelled pages", file=sys.stderr)
        return 1
    pages = labelled_pages.labelled(root)
    timed = {name: [p for p in pages if p.set == name] for name in labelled_pages.SETS}
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in timed}
    theirs: dict[str, str] = {}
    shipped: dict[str, str] = {}
    for _ in range(options.repeats):
        for name, some in timed.items():
            texts, spent = our_texts(some)
            seconds[name][0].append(spent)
            shipped |= zip((p.url for p in some), texts, strict=True)
            texts, spent = trafilatura_texts(some)
            seconds[name][1].append(spent)
            theirs |= zip((p.url for p in some), texts, strict=True)
    their_texts = [theirs[p.url] for p in pages]
    if options.shipped:
        texts = [shipped[p.url] for p in pages]
    else:
        texts = cross_validated(pages, their_texts, options.folds)
    ours, peer = scores(pages, texts), scores(pages, their_texts)
    show(ours, peer)
    print(f"\n{'pages per second':28}{'arriero':>12}{'trafilatura':>14}{'ratio':>8}")
    speed = {}
    for name, (a, b) in seconds.items():
        n = len(timed[name])
        speed[name] = (n / median(a), n / median(b))
        print(f"{name:28}{speed[name][0]:12.0f}{speed[name][1]:14.0f}{speed[name][0] / speed[name][1]:8.1f}")
    print(json.dumps({"arriero": ours, "trafilatura": peer, "pages_per_second": speed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

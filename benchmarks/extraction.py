"""Main text of HTML: F1, snippets and speed of this project and of trafilatura, on the same labelled pages.

    ARRIERO_TEST_DATA=DIR python benchmarks/extraction.py            # each set by a classifier that never saw it, then speed
    … python benchmarks/extraction.py --shipped                      # the shipped classifier, which has seen these pages
    … python benchmarks/extraction.py --limit 20                     # twenty pages of each set: whether it runs

Left out: the pages of a set are judged by a classifier that was fitted on the other sets alone, without the hosts of the
set, by `fit_extractor.fit`. Classifiers and trafilatura's texts are kept in `.cache/extraction`, by a hash of what they
depend on (pages, labels and features; not the code), so that a second run fits nothing.

Words: means over pages of precision, recall and F1 of bags of words. Snippets: over all of a set, white space collapsed.
Speed: both sides in turn on the pages of one set, bytes to text with character sets detected, processor time of one
process, the median of the repetitions. trafilatura runs in an environment of its own, with its defaults and without
comments.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import extraction_pages as labelled_pages
import xxhash
from extraction_pages import Labelled, scores
from trafilatura_peer import CACHE, trafilatura_texts


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


def left_out(pages: list[Labelled], distilled: list[str]) -> list[str]:
    """Texts by classifiers that were fitted without the page's set and without its hosts."""
    import fit_extractor

    from data_pipeline.extract import html, model

    prepared = [fit_extractor.prepare(page, text) for page, text in zip(pages, distilled, strict=True)]
    digests = [b"" if p is None else fit_extractor.digest(p) for p in prepared]
    texts = [""] * len(pages)
    for name in labelled_pages.SETS:
        hosts = {page.host for page in pages if page.set == name}
        used = [
            i
            for i, (p, page) in enumerate(zip(prepared, pages, strict=True))
            if p is not None and page.set != name and page.host not in hosts
        ]
        depends = xxhash.xxh3_128(fit_extractor.SETTINGS)
        for i in used:
            depends.update(digests[i])
        file = CACHE / f"without-{name}-{depends.hexdigest()[:16]}.npz"
        start = time.process_time()
        if not file.exists():
            fit_extractor.save(file, *fit_extractor.fit([p for i in used if (p := prepared[i]) is not None]))
        fitted = model.load(file)
        for i, (p, page) in enumerate(zip(prepared, pages, strict=True)):
            if p is not None and page.set == name:
                texts[i] = html.main_text(p.page, page.url, fitted).text
        spent = time.process_time() - start
        print(f"without {name}: fitted on {len(used)} pages ({spent:.0f} s)", file=sys.stderr, flush=True)
    return texts


Scores = dict[str, tuple[float, float, float]]


def show(ours: Scores, theirs: Scores) -> None:
    """Print precision, recall and F1 of both sides."""
    print(f"{'':28}{'arriero P     R    F1':>24}{'trafilatura P     R    F1':>30}{'R':>9}{'F1':>8}")
    for name in sorted(ours):
        a, b = ours[name], theirs[name]
        figures = f"{a[0]:12.3f}{a[1]:6.3f}{a[2]:6.3f}{b[0]:18.3f}{b[1]:6.3f}{b[2]:6.3f}"
        print(f"{name:28}{figures}{a[1] - b[1]:+9.3f}{a[2] - b[2]:+8.3f}")


def speed(pages: list[Labelled], sets: list[str], repeats: int) -> dict[str, tuple[float, float]]:
    """Megabytes per second of processor time of both sides, by set; medians of interleaved runs."""
    found = {}
    print(f"\n{'MB and pages a second':28}{'arriero':>15}{'trafilatura':>15}{'ratio':>8}")
    for name in sets:
        some = [page for page in pages if page.set == name]
        size = sum(len(page.payload) for page in some) / 1e6
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            seconds[0].append(our_texts(some)[1])
            seconds[1].append(trafilatura_texts(some)[1])
        a, b = median(seconds[0]), median(seconds[1])
        found[name] = (size / a, size / b)
        sides = "".join(f"{size / t:9.2f}{len(some) / t:6.0f}" for t in (a, b))
        print(f"{name:28}{sides}{b / a:8.1f}", flush=True)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shipped", action="store_true", help="judge by the shipped classifier, without fitting"
    )
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of the timing; 0: none")
    parser.add_argument("--timed", nargs="*", choices=labelled_pages.SETS, default=list(labelled_pages.SETS))
    parser.add_argument("--limit", type=int, help="pages of each set")
    options = parser.parse_args()
    root = labelled_pages.folder()
    if root is None:
        print("error: set ARRIERO_TEST_DATA to the folder with the labelled pages", file=sys.stderr)
        return 1
    pages = labelled_pages.labelled(root)
    if options.limit:
        pages = [
            page
            for name in labelled_pages.SETS
            for page in [p for p in pages if p.set == name][: options.limit]
        ]
    theirs, _ = trafilatura_texts(pages, keep=True)
    texts = our_texts(pages)[0] if options.shipped else left_out(pages, theirs)
    ours, peer = scores(pages, texts), scores(pages, theirs)
    show(ours, peer)
    result = {"arriero": ours, "trafilatura": peer}
    if options.repeats:
        result["megabytes_per_second"] = speed(pages, options.timed, options.repeats)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

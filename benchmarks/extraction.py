"""Main text of HTML: F1 and pages per second of this project and of trafilatura, on the same labelled pages.

    ARRIERO_TEST_DATA=DIR python benchmarks/extraction.py            # each set by a classifier that never saw it, then speed
    … python benchmarks/extraction.py --shipped                      # the shipped classifier, which has seen these pages

Left out: the pages of a set are judged by a classifier that was fitted on the other sets alone, without the hosts of the
set. Classifiers and trafilatura's texts are kept in `.cache/extraction`, by a hash of what they depend on: the four fits
take about six minutes of processor time, a second run seconds. Speed: both sides in turn on the same pages, bytes to text
with character sets detected, processor time, the median of the repetitions. trafilatura runs in an environment of its own,
with its defaults and without comments.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

import extraction_pages as labelled_pages
import xxhash
from extraction_pages import Labelled, scores
from trafilatura_peer import trafilatura_texts

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "extraction"
FITTED_FROM = (
    "features.py", "hints.py", "layout.py", "markup.py", "mathml.py", "metadata.py", "parse.py", "scripts.py", "stack.py",
    "surroundings.py", "tags.py",
)  # fmt: skip
"""Sources that features depend on."""


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


def _digest(*parts: bytes) -> str:
    return xxhash.xxh3_128(b"\0".join(parts)).hexdigest()[:16]


def left_out(pages: list[Labelled], distilled: list[str]) -> list[str]:
    """Texts by classifiers that were fitted without the page's set and without its hosts."""
    import fit_extractor

    from data_pipeline.extract import html, model

    sources = [file.read_bytes() for name in FITTED_FROM for file in [Path(html.__file__).with_name(name)]]
    sources += [Path(module.__file__ or "").read_bytes() for module in (fit_extractor, labelled_pages)]
    prepared = [fit_extractor.prepare(page, text) for page, text in zip(pages, distilled, strict=True)]
    texts = [""] * len(pages)
    for name in labelled_pages.SETS:
        hosts = {page.host for page in pages if page.set == name}
        kept = [
            p
            for p, page in zip(prepared, pages, strict=True)
            if p is not None and page.set != name and page.host not in hosts
        ]
        file = CACHE / f"without-{name}-{_digest(*sources, *(p.page for p in kept))}.npz"
        if not file.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            fit_extractor.save(file, *fit_extractor.fit(kept))
        fitted = model.load(file)
        for i, (p, page) in enumerate(zip(prepared, pages, strict=True)):
            if p is not None and page.set == name:
                texts[i] = html.main_text(p.page, page.url, fitted).text
        print(f"without {name}: fitted on {len(kept)} pages", file=sys.stderr, flush=True)
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
        texts = left_out(pages, their_texts)
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

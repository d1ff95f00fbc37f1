"""URL lists: agreement with datatrove's URLFilter on the same URLs with the same lists, and speed of both.

    python benchmarks/url.py [URLS]

URLs: the addresses and links of the pages under ARRIERO_TEST_DATA (or made-up ones), and addresses drawn from the lists
themselves. One core each; every URL on which the two differ is counted under its reason, the first ones are shown.
"""

from __future__ import annotations

import gzip
import importlib.resources
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import orjson
import peers
import pyarrow as pa

from data_pipeline.annotate import url, url_lists
from data_pipeline.urls import domains

PEER = """
import sys, time, orjson
from datatrove.data import Document
from datatrove.pipeline.filters import URLFilter
from tldextract import TLDExtract
urls = orjson.loads(open(sys.argv[1], "rb").read())
filter = URLFilter()
filter.tldextractor = TLDExtract(suffix_list_urls=())  # the snapshot: no network
began = time.process_time()
filter.filter(Document(text="", id="", metadata={"url": "http://example.org/"}))
loaded = time.process_time() - began
began = time.process_time()
found = [filter.filter(Document(text="", id="", metadata={"url": u})) for u in urls]
seconds = time.process_time() - began
found = ["" if f is True else f[1] for f in found]
open(sys.argv[2], "wb").write(orjson.dumps([loaded, seconds, found]))
"""
_LINK = re.compile(rb'(?:href="|WARC-Target-URI: )(https?://[^"\s<>]+)')


def sample(n: int) -> tuple[list[str], list[str]]:
    """(URLs of real pages, URLs drawn from the lists)."""
    chosen = random.Random(0)
    real: set[str] = set()
    root = os.environ.get("ARRIERO_TEST_DATA")
    for path in sorted(Path(root).glob("web/*.warc.gz")) if root else ():
        with gzip.open(path) as file:
            real |= {m.decode("utf-8", "replace") for m in _LINK.findall(file.read())}
    if not real:
        print("ARRIERO_TEST_DATA is not set: made-up addresses instead of real ones")
        words = [
            "news",
            "teen",
            "shop",
            "Sex-education",
            "forum",
            "video",
            "hot",
            "analysis",
            "escort",
            "girls",
        ]
        for i in range(n):
            path = "/".join(chosen.choices(words, k=3))
            real.add(
                f"https://{chosen.choice(words)}{i}.example.{chosen.choice(['com', 'co.uk', 'de'])}/{path}"
            )
    pages = sorted(real)
    chosen.shuffle(pages)
    assets = importlib.resources.files("datatrove") / "assets"
    archive = next(a for a in assets.iterdir() if a.name.startswith("url_filterblacklists"))
    with importlib.resources.as_file(archive) as name, tarfile.open(name) as tar:
        names = {m.name: m for m in tar.getmembers()}
        listed = {key: tar.extractfile(m).read().decode().split("\n") for key, m in names.items()}  # type: ignore[union-attr]
    drawn = [f"http://{d}/" for d in chosen.sample(listed["domains"], n // 10) if d]
    drawn += [f"http://www.{d}/a?b=1" for d in chosen.sample(listed["domains"], n // 10) if d]
    drawn += [f"https://{u}" for u in chosen.sample(listed["urls"], n // 50) if u]
    return pages[:n], drawn


def reason(address: str, listed: str) -> str:
    """Why the verdict differs from datatrove's."""
    host = domains.split(address)[0]
    if listed == f"{url_lists.DATATROVE}.url":
        return "the address is listed without a scheme, and datatrove compares it with one"
    if re.fullmatch(r"[0-9.]+", host):
        return "an IP address is listed, and datatrove takes it for no domain"
    if listed == f"{url_lists.DATATROVE}.domain":
        return "a host is listed, and this is below it (www)"
    return f"not explained: {listed}"


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    real, drawn = sample(n)
    urls = real + drawn
    python = peers.python("datatrove", peers.DATATROVE)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "urls").write_bytes(orjson.dumps(urls))
        began = time.process_time()
        url_lists.build((url_lists.DATATROVE,), (), folder / "index", folder / "cache")
        built = time.process_time() - began
        again = []
        for i in range(3):
            began = time.process_time()
            url_lists.build((url_lists.DATATROVE,), (), folder / f"again{i}", folder / "cache")
            again.append(time.process_time() - began)
        table = pa.table({"id": [str(i) for i in range(len(urls))], "url": urls})
        url.annotate(table.slice(0, 1), folder / "index")
        began = time.process_time()
        found = url.annotate(table, folder / "index")
        seconds = time.process_time() - began
        subprocess.run([python, "-c", PEER, folder / "urls", folder / "result"], check=True)
        loaded, peer_seconds, verdicts = orjson.loads((folder / "result").read_bytes())
    ours = [
        "soft_words" if listed == url.NOT_LISTED and soft >= 2 else listed
        for listed, soft in zip(found["listed"].to_pylist(), found["soft_words"].to_pylist(), strict=True)
    ]
    print(
        f"start: datatrove {loaded:.2f} s in every process; here {built:.2f} s once, then {sorted(again)[1]:.3f} s"
    )
    print(
        f"URLs/s on one core: datatrove {len(urls) / peer_seconds:,.0f}, here {len(urls) / seconds:,.0f} "
        f"({peer_seconds / seconds:.2f}×)"
    )
    for title, low, high in (("of real pages", 0, len(real)), ("drawn from the lists", len(real), len(urls))):
        pairs = list(zip(urls[low:high], ours[low:high], verdicts[low:high], strict=True))
        differing = [(u, a, b) for u, a, b in pairs if (a != url.NOT_LISTED) != bool(b)]
        hits = sum(bool(b) for _, _, b in pairs)
        print(
            f"{len(pairs):,} URLs {title}: {hits:,} dropped by datatrove, agreement "
            f"{100 * (1 - len(differing) / len(pairs)):.3f}%"
        )
        reasons = Counter((reason(u, a), b) for u, a, b in differing)
        for (why, b), count in reasons.most_common():
            first = next(u for u, a, y in differing if (reason(u, a), y) == (why, b))
            print(f"  {count:>6,} × {why}; datatrove: {b or 'kept'}; such as {first[:100]}")


if __name__ == "__main__":
    main()

"""The recipe `stackexchange` on a real dump, against a second reading of it that shares no code.

    ARRIERO_TEST_DATA=DIR python benchmarks/posts.py [input=FOLDER] [posts=500]

The other side parses a whole Posts.xml with ElementTree and its bodies with lxml.html. Printed: whether every question
came with every answer, in the order of their scores; listings, inline code and formulas of posts that stand in the text
character by character; MB of XML a second of processor time. Exit status 1 where anything is out of place or changed.
"""

from __future__ import annotations

import os
import re
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import lxml.html

from configs.schema.pipeline import RecipeConfig
from data_pipeline.extract.posts import plain, to_text
from data_pipeline.read import Record, SetAside, Source, records
from data_pipeline.read.streams import open_stream
from data_pipeline.read.units import plan

FORMULA = re.compile(r"\$\$.+?\$\$|(?<![\\$])\$[^$\n]+?\$(?!\d)|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
RECIPE = RecipeConfig(name="stackexchange", reader="stackexchange", sites=("*", "meta.mathoverflow"))


def rows(file: str) -> dict[str, dict[str, str]]:
    """Attributes of questions and answers by id."""
    with open_stream(file) as stream:
        root = ET.fromstring(stream.read())
    return {r.attrib["Id"]: r.attrib for r in root if r.attrib["PostTypeId"] in ("1", "2")}


def check_order(made: list[Record], posts: dict[str, dict[str, str]]) -> Counter[str]:
    """Questions and answers, and those that are missing or out of place."""
    answers: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for identifier, post in posts.items():
        if post["PostTypeId"] == "2" and post.get("Body", "").strip():
            answers[post["ParentId"]].append((-int(post["Score"]), int(identifier)))
    counts: Counter[str] = Counter()
    for record in made:
        assert record.url is not None
        identifier = record.url.rsplit("/", 1)[1]
        wanted = [i for _, i in sorted(answers.pop(identifier, []))]
        found = [a["id"] for a in record.metadata["answers"]]
        counts["questions"] += 1
        counts["answers"] += len(wanted)
        counts["answers missing or out of place"] += sum(a != b for a, b in zip(wanted, found, strict=False))
        counts["answers missing or out of place"] += abs(len(wanted) - len(found))
        counts["answers out of place in the text"] += not in_text(record, [posts[str(i)] for i in wanted])
        del posts[identifier]
    left = [p for p in posts.values() if p["PostTypeId"] == "1"]
    counts["questions missing"] += len(left)
    counts["answers without their question"] += sum(len(a) for a in answers.values())
    return counts


def in_text(record: Record, answers: list[dict[str, str]]) -> bool:
    """Whether the texts of the answers follow each other."""
    text, at = to_text(record.payload), 0
    for answer in answers:
        body = plain(answer["Body"])
        at = text.find("\n\nA:\n\n" + body.strip("\n")[:200], at) + 1 if body else at + 1
        if not at:
            return False
    return True


def verbatim(body: str) -> dict[str, list[str]]:
    """Listings, inline code and formulas of a post, as a browser would show them."""
    page = lxml.html.fragment_fromstring(body, create_parent="div")
    found: dict[str, list[str]] = {"listing": [], "inline code": [], "formula": []}
    for node in page.iter("pre", "code"):
        inside = any(a.tag == "pre" for a in node.iterancestors())
        if not inside and (content := node.text_content()).strip():
            found["listing" if node.tag == "pre" else "inline code"].append(content)
    for node in list(page.iter("pre", "code")):
        if node.getparent() is not None:
            node.drop_tree()
    for node in page.iter("p", "li", "h1", "h2", "h3", "blockquote", "td"):
        # Formulas that Markdown has cut by tags are no longer formulas to the site either.
        for text in [node.text, *(child.tail for child in node)]:
            found["formula"] += [m.group() for m in FORMULA.finditer(text or "")]
    return found


def main() -> int:
    given: dict[str, Any] = dict(word.split("=", 1) for word in sys.argv[1:])
    folder = given.get("input") or str(Path(os.environ["ARRIERO_TEST_DATA"]) / "stackexchange")
    limit = int(given.get("posts", 500))
    units = plan([Source("stackexchange", RECIPE, folder)], 64 * 2**20).units
    totals: Counter[str] = Counter()
    bodies: list[str] = []
    size, seconds, reading = 0, 0.0, 0.0
    plain("<p>warm</p>")
    for unit in units:
        begin = time.process_time()
        items = list(records(unit, RECIPE))
        middle = time.process_time()
        made = [item for item in items if isinstance(item, Record)]
        for record in made:
            to_text(record.payload)
        seconds += time.process_time() - begin
        reading += middle - begin
        with open_stream(unit.file) as stream:
            size += len(stream.read())
        posts = rows(unit.file)
        bodies += [p["Body"] for p in posts.values() if p.get("Body")]
        totals += check_order(made, posts)
        totals["set aside"] += sum(isinstance(item, SetAside) for item in items)
    kept: dict[str, Counter[str]] = {}
    examined: Counter[str] = Counter()
    with_code = [b for b in bodies if "<code" in b or "<pre" in b]
    with_formulas = [b for b in bodies if FORMULA.search(b) and b not in set(with_code[:limit])]
    for body in with_code[:limit] + with_formulas[:limit]:
        examined["posts"] += 1
        text = plain(body)
        for kind, pieces in verbatim(body).items():
            counts = kept.setdefault(kind, Counter())
            for piece in pieces:
                counts["of"] += 1
                counts["kept"] += piece in text
                if piece not in text:
                    print(f"changed {kind}: {piece!r}")
    print(f"input                     {folder}: {len(units)} sites, {size / 1e6:.2f} MB of XML")
    for name in ("questions", "answers", "questions missing", "answers missing or out of place",
                 "answers out of place in the text", "answers without their question", "set aside"):  # fmt: skip
        print(f"{name:<34}{totals[name]:>8,}")
    print(
        f"posts with code or formulas       {examined['posts']:>8,} of {len(with_code) + len(with_formulas):,}"
    )
    for kind, counts in kept.items():
        print(f"{kind + ' kept whole':<34}{counts['kept']:>8,} of {counts['of']:,}")
    rate = f"reading and joining {size / 1e6 / reading:.1f}, with text {size / 1e6 / seconds:.1f}"
    print(f"MB of XML a second of one core    {rate}")
    wrong = totals["questions missing"] + totals["answers missing or out of place"] + totals[
        "answers out of place in the text"
    ] + sum(c["of"] - c["kept"] for c in kept.values())  # fmt: skip
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())

"""A labelled set of pages: not safe for work, or using the same words in medicine, dictionaries, news and novels.

Nobody publishes labelled pages of that kind, so positive pages are put together from labelled parts, and negative ones are
real pages, with synthetic dictionary, health and news pages for the hardest words. Pages of one group (host, source of
the toxic rows, language of a word list, template, novel) are on one side of the split.

Positive:
  thread    4 to 30 obscene rows of one labelled source, as a forum shows them, half of the threads mixed with as many
            harmless rows at the most. Obscene: labelled toxic, and with a word that two graded lists of profanity, which
            the filter is not given, call more than mild
  dense     words and phrases of one language's list among running text of that language (declaration of human rights),
            every 4th to 10th word
  directory names of listed adult hosts, split into words, with words of the lists, as link lists show them
Negative:
  web       real pages (main text of the extraction benchmarks), all of them
  wiki      real encyclopedia articles
  novel     books: 40,000 words, and of 600 words the piece with most listed words and one at random
  passage   60 to 250 words around a listed word of those pages: as short as a page gets that says it once
  answers   questions and answers of forums
  news      news articles, half of them with one toxic row quoted
Neither, shown but not counted:
  insults   threads of toxic rows without such a word: unkind, and nothing that a filter of NSFW pages must drop
Negative as well:
  dictionary, health   entries and leaflets around listed words, from sentences written for this file
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import html
import io
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import orjson

from data_pipeline.annotate.nsfw_vocabulary import ADULT
from data_pipeline.extract import wikitext
from data_pipeline.zstd import zstd

TRAIN_SOURCES = ("t-davidson", "toxic_spans", "context_toxicity gn")
"""Sources of toxic rows whose threads are training pages; every other source is for the test."""
POSITIVE = ("thread", "dense", "directory")
UNJUDGED = "insults"
_DEFINITIONS = (
    "{w} (noun, vulgar slang): a word that most speakers avoid in company; first recorded in the {c}th century.",
    "{w}: of uncertain etymology, perhaps related to Middle Low German; the plural is rare. See also {v}.",
    "The adjective {w} is marked as offensive in all current dictionaries and has the synonym {v}.",
    "Usage note: {w} was printed with dashes until the nineteen-sixties, and style guides still advise against it.",
    "{w}, verb, transitive. 1. (coarse) See {v}. 2. (dialect) To waste time. Pronunciation varies by region.",
    "In the corpus of spoken English {w} is among the hundred most frequent terms of abuse, before {v}.",
    "Translators render {w} by milder terms; the entry gives equivalents in French, German and Latin for {v}.",
    "Derived forms of {w} include an adverb and a noun of agent. Compare the obsolete sense under {v}.",
)
_ANATOMY = (
    "penis", "vagina", "vulva", "clitoris", "breasts", "nipples", "anus", "rectum", "scrotum", "testicles", "semen",
    "sperm", "genitals",
)  # fmt: skip
_ACTS = (
    "sex", "oral sex", "anal sex", "intercourse", "masturbation", "ejaculation", "orgasm", "erection", "arousal",
)  # fmt: skip
_LEAFLET = (
    "Pain of the {a} during {x} is common and most patients recover without treatment.",
    "See a doctor if you notice a lump, swelling or discharge of the {a}.",
    "Infections that spread by {x} can be prevented with condoms and treated with antibiotics.",
    "The nurse will ask about your symptoms, your medication and whether {x} is painful.",
    "Cancer of the {a} is diagnosed by a biopsy of the tissue under local anaesthetic.",
    "During puberty the {a} grows under the influence of hormones, which may cause anxiety in teenagers.",
    "Studies report that one in four adults has had difficulties with {x} in the past year.",
    "Surgery on the {a} takes about an hour, and {x} should be avoided for six weeks.",
    "Pregnancy is unlikely after {x} on these days, but contraception remains advisable.",
    "Counselling helps couples to talk about {x} when illness has changed how the {a} feels.",
)
_REPORTED = (
    "The spokesman confirmed that the account had posted: “{t}” The post has been removed.",
    "Prosecutors read the message aloud in court: “{t}” The defendant did not respond.",
    "According to the complaint a supervisor wrote “{t}” in an email to staff.",
    "The player was suspended for two matches after shouting: “{t}”",
)


@dataclass(frozen=True)
class Page:
    """A labelled page."""

    kind: str
    """One of the kinds above."""
    group: str
    """What stays on one side of the split."""
    text: str
    """Its main text."""
    language: str | None
    """Language, where it is known."""
    positive: bool
    """Not safe for work."""
    test: bool
    """On the test side."""


def _side(group: str) -> bool:
    return hashlib.sha256(group.encode()).digest()[0] < 128


def learnt(text: str) -> bool:
    """Whether a row or group of the training side teaches the classifier; from the others the page's score is fitted."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[1] < 128


def learning_rows(data: Path, pages: list[Page]) -> list[tuple[str, str]]:
    """Rows for the classifier, from the training side alone: labelled rows, and paragraphs of real pages as safe ones."""
    found = [
        (text, "nsfw" if toxic else "safe")
        for (source, toxic), texts in sorted(toxic_rows(data).items())
        if source in TRAIN_SOURCES
        for text in texts
        if learnt(text)
    ]
    for page in pages:
        if not page.test and learnt(page.group) and page.kind in ("web", "wiki", "novel", "answers", "news"):
            paragraphs = [p.strip() for p in page.text.split("\n") if len(p) > 60]
            found += [(p[: 60 + 40 * (i % 12)], "safe") for i, p in enumerate(paragraphs[:12])]
    return found


def _page(kind: str, group: str, text: str, language: str | None = "en", test: bool | None = None) -> Page:
    name = f"{kind}:{group}"
    return Page(kind, name, text, language, kind in POSITIVE, _side(name) if test is None else test)


def lines(path: Path) -> Iterator[dict]:
    """Rows of a JSONL file under zstd."""
    with path.open("rb") as file:
        for line in zstd.decompress(file.read()).splitlines():
            yield orjson.loads(line)


def toxic_rows(data: Path) -> dict[tuple[str, bool], list[str]]:
    """(source, toxic) → texts."""
    found: dict[tuple[str, bool], list[str]] = {}
    for row in lines(data / "nsfw" / "toxicity_labelled.jsonl.zst"):
        found.setdefault((row["source"], str(row["toxic"]) == "1"), []).append(html.unescape(row["text"]))
    return found


def word_files(data: Path) -> dict[str, list[str]]:
    """Language → phrases of its word list."""
    return {
        path.stem: [w.strip() for w in path.read_text("utf-8").splitlines() if w.strip()]
        for path in sorted((data / "nsfw" / "badwords_ldnoobw").glob("*.txt"))
    }


def build(data: Path, seed: int = 0) -> list[Page]:
    """The whole set, in an order that depends on the seed alone."""
    rows, words = toxic_rows(data), word_files(data)
    pages = [
        *_threads(rows, obscene_words(data), random.Random(f"threads {seed}")),
        *_dense(data, words, random.Random(f"dense {seed}")),
        *_directories(data, words, random.Random(f"directories {seed}")),
        *_web(data),
        *_wiki(data),
        *_novels(data, words.get("en", []), random.Random(f"novels {seed}")),
        *_answers(data),
        *_news(data, rows, random.Random(f"news {seed}")),
        *_leaflets(words.get("en", []), random.Random(f"leaflets {seed}")),
    ]
    pages += _passages(pages, words.get("en", []), random.Random(f"passages {seed}"))
    return [
        p
        for p in pages
        if len(p.text.split()) >= 20 or (p.language not in (None, "en") and len(p.text) > 100)
    ]


def obscene_words(data: Path) -> re.Pattern[str]:
    """Words of the graded lists that are more than mild."""
    found = set()
    with (data / "nsfw" / "badwords_surge_en.csv").open(encoding="utf-8", newline="") as file:
        found |= {r["text"] for r in csv.DictReader(file) if float(r["severity_rating"] or 0) >= 1.6}
    for entry in orjson.loads((data / "nsfw" / "badwords_profanity_en.json").read_bytes()):
        if entry["severity"] >= 3:
            found |= set(entry["match"].replace("*", "").split("|"))
    words = "|".join(re.escape(w) for w in sorted(found, key=lambda w: (-len(w), w)) if len(w) > 2)
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


def _threads(
    rows: dict[tuple[str, bool], list[str]], obscene: re.Pattern[str], draw: random.Random
) -> Iterator[Page]:
    harmless = {
        True: [
            t for (s, toxic), ts in sorted(rows.items()) if not toxic and s not in TRAIN_SOURCES for t in ts
        ],
        False: [t for (s, toxic), ts in sorted(rows.items()) if not toxic and s in TRAIN_SOURCES for t in ts],
    }
    for (source, toxic), texts in sorted(rows.items()):
        if not toxic or len(texts) < 30:
            continue
        test = source not in TRAIN_SOURCES
        usable = texts if test else [t for t in texts if not learnt(t)]
        for kind, chosen in (
            ("thread", [t for t in usable if obscene.search(t)]),
            (UNJUDGED, [t for t in usable if not obscene.search(t)]),
        ):
            for _ in range(min(150, len(chosen) // 2) if len(chosen) >= 20 else 0):
                posts = draw.sample(chosen, min(draw.randint(4, 30), len(chosen)))
                if draw.random() < 0.5:
                    posts += draw.sample(harmless[test], draw.randint(1, len(posts)))
                    draw.shuffle(posts)
                shown = [
                    f"user{draw.randint(1, 999)} wrote: {p}" if i % 3 == 0 else p for i, p in enumerate(posts)
                ]
                yield _page(kind, source, "\n".join(shown), test=test)


def _dense(data: Path, words: dict[str, list[str]], draw: random.Random) -> Iterator[Page]:
    running = {row["lang"]: row["text"] for row in lines(data / "multilingual" / "udhr.jsonl.zst")}
    for language, phrases in sorted(words.items()):
        text = running.get(language) or running.get({"no": "nb", "fil": "tl"}.get(language, ""))
        if not text or len(phrases) < 10:
            continue
        unspaced = language in ("ja", "zh", "th")
        tokens = [text[i : i + 4] for i in range(0, len(text), 4)] if unspaced else text.split()
        for _ in range(12):
            every = draw.randint(4, 10)
            start = draw.randrange(max(1, len(tokens) - 200))
            mixed: list[str] = []
            for i, token in enumerate(tokens[start : start + draw.randint(60, 200)]):
                mixed += [token, draw.choice(phrases)] if i % every == 0 else [token]
            yield _page("dense", language, ("" if unspaced else " ").join(mixed), language)


def _directories(data: Path, words: dict[str, list[str]], draw: random.Random) -> Iterator[Page]:
    path = data / "nsfw" / "urls" / "adult_hosts.txt.gz"
    if not path.is_file():
        return
    hosts = sorted(set(gzip.decompress(path.read_bytes()).decode().split()))
    halves = {test: [h for h in hosts if _side(h) == test] for test in (False, True)}
    english = sorted(words.get("en", []))
    for k in range(120):
        test = bool(k % 2)
        entries = []
        for host in draw.sample(halves[test], min(15, len(halves[test]))):
            said = " ".join(re.split(r"[-.\d]+", host.removeprefix("www."))[:-1])
            entries.append(
                f"{host} – {said} {' '.join(draw.sample(english, min(2, len(english))))}, free videos and pictures"
            )
        yield _page("directory", f"hosts {test}", "\n".join(entries), test=test)


def _web(data: Path) -> Iterator[Page]:
    for path in sorted((data / "web").glob("*.ground_truth.jsonl.zst")):
        for row in lines(path):
            text = row.get("main_content") or row.get("text_content") or ""
            if text:
                yield _page("web", urlsplit(row["url"]).hostname or row["url"], text, None)


def _passages(pages: list[Page], words: list[str], draw: random.Random) -> Iterator[Page]:
    listed = {w.lower() for w in words} | set(ADULT.split())
    for page in pages:
        if page.kind not in ("web", "wiki", "novel", "answers", "news"):
            continue
        tokens = page.text.split()
        hits = [i for i, t in enumerate(tokens) if t.lower().strip(".,;:!?()'“”") in listed]
        for i in draw.sample(hits, min(3, len(hits))):
            size = draw.randint(60, 250)
            start = max(0, i - draw.randrange(size))
            text = " ".join(tokens[start : start + size])
            yield Page("passage", page.group, text, page.language, False, page.test)


def _wiki(data: Path) -> Iterator[Page]:
    for path in sorted((data / "wikipedia").glob("enwiki*.xml.bz2")):
        for _, element in ElementTree.iterparse(io.BytesIO(bz2.decompress(path.read_bytes()))):
            if element.tag.endswith("}text") and element.text and len(element.text) > 2000:
                text = wikitext.to_text(element.text)[:30_000]
                yield _page("wiki", hashlib.sha256(text[:500].encode()).hexdigest()[:8], text)
            if element.tag.endswith("}page"):
                element.clear()


def _novels(data: Path, words: list[str], draw: random.Random) -> Iterator[Page]:
    listed = {w.lower() for w in words}
    for name in ("books/gutenberg.jsonl.zst", "prose/english_novels.jsonl.zst"):
        if not (data / name).is_file():
            continue
        for number, row in enumerate(lines(data / name)):
            tokens = row["text"][:600_000].split()
            pieces = [tokens[i : i + 600] for i in range(0, len(tokens), 600)]
            hits = [sum(t.strip(".,;:!?\"'()").lower() in listed for t in piece) for piece in pieces]
            chosen = {max(range(len(pieces)), key=lambda i: (hits[i], -i)), draw.randrange(len(pieces))}
            yield _page("novel", f"{name} {number}", " ".join(tokens[:40_000]), row.get("language") or "en")
            for i in sorted(chosen):
                yield _page("novel", f"{name} {number}", " ".join(pieces[i]), row.get("language") or "en")


def _answers(data: Path) -> Iterator[Page]:
    for path in sorted((data / "stackexchange").glob("*/Posts.xml.gz")):
        for n, (_, element) in enumerate(
            ElementTree.iterparse(io.BytesIO(gzip.decompress(path.read_bytes())))
        ):
            body = element.get("Body", "")
            if n % 5 == 0 and len(body) > 600:
                text = html.unescape(re.sub(r"<[^>]+>", " ", body))
                yield _page("answers", f"{path.parent.name} {n}", text)
            element.clear()


def _news(data: Path, rows: dict[tuple[str, bool], list[str]], draw: random.Random) -> Iterator[Page]:
    path = data / "quality" / "onestop_english.jsonl.zst"
    if not path.is_file():
        return
    quotes = {
        test: [
            t
            for (s, toxic), ts in sorted(rows.items())
            if toxic and (s not in TRAIN_SOURCES) == test
            for t in ts
        ]
        for test in (False, True)
    }
    for number, row in enumerate(lines(path)):
        group = str(row.get("article") or row.get("id") or number)
        page = _page(
            "news",
            re.sub(r"[-_ ]*(adv|int|ele|advanced|intermediate|elementary)\b", "", group.lower()),
            row["text"],
        )
        if draw.random() < 0.5 and quotes[page.test]:
            paragraphs = row["text"].split("\n")
            quote = draw.choice(_REPORTED[2 * page.test : 2 * page.test + 2]).format(
                t=draw.choice(quotes[page.test])
            )
            paragraphs.insert(len(paragraphs) // 2, quote)
            page = Page(page.kind, page.group, "\n".join(paragraphs), page.language, page.positive, page.test)
        yield page


def _leaflets(words: list[str], draw: random.Random) -> Iterator[Page]:
    halves = {test: [w for w in sorted(words) if _side(w) == test] for test in (False, True)}
    for k in range(160):
        test = bool(k % 2)
        if halves[test] and k % 4 < 2:
            half = len(_DEFINITIONS) // 2
            sentences = _DEFINITIONS[half * test : half * (test + 1)]
            text = "\n".join(
                draw.choice(sentences).format(
                    w=draw.choice(halves[test]), v=draw.choice(halves[test]), c=draw.randint(13, 19)
                )
                for _ in range(draw.randint(5, 25))
            )
            yield _page("dictionary", f"templates {test}", text, test=test)
        else:
            half = len(_LEAFLET) // 2
            sentences = _LEAFLET[half * test : half * (test + 1)]
            text = " ".join(
                draw.choice(sentences).format(a=draw.choice(_ANATOMY), x=draw.choice(_ACTS))
                for _ in range(draw.randint(6, 30))
            )
            yield _page("health", f"templates {test}", text, test=test)

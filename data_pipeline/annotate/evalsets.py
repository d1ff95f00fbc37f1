"""Evaluation sets as decontamination sees them: items, their parts, and an index of the parts' word sequences.

An *item* is a row of a JSONL file; its *parts* are the strings in it, wherever they stand: questions, answers (choices,
endings, solutions) and contexts (a passage that is asked about). A part knows its words by hash and by weight: words
that most texts hold count a quarter.

Shapes: p parts, w words of all parts, s seeds.
"""

from __future__ import annotations

import codecs
import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from configs.edge import ConfigError
from configs.schema.pipeline import DecontaminateConfig
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.dedup.arrays import write as write_arrays
from data_pipeline.read.streams import open_stream
from data_pipeline.wordhash import words

SEED = 4
"""Words in a row by which a part is looked up."""
QUESTION, ANSWER, CONTEXT = "question", "answer", "context"
ROLES = (QUESTION, ANSWER, CONTEXT)
COMMON_WEIGHT = 0.25
SMALLEST_WEIGHT = 2.0
"""A part below it, in words that are not common, is found in too many texts to be looked for."""
_COMMON_SHARE = 0.1
_SHORT, _SHARED = 8, 3
_SEED_PARTS = 20
"""A seed that more parts hold is a template of the set and finds nothing."""
_ANSWERS = frozenset(
    re.findall(
        r"\w+",
        """answer answers choice choices ending endings option options continuation continuations solution solutions
        target targets completion completions context_options distractor1 distractor2 distractor3 correct_answer sol1
        sol2 label output response answer_text canonical_solution""",
    )
)
_CONTEXTS = frozenset(
    (
        "passage",
        "context",
        "article",
        "story",
        "paragraph",
        "document",
        "background",
        "support",
        "premise",
        "text",
    )
)
_LABEL = re.compile(
    r"^[ \t]*(?:(question|q|problem|goal|query)|(answer|a|solution)|(passage|context|article|story|paragraph|premise))"
    r"[ \t]*:[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
# Words of English that most texts hold, beside those that a set itself makes common.
_COMMON = (
    "a about after all also an and any are as at be been before but by can could did do does each for from had has have "
    "he her him his how i if in into is it its like made make many may more most must my no not of on one only or other "
    "our out over said she should so some such than that the their them then there these they this to two up use used "
    "was way we were what when where which while who why will with would you your following best following"
)


_ARRAYS = [
    "ends",
    "words",
    "weights",
    "total",
    "filter",
    "keys",
    "first",
    "count",
    "posting_part",
    "posting_at",
]


@dataclass(frozen=True)
class Part:
    """One string of an item."""

    item: int
    """Number of the item over all sets."""
    role: str
    """`question`, `answer` or `context`."""
    field: str
    """Key of the string in its row."""
    text: str
    """The string; not stored with an index."""


@dataclass(frozen=True)
class Item:
    """One row of an evaluation set."""

    set: str
    """Name of the set: its file without suffixes."""
    number: int
    """Row in the file, from 0."""
    excerpt: str
    """Beginning of its question."""
    parts: tuple[int, ...]
    """Numbers of its parts."""


@dataclass(frozen=True)
class Index:
    """Everything that documents are compared with."""

    items: list[Item]
    """Items, by set and row."""
    parts: list[Part]
    """Parts, by item."""
    ends: np.ndarray
    """int64 [p + 1]: words of part i are ends[i] to ends[i + 1]."""
    words: np.ndarray
    """uint64 [w]: hashes."""
    weights: np.ndarray
    """float64 [w]."""
    total: np.ndarray
    """float64 [p]: sum of a part's weights."""
    filter: np.ndarray
    """uint64 [2**16]: bits of the seeds, by their high bits: most sequences of a text end here."""
    keys: np.ndarray
    """uint64 [2**b]: open-addressed hash table of seeds; 0: empty."""
    first: np.ndarray
    """int64 [2**b]: first posting of a seed."""
    count: np.ndarray
    """int64 [2**b]: postings of a seed."""
    posting_part: np.ndarray
    """int64 [s]: part that holds the seed."""
    posting_at: np.ndarray
    """int64 [s]: its place in the part, in words."""

    def size(self, part: int) -> int:
        """Words of a part."""
        return int(self.ends[part + 1] - self.ends[part])

    def save(self, path: Path) -> None:
        """Write to a file, by atomic rename."""
        meta = {
            "items": [[i.set, i.number, i.excerpt, list(i.parts)] for i in self.items],
            "parts": [[p.item, p.role, p.field] for p in self.parts],
        }
        write_arrays(path, {name: getattr(self, name) for name in _ARRAYS}, meta)

    @staticmethod
    def read(path: Path) -> Index:
        """What `save` wrote."""
        file = Arrays(path)
        return Index(
            [Item(s, n, e, tuple(p)) for s, n, e, p in file.meta["items"]],
            [Part(item, role, key, "") for item, role, key in file.meta["parts"]],
            **{name: file.read(name) for name in _ARRAYS},
        )

    def checkable(self, item: Item) -> bool:
        """Whether the item can be found at all: one of its questions or answers is long and rare enough."""
        found = [p for p in item.parts if self.parts[p].role != CONTEXT and self.size(p) >= SEED]
        heavy = [self.total[p] for p in found if self.total[p] >= SMALLEST_WEIGHT]
        questions = [p for p in found if self.parts[p].role == QUESTION and self.total[p] >= SMALLEST_WEIGHT]
        return bool(questions or sum(w >= 3 for w in heavy) > 1 or max(heavy, default=0) >= 6)


def files(sets: tuple[str, ...]) -> list[Path]:
    """Files of the sets: JSONL, in any compression; of folders, all of these in them.

    Raises:
        ConfigError: nothing is there.
    """
    found: list[Path] = []
    for name in sets:
        path = Path(name)
        inside = sorted(p for p in path.rglob("*") if re.search(r"\.jsonl?(\.\w+)?$|\.ndjson", p.name))
        if path.is_dir() and not inside:
            raise ConfigError(f"`decontaminate.sets`: {path} holds no JSONL file")
        if not path.exists():
            raise ConfigError(f"`decontaminate.sets`: {path} does not exist")
        found += inside if path.is_dir() else [path]
    return found


def load(config: DecontaminateConfig) -> Index:
    """Read the sets and index them.

    Raises:
        ConfigError: a file is missing, or holds a line that is no JSON object (the line is named).
    """
    items: list[Item] = []
    parts: list[Part] = []
    taken: set[str] = set()
    for path in files(config.sets):
        name = re.sub(r"\.(jsonl?|ndjson)(\.\w+)?$", "", path.name)
        while name in taken:
            name = f"{path.parent.name}/{name}" if f"{path.parent.name}/{name}" not in taken else f"{name}+"
        taken.add(name)
        rows: list[tuple[int, list[Part]]] = []
        for number, row in _rows(path):
            found = _parts(row, config.fields, len(items))
            rows.append((number, found))
        # Subjects, splits and sources: short strings that several items share ask nothing.
        shared = Counter(key for _, found in rows for key in {_short(p) for p in found})
        for number, everything in rows:
            found = [p for p in everything if not _short(p) or shared[_short(p)] < _SHARED]
            found = [dataclasses.replace(p, item=len(items)) for p in found]
            questions = [p for p in found if p.role == QUESTION] or found
            excerpt = " ".join(questions[0].text.split())[:160] if questions else ""
            at = range(len(parts), len(parts) + len(found))
            items.append(Item(name, number, excerpt, tuple(at)))
            parts += found
    return _index(items, parts)


def _short(part: Part) -> str:
    """The words of a short question, else nothing."""
    found = words(part.text)[0] if part.role == QUESTION and len(part.text) < 200 else np.zeros(0)
    return " ".join(map(str, found.tolist())) if 0 < len(found) < _SHORT else ""


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_stream(path) as raw:
        for number, line in enumerate(raw):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line.removeprefix(codecs.BOM_UTF8))
            except orjson.JSONDecodeError as error:
                raise ConfigError(f"{path}, line {number + 1}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise ConfigError(
                    f"{path}, line {number + 1}: expected an object, found {type(row).__name__}"
                )
            yield number, row


def _strings(key: str, value: Any, fields: tuple[str, ...], depth: int = 0) -> Iterator[tuple[str, str]]:
    """(key, string) of everything in a row; of lists the key of the list."""
    if isinstance(value, str):
        if not fields or key in fields:
            yield key, value
    elif isinstance(value, dict) and depth < 8:
        for name, inner in value.items():
            yield from _strings(name, inner, fields, depth + 1)
    elif isinstance(value, list) and depth < 8:
        for inner in value:
            yield from _strings(key, inner, fields, depth + 1)


def _parts(row: dict[str, Any], fields: tuple[str, ...], item: int) -> list[Part]:
    found: list[Part] = []
    for key, text in _strings("", row, fields):
        lower = key.lower()
        role = ANSWER if lower in _ANSWERS else CONTEXT if lower in _CONTEXTS else QUESTION
        found += [Part(item, r, key, t) for r, t in _labelled(text, role)]
    # A string that stands whole in another one of the row says nothing of its own.
    plain = [f" {' '.join(map(str, words(p.text)[0].tolist()))} " for p in found]
    seen: list[Part] = []
    for i, part in enumerate(found):
        inside = any(
            plain[i] in other and (len(other) > len(plain[i]) or j < i)
            for j, other in enumerate(plain)
            if j != i and (found[j].role == part.role or part.role == QUESTION)
        )
        if plain[i].strip() and not inside:
            seen.append(part)
    if not any(p.role == QUESTION and " " in p.text.strip() for p in seen):
        seen = [Part(p.item, QUESTION if p.role == CONTEXT else p.role, p.field, p.text) for p in seen]
    return seen


def _labelled(text: str, role: str) -> Iterator[tuple[str, str]]:
    """A string cut at labels such as `Passage:` and `Question:` at the start of a line: (role, text without the label)."""
    start, current = 0, role
    for match in _LABEL.finditer(text):
        if text[start : match.start()].strip():
            yield current, text[start : match.start()]
        current = ROLES[next(i for i, group in enumerate(match.groups()) if group)]
        start = match.end()
    if text[start:].strip():
        yield current, text[start:]


def _index(items: list[Item], parts: list[Part]) -> Index:
    hashes = [words(p.text)[0] for p in parts]
    ends = np.cumsum([0, *map(len, hashes)]).astype(np.int64)
    flat = np.concatenate([np.zeros(0, np.uint64), *hashes])
    distinct, inverse = np.unique(flat, return_inverse=True)
    pairs = np.unique(np.stack([np.repeat(np.arange(len(parts)), np.diff(ends)), inverse]), axis=1)
    frequency = np.bincount(pairs[1], minlength=len(distinct))
    common = np.isin(distinct, words(_COMMON)[0])
    common |= (frequency > _COMMON_SHARE * len(parts)) & (len(parts) >= 100)
    weights = np.where(common[inverse], COMMON_WEIGHT, 1.0) if len(flat) else np.zeros(0)
    total = np.array([weights[a:b].sum() for a, b in itertools.pairwise(ends)])
    seeds, owner, at = [], [], []
    for i, part in enumerate(hashes):
        n = len(part) - SEED + 1
        if n < 1 or total[i] < SMALLEST_WEIGHT:
            continue
        rare = np.convolve(weights[ends[i] : ends[i + 1]] >= 1, np.ones(SEED, int), "valid")
        chosen = np.flatnonzero(rare >= min(2, rare.max()))
        seeds.append(seed_hashes(part)[chosen])
        owner.append(np.full(len(chosen), i))
        at.append(chosen)
    seed = np.concatenate([np.zeros(0, np.uint64), *seeds])
    order = np.argsort(seed, kind="stable")
    seed = seed[order]
    part_of = np.concatenate([np.zeros(0, np.int64), *owner])[order].astype(np.int64)
    position = np.concatenate([np.zeros(0, np.int64), *at])[order].astype(np.int64)
    key, start, count = np.unique(seed, return_index=True, return_counts=True)
    template = count > _SEED_PARTS
    key, start, count = key[~template], start[~template], count[~template]
    size = 1 << max(4, (4 * len(key)).bit_length())
    keys, first, counts = np.zeros(size, np.uint64), np.zeros(size, np.int64), np.zeros(size, np.int64)
    for k, s, c in zip(key.tolist(), start.tolist(), count.tolist(), strict=True):
        slot = k & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], first[slot], counts[slot] = k, s, c
    bits = np.zeros(1 << 22, np.uint8)
    bits[(key >> np.uint64(42)).astype(np.int64)] = 1
    packed = np.packbits(bits, bitorder="little").view(np.uint64)
    return Index(items, parts, ends, flat, weights, total, packed, keys, first, counts, part_of, position)


def seed_hashes(hashes: np.ndarray) -> np.ndarray:
    """Hash of each SEED words in a row, uint64, never 0. `annotate.contamination` computes the same as it goes."""
    value = hashes[: len(hashes) - SEED + 1].copy()
    for k in range(1, SEED):
        value = value * np.uint64(0x9E3779B97F4A7C15) + hashes[k : len(hashes) - SEED + 1 + k]
    value ^= value >> np.uint64(32)
    return value | np.uint64(1)

"""Personal data by libraries instead of the own scan: a multi-pattern engine for candidates, validators for what they are.

    pip install hyperscan phonenumbers python-stdnum
    ARRIERO_TEST_DATA=DATA python benchmarks/privacy_libraries.py [--items 400] [--seed 0]

The same planted items, decoys and pages as `benchmarks/privacy.py`. Candidates: one Hyperscan database that reports where
matches start. Validation: `ipaddress`, `phonenumbers` (international numbers by themselves, national ones as of Germany,
the USA, Great Britain or France), `stdnum` (Luhn, IBAN, SSN). Neither looks at the words before a number.
"""

from __future__ import annotations

import argparse
import ipaddress
import time
from collections.abc import Callable

import hyperscan
import phonenumbers
import privacy as planted_items
import pyarrow as pa
from stdnum import iban, luhn
from stdnum.us import ssn

from data_pipeline.annotate import privacy

Span = tuple[int, int, str]
REGIONS = ("DE", "US", "GB", "FR")


def is_ip(text: str) -> bool:
    """Whether a text is a public address."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def is_phone(text: str) -> bool:
    """Whether a number is valid in one of the regions, or by its country code."""
    for region in (None,) if text.startswith("+") else REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(text, region)):
                return True
        except phonenumbers.NumberParseException:
            pass
    return False


def is_card(text: str) -> bool:
    """Whether a number has a card's length, first digit and check digit."""
    number = text.replace(" ", "").replace("-", "")
    return number.isdigit() and 14 <= len(number) <= 19 and number[0] in "23456" and luhn.is_valid(number)


PATTERNS: tuple[tuple[str, bytes, Callable[[str], bool]], ...] = (
    # In the order of precedence: of overlapping matches the first kind counts, then the longest match.
    ("secret", rb"(ghp|gho|ghu|ghs|ghr|npm|hf)_\w{30,40}\b", lambda _: True),
    ("secret", rb"\bA[KS]IA[A-Z0-9]{16}\b", lambda _: True),
    ("secret", rb"\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", lambda _: True),
    ("secret", rb"\b(sk|rk)[-_][\w-]+", lambda text: len(text) > 24),
    ("email", rb"[\w.%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]+", lambda _: True),
    ("email", rb"[\w.+-]+ ?[(\[]at[)\]] ?[A-Za-z0-9.-]+\.[A-Za-z]+", lambda _: True),
    ("iban", rb"\b[A-Z]{2}\d{2}( ?[A-Z0-9]){11,30}\b", iban.is_valid),
    ("card", rb"\b\d([ -]?\d){13,18}\b", is_card),
    ("ip", rb"\b\d+\.\d+\.\d+\.\d+\b", is_ip),
    ("ip", rb"\b[23][0-9a-f]{3}:[0-9a-f:]+", is_ip),
    ("ssn", rb"\b\d{3}[- ]\d{2}[- ]\d{4}\b", ssn.is_valid),
    ("phone", rb"[+(]?\d([ ()./-]*\d){6,14}", is_phone),
)


def database() -> hyperscan.Database:
    """All patterns."""
    compiled = hyperscan.Database()
    flags = [hyperscan.HS_FLAG_SOM_LEFTMOST] * len(PATTERNS)
    compiled.compile(
        expressions=[p for _, p, _ in PATTERNS],
        ids=list(range(len(PATTERNS))),
        elements=len(PATTERNS),
        flags=flags,
    )
    return compiled


def candidates(compiled: hyperscan.Database, data: bytes) -> list[tuple[int, int, int]]:
    """(begin, end, number of the pattern) in bytes; of matches with one beginning the longest."""
    longest: dict[tuple[int, int], int] = {}

    def on_match(number: int, begin: int, end: int, flags: int, context: object) -> None:
        longest[begin, number] = max(end, longest.get((begin, number), 0))

    compiled.scan(data, match_event_handler=on_match)
    return [(begin, end, number) for (begin, number), end in longest.items()]


def find(compiled: hyperscan.Database, text: str) -> list[Span]:
    """Valid matches without overlaps, in characters."""
    data = text.encode()
    spans: list[Span] = []
    order = sorted(candidates(compiled, data), key=lambda match: (match[2], match[0] - match[1]))
    taken: list[tuple[int, int]] = []
    for begin, end, number in order:
        kind, _, is_valid = PATTERNS[number]
        if all(end <= a or begin >= b for a, b in taken) and is_valid(
            data[begin:end].decode("utf-8", "replace")
        ):
            taken.append((begin, end))
            first = len(data[:begin].decode("utf-8", "replace"))
            spans.append((first, first + len(data[begin:end].decode("utf-8", "replace")), kind))
    return spans


def main() -> None:
    """Print recall, precision and speed of both."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--items", type=int, default=400, help="valid items of each kind")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    texts, compiled = planted_items.pages(), database()
    planted, spans = planted_items.plant(texts, args.items, args.seed)
    ours: list[list[Span]] = [[] for _ in planted]
    for document, begin, end, kind in privacy.find(pa.array(planted, pa.large_string()))[0].tolist():
        ours[document].append((begin, end, privacy.KINDS[kind]))
    planted_items.score("own scan", ours, spans, privacy.KINDS)
    planted_items.score("libraries", [find(compiled, text) for text in planted], spans, privacy.KINDS)
    size = sum(len(text.encode()) for text in texts) / 1e6
    for name, scan in (
        ("own scan", lambda: privacy.find(pa.array(texts, pa.large_string()))),
        ("Hyperscan, candidates alone", lambda: [candidates(compiled, text.encode()) for text in texts]),
        ("Hyperscan and validation", lambda: [find(compiled, text) for text in texts]),
    ):
        began = time.process_time()
        scan()
        print(f"{name}: {size / (time.process_time() - began):.1f} MB/s on {size:.0f} MB of pages")


if __name__ == "__main__":
    main()

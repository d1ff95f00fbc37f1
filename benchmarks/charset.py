"""Detection of character sets: paragraphs of three sentences in the encodings of their languages, without a label.

    ARRIERO_TEST_DATA=DIR python benchmarks/charset.py

Prints the share of paragraphs that each detector decodes exactly: ours (`data_pipeline.read.charset`), and
charset-normalizer alone.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

from charset_normalizer import from_bytes

from data_pipeline.read.charset import decode
from data_pipeline.zstd import zstd

ENCODINGS = {
    "cp1252": "de fr es pt it sv da nl fi",
    "iso8859-2": "pl ro",
    "cp1250": "cs hu hr",
    "cp1251": "ru uk bg",
    "cp1253": "el",
    "cp1254": "tr",
    "cp1255": "he",
    "cp1256": "ar",
    "cp1257": "lt lv et",
    "cp874": "th",
    "cp1258": "vi",
    "cp932": "ja",
    "gb18030": "zh",
    "cp949": "ko",
}
PARAGRAPHS = 12
"""Of each language."""


def paragraphs(path: Path) -> list[tuple[str, bytes, str]]:
    """(language, bytes, text) with at least one byte that is not ASCII."""
    by_language: dict[str, list[str]] = {}
    with zstd.open(path, "rb") as file:
        for line in io.TextIOWrapper(file, encoding="utf-8"):
            row = json.loads(line)
            by_language.setdefault(row["lang"], []).append(row["text"])
    draw, made = random.Random(0), []
    for encoding, languages in ENCODINGS.items():
        for language in languages.split():
            for _ in range(PARAGRAPHS):
                data = " ".join(draw.sample(by_language[language], 3)).encode(encoding, "ignore")
                if not data.isascii():
                    made.append((language, data, data.decode(encoding)))
    return made


def normalizer(data: bytes) -> str:
    """What charset-normalizer makes of it."""
    best = from_bytes(data).best()
    return data.decode(best.encoding if best else "utf-8", "replace")


def main() -> None:
    """Print the comparison."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        sys.exit("set ARRIERO_TEST_DATA to a folder with multilingual/sentences.jsonl.zst")
    made = paragraphs(Path(os.environ["ARRIERO_TEST_DATA"]) / "multilingual" / "sentences.jsonl.zst")
    for name, detect in (("ours", lambda d: decode(d, None, False)[0]), ("charset-normalizer", normalizer)):
        wrong = [language for language, data, text in made if detect(data) != text]
        share = 1 - len(wrong) / len(made)
        print(f"{name:20} {share:.3f} of {len(made)}; wrong: {dict(Counter(wrong).most_common())}")


if __name__ == "__main__":
    main()

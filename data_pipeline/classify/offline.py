"""Training rows from what a Python environment holds, for machines without a model and without a network.

Small on purpose, and honest about it: word lists instead of running text for most languages, a seed vocabulary
instead of labelled pages. Good enough to run the pipeline for real and to tell English prose, code and other languages
apart; for real data give a real model or real labels. `benchmarks/language.py` and `benchmarks/toxicity.py` measure it.

Sources: stop words of about 100 languages (jusText), names of countries, languages, currencies and units (Babel, from
Unicode CLDR), both installed with the text extractor; the standard library's sources, docstrings and documentation
topics.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import random
import re
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

Row = tuple[str, str]

NO_LANGUAGE = "zxx"
"""ISO 639-2: no linguistic content. The label of source code."""
_ROWS_PER_LANGUAGE = 150
_ROWS_PER_COMMON_LANGUAGE = 400
# Languages that make up most of the web: a rarer one must not be guessed for them on equal evidence.
_COMMON_LANGUAGES = "ar bg cs da de el es fa fi fr he hi hu id it ja ko nb nl pl pt ro ru sv th tr uk vi zh"
_ROWS_OF_ENGLISH = 1500
_ROWS_OF_CODE = 1000
_ROWS_OF_NSFW = 600
# A language needs this many distinct words to be learnt at all.
_LEAST_WORDS = 300
# Source files that are sampled: enough for the rows, few enough to parse in a second.
_SOURCE_FILES = 50

# Names of stop-word lists that CLDR spells otherwise, or that are varieties of a language without an own code.
_LIST_LANGUAGES = {
    "Norwegian_Bokmal": "nb",
    "Norwegian_Nynorsk": "nn",
    "Western_Panjabi": "pnb",
    "West_Frisian": "fy",
    "Haitian": "ht",
    "Volapuk": "vo",
    "Simple_English": "en",
    "Serbo_Croatian": "sh",
    "Belarusian_Taraskievica": "be",
}
_CLDR_GROUPS = (
    "territories", "languages", "scripts", "currency_names", "unit_display_names", "months", "days", "date_fields",
)  # fmt: skip
_CLDR_LANGUAGES = """
af am ar as az be bg bn bs ca cs cy da de el en es et eu fa fi fil fr ga gd gl gu ha he hi hr hu hy
id ig is it ja ka kk km kn ko ky lb lo lt lv mk ml mn mr ms my nb ne nl nn or pa pl ps pt ro ru sd
si sk sl so sq sr sv sw ta te tg th ti tk tr ug uk ur uz vi xh yo zh zu
"""

# Everyday words of adult advertising; deliberately mild. A user's own word lists extend them.
_NSFW_WORDS = """
adult nude nudes naked nudity porn porno pornography xxx sex sexy sexual erotic erotica hardcore
softcore lingerie strip stripper striptease topless uncensored explicit nsfw fetish kinky horny milf
babes escort escorts hookup webcam camgirl cams seduction orgasm bdsm bondage playboy lust lusty
steamy busty swingers onlyfans hentai
"""
_NSFW_PATTERNS = (
    "watch free {0} {1} videos online",
    "{0} {1} pictures and {2} clips, updated daily, must be 18 or older",
    "hot {0} {1} live {2} chat now",
    "warning: this site contains {0} {1} material for adults only",
    "{0} stories with {1} scenes and {2} photos",
    "meet {0} singles for {1} and {2} tonight",
    "best {0} {1} galleries {2} {3} tube",
    "{0} {1} {2} {3}",
    "full length {0} movies, {1} amateurs, {2} models in high definition",
    "she was {0} and {1}, a {2} night of {3}",
)


def language_rows(seed: int) -> list[Row]:
    """(text, language) rows for language identification, shuffled by `seed`.

    Labels are ISO 639-1 codes (639-3 where there is none), and `zxx` for source code. Equal for equal package versions.

    Raises:
        ValueError: neither word source is installed, so there is nothing to tell apart.
    """
    words = _stop_words()
    phrases = _cldr_phrases()
    if not words and not phrases:
        raise ValueError(
            "no words of other languages in this environment: install jusText and Babel, or give "
            "`languages.model` or labelled rows in `languages.train`"
        )
    rows: list[Row] = []
    characters = _character_sets()
    for language in sorted(words.keys() | phrases.keys()):
        frequent, names = words.get(language, []), phrases.get(language, [])
        if len(frequent) + len(names) < _LEAST_WORDS:
            continue
        draw = random.Random(f"language\0{seed}\0{language}")
        count = _ROWS_PER_COMMON_LANGUAGE if language in _COMMON_LANGUAGES.split() else _ROWS_PER_LANGUAGE
        for _ in range(count):
            text = _mixture(frequent, names, draw)
            if language in characters:
                text = f"{_characters(characters[language], draw)} {text}"
            rows.append((text, language))
    prose, code = _python_texts(seed)
    rows += [(text, "en") for text in prose[:_ROWS_OF_ENGLISH]]
    rows += [(text, NO_LANGUAGE) for text in code[:_ROWS_OF_CODE]]
    random.Random(f"language rows\0{seed}").shuffle(rows)
    return rows


def code_rows(seed: int) -> list[Row]:
    """(text, `zxx`) rows of source code, to put beside rows of languages."""
    return [(text, NO_LANGUAGE) for text in _python_texts(seed)[1][:_ROWS_OF_CODE]]


def nsfw_rows(seed: int, words: Iterable[str] = ()) -> list[Row]:
    """(text, `nsfw` or `safe`) rows, shuffled by `seed`: patterns filled with a mild seed vocabulary against prose.

    Args:
        words: further words and phrases, such as those of configured word lists.
    """
    vocabulary = sorted({*_NSFW_WORDS.split(), *(w.strip().lower() for w in words if w.strip())})
    prose, code = _python_texts(seed)
    draw = random.Random(f"nsfw\0{seed}")
    rows: list[Row] = [(text, "safe") for text in prose[:_ROWS_OF_ENGLISH]]
    rows += [(text, "safe") for text in code[: _ROWS_OF_CODE // 4]]
    for _ in range(_ROWS_OF_NSFW):
        sentences = [
            draw.choice(_NSFW_PATTERNS).format(*draw.sample(vocabulary, 4)) for _ in range(draw.randint(1, 4))
        ]
        rows.append((". ".join(sentences), "nsfw"))
    draw.shuffle(rows)
    return rows


def _mixture(frequent: list[str], names: list[str], draw: random.Random) -> str:
    """Pseudo-text of a language: frequent words by rank, as Zipf would have them, with names among them."""
    text: list[str] = []
    for _ in range(draw.randint(4, 16)):
        if frequent and (not names or draw.random() < 0.75):
            rank = int(len(frequent) ** draw.random()) - 1
            text.append(frequent[rank])
        else:
            text.append(draw.choice(names))
    return " ".join(text)


def _characters(alphabets: list[str], draw: random.Random) -> str:
    """Pseudo-text of a language without spaces: runs of characters of its alphabets."""
    runs = [draw.choice(alphabets) for _ in range(draw.randint(4, 12))]
    return "".join("".join(draw.choices(alphabet, k=draw.randint(1, 4))) for alphabet in runs)


@functools.cache
def _character_sets() -> dict[str, list[str]]:
    """Everyday characters of Chinese, Japanese and Korean, from the first levels of their national standards."""

    def level(encoding: str, first: int, last: int) -> str:
        rows = (bytes((row, cell)) for row in range(first, last + 1) for cell in range(0xA1, 0xFF))
        return "".join(pair.decode(encoding, "ignore") for pair in rows)

    kana = level("euc_jp", 0xA4, 0xA4)
    return {
        "zh": [level("gb2312", 0xB0, 0xD7), level("big5", 0xA4, 0xC6)],
        # Half of Japanese text is hiragana; kanji and katakana share the rest.
        "ja": [kana, kana, kana, level("euc_jp", 0xB0, 0xCF), level("euc_jp", 0xA5, 0xA5)],
        "ko": [level("euc_kr", 0xB0, 0xC8)],
    }


def _package(name: str) -> Path | None:
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else None


@functools.cache
def _stop_words() -> dict[str, list[str]]:
    """Stop words by language, the most frequent first."""
    root, babel = _package("justext"), _package("babel")
    if root is None or babel is None or not (root / "stoplists").is_dir():
        return {}
    from babel import Locale

    codes = {name: code for code, name in Locale("en").languages.items()}
    lists: dict[str, list[str]] = {}
    for path in sorted((root / "stoplists").glob("*.txt")):
        language = _LIST_LANGUAGES.get(path.stem) or codes.get(path.stem.replace("_", " "))
        if language is not None:
            lists.setdefault(language, []).extend(path.read_text(encoding="utf-8").split())
    return lists


@functools.cache
def _cldr_phrases() -> dict[str, list[str]]:
    """Names of countries, languages, currencies, units, months and days by language, in that language."""
    if _package("babel") is None:
        return {}
    from babel.localedata import exists, load

    # What many locales share is no sign of any of them: names left in English, abbreviations.
    found: dict[str, list[str]] = {}
    for language in _CLDR_LANGUAGES.split():
        if exists(language):
            data = load(language, merge_inherited=False)
            strings = {s for group in _CLDR_GROUPS for s in _strings(data.get(group, {}))}
            found[language] = sorted(s for s in strings if len(s) > 1 and any(c.isalpha() for c in s))
    english = set(found.get("en", ()))
    return {k: v if k == "en" else [s for s in v if s not in english] for k, v in found.items()}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif hasattr(value, "values"):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)


@functools.lru_cache(maxsize=4)
def _python_texts(seed: int) -> tuple[list[str], list[str]]:
    """English paragraphs (docstrings, documentation topics) and code without them, shuffled by `seed`."""
    from pydoc_data.topics import topics

    draw = random.Random(f"python texts\0{seed}")
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        p for folder in (root, root / "asyncio", root / "email", root / "json") for p in folder.glob("*.py")
    )
    prose = [p for text in topics.values() for p in _paragraphs(text)]
    code: list[str] = []
    for path in draw.sample(files, min(_SOURCE_FILES, len(files))):
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
            code += _code_pieces(source)
        except (UnicodeDecodeError, SyntaxError, tokenize.TokenError):
            continue  # a file of the standard library that is meant to be broken (encoding tests)
        prose += [p for docstring in _docstrings(tree) for p in _paragraphs(docstring)]
    prose, code = sorted(set(prose)), sorted(set(code))
    draw.shuffle(prose)
    draw.shuffle(code)
    return prose, code


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    yield ast.get_docstring(node) or ""
    for inner in node.body:
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _docstrings(inner)


def _paragraphs(text: str) -> list[str]:
    """Paragraphs that read as sentences: 6 words or more, letters for the most part."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        flat = " ".join(paragraph.split())
        letters = sum(c.isalpha() or c == " " for c in flat)
        if len(flat.split()) >= 6 and letters >= 0.85 * len(flat) and ">>>" not in flat:
            found.append(flat)
    return found


def _code_pieces(source: str) -> list[str]:
    """Pieces of 12 lines of a Python source: as written where code prevails, and without comments and long strings."""
    kept: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_prose = token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and len(token.string) > 40
        )
        if not is_prose and token.string.strip():
            kept.setdefault(token.start[0], []).append(token.string)
    bare = [" ".join(kept[n]) for n in sorted(kept)]
    pieces = ["\n".join(bare[i : i + 12]) for i in range(0, len(bare) - 3, 12)]
    lines = source.splitlines()
    for first in range(0, len(lines) - 12, 12):
        if sum(number in kept for number in range(first + 1, first + 13)) >= 8:
            pieces.append("\n".join(lines[first : first + 12]))
    return pieces

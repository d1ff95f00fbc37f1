"""Heuristic signals: values by hand, definitions of the published filters, and independence of batches."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import regex
import xxhash

from data_pipeline import edits
from data_pipeline.analysis import analyse, batches, content_hash
from data_pipeline.analysis.normal import normalise
from data_pipeline.analysis.repetition import MOST_FREQUENT, REPEATED
from data_pipeline.heuristics import annotate as heuristics
from data_pipeline.heuristics import gopher
from data_pipeline.heuristics.schema import SIDECARS

ODD = [
    "",
    " ",
    "\n\n",
    "a",
    "。",
    "\ufffd",
    "{",
    "x" * 5000,
    "\0\0 \0",
    "a\x1cb\u2028c\r\nd\re",
    "[1]",
    "!" * 3000,
    "\u0301",
]


UNSPACED_LETTER = regex.compile(
    r"([\p{Alphabetic}&&[\p{L}]&&[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]])",
    regex.V1,
)
LIST_MARK = re.compile(r"-|\d{0,4}\.")


def values(text: str, sidecar: str) -> dict[str, float]:
    """The signals of one text and one rule set."""
    signals, _ = heuristics.signals(analyse([text]))
    return {name: float(column[0]) for name, column in signals[sidecar].items()}


def words(text: str) -> list[str]:
    batch = analyse([text])
    return [text[a : a + n] for a, n in zip(batch.start.tolist(), batch.length.tolist(), strict=True)]


def spaced_words(text: str) -> list[str]:
    """Words between white space: letters of unspaced scripts one by one, without marks of lists and tables."""
    found = []
    for line in text.splitlines():
        for k, piece in enumerate(line.split()):
            parts = UNSPACED_LETTER.split(piece)
            if len(parts) > 1:
                found += [part for part in parts if any(map(str.isalnum, part))]
            elif piece != "|" and not (k == 0 and LIST_MARK.fullmatch(piece)):
                found.append(piece)
    return found


def cut(text: str) -> list[str]:
    return text.split()


def edited(text: str, name: str) -> str:
    _, found = heuristics.annotate_texts(pa.chunked_array([[text]], pa.string()))
    return edits.apply(text, [[edits.Span(**s) for s in found[name][0].as_py()]])


def noise(draw: random.Random) -> str:
    """Text of everything that the kernels look at."""
    parts = [
        "the",
        "of",
        "and",
        "Word",
        "don't",
        "3",
        "1,234",
        "3.14",
        "U.S.",
        "e.g.",
        "...",
        "…",
        "#",
        "•",
        "-",
        "(see",
        "it):",
    ]
    parts += [
        '"quoted."',
        "well-known",
        "http://a.org/b-c",
        "javascript",
        "Lorem ipsum",
        "{",
        "privacy policy",
        "[1]",
        "likes",
    ]
    parts += ["LOUD", "你好", "é", "\0", "Read more", "end.", "end!", "[citation needed]", "5km"]
    gaps = [" ", " ", " ", " ", " ", "\n", "\n", "\n\n", "\n\n\n", "\r\n", "  ", "\t", "\u2028", "\x85"]
    chosen = draw.choices(parts, k=draw.randrange(2, 14)) if draw.random() < 0.5 else parts
    return "".join(draw.choice(chosen) + draw.choice(gaps) for _ in range(draw.randrange(300)))


@pytest.fixture(scope="module")
def noises() -> list[str]:
    draw = random.Random(7)
    return [noise(draw) for _ in range(300)]


def test_words_are_cut_by_affix_rules() -> None:
    assert words("Hello, world! It's (see below): don't 5km.") == (
        cut("Hello , world ! It 's ( see below ): do n't 5 km .")
    )
    assert words('U.S. and e.g. Mr. Smith\'s well-known "quote."') == (
        cut('U.S. and e.g. Mr. Smith \'s well - known " quote . "')
    )
    assert words("see http://www.example.org/a-b/c.html, or me@my-host.org") == (
        cut("see http://www.example.org/a-b/c.html , or me@my-host.org")
    )
    assert words("$3.50 either/or 1-2 a.b A.B end.Begin wait... wait…") == (
        cut("$ 3.50 either / or 1 - 2 a.b A.B end . Begin wait ... wait …")
    )
    assert words("I’m can’t 9am :-) 你好") == ["I", "’m", "ca", "n’t", "9", "am", ":-)", "你", "好"]


def test_words_cover_all_that_is_no_white_space(noises: list[str]) -> None:
    for text in [*noises, *ODD]:
        assert "".join(words(text)) == "".join(text.split())


def duplicates(pieces: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    count = chars = 0
    for piece in pieces:
        count, chars = count + (piece in seen), chars + len(piece) * (piece in seen)
        seen.add(piece)
    return count, chars


def top(found: list[str], n: int) -> int:
    grams = Counter(" ".join(found[i : i + n]) for i in range(len(found) - n + 1))
    gram, count = grams.most_common(1)[0] if grams else ("", 0)
    return len(gram) * count


def repeated(found: list[str], n: int) -> int:
    seen, chars, i = set(), 0, 0
    while i < len(found) - n + 1:
        gram = tuple(found[i : i + n])
        if gram in seen:
            chars += len("".join(gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return chars


def test_gopher_repetition_is_as_defined(noises: list[str]) -> None:
    draw = random.Random(3)
    texts = [
        " ".join(draw.choice("abcdefgh") * (draw.randrange(v) + 1) for _ in range(n))
        for n in (2, 5, 11, 60, 400)
        for v in (2, 6, 60)
    ]
    for text in [*texts, *noises, "\na\n\na\n", "\n", "a\n\n \n\na"]:
        found, got, n_chars = words(text), values(text, "gopher"), max(len(text), 1)
        for n in MOST_FREQUENT:
            assert got[f"top_{n}_gram"] == pytest.approx(top(found, n) / n_chars)
        for n in REPEATED:
            assert got[f"dup_{n}_gram"] == pytest.approx(repeated(found, n) / n_chars)
        for name, pieces in (("line", re.split("\n+", text)), ("para", re.split("\n{2,}", text.strip()))):
            count, chars = duplicates(pieces)
            assert got[f"dup_{name}_frac"] == pytest.approx(count / len(pieces)), (name, text)
            assert got[f"dup_{name}_char_frac"] == pytest.approx(chars / n_chars)


def test_gopher_quality_is_as_defined(noises: list[str]) -> None:
    for text in noises:
        found, lines, got = words(text), text.splitlines(), values(text, "gopher")
        spaced = spaced_words(text)
        assert got["hash_ratio"] == pytest.approx(text.count("#") / max(len(found), 1))
        assert got["ellipsis_ratio"] == pytest.approx(
            (text.count("...") + text.count("…")) / max(len(found), 1)
        )
        n = max(len(lines), 1)
        assert got["bullet_lines"] == pytest.approx(sum(x.lstrip().startswith(("•", "-")) for x in lines) / n)
        assert got["ellipsis_lines"] == pytest.approx(
            sum(x.rstrip().endswith(("...", "…")) for x in lines) / n
        )
        holds_letter = [any(map(str.isalpha, w)) for w in found]
        assert got["alpha_words"] == pytest.approx(sum(holds_letter) / max(len(found), 1))
        assert got["alpha_spaced"] == pytest.approx(
            sum(any(map(str.isalpha, w)) for w in spaced) / max(len(spaced), 1)
        )
        assert got["n_stop_words"] == len(
            {"the", "be", "to", "of", "and", "that", "have", "with"} & set(found)
        )


def test_marks_of_lists_and_tables_are_no_words() -> None:
    rows = ["小河从山里流出", "桥在 2019 年修好", "集市每周开放"]
    plain, listed = "\n".join(rows), "\n".join(f"- {row}" for row in rows)
    table = "\n".join(" | ".join([row, "", row]) for row in rows)
    numbered = "\n".join(f"{k}. {row}" for k, row in enumerate(rows, 9))
    shares = [values(text, "gopher")["alpha_spaced"] for text in (plain, listed, numbered, table)]
    assert shares == [pytest.approx(18 / 19)] * 4
    assert values("- the river\n- a bridge | a - b\n12. a mill", "gopher")["alpha_spaced"] == pytest.approx(
        8 / 9
    )


def test_gopher_words_by_hand() -> None:
    got = values("The cat, the # … dog -- sat.", "gopher")
    assert got["n_words"] == 5
    assert got["mean_word_length"] == pytest.approx(15 / 5)


def test_stop_words_are_those_of_the_language() -> None:
    texts = ["der Hund und die Katze", "der Hund und die Katze", "the dog and the cat", "这是我的", "quux"]
    found = gopher.signals(analyse(texts), ["de", "en", None, "zh", "tlh"])["n_stop_words"]
    assert found[:4].tolist() == [3, 0, 2, 4] and np.isnan(found[4])


def test_stop_words_of_a_text_in_capitals() -> None:
    texts = [
        "DER HUND UND DIE KATZE",
        "THE DOG AND THE CAT",
        "И ОН БЫЛ В ДОМЕ",
        "NASA and ESA AND THE UN",
        "QUUX",
    ]
    found = gopher.signals(analyse(texts), ["de", None, "ru", "en", "en"])["n_stop_words"]
    small = gopher.signals(analyse([t.lower() for t in texts]), ["de", None, "ru", "en", "en"])[
        "n_stop_words"
    ]
    assert found[:3].tolist() == small[:3].tolist() and min(small[:3]) >= 2
    assert found[3:].tolist() == [2, 0]
    mixed = gopher.signals(analyse(["Some words, THE OTHERS IN CAPITALS"]), ["en"])["n_stop_words"]
    assert mixed.tolist() == [0]


def test_stats_are_as_defined(noises: list[str]) -> None:
    encoded = "QUJD" * 40
    for text in [*noises, f"text {encoded} text", "x" * 119, "x" * 120]:
        got, n = values(text, "stats"), max(len(text), 1)
        lengths = [len(x) for x in text.splitlines() if x.strip()]
        assert got["bytes"] == len(text.encode()) and got["chars"] == len(text)
        assert got["lines"] == len(text.splitlines())
        assert got["mean_line_length"] == pytest.approx(sum(lengths) / len(lengths) if lengths else 0)
        assert got["max_line_length"] == max(lengths, default=0)
        assert got["alphanumeric"] == pytest.approx(sum(map(str.isalnum, text)) / n)
        assert got["digits"] == pytest.approx(sum(map(str.isdecimal, text)) / n)
        assert got["spaces"] == pytest.approx(sum(map(str.isspace, text)) / n)
        assert got["non_ascii"] == pytest.approx(sum(c > "\x7f" for c in text) / n)
        runs = re.findall(r"[A-Za-z0-9+/=\\]{120,}", text)
        assert got["encoded"] == pytest.approx(sum(map(len, runs)) / n)


def test_c4_rules_by_hand() -> None:
    lines = (
        "A good sentence stands here. And one more!",
        "no end",
        "Too short.",
        "Please enable JavaScript to go on.",
        "Lorem ipsum dolor sit amet.",
        "This has a { in it.",
        "We have a privacy policy here.",
        "It was proven[12] by Mr. Smith.[citation needed]",
        f"This word is long: {'x' * 1001}.",
    )
    text = "\n".join(lines)
    got = values(text, "c4")
    for name in (
        "no_terminal_punctuation",
        "short_lines",
        "javascript_lines",
        "policy_lines",
        "long_word_lines",
    ):
        assert got[name] == pytest.approx(1 / 9), name
    assert (
        got["lorem_ipsum"] == 1 and got["curly_brackets"] == 1 and got["kept_lines"] == pytest.approx(4 / 9)
    )
    assert got["n_sentences"] == 5
    assert edited(text, "c4_lines") == "\n".join(
        (lines[0], lines[4], lines[5], "It was proven by Mr. Smith.")
    )


def c4_lines(text: str, demand_end: bool) -> list[str]:
    kept = []
    for whole in text.splitlines():
        found = whole.split()
        if any(len(w) > 1000 for w in found):
            continue
        line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", whole.strip())
        if demand_end and (not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")):
            continue
        lower = line.lower()
        notices = (
            "terms of use",
            "privacy policy",
            "cookie policy",
            "uses cookies",
            "use of cookies",
            "use cookies",
        )
        if len(found) < 3 or "javascript" in lower or any(p in lower for p in notices):
            continue
        kept.append(line)
    return kept


@pytest.mark.parametrize(("name", "demand_end"), [("c4_lines", True), ("fineweb_lines", False)])
def test_edits_give_the_text_that_c4_gives(noises: list[str], name: str, demand_end: bool) -> None:
    cited = [
        "[1] It was so, he said. [2]",
        "[1] It was so, he said.\n[2] And it was good.\n[3] Or [4] was it?[5]",
    ]
    for text in [*noises, *ODD, *cited]:
        assert edited(text, name) == "\n".join(c4_lines(text, demand_end)).strip()


def test_sentences_end_with_marks_that_are_words() -> None:
    texts = [
        "One two. Three four? Five six",
        "None at all",
        "“Said he.” He left.",
        "At 3.14 p.m. he left... and came.",
    ]
    assert [values(t, "fineweb")["n_sentences"] for t in texts] == [3, 1, 2, 1]


def test_fineweb_is_as_defined(noises: list[str]) -> None:
    for text in noises:
        lines = [x for x in text.split("\n") if x.strip()]
        got, n = values(text, "fineweb"), max(len(lines), 1)
        assert got["line_punct_ratio"] == pytest.approx(
            sum(x.endswith((".", "!", "?", "。")) for x in lines) / n
        )
        assert got["short_line_ratio"] == pytest.approx(sum(len(x) <= 30 for x in lines) / n)
        chars = max(len(text.replace("\n", "")), 1)
        assert got["char_dup_ratio"] == pytest.approx(duplicates(lines)[1] / chars)
        assert got["list_ratio"] == pytest.approx(text.count("\n") / max(len(words(text)), 1))


def test_mc4_third_longest_line(noises: list[str]) -> None:
    for text in [*noises, "a\nbb", "a\nbb\nccc", "a\n\n"]:
        lengths = sorted((len(x) for x in text.split("\n")), reverse=True)
        assert values(text, "c4")["third_longest_line"] == (lengths[2] if len(lengths) > 2 else 0)


@pytest.mark.parametrize(
    ("line", "column", "left"),
    [
        ("SHOUTED HEADLINES AND MENUS", "upper_lines", ""),
        ("12.5 % 1,234 (2020)", "numeric_lines", ""),
        ("3 likes", "counter_lines", ""),
        ("1,234 views 12.5K likes", "counter_lines", ""),
        ("Likes: 27", "counter_lines", ""),
        ("Home", "single_word_lines", ""),
        ("Sign in to your account", "leftover_lines", "to your account\n"),
        ("You have 3 items in cart today", "leftover_lines", "You have 3 today\n"),
        ("The council met on Monday Read more...", "leftover_lines", "The council met on Monday\n"),
        ("The council met on Monday and read more about trees than ever before, it said.", None, None),
        ("The council would like to learn more.", None, None),
        ("Three likes are better than none.", None, None),
        ("He had 3 likes and was glad.", None, None),
    ],
)
def test_refinedweb_lines(line: str, column: str | None, left: str | None) -> None:
    good = "This is a plain sentence of an article that nobody would want to remove from it."
    text = f"{good}\n{line}\n{good}"
    got = values(text, "refinedweb")
    flagged = {name: value for name, value in got.items() if value and name != "flagged_words"}
    assert flagged == ({column: pytest.approx(1 / 3)} if column else {})
    if column:
        assert got["flagged_words"] == pytest.approx(len(line.split()) / len(text.split()))
        assert edited(text, "refinedweb_lines") == f"{good}\n{left}{good}"


def test_lines_that_repeat_themselves_are_found() -> None:
    prose = (
        "The council met on Monday to speak about the trees, which nobody had watered since the spring, and most of its "
        "members agreed that something should be done before the next summer comes."
    )
    log = " ".join("ERROR cannot open the file again" for _ in range(8))
    text = f"{prose}\n{log}\nThe end of the story."
    got = values(text, "llama3")
    assert got["repetitive_lines"] == pytest.approx(1 / 3)
    assert got["repetitive_chars"] == pytest.approx(len(log) / len(text))
    assert edited(text, "llama3_lines") == f"{prose}\nThe end of the story."
    # What comes back in other lines only is a matter for deduplication.
    assert (
        values("\n".join(["a line that stands here more than once"] * 9), "llama3")["dup_ngram_coverage"] == 0
    )


def test_signals_do_not_depend_on_the_batch(noises: list[str]) -> None:
    texts = [*noises, *ODD]
    column = pa.chunked_array([texts[:100], [None, *texts[100:]]], pa.string())
    together = heuristics.annotate_texts(column)
    for size in (1, 300, 10_000):
        alone: dict[str, list[Any]] = {}
        for batch in batches(column, size):
            for name, columns in heuristics.signals(batch)[0].items():
                for key, value in columns.items():
                    alone.setdefault(f"{name}.{key}", []).extend(np.asarray(value).tolist())
        for name, columns in together[0].items():
            for key, value in columns.items():
                assert value.to_pylist() == alone[f"{name}.{key}"], (size, name, key)
    for i, text in enumerate(texts):
        row = i if i < 100 else i + 1
        single = heuristics.annotate_texts(pa.chunked_array([[text]], pa.string()))
        for name, spans in single[1].items():
            assert spans[0] == together[1][name][row], (name, text)


@pytest.mark.parametrize("text", [*ODD, "\ud800 lone \udfff surrogate", "\ud83d\ude00"])
def test_signals_of_odd_texts_are_complete_and_finite(text: str) -> None:
    signals, _ = heuristics.signals(analyse([text]))
    assert {name: tuple(columns) for name, columns in signals.items()} == SIDECARS
    for name, columns in signals.items():
        if name != "hashes":
            assert np.isfinite([column[0] for column in columns.values()]).all()


@pytest.mark.parametrize(
    "unit", ["x", "!", "a-", ".", "@", "a.", "a@b.c/", "([", "你", "3 likes ", "don't", "[1]", "http://"]
)
def test_one_long_line_takes_linear_time(unit: str) -> None:
    """A quadratic rule would take hours for these characters."""
    heuristics.annotate_texts(pa.chunked_array([[unit * (10**6 // len(unit))]], pa.string()))


def test_normalised_text() -> None:
    assert content_hash("Ａ b\n c") == content_hash("a B c") != content_hash("a b d")
    assert normalise("A\x1cB \x85 C\u3000d ") == "a\x1cb c d"
    assert normalise("Plain TEXT\t\n here ") == "plain text here"


def test_hashes_are_those_of_the_definition(noises: list[str]) -> None:
    every = [
        chr(c) for c in [*range(0x3100), 0x4E00, 0xAC00, 0xD55C, *range(0xFB00, 0xFFFF), 0x1F600, 0x1D400]
    ]
    texts = [
        *noises,
        *ODD,
        *every,
        "a\u0301",
        "e\u0308\u0323",
        "ΟΔΟΣ",
        "İstanbul",
        "\u1112\u1161\u11ab",
        "\u3000… \ufb01",
    ]
    texts += [f"x{c} y" for c in every] + ["".join(every[i : i + 40]) for i in range(0, len(every), 40)]
    expected = [regex.sub(r"\s+", " ", unicodedata.normalize("NFKC", t).lower()).strip() for t in texts]
    expected = [xxhash.xxh3_128_hexdigest(t.encode("utf-8", "surrogatepass")) for t in expected]
    assert analyse(texts).content_hashes == expected == [content_hash(t) for t in texts]

"""Heuristic rules beside datatrove's own filters, rule by rule on the same texts, every difference with its cause.

    ARRIERO_TEST_DATA=DATA python benchmarks/agreement.py [FOLDER] [--documents 4000] [--show 3]

FOLDER: JSONL files with `text`; without it, texts of the test data. Thresholds are those of the policies `gopher`, `c4`
and `fineweb`, which are datatrove's. The rules of RefinedWeb and of Llama 3 have no counterpart in datatrove.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import orjson
import peers
import pyarrow as pa

from configs import edge
from configs.schema.pipeline import FilterConfig, RuleConfig
from data_pipeline import edits
from data_pipeline.analysis import analyse
from data_pipeline.analysis.characters import UNSPACED, table
from data_pipeline.heuristics import annotate as heuristics

ERROR = "datatrove divides by the number of words, and there is none"


def policies() -> dict[str, RuleConfig]:
    """Rules by the name that `agreement_in_datatrove.py` gives them."""
    found: dict[str, RuleConfig] = {}
    for name in ("gopher", "c4", "fineweb"):
        for rule, bounds in edge.load_group("filter", name, FilterConfig).rules.items():
            if bounds is not None and not rule.startswith("nsfw."):
                found[f"fineweb.{rule}" if name == "fineweb" and rule.startswith("c4.") else rule] = bounds
    return found | {"mc4.paragraphs": RuleConfig("c4.third_longest_line", min=200)}


def words(text: str) -> list[str]:
    """Words of a text."""
    batch = analyse([text])
    return [text[a : a + n] for a, n in zip(batch.start.tolist(), batch.length.tolist(), strict=True)]


def is_unspaced(text: str) -> bool:
    """Whether a tenth of a text and more is in scripts without spaces between words."""
    points = np.frombuffer(text.encode("utf-32-le", "replace"), "<u4")
    return bool((table()[points] & UNSPACED > 0).mean() > 0.1)


def cause(text: str, theirs: list[str]) -> str:
    """Why a rule may judge a text differently: the first words that are cut differently."""
    ours = words(text)
    if ours == theirs:
        return "the words are equal"
    if (table()[np.frombuffer(text.encode("utf-32-le"), "<u4")] & UNSPACED).any():
        return "a script without spaces: characters are words here, white space separates them there"
    matcher = difflib.SequenceMatcher(None, ours[:5000], theirs[:5000], autojunk=False)
    found = [(ours[a:b], theirs[c:d]) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]
    return f"{len(found)} places of {len(theirs)} words are cut differently, first {found[0] if found else '(far behind)'}"


def line_cause(ours: str, theirs: str) -> str:
    """The first line that only one of two texts has."""
    pairs = itertools.zip_longest(ours.split("\n"), theirs.split("\n"))
    return next((f"first {a!r:.90} against {b!r:.90}" for a, b in pairs if a != b), "white space at an end")


def main() -> None:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--documents", type=int, default=4000, help="spread over all texts")
    parser.add_argument("--show", type=int, default=3, help="differences printed per rule")
    args = parser.parse_args()
    every = list(corpora.texts(args.folder))
    chosen = (
        [every[i * len(every) // args.documents] for i in range(args.documents)]
        if len(every) > args.documents
        else every
    )
    chosen = [(n, t) for n, t in chosen if t.split()]  # datatrove's filters fail where there are no words
    names, texts = [n for n, _ in chosen], [t for _, t in chosen]
    spaced = np.array([not is_unspaced(t) for t in texts])
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} M characters")
    print(
        f"{int((~spaced).sum())} of them are in scripts without spaces, where a character is a word here, but for"
    )
    print("datatrove's English rules all up to the next white space; `agreement` is that of the others")

    signals, spans = heuristics.annotate_texts(pa.chunked_array([texts]))
    with tempfile.TemporaryDirectory() as folder:
        given, judged = Path(folder) / "texts.jsonl", Path(folder) / "verdicts.jsonl"
        given.write_bytes(b"".join(orjson.dumps({"text": t}) + b"\n" for t in texts))
        script = Path(__file__).parent / "agreement_in_datatrove.py"
        subprocess.run([peers.python("datatrove", peers.DATATROVE), script, given, judged], check=True)
        verdicts = [orjson.loads(line) for line in judged.read_bytes().splitlines()]

    print(
        f"{'rule':<28}{'we drop':>9}{'they drop':>11}{'differ':>8}{'agreement':>11}{'all scripts':>13}",
        flush=True,
    )
    worst, explained = 1.0, []

    def report(name: str, drops: str, differ: list[int], said: Callable[[int], str]) -> None:
        nonlocal worst
        inside = [i for i in differ if spaced[i]]
        agreement = 1 - len(inside) / max(int(spaced.sum()), 1)
        worst = min(worst, agreement)
        print(f"{name:<28}{drops:>20}{len(inside):>8}{agreement:>11.2%}{1 - len(differ) / len(texts):>13.2%}")
        explained.extend(
            f"{name}: {names[i]}: {said(i)}"
            for i in (inside + [i for i in differ if not spaced[i]])[: args.show]
        )

    for name, rule in policies().items():
        sidecar, column = rule.signal.split(".")
        values = signals[sidecar][column].to_numpy(zero_copy_only=False)
        kept = ~(values < (-np.inf if rule.min is None else rule.min))
        kept &= ~(values > (np.inf if rule.max is None else rule.max))
        theirs = [v[name] for v in verdicts]

        def said(
            i: int, rule: Any = rule, values: Any = values, kept: Any = kept, theirs: Any = theirs
        ) -> str:
            why = ERROR if theirs[i] is None else cause(texts[i], verdicts[i]["words"])
            return f"{rule.signal} = {values[i]:.6g}, we {_said(bool(kept[i]))}, datatrove {_said(theirs[i])}: {why}"

        drops = f"{int((~kept).sum()):>9}{sum(x is False for x in theirs):>11}"
        report(name, drops, [i for i, x in enumerate(theirs) if x is None or x != kept[i]], said)
    for name in ("c4_lines", "fineweb_lines"):
        ours = [
            edits.apply(t, [[edits.Span(**s) for s in spans[name][i].as_py()]]) for i, t in enumerate(texts)
        ]
        left = [v["texts"][name] for v in verdicts]
        differ = [i for i, text in enumerate(ours) if text != left[i]]
        report(f"text after {name}", "", differ, lambda i, ours=ours, left=left: line_cause(ours[i], left[i]))  # type: ignore[misc]
    theirs_words = [v["words"] for v in verdicts]
    differ = [i for i, text in enumerate(texts) if words(text) != theirs_words[i]]
    report("all words of the text", "", differ, lambda i: cause(texts[i], theirs_words[i]))
    print(f"worst: {worst:.2%}")
    print("\ndifferences:" if explained else "\nno differences")
    print("\n".join(explained))


def _said(kept: Any) -> str:
    return "raises an error" if kept is None else "keep" if kept else "drop"


if __name__ == "__main__":
    main()

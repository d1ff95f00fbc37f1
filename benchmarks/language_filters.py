"""Good text of many languages under a web policy: how much of it is kept, with English settings and with those by language.

    ARRIERO_TEST_DATA=DATA python benchmarks/language_filters.py [--fit] [--policy web] [--model cld2|offline|none|FILE]

Documents are sentences of 75 languages joined to pseudo-documents, declarations of human rights, Bible chapters and
Wikipedia articles, cut to pieces: clean text, so whatever is dropped is dropped wrongly (but for articles that are lists).
Three settings are measured: English ones for all, languages as a model tells them (what a run does), and languages as they
are. For the second a table says what share of its documents each language keeps, and what that is of English's share.

A hash of the text puts each into one of two halves; bounds are fitted on the first (`--fit` writes
`configs/bounds/POLICY.yaml`), figures are of the second.

A bound is fitted only where the published one fails: where more than 2% of a language's documents of the first half lie
outside, it is moved beyond their 0.5% quantile by a tenth (by three tenths for repetition), and where that leaves nothing
of it (less than a quarter of a lower bound) the rule is switched off for the language. Bounds of English stay as published.
Articles are lists and are measured only; declarations repeat themselves and fit repetition only where nothing else is there.
What is known of a script comes before the data: see `known`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
import yaml

from configs import edge
from configs.schema.pipeline import BoundsConfig, DataRun, FilterConfig, RuleConfig
from data_pipeline import policy
from data_pipeline.annotate import codes, language
from data_pipeline.classify import offline, train
from data_pipeline.heuristics import annotate as heuristics
from data_pipeline.heuristics.schema import SIDECARS

sys.path.insert(0, str(Path(__file__).parent))
import language_data

FEWEST, WRONG, SHARE = 4, 2, 0.02
"""Documents of the first half without which nothing is fitted for a language; documents, and share of them, that a rule must
drop before its bound is moved."""
PIECE, LEAST = {"declarations": 1500, "chapters": 4000, "articles": 4000}, 400
"""Characters of a document at the most, and at the least."""
GROUPS = {
    "zh": ("zh", "yue", "wuu", "gan", "hsn", "hak", "nan", "lzh", "cjy"),
    "ja": ("ja",),
    "th": ("th", "lo", "km", "my", "shn", "mnw", "ksw", "blk"),
}
"""Languages without spaces between words: characters count as words, so they share bounds of words and of repetition."""
OWN_MARKS = (
    "Deva",
    "Beng",
    "Guru",
    "Orya",
    "Ethi",
    "Armn",
    "Hani",
    "Jpan",
    "Thai",
    "Laoo",
    "Khmr",
    "Mymr",
    "Tibt",
    "Syrc",
)
"""Scripts whose sentences end with marks of their own, or with none: C4's rule for the end of a line is not theirs."""
NO_MARKS = ("th", "lo")
SYLLABLES = ("Vaii", "Yiii")
"""Scripts in which a character is a syllable, and words are short."""
SENTENCES = 3.0
"""Sentences that a document of a language must have whose marks C4 does not know."""
WORD_MARKS = ("am", "ti", "bo", "dz")
"""Languages that put a mark instead of a space between words: words cannot be counted by spaces."""
WORD_RULES = (
    "gopher.n_words",
    "gopher.mean_word_length",
    "gopher.top_2_gram",
    "gopher.top_3_gram",
    "gopher.top_4_gram",
)
SETTINGS = Path(__file__).resolve().parent.parent / "configs" / "bounds"
SIGNALS = {*SIDECARS, "language"}
Documents = dict[str, list[tuple[str, str, str]]]
"""(text, language, kind) by half."""


def documents(data: Path) -> list[tuple[str, str, str]]:
    """(text, language, kind) of all documents."""
    found = [
        (t, label, "sentences") for t, label in language_data.documents(language_data.sentences(data), 12, 0)
    ]
    for kind, rows in (
        ("declarations", [(_articles(text), code) for text, code in language_data.declarations(data)]),
        ("chapters", language_data.chapters(data)),
        ("articles", language_data.articles(data)),
    ):
        found += [(piece, label, kind) for text, label in rows for piece in _pieces(text, PIECE[kind])]
    return found


def _articles(declaration: str) -> str:
    """A declaration without its title and its preamble, which is one sentence of a page."""
    lines = declaration.split("\n")
    return "\n".join(lines[len(lines) // 7 :])


def _pieces(text: str, most: int) -> list[str]:
    """Whole lines, up to `most` characters together."""
    pieces, lines, size = [], [], 0
    for line in text.split("\n"):
        if lines and size + len(line) > most:
            pieces.append("\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    pieces.append("\n".join(lines))
    return [p for p in pieces if len(p) >= LEAST]


def signals(found: list[tuple[str, str, str]], spoken: list[str | None] | None) -> dict[str, pa.Array]:
    """Every heuristic signal, by `sidecar.column`; `spoken`: the documents' languages, where they are known."""
    texts = pa.chunked_array([[text for text, _, _ in found]], pa.large_string())
    columns, _ = heuristics.annotate_texts(texts, spoken)
    columns["language"] = {c: t for c, t in _language(texts).items() if c in ("n_sentences", "script_share")}
    return {f"{sidecar}.{c}": v for sidecar, values in columns.items() for c, v in values.items()}


def identified(found: list[tuple[str, str, str]], model: str) -> list[str | None]:
    """Languages as a run of the pipeline finds them: `und` below `codes.SURE`; `model` as on the command line."""
    texts = pa.array([text for text, _, _ in found], pa.large_string())
    with tempfile.TemporaryDirectory() as folder:
        path = None if model == "none" else Path(model)
        if model == "offline":
            path = Path(folder, "language.bin")
            fields = {f.name: f for f in dataclasses.fields(DataRun)}
            settings = fields["languages"].default_factory()
            config = dataclasses.replace(settings, model=None, train="offline")
            train.fit(offline.language_rows(0), config, path, 0, 0.0)
        table = language.Identifier(path, 2000).table(texts)
    unsure = pc.fill_null(pc.less(table["score"], codes.SURE), False)
    told: list[str | None] = pc.if_else(unsure, codes.UNKNOWN, table["language"]).to_pylist()
    return told


def by_language(dropped: np.ndarray, found: list[tuple[str, str, str]], told: list[str | None]) -> None:
    """Print the share that each language keeps of its sentences joined to documents, beside English's."""
    rows = []
    for code in sorted({code for _, code, kind in found if kind == "sentences"}):
        ours = np.array([c == code and k == "sentences" for _, c, k in found])
        right = np.mean([told[i] == code for i in np.flatnonzero(ours)])
        rows.append((code, int(ours.sum()), 1 - float(dropped[ours].mean()), float(right)))
    english = next(kept for code, _, kept, _ in rows if code == "en")
    print("\nlanguage  documents  kept  of English's  told right")
    for code, n, kept, right in sorted(rows, key=lambda row: (row[2], row[0])):
        print(f"{code:<9} {n:>9} {kept:>5.2f} {kept / english:>13.2f} {right:>11.2f}")
    below = [code for code, _, kept, _ in rows if kept < 0.9 * english]
    print(f"{len(rows)} languages; below 0.9 of English: {len(below)} {' '.join(below)}")


def _language(texts: pa.ChunkedArray) -> dict[str, pa.Array]:
    table = language.Identifier(None, 2000).table(texts)
    return {name: table[name].combine_chunks() for name in table.column_names}


def verdicts(
    config: FilterConfig, values: dict[str, pa.Array], spoken: list[str | None]
) -> dict[str, np.ndarray]:
    """bool [n] of each rule whose signal is there: documents it drops."""
    return {
        name: policy.judge(
            name, policy.with_bounds(config, name, rule), pa.chunked_array([values[rule.signal]]), spoken
        ).failed
        for name, rule in config.rules.items()
        if rule is not None and rule.signal in values and rule.allow is None
    }


def rounded(value: float, up: bool) -> float:
    """Two significant digits, away from the documents."""
    if value == 0 or not math.isfinite(value):
        return value
    scale = 10.0 ** (1 - math.floor(math.log10(abs(value))))
    return round((math.ceil if up else math.floor)(value * scale) / scale, 10)


def fit(
    config: FilterConfig, found: list[tuple[str, str, str]], values: dict[str, pa.Array]
) -> dict[str, dict[str, BoundsConfig | None]]:
    """Bounds by language, and of `other`; languages that need none and have no sentences are left to `other`."""
    spoken, kinds = np.array([x for _, x, _ in found]), np.array([k for _, _, k in found])
    tested = set(spoken[kinds == "sentences"].tolist())
    group_of = {code: members for members in GROUPS.values() for code in members}
    listed = {c for c, s in codes.SCRIPTS.items() if s[0] in OWN_MARKS + SYLLABLES}
    bounds: dict[str, dict[str, BoundsConfig | None]] = {}
    for code in [*sorted({*spoken.tolist(), *group_of, *listed}), policy.OTHER]:
        moved: dict[str, BoundsConfig | None] = {}
        for name, configured in config.rules.items():
            rule = configured
            # What was published is for English.
            if code == "en" or rule is None or rule.signal not in values or rule.allow is not None:
                continue
            if known(code, rule.signal):
                moved[name] = None
                continue
            if rule.signal in ("gopher.n_words", "stats.words") and code not in group_of:
                continue  # the length of these documents is our choice
            if rule.signal == "c4.curly_brackets" and code == policy.OTHER:
                continue  # a matter of single languages, whose wikis use braces
            of_sentences = rule.signal.endswith("n_sentences")
            if rule.signal == "language.n_sentences":
                if code in NO_MARKS or moved.get("c4.sentences", rule) is not None:
                    continue
                rule = dataclasses.replace(rule, min=SENTENCES)
            if code == policy.OTHER:
                ours = ~np.isin(spoken, ["en", *group_of, *WORD_MARKS])
            else:
                ours = np.isin(spoken, [code] if of_sentences else group_of.get(code, (code,)))
            allowed = ("sentences",) if repeats(rule.signal) else ("sentences", "chapters", "declarations")
            if not (np.isin(kinds, allowed) & ours).any() or code in (*GROUPS["th"], "ja"):
                allowed = ("sentences", "declarations")
            numbers = values[rule.signal].to_numpy(zero_copy_only=False).astype(np.float64)
            chosen = ours & ~np.isnan(numbers) & np.isin(kinds, allowed)
            if chosen.sum() >= FEWEST:
                share = SHARE / 10 if code == policy.OTHER else SHARE
                bound = _moved(rule, numbers[chosen], _weights(spoken[chosen]), share)
                if bound != BoundsConfig():
                    moved[name] = bound
            if rule.signal == "language.n_sentences":
                moved.setdefault(name, BoundsConfig(SENTENCES))
        if moved or code in tested:
            bounds[code] = moved
    for code, moved in bounds.items():
        if (spoken == code).sum() < FEWEST and code not in group_of:
            bounds[code] = bounds[policy.OTHER] | moved  # known by its script alone
    return bounds


def known(code: str, signal: str) -> bool:
    """Whether a rule on a signal is not for a language, whatever the data say."""
    script = codes.SCRIPTS.get(code, ("",))[0]
    if signal == "c4.n_sentences":
        return script in OWN_MARKS or code in ("ur", policy.OTHER)
    if signal == "gopher.mean_word_length" and script in SYLLABLES:
        return True
    return signal in WORD_RULES and code in WORD_MARKS


def repeats(signal: str) -> bool:
    """Whether a signal measures repetition."""
    return signal.split(".")[1].startswith(("dup_", "top_")) or signal in ("fineweb.char_dup_ratio",)


def _weights(spoken: np.ndarray) -> np.ndarray:
    """Every language counts as much as every other."""
    _, inverse, counts = np.unique(spoken, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def _moved(rule: RuleConfig, numbers: np.ndarray, weights: np.ndarray, allowed: float) -> BoundsConfig | None:
    order = np.argsort(numbers, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    margin = 0.3 if repeats(rule.signal) else 0.1
    low = high = None
    if rule.min is not None and _fails(numbers < rule.min, weights, allowed):
        quantile = float(numbers[order][min(np.searchsorted(share, 0.005), len(order) - 1)])
        whole = rule.signal.split(".")[1].startswith("n_")
        low = float(math.floor(quantile)) if whole else rounded((1 - margin) * quantile, up=False)
        if low < rule.min / 4:
            return None
    if rule.max is not None and _fails(numbers > rule.max, weights, allowed):
        quantile = float(numbers[order][min(np.searchsorted(share, 0.995), len(order) - 1)])
        high = rounded((1 + margin) * quantile, up=True)
    return BoundsConfig(low, high)


def _fails(dropped: np.ndarray, weights: np.ndarray, allowed: float) -> bool:
    return bool(dropped.sum() >= WRONG and weights[dropped].sum() > allowed * weights.sum())


def save(path: Path, bounds: dict[str, dict[str, BoundsConfig | None]]) -> None:
    """Write the bounds as YAML, one line a language."""
    lines = [
        "# Bounds by language for the policy of the same name; a language that is listed without a rule keeps its bounds.",
        "# Fitted on clean text of each language by `benchmarks/language_filters.py --fit`, which says how; `other` is",
        "# every language that is not listed. null: the rule does not look at documents of the language.",
    ]
    for code, rules in bounds.items():
        plain = {
            name: None if b is None else {k: v for k, v in edge.to_dict(b).items() if v is not None}
            for name, b in rules.items()
        }
        text = yaml.safe_dump(plain, default_flow_style=True, width=10**6, sort_keys=False).strip()
        key = f'"{code}"' if code in ("no", "on", "off", "yes") else code
        lines.append(f"{key}: {text}")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def report(
    name: str, dropped: np.ndarray, found: list[tuple[str, str, str]], rules: dict[str, np.ndarray]
) -> None:
    """Keep rates: of all, by kind, and the languages with the lowest."""
    kept: dict[str, list[bool]] = defaultdict(list)
    for (_, code, kind), gone in zip(found, dropped.tolist(), strict=True):
        kept[f"{kind}:{code}"].append(not gone)
    print(f"\n{name}: kept {1 - dropped.mean():.3f} of {len(found)} documents")
    for kind in ("sentences", "articles", "declarations", "chapters"):
        rates = {
            k.split(":")[1]: float(np.mean(v)) for k, v in kept.items() if k.startswith(kind) and len(v) >= 5
        }
        worst = sorted(rates.items(), key=lambda item: (item[1], item[0]))
        below = sum(r < 0.9 for r in rates.values())
        print(
            f"  {kind:<12} {len(rates):>3} languages, mean {np.mean(list(rates.values())):.3f}, "
            f"below 0.90: {below:>3}; lowest: " + ", ".join(f"{code} {rate:.2f}" for code, rate in worst[:8])
        )
    if "--verbose" in sys.argv:
        for code in sorted({c for _, c, _ in found}):
            ours = np.array([c == code for _, c, _ in found])
            if dropped[ours].mean() > 0.1:
                named = {k: int(v[ours].sum()) for k, v in rules.items() if v[ours].any()}
                print(f"    {code}: {int(dropped[ours].sum())} of {int(ours.sum())} dropped: {named}")
    by_rule = sorted(((int(v.sum()), k) for k, v in rules.items()), reverse=True)[:8]
    print(
        "  drops by rule (one document may fail several): " + ", ".join(f"{k} {n}" for n, k in by_rule if n)
    )


def main() -> int:
    """Fit where asked, measure, print."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print(
            "skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds multilingual/ and wikipedia/"
        )
        return 0
    name = sys.argv[sys.argv.index("--policy") + 1] if "--policy" in sys.argv else "web"
    found = documents(Path(os.environ["ARRIERO_TEST_DATA"]))
    half = [xxhash.xxh3_64_intdigest(text.encode()) % 2 for text, _, _ in found]
    config = edge.load_group("filter", name, FilterConfig)
    if "--fit" in sys.argv:
        first = [d for d, h in zip(found, half, strict=True) if h == 0]
        bounds = fit(config, first, signals(first, [label for _, label, _ in first]))
        save(SETTINGS / f"{name}.yaml", bounds)
        print(f"fitted on {len(first)} documents: {len(bounds) - 1} languages, {SETTINGS / f'{name}.yaml'}")
        config = edge.load_group("filter", name, FilterConfig)
    second = [d for d, h in zip(found, half, strict=True) if h == 1]
    model = sys.argv[sys.argv.index("--model") + 1] if "--model" in sys.argv else "cld2"
    plain = edge.build(FilterConfig, edge.to_dict(config) | {"bounds": {}})
    told = identified(second, model)
    for title, chosen, spoken in (
        ("English settings for all (language not known)", plain, None),
        (f"settings by language, languages told by {model}", config, told),
        ("settings by language, languages as they are", config, [label for _, label, _ in second]),
    ):
        rules = verdicts(chosen, signals(second, spoken), spoken or [None] * len(second))
        dropped = np.any(list(rules.values()), axis=0)
        report(title, dropped, second, rules)
        if spoken is told:
            by_language(dropped, second, told)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The stages of `arriero data`, in order: what each runs, what it depends on, what it writes.

A stage names everything that its output depends on, so that changing a threshold repeats the decisions and not the
reading, and changing a reader repeats everything.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs import edge
from configs.schema.pipeline import ClassifierConfig, DataRun, RecipeConfig
from data_pipeline import collect, fingerprint, policy
from data_pipeline.annotate import heuristics
from data_pipeline.document import read_shard, read_table, shard_count, shard_path, texts, write_table
from data_pipeline.read import units as planning
from data_pipeline.stage import Stage

CORE = ("document.py",)


def sources(config: DataRun) -> list[planning.Source]:
    """Sources of a run: `sources`, or the one that `recipe` and `input` make.

    Raises:
        ConfigError: neither or both are given, a recipe does not exist, or two sources have one name.
    """
    if config.sources and config.input is not None:
        raise edge.ConfigError("give `input` with `recipe`, or `sources`, not both")
    if not config.sources:
        if config.input is None:
            raise edge.ConfigError(
                "no input: write input=FILE|DIR|GLOB, or sources=[{name: …, recipe: …, input: …}]"
            )
        return [planning.Source(config.recipe.name, config.recipe, config.input)]
    names = [s.name for s in config.sources]
    if len(set(names)) < len(names):
        raise edge.ConfigError(f"sources need different names, but they are {', '.join(names)}")
    found = []
    folder = Path(edge.__file__).parent / "recipe"
    options = sorted(p.stem for p in folder.glob("*.yaml"))
    for source in config.sources:
        if source.recipe not in options:
            close = difflib.get_close_matches(source.recipe, options, n=1)
            hint = f"did you mean `{close[0]}`? " if close else ""
            raise edge.ConfigError(
                f"source `{source.name}`: recipe `{source.recipe}` is unknown; {hint}options: {', '.join(options)}"
            )
        recipe = edge.load_group("recipe", source.recipe, RecipeConfig)
        if source.max_source_bytes is not None:
            recipe = dataclasses.replace(recipe, max_source_bytes=source.max_source_bytes)
        found.append(planning.Source(source.name, recipe, source.input))
    return found


def _recipe_of(run_dir: Path, shard: int, config: DataRun) -> tuple[Any, RecipeConfig]:
    unit = planning.load(run_dir / "units.json")[shard]
    return unit, next(s.recipe for s in sources(config) if s.name == unit.source)


def read(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Raw input → documents."""
    unit, recipe = _recipe_of(run_dir, shard, config)
    return collect.read_unit(run_dir, unit, recipe)


def signals(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Heuristic signals."""
    return heuristics.annotate(run_dir, shard)


def copies(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Documents that several shards hold."""
    return policy.copies(run_dir, shard_count(run_dir))


def _train(config: ClassifierConfig, rows: Any, run_dir: Path, name: str, seed: int) -> dict[str, int]:
    from data_pipeline.classify import fasttext

    return _numbers(fasttext.train(rows, config, run_dir / "models" / f"{name}.bin", seed))


def _numbers(counts: dict[str, Any]) -> dict[str, int]:
    return {k: v for k, v in counts.items() if isinstance(v, int)}


def language_model(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Train the language classifier."""
    from data_pipeline.classify import offline, rows

    train = config.languages.train
    assert train is not None
    found = offline.language_rows(config.seed) if train == "offline" else rows.read(Path(train))
    return _train(config.languages, found, run_dir, "language", config.seed)


def nsfw_model(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Train the NSFW classifier."""
    from data_pipeline.classify import offline, rows

    train = config.nsfw.classifier.train
    assert train is not None
    found = offline.nsfw_rows(config.seed) if train == "offline" else rows.read(Path(train))
    return _train(config.nsfw.classifier, found, run_dir, "nsfw", config.seed)


def quality_labels(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Ask a Llama for labels of a sample of the documents."""
    from data_pipeline.quality import label

    found = texts(run_dir, shard_count(run_dir))
    output = run_dir / "models" / "quality-labels.jsonl"
    return _numbers(label.label(found, config.quality.label, config.seed, output))


def quality_model(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Train the quality classifier, on those labels or on given rows."""
    from data_pipeline.classify import rows
    from data_pipeline.quality import label

    if config.quality.classifier.train is not None:
        found = rows.read(Path(config.quality.classifier.train))
        return _train(config.quality.classifier, found, run_dir, "quality", config.seed)
    labels = run_dir / "models" / "quality-labels.jsonl"
    return _numbers(label.train(labels, config.quality, run_dir / "models" / "quality.bin", config.seed))


def model_path(run_dir: Path, config: ClassifierConfig, name: str, labelled: bool = False) -> Path | None:
    """The model that scores: a given one, the one that this run trains, or none."""
    if config.model is not None:
        return Path(config.model)
    return run_dir / "models" / f"{name}.bin" if config.train is not None or labelled else None


def language(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Language of each document."""
    from data_pipeline.annotate import language as annotator

    _, recipe = _recipe_of(run_dir, shard, config)
    documents = read_shard(run_dir, shard, ["id", "text"])
    model = model_path(run_dir, config.languages, "language")
    table = annotator.annotate(documents, config.languages, model, recipe.language)
    write_table(table, shard_path(run_dir, "signals/language", shard))
    return {"documents": len(table)}


def nsfw(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """NSFW signals of each document."""
    from data_pipeline.annotate import nsfw as annotator

    documents = _with_languages(run_dir, shard, ["id", "url", "language", "text"])
    model = model_path(run_dir, config.nsfw.classifier, "nsfw")
    write_table(annotator.annotate(documents, config.nsfw, model), shard_path(run_dir, "signals/nsfw", shard))
    return {"documents": len(documents)}


def quality(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Quality score of each document."""
    from data_pipeline.annotate import quality as annotator

    documents = read_shard(run_dir, shard, ["id", "text"])
    labelled = config.quality.label.base_url is not None
    model = model_path(run_dir, config.quality.classifier, "quality", labelled)
    table = annotator.annotate(documents, config.quality.classifier, model)
    write_table(table, shard_path(run_dir, "signals/quality", shard))
    return {"documents": len(table)}


def _with_languages(run_dir: Path, shard: int, columns: list[str] | None = None) -> pa.Table:
    documents = read_shard(run_dir, shard, columns)
    found = policy.languages(run_dir, shard, documents)
    return documents.set_column(documents.schema.get_field_index("language"), "language", found)


def decide(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Policy A."""
    _, recipe = _recipe_of(run_dir, shard, config)
    return policy.decide(run_dir, shard, recipe.filter)


def exact(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Exact duplicates."""
    from data_pipeline.dedup import exact as dedup

    return dedup.decide(run_dir, list(range(shard_count(run_dir))), config.dedup)


def sign(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """MinHash signatures of what is kept so far; stored, so that changing policy B does not compute them again."""
    from data_pipeline.dedup import minhash as dedup

    step = "exact" if config.dedup.exact else "a"
    documents = read_shard(run_dir, shard, ["id", "text"])
    keep = read_table(shard_path(run_dir, f"decisions/{step}", shard), ["keep"])["keep"]
    table = dedup.sign(documents, keep, config.dedup)
    write_table(table, shard_path(run_dir, "signals/minhash", shard))
    return {"documents": len(table)}


def minhash(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Near-duplicates."""
    from data_pipeline.dedup import minhash as dedup

    return dedup.decide(run_dir, list(range(shard_count(run_dir))), config.dedup)


def semantic(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Semantic duplicates."""
    from data_pipeline.dedup import semantic as dedup

    return dedup.decide(run_dir, list(range(shard_count(run_dir))), config.dedup)


def steps(config: DataRun) -> list[str]:
    """Decision steps of a run, in order."""
    dedup = config.dedup
    chosen = {"a": True, "exact": dedup.exact, "minhash": dedup.minhash, "semantic": dedup.semantic}
    return [name for name, wanted in chosen.items() if wanted]


def final(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Join the decisions."""
    return policy.combine(run_dir, shard, steps(config))


def tokenizer(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Train the tokenizer on the kept documents, or copy the given one."""
    from data_pipeline.tokenize import make_tokenizer

    kept = texts(run_dir, shard_count(run_dir), keep="final")
    info = make_tokenizer(kept, config.tokenizer, config.seed, run_dir / "tokenizer")
    return {"vocab_size": info.vocab_size}


def tokens(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Encode the kept documents."""
    from data_pipeline.tokenize import encode_shard

    keep = read_table(shard_path(run_dir, "decisions/final", shard), ["keep"])["keep"]
    output = run_dir / "tokens" / f"{shard:05d}.arrow"
    documents = _with_languages(run_dir, shard)
    return encode_shard(
        documents, keep.to_numpy(zero_copy_only=False).astype(bool), run_dir / "tokenizer", output
    )


def pack(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Pack tokens into sequences."""
    from data_pipeline.pack import pack as pack_run

    # The fingerprint names the data and not the way to it: code versions would make equal datasets differ.
    manifest = pack_run(run_dir, config, (run_dir / "stages" / "pack.started").read_text())
    return {
        "streams": len(manifest.streams),
        "sequences": sum(s.sequences for s in manifest.streams.values()),
    }


def build(run_dir: Path, config: DataRun, plan: planning.Plan) -> tuple[list[Stage], list[str]]:
    """The stages of a run, and what does not run because it has no model: one sentence each."""
    n = len(plan.units)
    found = sources(config)
    plain = edge.to_dict
    recipes = {s.name: plain(s.recipe) | {"filter": None} for s in found}
    filters = {s.name: plain(s.recipe.filter) for s in found}
    languages, nsfw_config, quality_config = config.languages, config.nsfw, config.quality
    labelled = quality_config.label.base_url is not None and quality_config.classifier.model is None
    labelled = labelled and quality_config.classifier.train is None
    not_run: list[str] = []
    stages: list[Stage] = []

    def add(
        name: str,
        function: Any,
        tasks: int,
        outputs: tuple[str, ...],
        depends: tuple[str, ...],
        code: tuple[str, ...],
        settings: Any = None,
        inputs: Any = None,
        libraries: tuple[str, ...] = (),
    ) -> None:
        known = {s.name for s in stages}
        stages.append(
            Stage(
                name,
                function,
                tasks,
                outputs,
                tuple(d for d in depends if d in known),
                (*CORE, *code),
                libraries,
                settings,
                inputs,
            )
        )

    def given(classifier: ClassifierConfig) -> list[str]:
        """Content of the files that a classifier is made from."""
        named = [classifier.model, None if classifier.train == "offline" else classifier.train]
        return fingerprint.of_paths([f for f in named if f is not None])

    add(
        "read",
        read,
        n,
        ("documents", "rejected"),
        (),
        ("collect.py", "read", "extract"),
        [recipes, [dataclasses.asdict(u) for u in plan.units]],
        plan.inputs,
        ("trafilatura", "lxml", "charset-normalizer"),
    )
    add(
        "signals",
        signals,
        n,
        tuple(f"signals/{name}" for name in heuristics.SIDECARS),
        ("read",),
        ("analysis.py", *(f"annotate/{name}.py" for name in (*heuristics.SIDECARS, "heuristics"))),
    )
    add("copies", copies, 1, ("signals/copies",), ("read",), ("policy.py",))
    if languages.model is None and languages.train is not None:
        add(
            "language_model",
            language_model,
            1,
            ("models/language.bin",),
            (),
            ("classify",),
            [plain(languages), config.seed],
            given(languages),
        )
    add(
        "language",
        language,
        n,
        ("signals/language",),
        ("read", "language_model"),
        ("annotate/language.py", "classify/fasttext.py"),
        [plain(languages), {k: r["language"] for k, r in recipes.items()}],
        given(languages),
    )
    if model_path(run_dir, languages, "language") is None and not all(s.recipe.language for s in found):
        not_run.append(
            "language: no model, so rules for some languages judge all documents (English stop words drop German "
            "pages); set languages.model=FILE.bin or languages.train=offline|FILE.jsonl"
        )

    if nsfw_config.classifier.model is None and nsfw_config.classifier.train is not None:
        add(
            "nsfw_model",
            nsfw_model,
            1,
            ("models/nsfw.bin",),
            (),
            ("classify",),
            [plain(nsfw_config.classifier), config.seed],
            given(nsfw_config.classifier),
        )
    lists = fingerprint.of_paths([*nsfw_config.url_lists, *nsfw_config.word_lists])
    add(
        "nsfw",
        nsfw,
        n,
        ("signals/nsfw",),
        ("read", "language", "nsfw_model"),
        ("annotate/nsfw.py", "classify/fasttext.py", "policy.py"),
        plain(nsfw_config),
        [lists, given(nsfw_config.classifier)],
    )
    if model_path(run_dir, nsfw_config.classifier, "nsfw") is None:
        not_run.append(
            "nsfw.score: no model; set nsfw.classifier.model=FILE.bin or nsfw.classifier.train=offline|FILE.jsonl"
        )
    if not nsfw_config.url_lists:
        not_run.append("nsfw.url_hit: no lists; set nsfw.url_lists=[FILE|DIR]")
    if not nsfw_config.word_lists:
        not_run.append("nsfw.word_density: no lists; set nsfw.word_lists=[FILE|DIR]")

    classifier = quality_config.classifier
    if labelled:
        # Where the server listens, and how patiently it is asked, changes nothing about its answers.
        asked = {
            k: v
            for k, v in plain(quality_config.label).items()
            if k not in ("base_url", "timeout", "retries", "concurrency")
        }
        add(
            "quality_labels",
            quality_labels,
            1,
            ("models/quality-labels.jsonl",),
            ("read",),
            ("quality",),
            [asked, config.seed],
        )
    if classifier.model is None and (labelled or classifier.train is not None):
        add(
            "quality_model",
            quality_model,
            1,
            ("models/quality.bin",),
            ("quality_labels",),
            ("classify", "quality"),
            [plain(classifier), quality_config.good, config.seed],
            given(classifier),
        )
    add(
        "quality",
        quality,
        n,
        ("signals/quality",),
        ("read", "quality_model"),
        ("annotate/quality.py", "classify/fasttext.py"),
        plain(classifier),
        given(classifier),
    )
    if model_path(run_dir, classifier, "quality", labelled) is None:
        not_run.append(
            "quality: no model; set quality.label.base_url=URL, or quality.classifier.model=FILE.bin"
        )

    add(
        "decide",
        decide,
        n,
        ("decisions/a",),
        ("signals", "copies", "language", "nsfw", "quality"),
        ("policy.py",),
        filters,
    )
    dedup = config.dedup
    if dedup.exact:
        add(
            "exact",
            exact,
            1,
            ("decisions/exact",),
            ("decide",),
            ("dedup/exact.py", "dedup/corpus.py", "analysis.py"),
            [dedup.keep],
        )
    minhash_code = ("dedup/minhash.py", "dedup/corpus.py", "dedup/shingles.py")
    if dedup.minhash:
        add(
            "sign",
            sign,
            n,
            ("signals/minhash",),
            ("decide", "exact"),
            minhash_code,
            [dedup.ngram, dedup.permutations, dedup.exact],
        )
        add("minhash", minhash, 1, ("decisions/minhash",), ("sign",), minhash_code, plain(dedup))
    if dedup.semantic:
        add(
            "semantic",
            semantic,
            1,
            ("decisions/semantic",),
            ("decide", "exact", "minhash"),
            ("dedup/semantic.py", "dedup/corpus.py", "dedup/shingles.py"),
            plain(dedup),
            None,
            ("faiss-cpu",),
        )
    add(
        "final",
        final,
        n,
        ("decisions/final",),
        ("decide", "exact", "minhash", "semantic"),
        ("policy.py",),
        steps(config),
    )
    path = [config.tokenizer.path] if config.tokenizer.path else []
    add(
        "tokenizer",
        tokenizer,
        1,
        ("tokenizer",),
        ("final",),
        ("tokenize", "keyed.py"),
        [plain(config.tokenizer), config.seed],
        fingerprint.of_paths(path),
        ("tokenizers",),
    )
    add(
        "tokens", tokens, n, ("tokens",), ("final", "tokenizer"), ("tokenize/encode.py", "tokenize/folder.py")
    )
    add(
        "pack",
        pack,
        1,
        ("packed",),
        ("tokens",),
        ("pack", "packed", "mixture.py", "keyed.py"),
        [plain(config.pack), plain(config.mixture), config.seed, config.cutoff],
    )
    return stages, not_run


def owned(run_dir: Path) -> Iterator[Path]:
    """Folders that decide what later stages see by being there at all."""
    for name in ("exact", "minhash", "semantic"):
        yield run_dir / "decisions" / name
    yield run_dir / "signals" / "minhash"

"""Annotation: documents → signals and proposed edits. Nothing is dropped here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs import edge
from configs.schema.pipeline import ClassifierConfig, DataRun, QualityConfig
from data_pipeline import fingerprint
from data_pipeline.annotate import cld2, outliers
from data_pipeline.document import read_shard, shard_count, shard_path, texts, write_table
from data_pipeline.flow.context import (
    Context,
    given_files,
    language_config,
    model_path,
    numbers,
    recipe_of,
    with_languages,
)
from data_pipeline.heuristics import annotate as heuristics
from data_pipeline.heuristics.schema import EDITS, SIDECARS
from data_pipeline.stage import Stage

_SCORING = ("classify/fasttext.py", "classify/inference.py", "classify/calibrate.py")
_LANGUAGE = (
    "annotate/cld2.py",
    "annotate/codes.py",
    "annotate/schemas.py",
    "annotate/scripts.py",
    "annotate/sentences.py",
)
_NSFW = tuple(
    f"annotate/{name}.py"
    for name in ("listed_words", "lists", "nsfw", "nsfw_page", "nsfw_vocabulary", "schemas", "stopwords")
)

_WORDS = ("annotate/outliers.py", "analysis", "kernels")


def signals(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Heuristic signals, and edits of the line rules."""
    languages = with_languages(run_dir, shard, ["id", "language"])["language"]
    return heuristics.annotate(run_dir, shard, languages.to_pylist())


def word_distribution(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Words of the whole corpus, by language."""
    return outliers.merge(run_dir, shard_count(run_dir))


def outlier_signals(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """How far the words of each document are from those of the corpus."""
    documents = with_languages(run_dir, shard, ["id", "language", "text"])
    write_table(outliers.annotate(run_dir, shard, documents), shard_path(run_dir, "signals/outliers", shard))
    return {"documents": len(documents)}


def _train(config: ClassifierConfig, rows: Any, run_dir: Path, name: str, seed: int) -> dict[str, int]:
    """Train a classifier; on labelled rows it is calibrated, on rows made up offline there is nothing to calibrate to."""
    from data_pipeline.classify import train

    fraction = 0.0 if config.train == "offline" else train.CALIBRATION_FRACTION
    return numbers(train.fit(rows, config, run_dir / "models" / f"{name}.bin", seed, fraction)[0])


def language_model(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Train the language classifier."""
    from data_pipeline.classify import offline, rows

    chosen = language_config(config)
    train = chosen.train
    assert train is not None
    found = offline.language_rows(config.seed) if train == "offline" else rows.read(Path(train))
    return _train(chosen, found, run_dir, "language", config.seed)


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
    return numbers(label.label(found, config.quality.label, config.seed, output))


def quality_model(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Train the quality classifier, on those labels or on given rows."""
    from data_pipeline.classify import rows
    from data_pipeline.quality import label

    if config.quality.classifier.train is not None:
        found = rows.read(Path(config.quality.classifier.train))
        return _train(config.quality.classifier, found, run_dir, "quality", config.seed)
    labels = run_dir / "models" / "quality-labels.jsonl"
    return numbers(label.train(labels, config.quality, run_dir / "models" / "quality.bin", config.seed))


def language(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Language of each document."""
    from data_pipeline.annotate import language as annotator

    _, recipe = recipe_of(run_dir, shard, config)
    documents = read_shard(run_dir, shard, ["id", "text"])
    chosen = language_config(config)
    model = model_path(run_dir, chosen, "language")
    table = annotator.annotate(documents, chosen, model, recipe.language)
    write_table(table, shard_path(run_dir, "signals/language", shard))
    return {"documents": len(table)}


def url_lists(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """The index of the URL lists."""
    from data_pipeline.annotate import url_lists as index

    cache = Path(config.url.cache).expanduser() if config.url.cache is not None else None
    return index.build(config.url.lists, config.url.soft_lists, run_dir / "models" / "url_lists", cache)


def url_signals(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """URL signals of each document."""
    from data_pipeline.annotate import url as annotator

    documents = read_shard(run_dir, shard, ["id", "url"])
    lists = run_dir / "models" / "url_lists" if config.url.lists or config.url.soft_lists else None
    write_table(annotator.annotate(documents, lists), shard_path(run_dir, "signals/url", shard))
    return {"documents": len(documents)}


def nsfw(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """NSFW signals of each document."""
    from data_pipeline.annotate import nsfw as annotator

    documents = with_languages(run_dir, shard, ["id", "language", "text"])
    model = model_path(run_dir, config.nsfw.classifier, "nsfw")
    write_table(annotator.annotate(documents, config.nsfw, model), shard_path(run_dir, "signals/nsfw", shard))
    return {"documents": len(documents)}


def quality(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Quality score of each document."""
    from data_pipeline.annotate import quality as annotator

    documents = read_shard(run_dir, shard, ["id", "text"])
    labelled = _asks(config.quality)
    model = model_path(run_dir, config.quality.classifier, "quality", labelled)
    table = annotator.annotate(documents, config.quality.classifier, model)
    write_table(table, shard_path(run_dir, "signals/quality", shard))
    return {"documents": len(table)}


def stages(context: Context) -> Iterator[Stage]:
    """The stages of annotation."""
    yield from _languages(context)
    yield Stage(
        "signals",
        signals,
        context.shards,
        outputs=(
            *(f"signals/{name}" for name in SIDECARS),
            *(f"edits/{name}" for name in EDITS),
            outliers.COUNTS,
        ),
        depends=("read", "language"),
        code=("policy.py", "edits.py", "heuristics", "annotate/stopwords.py", *_WORDS),
    )
    yield Stage(
        "word_distribution",
        word_distribution,
        1,
        outputs=(str(outliers.DISTRIBUTION),),
        depends=("signals",),
        code=_WORDS,
    )
    yield Stage(
        "outliers",
        outlier_signals,
        context.shards,
        outputs=("signals/outliers",),
        depends=("word_distribution", "language"),
        code=("policy.py", *_WORDS),
    )
    yield from _urls(context)
    yield from _nsfw(context)
    yield from _quality(context)


def _languages(context: Context) -> Iterator[Stage]:
    config, plain = language_config(context.config), edge.to_dict
    if config.model is None and config.train is not None:
        yield Stage(
            "language_model",
            language_model,
            1,
            outputs=("models/language.bin",),
            code=("classify", "read/streams.py"),
            config=[plain(config), context.config.seed],
            inputs=given_files(config, "languages"),
        )
    yield Stage(
        "language",
        language,
        context.shards,
        outputs=("signals/language",),
        depends=("read", "language_model"),
        code=("annotate/language.py", *_LANGUAGE, *_SCORING),
        config=[plain(config), {k: r["language"] for k, r in context.recipes.items()}],
        inputs=given_files(config, "languages"),
        libraries=(cld2.DISTRIBUTION,) if config.model == cld2.NAME else (),
    )
    if context.config.languages.model == cld2.NAME and not cld2.available() and config.train == "offline":
        context.reduced.append(
            "language: pycld2 is not installed, so a model is trained on what this Python environment holds, which is less "
            "accurate; pip install pycld2, or set languages.model=FILE.bin"
        )
    missing = model_path(context.run_dir, config, "language") is None
    if missing and not all(s.recipe.language for s in context.sources):
        context.reduced.append(
            "language: no model, so only languages with a script of their own are told, and the others judged as English "
            "(its stop words drop German pages); pip install pycld2 and set languages.model=cld2, or "
            "languages.model=FILE.bin or languages.train=offline|FILE.jsonl"
        )


def _urls(context: Context) -> Iterator[Stage]:
    config = context.config.url
    own = [name for name in (*config.lists, *config.soft_lists) if name != "datatrove"]
    if config.lists or config.soft_lists:
        yield Stage(
            "url_lists",
            url_lists,
            1,
            outputs=("models/url_lists",),
            code=(
                "annotate/url_lists.py",
                "annotate/lists.py",
                "annotate/list_formats.py",
                "urls/domains.py",
            ),
            config=[config.lists, config.soft_lists],
            inputs=fingerprint.of_paths(own, "url.lists"),
            libraries=("datatrove", "publicsuffixlist"),
        )
    else:
        context.not_run.append("url.listed: no lists; set url.lists=[datatrove, FILE, DIR]")
    yield Stage(
        "url_signals",
        url_signals,
        context.shards,
        outputs=("signals/url",),
        depends=("read", "url_lists"),
        code=("annotate/url.py", "annotate/url_lists.py", "urls/canonical.py", "urls/domains.py"),
        libraries=("publicsuffixlist",),
    )


def _nsfw(context: Context) -> Iterator[Stage]:
    config, plain = context.config.nsfw, edge.to_dict
    if config.classifier.model is None and config.classifier.train is not None:
        yield Stage(
            "nsfw_model",
            nsfw_model,
            1,
            outputs=("models/nsfw.bin",),
            code=("classify",),
            config=[plain(config.classifier), context.config.seed],
            inputs=given_files(config.classifier, "nsfw.classifier"),
        )
    lists = fingerprint.of_paths(list(config.word_lists), "nsfw.word_lists")
    yield Stage(
        "nsfw",
        nsfw,
        context.shards,
        outputs=("signals/nsfw",),
        depends=("read", "language", "nsfw_model"),
        code=(*_NSFW, "kernels", "annotate/nsfw_page.json", "policy.py", *_SCORING),
        config=plain(config),
        inputs=[lists, given_files(config.classifier, "nsfw.classifier")],
    )
    if model_path(context.run_dir, config.classifier, "nsfw") is None:
        context.reduced.append(
            "nsfw.classifier: no model, so nsfw.score knows words alone; set nsfw.classifier.model=FILE.bin or "
            "nsfw.classifier.train=offline|FILE.jsonl"
        )
    if not config.word_lists:
        context.not_run.append("nsfw.word_density: no lists; set nsfw.word_lists=[FILE|DIR]")


def _asks(config: QualityConfig) -> bool:
    """Whether a model is asked for labels."""
    return config.label.base_url is not None or config.label.local_model is not None


def _quality(context: Context) -> Iterator[Stage]:
    from data_pipeline.quality import prompt

    config, plain = context.config.quality, edge.to_dict
    classifier = config.classifier
    labelled = _asks(config) and classifier.model is None and classifier.train is None
    if labelled:
        # Where the server listens, and how patiently it is asked, changes nothing about its answers.
        asked = {
            k: v
            for k, v in plain(config.label).items()
            if k
            not in ("base_url", "timeout", "retries", "concurrency", "api_key_env", "requests_per_minute")
            and not k.endswith("_price")
        }
        yield Stage(
            "quality_labels",
            quality_labels,
            1,
            outputs=("models/quality-labels.jsonl",),
            depends=("read",),
            code=("quality",),
            config=[asked, plain(prompt.rubric(config.label.rubric)), context.config.seed],
        )
    if classifier.model is None and (labelled or classifier.train is not None):
        yield Stage(
            "quality_model",
            quality_model,
            1,
            outputs=("models/quality.bin",),
            depends=("quality_labels",),
            code=("classify", "quality", "annotate/quality.py"),
            config=[plain(classifier), config.good, context.config.seed],
            inputs=given_files(classifier, "quality.classifier"),
        )
    yield Stage(
        "quality",
        quality,
        context.shards,
        outputs=("signals/quality",),
        depends=("read", "quality_model"),
        code=("annotate/quality.py", *_SCORING),
        config=plain(classifier),
        inputs=given_files(classifier, "quality.classifier"),
    )
    if model_path(context.run_dir, classifier, "quality", labelled) is None:
        context.not_run.append(
            "quality: no model; set quality.label.base_url=URL, or quality.classifier.model=FILE.bin"
        )

"""Configuration of the verbs around `arriero data`: what trains its models, and what reads its output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.fields import (
    AnyPath,
    Bounds,
    Count,
    DataFolder,
    Date,
    NonEmpty,
    Number,
    PackedFolder,
    Positive,
    PositiveShare,
    Seed,
    Share,
    Text,
    section,
)
from configs.schema.pipeline import (
    ClassifierConfig,
    FilterConfig,
    LabelConfig,
    PackConfig,
    RecipeConfig,
    TokenizerConfig,
)


@dataclass(frozen=True)
class TokenizerRun:
    """`arriero tokenizer`: train a tokenizer on text or JSONL files."""

    input: AnyPath
    """File, folder or glob."""
    output: AnyPath
    """Folder of the tokenizer."""
    recipe: RecipeConfig = section(option="text")
    """Recipe that reads the input."""
    tokenizer: TokenizerConfig = section(TokenizerConfig)
    """Size and training."""
    seed: Seed = 0
    """Seed of the sample."""


@dataclass(frozen=True)
class ClassifyRun:
    """`arriero classify`: train a fastText classifier and measure it on a held-out part."""

    input: AnyPath
    """Labelled JSONL."""
    output: AnyPath
    """Path of the `.bin` model; measures go beside it as `.json`."""
    text_key: NonEmpty = "text"
    """Field of the text."""
    label_key: NonEmpty = "label"
    """Field of the label."""
    code: bool = False
    """Add rows of source code, labelled `zxx`, so that a model of languages tells code from text."""
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    """Training."""
    test_fraction: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of rows held out, chosen by a hash of (seed, text)."""
    calibration_fraction: Annotated[float, Bounds(min=0, below=1)] = 0.1
    """Share of the other rows on which probabilities are calibrated and thresholds chosen; 0: neither."""
    target_precision: PositiveShare | None = None
    """Choose thresholds that reach this precision with the highest recall; null: see `target_recall`."""
    target_recall: PositiveShare | None = None
    """Choose thresholds that reach this recall with the highest precision; both null: the highest F1."""
    seed: Seed = 0
    """Seed."""


@dataclass(frozen=True)
class SampleConfig:
    """The documents that are labelled."""

    documents: Positive = 1000
    """Number of documents."""
    strata: tuple[Literal["source", "language", "length", "score"], ...] = (
        "source",
        "language",
        "length",
        "score",
    )
    """What the sample is spread over: a stratum gets documents by the square root of its size."""


@dataclass(frozen=True)
class QualityRun:
    """`arriero quality`: labels of a Llama → a classifier of quality → a threshold."""

    data: DataRunPath
    """The documents."""
    output: AnyPath
    """Folder of labels, classifiers, measures and report."""
    step: Literal["all", "sample", "label", "train", "measure", "threshold", "score", "report"] = "all"
    """One step alone, or all of them; what is done already is skipped."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    """The documents that are labelled."""
    label: LabelConfig = field(default_factory=LabelConfig)
    """The rater; `documents` of it does not count here."""
    repeats: Count = 100
    """Documents of the sample that are asked about again, by a prompt that names the best level first: the rater against
    itself."""
    good: Annotated[int, Bounds(min=1, max=5)] | None = None
    """Labels from which a document counts as good; null: the rubric's."""
    good_share: Annotated[float, Bounds(above=0, below=1)] | None = None
    """Share of the documents that count as good, those with the best labels, in the place of `good`: for a rater whose
    labels order documents but do not reach the levels that they are named after; null: `good`."""
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    """The fastText classifier."""
    held_out: Annotated[float, Bounds(above=0, below=0.5)] = 0.2
    """Share of hosts (groups, where there are no URLs) on which the classifiers are measured; half as many calibrate."""
    retention: tuple[PositiveShare, ...] = (0.1, 0.25, 0.5)
    """Shares of the documents to keep, whose thresholds are found."""
    at: tuple[Share, ...] = ()
    """Thresholds to look at beside them."""
    signal: Literal["fasttext", "embedding", "network"] = "fasttext"
    """Score that the thresholds are of."""
    examples: Count = 5
    """Documents shown on either side of a threshold."""
    seed: Seed = 0
    """Seed of sample, split, training and intervals."""


@dataclass(frozen=True)
class PackedPath:
    """Where a packed dataset lies."""

    path: PackedFolder
    """Packed dataset (the folder that holds `manifest.json`)."""


@dataclass(frozen=True)
class TraceRun:
    """`arriero trace`: where a document went."""

    data: PackedPath
    """The packed dataset."""
    id: Text | None = None
    """Document id, 32 hexadecimal digits."""
    url: Text | None = None
    """URL of the document."""
    text: Text | None = None
    """Text that the document contains."""
    near: Text | None = None
    """Text whose nearest documents are shown, with their Jaccard similarity to it."""
    near_similarity: Share = 0.1
    """Jaccard similarity of the documents that `near` shows, at least."""
    limit: Positive = 20
    """Matches shown at the most."""


@dataclass(frozen=True)
class RemoveRun:
    """`arriero remove`: take documents out of a packed dataset."""

    data: PackedPath
    """The packed dataset."""
    ids: tuple[str, ...] = ()
    """Document ids, 32 hexadecimal digits each."""
    file: AnyPath | None = None
    """File of ids, one a line; what follows `#` is a comment."""
    reason: Text = "not given"
    """Why, recorded in the manifest."""
    date: Date | None = None
    """When, ISO 8601, recorded in the manifest; null: today."""
    runs: tuple[AnyPath, ...] = ()
    """Run directories of trainings over the dataset: which of their steps consumed the documents is printed."""
    ignore_missing: bool = False
    """Go on where some of the documents are not in the dataset; false: nothing is done."""
    dry_run: bool = False
    """Print what would be done, and the steps, and stop."""


@dataclass(frozen=True)
class ConvertRun:
    """`arriero convert`: packed dataset ↔ token files of other frameworks."""

    input: AnyPath
    """A packed dataset, which is exported; or a file or folder of token files, which is imported."""
    output: AnyPath
    """Folder of the token files, or of the packed dataset; it must not exist or be empty."""
    format: Literal["datatrove", "megatron", "olmo", "parquet"]
    """datatrove: `.ds` and `.ds.index`, also nanotron's; megatron: `.bin` and `.idx`; olmo: `.npy` without a header and
    `.csv.gz`; parquet: a column `input_ids`, as Hugging Face datasets."""
    tokenizer_path: AnyPath | None = None
    """Import: folder of the tokenizer that made the ids (`tokenizer.json`)."""
    token_bytes: Literal[2, 4] | None = None
    """Import: bytes of an id where the files do not say; null: 2 for vocabularies up to 65,536, else 4."""
    source_name: NonEmpty = "imported"
    """Import: source name of files that an export did not name."""
    pack: PackConfig = section(PackConfig)
    """Import: how documents are packed; nothing is held out but what lies below `heldout/`."""


@dataclass(frozen=True)
class DataRunPath:
    """A data run by its folder."""

    path: DataFolder
    """Output of a data run, whose signals are there: its folder, the packed dataset in it, or that one's manifest."""


@dataclass(frozen=True)
class WhatifRun:
    """`arriero whatif`: what other thresholds, or another policy, would keep."""

    data: DataRunPath
    """The data run."""
    filter: FilterConfig | None = field(default=None, metadata={"option": None})
    """A policy to put beside the run's own, from the group `filter`; null: only the run's own."""
    rule: str | None = None
    """Rule whose threshold is varied; null: a line for each rule."""
    at: tuple[Number, ...] = ()
    """Thresholds to try for `rule`; empty: around the present one."""
    source: str | None = None
    """Only documents of this source; null: every source."""
    samples: Count = 2
    """Documents shown at each threshold that change sides."""

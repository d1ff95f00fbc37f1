"""Configuration of `arriero data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from configs.fields import (
    AboveZero,
    AnyPath,
    Bounds,
    Bytes,
    Characters,
    Count,
    DataFolder,
    Date,
    MiB,
    NonEmpty,
    NotNegative,
    Number,
    Positive,
    PositiveShare,
    Seconds,
    Seed,
    Sequences,
    Share,
    Text,
    Words,
    section,
)


@dataclass(frozen=True)
class BoundsConfig:
    """Bounds of a rule for documents of one language."""

    min: Number | None = None
    """Smallest value that is kept; null: that of the rule."""
    max: Number | None = None
    """Largest value that is kept; null: that of the rule."""


@dataclass(frozen=True)
class RuleConfig:
    """One threshold of a policy: the document is dropped, or flagged, when its signal lies outside [min, max]."""

    signal: NonEmpty
    """Name of the signal the rule looks at, `sidecar.column` (such as `gopher.n_words`)."""
    min: Number | None = None
    """Smallest value that is kept, in the signal's unit; null: no lower bound."""
    max: Number | None = None
    """Largest value that is kept, in the signal's unit; null: no upper bound."""
    allow: tuple[str, ...] | None = None
    """Values that are kept, for signals that are strings; null: any."""
    level: Literal["drop", "flag"] = "drop"
    """`flag`: the document stays and carries the name of the rule (`flags` in its metadata)."""
    languages: tuple[str, ...] | None = None
    """The rule looks only at documents of these languages, and at those whose language is not known; null: at all."""
    by_language: dict[str, BoundsConfig | None] = field(default_factory=dict)
    """Other bounds for documents of a language (null: the rule does not look at them); `other` is every language that is
    known and not listed."""


@dataclass(frozen=True)
class FilterConfig:
    """Policy A: thresholds over signals, decided after annotation and before deduplication."""

    name: NonEmpty
    """Name of the policy, shown in the funnel."""
    rules: dict[str, RuleConfig | None] = field(default_factory=dict)
    """Rules in the order in which they are tried; the first that fails names the drop; null disables one."""
    bounds: dict[str, dict[str, BoundsConfig | None]] = field(default_factory=dict)
    """Other bounds by language and rule, such as those of the group `bounds`; null: the rule does not look at documents of
    the language; a language that is listed without a rule keeps the rule's own bounds; `other` is every language that is
    known and not listed. What a rule says itself in `by_language` comes first."""
    edits: tuple[str, ...] = ()
    """Sets of proposed edits that are applied to kept documents (`edits/NAME`), such as `privacy`; where two
    replacements overlap, the set named first wins."""


@dataclass(frozen=True)
class RecipeConfig:
    """How documents of one kind of source are read, extracted and filtered."""

    name: NonEmpty
    """Name of the recipe, and of its source where no other name is given."""
    reader: Literal[
        "auto",
        "warc",
        "jsonl",
        "parquet",
        "csv",
        "arrow",
        "json",
        "text",
        "wikitext",
        "stackexchange",
        "python",
        "arxiv",
    ] = "auto"
    """Reader of the input files; `auto` chooses by file name and first bytes."""
    extract: Literal["auto", "none", "html", "wikitext"] = "auto"
    """Main-text extraction; `auto` follows the reader."""
    text_key: NonEmpty = "text"
    """Field or column that holds the text, for JSONL and Parquet."""
    id_key: NonEmpty = "id"
    """Field or column that holds the given id, for JSONL and Parquet; absent: the URL, then the payload."""
    url_key: NonEmpty = "url"
    """Field or column that holds the URL, for JSONL and Parquet."""
    date_key: NonEmpty = "date"
    """Field or column that holds the date: ISO 8601, RFC 2822, a timestamp or a number since 1970."""
    max_record_bytes: Bytes = 64 * 2**20
    """Largest raw record, bytes; a larger one is set aside and counted."""
    max_window_bytes: Bytes = 128 * 2**20
    """Largest window of a compressed file, bytes; `zstd --long=31` needs 2147483648."""
    max_source_bytes: Bytes | None = None
    """Stop after this many bytes of files of each kind of the `python` reader, spread over packages; null: no limit."""
    documents: Literal["code", "prose"] = "code"
    """What the `python` reader reads: source files, or documentation (topics, docstrings, descriptions, text files)."""
    sites: tuple[NonEmpty, ...] = ()
    """Sites that the `stackexchange` reader reads: `math`, `math.stackexchange.com`, patterns such as `*.stackoverflow`;
    meta sites only where they are named in full; empty: all but meta sites."""
    accepted_first: bool = False
    """The accepted answer comes before those with higher scores (`stackexchange` reader)."""
    language: str | None = None
    """Language of all documents, ISO 639-1, where the source is known to have one; null: detect."""
    one_per_url: bool = False
    """Documents of one canonical URL are captures of one page: only the newest stays (`dedup.url`)."""
    keep_abstract: bool = False
    """Keep the abstracts of the `arxiv` reader's papers, which stand before the first section."""
    filter: FilterConfig = field(default_factory=lambda: FilterConfig(name="none"))
    """Policy A of these documents."""


@dataclass(frozen=True)
class SourceConfig:
    """One source of a run with several inputs: `sources=[{name,recipe,input}, …]`."""

    name: NonEmpty
    """Name of the source, in the funnel, the mixture and the packed dataset."""
    recipe: NonEmpty | RecipeConfig
    """Recipe of the group `recipe` that reads it, by name; or a whole recipe."""
    input: AnyPath
    """File, folder, glob or address; for the `python` reader `environment` (the running one) or a site-packages folder."""
    max_source_bytes: Bytes | None = None
    """Overrides the recipe's `max_source_bytes`; null: the recipe's."""
    text_key: NonEmpty | None = None
    """Overrides the recipe's `text_key`; null: the recipe's."""
    id_key: NonEmpty | None = None
    """Overrides the recipe's `id_key`; null: the recipe's."""
    url_key: NonEmpty | None = None
    """Overrides the recipe's `url_key`; null: the recipe's."""
    date_key: NonEmpty | None = None
    """Overrides the recipe's `date_key`; null: the recipe's."""
    sites: tuple[NonEmpty, ...] | None = None
    """Overrides the recipe's `sites`; null: the recipe's."""
    filter: NonEmpty | FilterConfig | None = None
    """Policy of the group `filter`, by name, or a whole policy, in the place of the recipe's; null: the recipe's."""


@dataclass(frozen=True)
class ClassifierConfig:
    """A fastText classifier: an existing model, or one trained in this run."""

    model: AnyPath | None = None
    """Path of a fastText `.bin` model; for languages also `cld2`, the model that the package `pycld2` holds, which gives way
    to `train`; null: the stage says `not run` unless `train` names training data."""
    train: AnyPath | None = None
    """Labelled JSONL (`text`, `label`) from which a small model is trained first; `offline`: rows made from what the
    Python environment holds (`classify.offline`), for languages and nsfw; null: no training."""
    method: Literal["sgd", "bayes"] = "sgd"
    """How a model is trained: `sgd` is fastText's own; `bayes` counts character n-grams (`classify.bayes`): for languages,
    better where text is scarce, and done in one pass."""
    prior: AboveZero = 10_000.0
    """`bayes`: n-grams that the mean of all labels counts for in each label."""
    max_characters: Characters = 2000
    """Characters of a document that the classifier reads: half of them from its start, half from its middle."""
    epochs: Positive = 10
    """Passes over the training data."""
    dim: Positive = 16
    """Width of the embedding."""
    word_ngrams: Positive = 2
    """Longest word n-gram."""
    min_char_ngram: Count = 0
    """Shortest character n-gram; 0 with `max_char_ngram` 0: none."""
    max_char_ngram: Count = 0
    """Longest character n-gram."""
    buckets: Positive = 200_000
    """Hash buckets for n-grams."""
    learning_rate: AboveZero = 0.5
    """fastText learning rate."""


@dataclass(frozen=True)
class UrlConfig:
    """URL signals: block lists of hosts, addresses and words."""

    lists: tuple[AnyPath, ...] = ("datatrove",)
    """`datatrove` (the lists bundled with it, FineWeb's), and files or folders of your own: one host, address, wildcard,
    word or regular expression a line; plain or gzip."""
    soft_lists: tuple[AnyPath, ...] = ()
    """Files or folders of words that are only counted, one a line."""
    cache: AnyPath | None = "~/.cache/arriero"
    """Folder in which the index of the lists is kept for other runs; null: every run makes its own."""


@dataclass(frozen=True)
class NsfwConfig:
    """NSFW signals: word density, classifier."""

    word_lists: tuple[AnyPath, ...] = ()
    """Files or folders of words, one a line; a file named after a language (`de.txt`) applies to it alone."""
    # Short n-grams of characters read words as they are written: F1 0.943 for 0.924 on short posts, in a tenth of the
    # memory.
    classifier: ClassifierConfig = field(
        default_factory=lambda: ClassifierConfig(
            min_char_ngram=3, max_char_ngram=5, dim=4, buckets=65_536, epochs=5, learning_rate=0.3
        )
    )
    """fastText classifier whose label `nsfw` is the score."""


@dataclass(frozen=True)
class PrivacyConfig:
    """Personal data and keys: what is masked, and which domains hold much of it."""

    mask: tuple[Literal["email", "ip", "phone", "card", "iban", "ssn", "secret"], ...] = (
        "email", "ip", "phone", "card", "iban", "ssn", "secret",
    )  # fmt: skip
    """Kinds for which a mask is proposed (edits `privacy`); they are found and counted all the same."""
    placeholder: str = "<KIND>"
    """What stands for a masked find; `KIND` is replaced by its kind: `<email>`."""


@dataclass(frozen=True)
class SignalsConfig:
    """Signals of your own, beside the built-in ones."""

    extra: tuple[AnyPath, ...] = ()
    """Parquet files (or folders of them) with a column `id` of document ids and a column a signal, joined by id: the columns
    of `scores.parquet` are the signals `scores.COLUMN`. Documents without a row (null) and rows without a document are
    counted."""
    functions: tuple[str, ...] = ()
    """Functions, `module:function`, of a `pyarrow.Table` of documents (id, source, url, language, licence, date, group,
    text, metadata) that return a mapping of names to columns of one number, boolean or string a document: the signals
    `FUNCTION.COLUMN`. Modules are found in the working folder too. The stage runs again when the source of the module, or
    of a local module that it imports, changes."""
    batch_documents: Positive = 1024
    """Documents that a function gets at a time; at most."""


@dataclass(frozen=True)
class RubricConfig:
    """What a rater judges: files of the group `rubric`, to be copied to `./configs/rubric/NAME.yaml`."""

    name: NonEmpty
    """Name of the rubric."""
    judge: NonEmpty
    """What is judged, as the end of the sentence "Judge …"."""
    levels: tuple[NonEmpty, ...]
    """What each score means, from 0 to 5."""
    good: Annotated[int, Bounds(min=1, max=5)] = 3
    """Score from which a document counts as good."""


@dataclass(frozen=True)
class LabelConfig:
    """Labels of quality, asked of a Llama through an OpenAI-compatible server."""

    base_url: str | None = None
    """Address of the server's API, such as `http://127.0.0.1:8000/v1`; `local`: a built-in server that rates by readable
    rules, for machines without a Llama, runs for the time of the labelling; null: no labelling."""
    model: str = "llama"
    """Model name that the server knows."""
    local_model: AnyPath | None = None
    """Folder of a Hugging Face model, or a GGUF file, that a process of this machine rates with in the place of a server
    (needs `arriero[hf]`, for GGUF also the packages `gguf` and `accelerate`); null: `base_url`."""
    rubric: NonEmpty = "educational"
    """What is judged: a file of the group `rubric`, ours or in `./configs/rubric/`."""
    answer: Literal["json", "digit"] = "json"
    """What is asked for: a JSON object with reason and score; or the digit alone, whose label is the expectation over the
    probabilities of the digits 0 to 5 where the server returns log-probabilities."""
    api_key_env: NonEmpty | None = None
    """Environment variable that holds the API key, sent as a bearer token; null: no key."""
    requests_per_minute: Annotated[float, Bounds(above=0)] | None = None
    """Requests are spread to stay below this rate; null: as fast as the server answers."""
    input_price: Annotated[float, Bounds(min=0)] = 0.0
    """Price of a million prompt tokens, for the cost shown."""
    output_price: Annotated[float, Bounds(min=0)] = 0.0
    """Price of a million answered tokens, for the cost shown."""
    documents: Positive = 500
    """Documents that are labelled, chosen by a hash of (seed, id)."""
    max_characters: Characters = 3000
    """Characters of a document shown to the model."""
    timeout: Seconds = 60.0
    """Seconds for one answer."""
    retries: Positive = 3
    """Tries of one request before the document is set aside."""
    concurrency: Positive = 8
    """Requests in flight."""


@dataclass(frozen=True)
class QualityConfig:
    """Quality score: label → train → score."""

    label: LabelConfig = field(default_factory=LabelConfig)
    """The labelling server."""
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    """fastText classifier trained on those labels (or given); its score is P(label ≥ good)."""
    good: Annotated[int, Bounds(min=0, max=5)] = 3
    """Labels (0 to 5) from which a document counts as good."""


@dataclass(frozen=True)
class DecontaminateConfig:
    """Overlap of documents with evaluation sets."""

    sets: tuple[AnyPath, ...] = ()
    """JSONL files or folders of them, in any compression: one item a row; empty: the stage does not run."""
    fields: tuple[str, ...] = ()
    """Keys whose strings are taken; empty: every string of a row, wherever it stands."""
    ngram: Annotated[int, Bounds(min=4, unit="words")] = 13
    """Words in a row of a question or a long answer that are contamination by themselves."""
    share: PositiveShare = 0.6
    """Share of a question's words, rare ones counted four times, that makes contamination where they stand together and in
    order; short questions need more, those whose answers stand beside them less."""
    min_words: Annotated[int, Bounds(min=4, unit="words")] = 8
    """Words below which a question counts only where the whole of it stands there, with one of its answers or context."""
    contexts: bool = False
    """Whether a passage that is asked about counts without its question; false: it is only reported."""


@dataclass(frozen=True)
class DedupConfig:
    """Exact, fuzzy and semantic deduplication (policy B)."""

    url: bool = True
    """Drop older captures of one canonical URL, in sources whose recipe says `one_per_url`."""
    exact: bool = True
    """Drop documents whose normalised text is equal."""
    minhash: bool = True
    """Drop verified near-duplicates."""
    ngram: Words = 5
    """Words in a shingle."""
    permutations: Positive = 120
    """Hash functions of a signature; at least bands × rows."""
    bands: Positive = 20
    """LSH bands. With 20 × 6 a pair of Jaccard 0.8 is looked at with probability 0.998; with the common 14 × 8 it is
    0.92. What the weaker bands let through in addition is weeded out by exact verification."""
    rows: Positive = 6
    """Rows of a band."""
    jaccard: PositiveShare = 0.8
    """Exact Jaccard similarity of shingle sets from which a candidate pair is a duplicate."""
    index: tuple[DataFolder, ...] = ()
    """Output folders of earlier runs: what duplicates a document that they kept is dropped, with that document's id."""
    sketches: bool = False
    """Write the MinHash sketch of every kept document to `sketches/`, for `datasketch.MinHashLSH`."""
    memory_mb: MiB = 1024
    """Memory that one task of MinHash deduplication may use for data that grows with the corpus, MiB; beyond it, it works
    in pieces or from disk. Never changes the output."""
    lines: Literal["ccnet", "llama3"] | None = "llama3"
    """Take lines out that the corpus repeats, in sources whose policy applies the edits `lines`. `llama3`: those that occur
    in more than `line_count` documents of a bucket, every time; `ccnet`: all but the first in a bucket; null: none."""
    line_unit: Literal["line", "paragraph"] = "line"
    """What is compared: lines, or paragraphs (lines that no empty line parts)."""
    line_min_length: Characters = 10
    """Characters without punctuation from which a line is compared; an ideograph counts as three. Shorter ones that many
    pages share are headings of the text (`Pros`, `FAQ`, `Summary`) more often than not; 1: all, as published."""
    line_count: Positive = 6
    """Documents of a bucket that a line may occur in, with `llama3`."""
    line_within: bool = False
    """Count every occurrence of a line, as Llama 3 does, and not every document with it: then refrains, and lines of code
    and markup that one document repeats, go as well."""
    line_bucket_documents: Positive = 30_000_000
    """Documents of a bucket, about: as many buckets are filled, by a hash of the id, as hold the kept documents."""
    line_min_characters: Annotated[int, Bounds(min=0, unit="characters")] = 200
    """A document that lost lines, and has fewer characters left, is dropped; white space between lines is not counted."""
    line_min_share: Share = 0.2
    """A document of which a smaller share of the characters is left is dropped."""
    line_memory_mb: Annotated[int, Bounds(min=16, unit="MiB")] = 512
    """Memory that one task of line deduplication may use for data that grows with the corpus, MiB; beyond it, it works in
    pieces. Never changes the output."""
    semantic: bool = False
    """Drop near neighbours within clusters of embeddings (SemDeDup)."""
    embedder: AnyPath = "hashed"
    """`hashed`: latent semantic analysis fitted on the documents themselves, without downloads; else the name or folder
    of a sentence-transformers model."""
    semantic_dim: Annotated[int, Bounds(min=8)] = 128
    """Width of the `hashed` embedding."""
    semantic_clusters: Positive | None = None
    """k of k-means; null: square root of the number of documents."""
    semantic_similarity: PositiveShare = 0.8
    """Cosine similarity from which two documents of a cluster are neighbours."""
    semantic_coverage: Share = 0.85
    """Share of a document's pairs of nearby word stems that its neighbour must hold for it to be dropped; 0: the
    cosine alone decides, as in SemDeDup, which needs a neural embedder and a similarity of about 0.95."""
    semantic_keep: Literal["quality", "longest", "first", "centroid"] | None = None
    """Which of two neighbours stays; `centroid`: the one farther from the centroid of its cluster, SemDeDup's choice;
    null: as `keep`."""
    keep: Literal["quality", "longest", "first"] = "quality"
    """Which document of a duplicate cluster stays: the highest quality score, the longest text, or the earliest date;
    ties: longer text, then smaller id."""


@dataclass(frozen=True)
class MixtureConfig:
    """Weights of sources, stored in the packed dataset as the default data plan."""

    weights: dict[str, NotNegative] = field(default_factory=dict)
    """Share of sequences by source; sources left out share the rest by their size; empty: all by size."""
    max_epochs: dict[str, AboveZero] = field(default_factory=dict)
    """Largest number of passes over a source; absent: unlimited."""


@dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer: trained on the kept documents, or an existing one."""

    path: AnyPath | None = None
    """An existing tokenizer: its folder, a `tokenizer.json`, a SentencePiece model or a tiktoken file (Llama 3's
    `tokenizer.model`); null: train one."""
    style: Literal["llama3", "llama1"] = "llama3"
    """How one is trained. llama3: byte-level BPE with Llama 3's splitting and special tokens. llama1: BPE by the package
    sentencepiece with digits split and byte fallback, `<unk>`, `<s>` and `</s>` in front (without `min_frequency` and
    `n_special`)."""
    pattern: Text | None = None
    """Regular expression that splits text, of a tiktoken file that is no published vocabulary; null: known by its size."""
    vocab_size: Annotated[int, Bounds(min=261, unit="tokens")] = 16_384
    """Tokens including the special ones. The default is what some hundred megabytes of text can fill and a small model can
    afford; Llama 3 has 128,256."""
    train_bytes: Bytes = 200 * 2**20
    """Bytes of kept text the training sees, chosen by a hash of (seed, id)."""
    min_frequency: Positive = 2
    """Smallest number of occurrences of a merged pair."""
    bos: bool | None = None
    """Begin documents and prompts with the BOS token; null: as the tokenizer's own template does (Llama 3: yes; GPT-2 and
    SmolLM2: no)."""
    eos: bool | None = None
    """End every document with the EOS token; null: with what the tokenizer's template puts after a text, or else EOS."""
    encoder: Literal["auto", "gigatoken", "tokenizers"] = "auto"
    """Library that encodes documents: gigatoken where it is installed and takes the tokenizer, else the many times slower
    tokenizers (auto). The ids are the same; a random sample of every shard is encoded by both and compared."""
    n_special: Annotated[int, Bounds(min=5, unit="tokens")] = 256
    """Special and reserved tokens at the end of the vocabulary (Llama 3: 256)."""


@dataclass(frozen=True)
class PackConfig:
    """Packing of tokens into sequences."""

    sequence_length: Annotated[int, Bounds(min=2, unit="tokens")] = 8192
    """Tokens of a sequence."""
    method: Literal["concat", "best_fit"] = "concat"
    """Concatenate and cut (Llama 3; no padding), or best-fit (only documents longer than a sequence are cut; a little
    padding)."""
    by_language: bool = False
    """One stream for each language of a source, so that a sequence holds documents of one language."""
    shard_sequences: Sequences = 16_384
    """Sequences of one token shard."""
    heldout_fraction: Annotated[float, Bounds(min=0, below=1)] = 0.01
    """Share of each source's documents that go to the held-out split, chosen by a hash of their group."""
    heldout_min_bytes: Annotated[int, Bounds(min=0, unit="bytes")] = 0
    """Grow the held-out split of each source to at least this many bytes of text, where the source has twice as much."""


@dataclass(frozen=True)
class ExecutorConfig:
    """Where the stages run."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """datatrove's executor."""
    workers: Count = 0
    """Processes at a time; 0: the number of cores. Never changes the output."""
    partition: str | None = None
    """Slurm partition; null: the cluster's default."""
    account: str | None = None
    """Slurm account."""
    time: str = "24:00:00"
    """Slurm time limit of a task."""
    mem_gb: Annotated[int, Bounds(min=1, unit="GB")] = 4
    """Memory of a task on Slurm, and on a Ray cluster, GB."""
    options: dict[str, Any] = field(default_factory=dict)
    """More options of sbatch by their long names, such as `{qos: high, constraint: milan}`. They win over what arriero asks
    for; true: an option without a value, null: leave it out."""
    srun_options: dict[str, Any] = field(default_factory=dict)
    """More options of the srun that starts a task."""
    prolog: Text = ""
    """Shell lines put before a task's command (modules, environment); several lines as a YAML block (`prolog: |`)."""
    poll_seconds: Seconds = 2.0
    """Seconds between looks at the job queue."""
    address: str | None = None
    """Address of a Ray cluster, such as `auto`; null: a Ray of this machine's own, for the time of the run."""


@dataclass(frozen=True)
class DataRun:
    """`arriero data`: raw input → packed dataset."""

    output: DataFolder
    """Directory of the run; the packed dataset is `output/packed`."""
    recipe: RecipeConfig = section(option="web")
    """Recipe of `input`."""
    input: AnyPath | None = None
    """File, folder, glob or address (`s3://…`, `https://…`), read with `recipe`; or give `sources`."""
    sources: tuple[SourceConfig, ...] = ()
    """Several inputs at once, each with a recipe by name."""
    # Languages are told apart by characters more than by words, and by counting them where there is little text of each.
    languages: ClassifierConfig = section(
        ClassifierConfig,
        model="cld2",
        method="bayes",
        word_ngrams=1,
        min_char_ngram=1,
        max_char_ngram=4,
        buckets=131_072,
    )
    """Language identification: labels are ISO 639-1 codes (`__label__en`)."""
    url: UrlConfig = section(UrlConfig)
    """URL signals."""
    nsfw: NsfwConfig = section(NsfwConfig)
    """NSFW signals."""
    privacy: PrivacyConfig = section(PrivacyConfig)
    """Privacy signals and masks."""
    quality: QualityConfig = section(QualityConfig)
    """Quality score."""
    signals: SignalsConfig = section(SignalsConfig)
    """Signals of your own: files joined by id, and functions."""
    decontaminate: DecontaminateConfig = section(DecontaminateConfig)
    """Decontamination."""
    dedup: DedupConfig = section(DedupConfig)
    """Deduplication."""
    mixture: MixtureConfig = section(MixtureConfig)
    """Mixture weights."""
    tokenizer: TokenizerConfig = section(TokenizerConfig)
    """Tokenizer."""
    pack: PackConfig = section(PackConfig)
    """Packing."""
    executor: ExecutorConfig = section(ExecutorConfig)
    """Executor."""
    unit_bytes: Bytes = 64 * 2**20
    """Target size of one unit of work, bytes of input."""
    sample: PositiveShare = 1.0
    """Share of the records that go beyond reading, chosen by a hash of (seed, id), for a quick try; 1: all."""
    cutoff: Date | None = None
    """Knowledge cut-off date of the data, ISO 8601, recorded in the manifest; null: newest document date."""
    seed: Seed = 0
    """Seed of every random choice; each is keyed by (seed, stage, id)."""
    jsonl: bool = False
    """Write the kept documents as `kept/*.jsonl.zst` too, beside `kept/*.parquet`."""
    stop_after: str | None = None
    """Last stage to run, such as `final` for kept documents without tokens; null: all."""
    dry_run: bool = False
    """Print the plan (inputs, units, stages and whether each is done) and stop."""
    GROUPS: ClassVar[dict[str, str | None]] = {"source": None}
    """Groups whose files set keys of any section."""

"""The MinHash index of a run: the signatures of what it kept, against which later runs deduplicate.

    DIR/index/manifest.json     format, ngram, permutations, bands, rows, shards
    DIR/index/00000.arrays      signature file (`stored.write`) of the documents of a shard that were kept in the end

About 44 + 12 · bands + permutations bytes a document. Texts are not copied: candidates are verified against
`DIR/documents`, which has to stay beside the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline import fingerprint
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup import stored
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.packed.files import write_atomically


@dataclass(frozen=True)
class Part:
    """Signed documents of one shard: of this run, or of an index."""

    run_dir: Path
    """The run that holds the documents."""
    shard: int
    """Number of the shard there."""
    path: Path
    """Signature file."""


def parts(run_dir: Path, shards: int, config: DedupConfig) -> list[Part]:
    """The shards of this run, then those of its indexes."""
    own = [Part(run_dir, s, stored.path(run_dir, s)) for s in range(shards)]
    return own + [part for folder in config.index for part in indexed(Path(folder).expanduser())]


def indexed(run_dir: Path) -> list[Part]:
    """The shards of the index of a run."""
    shards = _manifest(run_dir)["shards"]
    return [Part(run_dir, s, _path(run_dir, s)) for s in range(shards)]


def _path(run_dir: Path, shard: int) -> Path:
    return run_dir / "index" / f"{shard:05d}.arrays"


def _manifest_path(run_dir: Path) -> Path:
    return run_dir / "index" / "manifest.json"


def _manifest(run_dir: Path, key: str = "dedup.index") -> dict[str, int]:
    file = _manifest_path(run_dir)
    if not file.is_file():
        raise ConfigError(
            f"`{key}`: {run_dir} holds no index ({file} does not exist); name the output folder of a finished "
            "`arriero data` with `dedup.minhash=true`"
        )
    try:
        return orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"`{key}`: {file} is no JSON ({error}); run that run again") from None


def opened(run_dir: Path, key: str) -> dict[str, int]:
    """Settings of the index of a run, and its number of shards; `key` is the configuration key that asked for it.

    Raises:
        ConfigError: there is no index, or it has another format.
    """
    manifest = _manifest(run_dir, key)
    if manifest.get("format") != stored.FORMAT:
        raise ConfigError(
            f"`{key}`: the index of {run_dir} has format {manifest.get('format')} instead of {stored.FORMAT}; run that "
            "run again"
        )
    return manifest


def check(run_dir: Path, config: DedupConfig) -> list[str]:
    """Whether the indexes fit this run; their fingerprints.

    Raises:
        ConfigError: an index that is not there, is incomplete, was made with other parameters, has lost its documents,
            or is this run's own.
    """
    wanted = stored.parameters(config)
    folders = [Path(folder).expanduser().resolve() for folder in config.index]
    if run_dir.resolve() in folders:
        raise ConfigError(f"`dedup.index`: {run_dir} is the output of this run; name earlier ones")
    if len(set(folders)) < len(folders):
        raise ConfigError("`dedup.index` names a folder twice")
    found = []
    for folder in folders:
        manifest = _manifest(folder)
        differing = [
            f"{name} {manifest.get(name)} instead of {value}"
            for name, value in wanted.items()
            if manifest.get(name) != value
        ]
        if differing:
            raise ConfigError(
                f"`dedup.index`: the index of {folder} was made with other parameters ({', '.join(differing)}); use "
                "the same `dedup` settings, or run that run again with these"
            )
        for part in indexed(folder):
            for needed in (part.path, corpora.shard_path(folder, "documents", part.shard)):
                if not needed.is_file():
                    raise ConfigError(
                        f"`dedup.index`: {needed} is missing; run that run again to complete it"
                    )
            found.append(fingerprint.of_input(part.path))
    return found


def write(run_dir: Path, shards: int, shard: int, config: DedupConfig) -> dict[str, int]:
    """Write the index of a shard: what `decisions/final` keeps (stage `index`).

    Returns:
        {"indexed"}: documents.
    """
    if shard == 0:
        manifest = stored.parameters(config) | {"shards": shards}
        write_atomically(_manifest_path(run_dir), orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    ids = corpora.shard_ids(run_dir, shard)
    final = corpora.aligned(corpora.shard_path(run_dir, "decisions/final", shard), ids, ["keep"])
    signed = Arrays(stored.path(run_dir, shard))
    rows = signed.read("row")
    kept = final["keep"].to_numpy(zero_copy_only=False).astype(bool)[rows]
    stored.write(
        _path(run_dir, shard),
        config,
        len(ids),
        rows[kept],
        signed.read("id")[kept],
        stored.keys_by_document(signed)[kept],
        signed.read("low")[kept],
    )
    return {"indexed": int(kept.sum())}

"""The tokenizer that a configuration asks for: an existing one in any of its formats, or one trained on texts."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import orjson

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.packed import TokenizerInfo
from data_pipeline.tokenize import sentencepiece_model, tiktoken_file
from data_pipeline.tokenize.bpe import train_tokenizer
from data_pipeline.tokenize.coverage import lost_share
from data_pipeline.tokenize.folder import (
    SETTINGS,
    LoadedTokenizer,
    load_tokenizer,
    save_tokenizer,
    set_template,
)
from data_pipeline.tokenize.sentencepiece_training import train_sentencepiece

COPIED = (SETTINGS, "special_tokens_map.json", "chat_template.jinja")
MODELS = ("*.model", "*.tiktoken")
SAMPLE_TEXTS, SAMPLE_BYTES = 2000, 2**21
"""Texts that an imported tokenizer is tried on."""


def make_tokenizer(
    texts: Iterable[tuple[str, str]], config: TokenizerConfig, seed: int, output: Path, processes: int = 1
) -> TokenizerInfo:
    """The tokenizer that a configuration asks for: imported from `config.path`, or trained on texts ((id, text)).

    Args:
        processes: that count words.
    """
    if config.path is None and config.style == "llama1":
        return train_sentencepiece(texts, config, seed, output)
    if config.path is None:
        return train_tokenizer(texts, config, seed, output, processes)
    info = import_tokenizer(config, output)
    loaded, sample, size = load_tokenizer(output), [], 0
    for _, text in itertools.islice(texts, SAMPLE_TEXTS):
        sample.append(text)
        size += len(text.encode())
        if size >= SAMPLE_BYTES:
            break
    _compare_with_source(find_tokenizer(Path(config.path)), config, loaded, sample)
    if lost := lost_share(loaded, sample):
        print(
            f"tokenizer: {config.path} cannot encode {lost:.2%} of the characters of the first {len(sample):,} documents "
            "(they become <unk> or nothing); the tokens stage counts those of all",
            file=sys.stderr,
        )
    return info


def import_tokenizer(config: TokenizerConfig, output: Path) -> TokenizerInfo:
    """Make a tokenizer folder of what is at `config.path`, after checking that it can be used.

    Raises:
        ValueError: there is no tokenizer of a known format, or it is damaged.
    """
    assert config.path is not None
    source = find_tokenizer(Path(config.path))
    if source.suffix == ".json":
        if source.name == "tokenizer.json":
            load_tokenizer(source.parent, config.eos)
        output.mkdir(parents=True, exist_ok=True)
        if output.resolve() != source.parent.resolve():
            _copy_settings(source.parent, output)
            shutil.copyfile(source, output / "tokenizer.json")
    else:
        if is_tiktoken(source):
            tokenizer, settings = tiktoken_file.convert(source, config.pattern, config.n_special)
        else:
            tokenizer, settings = sentencepiece_model.convert(source)
        output.mkdir(parents=True, exist_ok=True)
        _copy_settings(source.parent, output)
        own = orjson.loads((output / SETTINGS).read_bytes()) if (output / SETTINGS).is_file() else {}
        save_tokenizer(tokenizer, settings | own, output)
    return set_template(output, config)


def _compare_with_source(
    source: Path, config: TokenizerConfig, loaded: LoadedTokenizer, texts: Sequence[str]
) -> None:
    """Say how many texts the library of a converted file encodes otherwise; nothing where it is not installed."""
    if source.suffix == ".json" or not texts:
        return
    encode: Callable[[str], list[int]]
    try:
        if is_tiktoken(source):
            import tiktoken

            ranks = tiktoken_file.read_ranks(source)
            known = tiktoken_file.published(len(ranks))
            pattern = config.pattern or (known.pattern if known else "")
            library = "tiktoken"
            encode = tiktoken.Encoding(
                "imported", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
            ).encode_ordinary
        else:
            import sentencepiece

            library = "sentencepiece"
            encode = sentencepiece.SentencePieceProcessor(model_file=str(source)).encode
    except ModuleNotFoundError:
        return
    other = [t for t, ids in zip(texts, loaded.encode(list(texts)), strict=True) if encode(t) != ids]
    if other:
        print(
            f"tokenizer: {len(other):,} of {len(texts):,} documents are encoded otherwise than {library} does; the first "
            f"begins {other[0][:60]!r}. Unigram models differ where two ways to write a text have the same score",
            file=sys.stderr,
        )


def find_tokenizer(path: Path) -> Path:
    """The file of a tokenizer at a path: tokenizer.json, a SentencePiece model or a tiktoken file; ValueError if none."""
    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            return path / "tokenizer.json"
        found = sorted(file for pattern in MODELS for file in path.glob(pattern))
        if len(found) != 1:
            names = ", ".join(file.name for file in found)
            raise ValueError(
                f"{path} is not a tokenizer folder: it holds no tokenizer.json and "
                + (
                    f"several models ({names}); name one of them"
                    if found
                    else "no *.model or *.tiktoken file"
                )
            )
        return found[0]
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; give a tokenizer's folder, or its file (.json, .model, .tiktoken)"
        )
    return path


def is_tiktoken(path: Path) -> bool:
    """Whether a file is tiktoken's: lines of base64 and a number. A SentencePiece model begins with byte 0x0A."""
    with path.open("rb") as file:
        head = file.readline(4096).split()
    return len(head) == 2 and head[1].isdigit()


def _copy_settings(source: Path, output: Path) -> None:
    for name in COPIED:
        (output / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, output / name)

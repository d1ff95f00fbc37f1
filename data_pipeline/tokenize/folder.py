"""A tokenizer folder: `tokenizer.json` and `tokenizer_config.json`, as Hugging Face's AutoTokenizer loads them."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from tokenizers import AddedToken, Tokenizer

from data_pipeline.packed import TokenizerInfo

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
START_HEADER, END_HEADER, END_OF_TURN = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
NAMED = {"start_header": START_HEADER, "end_header": END_HEADER, "eot": END_OF_TURN}
# Names of begin and end in tokenizers that do not say which they are.
GUESSES = {"bos": (BEGIN, "<s>", "<|startoftext|>"), "eos": (END, "</s>", "<|endoftext|>")}
COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer ready to encode documents."""

    tokenizer: Tokenizer
    """Encodes special-token strings in text as ordinary text."""
    info: TokenizerInfo
    """Its hash, vocabulary size and special ids."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, without BOS and EOS."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def load_tokenizer(folder: Path) -> LoadedTokenizer:
    """Load a tokenizer folder; ValueError where it is absent, damaged or has no begin or end token."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a tokenizer folder: it holds no tokenizer.json")
    content = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(content)
    # The library raises bare Exception.
    except Exception as error:
        raise ValueError(f"{path} is not a tokenizer of Hugging Face `tokenizers`: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    config = _read_config(folder / "tokenizer_config.json")
    special = {name: _special(folder, name, config, vocabulary) for name in ("bos", "eos")}
    pad = _token(config.get("pad_token"))
    special["pad"] = vocabulary[pad] if pad in vocabulary else special["eos"]
    special.update({name: vocabulary[token] for name, token in NAMED.items() if token in vocabulary})
    _keep_out_of_text(tokenizer, {special["bos"], special["eos"]}, path)
    digest = hashlib.sha256(content).hexdigest()
    return LoadedTokenizer(tokenizer, TokenizerInfo(digest, max(vocabulary.values()) + 1, special))


def _keep_out_of_text(tokenizer: Tokenizer, boundaries: set[int], path: Path) -> None:
    """Have the text of a boundary token encoded as text, also where the file does not call the token special.

    Raises:
        ValueError: the tokenizer makes the token out of text all the same, so boundaries could not be told from text.
    """
    tokens = [tokenizer.id_to_token(i) for i in sorted(boundaries)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
    for token in tokens:
        if boundaries & set(tokenizer.encode(f"a {token} b{token}", add_special_tokens=False).ids):
            raise ValueError(
                f"{path}: the text {token!r} in a document would become the token that separates documents; give the "
                "tokenizer a begin and an end token of its own"
            )


def import_tokenizer(path: Path, output: Path) -> TokenizerInfo:
    """Copy an existing tokenizer folder, after checking that it can be used; ValueError otherwise."""
    info = load_tokenizer(path).info
    output.mkdir(parents=True, exist_ok=True)
    if output.resolve() == path.resolve():
        return info
    for name in COPIED:
        (output / name).unlink(missing_ok=True)
        if (path / name).is_file():
            shutil.copyfile(path / name, output / name)
    return info


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object, but it holds {type(config).__name__}")
    return config


def _special(folder: Path, name: str, config: dict[str, Any], vocabulary: dict[str, int]) -> int:
    given = _token(config.get(f"{name}_token"))
    candidates = (given,) if given else GUESSES[name]
    for token in candidates:
        if token in vocabulary:
            return vocabulary[token]
    raise ValueError(
        f"{folder} has no {name.upper()} token: none of {', '.join(candidates)} is in its vocabulary; name it as "
        f"`{name}_token` in tokenizer_config.json, because every document is packed as BOS text EOS"
    )


def _token(value: Any) -> str:
    """A token in tokenizer_config.json is a string, or an object with `content`."""
    return value.get("content", "") if isinstance(value, dict) else value or ""

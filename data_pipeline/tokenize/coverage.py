"""What a tokenizer cannot encode: characters that become `<unk>`, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import orjson
from tokenizers import Tokenizer, pre_tokenizers

from data_pipeline.tokenize.folder import LoadedTokenizer

BATCH = 64


def lost_share(loaded: LoadedTokenizer, texts: Sequence[str]) -> float:
    """Share of the characters of texts, white space aside, that are lost; 0 where there are none."""
    characters = sum(_visible(text) for text in texts)
    return lost_characters(loaded, texts) / characters if characters else 0.0


def lost_characters(loaded: LoadedTokenizer, texts: Sequence[str]) -> int:
    """Characters of texts, white space aside, that no token but `<unk>` stands for."""
    if is_lossless(loaded.tokenizer):
        return 0
    unknown = _unknown(loaded.tokenizer)
    lost = 0
    for first in range(0, len(texts), BATCH):
        batch = list(texts[first : first + BATCH])
        for text, encoding in zip(
            batch, loaded.tokenizer.encode_batch(batch, add_special_tokens=False), strict=True
        ):
            covered = bytearray(len(text))
            for index, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
                if index != unknown:
                    covered[start:stop] = b"\x01" * (stop - start)
            lost += sum(not done and not char.isspace() for done, char in zip(covered, text, strict=True))
    return lost


@lru_cache(maxsize=4)
def is_lossless(tokenizer: Tokenizer) -> bool:
    """Whether every byte has a token of its own: byte-level vocabularies, and those with byte fallback."""
    data = orjson.loads(tokenizer.to_str())
    model, vocabulary = data["model"], tokenizer.get_vocab(with_added_tokens=False)
    if model.get("byte_fallback"):
        return all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    steps = orjson.dumps([data.get("pre_tokenizer"), data.get("normalizer")])
    return b'"ByteLevel"' in steps and all(
        symbol in vocabulary for symbol in pre_tokenizers.ByteLevel.alphabet()
    )


@lru_cache(maxsize=4)
def _unknown(tokenizer: Tokenizer) -> int | None:
    model = orjson.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return model["unk_id"]
    return tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None


def _visible(text: str) -> int:
    return sum(not char.isspace() for char in text)

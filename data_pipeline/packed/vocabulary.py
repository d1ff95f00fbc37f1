"""What the ids of a tokenizer stand for, from its tokenizer.json alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from data_pipeline.packed.format import PackedError


def token_bytes(tokenizer_json: Path, vocab_size: int) -> np.ndarray:
    """UTF-8 bytes that each token id stands for, int64 [vocab_size]; 0 for special tokens and unused ids.

    Understands byte-level BPE (Llama 3, GPT-2), where one character of the vocabulary is one byte, and SentencePiece
    with byte fallback (LLaMA 1 and 2), where `▁` is a space and `<0x0A>` a byte.

    Raises:
        PackedError: the file is missing, or is a tokenizer of another kind.
    """
    try:
        data = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackedError(
            f"{tokenizer_json} does not exist; a packed dataset holds its tokenizer there"
        ) from None
    vocabulary: dict[str, int] = data["model"]["vocab"]
    special = {token["id"] for token in data.get("added_tokens", []) if token["special"]}
    added = {t["id"]: len(t["content"].encode()) for t in data.get("added_tokens", []) if not t["special"]}
    lengths = np.zeros(vocab_size, np.int64)
    byte_level = "ByteLevel" in json.dumps([data.get("pre_tokenizer"), data.get("decoder")])
    if not byte_level and not data["model"].get("byte_fallback"):
        raise PackedError(
            f"{tokenizer_json} is neither byte-level BPE nor SentencePiece with byte fallback, "
            "so the bytes of its tokens are unknown and bits per byte cannot be computed"
        )
    for token, index in vocabulary.items():
        if index in special or index >= vocab_size:
            continue
        if byte_level:
            lengths[index] = len(token)
        elif len(token) == 6 and token.startswith("<0x"):
            lengths[index] = 1
        else:
            lengths[index] = len(token.replace("▁", " ").encode())
    for index, size in added.items():
        if index < vocab_size:
            lengths[index] = size
    return lengths

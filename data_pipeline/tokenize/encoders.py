"""Text → token ids by the fastest library that takes the tokenizer; Hugging Face's `tokenizers` is the reference.

gigatoken is tens of times faster on one core. What it takes is found out, not assumed: it must encode texts that are
known to be hard as the reference does, and then a random sample of every shard (`compare`).
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from data_pipeline.tokenize.folder import SETTINGS, LoadedTokenizer, load_tokenizer

Kind = Literal["auto", "gigatoken", "tokenizers"]
PROBES = (
    "",
    " ",
    "\n",
    "  two  spaces \t\ttabs\r\n\r\n  \u00a0\u2003\u3000 wide ",
    "It's they'LL we\u2019ve 'tis 1234567890 3.14159 ½ ²³ ١٢٣ ४५६ Ⅻ",
    "naïve nai\u0308ve ﬁ Å\u212b ß ĳ ǆ İstanbul",
    "汉字かなカナ 한글 हिन्दी தமிழ் ไทย עברית العربية Ελληνικά Русский አማርኛ",
    "👩‍👩‍👧‍👦 🏳️‍🌈 😀\U0001f600 \U00010348 \ue000 \ufffd \u200b\u200d\ufeff",
    "\x00\x01\x7f\x80\x9f",
    "a" * 1000 + " " * 1000 + "-=" * 500 + "\n" * 300,
    'def f(x):\n    return {x: [1, 2]} # <tag attr="v"/> https://example.org/?q=%20&a=1\n',
    "▁ ▁▁ <0x0A> <0xFF> <unk> <pad> [CLS] </s><s>",
)
"""Texts that tokenizers are known to differ on; those of special tokens are added."""
EXCERPT = 80


@dataclass(frozen=True)
class Encoder:
    """Encodes batches of texts with one tokenizer."""

    loaded: LoadedTokenizer
    """The tokenizer and its reference encoding."""
    library: Literal["gigatoken", "tokenizers"]
    """What encodes."""
    fast: Any = None
    """gigatoken's tokenizer."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids of all texts, uint32 [tokens]; tokens of each, int64 [texts]), without those around a document."""
        if not texts:
            return np.zeros(0, np.uint32), np.zeros(0, np.int64)
        if self.fast is None:
            ids = self.loaded.encode(list(texts))
            counts = np.array([len(i) for i in ids], np.int64)
            flat = [np.array(i, np.uint32) for i in ids]
            return np.concatenate(flat), counts
        # parallel=False: the workers are the parallelism, and a thread pool does not survive a fork.
        rows = self.fast.encode_batch(list(texts), parallel=False)
        layout = rows.layout.to_packed()
        return np.asarray(layout.content.data, np.uint32), np.diff(np.asarray(layout.offsets)).astype(
            np.int64
        )

    def compare(self, texts: Sequence[str], names: Sequence[str]) -> None:
        """Encode texts by the reference too; ValueError, naming the text, where the ids differ.

        Args:
            names: what each text is called in the message.
        """
        if self.fast is None:
            return
        if (at := self.difference(texts)) is not None:
            raise ValueError(
                f"gigatoken {metadata.version('gigatoken')} encodes {names[at]} otherwise than tokenizers does: "
                f"{_where(self, texts[at])}; encode with tokenizer.encoder=tokenizers, which is slower"
            )

    def difference(self, texts: Sequence[str]) -> int | None:
        """Number of the first text whose ids differ from the reference's; None: all are equal."""
        values, counts = self.encode(texts)
        parts = np.split(values, np.cumsum(counts)[:-1])
        reference = self.loaded.encode(list(texts))
        for number, (ids, expected) in enumerate(zip(parts, reference, strict=True)):
            if ids.tolist() != expected:
                return number
        return None


@functools.lru_cache(maxsize=2)
def _opened(folder: Path, kind: Kind, digest: str) -> Encoder:
    return choose(load_tokenizer(folder), (folder / "tokenizer.json").read_bytes(), kind)


def open_encoder(folder: Path, kind: Kind = "auto") -> Encoder:
    """The encoder of a tokenizer folder; opened once in a process, since its cache of words makes it fast.

    Raises:
        ValueError: no tokenizer folder, or gigatoken was asked for and is absent or does not take the tokenizer.
    """
    # Opening a vocabulary of 128K takes more than a second, knowing that it is the same some milliseconds.
    digest = hashlib.sha256()
    for name in ("tokenizer.json", SETTINGS):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    return _opened(folder.resolve(), kind, digest.hexdigest())


def choose(loaded: LoadedTokenizer, tokenizer_json: bytes, kind: Kind) -> Encoder:
    """gigatoken where it encodes the probes as the reference does, else the reference, which one line then says."""
    if kind == "tokenizers":
        return Encoder(loaded, "tokenizers")
    reason = ""
    try:
        encoder = Encoder(loaded, "gigatoken", _gigatoken(tokenizer_json))
        tokens = orjson.loads(tokenizer_json).get("added_tokens") or []
        probes = [*PROBES, *(f"a {token['content']}b {token['content']}" for token in tokens[:64])]
        if (at := encoder.difference(probes)) is None:
            return encoder
        reason = f"it encodes otherwise: {_where(encoder, probes[at])}"
    except ModuleNotFoundError as error:
        reason = f"the package is not installed ({error}): pip install 'arriero[data]'"
    # Rust's panics derive from BaseException alone.
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit)):
            raise
        reason = f"it does not take the tokenizer: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    if kind == "gigatoken":
        raise ValueError(f"tokenizer.encoder is gigatoken, but {reason}; set it to auto or tokenizers")
    print(f"tokens: encoded by tokenizers, not by gigatoken, because {reason}", file=sys.stderr)
    return Encoder(loaded, "tokenizers")


def _gigatoken(tokenizer_json: bytes) -> Any:
    from gigatoken.gigatoken_rs import load_hf_json

    # Without special tokens in the file their text is text, as `encode_special_tokens` makes it for the reference.
    data = orjson.loads(tokenizer_json)
    data["added_tokens"] = [token for token in data.get("added_tokens") or [] if not token["special"]]
    data["truncation"] = data["padding"] = None
    return load_hf_json(orjson.dumps(data))


def _where(encoder: Encoder, text: str) -> str:
    """The part of a text that is encoded differently, with the ids of both sides."""
    ids, expected = encoder.encode([text])[0].tolist(), encoder.loaded.encode([text])[0]
    at = next(
        (i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b),
        min(len(ids), len(expected)),
    )
    offsets = encoder.loaded.tokenizer.encode(text, add_special_tokens=False).offsets
    start = offsets[at][0] if at < len(offsets) else len(text)
    return (
        f"at character {start:,} of {len(text):,}, {text[start : start + EXCERPT]!r} begins with ids {ids[at : at + 4]}, "
        f"expected {expected[at : at + 4]}"
    )

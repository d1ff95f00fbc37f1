"""Training a byte-level BPE tokenizer with Llama 3's pre-tokenization and special tokens."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.keyed import rank
from data_pipeline.packed import TokenizerInfo
from data_pipeline.pretokenize import LLAMA3_SPLIT, count_words
from data_pipeline.tokenize.folder import (
    BEGIN,
    END,
    END_HEADER,
    END_OF_TURN,
    START_HEADER,
    save_tokenizer,
    set_template,
)

NAMED_SPECIAL = (BEGIN, END, START_HEADER, END_HEADER, END_OF_TURN)
# Llama 3 puts reserved tokens between the named ones: positions 2 to 5 and 8.
LLAMA3_PLACES = {0: BEGIN, 1: END, 6: START_HEADER, 7: END_HEADER, 9: END_OF_TURN}


def special_tokens(n_special: int) -> list[str]:
    """Llama 3's special tokens in its order; for fewer than 10, the five named ones and then reserved ones."""
    if n_special < len(NAMED_SPECIAL):
        raise ValueError(
            f"tokenizer.n_special is {n_special}; expected at least {len(NAMED_SPECIAL)}: {', '.join(NAMED_SPECIAL)}"
        )
    if n_special < 10:
        return [*NAMED_SPECIAL, *(reserved(i) for i in range(n_special - len(NAMED_SPECIAL)))]
    numbers = iter(range(n_special))
    return [LLAMA3_PLACES.get(i) or reserved(next(numbers)) for i in range(n_special)]


def reserved(number: int) -> str:
    """Name of a token that stands for nothing yet."""
    return f"<|reserved_special_token_{number}|>"


def train_tokenizer(
    texts: Iterable[tuple[str, str]], config: TokenizerConfig, seed: int, output: Path, processes: int = 1
) -> TokenizerInfo:
    """Train a byte-level BPE on a sample of texts and save it as a tokenizer folder.

    texts: (id, text) in any order; the sample is the texts of smallest hash of (seed, id) that reach
    `config.train_bytes`, and the result depends on it alone, not on the `processes` that count its words. It is the
    tokenizer that Hugging Face's `BpeTrainer` makes of the sample. The vocabulary always has `config.vocab_size` entries:
    where the text has too few pairs to merge, further reserved tokens fill its end, and a line says so.
    Raises ValueError where the vocabulary cannot hold the bytes and the special tokens, or there is no text.
    """
    special = special_tokens(config.n_special)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = config.vocab_size - config.n_special
    if merged < len(alphabet):
        raise ValueError(
            f"tokenizer.vocab_size {config.vocab_size} is too small: {len(alphabet)} bytes and tokenizer.n_special "
            f"{config.n_special} need at least {len(alphabet) + config.n_special}"
        )
    sample = sample_texts(texts, config.train_bytes, seed)
    if not any(sample):
        raise ValueError("no text to train the tokenizer on; every document was dropped or is empty")
    from data_pipeline.tokenize.merges import learn  # a kernel, which to encode needs none

    symbols = byte_symbols()
    ids = np.array([alphabet.index(symbol) for symbol in symbols], np.int64)
    names = dict(enumerate(alphabet))
    merges = []
    for left, right, made in learn(count_words(sample, processes), ids, merged, config.min_frequency):
        names[made] = names[left] + names[right]
        merges.append((names[left], names[right]))
    vocabulary = {name: token for token, name in names.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    missing = merged - tokenizer.get_vocab_size()
    first = config.n_special - len(NAMED_SPECIAL)
    filler = [reserved(first + i) for i in range(missing)]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in [*special, *filler]])
    if missing:
        n_bytes = sum(len(t.encode()) for t in sample)
        print(
            f"tokenizer: {n_bytes:,} bytes of text gave {merged - missing:,} of {merged:,} tokens "
            f"(min_frequency {config.min_frequency}); {missing:,} reserved tokens fill the vocabulary of "
            f"{config.vocab_size:,}. A smaller tokenizer.vocab_size trains faster.",
            file=sys.stderr,
        )
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN}:1 $B:1",
        special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))],
    )
    save_tokenizer(tokenizer, {"bos_token": BEGIN, "eos_token": END}, output)
    info = set_template(output, config)
    assert info.vocab_size == config.vocab_size, (info.vocab_size, config.vocab_size)
    return info


def sample_texts(texts: Iterable[tuple[str, str]], n_bytes: int, seed: int) -> list[str]:
    """The texts of smallest hash of (seed, id) that together reach n_bytes, by hash; never more memory than they take."""
    kept: list[tuple[int, str, str, int]] = []
    total = 0
    for identifier, text in texts:
        size = len(text.encode())
        order = rank("tokenizer", seed, identifier)
        # A heap's head is its smallest entry; the largest rank must leave first.
        heapq.heappush(kept, (-order, identifier, text, size))
        total += size
        while kept and total - kept[0][3] >= n_bytes:
            total -= heapq.heappop(kept)[3]
    return [text for _, _, text, _ in sorted(kept, reverse=True)]


def byte_symbols() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself where it is printable, else U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]

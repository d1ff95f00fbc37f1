"""A tiktoken file (`base64 rank` a line, as Llama 3's tokenizer.model) → tokenizer.json.

The file holds byte strings and their ranks alone. The splitting pattern and the special tokens are known by the number of
ranks for published vocabularies, or given.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from data_pipeline.pretokenize import LLAMA3_SPLIT
from data_pipeline.tokenize.bpe import byte_symbols, special_tokens
from data_pipeline.tokenize.folder import BEGIN, END

GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTION}|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTION}|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT = "<|endoftext|>"


class Published(NamedTuple):
    """What a published vocabulary has beside its ranks."""

    pattern: str
    special: dict[int, str]
    """Id → token."""
    bos: str | None
    eos: str


def _llama4() -> dict[int, str]:
    named = [BEGIN, END, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
    named += ["<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>"]
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(2048 - len(named))]
    return dict(enumerate([*named, *reserved], 200_000))


def _fim(first: int, prompt: int) -> dict[int, str]:
    names = (END_OF_TEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
    return dict(enumerate(names, first)) | {prompt: "<|endofprompt|>"}


def published(ranks: int) -> Published | None:
    """The published vocabulary of so many ranks: GPT-2's, GPT-3.5's and 4's, GPT-4o's, Llama 3's and 4's."""
    if ranks == 128_000:
        return Published(LLAMA3_SPLIT, dict(enumerate(special_tokens(256), ranks)), BEGIN, END)
    if ranks == 200_000:
        return Published(O200K_SPLIT, _llama4(), BEGIN, END)
    if ranks == 50_256:
        return Published(GPT2_SPLIT, {50_256: END_OF_TEXT}, None, END_OF_TEXT)
    if ranks == 100_256:
        return Published(LLAMA3_SPLIT, _fim(100_257, 100_276), None, END_OF_TEXT)
    if ranks == 199_998:
        return Published(O200K_SPLIT, {199_999: END_OF_TEXT, 200_018: "<|endofprompt|>"}, None, END_OF_TEXT)
    return None


def read_ranks(path: Path) -> dict[bytes, int]:
    """Byte strings and their ranks; ValueError, naming the line, where the file is damaged."""
    ranks: dict[bytes, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if not fields:
                continue
            try:
                token, rank = fields
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error):
                raise ValueError(
                    f"{path}, line {number}: expected a base64 string and its rank, found {line[:60]!r}"
                ) from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(
            f"{path} holds {len(ranks):,} byte strings whose ranks are not 0 to {len(ranks) - 1:,}; it is cut off or damaged"
        )
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(
            f"{path} lacks {len(missing)} single bytes, such as {missing[0]:#04x}; it is damaged"
        )
    return ranks


def convert(path: Path, pattern: str | None, n_special: int) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer of a tiktoken file, and its settings (bos_token, eos_token).

    Args:
        pattern: splitting pattern; None: the one of the published vocabulary of that size.
        n_special: special tokens, in Llama 3's order, of a vocabulary that is not published.

    Raises:
        ValueError: the file is damaged, or no pattern is given for a vocabulary that is not known.
    """
    ranks = read_ranks(path)
    known = published(len(ranks))
    if known is None:
        if pattern is None:
            raise ValueError(
                f"{path} holds {len(ranks):,} ranks, which is no published vocabulary, and a tiktoken file does not say how "
                "text is split; give tokenizer.pattern='…', the regular expression of its encoding"
            )
        known = Published(pattern, dict(enumerate(special_tokens(n_special), len(ranks))), BEGIN, END)
    symbols = byte_symbols()
    names = {token: "".join(map(symbols.__getitem__, token)) for token in ranks}
    vocabulary = {names[token]: rank for token, rank in ranks.items()}
    vocabulary |= {token: index for index, token in known.special.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, _merges(ranks, names), ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(pattern or known.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for _, token in sorted(known.special.items())]
    )
    settings = {"eos_token": known.eos}
    if known.bos is not None:
        settings["bos_token"] = known.bos
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{known.bos} $A",
            pair=f"{known.bos} $A {known.bos}:1 $B:1",
            special_tokens=[(known.bos, tokenizer.token_to_id(known.bos))],
        )
    return tokenizer, settings


def _merges(ranks: dict[bytes, int], names: dict[bytes, str]) -> list[tuple[str, str]]:
    """Pairs to merge, first those whose result has the lowest rank: tiktoken merges whatever two neighbours make a token."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = [
            (ranks[token[:cut]], ranks[token[cut:]], token[:cut], token[cut:])
            for cut in range(1, len(token))
            if token[:cut] in ranks and token[cut:] in ranks
        ]
        merges += [(names[left], names[right]) for _, _, left, right in sorted(pairs)]
    return merges

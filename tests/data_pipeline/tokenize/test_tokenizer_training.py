"""Tokenizer training, import and encoding, on Python's documentation topics."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import orjson
import pyarrow as pa
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from configs.schema.pipeline import TokenizerConfig
from data_pipeline import pretokenize
from data_pipeline.document import SCHEMA
from data_pipeline.tokenize import (
    TokenShard,
    encode_shard,
    load_tokenizer,
    make_tokenizer,
    train_tokenizer,
)
from data_pipeline.tokenize.bpe import sample_texts, special_tokens
from data_pipeline.tokenize.train import main

TEXTS = [(name, text) for name, text in sorted(topics.items())][:40]
CONFIG = TokenizerConfig(vocab_size=1024, n_special=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, CONFIG, 0, path)
    return path


def test_special_tokens_stand_where_llama_3_has_them() -> None:
    names = special_tokens(256)
    assert len(set(names)) == 256
    assert {i: names[i] for i in (0, 1, 2, 5, 6, 7, 8, 9, 10, 255)} == {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        2: "<|reserved_special_token_0|>",
        5: "<|reserved_special_token_3|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        8: "<|reserved_special_token_4|>",
        9: "<|eot_id|>",
        10: "<|reserved_special_token_5|>",
        255: "<|reserved_special_token_250|>",
    }
    assert len(set(special_tokens(5))) == 5
    with pytest.raises(ValueError, match="expected at least 5"):
        special_tokens(4)


def test_the_sample_depends_on_the_seed_and_not_on_the_order() -> None:
    sample = sample_texts(TEXTS, 50_000, 0)
    assert sample == sample_texts(reversed(TEXTS), 50_000, 0)
    assert sample != sample_texts(TEXTS, 50_000, 1)
    sizes = [len(text.encode()) for text in sample]
    assert sum(sizes) >= 50_000 > sum(sizes[:-1])
    assert len(sample_texts(TEXTS, 10**9, 0)) == len(TEXTS)


def test_training_is_deterministic_across_processes_and_threads(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pydoc_data.topics import topics\n"
        "from configs.schema.pipeline import TokenizerConfig; from data_pipeline.tokenize import train_tokenizer\n"
        "texts = [(n, t) for n, t in sorted(topics.items())][:40][::-1]\n"
        "train_tokenizer(texts, TokenizerConfig(vocab_size=1024, n_special=16), 0, Path(sys.argv[1]))"
    )
    for threads in ("1", "3"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / threads)], check=True, env=environment)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / threads / name).read_bytes() == (folder / name).read_bytes()


HARD = (
    "aaaa aaa aa a aaaaa abab ababab bcbcbc abcabcabc " * 40
    + "naïve nai\u0308ve 汉字かなカナ 한글 हिन्दी ไทย עברית Ελληνικά 👩\u200d👩 ½ ²³ ١٢٣ Ⅻ \x00\x1c\x1f\x85\u2028\r\n\t "
    * 3
    + "It's they'LL we’ve 1234567 -=-=-=      \n\n\n   "
)
"""Pairs that overlap themselves, tokens that several merges make, every kind of character."""


@pytest.mark.parametrize(("n_tokens", "min_frequency"), [(4000, 1), (900, 2), (4000, 30)])
def test_merges_are_those_of_the_reference(n_tokens: int, min_frequency: int, tmp_path: Path) -> None:
    texts = [*TEXTS, ("hard", HARD)]
    train_tokenizer(
        texts, TokenizerConfig(vocab_size=n_tokens, n_special=16, min_frequency=min_frequency), 0, tmp_path
    )
    ours = orjson.loads((tmp_path / "tokenizer.json").read_bytes())["model"]
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer = load_tokenizer(tmp_path).tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens - 16,
        min_frequency=min_frequency,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator([text for _, text in texts], trainer)
    theirs = orjson.loads(reference.to_str())["model"]
    assert ours["merges"] == theirs["merges"]
    assert {k: v for k, v in ours["vocab"].items() if v < n_tokens - 16} == theirs["vocab"]


def test_words_are_those_of_the_reference_however_many_processes_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [HARD, *(text for _, text in TEXTS)]
    split = pre_tokenizers.Split(Regex(pretokenize.LLAMA3_SPLIT), "isolated")
    expected = Counter(word for text in texts for word, _ in split.pre_tokenize_str(text))
    assert pretokenize.count_words(texts) == expected
    monkeypatch.setattr(pretokenize, "LEAST_CHARACTERS", 50_000)
    assert pretokenize.count_words(texts, processes=2) == expected


def test_any_text_survives_encoding_and_decoding(folder: Path) -> None:
    loaded = load_tokenizer(folder)
    texts = [
        "",
        " ",
        "naïve 😀\r\n\tĳ 12345",
        "\x00\x7f",
        "a" * 5000,
        "नमस्ते <|eot_id|> x",
        *(t for _, t in TEXTS),
    ]
    for text, ids in zip(texts, loaded.encode(texts), strict=True):
        assert loaded.tokenizer.decode(ids, skip_special_tokens=False) == text
        assert not ids or max(ids) < CONFIG.vocab_size - CONFIG.n_special, (
            "text must not become a special token"
        )


def test_transformers_loads_it_and_puts_bos_first(folder: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    loaded = load_tokenizer(folder)
    text = TEXTS[0][1][:500]
    assert tokenizer(text).input_ids == [loaded.info.special["bos"], *loaded.encode([text])[0]]
    assert tokenizer.eos_token == "<|end_of_text|>" and len(tokenizer) == CONFIG.vocab_size
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_too_little_text_is_filled_with_reserved_tokens_and_said(tmp_path: Path, capsys) -> None:
    info = train_tokenizer([("a", "abc abc abd")], TokenizerConfig(vocab_size=600, n_special=8), 0, tmp_path)
    assert info.vocab_size == 600
    assert "reserved tokens fill the vocabulary of 600" in capsys.readouterr().err
    assert load_tokenizer(tmp_path).info == info


@pytest.mark.parametrize(
    ("texts", "change", "message"),
    [
        ([], {}, "no text"),
        ([("a", "")], {}, "no text"),
        (TEXTS, {"vocab_size": 270}, "need at least 272"),
        (TEXTS, {"n_special": 3}, "expected at least 5"),
    ],
)
def test_impossible_training_is_explained(texts, change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train_tokenizer(texts, replace(CONFIG, **change), 0, tmp_path / "t")
    assert not (tmp_path / "t/tokenizer.json").exists()


def test_an_existing_tokenizer_is_imported(folder: Path, tmp_path: Path) -> None:
    info = make_tokenizer([], TokenizerConfig(path=str(folder)), 0, tmp_path / "copy")
    assert info == load_tokenizer(folder).info == load_tokenizer(tmp_path / "copy").info
    with pytest.raises(ValueError, match=r"holds no tokenizer\.json"):
        make_tokenizer([], TokenizerConfig(path=str(tmp_path)), 0, tmp_path / "x")
    config = orjson.loads((folder / "tokenizer_config.json").read_bytes()) | {"eos_token": "<|nope|>"}
    (tmp_path / "copy/tokenizer_config.json").write_bytes(orjson.dumps(config))
    with pytest.raises(ValueError, match="has no EOS token"):
        load_tokenizer(tmp_path / "copy")
    (tmp_path / "copy/tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer"):
        load_tokenizer(tmp_path / "copy")


def table_of(texts: list[str]) -> pa.Table:
    rows = [
        {"id": f"{i:032x}", "source": "s", "group": f"{i}", "text": t, "url": f"u{i}"}
        for i, t in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def test_a_token_shard_holds_bos_text_eos_of_each_document(folder: Path, tmp_path: Path) -> None:
    texts = ["one", "two <|end_of_text|>", "", "ünï"]
    counts = encode_shard(table_of(texts), folder, tmp_path / "t/0.arrow")
    loaded, shard = load_tokenizer(folder), TokenShard(tmp_path / "t/0.arrow")
    special = loaded.info.special
    for row, (text, ids) in enumerate(zip(texts, loaded.encode(texts), strict=True)):
        assert shard.tokens(row).tolist() == [special["bos"], *ids, special["eos"]], text
    assert counts == {
        "documents": 4,
        "tokens": int(shard.lengths.sum()),
        "bytes": sum(len(t.encode()) for t in texts),
    }
    assert shard.tokens(0).dtype == np.uint16
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["0.arrow"]


def test_an_empty_shard(folder: Path, tmp_path: Path) -> None:
    counts = encode_shard(table_of([]), folder, tmp_path / "0.arrow")
    assert counts["documents"] == 0 and len(TokenShard(tmp_path / "0.arrow").lengths) == 0


def test_the_verb_trains_on_files(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    for name, text in TEXTS[:10]:
        (tmp_path / f"in/{name}.txt").write_text(text)
    arguments = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    assert main([*arguments, "tokenizer.vocab_size=512", "tokenizer.n_special=16"]) == 0
    assert "512 tokens" in capsys.readouterr().out
    assert load_tokenizer(tmp_path / "out").info.vocab_size == 512

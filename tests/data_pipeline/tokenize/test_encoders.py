"""gigatoken gives the ids of the reference, is compared with it, and gives way to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.document import SCHEMA
from data_pipeline.tokenize import TokenShard, encode_shard, load_tokenizer, train_tokenizer
from data_pipeline.tokenize.encoders import PROBES, Encoder, open_encoder

TEXTS = [
    *PROBES,
    "the river <|end_of_text|> rises<|begin_of_text|>",
    "Una llama sube al cerro: piñas, ñandúes y café. 12345 × 6 = 74,070 ✓",
    "短い文。Короткий текст. نص قصير. 🦙🦙",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoders") / "tok"
    config = TokenizerConfig(vocab_size=600, n_special=12, min_frequency=1)
    train_tokenizer([(str(i), t) for i, t in enumerate(TEXTS)], config, 0, path)
    return path


def table_of(texts: list[str]) -> pa.Table:
    rows = [{"id": f"{i:032x}", "source": "s", "group": f"{i}", "text": t} for i, t in enumerate(texts)]
    return pa.Table.from_pylist(rows, SCHEMA)


def test_both_libraries_write_the_same_shard(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("gigatoken", reason="gigatoken is not installed")
    assert open_encoder(folder).library == "gigatoken"
    counts = {}
    for library in ("gigatoken", "tokenizers"):
        path = tmp_path / f"{library}.arrow"
        counts[library] = encode_shard(table_of(TEXTS), folder, path, TokenizerConfig(encoder=library))
    assert counts["gigatoken"] == counts["tokenizers"]
    assert (tmp_path / "gigatoken.arrow").read_bytes() == (tmp_path / "tokenizers.arrow").read_bytes()
    shard, loaded = TokenShard(tmp_path / "gigatoken.arrow"), load_tokenizer(folder)
    for row, text in enumerate(TEXTS):
        inner = shard.tokens(row).tolist()[len(loaded.info.begin) : -len(loaded.info.end)]
        assert loaded.tokenizer.decode(inner, skip_special_tokens=False) == text


class OneTokenOff:
    """An encoder with a fault in texts that hold a word."""

    def __init__(self, fast: object, word: str) -> None:
        self.fast, self.word = fast, word

    def encode_batch(self, texts: list[str], parallel: bool):
        import awkward

        rows = self.fast.encode_batch(texts, parallel=parallel).tolist()  # type: ignore[attr-defined]
        for row, text in zip(rows, texts, strict=True):
            if self.word in text:
                row[len(row) // 2] += 1
        return awkward.from_iter([np.array(row, np.uint32) for row in rows])


def test_a_difference_in_the_sample_is_an_error_that_names_the_text(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gigatoken", reason="gigatoken is not installed")
    whole = open_encoder(folder)
    broken = Encoder(whole.loaded, "gigatoken", OneTokenOff(whole.fast, "llama"))
    monkeypatch.setattr("data_pipeline.tokenize.encode.open_encoder", lambda *args: broken)
    message = (
        r"gigatoken [\d.]+ encodes document [0-9a-f]{32} .* begins with ids .*tokenizer\.encoder=tokenizers"
    )
    with pytest.raises(ValueError, match=message):
        encode_shard(table_of(["Una llama sube al cerro"] * 9), folder, tmp_path / "0.arrow")
    assert not (tmp_path / "0.arrow").exists()


def test_every_shard_is_compared_whatever_its_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("gigatoken", reason="gigatoken is not installed")
    compared: list[str] = []
    monkeypatch.setattr(Encoder, "compare", lambda self, texts, names: compared.extend(names))
    texts = [f"document {i} of the river" for i in range(3000)]
    encode_shard(table_of(texts[:2]), folder, tmp_path / "a.arrow")
    assert len(compared) == 2
    compared.clear()
    encode_shard(table_of(texts), folder, tmp_path / "b.arrow", seed=1)
    first = set(compared)
    assert 4 <= len(first) < 30
    compared.clear()
    encode_shard(table_of(texts), folder, tmp_path / "b.arrow", seed=2)
    assert set(compared) != first


def test_a_tokenizer_that_gigatoken_does_not_take_is_encoded_by_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    encoder = open_encoder(tmp_path)
    assert encoder.library == "tokenizers"
    pytest.importorskip("gigatoken", reason="gigatoken is not installed")
    assert "encoded by tokenizers, not by gigatoken, because it" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"tokenizer\.encoder is gigatoken, but it"):
        open_encoder(tmp_path, "gigatoken")


def test_without_gigatoken_one_line_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from data_pipeline.tokenize import encoders

    monkeypatch.setitem(sys.modules, "gigatoken.gigatoken_rs", None)
    encoders._opened.cache_clear()
    assert open_encoder(folder).library == "tokenizers"
    assert open_encoder(folder).library == "tokenizers"
    assert capsys.readouterr().err.count("pip install 'arriero[data]'") == 1
    encoders._opened.cache_clear()

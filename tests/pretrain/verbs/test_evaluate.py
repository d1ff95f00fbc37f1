"""Held-out loss against a sum over documents one by one, in one process and in several."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from example_run import SHAPE, TEXTS, random_weights, write_packed, write_run, write_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toyrun import ROOT, torchrun

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import EvaluateRun
from data_pipeline.packed import PackedDataset
from pretrain import evaluate as verb
from pretrain.evaluate import DocumentBits, token_bytes
from pretrain.generate import load
from pretrain.weights import from_newest, read_tokenizer

HELDOUT = {"prose": TEXTS[:2], "code": [TEXTS[2], "", TEXTS[3]], "web": [TEXTS[4]]}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate")
    packed = write_packed(root / "packed", length=512)
    return write_run(root / "run", packed=packed)


def config(run_dir: Path, *overrides: str) -> EvaluateRun:
    return edge.load(
        "evaluate",
        EvaluateRun,
        [f"run.dir={run_dir}", "device=cpu", "batch_size=2", "dtype=fp32", *overrides],
    )


def rows_of(run_dir: Path, *overrides: str) -> dict[str, dict]:
    (run_dir / "eval.jsonl").unlink(missing_ok=True)
    assert verb.run(config(run_dir, *overrides)) == 0
    rows = [json.loads(line) for line in (run_dir / "eval.jsonl").read_text().splitlines()]
    return {row["source"]: row for row in rows}


def documents_of(run_dir: Path) -> dict[str, list[DocumentBits]]:
    """Documents by source, as an evaluation of the whole split left them."""
    assert verb.run(config(run_dir)) == 0
    found: dict[str, list[DocumentBits]] = {}
    for line in (run_dir / "heldout_documents.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row.pop("step") == 7
        found.setdefault(row["source"], []).append(DocumentBits(**row))
    return found


def nats_of(run_dir: Path, text: str) -> tuple[float, int]:
    """Loss and tokens of one document alone, by torch's own cross-entropy over the model's logits."""
    model = from_newest(run_dir, None, lambda c: load(c, SHAPE, "fp64", torch.device("cpu")))
    tokenizer = read_tokenizer(run_dir)
    tokenizer.tokenizer.encode_special_tokens = True
    ids = torch.tensor([[*tokenizer.encode(text), tokenizer.stop[0]]])
    n = ids.size(1)
    with torch.no_grad():
        logits = model(ids, torch.arange(n)[None], torch.tensor([[0, n]], dtype=torch.int32))
    return F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item(), n - 1


def test_loss_is_the_sum_over_documents_read_alone(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(run_dir, "dtype=fp64")
    total_nats, total_bytes, total_tokens = 0.0, 0, 0
    for source, texts in HELDOUT.items():
        alone = [nats_of(run_dir, text) for text in texts]
        nats, tokens = sum(a for a, _ in alone), sum(n for _, n in alone)
        size = sum(len(t.encode()) for t in texts)
        row = rows[source]
        assert (row["tokens"], row["bytes"], row["step"], row["split"]) == (tokens, size, 7, "heldout")
        assert row["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-9)
        assert row["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-9)
        total_nats, total_bytes, total_tokens = total_nats + nats, total_bytes + size, total_tokens + tokens
    assert rows["all"]["nats_per_token"] == pytest.approx(total_nats / total_tokens, rel=1e-9)
    assert rows["all"]["bits_per_byte"] == pytest.approx(total_nats / math.log(2) / total_bytes, rel=1e-9)
    printed = capsys.readouterr().out
    assert "bits/byte" in printed and f"{rows['code']['bits_per_byte']:.4f}" in printed


def test_bits_of_each_document(run_dir: Path) -> None:
    found = documents_of(run_dir)
    assert found.keys() == HELDOUT.keys()
    for number, (source, texts) in enumerate(
        [("prose", TEXTS[:2]), ("code", HELDOUT["code"]), ("web", HELDOUT["web"])]
    ):
        for row, (document, text) in enumerate(zip(found[source], texts, strict=True)):
            assert document.id == bytes([number + 1, row] * 8).hex()
            assert document.bytes == len(text.encode())
            assert document.bits == pytest.approx(nats_of(run_dir, text)[0] / math.log(2), rel=1e-4)


def test_a_document_cut_by_sequences_counts_every_byte_and_token_once(tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "packed", length=32)
    run = write_run(tmp_path / "run", packed=packed)
    assert PackedDataset(packed).stream("heldout/prose").sequences > 2
    rows = rows_of(run)
    for source, texts in HELDOUT.items():
        assert rows[source]["bytes"] == sum(len(t.encode()) for t in texts)
        assert rows[source]["tokens"] == sum(nats_of(run, t)[1] for t in texts)
    bits = documents_of(run)
    for source, documents in bits.items():
        row = rows[source]
        assert sum(d.bits for d in documents) == pytest.approx(row["bits_per_byte"] * row["bytes"], rel=1e-5)
    few = rows_of(run, "max_sequences=1")
    assert few["prose"]["bytes"] < rows["prose"]["bytes"] and few["prose"]["tokens"] <= 32


def test_without_a_begin_token_the_first_token_is_given_and_its_bytes_do_not_count(tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "packed", length=32, bos=False)
    write_tokenizer(tmp_path / "run/tokenizer", bos=False)
    run = write_run(tmp_path / "run", packed=packed)
    tokenizer, lengths = (
        read_tokenizer(run),
        token_bytes(packed / "tokenizer/tokenizer.json", PackedDataset(packed).vocab_size),
    )
    tokenizer.tokenizer.encode_special_tokens = True
    rows = rows_of(run)
    for source, texts in HELDOUT.items():
        ids = [tokenizer.encode(text) for text in texts]
        assert rows[source]["tokens"] == sum(len(i) for i in ids)  # one given, the end of the text predicted
        given = sum(int(lengths[i[0]]) for i in ids if i)
        assert given > 0
        assert rows[source]["bytes"] == sum(len(t.encode()) for t in texts) - given
    documents = documents_of(run)
    assert sum(d.bytes for d in documents["web"]) == rows["web"]["bytes"]
    # Scored sequence by sequence, every byte is found at the label that stands for it.
    few = rows_of(run, "max_sequences=100000")
    for source in HELDOUT:
        assert (
            few[source]["bytes"] == rows[source]["bytes"] and few[source]["tokens"] == rows[source]["tokens"]
        )


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "packed", length=32)
    run = write_run(tmp_path / "run", packed=packed)
    expected = rows_of(run, "dtype=fp64")
    (run / "eval.jsonl").unlink()
    # Threads of gloo may abort a rank whose interpreter finalizes; here they always do.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\nif 'RANK' in os.environ:\n    atexit.register(os.abort)\n"
    )
    words = [f"run.dir={run}", "device=cpu", "dtype=fp64", "batch_size=1"]
    done = torchrun("-m", "pretrain.evaluate", *words, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert [r["source"] for r in rows] == list(expected), "written once, by one of them"
    for row in rows:
        other = expected[row["source"]]
        assert (row["tokens"], row["bytes"]) == (other["tokens"], other["bytes"])
        assert row["nats_per_token"] == pytest.approx(other["nats_per_token"], rel=1e-9)


def test_losses_that_are_not_finite_end_with_status_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = random_weights(SHAPE)
    weights["layers.0.attention_norm.weight"][0] = float("nan")
    run = write_run(tmp_path / "run", packed=write_packed(tmp_path / "packed"), weights=weights)
    assert verb.main([f"run.dir={run}"]) == 1
    printed = capfd.readouterr()
    assert "the loss of code, prose, web is not a finite number" in printed.err and "step 7" in printed.err
    assert "nan" in printed.out
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert [row["bits_per_byte"] for row in rows] == [None] * 4


def test_a_run_or_dataset_that_is_not_there_is_an_error_before_anything_else_is_said(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    for words in ([f"run.dir={run_dir}", f"data.path={nowhere}"], [f"run.dir={nowhere}"]):
        with pytest.raises(ValueError, match="nowhere"):
            verb.main([*words, "dtype=auto", "device=cpu"])
    assert "Precision" not in capsys.readouterr().out


def test_bytes_of_tokens_add_up_to_the_bytes_of_texts(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    lengths = token_bytes(folder / "tokenizer.json", 320)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        tokenizer.encode_special_tokens = True
        ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids)
        assert lengths[ids].sum() == len(text.encode())
    assert lengths[tokenizer.token_to_id("<|end_of_text|>")] == 0


def test_bytes_of_sentencepiece_tokens_and_of_unknown_kinds(tmp_path: Path) -> None:
    vocabulary = {"<unk>": 0, "<0x0A>": 1, "▁the": 2, "é": 3}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    tokenizer.add_special_tokens(["<unk>"])
    tokenizer.save(str(tmp_path / "sp.json"))
    assert token_bytes(tmp_path / "sp.json", 6).tolist() == [0, 1, 4, 2, 0, 0]
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(ConfigError, match="bits per byte"):
        token_bytes(tmp_path / "words.json", 1)


def test_another_tokenizer_or_a_longer_sequence_is_refused(run_dir: Path, tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "long", length=1024)
    with pytest.raises(ConfigError, match="sequences of 1024 tokens"):
        verb.run(config(run_dir, f"data.path={packed}"))
    other = write_run(tmp_path / "other", packed=packed)
    tokenizer = other / "tokenizer/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(ConfigError, match="another tokenizer"):
        verb.run(config(other, f"data.path={run_dir.parent / 'packed'}"))
    with pytest.raises(ConfigError, match=r"give data\.path"):
        verb.run(config(write_run(tmp_path / "none")))

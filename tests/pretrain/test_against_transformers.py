"""Fifty steps of a real run against fifty steps of `transformers.LlamaForCausalLM`: same data, same AdamW, same curve.

The other side shares nothing with the trainer but the initial weights and the packed dataset on disk: its masks, labels,
positions, parameter groups, clipping and schedule are made here or by transformers and torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toyrun import SPECIAL, documents, make_tokenizer

from configs import edge
from configs.schema.train import TrainRun
from data_pipeline.packed import SEGMENT_DTYPE, PackedDataset, PackedWriter, TokenizerInfo
from pretrain import train as trainer
from pretrain.data import DataPlan
from pretrain.hf import hf_name, to_hf_config
from pretrain.model.init import init_weights
from pretrain.model.llama import Llama
from pretrain.rundir import read_metrics

STEPS, BATCH, LENGTH, VOCAB = 50, 4, 64, 320
MODEL = (
    *("model=debug", "model.dim=64", "model.n_layers=2", "model.n_heads=4", "model.n_kv_heads=4"),
    *("model.ffn_dim=160", "model.tied=false"),
)
ROPE = "++model.rope_scaling={factor:4.0,low_freq_factor:1.0,high_freq_factor:4.0,original_max_position:32}"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_document_each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed dataset whose every sequence is one whole document."""
    folder = tmp_path_factory.mktemp("lonely")
    tokenizer = make_tokenizer(folder / "tokenizer", VOCAB)
    special = {name: tokenizer.token_to_id(token) for token, name in SPECIAL.items()}
    digest = hashlib.sha256((folder / "tokenizer" / "tokenizer.json").read_bytes()).hexdigest()
    texts = [ids for text in documents() if len(ids := tokenizer.encode(text).ids) >= LENGTH - 2]
    with PackedWriter(folder / "packed", TokenizerInfo(digest, VOCAB, special), LENGTH) as writer:
        for split, chosen in (("train", texts[1:]), ("heldout", texts[:1])):
            stream = writer.stream(split, "alone")
            for number, ids in enumerate(chosen):
                row = stream.document(
                    hashlib.md5(bytes(str(number), "ascii")).digest(), 0, LENGTH, 4 * LENGTH
                )
                whole = [special["bos"], *ids[: LENGTH - 2], special["eos"]]
                stream.sequence(np.array(whole), -1, np.array([(row, 0, 0)], SEGMENT_DTYPE))
        writer.finish(folder / "tokenizer", {"weights": {"alone": 1.0}, "max_epochs": {}}, {})
    return folder / "packed"


@pytest.mark.parametrize(
    ("packing", "variant"),
    [
        ("alone", ()),
        ("packed", ("model.n_kv_heads=2", "train.micro_batch_size=2")),
        ("alone", ("model.n_kv_heads=1", "model.tied=true", ROPE)),
        ("packed", ("model.n_kv_heads=2", "model.tied=true", ROPE)),
    ],
    ids=["plain", "packed-gqa-accumulated", "mqa-tied-scaled", "packed-gqa-tied-scaled"],
)
def test_fifty_steps_are_those_of_transformers(
    packing: str, variant: tuple[str, ...], toy_packed: Path, one_document_each: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    path = toy_packed if packing == "packed" else one_document_each
    overrides = [
        *(f"data.path={path}", f"run.dir={tmp_path / 'run'}", *MODEL, *variant, f"train.steps={STEPS}"),
        *(
            "train.dtype=fp32",
            f"train.global_batch_size={BATCH}",
            "train.eval_sequences=1",
            "checkpoint.every=100",
        ),
        *("optim.lr=5e-3", "optim.clip=0.5", "schedule.warmup_steps=5", "tracker=none", "device=cpu"),
    ]
    config = edge.load("train", TrainRun, overrides)
    assert trainer.main(overrides) == 0
    ours = read_metrics(tmp_path / "run")
    theirs = list(train_theirs(config, PackedDataset(path)))
    assert len(ours) == len(theirs) == STEPS
    for row, (loss, grad_norm) in zip(ours, theirs, strict=True):
        assert abs(row["loss"] - loss) < 1e-4, f"step {row['step']}"
        assert row["grad_norm"] == pytest.approx(grad_norm, rel=1e-3), f"step {row['step']}"
    # The run learned something, clipped some steps, and left some alone: the curve is no line.
    assert ours[-1]["loss"] < ours[0]["loss"] - 1
    assert any(norm > 0.5 for _, norm in theirs)


def train_theirs(config: TrainRun, packed: PackedDataset) -> Iterator[tuple[float, float]]:
    """Loss and gradient norm of each step."""
    import transformers

    settings = to_hf_config(config.model, VOCAB, 0, [1], "fp32")
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**settings, attn_implementation="sdpa")
    ).train()
    initial = Llama(config.model, VOCAB)
    init_weights([initial], config.seed)
    state = {hf_name(name): p.detach() for name, p in initial.named_parameters()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and missing == (["lm_head.weight"] if config.model.tied else [])
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or "embed_tokens" in n]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=config.optim.lr,
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    schedule = transformers.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, config.schedule.warmup_steps, STEPS, min_lr_rate=0.1
    )
    # Without gradients this changes nothing; the first update then has the first rate of the warm-up, not zero.
    optimizer.step()
    schedule.step()
    plan = DataPlan(packed.manifest, config.data.phases, config.seed)
    for step in range(STEPS):
        rows = [packed.read(*plan.locate(n)) for n in range(step * BATCH, (step + 1) * BATCH)]
        tokens = torch.from_numpy(np.stack([row.tokens for row in rows]).astype(np.int64))
        if all(len(row.segments) == 1 and row.next < 0 for row in rows):
            # One whole document a row: transformers' own causal mask, positions and loss.
            loss: Tensor = model(input_ids=tokens, labels=tokens).loss
        else:
            document = torch.zeros_like(tokens)
            following = torch.cat((tokens[:, 1:], torch.tensor([[row.next] for row in rows])), dim=1)
            positions = torch.arange(LENGTH).repeat(BATCH, 1)
            for i, row in enumerate(rows):
                for start in row.segments["start"].tolist():
                    document[i, start:] += 1
                    positions[i, start:] = torch.arange(LENGTH - start)
            ends = torch.cat((document[:, 1:] != document[:, :-1], following[:, -1:] < 0), dim=1)
            past = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
            mask = (document[:, :, None] == document[:, None, :]) & past
            logits = model(input_ids=tokens, position_ids=positions, attention_mask=mask[:, None]).logits
            loss = F.cross_entropy(logits[~ends], following[~ends])
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
        optimizer.step()
        schedule.step()
        yield loss.item(), grad_norm.item()

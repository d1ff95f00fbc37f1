"""Layouts are checked before any process talks; messages name what to change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, ParallelConfig, TrainConfig
from pretrain.parallel.layout import Layout, stage_layers

MODEL = ModelConfig("m", dim=64, n_layers=4, n_heads=8, n_kv_heads=4, ffn_dim=192)
TRAIN = TrainConfig(steps=1, global_batch_size=32, micro_batch_size=2)


def test_dp_shard_takes_what_is_left() -> None:
    layout = Layout.check(ParallelConfig(pp=2, dp_replicate=2, tp=2), TRAIN, MODEL, 96, 32)
    assert (layout.pp, layout.dp_replicate, layout.dp_shard, layout.cp, layout.tp) == (2, 2, 4, 1, 2)
    assert (layout.dp, layout.world_size, layout.micro_batches) == (8, 32, 2)


@pytest.mark.parametrize(
    ("parallel", "train", "model", "vocab_size", "world_size", "message"),
    [
        (ParallelConfig(tp=3), TRAIN, MODEL, 96, 4, "world has 4 ranks"),
        (ParallelConfig(dp_shard=3), TRAIN, MODEL, 96, 4, "dp_shard=-1"),
        (ParallelConfig(dp_shard=0), TRAIN, MODEL, 96, 4, "dp_shard"),
        (ParallelConfig(pp=0), TRAIN, MODEL, 96, 4, "`parallel.pp` must be at least 1"),
        (ParallelConfig(cp=2), replace(TRAIN, sequence_length=34), MODEL, 96, 4, "need a multiple of 4"),
        (ParallelConfig(tp=8), TRAIN, MODEL, 96, 8, r"model.n_kv_heads \(4\); smaller sizes that do: 1, 2"),
        (ParallelConfig(tp=3), TRAIN, MODEL, 96, 3, r"model.n_heads \(8\)"),
        (ParallelConfig(tp=4), TRAIN, MODEL, 97, 4, r"97 for 97 tokens; set model\.vocab_multiple=4"),
        (ParallelConfig(tp=4), TRAIN, replace(MODEL, ffn_dim=90), 96, 4, r"model.ffn_dim \(90\)"),
        (ParallelConfig(tp=4), replace(TRAIN, sequence_length=30), MODEL, 96, 4, "train.sequence_length"),
        (ParallelConfig(pp=8), TRAIN, MODEL, 96, 8, "at most 4"),
        (
            ParallelConfig(),
            replace(TRAIN, global_batch_size=12),
            MODEL,
            96,
            4,
            "multiple of 8, such as 8 or 16",
        ),
        (ParallelConfig(), replace(TRAIN, global_batch_size=4), MODEL, 96, 4, "such as 8, or"),
        (
            ParallelConfig(pp=4),
            replace(TRAIN, global_batch_size=4),
            MODEL,
            96,
            4,
            "4 pipeline stages .* gives 2",
        ),
        (ParallelConfig(pp=2, pp_schedule="interleaved"), TRAIN, MODEL, 96, 2, "set parallel.pp_virtual=2"),
        (
            ParallelConfig(pp=2, pp_schedule="interleaved", pp_virtual=3),
            TRAIN,
            MODEL,
            96,
            2,
            "3 virtual stages a rank, but the model has only 4 layers; set parallel.pp to at most 1",
        ),
        (ParallelConfig(pp=2, pp_virtual=2), TRAIN, MODEL, 96, 2, "or parallel.pp_schedule=interleaved"),
        (ParallelConfig(pp_virtual=2), TRAIN, MODEL, 96, 2, "parallel.pp to at least 2"),
        (
            ParallelConfig(pp=2, pp_schedule="zbv", pp_virtual=3, reshard_after_forward=False),
            TRAIN,
            MODEL,
            96,
            2,
            "leave the key out",
        ),
        (ParallelConfig(pp=2, pp_schedule="zbv"), TRAIN, MODEL, 96, 2, "reshard_after_forward=false"),
        (
            ParallelConfig(pp=2, pp_schedule="dualpipev", reshard_after_forward=False),
            replace(TRAIN, compile=True),
            MODEL,
            96,
            2,
            "train.compile=false",
        ),
        (
            ParallelConfig(pp=2, pp_schedule="dualpipev", reshard_after_forward=False),
            replace(TRAIN, global_batch_size=6),
            MODEL,
            96,
            2,
            "twice as many micro-batches in a step under dualpipev.* gives 3",
        ),
        (ParallelConfig(), replace(TRAIN, micro_batch_size=0), MODEL, 96, 4, "micro_batch_size"),
        (ParallelConfig(), TRAIN, replace(MODEL, n_kv_heads=3), 96, 1, "n_kv_heads"),
        (ParallelConfig(), TRAIN, replace(MODEL, n_heads=5, n_kv_heads=5), 96, 1, "even multiple"),
        (ParallelConfig(), TRAIN, replace(MODEL, dim=8), 96, 1, "even multiple"),
    ],
)
def test_what_does_not_fit_is_refused(
    parallel: ParallelConfig,
    train: TrainConfig,
    model: ModelConfig,
    vocab_size: int,
    world_size: int,
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        Layout.check(parallel, train, model, vocab_size, world_size)


@pytest.mark.parametrize("stages", range(1, 9))
@pytest.mark.parametrize("n_layers", [8, 9, 13, 126])
def test_stages_hold_every_layer_once_and_share_evenly(n_layers: int, stages: int) -> None:
    parts = [stage_layers(n_layers, stages, s) for s in range(stages)]
    assert [n for part in parts for n in part] == list(range(n_layers))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    if stages > 2:
        assert sizes[0] <= min(sizes[1:-1]) and sizes[-1] <= max(sizes[1:-1])

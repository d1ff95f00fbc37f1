"""What may differ between a checkpoint and the run that continues it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import DataConfig, ModelConfig, PhaseConfig, RunConfig, TrainConfig, TrainRun
from data_pipeline.packed import PackedDataset
from pretrain.checkpoint import Checkpoint
from pretrain.checkpoint.state import Progress, run_state
from pretrain.data import DataPlan
from pretrain.same_run import check_same_run

CONFIG = TrainRun(
    data=DataConfig(path="data", phases=(PhaseConfig(sequences=40, weights={"json": 1.0}), PhaseConfig())),
    model=ModelConfig("tiny", dim=16, n_layers=1, n_heads=2, n_kv_heads=2, ffn_dim=16),
    train=TrainConfig(steps=9, global_batch_size=4, micro_batch_size=2),
    run=RunConfig(dir="run"),
)


@pytest.fixture
def plan(toy_packed: Path) -> DataPlan:
    return DataPlan(PackedDataset(toy_packed).manifest, CONFIG.data.phases, CONFIG.seed)


def state_of(plan: DataPlan) -> dict[str, Any]:
    return run_state(CONFIG, plan, Progress(5, 20), "tokenizer", 64, 0)


def check(plan: DataPlan, state: dict[str, Any], config: TrainRun = CONFIG) -> None:
    check_same_run(Checkpoint(Path("run/checkpoints/step-00000005"), state, {}), config, plan, "tokenizer")


def test_checkpoint_from_before_a_key_existed_is_continued_with_its_default(plan: DataPlan) -> None:
    state = copy.deepcopy(state_of(plan))
    del state["config"]["train"]["gc_every"], state["config"]["train"]["z_loss"]
    for phase in state["config"]["data"]["phases"]:
        del phase["global_batch_size"], phase["sequence_length"]
    check(plan, state)
    state["config"]["train"]["z_loss"] = 0.5
    with pytest.raises(ConfigError, match=r"`train\.z_loss` is 0\.0, but .* was made with 0\.5; on resume"):
        check(plan, state)


def test_key_that_this_version_does_not_know_is_explained(plan: DataPlan) -> None:
    state = state_of(plan)
    state["config"]["train"]["warp"] = 9
    with pytest.raises(
        ConfigError, match=r"was made by another version of arriero: unknown key `train\.warp`"
    ):
        check(plan, state)


def test_batch_size_and_consumed_phases_cannot_change(plan: DataPlan) -> None:
    for key, changed in (
        ("train.global_batch_size", {"train": {"global_batch_size": 8}}),
        ("data.phases", {"data": {"phases": [{"sequences": 12}, {}]}}),
    ):
        config = edge.to_dict(CONFIG)
        for group, values in changed.items():
            config[group] |= values
        with pytest.raises(ConfigError, match=rf"`{key}` is"):
            check(plan, state_of(plan), edge.build(TrainRun, config))


def test_dataset_of_other_content_is_refused(plan: DataPlan) -> None:
    state = state_of(plan)
    state["data"]["hash"] = "0" * 64
    with pytest.raises(ConfigError, match=r"the data plan over data\.path=data is not the one"):
        check(plan, state)


def test_weights_alone_are_no_run(plan: DataPlan) -> None:
    with pytest.raises(ConfigError, match=r"holds weights alone .* with model\.init_from=run$"):
        check(plan, {"step": 5})

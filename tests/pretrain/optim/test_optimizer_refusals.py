"""What an update in the backward pass, pure bf16 and float8 cannot be combined with is said before the first step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.edge import ConfigError
from configs.schema.train import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    ResilienceConfig,
    RunConfig,
    TrainConfig,
    TrainRun,
)
from pretrain import options
from pretrain.options import check_in_backward, check_precision

MODEL = ModelConfig("tiny", dim=64, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=96)
TRAIN = TrainConfig(1, 1, 1, dtype="bf16")
RUN = TrainRun(
    DataConfig("x"),
    MODEL,
    TRAIN,
    RunConfig("y"),
    optim=OptimConfig(in_backward=True, clip=0.0),
    resilience=ResilienceConfig(skip_nonfinite=False),
)


def test_optimizer_in_backward_needs_a_step_of_one_piece() -> None:
    check_in_backward(RUN, 1)
    check_in_backward(replace(RUN, optim=OptimConfig()), 8)
    cases = {
        r"set optim\.clip=0": replace(RUN, optim=OptimConfig(in_backward=True)),
        r"set resilience\.skip_nonfinite=false": replace(RUN, resilience=ResilienceConfig()),
        r"set optim=adamw": replace(RUN, optim=replace(RUN.optim, name="muon")),
        r"set parallel\.pp=1": replace(RUN, parallel=ParallelConfig(pp=2)),
    }
    for message, run in cases.items():
        with pytest.raises(ConfigError, match=message):
            check_in_backward(run, 1)
    with pytest.raises(ConfigError, match=r"a step has 4 micro-batches"):
        check_in_backward(RUN, 4)


def test_precisions_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(optim: str = "adamw", pp: int = 1, tp: int = 1, **train: object) -> None:
        parallel = ParallelConfig(pp=pp, tp=tp, pp_schedule="zbv")
        check_precision(replace(TRAIN, **train), parallel, OptimConfig(name=optim), MODEL)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"set optim=adamw or train\.dtype=bf16"):
        check(optim="muon", dtype="bf16_pure")
    with pytest.raises(ConfigError, match=r"but train\.dtype is fp32"):
        check(dtype="fp32", float8=True)
    # Stands in for an environment without torchao.
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs torchao, which is not installed; pip install 'arriero\[float8\]'"
    ):
        check(float8=True)
    monkeypatch.setattr(options, "find_spec", lambda name: name)
    check(float8=True, tp=2)
    with pytest.raises(ConfigError, match=r"pp_schedule=zbv computes gradients of weights by itself"):
        check(float8=True, pp=2)
    with pytest.raises(ConfigError, match=r"`model\.dim` is 64 over parallel\.tp=8"):
        check(float8=True, tp=8)

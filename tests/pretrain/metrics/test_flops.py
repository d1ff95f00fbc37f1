"""FLOPs, peaks and rows of metrics."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

import pytest
import torch

from configs import edge
from configs.schema.train import ModelConfig
from pretrain.metrics.flops import (
    attention_pairs,
    full_flops,
    matmul_parameters,
    peak_flops,
    step_flops,
)
from pretrain.metrics.meter import Meter, StepNumbers
from pretrain.metrics.speed import products_per_second
from pretrain.model.llama import Llama


@pytest.mark.parametrize("tied", [True, False])
def test_matmul_parameters_are_those_of_the_model(tied: bool) -> None:
    model = ModelConfig("test", dim=32, n_layers=3, n_heads=4, n_kv_heads=2, ffn_dim=48, tied=tied)
    llama = Llama(model, 100)
    matrices = {name: p.numel() for name, p in llama.named_parameters() if p.ndim == 2}
    # An embedding is looked up, not multiplied with; a tied one is, as the output head.
    if not tied:
        del matrices["tok_embeddings.weight"]
    assert matmul_parameters(model, 100) == sum(matrices.values())


def test_pairs_stay_inside_documents() -> None:
    boundaries = torch.tensor([[0, 3, 8, 8], [0, 8, 8, 8]], dtype=torch.int32)
    assert attention_pairs(boundaries) == (6 + 15) + 36


def test_flops_of_llama_3_8b_are_those_of_the_report() -> None:
    model = edge.load_group("model", "8b", ModelConfig)
    # 8.03e9 parameters less an embedding of 0.53e9, 6 FLOPs each and token; attention over 8,192 tokens adds 7%.
    tokens = 8192
    flops = step_flops(model, 128_256, tokens, tokens * (tokens + 1) // 2) / tokens
    assert flops == pytest.approx(6 * 7.5e9 + 12 * 32 * 4096 * 4096, rel=0.01)


def test_peak_of_the_cpu_is_measured() -> None:
    cpu = torch.device("cpu")
    fp32, fp64, half = (peak_flops(cpu, dtype) for dtype in ("fp32", "fp64", "bf16_pure"))
    # Every processor that torch runs on multiplies faster than this, in whatever dtype; none does so many.
    assert fp64 > 1e7 and 1e8 < fp32 < 1e15
    # Where bf16 is emulated, a step in bf16 can nevertheless do its other products in fp32.
    assert half > fp32 / 2


def test_peak_of_the_cpu_does_not_fall_beside_other_work() -> None:
    # Three busy processes on one core: by the clock on the wall, each gets a third of what the core can do. Both figures are
    # of the same core in the same seconds, so that whatever else the machine does lowers them alike.
    cores, others, size = os.sched_getaffinity(0), [], 1024
    os.sched_setaffinity(0, {min(cores)})
    try:
        burn = "print(flush=True)\nwhile True: sum(range(1000))"
        for _ in range(2):
            others.append(subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE))
            others[-1].stdout.readline()
        # A product takes longer than the turn that the scheduler gives to a process.
        peak = products_per_second(torch.device("cpu"), torch.float32, (size,))
        matrix, products, began = torch.ones(size, size), 0, time.perf_counter()
        while time.perf_counter() - began < 2:
            matrix @ matrix
            products += 1
        by_the_wall = 2.0 * size**3 * products / (time.perf_counter() - began)
    finally:
        for process in others:
            process.kill()
            process.communicate()
        os.sched_setaffinity(0, cores)
    assert peak > 1.5 * by_the_wall


def test_mfu_is_null_where_a_step_was_faster_than_the_peak() -> None:
    rows = []
    for peak in (1e6, 1e15):
        meter = Meter(torch.device("cpu"), peak=peak)
        meter.start_step()
        meter.start_forward()
        meter.start_optimizer()
        meter.stop_step()
        numbers = StepNumbers(1, 1, 1, torch.tensor(1.0), 1, torch.tensor(1.0), 1.0, 1e6, 2e6, 0.0)
        meter.add(numbers)
        rows += meter.flush()
    assert rows[0]["mfu"] is None and rows[0]["mfu_full"] is None
    assert 0 < rows[1]["mfu"] <= 1


def test_the_full_count_pairs_every_token_with_its_whole_sequence() -> None:
    model = edge.load_group("model", "8b", ModelConfig)
    tokens, length = 4 * 8192, 8192
    aware = step_flops(model, 128_256, tokens, 4 * length * (length + 1) // 2)
    # The causal mask leaves half of the pairs, and one more on the diagonal.
    attention = 12.0 * 32 * 4096 * tokens * (length - (length + 1) / 2)
    assert full_flops(model, 128_256, tokens, length) - aware == pytest.approx(attention)


def test_rows_have_all_keys_and_their_meaning() -> None:
    meter = Meter(torch.device("cpu"), peak=1e9, devices=2)
    meter.start_step()
    time.sleep(0.01)
    meter.start_forward()
    time.sleep(0.03)
    meter.start_optimizer()
    time.sleep(0.02)
    meter.stop_step()
    meter.add(
        StepNumbers(
            step=3,
            batch_sequences=4,
            batch_tokens=256,
            loss_sum=torch.tensor(400.0),
            tokens=200,
            grad_norm=torch.tensor(0.5),
            lr=1e-3,
            flops=1e8,
            full_flops=2e8,
            data_wait_seconds=0.01,
            comm_share=0.25,
        )
    )
    (row,) = meter.flush()
    assert row["step"] == 3 and row["loss"] == 2.0 and row["tokens"] == 200 and row["batch_sequences"] == 4
    assert row["perplexity"] == pytest.approx(math.exp(2.0))
    seconds = row["step_seconds"]
    assert seconds >= 0.05 and row["tokens_per_second"] == pytest.approx(256 / seconds)
    assert row["tokens_per_second_per_device"] == pytest.approx(128 / seconds)
    # Each of two devices does half of 1e8, of the 1e9 a second that it could.
    assert row["tflop_per_second_per_device"] == pytest.approx(0.5e8 / seconds / 1e12)
    assert row["mfu"] == pytest.approx(0.05 / seconds) and row["mfu_full"] == pytest.approx(2 * row["mfu"])
    assert row["forward_backward_seconds"] >= 0.03 and row["optimizer_seconds"] >= 0.02
    assert row["forward_backward_seconds"] + row["optimizer_seconds"] <= seconds - 0.01
    assert row["data_wait_seconds"] == 0.01 and row["comm_share"] == 0.25
    assert (
        10 * 2**20
        < row["memory_resident_bytes"]
        <= row["memory_interval_peak_bytes"]
        <= row["memory_peak_bytes"]
    )
    assert meter.flush() == []


def test_memory_of_an_interval_forgets_what_was_freed_before_it() -> None:
    def interval() -> dict[str, int]:
        meter.start_step()
        meter.start_forward()
        meter.start_optimizer()
        meter.stop_step()
        numbers = StepNumbers(1, 1, 1, torch.tensor(1.0), 1, torch.tensor(1.0), 1.0, 1.0, 1.0, 0.0)
        meter.add(numbers)
        return meter.flush()[0]

    meter = Meter(torch.device("cpu"), peak=0)
    interval()
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    with_block = interval()
    del block
    interval()  # begins while the block's peak is still that of the interval
    without = interval()
    assert with_block["memory_interval_peak_bytes"] - without["memory_interval_peak_bytes"] > 48 * 2**20
    assert without["memory_peak_bytes"] >= with_block["memory_peak_bytes"] and without["mfu"] is None

"""`dtype=auto` on processors with and without bf16 arithmetic, which masks of instruction sets imitate."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toyrun import PATIENCE, ROOT, overrides, train

from configs import edge
from configs.schema.train import EvaluateRun, GenerateRun, PlanRun, TrainConfig
from launch.processes import free_port
from pretrain.sizing import fill

MASKED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
DECIDE = (
    "import torch; from pretrain.dtype import decide; "
    "print(*((p := decide(d, torch.device('cpu'))).dtype for d in ('auto', 'bf16', 'fp32')), p.warning, sep='|'); "
    "print(decide('auto', torch.device('cpu')).line); print(decide('bf16', torch.device('cpu')).warning)"
)


def decided(mask: dict[str, str]) -> list[str]:
    """What a process of its own decides under a mask."""
    result = subprocess.run(
        [sys.executable, "-c", DECIDE],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in MASKED} | mask,
        text=True,
        capture_output=True,
        check=True,
    )
    return result.stdout.splitlines()


def test_auto_is_fp32_where_bf16_is_emulated_and_a_slow_choice_is_warned_about() -> None:
    dtypes, line, warning = decided(MASKED)
    assert dtypes == "fp32|bf16|fp32|None"
    assert line.startswith("Precision: fp32 (dtype=auto: this processor multiplies bf16 ")
    factor = float(warning.split("multiplies bf16 ")[1].split(" times slower")[0])
    assert warning.startswith("dtype=bf16 is slow here") and factor > 2


def test_auto_is_bf16_where_the_processor_has_bf16_units() -> None:
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if not {"avx512_bf16", "amx_bf16"} & set(flags):
        pytest.skip("this processor has no bf16 units")
    dtypes, line, warning = decided({})
    assert dtypes == "bf16|bf16|fp32|None" and warning == "None"
    assert line.startswith("Precision: bf16 (dtype=auto: this processor multiplies bf16 ")
    # Emulated by conversion, on AVX-512 without bf16: faster than number by number, slower than fp32.
    assert decided({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"})[0] == "fp32|bf16|fp32|None"


def test_a_run_keeps_the_dtype_of_its_checkpoint_unless_it_is_set(
    toy_packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"

    def go_on(steps: int, dtype: str) -> str:
        status, output = train(overrides(toy_packed, run_dir, f"train.steps={steps}", f"train.dtype={dtype}"))
        assert status == 0, output
        return output

    def recorded() -> str:
        return str(yaml.safe_load((run_dir / "config.yaml").read_text())["train"]["dtype"])

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert "Precision: fp32 (train.dtype=auto: this processor" in go_on(1, "auto")
    assert recorded() == "fp32"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    # The same run on another processor.
    assert "Precision: fp32 (train.dtype=auto: that of the run's newest checkpoint)" in go_on(2, "auto")
    assert recorded() == "fp32"
    go_on(3, "bf16")
    assert recorded() == "bf16"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    output = go_on(4, "auto")
    assert "Precision: bf16 (train.dtype=auto: that of the run's newest checkpoint)" in output
    assert "warning: train.dtype=bf16 is slow here" in output
    assert recorded() == "bf16"


def test_ranks_on_different_processors_agree(toy_packed: Path, tmp_path: Path) -> None:
    run_dir, port = tmp_path / "run", str(free_port())
    arguments = overrides(toy_packed, run_dir, "train.steps=1", "train.dtype=auto")
    ranks = []
    for rank, mask in enumerate(({}, MASKED)):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-m", "pretrain.train", *arguments],
                cwd=ROOT,
                env=os.environ | place | mask,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    try:
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], outputs
    assert "Precision: fp32 (train.dtype=auto: the slowest rank multiplies bf16 " in outputs[0]
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["train"]["dtype"] == "fp32"


@pytest.mark.parametrize(
    ("accelerator", "cluster", "float8", "dtype"),
    [
        ("h100", "local", False, "bf16"),
        ("cpu", "slurm", False, "fp32"),
        ("auto", "slurm", False, "fp32"),
        ("auto", "local", False, "fp32"),
        ("cpu", "local", True, "bf16"),
    ],
)
def test_a_plan_reckons_with_the_dtype_that_its_devices_get(
    accelerator: str, cluster: str, float8: bool, dtype: str
) -> None:
    data = {"accelerator": accelerator, "cluster": {"kind": cluster}}
    assert fill.on_paper(TrainConfig(1, 1, 1, float8=float8), data, "cpu").dtype == dtype
    assert fill.on_paper(TrainConfig(1, 1, 1, dtype="fp64"), data, "cpu").dtype == "fp64"


def test_auto_is_the_default_everywhere() -> None:
    assert TrainConfig(1, 1, 1).dtype == "auto"
    experiments = sorted(p.stem for p in (ROOT / "configs" / "experiment").glob("*.yaml"))
    for words in ([], *([f"experiment={name}"] for name in experiments)):
        assert edge.load("plan", PlanRun, words).train.dtype == "auto"
    for verb, schema in (("evaluate", EvaluateRun), ("generate", GenerateRun)):
        words = ["run.dir=runs/a", *(["prompt=x"] if verb == "generate" else [])]
        assert edge.load(verb, schema, words).dtype == "auto"

"""One dial: the size of a model or the compute of a run, and everything that follows from it, with the reasons.

`model.size` and `budget` work in `arriero train` and `arriero launch` too, where the packed dataset gives the vocabulary
and the ranks the world; here nothing is needed. Keys that are set win; each line shows the key that overrides it.

Examples:

    # a model of 160M parameters, trained on 20 tokens a parameter by one GPU
    arriero size model.size=160m accelerator=h100 vocab_size=16384 train.sequence_length=2048

    # what 1e22 FLOPs are best spent on, on two nodes of eight GPUs, kept as configs/experiment/mine.yaml
    arriero size budget=1e22 cluster.nodes=2 cluster.nproc=8 accelerator=h100 output=configs/experiment/mine.yaml

    # a day of eight H100 on a model of 1.3B, with a packed dataset and a learning rate of one's own
    arriero size model.size=1.3b budget=24h cluster.nproc=8 accelerator=h100 data.path=data/web/packed optim.lr=2e-4
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import PlanRun
from data_pipeline.packed.files import write_atomically
from pretrain.sizing import fill
from pretrain.sizing.derive import Sized
from pretrain.sizing.shape import format_size


def experiment(sized: Sized, command: str) -> str:
    """The derived numbers as the text of a `configs/experiment/NAME.yaml`, with the reasoning in comments."""
    nested: dict[str, dict[str, Any]] = {}
    for reason in sized.reasons:
        if "." in reason.key:
            section, name = reason.key.split(".", 1)
            nested.setdefault(section, {})[name] = reason.value
    reasons = "".join(f"#{line}\n" for line in sized.table().splitlines())
    return f"# @package _global_\n# {command}\n{reasons}" + yaml.safe_dump(nested, sort_keys=False)


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero size`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    held: list[Sized] = []

    def derive(data: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
        if data["model"].get("size") is None and data.get("budget") is None and "model" not in chosen:
            raise ConfigError("give a dial: model.size=160m, budget=1e19 (or 24h), or both")
        world_size, accelerator = fill.cluster_of(data)
        held.append(fill.size(data, chosen, world_size, accelerator()))
        return data

    def run(config: PlanRun) -> int:
        sized = held[-1]
        f = sized.placed.footprint
        world_size = sized.placed.layout.world_size
        ranks = "1 rank" if world_size == 1 else f"{world_size:,} ranks"
        print(sized.table())
        print(
            f"\n  {format_size(sized.parameters)} parameters, {sized.tokens:.3g} tokens, {sized.compute:.3g} FLOPs: "
            f"{f.seconds * sized.steps / 3600:.3g} hours on "
            f"{ranks}, {f.seconds:.3g} s a step at {f.mfu:.0%} of the peak (estimated)"
        )
        if config.output is not None:
            write_atomically(Path(config.output), experiment(sized, "arriero size " + " ".join(arguments)))
            print(f"  written to {config.output}")
        return 0

    return edge.main("size", PlanRun, run, __doc__ or "", arguments, derive=derive)


if __name__ == "__main__":
    from launch.cli import guarded

    sys.exit(guarded(main))

"""What a configuration asks of Slurm, as options of sbatch and srun. Pure functions, for training and data jobs alike."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from configs.edge import ConfigError
from configs.schema.train import ClusterConfig

FORMS = {
    "gpus-per-node": ("gres", "gpus", "gpus-per-task", "gpus-per-socket"),
    "cpus-per-task": ("cpus-per-gpu",),
    "mem": ("mem-per-cpu", "mem-per-gpu"),
}
"""Our option → other forms of the same request: where one of these is given, ours is left out."""


def gpus_per_node(cluster: ClusterConfig, device: str) -> int:
    """GPUs that a node's job asks for: one a process, unless the run is for CPUs or `cluster.gpus_per_node` says else."""
    if cluster.gpus_per_node is not None:
        return cluster.gpus_per_node
    return 0 if device == "cpu" else cluster.nproc


def options(given: Mapping[str, Any], key: str, ours: Iterable[str] = ()) -> dict[str, str | None]:
    """The options of a mapping such as `cluster.options`, by their long names.

    Args:
        given: name (with dashes or underscores) → value. true: an option without a value; false or null: none; a list: its
            entries, joined by commas.
        key: where it was configured, for messages.
        ours: options that must stay as they are.

    Returns:
        Long name → value; "" for an option without a value, None for one to leave out.

    Raises:
        ConfigError: a name that is no long option, one of `ours`, or a value that is a mapping.
    """
    named: dict[str, str | None] = {}
    for name, value in given.items():
        long = str(name).replace("_", "-").removeprefix("--")
        if not re.fullmatch(r"[a-z][a-z0-9-]+", long):
            raise ConfigError(
                f"`{key}` holds `{name}`; expected the long name of an option, such as qos or constraint"
            )
        if long in ours:
            raise ConfigError(
                f"`{key}.{name}` is set by arriero, which needs it as it is (keys of its own: cluster.nodes, "
                "cluster.nproc, cluster.time, …); leave it out"
            )
        if isinstance(value, dict):
            raise ConfigError(
                f"`{key}.{name}` must be a text, a number, true, false or a list, but it is {value!r}"
            )
        if value is True:
            named[long] = ""
        elif value is None or value is False:
            named[long] = None
        else:
            entries = value if isinstance(value, (list, tuple)) else [value]
            named[long] = ",".join(str(entry) for entry in entries)
    return named


def merge(own: Mapping[str, str | None], given: Mapping[str, str | None]) -> dict[str, str]:
    """Our options with those that were given: the given ones win, also in another form of the same request (`FORMS`)."""
    kept = {
        name: value
        for name, value in own.items()
        if name in given or not any(_asks(other, given.get(other)) for other in FORMS.get(name, ()))
    }
    return {name: value for name, value in {**kept, **given}.items() if value is not None}


def _asks(name: str, value: str | None) -> bool:
    """Whether an option asks for anything; `gres` counts where it is about GPUs, and not about licences or local disks."""
    return value is not None and (name != "gres" or "gpu" in value)


def directives(merged: Mapping[str, str]) -> str:
    """Options as the lines of a batch script."""
    return "\n".join(
        f"#SBATCH --{name}" + (f"={shlex.quote(value)}" if value else "") for name, value in merged.items()
    )


def words(merged: Mapping[str, str]) -> list[str]:
    """Options as words of a command line."""
    return [f"--{name}={value}" if value else f"--{name}" for name, value in merged.items()]

"""What stands with a field of a schema beside its type and its default: bounds, unit, and what a text means.

    steps: Annotated[int, Bounds(min=1)] = 1000
    timeout: Annotated[float, Bounds(above=0, unit="seconds")] = 60.0
    path: PackedFolder

`configs.build` checks them before anything is made of a configuration, and `--help` shows them. The aliases below say the
usual ones in a word.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

LARGEST = 2**63 - 1  # what an int64 tensor, a NumPy array and a Parquet column hold


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, why, and the nearest valid one."""


@dataclass(frozen=True)
class Bounds:
    """Numbers that a field takes. Every number must be finite, and an integer must fit 64 bits, without being told."""

    min: float | None = None
    """Smallest; null: none."""
    max: float | None = None
    """Largest; null: none."""
    above: float | None = None
    """What the number must exceed; null: nothing."""
    below: float | None = None
    """What the number must stay under; null: nothing."""
    unit: str = ""
    """Unit of the number, for messages and `--help`."""

    def admit(self, value: float) -> bool:
        """Whether the number lies within."""
        return (
            math.isfinite(value)
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.min is not None and self.max is not None:
            return f"from {_number(self.min)} to {_number(self.max)}"
        lower = "" if self.min is None else f"at least {_number(self.min)}"
        lower = lower if self.above is None else f"above {_number(self.above)}"
        upper = "" if self.max is None else f"at most {_number(self.max)}"
        upper = upper if self.below is None else f"below {_number(self.below)}"
        return " and ".join(part for part in (lower, upper) if part)


@dataclass(frozen=True)
class Verbatim:
    """Text for people or models: taken exactly as typed, `${…}` included, and possibly empty."""


@dataclass(frozen=True)
class Name:
    """Text that must not be empty."""


@dataclass(frozen=True)
class Day:
    """A date or a time, ISO 8601."""


@dataclass(frozen=True)
class Location:
    """A path: never empty; `~` and environment variables are replaced; `${key}` stands for another key's value."""

    kind: Literal["any", "packed", "data"] = "any"
    """`packed`: a packed dataset. `data`: the folder of a data run. For both, any of that folder, its `packed` and the
    manifest in it is understood."""
    may_be_empty: bool = False
    """Whether a saved configuration may hold an empty path; a person who types one is told in any case."""

    def resolve(self, text: str) -> str:
        """The path with everything replaced.

        Raises:
            ValueError: what is wrong with it, as the end of a sentence that begins with its key.
        """
        if not text.strip():
            if self.may_be_empty:
                return ""
            raise ValueError("is empty; name a folder or a file")
        # Not `Path.expanduser`, which would make one slash of the two of an address.
        path = os.path.expanduser(_with_environment(text))  # noqa: PTH111
        return {"any": lambda p: p, "packed": packed_folder, "data": data_folder}[self.kind](path)


def packed_folder(path: str) -> str:
    """The packed dataset that a path means: itself, `packed` in it, or the folder of the manifest that it is."""
    there = Path(path)
    if there.name == "manifest.json" and not there.is_dir():
        return str(there.parent)
    if not (there / "manifest.json").is_file() and (there / "packed" / "manifest.json").is_file():
        return str(there / "packed")
    return path


def data_folder(path: str) -> str:
    """The folder of the data run that a path means: itself, or the one above its packed dataset or manifest."""
    there = Path(path)
    if there.name == "manifest.json" and not there.is_dir():
        there = there.parent
        path = str(there)
    packed = there.name == "packed" and (there / "manifest.json").is_file()
    return str(there.parent) if packed and (there.parent / "config.yaml").is_file() else path


_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")


def _with_environment(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in os.environ:
            return os.environ[name]
        if Path(text).exists():  # a name that holds a `$`
            return match[0]
        raise ValueError(f"names the environment variable `{name}`, which is not set: {text!r}")

    return _VARIABLE.sub(value, text)


def is_day(text: str) -> bool:
    """Whether the text is a date or a time in ISO 8601."""
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def section(kind: type | None = None, option: str | None = None, **values: Any) -> Any:
    """A part of a schema that is a Hydra group too.

    Args:
        kind: dataclass of the part; without it the part is required, because only an option's file can give it.
        option: the option of the group that is chosen unless another is named; null: none.
        values: defaults of the part here that differ from those of its dataclass.
    """
    metadata = {"option": option}
    if kind is not None:
        return dataclasses.field(default_factory=functools.partial(kind, **values), metadata=metadata)
    return dataclasses.field(metadata=metadata)


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"


Count = Annotated[int, Bounds(min=0)]
Positive = Annotated[int, Bounds(min=1)]
Seed = Annotated[int, Bounds(min=0)]
Steps = Annotated[int, Bounds(min=1, unit="steps")]
StepCount = Annotated[int, Bounds(min=0, unit="steps")]
Tokens = Annotated[int, Bounds(min=1, unit="tokens")]
Sequences = Annotated[int, Bounds(min=1, unit="sequences")]
Bytes = Annotated[int, Bounds(min=1, unit="bytes")]
Characters = Annotated[int, Bounds(min=1, unit="characters")]
Words = Annotated[int, Bounds(min=1, unit="words")]
MiB = Annotated[int, Bounds(min=64, unit="MiB")]
Share = Annotated[float, Bounds(min=0, max=1)]
PositiveShare = Annotated[float, Bounds(above=0, max=1)]
AboveZero = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(min=0)]
Momentum = Annotated[float, Bounds(min=0, below=1)]
Number = Annotated[float, Bounds()]
# A week: what is longer is a slip of the pen, and clocks of libraries overflow.
Seconds = Annotated[float, Bounds(above=0, max=604_800, unit="seconds")]
Text = Annotated[str, Verbatim()]
NonEmpty = Annotated[str, Name()]
Date = Annotated[str, Day()]
AnyPath = Annotated[str, Location()]
PackedFolder = Annotated[str, Location("packed")]
DataFolder = Annotated[str, Location("data")]

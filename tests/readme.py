"""The commands of README.md, in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toyrun import ROOT

PROGRAMS = ("arriero", "torchrun", "python", "python3", "mkdir", "make", "pip")
"""What a command begins with."""


@dataclass(frozen=True)
class Command:
    text: str
    """As it stands, without its comment; lines that are continued are one."""
    line: int
    """Of README.md, from 1."""

    @property
    def program(self) -> str:
        return self.text.split()[0]


def commands() -> list[Command]:
    """Of code blocks, and between backticks in tables and text.

    Raises:
        ValueError: a line of a code block without a language that is neither a command nor a drawing.
    """
    found, block, pending = list[Command](), None, ""
    for number, line in enumerate((ROOT / "README.md").read_text().splitlines(), 1):
        if line.startswith("```"):
            block = line[3:].strip() or "shell" if block is None else None
        elif block == "shell" and "─" not in line and line.strip():
            pending += re.sub(r"\s+# .*", "", line).strip()
            if pending.endswith("\\"):
                pending = pending[:-1]
                continue
            parts = [part.strip() for part in pending.split(" && ")]
            if not all(part.split()[0] in (*PROGRAMS, ".") for part in parts):
                raise ValueError(f"README.md:{number} is no command that is known: {pending}")
            found.append(Command(pending, number))
            pending = ""
        elif block is None:
            spans = re.findall(r"`([^`]+)`", line)
            # `arriero average` alone is the name of a verb.
            found += [Command(s, number) for s in spans if s.split()[0] in PROGRAMS and len(s.split()) > 2]
    return found


def yaml_block() -> tuple[str, str]:
    """Path and content of the file that README.md shows."""
    (content,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return re.match(r"# (\S+),", content)[1], content  # type: ignore[index]

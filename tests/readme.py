"""The commands of README.md, in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toyrun import ROOT

PROGRAMS = ("arriero", "torchrun", "python", "python3", "mkdir", "make", "pip")
"""What a command begins with."""
ALTERNATIVES = ("near=TEXT", "url=", "train", "launch")
"""What stands beside the commands of the table: another key for one of them, and other verbs."""


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
        ValueError: a line of a code block without a language that is neither a command nor a drawing, or words between
            backticks in the second column of a table that are no command.
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
            if line.startswith("| "):
                spans = re.findall(r"`([^`]+)`", line.split("|")[2])
                for span in spans:
                    if span.split()[0] not in PROGRAMS and span not in ALTERNATIVES:
                        raise ValueError(f"README.md:{number} is no command that is known: {span}")
            # `arriero average` alone is the name of a verb.
            found += [Command(s, number) for s in spans if s.split()[0] in PROGRAMS and len(s.split()) > 2]
    return found


def overrides() -> list[str]:
    """What the text, outside of code blocks, shows of command lines: words `key=value`."""
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    spans = [s for s in re.findall(r"`([^`]+)`", text) if re.match(r"'?[a-z][\w.@]*=", s)]
    return [s for s in spans if s not in (*ALTERNATIVES, "key=value", "sources=[…]")]


def yaml_block() -> tuple[str, str]:
    """Path and content of the file that README.md shows."""
    (content,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return re.search(r"^# (\S+\.yaml),", content, re.MULTILINE)[1], content  # type: ignore[index]


def python_block() -> str:
    """The Python that README.md shows."""
    (content,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(content)

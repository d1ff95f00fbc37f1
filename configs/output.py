"""What is printed, on terminals of any encoding."""

from __future__ import annotations

import io
import sys


def accept_all_text() -> None:
    r"""Let stdout and stderr write characters that their encoding lacks (`→` in ISO 8859-1) as `\u2192`, and not raise.

    A terminal of another encoding than UTF-8 would else end a training at its first line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")

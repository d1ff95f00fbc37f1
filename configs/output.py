"""What is printed, on terminals of any encoding."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable

EXIT_PIPE = 141
"""128 + SIGPIPE: whoever read the output has gone (`| head`)."""


def accept_all_text() -> None:
    r"""Let stdout and stderr write characters that their encoding lacks (`→` in ISO 8859-1) as `\u2192`, and not raise.

    A terminal of another encoding than UTF-8 would else end a training at its first line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def end_with_reader(call: Callable[[], int | None]) -> int:
    """Call; its status, or EXIT_PIPE without a word where the reader of stdout or stderr has gone.

    Raises:
        BrokenPipeError: of any other pipe or connection.
    """
    try:
        status = call() or 0
        sys.stdout.flush()  # here, where a closed pipe is handled, and not when the interpreter exits
        return status
    except BrokenPipeError:
        if discard_unread_output():
            return EXIT_PIPE
        raise


def discard_unread_output() -> bool:
    """Send stdout and stderr to /dev/null where nobody reads them any more; whether that was so for either.

    What their buffers still hold would otherwise raise again when the interpreter exits.
    """
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)  # an error is reported always
    unread = [descriptor for descriptor, event in poll.poll(0) if event & select.POLLERR]
    for descriptor in unread:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return bool(unread)

"""A reader that goes away (``fer-bench ... | head -1``) ends the command as Ctrl-C does, and quietly."""

from __future__ import annotations

import os
import sys
from typing import Any

CLOSED = 141  # what shells call the end by a closed pipe: 128 + SIGPIPE


class OutputClosed(KeyboardInterrupt):
    """Nobody reads the output any more. No handler of errors may take that for a fault of a file or of a method."""


class _Watched:
    """A stream whose broken pipe is :class:`OutputClosed`; everything else is the stream's own."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, as the stream does."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise _closed() from None

    def flush(self) -> None:
        """Flush, as the stream does."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise _closed() from None


def _closed() -> OutputClosed:
    """Let what is still buffered go nowhere, so that the interpreter's last flush does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return OutputClosed()


def watch_output() -> None:
    """Make a closed standard output, or error output, end the command, whoever writes to it."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), _Watched):
            setattr(sys, name, _Watched(getattr(sys, name)))

"""When the reader of a pipe goes away (``fer-bench ... | head -1``), the command ends quietly, as after Ctrl-C."""

from __future__ import annotations

import os
import sys
from typing import Any

CLOSED = 141  # the shells' exit code for a closed pipe: 128 + SIGPIPE


class OutputClosed(KeyboardInterrupt):
    """The output pipe was closed. A KeyboardInterrupt, so that no handler takes it for an error of a method."""


class _Watched:
    """Wraps a stream and raises :class:`OutputClosed` on a broken pipe."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the stream."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise _closed() from None

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise _closed() from None


def _closed() -> OutputClosed:
    """Redirect the remaining output to nowhere, so that the interpreter's final flush does not fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return OutputClosed()


def watch_output() -> None:
    """End the command when standard output or standard error is closed, whoever writes to it."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), _Watched):
            setattr(sys, name, _Watched(getattr(sys, name)))

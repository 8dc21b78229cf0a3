"""A listener that only passes on what it is told, to whoever may tell the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fer_bench.training.job import Listener


class Relay(Listener):
    """Hands every call to `tell`: the name of the listener's method, and its arguments.

    It hears of no objection: nothing that is told in this way is pruned.
    """

    def __init__(self, tell: Callable[..., None]):
        self._tell = tell

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Pass on that training starts."""
        self._tell("start", epochs, steps, done)

    def step(self, images: int, steps: int = 1) -> None:
        """Pass on steps."""
        self._tell("step", images, steps)

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Pass on an epoch."""
        self._tell("epoch", entry)

    def note(self, text: str) -> None:
        """Pass on a note."""
        self._tell("note", text)

    def warn(self, text: str) -> None:
        """Pass on a warning."""
        self._tell("warn", text)

    def close(self) -> None:
        """Pass on that training has ended."""
        self._tell("close")

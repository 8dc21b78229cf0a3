"""Progress of a long command: a bar on a terminal, otherwise an occasional line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 30.0  # seconds between lines if there is no terminal


class Steps:
    """Shows what is being done and how far it has got; a context manager that removes the bar at the end.

    If the output is not a terminal, work that takes less than EVERY seconds prints nothing.
    """

    def __init__(self, name: str):
        self.name = name
        self.bar: Progress | None = None
        self.what = ""
        self.last = time.monotonic()

    def __enter__(self) -> Steps:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        if (console := Console()).is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TaskProgressColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self.task = self.bar.add_task(self.name, total=1.0)
            self.bar.start()
        return self

    def __call__(self, what: str, done: float) -> None:
        """Show that the share `done` (0 to 1) of the work `what` is done."""
        now = time.monotonic()
        if self.bar is not None:
            if what != self.what:
                self.bar.reset(self.task, description=f"{self.name}: {what}")
            self.what = what
            self.bar.update(self.task, completed=done)
        elif now - self.last > EVERY:
            click.echo(f"{self.name}: {what}, {done:.0%} done")
            self.last = now

    def __exit__(self, *raised: object) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

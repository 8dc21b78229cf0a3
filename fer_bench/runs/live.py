"""What the terminal shows while a run trains: progress, images a second, time left, recall of the rarest class."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from fer_bench.base.credentials import hide
from fer_bench.printable import printable
from fer_bench.runs.spec import RunSpec, subset_in_words
from fer_bench.training.job import Listener


class _Speed(ProgressColumn):
    """Images a second over the last seconds of training."""

    def render(self, task: Task) -> Text:
        speed = task.fields.get("speed", 0.0)
        return Text(f"{speed:,.0f} img/s" if speed else "...")


class LiveListener(Listener):
    """A progress bar on a terminal; one line an epoch elsewhere.

    Parameters
    ----------
    label : str
        Method and seed.
    rarest : (int, str)
        Position and name of the class with fewest training images.
    """

    def __init__(self, label: str, rarest: tuple[int, str], console: Console | None = None):
        self.label, self.rarest = label, rarest
        self.console = console or Console()
        self.bar: Progress | None = None
        self.epochs = self.done = self.images = 0
        self.mark = time.perf_counter()

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Show the bar."""
        self.epochs, self.done, self.mark = epochs, done * steps, time.perf_counter()
        if self.console.is_terminal:
            text = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[note]}")
            self.bar = Progress(*text, _Speed(), TimeRemainingColumn(), console=self.console, transient=True)
            self.task = self.bar.add_task(self.label, total=epochs * steps, completed=self.done, note="", speed=0.0)
            self.bar.start()

    def step(self, images: int, steps: int = 1) -> None:
        """Move the bar, a few times a second at most."""
        self.images += images
        self.done += steps
        if self.bar is None:
            return
        now = time.perf_counter()
        if now - self.mark > 0.3:
            self.bar.update(self.task, completed=self.done, speed=self.images / (now - self.mark))
            self.images, self.mark = 0, now

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Show an epoch's scores."""
        place, name = self.rarest
        recall = entry["val_recall"][place]
        rare = "-" if recall is None else f"{100 * recall:.0f} %"
        scores = f"val mean recall {100 * entry['val_mean_recall']:.1f} %, {name} {rare}"
        number = entry["epoch"] + 1
        if self.bar is not None:
            self.bar.update(self.task, note=f"epoch {number}/{self.epochs}, {scores}")
        else:
            loss = entry.get("train_loss")
            trained = "" if loss is None else f"loss {loss:.3f}, "
            print(f"  {self.label}: epoch {number}/{self.epochs}, {trained}{scores}", flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


@dataclass(frozen=True)
class Live:
    """Makes the listener of a run; plain data, so that it can be sent to another process.

    `rarest` is the position and the name of the class with fewest training images.
    """

    rarest: tuple[int, str]

    def __call__(self, spec: RunSpec, label: str) -> Listener:
        """The listener of one run."""
        return LiveListener(f"{label}{subset_in_words(spec.subset)}, seed {spec.seed}", self.rarest)


def say(text: str) -> None:
    """Print one line at once, also into pipes."""
    print(printable(hide(text)), flush=True)


def warn(text: str) -> None:
    """Print one line to the error stream."""
    print(printable(hide(text)), file=sys.stderr, flush=True)

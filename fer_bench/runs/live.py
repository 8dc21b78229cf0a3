"""What the terminal shows while a run trains: progress, images a second, time left, recall of the rarest class."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
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


class Bars:
    """The terminal's progress bars, one below the other: one of each run at work. Without a terminal there are none."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console()
        self._progress: Progress | None = None

    @property
    def shown(self) -> bool:
        """Whether bars can be shown."""
        return self.console.is_terminal

    def add(self, label: str, *, total: int, done: int) -> TaskID:
        """Show a bar more, of `total` steps."""
        if self._progress is None:
            text = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[note]}")
            columns = (*text, _Speed(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._progress.start()
        return self._progress.add_task(label, total=total, completed=done, note="", speed=0.0)

    def update(self, bar: TaskID, **fields: Any) -> None:
        """Change what a bar shows."""
        if self._progress is not None:
            self._progress.update(bar, **fields)

    def remove(self, bar: TaskID) -> None:
        """Take a bar away."""
        if self._progress is not None:
            self._progress.remove_task(bar)
            if not self._progress.tasks:
                self._progress.stop()
                self._progress = None


class LiveListener(Listener):
    """A progress bar on a terminal; one line an epoch elsewhere.

    Parameters
    ----------
    label : str
        Method and seed.
    rarest : (int, str)
        Position and name of the class with fewest training images.
    bars : Bars
        Where the bar is shown, below those of other runs at work.
    """

    def __init__(self, label: str, rarest: tuple[int, str], bars: Bars):
        self.label, self.rarest, self.bars = label, rarest, bars
        self.bar: TaskID | None = None
        self.epochs = self.done = self.images = 0
        self.mark = time.perf_counter()

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Show the bar."""
        self.epochs, self.done, self.mark = epochs, done * steps, time.perf_counter()
        if self.bars.shown:
            self.bar = self.bars.add(self.label, total=epochs * steps, done=self.done)

    def step(self, images: int, steps: int = 1) -> None:
        """Move the bar, a few times a second at most."""
        self.images += images
        self.done += steps
        if self.bar is None:
            return
        now = time.perf_counter()
        if now - self.mark > 0.3:
            self.bars.update(self.bar, completed=self.done, speed=self.images / (now - self.mark))
            self.images, self.mark = 0, now

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Show an epoch's scores."""
        place, name = self.rarest
        recall = entry["val_recall"][place]
        rare = "-" if recall is None else f"{100 * recall:.0f} %"
        scores = f"val mean recall {100 * entry['val_mean_recall']:.1f} %, {name} {rare}"
        number = entry["epoch"] + 1
        if self.bar is not None:
            self.bars.update(self.bar, note=f"epoch {number}/{self.epochs}, {scores}")
        else:
            loss = entry.get("train_loss")
            trained = "" if loss is None else f"loss {loss:.3f}, "
            print(f"  {self.label}: epoch {number}/{self.epochs}, {trained}{scores}", flush=True)

    def note(self, text: str) -> None:
        """Say it in a line of its own."""
        say(f"  {self.label}: {text}")

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bars.remove(self.bar)
            self.bar = None


@dataclass(frozen=True)
class Live:
    """Makes the listeners of runs; `rarest` is the position and the name of the class with fewest training images."""

    rarest: tuple[int, str]
    bars: Bars = field(default_factory=Bars)

    def __call__(self, spec: RunSpec, label: str) -> Listener:
        """The listener of one run."""
        return LiveListener(f"{label}{subset_in_words(spec.subset)}, seed {spec.seed}", self.rarest, self.bars)


def say(text: str) -> None:
    """Print one line at once, also into pipes."""
    print(printable(hide(text)), flush=True)


def warn(text: str) -> None:
    """Print one line to the error stream."""
    print(printable(hide(text)), file=sys.stderr, flush=True)

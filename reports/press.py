"""Figures printed beside the rest of a report, by a second process.

Matplotlib works in Python, where threads wait for one another. So the figures of a large study go to a process of their
own as soon as they are drawn, while this one computes the next section. What that process has not begun when there is
nothing else left to do, and what it could not do, is printed here: a report never depends on it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from fer_bench.reports import figures

MANY = 200  # runs from which a second process pays: it takes most of a second to start


class Press:
    """Prints figures; a context that ends when no more come."""

    def __enter__(self) -> Press:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of whatever was held, also after an error."""

    def take(self, figure: Figure, folder: Path, name: str) -> None:
        """Print ``<name>.svg`` and ``<name>.png`` into `folder`; the figure must not change any more."""
        figures.save(figure, folder, name)

    def finish(self) -> None:
        """Return when all figures that were taken are printed."""


class SharedPress(Press):
    """A press that shares its work with a second process; figures may be printed as late as in :meth:`finish`."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[Figure, Path]] = {}
        self._sheets = tempfile.TemporaryDirectory(prefix="fer-bench-")
        command = [sys.executable, "-P", "-m", "fer_bench.reports.press", self._sheets.name]
        quiet = subprocess.DEVNULL
        self._helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)

    def __exit__(self, *error: object) -> None:
        self._helper.kill()
        self._helper.communicate()
        self._sheets.cleanup()

    def take(self, figure: Figure, folder: Path, name: str) -> None:
        self._taken[name] = (figure, folder)
        with contextlib.suppress(Exception):  # what can't be handed on is printed by `finish`
            Path(self._sheets.name, name).write_bytes(pickle.dumps((figure, folder.absolute(), name)))
            assert self._helper.stdin is not None
            self._helper.stdin.write(f"{name}\n".encode())
            self._helper.stdin.flush()

    def finish(self) -> None:
        for name, (figure, folder) in reversed(self._taken.items()):
            if _claimed(Path(self._sheets.name, name)):
                figures.save(figure, folder, name)
        self._helper.communicate()
        for name, (figure, folder) in self._taken.items():
            if not all((folder / f"{name}.{kind}").exists() for kind in ("svg", "png")):
                figures.save(figure, folder, name)


def press_for(runs: int) -> Press:
    """The press for a report on that many runs."""
    return SharedPress() if runs >= MANY and len(os.sched_getaffinity(0)) > 1 else Press()


def _claimed(sheet: Path) -> bool:
    """Take a sheet, unless the other process has it: a file is renamed once."""
    try:
        os.rename(sheet, _taken(sheet))
    except FileNotFoundError:
        return False
    return True


def _taken(sheet: Path) -> Path:
    return sheet.with_name(f"{sheet.name}.taken")


def serve(sheets: Path) -> None:
    """Print the figures whose names come line by line; what fails is left to the other process."""
    for line in sys.stdin:
        sheet = sheets / line.rstrip("\n")
        with contextlib.suppress(Exception):
            if _claimed(sheet):
                figures.save(*pickle.loads(_taken(sheet).read_bytes()))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

"""Work of a report that a second process shares.

Most of a report is computed in Python, where threads wait for one another. So the report of a large study hands some of
its work to a process of its own: as jobs, which are calls of functions. Either process may claim a job, once. What the
second one has not begun when the first can't go on without it, and what it could not do, the first does itself: a
report never depends on its helper.

This module imports little: the second process starts with it, and imports what its jobs name when they come.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from fer_bench.base.scratch import Scratch

MANY = 200  # runs from which a second process pays: it takes most of a second to start

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Job(Generic[T]):
    """A call to be made; `sheet` is the file that hands it to the other process, None where it stays in this one."""

    function: Callable[..., T]
    arguments: tuple[Any, ...]
    sheet: Path | None = None

    def do(self) -> T:
        """Make the call here."""
        return self.function(*self.arguments)


class Work:
    """Jobs that this process does; a context that ends when no result is wanted any more."""

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of whatever was held, also after an error."""

    def add(self, function: Callable[..., T], *arguments: Any) -> Job[T]:
        """Take a call, to be made at any time until its result is asked for; the arguments must not change any more.

        It may be made twice, where a process dies over it.
        """
        return Job(function, arguments)

    def results(self, jobs: Sequence[Job[T]]) -> list[T]:
        """What the calls return, in the order of the jobs; each is to be asked for once."""
        return [job.do() for job in jobs]


class SharedWork(Work):
    """Work that a second process does in the order in which it came, while this one has other things to do."""

    def __init__(self) -> None:
        self._sheets = Scratch()
        self._added = 0
        self._over: set[str] = set()
        command = [sys.executable, "-P", "-m", "fer_bench.reports.facts.second_process", str(self._sheets.path)]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        self._helper = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True)

    def __exit__(self, *error: object) -> None:
        self._helper.kill()
        self._helper.communicate()
        self._sheets.release()

    def add(self, function: Callable[..., T], *arguments: Any) -> Job[T]:
        sheet = self._sheets.path / str(self._added)
        self._added += 1
        try:
            sheet.write_bytes(pickle.dumps((function, arguments)))
            assert self._helper.stdin is not None
            print(sheet.name, file=self._helper.stdin, flush=True)
        except Exception:  # what can't be handed on is done here, whatever the reason
            return Job(function, arguments)
        return Job(function, arguments, sheet)

    def results(self, jobs: Sequence[Job[T]]) -> list[T]:
        done: dict[Job[T], T] = {}
        for job in reversed(jobs):  # the helper begins at the other end
            if job.sheet is None or _claimed(job.sheet):
                done[job] = job.do()
        return [done[job] if job in done else self._received(job) for job in jobs]

    def _received(self, job: Job[T]) -> T:
        """The result of a job that the helper has claimed; done here where that fails."""
        assert job.sheet is not None
        self._wait_for(job.sheet.name)
        with contextlib.suppress(Exception):  # there is none, or it is cut off
            return pickle.loads(_result(job.sheet).read_bytes())
        return job.do()

    def _wait_for(self, name: str) -> None:
        """Return when the helper is over with a job, or dead."""
        assert self._helper.stdout is not None
        while name not in self._over:
            line = self._helper.stdout.readline()
            if not line:
                return
            self._over.add(line.rstrip("\n"))


def work_for(runs: int) -> Work:
    """The work of a report on that many runs, shared where that pays and can be."""
    if runs >= MANY and len(os.sched_getaffinity(0)) > 1:
        with contextlib.suppress(OSError):  # no room for a folder or a process
            return SharedWork()
    return Work()


def _claimed(sheet: Path) -> bool:
    """Take a job, unless the other process has it: a file is renamed once."""
    try:
        os.rename(sheet, _taken(sheet))
    except OSError:
        return False
    return True


def _taken(sheet: Path) -> Path:
    return sheet.with_suffix(".taken")


def _result(sheet: Path) -> Path:
    return sheet.with_suffix(".result")


def serve(sheets: Path) -> None:
    """Do the jobs that are named line by line, and name each that is over; what fails is left to the other process."""
    over, sys.stdout = sys.stdout, sys.stderr  # what a job prints is no name
    for line in sys.stdin:
        sheet = sheets / line.rstrip("\n")
        if _claimed(sheet):
            with contextlib.suppress(Exception):
                function, arguments = pickle.loads(_taken(sheet).read_bytes())
                _result(sheet).write_bytes(pickle.dumps(function(*arguments)))
        print(sheet.name, file=over, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

"""A second process that shares the work of a report.

Most of a report is computed in Python, where threads wait for one another. So the report of a large study gives some of
its work to a second process, the helper, as jobs: calls of functions. Either process may claim a job, once. The first
process does every job that the helper has not begun by the time its result is needed, or that failed in the helper, so
a report never depends on its helper.

This module imports little: the helper starts with it, and imports what its jobs name when they come.

Why not ``concurrent.futures.ProcessPoolExecutor`` with one worker? It was tried with spawn and with forkserver:

- The worker outlives a first process that is killed: ten minutes after the kill it was still there. This helper ends
  with the pipe that it reads.
- Both methods import the program's main file in the worker. A script without ``if __name__ == "__main__"`` that
  trains and then reports would train again there. This helper imports no file of the user's.
- Two calls count as running as soon as they are submitted and can't be taken back, so a worker that is slow to start,
  or stopped, holds up the report. Here the first process takes every job that the helper has not begun.
- Killing a worker at once, after an error, takes private attributes before Python 3.14.
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

from fer_bench.base import process
from fer_bench.base.scratch import Scratch

MANY = 200  # runs from which a helper saves time: it takes most of a second to start

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Job(Generic[T]):
    """A call to be made; `sheet` is the file that passes it to the helper, None if it stays in this process."""

    function: Callable[..., T]
    arguments: tuple[Any, ...]
    sheet: Path | None = None

    def do(self) -> T:
        """Make the call here."""
        return self.function(*self.arguments)


class Work:
    """Jobs that this process does; a context that ends when no more results are wanted."""

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *error: object) -> None:
        """Release all resources, after an error as well."""

    def add(self, function: Callable[..., T], *arguments: Any) -> Job[T]:
        """Accept a call, to be made at any time before its result is asked for; until then its arguments must stay.

        It may be made twice, if a process dies during it.
        """
        return Job(function, arguments)

    def results(self, jobs: Sequence[Job[T]]) -> list[T]:
        """What the calls return, in the order of the jobs. Ask for each result once."""
        return [job.do() for job in jobs]


class SharedWork(Work):
    """Jobs that the helper does in the order in which they come, while this process is busy with other things."""

    def __init__(self) -> None:
        self._sheets = Scratch()
        self._added = 0
        self._finished: set[str] = set()
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
        except Exception:  # what can't be passed on is done here, whatever the reason
            return Job(function, arguments)
        return Job(function, arguments, sheet)

    def results(self, jobs: Sequence[Job[T]]) -> list[T]:
        done: dict[Job[T], T] = {}
        for job in reversed(jobs):  # the helper starts from the other end
            if job.sheet is None or _claimed(job.sheet):
                done[job] = job.do()
        return [done[job] if job in done else self._received(job) for job in jobs]

    def _received(self, job: Job[T]) -> T:
        """The result of a job that the helper has claimed; if the helper fails, the job is done here."""
        assert job.sheet is not None
        self._wait_for(job.sheet.name)
        with contextlib.suppress(Exception):  # it is missing or incomplete
            return pickle.loads(_result(job.sheet).read_bytes())
        return job.do()

    def _wait_for(self, name: str) -> None:
        """Return when the helper has finished a job, or has died."""
        assert self._helper.stdout is not None
        while name not in self._finished:
            line = self._helper.stdout.readline()
            if not line:
                return
            self._finished.add(line.rstrip("\n"))


def work_for(runs: int) -> Work:
    """The work of a report on `runs` runs: shared, if there are many and a helper can be started."""
    if runs >= MANY and process.cores() > 1:
        with contextlib.suppress(OSError):  # no room for a folder or a process
            return SharedWork()
    return Work()


def _claimed(sheet: Path) -> bool:
    """Claim a job, unless the other process has done so: a file can be renamed only once."""
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
    """Do the jobs that standard input names, one a line; print the name of each when it is finished or has failed."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a job prints must not be taken for a name
    for line in sys.stdin:
        sheet = sheets / line.rstrip("\n")
        if _claimed(sheet):
            with contextlib.suppress(Exception):
                function, arguments = pickle.loads(_taken(sheet).read_bytes())
                _result(sheet).write_bytes(pickle.dumps(function(*arguments)))
        print(sheet.name, file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

"""What carries out the runs of a study, and which of them may begin: the seam where other ways of running them fit in.

A :class:`Pool` carries out runs and tells what happened to each; it decides nothing. :class:`Here` carries out one
after the other in this thread, :class:`fer_bench.launch.jobs.Jobs` several at once on this machine. A :class:`Queue`
says which run is next, so that all pools agree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from fer_bench.record.ledger import RunRecord
from fer_bench.runs.executor import Workplace, execute
from fer_bench.runs.spec import RunSpec


@dataclass(frozen=True)
class Task:
    """A run of a study: its id, its spec, how lines about it begin, and the id of the run that it is read out of.

    `alone`: no other is at work while it is.
    """

    key: str
    spec: RunSpec
    title: str
    base: str | None = None
    alone: bool = False

    @property
    def touches(self) -> set[str]:
        """The runs that this one may train: itself, and the run that it is read out of."""
        return {self.key} if self.base is None else {self.key, self.base}


@dataclass(frozen=True)
class Ended:
    """What became of a task: its record, or the exception that ended it."""

    task: Task
    record: RunRecord | None = None
    error: Exception | None = None


class Pool(Protocol):
    """Carries out runs. All its methods are called from one thread, and it calls `started` and listeners from there."""

    size: int

    def begin(self, task: Task, work: Workplace, started: Callable[[], None]) -> None:
        """Carry out a run; `started` is called when its work begins. At most `size` runs are asked for at once."""

    def wait(self, seconds: float | None = None) -> Ended | None:
        """The next run to end; None if none has after so many seconds."""

    def close(self) -> None:
        """End whatever is still at work; unfinished runs can be resumed."""


class Here:
    """Carries out one run after the other, in this thread."""

    size = 1

    def __init__(self) -> None:
        self._ended: Ended | None = None

    def begin(self, task: Task, work: Workplace, started: Callable[[], None]) -> None:
        """Carry out a run, and return when it has ended."""
        self._ended = attempt(task, work, started)

    def wait(self, seconds: float | None = None) -> Ended | None:
        """The run that has ended."""
        ended, self._ended = self._ended, None
        return ended

    def close(self) -> None:
        """Nothing is at work."""


def attempt(task: Task, work: Workplace, started: Callable[[], None]) -> Ended:
    """Carry out a task; what it raises belongs to the answer."""
    try:
        return Ended(task, record=execute(task.spec, work, started=started))
    except Exception as error:
        return Ended(task, error=error)


class Queue:
    """Runs that are still to be carried out, in their order, and those that are being carried out.

    A run waits while another one is at work that may train the same network: the run that both are read out of. Runs
    that another process holds, and runs that are to be tried again alone, are kept aside.
    """

    def __init__(self, tasks: Iterable[Task]):
        self._todo = deque(tasks)
        self._held: deque[Task] = deque()
        self._alone: deque[Task] = deque()
        self._running: dict[str, Task] = {}
        self._crowded: set[str] = set()  # runs beside which another one was at work
        self._retried: set[str] = set()

    def __len__(self) -> int:
        """How many runs have not ended."""
        return len(self._todo) + len(self._held) + len(self._alone) + len(self._running)

    @property
    def running(self) -> int:
        """How many runs are at work."""
        return len(self._running)

    @property
    def held(self) -> int:
        """How many runs another process held when they were tried last."""
        return len(self._held)

    def take(self) -> Task | None:
        """The run that may begin now; None if there is none, or all have to wait."""
        if self._running.keys() & self._retried:
            return None
        busy = {key for task in (*self._running.values(), *self._alone) for key in task.touches}
        task = next((t for t in self._todo if not t.touches & busy), None)
        if task is not None:
            self._todo.remove(task)
        elif self._alone and not self._running:
            task = self._alone.popleft()
        else:
            return None
        self._running[task.key] = task
        self._crowded.discard(task.key)
        if len(self._running) > 1:
            self._crowded |= self._running.keys()
        return task

    def end(self, task: Task) -> None:
        """A run has ended, one way or another."""
        del self._running[task.key]

    def hold(self, task: Task) -> None:
        """Another process holds a run: keep it aside until :meth:`look_again`."""
        self.end(task)
        self._held.append(task)

    def look_again(self) -> None:
        """Let the runs that other processes held be taken again."""
        self._todo.extend(self._held)
        self._held.clear()

    def retry_alone(self, task: Task) -> bool:
        """Keep a run that memory did not suffice for until it can be tried again, alone.

        Returns False, and does nothing, where that is no use: no other was at work beside it, or it was alone already.
        """
        if task.key not in self._crowded or task.key in self._retried:
            return False
        self.end(task)
        self._retried.add(task.key)
        self._alone.append(replace(task, alone=True))
        return True

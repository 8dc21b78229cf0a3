"""Several runs at once on this machine: one thread for each, whose processes do the work.

The threads only prepare and wait: what trains and scores are processes of the fork server, a fresh one for each order
of each run, as when one run follows the other. What they tell is passed on to the thread that asks for it, so that
lines, progress and the mirror never mix.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from fer_bench.launch.relay import Relay
from fer_bench.launch.shares import least_used
from fer_bench.runs.executor import Workplace
from fer_bench.runs.forkserver import SERVER, Interrupted
from fer_bench.runs.pool import Ended, Task, attempt
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Listener

PATIENCE = 20.0  # seconds that threads are waited for after an interruption: their processes have ended already


@dataclass(frozen=True)
class _News:
    """Something that a run's thread has to tell: what it is, and how."""

    name: str
    tell: Callable[[], None]


class Jobs:
    """Carries out several runs at once; see :class:`fer_bench.runs.pool.Pool`.

    Parameters
    ----------
    size : int
        Most runs at once.
    threads : int
        CPU threads of each; 0: as the workplace says.
    devices : sequence of str
        Each run begins on the one with the fewest runs. Empty: as the workplace says.
    memory : int
        Bytes of main memory that are each run's share; 0: what is free when it begins.
    """

    def __init__(self, size: int, *, threads: int = 0, devices: Sequence[str] = (), memory: int = 0):
        self.size, self.threads, self.devices, self.memory = size, threads, tuple(devices), memory
        self._at_work: dict[str, tuple[threading.Thread, str]] = {}  # by key, with the device
        self._news: queue.SimpleQueue[Ended | _News] = queue.SimpleQueue()

    def begin(self, task: Task, work: Workplace, started: Callable[[], None]) -> None:
        """Start a thread that carries out a run."""
        runtime = work.runtime
        device = least_used(self.devices or (runtime.device,), [used for _, used in self._at_work.values()])
        runtime = replace(runtime, device=device, threads=self.threads or runtime.threads)
        if not task.alone:
            runtime = replace(runtime, beside=-(-self.size // max(1, len(self.devices))), memory=self.memory)
        work = replace(work, runtime=runtime, listener=partial(self._relay, work.listener))
        thread = threading.Thread(target=self._carry_out, args=(task, work, started), name=task.key, daemon=True)
        self._at_work[task.key] = thread, device
        thread.start()

    def _carry_out(self, task: Task, work: Workplace, started: Callable[[], None]) -> None:
        with contextlib.suppress(Interrupted):
            self._news.put(attempt(task, work, partial(self._news.put, _News("started", started))))

    def _relay(self, make: Callable[[RunSpec, str], Listener], spec: RunSpec, label: str) -> Listener:
        listener = make(spec, label)
        return Relay(lambda name, *told: self._news.put(_News(name, partial(getattr(listener, name), *told))))

    def wait(self, seconds: float | None = None) -> Ended | None:
        """The next run to end; meanwhile what the threads tell is passed on."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                news = self._news.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except queue.Empty:
                return None
            if isinstance(news, Ended):
                thread, _ = self._at_work.pop(news.task.key)
                thread.join()
                return news
            news.tell()

    def close(self) -> None:
        """End all processes, then the threads; without any at work this does nothing."""
        if not self._at_work:
            return
        SERVER.interrupt()
        end = time.monotonic() + PATIENCE
        for thread, _ in self._at_work.values():
            thread.join(max(0.0, end - time.monotonic()))
        while not self._news.empty():
            news = self._news.get()
            if isinstance(news, _News) and news.name == "close":
                news.tell()
        if not any(thread.is_alive() for thread, _ in self._at_work.values()):
            SERVER.go_on()
        self._at_work.clear()

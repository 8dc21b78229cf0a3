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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fer_bench.launch.shares import least_used
from fer_bench.runs.executor import Workplace
from fer_bench.runs.forkserver import SERVER, Interrupted
from fer_bench.runs.pool import Ended, Task, attempt
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Listener

PATIENCE = 20.0  # seconds that threads are waited for after an interruption: their processes have ended already


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
    """

    def __init__(self, size: int, *, threads: int = 0, devices: Sequence[str] = ()):
        self.size, self.threads, self.devices = size, threads, tuple(devices)
        self._at_work: dict[str, tuple[threading.Thread, str]] = {}  # by key, with the device
        self._news: queue.SimpleQueue[Ended | Callable[[], None]] = queue.SimpleQueue()

    def begin(self, task: Task, work: Workplace, started: Callable[[], None]) -> None:
        """Start a thread that carries out a run."""
        runtime = work.runtime
        device = least_used(self.devices or (runtime.device,), [used for _, used in self._at_work.values()])
        runtime = replace(runtime, device=device, threads=self.threads or runtime.threads)
        work = replace(work, runtime=runtime, listener=partial(self._relay, work.listener))
        thread = threading.Thread(target=self._carry_out, args=(task, work, started), name=task.key, daemon=True)
        self._at_work[task.key] = thread, device
        thread.start()

    def _carry_out(self, task: Task, work: Workplace, started: Callable[[], None]) -> None:
        with contextlib.suppress(Interrupted):
            self._news.put(attempt(task, work, partial(self._news.put, started)))

    def _relay(self, make: Callable[[RunSpec, str], Listener], spec: RunSpec, label: str) -> Listener:
        return _Relay(make(spec, label), self._news.put)

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
            news()

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
            if not isinstance(news, Ended) and getattr(news, "func", None) is _close:
                news()
        if not any(thread.is_alive() for thread, _ in self._at_work.values()):
            SERVER.go_on()
        self._at_work.clear()


def _close(listener: Listener) -> None:
    listener.close()


class _Relay(Listener):
    """Has the pool's own thread tell a listener what happens. It hears of no objection: nothing here is pruned."""

    def __init__(self, listener: Listener, pass_on: Callable[[Callable[[], None]], None]):
        self._listener, self._pass_on = listener, pass_on

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Pass on that training starts."""
        self._pass_on(partial(self._listener.start, epochs, steps, done))

    def step(self, images: int, steps: int = 1) -> None:
        """Pass on steps."""
        self._pass_on(partial(self._listener.step, images, steps))

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Pass on an epoch."""
        self._pass_on(partial(self._listener.epoch, entry))

    def note(self, text: str) -> None:
        """Pass on a note."""
        self._pass_on(partial(self._listener.note, text))

    def warn(self, text: str) -> None:
        """Pass on a warning."""
        self._pass_on(partial(self._listener.warn, text))

    def close(self) -> None:
        """Pass on that training has ended."""
        self._pass_on(partial(_close, self._listener))

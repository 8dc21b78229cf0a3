"""Locks on files and folders. The system holds them, and releases them when their process ends, however it ends.

All are made with ``flock``, which Linux and macOS have: one holder at a time, of an open file and not of a process, so
that two threads of a process exclude each other as well. Lock files stay where they are: removing one would let two
processes hold locks on two files of the same name. This module imports the standard library and our errors alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fer_bench.errors import LockedError

POLL = 0.1  # seconds between attempts at a lock that is waited for with a limit


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed; returns False where another holder has it.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share_lock(descriptor: int) -> None:
    """Hold an open file or folder together with others until it is closed: :func:`try_lock` fails meanwhile.

    Waits while somebody holds it alone.
    """
    fcntl.flock(descriptor, fcntl.LOCK_SH)


class FileLock:
    """The lock of one file, which is made if it is missing. Has the methods that Optuna wants of a journal's lock."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; returns whether it was."""
        return self._take(try_lock)

    def acquire(self) -> bool:
        """Wait for the lock, however long, and take it."""

        def wait(descriptor: int) -> bool:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return True

        return self._take(wait)

    def acquire_within(self, seconds: float) -> bool:
        """Wait for the lock for some seconds; returns whether it could be taken."""
        end = time.monotonic() + seconds
        while not self.try_acquire():
            if time.monotonic() >= end:
                return False
            time.sleep(POLL)
        return True

    def release(self) -> None:
        """Let go of the lock; without one this does nothing. A child that was forked meanwhile does not keep it."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _take(self, lock: Callable[[int], bool]) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if taken:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return taken


@contextlib.contextmanager
def locked(path: str | Path, message: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; its folder is made.

    Raises
    ------
    LockedError
        Another process or thread holds it; the error says `message`.
    """
    lock = FileLock(path)
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    if not lock.try_acquire():
        raise LockedError(message, where=str(path), hint="wait for it, or stop it")
    try:
        yield
    finally:
        lock.release()

"""Folders for half-written files: gone when the block ends, and swept by the next one when its process was killed.

A folder is held by a lock of the system, which ends with the process, however that ends. So what nobody holds is
rubbish, whoever made it and whenever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fer_bench.base.locks import try_lock

PREFIX = "fer-bench-"
HELD = ".held"  # ends the name of a folder from the moment on when it is locked


class Scratch:
    """A folder of one's own, to be released; the context manager is :func:`scratch`."""

    def __init__(self, parent: str | Path | None = None, prefix: str = PREFIX):
        parent = Path(parent or tempfile.gettempdir())
        sweep(parent, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # where the file system has no locks, nobody will sweep this one
            if try_lock(self._lock):
                self.path = self.path.rename(self.path.with_name(self.path.name + HELD))

    def release(self) -> None:
        """Remove the folder, then its lock; twice does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def scratch(parent: str | Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """An empty folder in `parent` (the system's temporary folder by default) that lasts as long as the block.

    What killed processes have left there under the same prefix is removed first.
    """
    held = Scratch(parent, prefix)
    try:
        yield held.path
    finally:
        held.release()


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove the folders of `parent` whose process is gone; those of other people are left alone."""
    for folder in parent.glob(f"{prefix}*{HELD}"):
        with contextlib.suppress(OSError):  # in use, gone meanwhile, or not ours
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid() and try_lock(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)

"""The folder on a node's own disk in which runs of a cluster work: the data once, and a home for every run.

::

    <temporary folder>/fer-bench-<user id>/
      lock             held while data are written, removed or taken into use
      data-<hash>/     the data of a study, written once a node, and shared by its runs
      run-<...>.held/  the home of one run

Who uses a folder holds a lock on it, which the system releases when the process ends, however it ends. What nobody
holds is rubbish, and the next run on the node removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from fer_bench.base.locks import FileLock, share_lock, try_lock
from fer_bench.base.scratch import scratch, sweep
from fer_bench.errors import ClusterError
from fer_bench.launch.parcel import unpack

DATA, RUN, PART = "data-", "run-", ".part"

Fetch = Callable[[], Mapping[str, np.ndarray]]


def node_folder() -> Path:
    """The folder, which is this user's alone; it is made if it is missing.

    Raises
    ------
    ClusterError
        Somebody else has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"fer-bench-{os.geteuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise ClusterError(
            "the node's folder for runs belongs to somebody else",
            where=str(folder),
            hint="start Ray on that node with TMPDIR set to another folder",
        )
    return folder


@contextlib.contextmanager
def run_home(digest: str, fetch: Fetch) -> Iterator[Path]:
    """A home for one run, whose data folder leads to the data with a hash, fetched if the node lacks them."""
    base = node_folder()
    with _shared_data(base, digest, fetch) as data, scratch(base, RUN) as home:
        (home / "data").symlink_to(data / "data")
        yield home


def tidy() -> None:
    """Remove what no run uses: homes of runs that were killed, and data."""
    base = node_folder()
    with _locked(base):
        sweep(base, RUN)
        _remove_unused(base)


@contextlib.contextmanager
def _shared_data(base: Path, digest: str, fetch: Fetch) -> Iterator[Path]:
    folder = base / f"{DATA}{digest}"
    with _locked(base):
        _remove_unused(base, spare=folder)
        if not folder.is_dir():
            part = folder.with_name(folder.name + PART)
            unpack(fetch(), part)
            part.rename(folder)
        use = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        share_lock(use)
    try:
        yield folder
    finally:
        os.close(use)


@contextlib.contextmanager
def _locked(base: Path) -> Iterator[None]:
    lock = FileLock(base / "lock")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_unused(base: Path, spare: Path | None = None) -> None:
    """Remove data that no process holds, and what is half written: whoever wrote it held the lock, and is gone."""
    for folder in base.glob(f"{DATA}*"):
        if folder == spare:
            continue
        use = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if try_lock(use):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(use)

"""The MLflow mirror of the ledger: filled after each run, or later, and never a reason for a training to stop.

The ledger stays the truth. Everything here can be thrown away and written again by ``fer-bench track sync``::

    experiment DATASET/PROTOCOL
      run STUDY                     command, report folder
        run METHOD · seed 0         parameters, curves, test scores, records, model.pt
        run METHOD · seed 1

A mirrored run carries the tag ``fer_bench.digest`` (a hash of the ledger's ``done.json``), written last. A run without
it was interrupted and is replaced. A run with the same digest is left alone, so that a second sync writes nothing.

:func:`sync` works in this process and raises. :func:`fer_bench.tracking.background.try_sync` is for the executor: it
works in a process of its own with a time limit, and answers with a sentence instead of raising.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_bench.base.addresses import check_uri, is_server, sqlite_path
from fer_bench.base.locks import FileLock
from fer_bench.errors import TrackingError
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger
from fer_bench.tracking import server
from fer_bench.tracking.mirror import Mirror, SyncResult
from fer_bench.tracking.mlflow_database import prepare_database, reachable
from fer_bench.tracking.places import sync_command
from fer_bench.tracking.translate import studies_of

LOCK_WAIT = 60.0  # seconds to wait for another process that mirrors the same ledger
Say = Callable[[str], None]


def silent(line: str) -> None:
    """Ignore a line."""


def sync(
    ledger: Ledger,
    study: str | None,
    uri: str,
    *,
    results: Path | None = None,
    timeout: float = 10,
    restore: bool = False,
    say: Say = silent,
    warn: Say = silent,
) -> SyncResult:
    """Bring MLflow up to date with a study of the ledger, or with all of them for None.

    If the database had to be created again, all studies are mirrored.

    Parameters
    ----------
    ledger : Ledger
    study : str or None
    uri : str
        Tracking URI: ``sqlite:///file.db``, a database, or the address of a server.
    results : Path, optional
        The study's report folder; by default where :class:`~fer_bench.record.home.Home` puts it.
    timeout : float
        Seconds that a server may stay silent.
    restore : bool
        Bring back experiments that were deleted in MLflow.
    say : callable
        Called with a line for every run written.
    warn : callable
        Called with a line if a database had to be created again.

    Raises
    ------
    TrackingError
        MLflow is missing, the URI can't be one, or the store does not answer. What was written so far is kept.
    LedgerError
        There is no such study.
    """
    check_uri(uri)
    studies_of(ledger, study, {})
    if is_server(uri):
        try:
            server.check_server(uri, timeout)
        except TrackingError as error:
            error.next = sync_command(ledger, study, uri)
            raise
    done = SyncResult()
    with server.http_limits(timeout), _lock(ledger), _opened(uri, warn) as (address, rebuilt):
        mirror = Mirror(ledger, uri, address, timeout, restore, say)
        for name, content in studies_of(ledger, None if rebuilt else study, done.failed).items():
            folder = results if results is not None and name == study else Home(ledger.root.parent).results(name)
            mirror.study(content, folder, done)
    return done


@contextmanager
def _opened(uri: str, warn: Say) -> Iterator[tuple[str, bool]]:
    """The address that MLflow opens for `uri`, and whether its database was created again."""
    path = sqlite_path(uri)
    if path is None:
        yield uri, False
        return
    rebuilt = prepare_database(path, warn)
    with reachable(path) as address:
        yield address, rebuilt


@contextmanager
def _lock(ledger: Ledger) -> Iterator[None]:
    """One mirror at a time, or two processes that finish together would both create the study's run."""
    lock = FileLock(ledger.root / ".mlflow.lock")
    try:
        free = lock.acquire_within(LOCK_WAIT)
    except OSError:  # a ledger that can only be read, or a file system without locks
        yield
        return
    if not free:
        raise TrackingError("another process is mirroring this ledger", where=str(ledger.root))
    try:
        yield
    finally:
        lock.release()

"""The SQLite file of an MLflow store: it appears whole or not at all, and one that was left half made is made anew.

MLflow creates a database where it is wanted, in seconds full of migrations; what is interrupted there can never be
opened again. So the first one is made aside and renamed. A complete database always holds MLflow's first experiment,
which is written last: that tells a half-made one from the database of another version.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fer_bench.base.addresses import SQLITE
from fer_bench.base.scratch import scratch
from fer_bench.errors import TrackingError

PLAIN = re.compile(r"[A-Za-z0-9_./+,=~-]+")  # what MLflow and SQLAlchemy take for a path in every version
QUIET = 5.0  # seconds without a write after which nobody is making a half-made database any more
HEADER = b"SQLite format 3\x00"
Say = Callable[[str], None]


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """An address under which MLflow finds `path`, whatever letters it holds.

    MLflow and the versions of SQLAlchemy disagree on quoting, and MLflow makes the folders that the quoted path names.
    So a path with letters of its own is reached through a link in the temporary folder.
    """
    if PLAIN.fullmatch(str(path)):
        yield f"{SQLITE}{path}"
        return
    place = tempfile.gettempdir() if PLAIN.fullmatch(tempfile.gettempdir()) else "/tmp"
    with scratch(place) as folder:
        link = folder / "mlflow.db"
        link.symlink_to(path)
        yield f"{SQLITE}{link}"


def prepare_database(path: Path, say: Say = lambda line: None, *, writable: bool = True) -> bool:
    """See to it that `path` is a database that MLflow can open; returns whether a half-made one was replaced.

    Raises
    ------
    TrackingError
        It can't be read, written or made, or the file is no database. A file that holds anything is never touched.
    """
    _check_access(path, writable)
    if not path.exists() or path.stat().st_size == 0:
        create(path)
        return False
    with open(path, "rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise TrackingError(
                "the file is not a SQLite database",
                where=str(path),
                hint="move it away; nothing is lost, the ledger holds everything",
            )
    if not _half_made(path):
        return False
    _check_access(path, True)
    aside = _set_aside(path)
    say(f"{path.name} was left half made by an interrupted process: it is now {aside.name}, and a new one is made")
    create(path)
    return True


def create(path: Path) -> None:
    """Make an empty database with MLflow's tables; it appears under its name when it is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with scratch() as folder:
            fresh = folder / "mlflow.db"
            with reachable(fresh) as uri:
                client(uri)
            part.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(fresh)) as made, contextlib.closing(sqlite3.connect(part)) as copy:
                made.backup(copy)
        _publish(part, path)
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise TrackingError(f"MLflow's database can't be made: {why}", where=str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def client(uri: str) -> Any:
    """An MLflow client whose store is open.

    Raises
    ------
    TrackingError
        MLflow can't be imported.
    """
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise TrackingError("mlflow can't be imported", hint=why, next="pip install mlflow") from error
    for name in ("mlflow", "alembic"):  # creating a database logs every one of its migrations
        logging.getLogger(name).setLevel(logging.ERROR)
    made = MlflowClient(tracking_uri=uri, registry_uri=uri)
    made.search_experiments(max_results=1)  # the store is opened on first use
    return made


def _check_access(path: Path, writable: bool) -> None:
    """Answer at once where MLflow would try for minutes."""
    folder = path.parent
    try:
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
        there = path.exists()
    except OSError as error:
        raise TrackingError(f"MLflow's database can't be reached: {error.strerror}", where=str(path)) from error
    if there and not _may(path, os.R_OK):
        raise TrackingError("MLflow's database can't be read: no permission", where=str(path))
    if writable and not (_may(folder, os.W_OK | os.X_OK) and (not there or _may(path, os.W_OK))):
        raise TrackingError("MLflow's database can't be written: no permission", where=str(path))


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _half_made(path: Path) -> bool:
    """Whether nothing was ever kept in it, and nobody is making it at this moment."""
    while _is_empty(path):
        if time.time() - path.stat().st_mtime > QUIET:
            return True
        time.sleep(0.2)
    return False


def _is_empty(path: Path) -> bool:
    mode = "rw" if _may(path, os.W_OK) else "ro"  # what a kill left in the journal is rolled back on opening
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            kept = [t for t in ("experiments", "runs", "registered_models") if t in names]
            return not any(database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in kept)
    except sqlite3.Error:  # locked, or damaged: not for us to judge
        return False


def _set_aside(path: Path) -> Path:
    """Rename the database and what SQLite keeps beside it; returns its new path."""
    number = 1
    while (aside := path.with_name(f"{path.stem}-half-made-{number}{path.suffix}")).exists():
        number += 1
    for ending in ("-journal", "-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{aside}{ending}")
    return aside


def _publish(part: Path, path: Path) -> None:
    """Give the finished file its name, unless another process has been faster."""
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    if path.exists() and path.stat().st_size == 0:
        os.replace(part, path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            os.rename(part, path)

"""Where things lie: one home folder holds stores, the ledger, results and the MLflow store."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fer_bench.base.addresses import sqlite_uri
from fer_bench.base.names import DATASET, checked, locate
from fer_bench.errors import FerBenchError
from fer_bench.record.ledger import Ledger

REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
ANOTHER = "name another folder with --home DIR, or in FER_BENCH_HOME"


@dataclass(frozen=True)
class Home:
    """Paths below one root: ``data/``, ``ledger/``, ``results/``, ``tuning/`` and ``mlflow.db``."""

    root: Path

    @classmethod
    def find(cls, given: str | Path | None = None) -> Home:
        """The home that was given, else ``$FER_BENCH_HOME``, else the current folder."""
        return cls(Path(given or os.environ.get("FER_BENCH_HOME") or ".").resolve())

    def require_writable(self) -> None:
        """Refuse a home that can't be written before any work is done for it.

        Raises
        ------
        FerBenchError
            It is on a read-only disk, belongs to somebody else, or can't be a folder.
        """
        require_writable(self.root, "the home folder", ANOTHER)

    @property
    def data(self) -> Path:
        """Prepared stores, one folder a data set; downloaded or placed source files lie in ``data/raw/<name>``."""
        return self.root / "data"

    def store(self, dataset: str) -> Path:
        """Folder of a data set's prepared store."""
        return locate(self.data, checked(dataset, DATASET))

    def raw(self, dataset: str) -> Path:
        """Where a person puts the source files of a data set."""
        return locate(self.data / "raw", checked(dataset, DATASET))

    def splits(self, store: str, fingerprint: str) -> Path:
        """What was derived from one state of a store, which is named by its folder: split files, the clean manifest."""
        return self.data / "splits" / f"{store}-{fingerprint}"

    @property
    def ledger(self) -> Ledger:
        """The ledger of this home."""
        return Ledger(self.root / "ledger")

    def results(self, study: str) -> Path:
        """Folder of a study's report and figures."""
        return locate(self.root / "results", study)

    @property
    def options(self) -> tuple[str, ...]:
        """Options that a printed command needs to use this home; none where it is the default."""
        return () if Home.find() == self else ("--home", str(self.root))

    @property
    def tuning(self) -> Path:
        """Folder of search journals and of the best configurations."""
        return self.root / "tuning"

    @property
    def tracking_uri(self) -> str:
        """``$MLFLOW_TRACKING_URI``, else a SQLite store in this home."""
        return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(self.root / "mlflow.db")


def require_writable(folder: Path, name: str, hint: str | None = None) -> None:
    """See whether files can be made in a folder, or where it will be; raises FerBenchError, which calls it `name`."""
    try:
        place = folder
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):  # permissions alone do not tell: the disk may be read-only
            pass
    except OSError as error:
        raise FerBenchError(f"{name} can't be written: {error.strerror}", where=str(folder), hint=hint) from error


def refused(error: OSError) -> FerBenchError | None:
    """What to tell where the system refused a file or folder; None for an error that is our own."""
    if error.errno not in REFUSALS or error.filename is None:
        return None
    return FerBenchError(
        f"a file or folder can't be used: {error.strerror}", where=os.fsdecode(error.filename), hint=ANOTHER
    )

"""Where things lie: one home folder holds stores, the ledger, results and the MLflow store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fer_bench.ledger import Ledger
from fer_bench.names import DATASET, checked, locate


@dataclass(frozen=True)
class Home:
    """Paths below one root: ``data/``, ``ledger/``, ``results/``, ``tuning/`` and ``mlflow.db``."""

    root: Path

    @classmethod
    def find(cls, given: str | Path | None = None) -> Home:
        """The home that was given, else ``$FER_BENCH_HOME``, else the current folder."""
        return cls(Path(given or os.environ.get("FER_BENCH_HOME") or ".").resolve())

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
        """What a command that is to be typed must say to find this home; nothing where it is found anyway."""
        return () if Home.find() == self else ("--home", str(self.root))

    @property
    def tuning(self) -> Path:
        """Folder of search journals and of the best configurations they found."""
        return self.root / "tuning"

    @property
    def tracking_uri(self) -> str:
        """``$MLFLOW_TRACKING_URI``, else a SQLite store in this home."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

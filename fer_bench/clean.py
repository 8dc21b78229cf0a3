"""The clean manifest: which rows of a store a careful study leaves out, and why.

::

    data/splits/<data set>-<fingerprint>/clean.csv      row,reason,kept     kept: the row that stands for it, if any
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_bench.atomic import write_text
from fer_bench.errors import DataError

NAME = "clean.csv"


@dataclass(frozen=True, eq=False)
class CleanManifest:
    """Rows to leave out, int64 ascending, with the reason of each, and the hash of the file they stand in."""

    rows: np.ndarray
    reasons: tuple[str, ...]
    sha256: str


def save_clean(folder: Path, rows: Iterable[tuple[int, str, int | None]]) -> Path:
    """Write (row, reason, kept row or None) lines, ascending, into `folder`; returns the file's path."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "reason", "kept"])
    writer.writerows((row, reason, "" if kept is None else kept) for row, reason, kept in sorted(rows))
    write_text(folder / NAME, out.getvalue())
    return folder / NAME


def load_clean(folder: Path) -> CleanManifest:
    """Read the manifest in the folder of a store's derived files (:meth:`fer_bench.home.Home.splits`).

    Raises
    ------
    DataError
        There is none, or it is damaged.
    """
    path = folder / NAME
    name = folder.name.rpartition("-")[0]
    again = f"fer-bench data check {name}"
    if not path.is_file():
        raise DataError(f"'{name}' has no clean manifest yet", where=str(path), next=again)
    text = path.read_text(encoding="utf-8")
    try:
        lines = list(csv.DictReader(io.StringIO(text)))
        rows = np.asarray([int(line["row"]) for line in lines], dtype=np.int64)
        reasons = tuple(line["reason"] for line in lines)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the clean manifest can't be read: {error}", where=str(path), next=again) from error
    return CleanManifest(rows, reasons, hashlib.sha256(text.encode()).hexdigest())

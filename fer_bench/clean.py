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
from fer_bench.names import name_of

NAME = "clean.csv"
HEADER = ["row", "reason", "kept"]

Dropped = tuple[int, str, int | None]
"""A row to leave out, why, and the row that stands for it, if any."""


@dataclass(frozen=True, eq=False)
class CleanManifest:
    """Rows to leave out, int64 ascending, with the reason of each, and the hash of the file they stand in."""

    rows: np.ndarray
    reasons: tuple[str, ...]
    sha256: str


def save_clean(folder: Path, rows: Iterable[Dropped]) -> Path:
    """Write (row, reason, kept row or None) lines, ascending, into `folder`; returns the file's path."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
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
    name = name_of(folder.name.rpartition("-")[0])
    again = f"fer-bench data check {name}"
    if not path.is_file():
        raise DataError(f"'{name}' has no clean manifest yet", where=str(path), next=again)
    text = path.read_text(encoding="utf-8")
    try:
        reader = csv.DictReader(io.StringIO(text))
        if reader.fieldnames != HEADER:
            raise ValueError(f"its columns are {reader.fieldnames}")
        lines = list(reader)
        rows = np.asarray([int(line["row"]) for line in lines], dtype=np.int64)
        reasons = tuple(line["reason"] for line in lines)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the clean manifest can't be read: {error}", where=str(path), next=again) from error
    return CleanManifest(rows, reasons, hashlib.sha256(text.encode()).hexdigest())


def rows_to_drop(
    flat: np.ndarray, exact: np.ndarray, near: np.ndarray, labels: np.ndarray, rank: np.ndarray
) -> list[Dropped]:
    """Decide which rows a clean data set leaves out: the same for the same store, on every machine.

    Parameters
    ----------
    flat : bool [n]
        Images of one grey, or almost.
    exact, near : int64 [n]
        Group numbers: pixel-equal images, and images of one photograph. A group of `exact` lies in one of `near`.
    labels : int64 [n]
        -1 for none, which conflicts with nothing.
    rank : int64 [n]
        Of each group the row of the lowest rank is kept, and of those the first.

    Returns
    -------
    list of (row, reason, kept row or None)
        Ascending: flat images, all rows of groups with more than one label, all but one row of the other groups.
    """
    dropped: list[Dropped] = [(int(row), "constant", None) for row in np.flatnonzero(flat)]
    for rows in grouped(near, ~flat):
        if conflicting(labels[rows]):
            dropped += [(int(row), "conflicting labels", None) for row in rows]
            continue
        kept = int(rows[np.lexsort((rows, rank[rows]))[0]])
        for row in rows[rows != kept].tolist():
            kind = "duplicate" if exact[row] == exact[kept] else "near-duplicate"
            dropped.append((row, f"{kind} of row {kept}", kept))
    return sorted(dropped)


def grouped(numbers: np.ndarray, among: np.ndarray | None = None) -> list[np.ndarray]:
    """The rows of every group of two or more equal numbers, by their first row; `among` (bool [n]) picks rows."""
    rows = np.arange(len(numbers)) if among is None else np.flatnonzero(among)
    order = rows[np.argsort(numbers[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(numbers[order])) + 1
    return sorted((g for g in np.split(order, edges) if len(g) > 1), key=lambda g: int(g[0]))


def conflicting(labels: np.ndarray) -> bool:
    """Whether there are two different labels; -1 is none."""
    return len(np.unique(labels[labels >= 0])) > 1

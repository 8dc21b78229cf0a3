"""The clean manifest: which rows of a store a careful study leaves out, and why.

::

    data/splits/<data set>-<fingerprint>/clean.csv      row,reason,kept     kept: the row that stands for it, if any
    data/splits/<data set>-<fingerprint>/clean.json     hash of that file, and the folder it was written for

A run leaves out what the doctor found, not what somebody wrote into the file since: an edited one is refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_bench.base.files import read_json, write_json, write_text
from fer_bench.base.names import name_of
from fer_bench.errors import DataError
from fer_bench.record.home import Home

NAME, PROOF = "clean.csv", "clean.json"
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
    """Write (row, reason, kept row or None) lines, ascending, into `folder`; returns the file's path.

    Its hash is written beside it, so that :func:`load_clean` knows the file again.
    """
    text = clean_text(rows)
    write_text(folder / NAME, text)
    write_json(folder / PROOF, {"sha256": _digest(text), "folder": folder.name})
    return folder / NAME


def clean_text(rows: Iterable[Dropped]) -> str:
    """The manifest as :func:`save_clean` writes it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((row, reason, "" if kept is None else kept) for row, reason, kept in sorted(rows))
    return out.getvalue()


def has_clean(folder: Path) -> bool:
    """Whether the doctor has left a manifest there, sound or not."""
    return (folder / NAME).is_file() and (folder / PROOF).is_file()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def load_clean(folder: Path) -> CleanManifest:
    """Read the manifest in the folder of a store's derived files (:meth:`fer_bench.record.home.Home.splits`).

    Raises
    ------
    DataError
        There is none, it is damaged, or it is not what the doctor wrote for this store.
    """
    path = folder / NAME
    name = name_of(folder.name.rpartition("-")[0])
    options = Home(folder.parents[2].resolve()).options if folder.parts[-3:-1] == ("data", "splits") else ()
    again = shlex.join(["fer-bench", "data", "check", name, *options])
    if not has_clean(folder):
        raise DataError(f"'{name}' has no clean manifest yet", where=str(path), next=again)
    text = _proven(path, again)
    try:
        reader = csv.DictReader(io.StringIO(text))
        if reader.fieldnames != HEADER:
            raise ValueError(f"its columns are {reader.fieldnames}")
        lines = list(reader)
        rows = np.asarray([int(line["row"]) for line in lines], dtype=np.int64)
        reasons = tuple(line["reason"] for line in lines)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the clean manifest can't be read: {error}", where=str(path), next=again) from error
    return CleanManifest(rows, reasons, _digest(text))


def _proven(path: Path, again: str) -> str:
    """The text of the manifest, if it is the one that was written for this folder."""
    try:
        text, proof = path.read_bytes().decode(), read_json(path.with_name(PROOF))
        written_for, digest = proof["folder"], proof["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the clean manifest can't be read: {error!r}", where=str(path), next=again) from error
    hint = "the doctor writes it anew; what else is to be left out must be taken out of the source files"
    if written_for != path.parent.name:
        what = f"the clean manifest is that of another state of the data, {written_for}"
        raise DataError(what, where=str(path), hint=hint, next=again)
    if digest != _digest(text):
        what = "the clean manifest has changed since the doctor wrote it"
        raise DataError(what, where=str(path), hint=hint, next=again)
    return text


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

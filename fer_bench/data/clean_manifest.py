"""The clean manifest: which rows of a store a careful study should leave out, and why.

::

    data/splits/<data set>-<fingerprint>/clean.csv      row,reason,kept     kept: the row kept in its place, if any
    data/splits/<data set>-<fingerprint>/clean.json     hash of that file, and the folder it was written for

A run leaves out exactly the rows that the doctor rejected: a manifest that has been edited since is refused.
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
"""A row to leave out, the reason, and the row kept in its place, if any."""


@dataclass(frozen=True, eq=False)
class CleanManifest:
    """Rows to leave out, int64 ascending, the reason for each, and the SHA-256 of the file that lists them."""

    rows: np.ndarray
    reasons: tuple[str, ...]
    sha256: str


def save_clean(folder: Path, rows: Iterable[Dropped]) -> Path:
    """Write (row, reason, kept row or None) lines, ascending, into `folder`; returns the file's path.

    Its hash is written next to it, so that :func:`load_clean` can tell whether it has been edited.
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
    """Whether there is a manifest in the folder, valid or not."""
    return (folder / NAME).is_file() and (folder / PROOF).is_file()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def load_clean(folder: Path) -> CleanManifest:
    """Read the manifest in the folder of a store's derived files (:meth:`fer_bench.record.home.Home.splits`).

    Raises
    ------
    DataError
        There is none, it is damaged, or it differs from what the doctor wrote for this store.
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
    """The text of the manifest, after checking that it is the one written for this folder."""
    try:
        text, proof = path.read_bytes().decode(), read_json(path.with_name(PROOF))
        written_for, digest = proof["folder"], proof["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the clean manifest can't be read: {error!r}", where=str(path), next=again) from error
    hint = "let the doctor rewrite it; to leave out further images, remove them from the source files"
    if written_for != path.parent.name:
        what = f"the clean manifest belongs to another version of the data, {written_for}"
        raise DataError(what, where=str(path), hint=hint, next=again)
    if digest != _digest(text):
        what = "the clean manifest has changed since the doctor wrote it"
        raise DataError(what, where=str(path), hint=hint, next=again)
    return text


def rows_to_drop(
    flat: np.ndarray, exact: np.ndarray, near: np.ndarray, labels: np.ndarray, rank: np.ndarray
) -> list[Dropped]:
    """Decide which rows a clean data set leaves out; the result is the same on every machine.

    Parameters
    ----------
    flat : bool [n]
        Images of a single grey value, or nearly.
    exact, near : int64 [n]
        Group numbers: identical images, and images of one photograph. Each group of `exact` lies within one of `near`.
    labels : int64 [n]
        -1 means no label, which conflicts with nothing.
    rank : int64 [n]
        Of each group the row of lowest rank is kept; of several, the first.

    Returns
    -------
    list of (row, reason, kept row or None)
        Ascending: flat images, all rows of groups with conflicting labels, and all but one row of the other groups.
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
    """The rows of every group of two or more equal numbers, ordered by first row; `among` (bool [n]) selects rows."""
    rows = np.arange(len(numbers)) if among is None else np.flatnonzero(among)
    order = rows[np.argsort(numbers[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(numbers[order])) + 1
    return sorted((g for g in np.split(order, edges) if len(g) > 1), key=lambda g: int(g[0]))


def conflicting(labels: np.ndarray) -> bool:
    """Whether there are two or more different labels; -1 means no label."""
    return len(np.unique(labels[labels >= 0])) > 1

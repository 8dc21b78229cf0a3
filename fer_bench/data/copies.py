"""Copies among the images of a store: where a run met them in training, and which test images belong together.

*Exact* copies have equal bytes. *Near* copies are images of one photograph, as the doctor finds them; exact copies are
near ones too. What the doctor finds is kept beside the split files:

::

    data/splits/<data set>-<fingerprint>/copies.json     the groups of near copies, with a hash of them
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.files import canonical_json, read_json, write_json
from fer_bench.data.clean_manifest import grouped
from fer_bench.record.ledger import EXACT_COPY, NEAR_COPY, OTHER_LABEL

NAME = "copies.json"


@dataclass(frozen=True, eq=False)
class Copies:
    """Which rows of a store are copies of each other.

    Attributes
    ----------
    exact, near : int64 [N]
        Group numbers: identical images, and images of one photograph. Each group of `exact` lies within one of `near`.
    reason : str
        Why near copies were not looked for, so that `near` equals `exact`; empty where they were.
    """

    exact: np.ndarray
    near: np.ndarray
    reason: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """For the record: whether near copies were looked for, and if not, why."""
        return {"near": not self.reason, "reason": self.reason}


def save_copies(folder: Path, copies: Copies) -> Path:
    """Write the groups of near copies into the folder of a store's derived files; returns the file's path."""
    groups = [rows.tolist() for rows in grouped(copies.near)]
    found = {"rows": len(copies.near), "reason": copies.reason, "groups": groups}
    write_json(folder / NAME, {**found, "sha256": _digest(found)})
    return folder / NAME


def load_copies(folder: Path, exact: np.ndarray) -> Copies | None:
    """What :func:`save_copies` wrote for the store with these groups of identical images (int64 [N]).

    None where there is no such file, or one that is damaged, edited, or of another store.
    """
    try:
        found = read_json(folder / NAME)
        digest = found.pop("sha256")
        if digest != _digest(found) or found["rows"] != len(exact):
            return None
        near = np.arange(len(exact))
        for rows in found["groups"]:
            near[rows] = rows[0]
        reason = str(found["reason"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return Copies(exact, near, reason) if (near == near[first_of_each(exact)]).all() else None


def _digest(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(found).encode()).hexdigest()


def first_of_each(group: np.ndarray) -> np.ndarray:
    """For each row, the first row of its group, int64 [n]."""
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    return first[number]


def copies_among(
    copies: Copies, rows: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray
) -> np.ndarray:
    """What copies each of some rows has among other rows; a row is no copy of itself.

    Parameters
    ----------
    rows, labels : int64 [n]
        The rows in question, and their labels.
    others, other_labels : int64 [m]
        The rows among which copies are looked for, each at most once, and their labels.

    Returns
    -------
    uint8 [n]
        0 for no copy, 1 for near copies only, 2 for an exact copy; 4 is added where a copy of that kind has another
        label.
    """
    out = np.zeros(len(rows), dtype=np.uint8)
    itself = np.isin(rows, others)
    most = 1 + max(labels.max(initial=0), other_labels.max(initial=0))
    for kind, group in ((NEAR_COPY, copies.near), (EXACT_COPY, copies.exact)):
        found = _number_of(group[rows], group[others]) - itself
        alike = _number_of(group[rows] * most + labels, group[others] * most + other_labels) - itself
        out = np.where(found > 0, kind + OTHER_LABEL * (alike < found), out).astype(np.uint8)
    return out


def _number_of(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """How often each of the values occurs among others, int64 [n]."""
    order = np.sort(among)
    return np.searchsorted(order, values, "right") - np.searchsorted(order, values, "left")


def joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Group numbers [N] of rows that are in one group of either relation, or linked through others that are."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = (np.unique(group, return_inverse=True)[1] for group in (one, other))
    size = int(first.max(initial=-1)) + 1
    total = size + int(second.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(first), dtype=np.int8), (first, size + second)), shape=(total, total))
    return connected_components(edges, directed=False)[1].astype(np.int64)[first]

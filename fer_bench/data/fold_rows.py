"""The rows one run trains, validates and tests on: one fold of a protocol, thinned by an imbalance profile."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.files import write_text
from fer_bench.contract.cards import DatasetCard, Protocol
from fer_bench.data.clean_manifest import CleanManifest, load_clean
from fer_bench.data.copies import Copies, copies_among, joined
from fer_bench.data.imbalance import Profile, file_name, pick
from fer_bench.data.splits import ROLES, Division, check_fold, divide
from fer_bench.data.store import Store
from fer_bench.errors import FerBenchError, SpecError
from fer_bench.record.home import Home

PEOPLE = ("subject", "sequence")  # columns that group images of the same person, the broadest first


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Rows of the store by role, and what training and validation need. For the test set: row numbers only.

    Attributes
    ----------
    rows, labels, counts : dict
        By role: store rows, class positions, images per class. Test labels are counted but never kept.
    soft : float32 array [n_train, C], optional
        Training targets, if the protocol takes them from votes.
    groups : int64 array [n_train], optional
        Subject (or the protocol's group) of each training image.
    classes : tuple of str
    facts : dict
        For the record: hashes of the split file and the clean manifest, and the number of rows left out.
    """

    rows: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    counts: dict[str, list[int]]
    groups: np.ndarray | None
    soft: np.ndarray | None
    classes: tuple[str, ...]
    facts: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """Hash over all rows and training targets; part of a run's id."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for role in ROLES:
            digest.update(np.asarray(self.rows[role], dtype="<i8").tobytes() + role.encode())
        for role in ("train", "val"):
            digest.update(np.asarray(self.labels[role], dtype="<i8").tobytes())
        if self.soft is not None:
            digest.update(np.asarray(self.soft, dtype="<f4").tobytes())
        return digest.hexdigest()[:16]


def clean_of(home: Home, store: Store, protocol: Protocol) -> CleanManifest | None:
    """The doctor's clean manifest if the protocol uses it; raises DataError if it is missing."""
    return load_clean(home.splits(store.path.name, store.fingerprint)) if protocol.clean else None


def roles_of(
    store: Store, card: DatasetCard, home: Home, *, protocol: str, fold: int, profile: str, subset: int = 0
) -> Roles:
    """The rows of a run on `store`, given the protocol's name, the numbers of fold and draw, and the profile's text.

    Raises
    ------
    DataError
        From :func:`fer_bench.data.splits.divide`, or if the clean manifest is missing.
    SpecError
        The protocol has no such fold, the profile needs more images than there are, or it keeps all of them, so that
        every draw is the same.
    """
    chosen, thinned = card.protocol(protocol), Profile.parse(profile)
    full_name = card.full_name(chosen)
    check_fold(chosen, fold, full_name)
    clean = clean_of(home, store, chosen)
    division = divide(store, card, chosen, clean)
    folder, name = home.splits(store.path.name, store.fingerprint), chosen.name.replace("/", "-")
    _publish(folder / f"{name}.csv", division.text)
    rows = dict(division.folds[fold])
    if not thinned.natural:
        rows["train"] = _thinned(thinned, division, rows["train"], f"{full_name}/fold{fold}", subset)
        listed = "\n".join(["row", *map(str, rows["train"].tolist())]) + "\n"
        draw = f"-subset{subset}" if subset else ""
        _publish(folder / f"{name}-fold{fold}-{file_name(profile)}{draw}.csv", listed)
    facts: dict[str, Any] = {"split_sha256": division.sha256, "fold": fold, "folds": chosen.folds}
    if clean is not None:
        facts["clean"] = {"sha256": clean.sha256, "rows": len(clean.rows)}
    number = len(division.classes)
    return Roles(
        rows=rows,
        labels={r: division.labels[rows[r]] for r in ("train", "val")},
        counts={r: np.bincount(division.labels[rows[r]], minlength=number).tolist() for r in ROLES},
        groups=_groups(store, chosen, rows["train"]),
        soft=_soft(store, chosen, division, rows["train"]),
        classes=division.classes,
        facts=facts,
    )


def draw_key(fold: str, subset: int) -> str:
    """The key of a draw of the subset: that of the fold for draw 0, another one for every further draw.

    The draws are independent of each other, and within each the subset of a larger ratio lies inside that of a smaller
    one.
    """
    return f"{fold}/subset{subset}" if subset else fold


def _thinned(profile: Profile, division: Division, rows: np.ndarray, fold: str, subset: int) -> np.ndarray:
    """The training rows that a draw keeps; raises SpecError for a further draw that can't differ from the first."""
    kept = pick(profile, division.labels[rows], division.classes, draw_key(fold, subset))
    if subset and len(kept) == len(rows):
        raise SpecError(
            "the profile keeps every training image, so all its draws are the same",
            where=f"imbalance profile '{profile}', subset {subset}",
            hint="leave out --subsets, or thin the training set with a profile such as exp:50",
        )
    return rows[kept]


def _publish(path: Path, text: str) -> None:
    """Write an index list for people to read; skipped if the home can't be written.

    Runs never read it back, so edits have no effect; an edited list is renamed, with a message.
    """
    try:
        if path.is_file() and path.read_bytes() != text.encode():
            aside = path.with_name(f"{path.name}.old")
            os.replace(path, aside)
            message = f"{path} differs from the protocol's split and was ignored; it was renamed to {aside.name}"
            print(message, file=sys.stderr, flush=True)
        if not path.is_file():
            write_text(path, text)
    except (OSError, FerBenchError):
        return


def _groups(store: Store, protocol: Protocol, train: np.ndarray) -> np.ndarray | None:
    name = protocol.group or "subject"
    values = store.columns(name)[name][train].astype(str)
    return np.unique(values, return_inverse=True)[1] if len(set(values.tolist())) > 1 else None


def _soft(store: Store, protocol: Protocol, division: Division, train: np.ndarray) -> np.ndarray | None:
    """Shares of the votes, float32 [n, C]; a row without votes for these classes keeps its label."""
    if not protocol.soft:
        return None
    votes = np.stack(list(store.columns(*protocol.soft).values()), axis=1)[train].astype(np.float64)
    empty = votes.sum(1) == 0
    votes[empty] = np.eye(votes.shape[1])[division.labels[train[empty]]]
    return (votes / votes.sum(1, keepdims=True)).astype(np.float32)


def labels_of_test(store: Store, card: DatasetCard, rows: np.ndarray, *, protocol: str) -> np.ndarray:
    """Class positions of test rows, int64 [n]; read only after the test has been opened."""
    chosen = card.protocol(protocol)
    labels = store.columns(chosen.label)[chosen.label][rows]
    if not chosen.classes:
        return labels.astype(np.int64)
    names = [store.classes[k] for k in labels.tolist()]
    return np.asarray([chosen.classes.index(n) for n in names], dtype=np.int64)


def groups_of_test(store: Store, rows: np.ndarray, labels: np.ndarray, copies: Copies) -> np.ndarray | None:
    """Group numbers of the test rows, int64 [n]: images that another test set would have drawn in one piece.

    Equal numbers mean the same group, in every fold. Images of one person belong together (of one sequence, if no
    subjects are known), and so do copies; a copy links the people that it is labelled as. Where nobody is named, copies
    with different labels stay apart: each class is sampled by itself then, and a unit of two classes would end that.

    Parameters
    ----------
    rows, labels : int64 [n]
        The rows, and their class positions.

    Returns
    -------
    int64 [n] or None
        None if every row of the store is a group of its own.
    """
    column = people_column(store, rows)
    if column is not None:
        names = store.columns(column)[column].astype(str)
        codes = np.unique(names, return_inverse=True)[1]
        people = np.where(names == "", len(names) + np.arange(len(names)), codes)  # each unnamed image by itself
        return joined(people, copies.near)[rows]
    if len(np.unique(copies.near)) == len(copies.near):
        return None
    return copies.near[rows] * len(store.classes) + labels


def people_column(store: Store, rows: np.ndarray) -> str | None:
    """The column that names the people on the test images, or their sequences if no person is named."""
    there = (name for name in PEOPLE if name in store.column_names)
    return next((name for name in there if (store.columns(name)[name][rows].astype(str) != "").any()), None)


def copies_of_test(copies: Copies, roles: Roles, labels: np.ndarray) -> np.ndarray:
    """What copies each test image has among the images of a run, uint8 [n, 2]: in training, and in validation.

    `labels` (int64 [n]) are the class positions of the test rows; see :func:`fer_bench.data.copies.copies_among` for
    the numbers.
    """
    met = [copies_among(copies, roles.rows["test"], labels, roles.rows[r], roles.labels[r]) for r in ("train", "val")]
    return np.stack(met, axis=1)


_KNOWN: dict[tuple, Roles] = {}
_ONE_AT_A_TIME = threading.Lock()  # runs that begin at once, in threads, divide the rows once
_MOST_KNOWN = 64  # roles that are remembered: folds, profiles and draws of a study, whatever its methods and seeds


def known_roles(
    store: Store, card: DatasetCard, home: Home, *, protocol: str, fold: int, profile: str, subset: int = 0
) -> Roles:
    """:func:`roles_of`, remembered: all runs of a study on one fold share the result, which nobody may change."""
    chosen = card.protocol(protocol)
    clean = clean_of(home, store, chosen)
    key = (str(store.path), store.fingerprint, repr(chosen), fold, profile, subset, clean and clean.sha256)
    with _ONE_AT_A_TIME:
        if key not in _KNOWN:
            while len(_KNOWN) >= _MOST_KNOWN:
                del _KNOWN[next(iter(_KNOWN))]
            _KNOWN[key] = roles_of(store, card, home, protocol=protocol, fold=fold, profile=profile, subset=subset)
        return _KNOWN[key]

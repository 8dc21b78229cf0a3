"""What one run trains, selects and tests on: its fold of the protocol, thinned by its imbalance profile."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.files import write_text
from fer_bench.contract.cards import DatasetCard, Protocol
from fer_bench.data.clean_manifest import CleanManifest, load_clean
from fer_bench.data.imbalance import Profile, file_name, pick
from fer_bench.data.splits import ROLES, Division, check_fold, divide
from fer_bench.data.store import Store
from fer_bench.errors import FerBenchError
from fer_bench.record.home import Home

PEOPLE = ("subject", "sequence")  # columns that name what several images are of, the widest first


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Rows of the store by role, and what training and validation need. Of the test there are row numbers only.

    Attributes
    ----------
    rows, labels, counts : dict
        By role: store rows, class positions, images per class. The test's labels are counted, never kept.
    soft : float32 array [n_train, C], optional
        Training targets where the protocol takes them from votes.
    groups : int64 array [n_train], optional
        Subject (or the protocol's group) of each training image.
    classes : tuple of str
    facts : dict
        For the record: hash of the split file, of the clean manifest, number of rows it leaves out.
    """

    rows: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    counts: dict[str, list[int]]
    groups: np.ndarray | None
    soft: np.ndarray | None
    classes: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        """Hash of every row and training target; part of a run's id."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for role in ROLES:
            digest.update(np.asarray(self.rows[role], dtype="<i8").tobytes() + role.encode())
        for role in ("train", "val"):
            digest.update(np.asarray(self.labels[role], dtype="<i8").tobytes())
        if self.soft is not None:
            digest.update(np.asarray(self.soft, dtype="<f4").tobytes())
        return digest.hexdigest()[:16]


def clean_of(home: Home, store: Store, protocol: Protocol) -> CleanManifest | None:
    """The doctor's clean manifest, where the protocol uses it; raises DataError where it is missing."""
    return load_clean(home.splits(store.path.name, store.fingerprint)) if protocol.clean else None


def roles_of(store: Store, card: DatasetCard, home: Home, *, protocol: str, fold: int, profile: str) -> Roles:
    """The rows of a run on `store`, from the protocol's name, the fold's number and the profile's text.

    Raises
    ------
    DataError
        From :func:`fer_bench.data.splits.divide`, or the clean manifest is missing.
    SpecError
        The protocol has no such fold, or the profile asks for more images than there are.
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
        kept = pick(thinned, division.labels[rows["train"]], division.classes, f"{full_name}/fold{fold}")
        rows["train"] = rows["train"][kept]
        listed = "\n".join(["row", *map(str, rows["train"].tolist())]) + "\n"
        _publish(folder / f"{name}-fold{fold}-{file_name(profile)}.csv", listed)
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


def _publish(path: Path, text: str) -> None:
    """Leave an index list where people find it; a home that can't be written does without.

    Runs never read it back: what an edited one says has no effect, so it is put aside, and that is said.
    """
    try:
        if path.is_file() and path.read_bytes() != text.encode():
            aside = path.with_name(f"{path.name}.old")
            os.replace(path, aside)
            said = "is not what the protocol makes of these data, and had no effect; it is kept as"
            print(f"{path} {said} {aside.name}", file=sys.stderr, flush=True)
        if not path.is_file():
            write_text(path, text)
    except (OSError, FerBenchError):
        return


def _groups(store: Store, protocol: Protocol, train: np.ndarray) -> np.ndarray | None:
    name = protocol.group or "subject"
    found = store.columns(name)[name][train].astype(str)
    return np.unique(found, return_inverse=True)[1] if len(set(found.tolist())) > 1 else None


def _soft(store: Store, protocol: Protocol, division: Division, train: np.ndarray) -> np.ndarray | None:
    """Shares of the votes; a row without any vote for these classes keeps its label."""
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


def groups_of_test(store: Store, rows: np.ndarray) -> np.ndarray | None:
    """Which test rows belong together, int64 [n]: those of one person, or of one sequence where nobody is named.

    Equal numbers mean the same group, in every fold. A row that names none stands alone; None where all rows do.
    """
    for name in PEOPLE:
        if name not in store.column_names:
            continue
        found = store.columns(name)[name].astype(str)
        if (found[rows] != "").any():
            codes = np.unique(found, return_inverse=True)[1]
            return np.where(found == "", len(found) + np.arange(len(found)), codes)[rows].astype(np.int64)
    return None


_DIGESTS: dict[tuple, str] = {}


def roles_digest(store: Store, card: DatasetCard, home: Home, *, protocol: str, fold: int, profile: str) -> str:
    """:attr:`Roles.digest` of a run; cached, because every run of a study asks for it several times."""
    chosen = card.protocol(protocol)
    clean = clean_of(home, store, chosen)
    key = (str(store.path), store.fingerprint, repr(chosen), fold, profile, clean and clean.sha256)
    if key not in _DIGESTS:
        _DIGESTS[key] = roles_of(store, card, home, protocol=protocol, fold=fold, profile=profile).digest
    return _DIGESTS[key]

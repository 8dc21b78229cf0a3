"""From a store and a protocol to rows: which images train, select and test, fold by fold.

Every random choice is an ordering by hashes, so a protocol gives the same rows on every machine and with any library
versions. The rows of all folds form one text file, whose hash is in each run's record:

::

    data/splits/<data set>-<fingerprint>/<protocol>.csv     row,fold0,fold1,...: train, val, test, val+test or nothing
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from fer_bench.contract.cards import DatasetCard, Protocol
from fer_bench.data.clean_manifest import CleanManifest
from fer_bench.data.store import Store
from fer_bench.errors import DataError, SpecError

ROLES = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Division:
    """A store divided by a protocol.

    Attributes
    ----------
    classes : tuple of str
        The classes that the protocol uses.
    labels : int64 [N]
        Positions in `classes`, one per row of the store; -1 for rows that are not used.
    folds : list of dict
        For each fold, the rows by role, ascending.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    folds: list[dict[str, np.ndarray]]

    @cached_property
    def text(self) -> str:
        """The split file: one line per row, one column per fold."""
        table = np.full((len(self.labels), len(self.folds)), "", dtype="<U8")
        for number, fold in enumerate(self.folds):
            for role in ROLES:
                table[fold[role], number] = role
            table[np.intersect1d(fold["val"], fold["test"]), number] = "val+test"
        head = ",".join(["row", *(f"fold{k}" for k in range(len(self.folds)))])
        return "\n".join([head, *(f"{k},{','.join(line)}" for k, line in enumerate(table.tolist()))]) + "\n"

    @property
    def sha256(self) -> str:
        """Hash of the split file."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def divide(store: Store, card: DatasetCard, protocol: Protocol, clean: CleanManifest | None = None) -> Division:
    """Divide a store by a protocol.

    Parameters
    ----------
    clean : CleanManifest, optional
        Rows to leave out of every role after dividing; needed by protocols with ``clean=True``, ignored by others.

    Raises
    ------
    DataError
        The store lacks a split, column or class that the protocol needs, a role is empty, or rows have no label.
    """
    where = card.full_name(protocol)
    key = card.full_name(card.protocol(protocol.of)) if protocol.of else where
    names = list(dict.fromkeys(["split", protocol.label, *([protocol.group] if protocol.group else [])]))
    columns = store.columns(*_present(store, names, where))
    classes, labels = _labels(store, protocol, columns[protocol.label], where)
    roles = _named_roles(protocol, columns["split"], card, store)
    pool = np.zeros(len(labels), dtype=bool)
    for rows in roles.values():
        pool[rows] = True
    _check_labels(pool & _takes_part(protocol, columns[protocol.label], store), labels, protocol, store, where)
    pool &= labels >= 0
    group = columns[protocol.group] if protocol.group else None
    if group is not None and (np.asarray(group[pool]).astype(str) == "").any():
        raise DataError(
            f"the protocol keeps each {protocol.group} together, but some images in the store have no {protocol.group}",
            where=f"{where}, layout '{store.manifest['layout']}'",
            hint=f"prepare from a layout that has it, or choose another protocol: {_others(card, protocol)}",
        )
    part = _Part(np.flatnonzero(pool), labels, group, key, len(classes), protocol.stratify)
    make = {"splits": _by_splits, "kfold": _by_folds, "shuffle": _by_shares, "blocks": _by_blocks}[protocol.scheme]
    rejected = clean.rows if protocol.clean and clean is not None else np.empty(0, np.int64)
    folds = [{r: np.setdiff1d(fold[r], rejected) for r in ROLES} for fold in make(protocol, part, roles)]
    for number, fold in enumerate(folds):
        _check_fold(fold, labels, classes, card, protocol, number, store)
    return Division(classes=classes, labels=labels, folds=folds)


@dataclass(frozen=True, eq=False)
class _Part:
    """The rows to divide, and what is needed to divide them."""

    rows: np.ndarray
    labels: np.ndarray
    group: np.ndarray | None
    key: str
    classes: int
    stratify: bool

    def within(self, rows: np.ndarray) -> _Part:
        """The subset of this part that is in `rows`."""
        kept = self.rows[np.isin(self.rows, rows)]
        return _Part(kept, self.labels, self.group, self.key, self.classes, self.stratify)

    def strata(self) -> list[np.ndarray]:
        """Rows of each class; all rows together if the division is not stratified."""
        if not self.stratify:
            return [self.rows]
        return [self.rows[self.labels[self.rows] == c] for c in range(self.classes)]


def _present(store: Store, names: list[str], where: str) -> list[str]:
    columns = store.column_names
    missing = [n for n in names if n not in columns]
    if missing:
        raise DataError(
            f"the store has no column '{missing[0]}', which the protocol needs",
            where=f"{where}, layout '{store.manifest['layout']}'",
            hint=f"columns: {', '.join(columns)}",
        )
    return names


# -- labels and named parts ------------------------------------------------------------------------------------------


def _labels(store: Store, protocol: Protocol, column: np.ndarray, where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes that are used, and every row's position among them."""
    if column.dtype.kind != "i":
        raise DataError(f"column '{protocol.label}' does not contain class positions", where=where)
    if not protocol.classes:
        return store.classes, column.astype(np.int64)
    missing = [c for c in protocol.classes if c not in store.classes]
    if missing:
        raise DataError(
            f"the store has no class '{missing[0]}'", where=where, hint=f"classes: {', '.join(store.classes)}"
        )
    place = np.full(len(store.classes) + 1, -1, dtype=np.int64)  # the last entry is for label -1
    for position, name in enumerate(protocol.classes):
        place[store.classes.index(name)] = position
    return tuple(protocol.classes), place[column]


def _takes_part(protocol: Protocol, column: np.ndarray, store: Store) -> np.ndarray:
    """Rows whose class is used, bool [N]; rows without a label count as used here."""
    if not protocol.classes:
        return np.ones(len(column), dtype=bool)
    kept = [k for k, name in enumerate(store.classes) if name in protocol.classes]
    return np.isin(column, [*kept, -1])


def _check_labels(taken: np.ndarray, labels: np.ndarray, protocol: Protocol, store: Store, where: str) -> None:
    without = int((taken & (labels < 0)).sum())
    if without and protocol.unlabelled == "error":
        raise DataError(
            f"{without} images have no label in layout '{store.manifest['layout']}'",
            where=where, hint="prepare from a layout with all labels",
            next=f"fer-bench data prepare {store.manifest['dataset']} --from PATH",
        )  # fmt: skip


def _named_roles(protocol: Protocol, split: np.ndarray, card: DatasetCard, store: Store) -> dict[str, np.ndarray]:
    """Rows of the splits that the protocol names; all rows as "train" if it names none."""
    if not (protocol.train or protocol.val or protocol.test):
        return {"train": np.arange(len(split))}
    roles = {}
    for role in ROLES:
        wanted = getattr(protocol, role)
        roles[role] = np.flatnonzero(np.isin(split, wanted))
        if wanted and len(roles[role]) == 0:
            raise DataError(
                f"the store has no {role} images",
                where=f"{card.full_name(protocol)}, {role} = {' + '.join(wanted)}",
                hint=f"its splits: {', '.join(sorted(set(split.tolist())))}; protocols: {_others(card, protocol)}",
                next=_way_out(card, protocol, store, set(split.tolist())),
            )
    return roles


def fitting(store: Store, card: DatasetCard) -> Protocol | None:
    """The card's first protocol if it fits the store, otherwise the sound one that fits best; None if none fits.

    Protocols that use the store's own splits are preferred to those that divide all images anew, and among the latter
    those that keep people together.
    """
    sound = [p for p in card.protocols[1:] if not p.watermark and not p.clean]
    for protocol in [*card.protocols[:1], *sorted(sound, key=lambda p: (p.scheme != "splits", not p.group))]:
        with contextlib.suppress(DataError):
            divide(store, card, protocol)
            return protocol
    return None


def protocol_that_fits(store: Store, card: DatasetCard) -> Protocol | None:
    """The protocol to use if the card's first one does not fit the store; None if it does, or if none fits."""
    protocol = fitting(store, card)
    return protocol if protocol is not card.protocols[0] else None


def _way_out(card: DatasetCard, protocol: Protocol, store: Store, splits: set[str]) -> str:
    """The next step: the first protocol that the store's splits allow, or another source."""
    again = f"fer-bench data prepare {store.manifest['dataset']} --from PATH"
    fit = [p for p in card.protocols if {*p.train, *p.val, *p.test} <= splits and not p.watermark]
    if not fit:
        return again
    other = card.cleaned(fit[0]) if protocol.of else fit[0]
    return f"rerun with --protocol {card.full_name(other)}, or {again}"


def _others(card: DatasetCard, protocol: Protocol) -> str:
    return ", ".join(card.full_name(p) for p in card.protocols if p is not protocol) or "none"


# -- the schemes -----------------------------------------------------------------------------------------------------


def _by_splits(protocol: Protocol, part: _Part, roles: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    train, val, test = (part.within(roles[r]).rows for r in ROLES)
    if protocol.val_is_test:
        return [{"train": train, "val": test, "test": test}]
    if protocol.holdout:
        train, val = _held_out(part.within(roles["train"]), protocol.holdout)
    return [{"train": train, "val": val, "test": test}]


def _by_folds(protocol: Protocol, part: _Part, roles: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    k = protocol.folds
    if part.group is not None and (there := len(set(part.group[part.rows].tolist()))) < k:
        raise DataError(
            f"{k} folds need at least {k} values of {protocol.group}, and there are {there}",
            where=part.key,
            hint="try a random protocol",
        )
    parts = share_out(part, [Fraction(1, k)] * k, "kfold")
    folds = []
    for number in range(k):
        test, val = parts[number], parts[number if protocol.val_is_test else (number + 1) % k]
        train = np.setdiff1d(part.rows, np.concatenate([test, val]))
        folds.append({"train": train, "val": val, "test": test})
    return folds


def _by_shares(protocol: Protocol, part: _Part, roles: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    shares = [Fraction(str(s)) for s in protocol.shares]
    folds = [
        dict(zip(ROLES, share_out(part, shares, f"shuffle{number}"), strict=True)) for number in range(protocol.folds)
    ]
    return [{**fold, "val": fold["test"]} if protocol.val_is_test else fold for fold in folds]


def _by_blocks(protocol: Protocol, part: _Part, roles: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Test rows by position in one list of all classes; a class's block may extend into the next class."""
    running = np.concatenate(part.strata())
    ends = np.cumsum([len(s) for s in part.strata()])
    starts = ends - [len(s) for s in part.strata()]
    folds = []
    for number in range(protocol.folds):
        places = [
            end - 1 - np.arange(take) if number == protocol.folds - 1 else start + number * take + np.arange(take)
            for start, end, take in zip(starts, ends, protocol.take, strict=True)
        ]
        taken = np.unique(np.concatenate(places))
        test = running[taken[(taken >= 0) & (taken < len(running))]]
        train, val = np.setdiff1d(part.rows, test), test
        if not protocol.val_is_test:
            train, val = _held_out(part.within(train), protocol.holdout)
        folds.append({"train": train, "val": val, "test": test})
    return folds


def _held_out(part: _Part, share: float) -> tuple[np.ndarray, np.ndarray]:
    held = Fraction(str(share))
    rest, val = share_out(part, [1 - held, held], "holdout")
    return rest, val


# -- dividing --------------------------------------------------------------------------------------------------------


def share_out(part: _Part, shares: Sequence[Fraction], purpose: str) -> list[np.ndarray]:
    """Divide rows by shares, class by class; rows of the same group stay together.

    Without groups, every part has its share of every class to within one image. With groups, the largest are placed
    first, each in the part where it brings the classes nearest to their shares.
    """
    key = f"{part.key}/{purpose}"
    if part.group is not None:
        return _share_groups(part, shares, key)
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    shift = 0
    for rows in part.strata():
        order = rows[hash_order(rows.tolist(), key)]
        sizes = _apportion(len(rows), shares, shift)
        shift += len(rows) - sum(int(s * len(rows)) for s in shares)
        for k, piece in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
            parts[k].append(piece)
    return [np.sort(np.concatenate(p)) for p in parts]


def hash_order(names: Sequence[object], key: str) -> np.ndarray:
    """A pseudo-random order of `names`, int64 [n], that depends only on them and on `key`."""
    digests = [hashlib.blake2b(f"{key}/{name}".encode(), digest_size=16).digest() for name in names]
    return np.asarray(sorted(range(len(names)), key=digests.__getitem__), dtype=np.int64)


def _apportion(n: int, shares: Sequence[Fraction], shift: int) -> list[int]:
    """Whole numbers that sum to `n`, by largest remainder; ties are broken in turn, starting at part `shift`."""
    sizes = [int(s * n) for s in shares]
    k = len(shares)
    by_remainder = sorted(range(k), key=lambda i: (-(shares[i] * n - sizes[i]), (i - shift) % k))
    for i in by_remainder[: n - sum(sizes)]:
        sizes[i] += 1
    return sizes


def _share_groups(part: _Part, shares: Sequence[Fraction], key: str) -> list[np.ndarray]:
    assert part.group is not None
    names, member = np.unique(part.group[part.rows].astype(str), return_inverse=True)
    strata = part.labels[part.rows] if part.stratify else np.zeros(len(part.rows), dtype=np.int64)
    counts = np.zeros((len(names), int(strata.max()) + 1), dtype=np.int64)
    np.add.at(counts, (member, strata), 1)
    place = _place_groups(counts.tolist(), hash_order(names.tolist(), key).tolist(), shares)
    return [part.rows[np.asarray(place)[member] == k] for k in range(len(shares))]


def _place_groups(counts: list[list[int]], order: list[int], shares: Sequence[Fraction]) -> list[int]:
    """The part of each group, in whole-number arithmetic, so that rounding can't affect the result."""
    scale = int(np.lcm.reduce([s.denominator for s in shares]))
    totals = [sum(column) for column in zip(*counts, strict=True)]
    weight = [10**18 // max(1, t) ** 2 for t in totals]
    lack = [[int(s * scale) * t for t in totals] for s in shares]  # images still missing in each part, times `scale`
    place = [0] * len(counts)
    for group in sorted(order, key=lambda g: -sum(counts[g])):
        content = [(c, n) for c, n in enumerate(counts[group]) if n]

        def gain(k: int, content: list[tuple[int, int]] = content) -> int:
            """How much nearer to its shares a part gets by taking the group."""
            return sum(weight[c] * (lack[k][c] ** 2 - (lack[k][c] - n * scale) ** 2) for c, n in content)

        best = max(range(len(shares)), key=gain)
        place[group] = best
        for c, n in content:
            lack[best][c] -= n * scale
    return place


def _check_fold(
    fold: dict[str, np.ndarray], labels: np.ndarray, classes: tuple[str, ...], card: DatasetCard,
    protocol: Protocol, number: int, store: Store,
) -> None:  # fmt: skip
    where = card.full_name(protocol) + (f", fold {number}" if protocol.folds > 1 else "")
    empty = [r for r in ROLES if len(fold[r]) == 0]
    if empty:
        raise DataError(
            f"no images are left for {' and '.join(empty)}",
            where=where, hint=f"the store has {len(store)} images; other protocols: {_others(card, protocol)}",
        )  # fmt: skip
    missing = [c for k, c in enumerate(classes) if not (labels[fold["train"]] == k).any()]
    if missing:
        raise DataError(f"the training fold has no images of {', '.join(missing)}", where=where)


def check_fold(protocol: Protocol, fold: int, name: str) -> None:
    """Raise SpecError if the protocol called `name` has no such fold."""
    if not 0 <= fold < protocol.folds:
        last = protocol.folds - 1
        raise SpecError(
            f"{name} has no fold {fold}", hint=f"its folds are 0 to {last}" if last else "its only fold is 0"
        )

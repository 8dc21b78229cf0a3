"""The data set doctor: what is wrong with a prepared store, as findings that people and programs can read.

:func:`examine` prints and writes nothing. Its findings have three levels: an "error" makes numbers wrong (labels that
mean something else, a missing class, unreadable files, a person in training and test), a "warning" makes them doubtful
(duplicates across splits, conflicting labels, constant images), and a "note" should be known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.clean import Dropped, conflicting, grouped, rows_to_drop
from fer_bench.dataset import Problems
from fer_bench.label_checks import Exchange, disagreements, exchanges
from fer_bench.label_order import PARAMETER, mapping_told, suspicion
from fer_bench.near_duplicates import Looks, Pairs, close_hashes, components, look, near_duplicates
from fer_bench.store import Store, check_counts, duplicates

LEVELS = ("error", "warning", "note")
FLAT = 16  # grey levels between the darkest and the brightest pixel below which an image shows nothing
SHOWN = 8  # lines of detail in a finding


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found.

    Attributes
    ----------
    level : {"error", "warning", "note"}
    kind : str
        Short name of the check and its outcome, for programs: "label-order", "exact-conflict", ...
    title : str
        One sentence.
    detail : tuple of str
        Further lines.
    count : int
        How many rows, groups, files or classes, as the title says.
    groups : tuple of tuple of int
        Store rows concerned; those that belong together (copies of one image) form a group.
    """

    level: str
    kind: str
    title: str
    detail: tuple[str, ...] = ()
    count: int = 0
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def rows(self) -> tuple[int, ...]:
        """All rows concerned."""
        return tuple(row for group in self.groups for row in group)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything :func:`examine` found.

    Attributes
    ----------
    findings : tuple of Finding
        Errors first, then warnings, then notes.
    counts : dict of split to int64 [classes]
    known : dict of split to tuple of int
        The card's counts, where they apply.
    exact : dict
        See :func:`fer_bench.store.duplicates`.
    near : Pairs
        Verified pairs, as store rows; each pixel-equal group takes part with its first row only.
    conflicts : dict of (class, class) to int
        Groups of copies in which both labels occur.
    dropped : tuple of Dropped
        The rows of the clean manifest.
    """

    findings: tuple[Finding, ...]
    classes: tuple[str, ...]
    counts: dict[str, np.ndarray]
    known: dict[str, tuple[int, ...]]
    exact: dict[str, Any]
    near: Pairs
    conflicts: dict[tuple[str, str], int]
    dropped: tuple[Dropped, ...]

    def number(self, level: str) -> int:
        """How many findings have this level."""
        return sum(f.level == level for f in self.findings)

    def of_kind(self, kind: str) -> Finding | None:
        """The finding of this kind, if there is one."""
        return next((f for f in self.findings if f.kind == kind), None)

    @property
    def verdict(self) -> str:
        """One line: how many errors and warnings."""
        errors, warnings = self.number("error"), self.number("warning")
        return f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')}"


class _Patient:
    """A store with the columns and groups that several checks read."""

    def __init__(self, store: Store, card: DatasetCard):
        self.store, self.card = store, card
        table = store.columns()
        self.label, self.split, self.exact = table["label"], table["split"], table["duplicate"]
        nothing = np.full(len(store), "")
        self.subject, self.sequence = (table.get(c, nothing).astype(str) for c in ("subject", "sequence"))
        self.splits = [str(s) for s in dict.fromkeys(self.split.tolist())]
        self.first = np.unique(self.exact, return_index=True)[1]  # row of each distinct image

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        return {s: np.asarray(self.store.manifest["counts"][s]) for s in self.splits}

    @cached_property
    def as_stated(self) -> bool:
        """Whether the store was made with the parameters and has the classes that the card's numbers are about."""
        given, default = self.store.manifest.get("params", {}), self.card.resolve({})
        if self.card.classes:  # the order of the source's numbers leaves the numbers of images as they are
            given, default = ({k: v for k, v in params.items() if k != PARAMETER} for params in (given, default))
        return given == default and self.card.classes == self.store.classes

    @cached_property
    def known(self) -> dict[str, tuple[int, ...]]:
        """The card's counts, where they apply."""
        return dict(self.card.counts) if self.as_stated else {}

    @cached_property
    def looks(self) -> Looks:
        return look(self.store, self.first)

    @cached_property
    def flat(self) -> np.ndarray:
        return (self.looks.spread < FLAT)[self.exact]

    @cached_property
    def pairs(self) -> Pairs:
        """Near-duplicates as store rows."""
        told = np.flatnonzero(self.looks.spread >= FLAT)
        found = near_duplicates(self.looks.thumbs[told], self._sequence_numbers()[told])
        rows = self.first[told]
        return Pairs(rows[found.first], rows[found.second], found.score)

    def _sequence_numbers(self) -> np.ndarray:
        """A number for the sequence of each distinct image; -1 where it has none, or its copies have several."""
        numbers = np.unique(self.sequence, return_inverse=True)[1]
        low, high = (np.full(len(self.first), fill) for fill in (len(numbers), -1))
        np.minimum.at(low, self.exact, numbers)
        np.maximum.at(high, self.exact, numbers)
        return np.where((low == high) & (self.sequence[self.first] != ""), low, -1)

    @cached_property
    def near(self) -> np.ndarray:
        """Group number of each row: copies, pixel-equal or not."""
        first, second = self.exact[self.pairs.first], self.exact[self.pairs.second]
        return components(first, second, len(self.first))[self.exact]

    @cached_property
    def rank(self) -> np.ndarray:
        """0 for rows of the default protocol's test, 1 validation, 2 training, 3 others."""
        protocol = self.card.protocols[0] if self.card.protocols else None
        roles = (protocol.test, protocol.val, protocol.train) if protocol and protocol.scheme == "splits" else ()
        rank = np.full(len(self.split), 3)
        for k, splits in reversed(list(enumerate(roles))):
            rank[np.isin(self.split, splits)] = k
        return rank


def examine(store: Store, card: DatasetCard, *, faults: Problems | None = None) -> Diagnosis:
    """Examine a store: counts, labels, duplicates, near-duplicates, people, sequences, images, balance.

    Parameters
    ----------
    faults : Problems, optional
        What a lenient reading left out of the store.

    Notes
    -----
    Reads every distinct image once, in blocks; memory grows by about 8 kB an image.
    """
    patient = _Patient(store, card)
    checks = (
        *(_mapping, _counts, _missing, _order, _digests, _files),
        *(_flat, _exact, _near, _subjects, _sequences, _imbalance),
    )
    found = [*_faults(faults), *(finding for check in checks for finding in check(patient))]
    dropped = rows_to_drop(patient.flat, patient.exact, patient.near, patient.label, patient.rank)
    return Diagnosis(
        findings=tuple(sorted(found, key=lambda f: LEVELS.index(f.level))),
        classes=store.classes,
        counts=patient.counts,
        known=patient.known,
        exact=duplicates(store),
        near=patient.pairs,
        conflicts=_conflicts(patient),
        dropped=tuple(dropped),
    )


def _plural(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _some(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - SHOWN
    return (*lines[:SHOWN], f"... and {more:,} more") if more > 0 else tuple(lines)


def _faults(faults: Problems | None) -> list[Finding]:
    rows = faults.rows if faults else []
    if not rows:
        return []
    kinds = Counter(reason.split(":")[0] for _, _, reason in rows)
    lines = [f"{n} x {kind}" for kind, n in kinds.most_common()]
    for file, row, reason in rows:
        place = "/".join(Path(file).parts[-2:])
        lines.append(f"{place}, row {row}: {reason}" if row is not None else f"{place}: {reason}")
    title = f"{_plural(len(rows), 'file or row', 'files or rows')} of the source can't be read and were left out"
    return [Finding(level="error", kind="unreadable", title=title, detail=_some(lines), count=len(rows))]


def _counts(patient: _Patient) -> list[Finding]:
    found = []
    unlabelled = np.flatnonzero(patient.label < 0)
    if len(unlabelled) and len(unlabelled) != patient.card.unlabelled:
        title = f"{_plural(len(unlabelled), 'image')} have no label"
        found.append(Finding(level="warning", kind="unlabelled", title=title, count=len(unlabelled)))
    if not patient.known:
        title = "The card states no counts for this form of the data, so they can't be compared"
        return [*found, Finding(level="note", kind="counts-unknown", title=title)]
    check = check_counts(patient.card, patient.store.manifest)
    if check["counts"] == "match":
        title = "The counts of every split and class match the card"
        return [*found, Finding(level="note", kind="counts-match", title=title)]
    lines = check["differences"]
    title = f"The counts are not those of the card: {_plural(len(lines), 'difference')}"
    return [*found, Finding(level="warning", kind="counts", title=title, detail=_some(lines), count=len(lines))]


def _missing(patient: _Patient) -> list[Finding]:
    together = np.sum(list(patient.counts.values()), axis=0)
    gone = [name for name, n in zip(patient.store.classes, together, strict=True) if not n]
    lines = []
    for split, counts in patient.counts.items():
        expected = patient.known.get(split, (0,) * len(counts))
        for name, n, known in zip(patient.store.classes, counts, expected, strict=True):
            if not n and known and name not in gone:
                lines.append(f"{split} has no '{name}', {known} are known")
    if not gone and not lines:
        return []
    title = "There is no image of " + ", ".join(gone) if gone else "A class is missing in a split"
    return [Finding(level="error", kind="missing-class", title=title, detail=tuple(lines), count=len(gone) or 1)]


def _order(patient: _Patient) -> list[Finding]:
    if told := suspicion(patient.card, patient.store.manifest):
        return [Finding(level="error", kind="label-order", title=told.title, detail=told.lines, count=len(told.lines))]
    splits = [s for s in patient.splits if s in patient.known]
    if not splits:
        return []
    observed = np.stack([patient.counts[s] for s in splits])
    known = np.asarray([patient.known[s] for s in splits])
    return _exchanged(exchanges(observed, known, splits), patient.store.classes)


def _mapping(patient: _Patient) -> list[Finding]:
    title = f"Labels are read as {mapping_told(patient.store.manifest)}"
    return [Finding(level="note", kind="labels", title=title, count=len(patient.store.classes))]


def _exchanged(found: Sequence[Exchange], names: Sequence[str]) -> list[Finding]:
    if not found:
        return []
    lines = []
    for one in found:
        gained, lost = names[one.gained], names[one.lost]
        share = (
            f"as if {one.share:.0%} of both had been exchanged" if one.share else f"as if {lost} had become {gained}"
        )
        lines.append(f"{one.split}: {one.moved:,} more {gained} than known, and as many less {lost}; {share}")
    pair = " and ".join(names[k] for k in sorted((found[0].gained, found[0].lost)))
    share = f"about {found[0].share:.0%} of {pair}" if found[0].share else f"some of {pair}"
    title = f"Labels of two classes look exchanged: {share}"
    return [Finding(level="error", kind="label-swap", title=title, detail=tuple(lines), count=len(lines))]


def _digests(patient: _Patient) -> list[Finding]:
    known, parts = patient.card.digests if patient.as_stated else {}, patient.store.manifest["parts"]
    same = {part: parts[part] == known[part] for part in ("pixels", "labels") if part in known}
    if len(same) < 2:
        return []
    pixels, labels = same["pixels"], same["labels"]
    if pixels and labels:
        return [Finding(level="note", kind="original", title="Pixels and labels are byte for byte the original's")]
    if pixels:
        title = "The pixels are the original's, the labels are not: labels were changed"
        return [Finding(level="error", kind="labels-changed", title=title)]
    if labels:
        title = "The labels are the original's in its order, the pixels are not: images were changed or encoded anew"
        return [Finding(level="warning", kind="pixels-changed", title=title)]
    title = "Neither pixels nor labels are the original's in its order, so nothing can be told from their hashes"
    return [Finding(level="note", kind="not-original", title=title)]


def _files(patient: _Patient) -> list[Finding]:
    survey: Mapping[str, Mapping[str, int]] = patient.store.manifest.get("survey") or {}
    found = []
    for part, what in (("sizes", "sizes"), ("modes", "colour modes")):
        kinds = survey.get(part, {})
        if len(kinds) > 1:
            lines = [f"{name}: {n:,} files" for name, n in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))]
            title = f"The source files have {len(kinds)} different {what}"
            found.append(Finding(level="note", kind=part, title=title, detail=_some(lines), count=len(kinds)))
    return found


def _flat(patient: _Patient) -> list[Finding]:
    spread, found = patient.looks.spread[patient.exact], []
    constant, almost = np.flatnonzero(spread == 0), np.flatnonzero((spread > 0) & (spread < FLAT))
    for kind, rows, which in (("constant", constant, "of one value"), ("near-constant", almost, "almost of one value")):
        if len(rows):
            title = f"{_plural(len(rows), 'image')} {which}"
            groups = tuple((row,) for row in rows.tolist())
            found.append(Finding(level="warning", kind=kind, title=title, count=len(rows), groups=groups))
    return found


def _across(group: np.ndarray, split: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """For each two splits (A before B in the store) the rows of B whose group occurs in A."""
    splits = [str(s) for s in dict.fromkeys(split.tolist())]
    rows = {s: np.flatnonzero(split == s) for s in splits}
    found = {(a, b): rows[b][np.isin(group[rows[b]], group[rows[a]])] for a, b in combinations(splits, 2)}
    return {pair: r for pair, r in found.items() if len(r)}


def _copies(patient: _Patient, group: np.ndarray, groups: list[np.ndarray], kind: str, what: str) -> list[Finding]:
    """Findings on groups of copies: that there are any, those across splits, those with conflicting labels."""
    if not groups:
        return []
    images = sum(map(len, groups))
    found = []

    def note(level: str, kind: str, title: str, which: Sequence[np.ndarray], detail: Sequence[str] = ()) -> None:
        rows = tuple(tuple(g.tolist()) for g in which)
        found.append(Finding(level=level, kind=kind, title=title, detail=tuple(detail), count=len(which), groups=rows))

    title = f"{_plural(len(groups), f'group of {what}', f'groups of {what}')}, {images:,} images together"
    note("note", kind, title, groups, [f"the largest has {max(map(len, groups))} images"])
    crossing = [g for g in groups if len(set(patient.split[g].tolist())) > 1]
    if crossing:
        among = np.isin(np.arange(len(group)), np.concatenate(crossing))
        across = {pair: int(among[rows].sum()) for pair, rows in _across(group, patient.split).items()}
        lines = [f"{rows:,} images of {b} have a copy in {a}" for (a, b), rows in across.items() if rows]
        title = f"{_plural(len(crossing), 'group')} of {what} lie in more than one split"
        note("warning", f"{kind}-across", title, crossing, lines)
    torn = [g for g in groups if conflicting(patient.label[g])]
    if torn:
        note("warning", f"{kind}-conflict", f"{_plural(len(torn), 'group')} of {what} have conflicting labels", torn)
    return found


def _exact(patient: _Patient) -> list[Finding]:
    groups, names = grouped(patient.exact), patient.store.classes
    found = _copies(patient, patient.exact, groups, "exact", "pixel-equal images")
    for one in disagreements((g for g in groups if not patient.flat[g[0]]), patient.label):
        a, b = (names[k] for k in one.classes)
        title = f"Copies disagree between {a} and {b} in {one.torn:,} of {one.groups:,} groups: labels may be exchanged"
        detail = (f"a random exchange of {one.share:.0%} of both would do that",)
        found.append(Finding(level="warning", kind="copies-disagree", title=title, detail=detail, count=one.torn))
    return found


def _near(patient: _Patient) -> list[Finding]:
    groups = [g for g in grouped(patient.near) if len(np.unique(patient.exact[g])) > 1]
    found = _copies(patient, patient.near, groups, "near", "near-duplicates")
    hashes = close_hashes(patient.looks.hashes[patient.looks.spread >= FLAT])
    if hashes:
        title = f"{_plural(hashes, 'pair')} of distinct images have perceptual hashes at most 2 bits apart"
        found.append(Finding(level="note", kind="close-hashes", title=title, count=hashes))
    return found


def _conflicts(patient: _Patient) -> dict[tuple[str, str], int]:
    names, pairs = patient.store.classes, Counter[tuple[str, str]]()
    for rows in grouped(patient.near, ~patient.flat):
        labels = sorted({k for k in patient.label[rows].tolist() if k >= 0})
        pairs.update((names[a], names[b]) for a, b in combinations(labels, 2))
    return dict(sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0])))


def _crossing(patient: _Patient, column: np.ndarray) -> tuple[list[str], str]:
    """Values of a column that occur in several splits, and the level of that."""
    named = column != ""
    pairs = np.unique(np.stack([column[named], patient.split[named]]), axis=1)
    values, times = np.unique(pairs[0], return_counts=True) if named.any() else (np.empty(0, str), np.empty(0))
    return values[times > 1].tolist(), "error" if (patient.rank < 3).any() else "warning"


def _subjects(patient: _Patient) -> list[Finding]:
    crossing, level = _crossing(patient, patient.subject)
    if not crossing:
        return []
    title = f"{_plural(len(crossing), 'person', 'people')} occur in more than one split"
    detail = (", ".join(crossing[:SHOWN]),)
    return [Finding(level=level, kind="subjects", title=title, detail=detail, count=len(crossing))]


def _sequences(patient: _Patient) -> list[Finding]:
    found = []
    crossing, level = _crossing(patient, patient.sequence)
    if crossing:
        title = f"{_plural(len(crossing), 'sequence')} lie in more than one split"
        detail = (", ".join(crossing[:SHOWN]),)
        found.append(Finding(level=level, kind="sequence-split", title=title, detail=detail, count=len(crossing)))
    lengths = Counter(patient.sequence[patient.sequence != ""].tolist())
    expected = patient.card.sequence if patient.as_stated else 0
    wrong = {name: n for name, n in lengths.items() if n != expected}
    if expected and wrong:
        title = f"{_plural(len(wrong), 'sequence')} of {len(lengths):,} have not {expected} images"
        lines = _some([f"{name}: {n}" for name, n in sorted(wrong.items())])
        found.append(Finding(level="warning", kind="sequence-length", title=title, detail=lines, count=len(wrong)))
    return found


def _imbalance(patient: _Patient) -> list[Finding]:
    together = np.sum(list(patient.counts.values()), axis=0)
    lines = [f"{split}: {_balance(counts)}" for split, counts in patient.counts.items()]
    shares = {s: c / c.sum() for s, c in patient.counts.items() if c.sum()}
    for (a, one), (b, other) in combinations(shares.items(), 2):
        lines.append(f"{a} and {b}: class shares differ by {50 * np.abs(one - other).sum():.1f} % of the images")
    return [Finding(level="note", kind="imbalance", title=f"Balance: {_balance(together)}", detail=tuple(lines))]


def _balance(counts: np.ndarray) -> str:
    present = counts[counts > 0]
    if len(present) < 2:
        return "one class or none"
    shares = present / present.sum()
    entropy = -(shares * np.log(shares)).sum() / np.log(len(counts))
    ratio = f"{present.max() / present.min():.2f}"
    return f"largest class / rarest class {ratio}, normalised entropy {entropy:.3f}"

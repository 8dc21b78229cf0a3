"""The data set doctor: problems of a prepared store, as findings that people and programs can read.

:func:`examine` prints and writes nothing. Findings have three levels: an "error" makes results wrong (labels with a
different meaning, a missing class, unreadable files, a person in training and test), a "warning" makes them doubtful
(duplicates across splits, conflicting labels, constant images), and a "note" is worth knowing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.quantities import plural
from fer_bench.contract.cards import DatasetCard
from fer_bench.contract.dataset import Problems
from fer_bench.data.clean_manifest import Dropped, conflicting, grouped, rows_to_drop, save_clean
from fer_bench.data.copies import Copies, save_copies
from fer_bench.data.label_order import describe_mapping, suspicion
from fer_bench.data.splits import fitting
from fer_bench.data.store import Store, check_counts, duplicates
from fer_bench.doctor.copies import copies_of
from fer_bench.doctor.label_checks import LEVEL, SLIPS, Exchange, disagreements, exchanges
from fer_bench.doctor.near_duplicates import Pairs, Progress, close_hashes, no_progress
from fer_bench.doctor.patient import FLAT, Patient

LEVELS = ("error", "warning", "note")
LISTED = 8  # lines of detail in a finding


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of a check.

    Attributes
    ----------
    level : {"error", "warning", "note"}
    kind : str
        Short name of the check and its outcome, for use by programs: "label-order", "exact-conflict", ...
    title : str
        One sentence.
    detail : tuple of str
        Additional lines.
    count : int
        Number of rows, groups, files or classes, as stated in the title.
    groups : tuple of tuple of int
        Affected store rows; those that belong together (copies of one image) form a group.
    """

    level: str
    kind: str
    title: str
    detail: tuple[str, ...] = ()
    count: int = 0
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def rows(self) -> tuple[int, ...]:
        """All affected rows."""
        return tuple(row for group in self.groups for row in group)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The result of :func:`examine`.

    Attributes
    ----------
    findings : tuple of Finding
        Errors first, then warnings, then notes.
    counts : dict of split to int64 [classes]
    known : dict of split to tuple of int
        The card's counts, if they apply.
    exact : dict
        See :func:`fer_bench.data.store.duplicates`.
    near : Pairs
        Verified pairs, as store rows; each group of identical images is represented by its first row.
    conflicts : dict of (class, class) to int
        Number of groups of copies that contain both labels.
    dropped : tuple of Dropped
        The rows to leave out, as in the clean manifest.
    copies : Copies
        What runs take for copies.
    """

    findings: tuple[Finding, ...]
    classes: tuple[str, ...]
    counts: dict[str, np.ndarray]
    known: dict[str, tuple[int, ...]]
    exact: dict[str, Any]
    near: Pairs
    conflicts: dict[tuple[str, str], int]
    dropped: tuple[Dropped, ...]
    copies: Copies

    def save(self, folder: Path) -> Path:
        """Write what runs take from it into the folder of a store's derived files; returns the clean manifest's path.

        See :meth:`fer_bench.record.home.Home.splits`.
        """
        save_copies(folder, self.copies)
        return save_clean(folder, self.dropped)

    def number(self, level: str) -> int:
        """Number of findings of this level."""
        return sum(f.level == level for f in self.findings)

    def of_kind(self, kind: str) -> Finding | None:
        """The finding of this kind, if there is one."""
        return next((f for f in self.findings if f.kind == kind), None)

    @property
    def verdict(self) -> str:
        """One line with the number of errors and warnings."""
        errors, warnings = self.number("error"), self.number("warning")
        return f"{plural(errors, 'error')}, {plural(warnings, 'warning')}"


def examine(
    store: Store, card: DatasetCard, *, faults: Problems | None = None, progress: Progress = no_progress
) -> Diagnosis:
    """Examine a store: counts, labels, duplicates, near-duplicates, people, sequences, images, balance.

    Parameters
    ----------
    faults : Problems, optional
        Problems of the source files, from a lenient reading that skipped them.
    progress : callable, optional
        Called with what is being done, and the share of it that is done (0 to 1).

    Notes
    -----
    Reads every distinct image once, in blocks; memory grows by about 8 kB per image.
    """
    patient = Patient(store, card, progress)
    checks = (
        *(_mapping, _counts, _missing, _order, _digests, _files, _flat, _exact, _near, _alike, _crowd),
        *(_subjects, _sequences, _imbalance),
    )
    findings = [*_faults(faults), *(finding for check in checks for finding in check(patient))]
    dropped = rows_to_drop(patient.flat, patient.exact, patient.near, patient.label, patient.rank)
    return Diagnosis(
        findings=tuple(sorted(findings, key=lambda f: LEVELS.index(f.level))),
        classes=store.classes,
        counts=patient.counts,
        known=patient.known,
        exact=duplicates(store),
        near=patient.pairs,
        conflicts=_conflicts(patient),
        dropped=tuple(dropped),
        copies=copies_of(patient),
    )


def without_rejects(store: Store, card: DatasetCard) -> str:
    """Full name of the protocol that fits the store and leaves out the rejected rows; "" if none fits."""
    protocol = fitting(store, card)
    return card.full_name(card.cleaned(protocol)) if protocol else ""


def _some(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - LISTED
    return (*lines[:LISTED], f"... and {more:,} more") if more > 0 else tuple(lines)


def _faults(faults: Problems | None) -> list[Finding]:
    rows = faults.rows if faults else []
    if not rows:
        return []
    kinds = Counter(reason.split(":")[0] for _, _, reason in rows)
    lines = [f"{n} x {kind}" for kind, n in kinds.most_common()]
    for file, row, reason in rows:
        place = "/".join(Path(file).parts[-2:])
        lines.append(f"{place}, row {row}: {reason}" if row is not None else f"{place}: {reason}")
    items = plural(len(rows), "file or row", "files or rows")
    title = f"Unreadable and left out: {items} of the source"
    return [Finding(level="error", kind="unreadable", title=title, detail=_some(lines), count=len(rows))]


def _counts(patient: Patient) -> list[Finding]:
    findings = []
    unlabelled = np.flatnonzero(patient.label < 0)
    if len(unlabelled) and len(unlabelled) != patient.card.unlabelled:
        title = f"{plural(len(unlabelled), 'image has', 'images have')} no label"
        findings.append(Finding(level="warning", kind="unlabelled", title=title, count=len(unlabelled)))
    if not patient.known:
        title = "The card has no counts for this variant of the data, so they can't be checked"
        return [*findings, Finding(level="note", kind="counts-unknown", title=title)]
    check = check_counts(patient.card, patient.store.manifest)
    if check["counts"] == "match":
        title = "The image counts of every split and class match the card"
        return [*findings, Finding(level="note", kind="counts-match", title=title)]
    lines = check["differences"]
    title = f"The image counts differ from the card: {plural(len(lines), 'difference')}"
    return [*findings, Finding(level="warning", kind="counts", title=title, detail=_some(lines), count=len(lines))]


def _missing(patient: Patient) -> list[Finding]:
    together = np.sum(list(patient.counts.values()), axis=0)
    absent = [name for name, n in zip(patient.store.classes, together, strict=True) if not n]
    lines = []
    for split, counts in patient.counts.items():
        expected = patient.known.get(split, (0,) * len(counts))
        for name, n, known in zip(patient.store.classes, counts, expected, strict=True):
            if not n and known and name not in absent:
                lines.append(f"{split} has no images of {name}; {known:,} expected")
    if not absent and not lines:
        return []
    title = "There are no images of " + ", ".join(absent) if absent else "A class is missing from a split"
    return [Finding(level="error", kind="missing-class", title=title, detail=tuple(lines), count=len(absent) or 1)]


def _order(patient: Patient) -> list[Finding]:
    if wrong := suspicion(patient.card, patient.store.manifest):
        lines = wrong.lines
        return [Finding(level="error", kind="label-order", title=wrong.title, detail=lines, count=len(lines))]
    splits = [s for s in patient.splits if s in patient.known]
    if not splits:
        return []
    observed = np.stack([patient.counts[s] for s in splits])
    known = np.asarray([patient.known[s] for s in splits])
    return _exchanged(exchanges(observed, known, splits), patient.store.classes)


def _mapping(patient: Patient) -> list[Finding]:
    title = f"Labels are read as {describe_mapping(patient.store.manifest)}"
    return [Finding(level="note", kind="labels", title=title, count=len(patient.store.classes))]


def _exchanged(moves: Sequence[Exchange], names: Sequence[str]) -> list[Finding]:
    if not moves:
        return []
    lines = []
    for one in moves:
        gained, lost = names[one.gained], names[one.lost]
        cause = f"{lost} was relabelled as {gained}"
        cause += f", or {one.share:.0%} of both were exchanged at random" if one.share else ""
        moved = f"{one.moved:,} more images of {gained} than expected, and as many fewer of {lost}"
        lines.append(f"{one.split}: {moved}: {cause}")
    pairs = dict.fromkeys(" and ".join(names[k] for k in sorted((one.gained, one.lost))) for one in moves)
    title = f"Labels have moved between two classes: {'; '.join(pairs)}"
    level = "warning" if all(one.slips for one in moves) else "error"
    return [Finding(level=level, kind="label-swap", title=title, detail=tuple(lines), count=len(lines))]


def _digests(patient: Patient) -> list[Finding]:
    known, parts = patient.card.digests if patient.as_stated else {}, patient.store.manifest["parts"]
    same = {part: parts[part] == known[part] for part in ("pixels", "labels") if part in known}
    if len(same) < 2:
        return []
    pixels, labels = same["pixels"], same["labels"]
    if pixels and labels:
        return [Finding(level="note", kind="original", title="Pixels and labels are byte-identical to the original")]
    if pixels:
        title = "The pixels are identical to the original, but the labels differ: labels were changed"
        return [Finding(level="error", kind="labels-changed", title=title)]
    if labels:
        title = "The labels are identical to the original, but the pixels differ: images were changed or re-encoded"
        return [Finding(level="warning", kind="pixels-changed", title=title)]
    title = "Pixels and labels both differ from the original (or its order), so their hashes show nothing"
    return [Finding(level="note", kind="not-original", title=title)]


def _files(patient: Patient) -> list[Finding]:
    survey: Mapping[str, Mapping[str, int]] = patient.store.manifest.get("survey") or {}
    findings = []
    for part, what in (("sizes", "sizes"), ("modes", "colour modes")):
        kinds = survey.get(part, {})
        if len(kinds) > 1:
            lines = [
                f"{name}: {plural(n, 'file')}"
                for name, n in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
            ]
            title = f"The source files have {len(kinds)} different {what}"
            findings.append(Finding(level="note", kind=part, title=title, detail=_some(lines), count=len(kinds)))
    return findings


def _flat(patient: Patient) -> list[Finding]:
    spread, findings = patient.looks.spread[patient.exact], []
    constant, almost = np.flatnonzero(spread == 0), np.flatnonzero((spread > 0) & (spread < FLAT))
    for kind, rows, how in (("constant", constant, "constant"), ("near-constant", almost, "almost constant")):
        if len(rows):
            title = f"{plural(len(rows), 'image is', 'images are')} {how}"
            groups = tuple((row,) for row in rows.tolist())
            findings.append(Finding(level="warning", kind=kind, title=title, count=len(rows), groups=groups))
    return findings


def _across(group: np.ndarray, split: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """For each pair of splits (A before B in the store) the rows of B whose group also occurs in A."""
    splits = [str(s) for s in dict.fromkeys(split.tolist())]
    rows = {s: np.flatnonzero(split == s) for s in splits}
    shared = {(a, b): rows[b][np.isin(group[rows[b]], group[rows[a]])] for a, b in combinations(splits, 2)}
    return {pair: r for pair, r in shared.items() if len(r)}


def _copies(patient: Patient, group: np.ndarray, groups: list[np.ndarray], kind: str, what: str) -> list[Finding]:
    """Findings about groups of copies: all of them, those across splits, those with conflicting labels."""
    if not groups:
        return []
    images = sum(map(len, groups))
    findings = []

    def note(level: str, kind: str, title: str, which: Sequence[np.ndarray], detail: Sequence[str] = ()) -> None:
        rows = tuple(tuple(g.tolist()) for g in which)
        findings.append(
            Finding(level=level, kind=kind, title=title, detail=tuple(detail), count=len(which), groups=rows)
        )

    title = f"{plural(len(groups), f'group of {what}', f'groups of {what}')}, {images:,} images in total"
    note("note", kind, title, groups, [f"the largest has {max(map(len, groups))} images"])
    crossing = [g for g in groups if len(set(patient.split[g].tolist())) > 1]
    if crossing:
        among = np.isin(np.arange(len(group)), np.concatenate(crossing))
        across = {pair: int(among[rows].sum()) for pair, rows in _across(group, patient.split).items()}
        lines = [
            f"{plural(rows, f'image of {b} has', f'images of {b} have')} a copy in {a}"
            for (a, b), rows in across.items()
            if rows
        ]
        if cleaned := without_rejects(patient.store, patient.card):
            lines.append(f"to leave them out: --protocol {cleaned}")
        title = f"{plural(len(crossing), f'group of {what} spans', f'groups of {what} span')} more than one split"
        note("warning", f"{kind}-across", title, crossing, lines)
    torn = [g for g in groups if conflicting(patient.label[g])]
    if torn:
        note(
            "warning",
            f"{kind}-conflict",
            f"{plural(len(torn), f'group of {what} has', f'groups of {what} have')} conflicting labels",
            torn,
        )
    return findings


def _exact(patient: Patient) -> list[Finding]:
    groups, names = grouped(patient.exact), patient.store.classes
    findings = _copies(patient, patient.exact, groups, "exact", "identical images")
    for one in disagreements((g for g in groups if not patient.flat[g[0]]), patient.label, len(names)):
        a, b = (names[k] for k in one.classes)
        title = (
            f"{one.torn:,} of {one.groups:,} groups of copies are labelled both {a} and {b}: labels may be exchanged"
        )
        family = f", corrected for {plural(one.pairs, 'pair')} of classes" if one.pairs > 1 else ""
        test = f"binomial test, p = {one.p:.1g}, level {LEVEL}{family}"
        test = f"more than labelling slips in {SLIPS:.0%} of the groups would explain ({test})"
        detail = (test, f"randomly exchanging {one.share:.0%} of both classes would have this effect")
        findings.append(Finding(level="warning", kind="copies-disagree", title=title, detail=detail, count=one.torn))
    return findings


def _near(patient: Patient) -> list[Finding]:
    groups = [g for g in grouped(patient.near) if len(np.unique(patient.exact[g])) > 1]
    findings = _copies(patient, patient.near, groups, "near", "near-duplicates")
    hashes = close_hashes(patient.looks.hashes[patient.looks.spread >= FLAT], progress=patient.progress)
    if hashes:
        of = plural(hashes, "pair of distinct images has", "pairs of distinct images have")
        title = f"{of} perceptual hashes at most 2 bits apart"
        findings.append(Finding(level="note", kind="close-hashes", title=title, count=hashes))
    return findings


def _alike(patient: Patient) -> list[Finding]:
    """Similar images of the same person, which are expected and not rejected."""
    pairs = patient.alike
    if not len(pairs):
        return []
    label, split = patient.label, patient.split
    other = int(
        ((label[pairs.first] != label[pairs.second]) & (label[pairs.first] >= 0) & (label[pairs.second] >= 0)).sum()
    )
    across = int((split[pairs.first] != split[pairs.second]).sum())
    lines = ["this is expected for pictures from one session; the clean manifest keeps these images"]
    lines += [f"{other:,} of the pairs have different labels"] if other else []
    lines += [f"{across:,} of the pairs span two splits"] if across else []
    best = np.argsort(-pairs.score, kind="stable")
    groups = tuple((int(pairs.first[k]), int(pairs.second[k])) for k in best)
    title = f"{plural(len(pairs), 'pair')} of images of the same person look like copies"
    return [Finding(level="note", kind="alike", title=title, detail=tuple(lines), count=len(pairs), groups=groups)]


def _crowd(patient: Patient) -> list[Finding]:
    """Whether copies can't be told from pictures of one person, because nobody is named."""
    if not patient.crowded:
        return []
    title = f"{patient.share_alike:.0%} of the images closely resemble another one, as faces posed in a laboratory do"
    detail = (
        "without known subjects, similar images of the same person can't be distinguished from copies",
        f"use a layout or parameter that provides the subjects: fer-bench show {patient.card.base}",
    )
    count = round(patient.share_alike * len(patient.near))
    return [Finding(level="warning", kind="crowded", title=title, detail=detail, count=count)]


def _conflicts(patient: Patient) -> dict[tuple[str, str], int]:
    names, pairs = patient.store.classes, Counter[tuple[str, str]]()
    for rows in grouped(patient.near, ~patient.flat):
        labels = sorted({k for k in patient.label[rows].tolist() if k >= 0})
        pairs.update((names[a], names[b]) for a, b in combinations(labels, 2))
    return dict(sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0])))


def _crossing(patient: Patient, column: np.ndarray) -> tuple[list[str], str]:
    """Values of a column that occur in several splits, and the level of the finding."""
    named = column != ""
    pairs = np.unique(np.stack([column[named], patient.split[named]]), axis=1)
    values, times = np.unique(pairs[0], return_counts=True) if named.any() else (np.empty(0, str), np.empty(0))
    return values[times > 1].tolist(), "error" if (patient.rank < 3).any() else "warning"


def _subjects(patient: Patient) -> list[Finding]:
    crossing, level = _crossing(patient, patient.subject)
    if not crossing:
        return []
    title = f"{plural(len(crossing), 'person appears', 'people appear')} in more than one split"
    detail = (", ".join(crossing[:LISTED]),)
    return [Finding(level=level, kind="subjects", title=title, detail=detail, count=len(crossing))]


def _sequences(patient: Patient) -> list[Finding]:
    findings = []
    crossing, level = _crossing(patient, patient.sequence)
    if crossing:
        title = f"{plural(len(crossing), 'sequence spans', 'sequences span')} more than one split"
        detail = (", ".join(crossing[:LISTED]),)
        findings.append(Finding(level=level, kind="sequence-split", title=title, detail=detail, count=len(crossing)))
    lengths = Counter(patient.sequence[patient.sequence != ""].tolist())
    expected = patient.card.sequence if patient.as_stated else 0
    wrong = {name: n for name, n in lengths.items() if n != expected}
    if expected and wrong:
        title = f"{len(wrong):,} of {plural(len(lengths), 'sequence')} do not have {expected} images"
        lines = _some([f"{name}: {n}" for name, n in sorted(wrong.items())])
        findings.append(Finding(level="warning", kind="sequence-length", title=title, detail=lines, count=len(wrong)))
    return findings


def _imbalance(patient: Patient) -> list[Finding]:
    together = np.sum(list(patient.counts.values()), axis=0)
    lines = [f"{split}: {_balance(counts)}" for split, counts in patient.counts.items()]
    shares = {s: c / c.sum() for s, c in patient.counts.items() if c.sum()}
    for (a, one), (b, other) in combinations(shares.items(), 2):
        lines.append(f"{a} and {b}: class shares differ by {50 * np.abs(one - other).sum():.1f} % of the images")
    return [Finding(level="note", kind="imbalance", title=f"Class balance: {_balance(together)}", detail=tuple(lines))]


def _balance(counts: np.ndarray) -> str:
    present = counts[counts > 0]
    if len(present) < 2:
        return "at most one class has images"
    shares = present / present.sum()
    entropy = -(shares * np.log(shares)).sum() / np.log(len(counts))
    ratio = f"{present.max() / present.min():.2f}"
    return f"largest class / rarest class {ratio}, normalised entropy {entropy:.3f}"

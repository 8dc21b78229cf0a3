"""A study as read from the ledger: what can be compared, and a sentence for everything that can't.

A broken record never stops a report. Damage to one run costs that run, a run that does not fit the others (other
classes, other data, other test images) is left out, and each time a note says so.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fer_bench.base.credentials import hide_command
from fer_bench.base.files import canonical_json
from fer_bench.errors import LedgerError
from fer_bench.printable import printable, printable_data
from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.record.relabelled import Relabelled, read_relabelled, relabelled_names
from fer_bench.reports.facts.runs import MALFORMED, Run, read_run
from fer_bench.stats.sampling import Truth

PEEKING_RULES = ("test_best", "test")


@dataclass(frozen=True, eq=False)
class MethodRuns:
    """The runs of one method, by seed and fold; `refused` are entries of the seals of runs that are left out."""

    label: str
    runs: tuple[Run, ...]
    refused: tuple[Any, ...] = ()

    @cached_property
    def card(self) -> dict[str, Any]:
        """The method's card as it was when it was trained."""
        return next((r.facts["method"] for r in self.runs if r.facts.get("method")), {})

    @cached_property
    def transductive(self) -> bool:
        """Whether predictions depend on the other test images, by the card or by the probe."""
        probed = any((r.facts.get("probe") or {}).get("transductive") for r in self.runs)
        return bool(probed or self.card.get("transductive"))

    @cached_property
    def blocked(self) -> tuple[str, ...]:
        """What the seal refused to its runs, those left out included: "event file", each once."""
        attempts = [a for r in self.runs for a in (r.facts.get("seal") or {}).get("blocked") or ()]
        texts = (
            " ".join(map(str, a.values())) if isinstance(a, Mapping) else str(a) for a in (*attempts, *self.refused)
        )
        return tuple(dict.fromkeys(" ".join(text.replace("`", "'").split()) for text in texts))

    @property
    def ranked(self) -> bool:
        """Whether anything may be claimed: it neither reads other test images nor tried to get at sealed files."""
        return not (self.transductive or self.blocked)

    @property
    def mark(self) -> str:
        """The signs beside its label: ⚠ reads other test images, ⊘ tried to open sealed files."""
        return " ⚠" * self.transductive + " ⊘" * bool(self.blocked)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with at least one usable run."""
        return tuple(sorted({r.seed for r in self.runs}))


@dataclass(frozen=True, eq=False)
class StudyData:
    """Everything a report is computed from.

    `methods` come in the order asked, those that are not ranked after all others. `labels` [n] are the true classes
    of the test images of all folds, fold by fold. `second_reference` is the method that reads the reference's network
    out at another operating point, where the study has it. `tuned` is the record of a search, unchecked. `relabelled`
    are other labels of images of the same data.
    """

    name: str
    command: str
    kind: str
    dataset: str
    protocol: dict[str, Any]
    classes: tuple[str, ...]
    fingerprint: str
    reference: str | None
    methods: tuple[MethodRuns, ...]
    folds: tuple[int, ...]
    labels: np.ndarray
    notes: tuple[str, ...]
    tuned: Any = None
    second_reference: str | None = None
    relabelled: tuple[Relabelled, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """All usable runs, method by method, each by seed and fold."""
        return [r for m in self.methods for r in m.runs]

    def method(self, label: str) -> MethodRuns:
        """The runs of the method with this label."""
        return next(m for m in self.methods if m.label == label)

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Images per class by role; training and validation counts are means over folds, test counts their sum."""
        out = {"test": np.bincount(self.labels, minlength=len(self.classes))}
        for role in ("train", "val"):
            by_fold = {r.fold: r.data.get("counts", {}).get(role) for r in self.runs}
            known = [c for c in by_fold.values() if c is not None and len(c) == len(self.classes)]
            if known:
                out[role] = np.rint(np.mean(known, axis=0)).astype(int)
        return out

    @cached_property
    def repeated(self) -> int:
        """How many test images, pooled over folds, are in the test of an earlier fold too."""
        return len(self._rows) - len(np.unique(self._rows))

    @cached_property
    def clusters(self) -> np.ndarray | None:
        """The cluster [n] of each pooled test image: images with equal numbers form one sampling unit.

        A cluster is a person or sequence, where the data name them, and otherwise one image that several folds test.
        None where every image is a unit of its own.
        """
        together = np.concatenate([self._groups[fold] for fold in self.folds]) if self.grouped else self._rows
        return together if len(np.unique(together)) < len(together) else None

    @cached_property
    def truth(self) -> Truth:
        """The pooled test set, with its sampling units."""
        return Truth(labels=self.labels, classes=len(self.classes), clusters=self.clusters)

    @property
    def grouped(self) -> bool:
        """Whether the data name the people or sequences of the test images."""
        return set(self._groups) == set(self.folds)

    @cached_property
    def _groups(self) -> dict[int, np.ndarray]:
        return {r.fold: r.groups for r in reversed(self.runs) if r.groups is not None}

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.concatenate([next(r.rows for r in self.runs if r.fold == fold) for fold in self.folds])

    @cached_property
    def order(self) -> list[int]:
        """Classes from the rarest to the most frequent in training."""
        counts = self.counts.get("train", self.counts["test"])
        return [int(i) for i in np.argsort(counts, kind="stable")]

    @cached_property
    def rare(self) -> frozenset[int]:
        """Classes with fewer than half of an even share of the training images, and always the rarest ones."""
        counts = self.counts.get("train", self.counts["test"])
        if counts.min() == counts.max():
            return frozenset()
        return frozenset(np.flatnonzero((counts == counts.min()) | (counts < counts.mean() / 2)).tolist())

    @cached_property
    def watermarks(self) -> tuple[str, ...]:
        """Reasons why no number of this study is a fair estimate; empty for a sound one."""
        reasons = [self.protocol.get("watermark") or ""]
        rules = {(r.spec.get("selection") or {}).get("rule") for r in self.runs}
        if rules & set(PEEKING_RULES):
            reasons.append("the checkpoint was chosen on the test set")
        return tuple(r for r in reasons if r)

    def places(self, label: str) -> Iterator[tuple[Run, tuple[int, slice]]]:
        """Runs of a method, each with the place [seed, images] of its answers among those to all of `labels`."""
        method = self.method(label)
        for run in method.runs:
            start = self._starts[run.fold]
            yield run, (method.seeds.index(run.seed), slice(start, start + len(run.rows)))

    def predictions(self, label: str) -> tuple[tuple[int, ...], np.ndarray]:
        """Seeds of a method and its predictions [S, n] in the order of `labels`; -1 where a fold is missing."""
        seeds = self.method(label).seeds
        out = np.full((len(seeds), len(self.labels)), -1, dtype=np.int64)
        for run, place in self.places(label):
            out[place] = run.predictions
        return seeds, out

    def paired(self, label: str, other: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
        """Seeds that two methods share, and the predictions of both for them, [S, n] each."""
        seeds, ours = self.predictions(label)
        others, theirs = self.predictions(other)
        shared = tuple(s for s in seeds if s in others)
        return shared, ours[[seeds.index(s) for s in shared]], theirs[[others.index(s) for s in shared]]

    @cached_property
    def _starts(self) -> dict[int, int]:
        """Where each fold's images begin in `labels`."""
        sizes = {r.fold: len(r.rows) for r in self.runs}
        return dict(zip(self.folds, np.cumsum([0, *(sizes[f] for f in self.folds)]).tolist(), strict=False))


@dataclass(frozen=True)
class Check:
    """Something in which all runs of a study must agree."""

    what: str
    key: Callable[[Run], Any]


CHECKS = (
    Check("data set", lambda r: r.data.get("dataset")),
    Check("class names or their order", lambda r: r.data["classes"]),
    Check("data fingerprint", lambda r: r.data.get("fingerprint")),
    Check("protocol", lambda r: (r.data.get("protocol") or {}).get("name") or r.spec.get("protocol")),
    Check("imbalance profile", lambda r: r.spec.get("profile")),
    Check("split file", lambda r: (r.data.get("protocol") or {}).get("split_sha256")),
    Check("clean manifest", lambda r: (r.data.get("protocol") or {}).get("clean")),
)


def load_study(ledger: Ledger, study: Mapping[str, Any] | str) -> StudyData:
    """Read the runs of a study, or of the study of that name; what can't be used is named in `notes`.

    Raises
    ------
    LedgerError
        No run of the study can be reported.
    """
    record: dict[str, Any] = printable_data(dict(ledger.study(study) if isinstance(study, str) else study))
    notes: list[str] = []
    listed = [ledger.run(i) for i in record.get("runs", [])]
    records = [r for r in listed if not is_trial(r)]
    trials = len(listed) - len(records)
    if trials:
        which = "1 tuning trial" if trials == 1 else f"{trials} tuning trials"
        notes.append(f"{which} never opened the test set and {'is' if trials == 1 else 'are'} in no table.")
    arrays: dict[str, np.ndarray] = {}
    runs = [run for r in records if (run := read_run(r, arrays, notes)) is not None]
    runs = _without_repeats(runs, notes)
    for check in CHECKS:
        runs = _agreeing(runs, check, notes)
    for fold in sorted({r.fold for r in runs}):
        same = Check("test images", lambda r: (r.rows.tobytes(), r.labels.tobytes()))
        kept = _agreeing([r for r in runs if r.fold == fold], same, notes)
        runs = [r for r in runs if r.fold != fold or r in kept]
    if not runs:
        raise _nothing(ledger, record, notes)
    used = {r.record.id for r in runs}
    labels = _other_labels(ledger, str(runs[0].data.get("fingerprint") or ""), notes)
    study_read = _assemble(record, runs, notes, _refused(r for r in listed if r.id not in used))
    return replace(study_read, relabelled=labels)


def _other_labels(ledger: Ledger, fingerprint: str, notes: list[str]) -> tuple[Relabelled, ...]:
    """Other labels that the ledger has for the data of this fingerprint; a note for those that are damaged."""
    found = []
    with contextlib.suppress(LedgerError, OSError):  # a fingerprint that can't be one has no labels
        for name in relabelled_names(ledger.root, fingerprint):
            try:
                found.append(read_relabelled(ledger.root, fingerprint, name))
            except LedgerError as error:
                what = f"{error.what[0].upper()}{error.what[1:]}"
                notes.append(f"{what}. They are in no table; `{error.next}` renews them.")
    return tuple(found)


def alone(run: Run) -> StudyData:
    """A study that consists of one run."""
    return _assemble({}, [run], [], {})


def _refused(records: Iterable[RunRecord]) -> dict[str, tuple[Any, ...]]:
    """What the seal refused to runs that are left out, by label: one that failed at its attempt has no other trace."""
    attempts: dict[str, tuple[Any, ...]] = {}
    for record in records:
        with contextlib.suppress(LedgerError, *MALFORMED):
            seal = printable_data(record.json("seal")) if record.has("seal.json") else {}
            label = printable(record.label)
            attempts[label] = (*attempts.get(label, ()), *(seal.get("blocked") or ()))
    return attempts


def readable(ledger: Ledger, studies: Sequence[Mapping[str, Any] | str]) -> tuple[list[StudyData], list[str]]:
    """The studies that can be reported, and a sentence for each that can't."""
    studies_read, left_out = [], []
    for study in studies:
        try:
            studies_read.append(load_study(ledger, study))
        except LedgerError as error:
            left_out.append(printable(f"Left out: {error.what}. {error.hint or ''}".strip()))
    return studies_read, left_out


def is_trial(record: RunRecord) -> bool:
    """Whether the run was never meant to open its test."""
    try:
        return record.spec.get("test") is False
    except (LedgerError, *MALFORMED):
        return False


def _assemble(
    study: Mapping[str, Any], runs: list[Run], notes: list[str], refused: Mapping[str, tuple[Any, ...]]
) -> StudyData:
    asked = list(dict.fromkeys([*study.get("methods", []), *(r.label for r in runs)]))
    runs = sorted(runs, key=lambda r: (r.seed, r.fold))
    methods = [MethodRuns(m, tuple(r for r in runs if r.label == m), refused.get(m, ())) for m in asked]
    notes += [f"`{m.label}` has no usable run, so it is missing from every table." for m in methods if not m.runs]
    methods = sorted((m for m in methods if m.runs), key=lambda m: not m.ranked)
    folds = tuple(sorted({r.fold for r in runs}))
    _note_gaps(methods, folds, notes)
    reference = study.get("reference")
    if reference is not None and reference not in {m.label for m in methods}:
        notes.append(f"The reference `{reference}` has no usable run, so no gains are computed.")
        reference = None
    first, second = {r.fold: r for r in reversed(runs)}, study.get("second_reference")
    return StudyData(
        name=study.get("name", "study"),
        command=hide_command(study).get("command", ""),
        kind=study.get("kind", "run"),
        dataset=study.get("dataset") or runs[0].data.get("dataset", ""),
        protocol=runs[0].data.get("protocol") or {"name": study.get("protocol", "")},
        classes=tuple(runs[0].data["classes"]),
        fingerprint=runs[0].data.get("fingerprint", ""),
        reference=reference,
        methods=tuple(methods),
        folds=folds,
        labels=np.concatenate([first[f].labels for f in folds]).astype(np.int64),
        notes=tuple(map(printable, notes)),
        tuned=study.get("tuned"),
        second_reference=second if second in {m.label for m in methods} else None,
    )


def _nothing(ledger: Ledger, study: Mapping[str, Any], notes: list[str]) -> LedgerError:
    name = study.get("name", "?")
    why = printable(" ".join(notes[:3])) if notes else "It lists no runs."
    return LedgerError(
        f"study '{name}' has no run that can be reported",
        where=str(ledger.root),
        hint=why,
        next=hide_command(study).get("command") or "fer-bench run METHOD --dataset D",
    )


def _without_repeats(runs: list[Run], notes: list[str]) -> list[Run]:
    kept: dict[tuple, Run] = {}
    for run in runs:
        first = kept.setdefault((run.label, run.seed, run.fold), run)
        if first is not run and first.record.id != run.record.id:
            notes.append(f"{run.name} duplicates run {first.record.id} and is left out.")
    return list(kept.values())


def _agreeing(runs: list[Run], check: Check, notes: list[str]) -> list[Run]:
    """The runs that have what most of them have (the first of them, where it is a tie)."""
    keys = [k if isinstance(k := check.key(r), tuple) else canonical_json(k) for r in runs]
    if len(set(keys)) <= 1:
        return runs
    usual = Counter(keys).most_common(1)[0][0]
    odd = [r for r, k in zip(runs, keys, strict=True) if k != usual]
    notes += [f"{r.name} differs from the other runs in its {check.what} and is left out." for r in odd]
    return [r for r, k in zip(runs, keys, strict=True) if k == usual]


def _note_gaps(methods: list[MethodRuns], folds: tuple[int, ...], notes: list[str]) -> None:
    seeds = sorted({s for m in methods for s in m.seeds})
    for method in methods:
        missing = [s for s in seeds if s not in method.seeds]
        if missing:
            lacks = f"`{method.label}` has no usable run for seed {_listed(missing)}"
            notes.append(f"{lacks}; gains use shared seeds only.")
        for seed in method.seeds:
            gone = set(folds) - {r.fold for r in method.runs if r.seed == seed}
            if gone:
                lacks = f"`{method.label}` seed {seed} is missing fold {_listed(sorted(gone))}"
                notes.append(f"{lacks}, so its results cover fewer test images.")


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))

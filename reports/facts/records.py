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
from fer_bench.reports.facts.runs import MALFORMED, Run, Training, read_run
from fer_bench.stats.crossed_subsets import complete
from fer_bench.stats.sampling import Truth

PEEKING_RULES = ("test_best", "test")
FEW = 6  # trainings that a sentence names


@dataclass(frozen=True, eq=False)
class MethodRuns:
    """The runs of one method, by subset, seed and fold.

    `refused` is what the seals of left-out runs refused, `arm` the name of the arm that it is in an ablation.
    """

    label: str
    runs: tuple[Run, ...]
    refused: tuple[Any, ...] = ()
    arm: str = ""

    @property
    def short(self) -> str:
        """What figures call it: the name of its arm, or its label."""
        return self.arm or self.label

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
    def trainings(self) -> tuple[Training, ...]:
        """Subsets and seeds with at least one usable run: every seed on every subset (:func:`_crossed`)."""
        return tuple(sorted({r.training for r in self.runs}))

    @cached_property
    def folds_of(self) -> Mapping[Training, set[int]]:
        """The folds that it has usable runs of, by training."""
        found: dict[Training, set[int]] = {training: set() for training in self.trainings}
        for run in self.runs:
            found[run.training].add(run.fold)
        return found

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, whatever the subset."""
        return tuple(sorted({r.seed for r in self.runs}))

    @cached_property
    def subsets(self) -> tuple[int, ...]:
        """The draws of the training set that it was trained on."""
        return tuple(sorted({r.subset for r in self.runs}))


@dataclass(frozen=True, eq=False)
class StudyData:
    """Everything a report is computed from.

    `methods` come in the order asked, those that are not ranked after all others. `labels` [n] are the true classes
    of the test images of all folds, fold by fold. `second_reference` is the method that reads the reference's network
    out at another operating point, where the study has it. `tuned` and `ablation` are the records of a search and of
    an ablation, unchecked. `relabelled`
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
    ablation: Any = None
    second_reference: str | None = None
    relabelled: tuple[Relabelled, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """All usable runs, method by method, each by subset, seed and fold."""
        return [r for m in self.methods for r in m.runs]

    @property
    def profile(self) -> str:
        """The imbalance profile of the training set, "natural" where it is not thinned."""
        return str(self.runs[0].spec.get("profile") or "natural")

    @cached_property
    def subsets(self) -> tuple[int, ...]:
        """The draws of the training set that some method was trained on; (0,) where it is not thinned."""
        return tuple(sorted({r.subset for r in self.runs}))

    @property
    def crossed(self) -> bool:
        """Whether there are several subsets, on each of which every seed was trained."""
        return len(self.subsets) > 1

    @property
    def one(self) -> str:
        """What one training of a method is called: a "seed", or a "training" where every seed has several subsets."""
        return "training" if self.crossed else "seed"

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
        """Runs of a method, each with the place [training, images] of its answers among those to all of `labels`."""
        method = self.method(label)
        for run in method.runs:
            start = self._starts[run.fold]
            yield run, (method.trainings.index(run.training), slice(start, start + len(run.rows)))

    def predictions(self, label: str) -> tuple[tuple[Training, ...], np.ndarray]:
        """Trainings of a method and its predictions [R, n] in the order of `labels`; -1 where a fold is missing.

        Trainings come by subset and seed. Intervals need to know the subsets of the rows
        (:func:`~fer_bench.reports.facts.runs.subsets_of`).
        """
        trainings = self.method(label).trainings
        out = np.full((len(trainings), len(self.labels)), -1, dtype=np.int64)
        for run, place in self.places(label):
            out[place] = run.predictions
        return trainings, out

    def paired(self, label: str, other: str) -> tuple[tuple[Training, ...], np.ndarray, np.ndarray]:
        """Subsets and seeds that two methods share, and the predictions of both for them, [R, n] each."""
        trainings, ours = self.predictions(label)
        others, theirs = self.predictions(other)
        shared = tuple(t for t in trainings if t in others)
        return shared, ours[[trainings.index(t) for t in shared]], theirs[[others.index(t) for t in shared]]

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
    runs = sorted(runs, key=lambda r: (r.training, r.fold))
    methods = [_method(m, [r for r in runs if r.label == m], refused.get(m, ()), notes) for m in asked]
    arms = _arms_of(study.get("ablation"))
    methods = [replace(m, arm=arms.get(m.label, "")) for m in methods]
    notes += [f"`{m.label}` has no usable run, so it is missing from every table." for m in methods if not m.runs]
    methods = sorted((m for m in methods if m.runs), key=lambda m: not m.ranked)
    runs = [r for m in methods for r in m.runs]
    folds = tuple(sorted({r.fold for r in runs}))
    _note_gaps(methods, folds, notes)
    reference = study.get("reference")
    if reference is not None and reference not in {m.label for m in methods}:
        notes.append(f"The reference `{reference}` has no usable run, so no gains are computed.")
        reference = None
    first = {r.fold: r for r in sorted(runs, key=lambda r: (r.training, r.fold), reverse=True)}
    second = study.get("second_reference")
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
        ablation=study.get("ablation"),
        second_reference=second if second in {m.label for m in methods} else None,
    )


def _arms_of(ablation: Any) -> dict[str, str]:
    """Names of arms by label, from the record of an ablation; of a malformed one, those that can be read."""
    arms = ablation.get("arms") if isinstance(ablation, Mapping) else None
    listed = [arm for arm in arms if isinstance(arm, Mapping)] if isinstance(arms, list) else []
    return {str(arm.get("label")): " ".join(str(arm.get("name") or "").replace("`", "'").split()) for arm in listed}


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
        first = kept.setdefault((run.label, run.training, run.fold), run)
        if first is not run and first.record.id != run.record.id:
            notes.append(f"{run.name} duplicates run {first.record.id} and is left out.")
    return list(kept.values())


def _method(label: str, runs: list[Run], refused: tuple[Any, ...], notes: list[str]) -> MethodRuns:
    """A method with the runs that can be used; what the seal refused to others is not forgotten."""
    kept = _crossed(runs, notes)
    others = [a for r in runs if r not in kept for a in (r.facts.get("seal") or {}).get("blocked") or ()]
    return MethodRuns(label, kept, (*refused, *others))


def _crossed(runs: list[Run], notes: list[str]) -> tuple[Run, ...]:
    """The runs of a method that form a complete cross of subsets and seeds; says which are left out, and why.

    The variances of subsets and seeds can be told apart where every seed was trained on every subset.
    """
    there = {r.training for r in runs}
    subsets, seeds = (np.unique(values) for values in ([t.subset for t in there], [t.seed for t in there]))
    if len(subsets) < 2:
        return tuple(runs)
    table = np.array([[Training(int(a), int(b)) in there for b in seeds] for a in subsets])
    rows, columns = complete(table)
    kept = {Training(int(subsets[a]), int(seeds[b])) for a in rows for b in columns}
    if left := there - kept:
        gone = [Training(int(subsets[a]), int(seeds[b])) for a, b in np.argwhere(~table)]
        notes.append(
            f"`{runs[0].label}` has no usable run for {_trainings_listed(gone)}, so {_trainings_listed(sorted(left))} "
            f"{'is' if len(left) == 1 else 'are'} left out: intervals need every seed on every subset."
        )
    return tuple(r for r in runs if r.training in kept)


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
    trainings = sorted({t for m in methods for t in m.trainings})
    several = len({t.subset for t in trainings}) > 1
    for method in methods:
        missing = [t for t in trainings if t not in method.trainings]
        if missing:
            which = _trainings_listed(missing) if several else f"seed {_listed([t.seed for t in missing])}"
            shared = "subsets and seeds" if several else "seeds"
            notes.append(f"`{method.label}` has no usable run for {which}; gains use shared {shared} only.")
        for training, there in method.folds_of.items():
            gone = set(folds) - there
            if gone:
                which = training.named(subsets=several)
                lacks = f"`{method.label}` {which} is missing fold {_listed(sorted(gone))}"
                notes.append(f"{lacks}, so its results cover fewer test images.")


def _trainings_listed(trainings: Sequence[Training]) -> str:
    """ "subset 1 seed 0, subset 2 seed 0"; of many, how many more."""
    more = [f"{len(trainings) - FEW} more"] if len(trainings) > FEW else []
    return ", ".join([*(t.named(subsets=True) for t in trainings[:FEW]), *more])


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))

"""The same methods over several data sets: the results of each study, and the ranks of the methods over all of them.

A study is one block of the ranks: a data set under a protocol and an imbalance profile. Its number for a method is the
mean over seeds. Watermarked studies, methods that read other test images and methods that tried to open sealed files
are listed but never ranked.

References
----------
J. Demsar (2006), Statistical comparisons of classifiers over multiple data sets, JMLR 7, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_bench.errors import LedgerError
from fer_bench.record.ledger import Ledger
from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.numbers import SCORES, Numbers, compute, group_key
from fer_bench.reports.facts.records import Run, StudyData, readable
from fer_bench.reports.facts.verdicts import Verdict
from fer_bench.stats.bootstrap import DRAWS
from fer_bench.stats.confusion import mean_known
from fer_bench.stats.intervals import Interval

if TYPE_CHECKING:
    from fer_bench.stats.ranks import Ranking

DIGITS = 9  # to which shares are compared, so that the order of a sum over seeds breaks no tie
NEXT = "fer-bench run METHOD... --dataset OTHER_DATASET"


@dataclass(frozen=True)
class Measure:
    """A number that is compared: its key among a study's numbers, and its name in words."""

    key: str
    title: str


HEAD, TAIL = "head", "tail"
MEAN = Measure("mean_recall", SCORES["mean_recall"])
ACCURACY = Measure("accuracy", SCORES["accuracy"])
RARE = Measure(group_key(TAIL), "recall of the tail classes")
FREQUENT = Measure(group_key(HEAD), "recall of the frequent classes")
MEASURES = (MEAN, ACCURACY, RARE)
JUDGED = (MEAN, RARE)  # whose gains a study's own report judges
PRICE = (FREQUENT, ACCURACY)  # what may be paid for them


@dataclass(frozen=True, eq=False)
class Entry:
    """One study; `title` is its data set, told apart from the others by protocol and profile where need be."""

    numbers: Numbers
    title: str

    @property
    def study(self) -> StudyData:
        """The study as read from the ledger."""
        return self.numbers.study

    @property
    def mark(self) -> str:
        """⚠ for a study whose numbers are no fair estimate."""
        return " ⚠" if self.study.watermarks else ""

    @property
    def tail(self) -> tuple[int, ...]:
        """The tail classes of this data set, the rarest first; none where its classes make no groups."""
        return tuple(reversed(self.numbers.groups.members.get(TAIL, ())))

    def runs(self, labels: Sequence[str]) -> list[Run]:
        """The runs of some methods."""
        return [r for label in labels for r in self.study.method(label).runs]

    def by_seed(self, label: str, measure: Measure) -> np.ndarray:
        """One value a seed [S]; NaN where the data set has no such number."""
        method = self.numbers.method(label)
        if measure in (RARE, FREQUENT):
            members = self.numbers.groups.members.get(measure.key.partition(":")[2], ())
            return mean_known(method.recall_by_seed[:, list(members)])
        return method.by_seed[measure.key]

    def value(self, label: str, measure: Measure) -> float:
        """The mean over seeds, on which ranks rest."""
        return float(mean_known(self.by_seed(label, measure)))

    def gain(self, label: str, measure: Measure) -> Interval | None:
        """The paired gain over the study's reference; None without shared seeds or without such a number."""
        gain = self.numbers.method(label).gains.get(measure.key)
        return gain if gain is not None and gain.known else None

    def verdict(self, label: str, measure: Measure) -> Verdict | None:
        """The verdict of the study's own report on that gain; None where it has none."""
        return self.numbers.method(label).verdicts.get(measure.key)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything a page on several data sets shows.

    Attributes
    ----------
    entries : tuple of Entry
        The studies, in the order asked.
    methods : tuple of str
        Labels that all studies have; those that read other test images come last.
    left_out : tuple of str
        Labels that some study lacks.
    transductive, blocked : frozenset of str
        Methods that read other test images, and that tried to open sealed files, in at least one study.
    reference : str or None
        The reference that all studies share.
    notes : tuple of str
        A sentence for each thing that is missing or left out.
    """

    entries: tuple[Entry, ...]
    methods: tuple[str, ...]
    left_out: tuple[str, ...]
    transductive: frozenset[str]
    blocked: frozenset[str]
    reference: str | None
    notes: tuple[str, ...]

    @property
    def ranked(self) -> tuple[str, ...]:
        """Methods that may share a ranking."""
        return tuple(m for m in self.methods if m not in self.unranked)

    @property
    def unranked(self) -> frozenset[str]:
        """Methods about which nothing is claimed."""
        return self.transductive | self.blocked

    def mark(self, label: str) -> str:
        """The signs beside a method that is not ranked."""
        return " ⚠" * (label in self.transductive) + " ⊘" * (label in self.blocked)

    @property
    def compared(self) -> tuple[str, ...]:
        """Methods that may have gains over the shared reference."""
        return tuple(m for m in self.methods if self.reference not in (None, m))

    def blocks(self, measure: Measure) -> list[Entry]:
        """The studies that a ranking is based on: not watermarked, and with that number."""
        doubtful = self.doubtful(measure)
        fair = [e for e in self.entries if not e.study.watermarks and e not in doubtful]
        return [e for e in fair if all(np.isfinite(e.value(m, measure)) for m in self.ranked)]

    def doubtful(self, measure: Measure) -> list[Entry]:
        """The studies in which recall of the tail means nothing: a ranked method has collapsed or is at chance."""
        if measure != RARE:
            return []
        return [e for e in self.entries if any(e.numbers.method(m).chance.doubtful for m in self.ranked)]

    def values(self, measure: Measure) -> np.ndarray:
        """What is ranked, [data sets, methods]."""
        rows = [[e.value(m, measure) for m in self.ranked] for e in self.blocks(measure)]
        return np.round(np.reshape(rows, (len(rows), len(self.ranked))), DIGITS)

    def ranking(self, measure: Measure) -> Ranking | None:
        """Ranks over the data sets; None for fewer than two of them or fewer than two methods."""
        values = self.values(measure)
        if min(values.shape) < 2:
            return None
        from fer_bench.stats.ranks import rank_methods  # late: scipy.stats takes half a second

        return rank_methods(values, self.ranked)

    def judged(self, label: str, measure: Measure) -> dict[str, Verdict]:
        """Verdicts on a method's gain by title, of the studies that may judge it."""
        verdicts: dict[str, Verdict] = {}
        for entry in self.entries if label not in self.unranked else ():
            verdict = entry.verdict(label, measure)
            if verdict not in (None, Verdict.NOT_RANKED, Verdict.UNKNOWN):
                verdicts[entry.title] = verdict
        return verdicts


# -- reading ---------------------------------------------------------------------------------------------------------


def load_comparison(
    ledger: Ledger, studies: Sequence[Mapping[str, Any] | str], *, draws: int = DRAWS.number
) -> Comparison:
    """Read studies of several data sets, given or named, and compute the numbers of each as its own report does.

    Raises
    ------
    LedgerError
        Fewer than two data sets are left, or fewer than two methods are in all of them.
    """
    loaded, unreadable = readable(ledger, studies)
    kept, repeated = _distinct(loaded)
    left_out = [*unreadable, *repeated]
    if len(kept) < 2:
        raise LedgerError(
            "a comparison needs studies of at least two data sets",
            where=", ".join(f"{s.name}: {' '.join(_key(s))}" for s in kept) or str(ledger.root),
            hint=" ".join(left_out)
            or "the same data set under another protocol or imbalance profile counts as a data set of its own",
            next=NEXT,
        )
    notes = [*left_out, *(f"{phrases.code(s.name)}: {note}" for s in kept for note in s.notes)]
    methods, lacking = _shared_methods(kept, notes)
    transductive = frozenset(label for s in kept for label in methods if s.method(label).transductive)
    blocked = frozenset(label for s in kept for label in methods if s.method(label).blocked)
    notes += _not_ranked(kept, methods)
    return Comparison(
        entries=tuple(Entry(compute(s, draws), title) for s, title in zip(kept, _titles(kept), strict=True)),
        methods=tuple(sorted(methods, key=lambda label: label in transductive | blocked)),
        left_out=lacking,
        transductive=transductive,
        blocked=blocked,
        reference=_shared_reference(kept, notes),
        notes=tuple(dict.fromkeys(notes)),
    )


def _distinct(studies: Sequence[StudyData]) -> tuple[list[StudyData], list[str]]:
    """The first study of each data set, protocol and profile, and a sentence for each other one."""
    kept: dict[tuple[str, ...], StudyData] = {}
    left_out = []
    for study in studies:
        first = kept.setdefault(_key(study), study)
        if first is not study:
            same = f"has the same data set, protocol and profile as {phrases.code(first.name)}"
            left_out.append(f"Study {phrases.code(study.name)} {same} and is left out.")
    return list(kept.values()), left_out


def profile(study: StudyData) -> str:
    """The imbalance profile of a study."""
    return str(study.runs[0].spec.get("profile") or "natural")


def _key(study: StudyData) -> tuple[str, str, str]:
    return study.dataset, str(study.protocol.get("name", "")), profile(study)


def _titles(studies: Sequence[StudyData]) -> list[str]:
    """Data sets, with protocol and profile where one occurs more than once."""
    names = [s.dataset for s in studies]
    longer = [f"{d}/{protocol.removeprefix(f'{d}/')} {thinned}" for d, protocol, thinned in map(_key, studies)]
    return [name if names.count(name) == 1 else long for name, long in zip(names, longer, strict=True)]


def _shared_methods(studies: Sequence[StudyData], notes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels that all studies have, and those that one of them lacks, each with a sentence."""
    by_study = {s.name: [m.label for m in s.methods] for s in studies}
    labels = list(dict.fromkeys(label for names in by_study.values() for label in names))
    lacking = {label: [phrases.code(n) for n, names in by_study.items() if label not in names] for label in labels}
    shared = tuple(label for label in labels if not lacking[label])
    if len(shared) < 2:
        raise LedgerError(
            "the studies have fewer than two methods in common",
            where="; ".join(f"{name}: {', '.join(names)}" for name, names in by_study.items()),
            hint="labels must be the same in every study, parameters included",
            next=NEXT,
        )
    left_out = tuple(label for label in labels if lacking[label])
    notes += [
        f"{phrases.code(label)} is left out, because it is not in {phrases.listed(lacking[label])}."
        for label in left_out
    ]
    return shared, left_out


def _not_ranked(studies: Sequence[StudyData], methods: Sequence[str]) -> list[str]:
    """Sentences on what is listed but not ranked."""
    notes = []
    for label in methods:
        reads = [phrases.code(s.name) for s in studies if s.method(label).transductive]
        if reads:
            seen = phrases.listed(reads)
            notes.append(f"{phrases.code(label)} reads other test images (in {seen}): listed with ⚠, not ranked.")
        tried = [(s.name, of) for s in studies if (of := s.method(label).blocked)]
        if tried:
            seen = "; ".join(f"{phrases.code(name)}: {answer.attempts(of)}" for name, of in tried)
            notes.append(f"{phrases.code(label)} tried to open sealed files ({seen}): listed with ⊘, not ranked.")
    for study in studies:
        if study.watermarks:
            why = "; ".join(study.watermarks)
            notes.append(f"Study {phrases.code(study.name)} is watermarked ({why}): listed with ⚠, not ranked.")
    return notes


def _shared_reference(studies: Sequence[StudyData], notes: list[str]) -> str | None:
    """The reference of all studies; None, with a sentence, where they differ or have none."""
    if len({s.reference for s in studies}) == 1 and studies[0].reference is not None:
        return studies[0].reference
    of = phrases.listed(
        [f"{phrases.code(s.name)}: {phrases.code(s.reference) if s.reference else 'none'}" for s in studies]
    )
    notes.append(f"The studies have no common reference ({of}), so no gains are computed.")
    return None

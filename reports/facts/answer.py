"""The sentences of a report's answer: what is gained, at what price, what is no classifier at all, and what is missing.

They are made from verdicts, intervals and tests alone, and every page and the terminal take them from here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import (
    MIN_SEEDS,
    SCORES,
    MethodNumbers,
    Numbers,
    Verdict,
    group_key,
    rarest_of,
)
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.stats.chance import COLLAPSED, Chance, guess_accuracy
from fer_bench.stats.intervals import Interval

HEAD = group_key("head")
FEW = 3  # attempts that a footnote names


def summary(numbers: Numbers) -> str:
    """The study's answer in one to three sentences; whoever gains is named with what it pays."""
    study = numbers.study
    if study.watermarks:
        return "These numbers are not a fair estimate (see above), so no gain is claimed."
    if study.reference is None:
        return f"Recall of {phrases.count(len(study.methods), 'method')}; no reference, so no gains."
    reference = study.method(study.reference)
    if not reference.ranked:
        return (
            f"The reference {phrases.code(study.reference)}{reference.mark} {_why(reference)}, so no gain is claimed."
        )
    ranked = [m for m in numbers.compared if m.ranked]
    if not ranked:
        return f"No method can be compared with {phrases.code(study.reference)}."
    aims = (f"recall of {rarest(study)}", "mean-class accuracy")
    named = zip(numbers.headline, aims, strict=True)
    claims = [_count_claims(ranked, name, aim, study.reference) for name, aim in named]
    won = [m for m in ranked if Verdict.GAIN in m.verdicts.values()]
    paid = [f"{phrases.code(m.label)} {_paid_in_short(m)}" for m in won]
    return " ".join([*claims, f"What goes with it: {'; '.join(paid)}." if paid else ""]).strip()


def _count_claims(ranked: list[MethodNumbers], name: str, aim: str, reference: str) -> str:
    won = [phrases.code(m.label) for m in ranked if m.verdicts[name] is Verdict.GAIN]
    lost = [phrases.code(m.label) for m in ranked if m.verdicts[name] is Verdict.LOSS]
    if len(ranked) == 1:
        did = "gains over" if won else "loses to" if lost else "is not shown to gain over"
        return f"{phrases.code(ranked[0].label)} {did} {phrases.code(reference)} in {aim}."
    of = f"of {len(ranked)} methods"
    head = f"{len(won)} {of} ({phrases.listed(won)}) gain" if won else f"None {of} is shown to gain"
    if len(won) == 1:
        head += "s"
    tail = f"; {phrases.listed(lost)} lose{'s' * (len(lost) == 1)}" if lost else ""
    return f"{head} over {phrases.code(reference)} in {aim}{tail}."


def _paid_in_short(method: MethodNumbers) -> str:
    parts = [f"{phrases.points(method.gains['accuracy'].value)} points of accuracy"]
    if HEAD in method.gains:
        parts.insert(0, f"{phrases.points(method.gains[HEAD].value)} points of recall of the frequent classes")
    return phrases.listed(parts)


def rarest(study: StudyData) -> str:
    """The class that headlines speak of: the rarest that the test can judge, and what else is to be known of it."""
    counts, tested = study.counts.get("train"), study.counts["test"] > 0
    first = rarest_of(study)
    described = phrases.describe_class(study, first)
    if counts is None:
        return f"the class with the fewest test images, {described}"
    alike = int((counts[tested] == counts[first]).sum())
    if alike == tested.sum() > 1:
        return f"{described}, the first of {alike} equally frequent classes"
    with_images = "" if tested.all() else " with test images"
    if alike > 1:
        return f"{described}, the first of the {alike} rarest classes{with_images}"
    return f"the rarest class{with_images}, {described}"


def headline(numbers: Numbers, method: MethodNumbers) -> str:
    """One method's gains on the rarest class and on the mean over classes, with verdicts, and what goes with them."""
    study = numbers.study
    by_class, mean = numbers.headline
    parts = [
        f"{what} {phrases.gain_with_interval(method.gains[name])} points, {_said(numbers, method, name)}"
        for what, name in ((f"recall of {study.classes[rarest_of(study)]}", by_class), (SCORES["mean_recall"], mean))
    ]
    mark = f"{method.mark.strip()} ".lstrip()
    who = f"{mark}**{phrases.code(method.label)}** against {phrases.code(study.reference or '')}"
    return f"{who} ({phrases.count(method.pairs, 'shared seed')}): {'; '.join([*parts, price(numbers, method)])}."


def price(numbers: Numbers, method: MethodNumbers) -> str:
    """What the frequent classes and accuracy do, and whether that is a loss beyond its interval."""
    study, members = numbers.study, numbers.groups.members
    parts = [("accuracy", method.gains["accuracy"])]
    if HEAD in method.gains:
        frequent = phrases.listed([study.classes[i] for i in members["head"]])
        parts.insert(0, (f"the frequent classes ({frequent})", method.gains[HEAD]))
    told = ", ".join(f"{what} {phrases.gain_with_interval(gain)} points" for what, gain in parts)
    if not any(method.gains[name].value > 0 for name in numbers.headline):
        return f"besides, {told}"
    return f"the price: {told}" if any(gain.high < 0 for _, gain in parts) else f"no price is shown: {told}"


def _said(numbers: Numbers, method: MethodNumbers, name: str) -> str:
    verdict = method.verdicts[name]
    if verdict is Verdict.CHANCE:
        return not_called(numbers, method, method.gains[name])
    if verdict is not Verdict.NOT_RANKED:
        return verdict.value
    if numbers.study.watermarks:
        return "no claim under a watermarked protocol"
    if not method.ranked:
        return f"not ranked: it {_why(method.runs)}"
    return f"not ranked: the reference {_why(numbers.study.method(str(numbers.study.reference)))}"


def not_called(numbers: Numbers, method: MethodNumbers, gain: Interval) -> str:
    """Why a gain or a loss is not called one, where the side that is ahead does not classify."""
    if gain.value > 0:
        return f"not called a gain: it {_what_it_is(method.chance)}"
    reference = numbers.method(str(numbers.study.reference))
    return f"not called a loss: the reference {phrases.code(reference.label)} {_what_it_is(reference.chance)}"


# -- collapse and chance ---------------------------------------------------------------------------------------------


def _what_it_is(chance: Chance) -> str:
    """ "has collapsed in 4 of 5 trainings", "is not shown to be better than chance"."""
    if chance.collapsed.any():
        return f"has collapsed in {_of_trainings(chance)}"
    return "is not shown to be better than chance"


def _of_trainings(chance: Chance) -> str:
    collapsed, trainings = int(chance.collapsed.sum()), len(chance.collapsed)
    return "its one training" if trainings == 1 else f"{collapsed} of {trainings} trainings"


def no_classifiers(numbers: Numbers) -> list[str]:
    """A sentence on every method that has collapsed, is at chance, or does not beat the best constant answer."""
    return [said for m in numbers.methods if (said := no_classifier(numbers, m))]


def no_classifier(numbers: Numbers, method: MethodNumbers) -> str:
    """What must be said of a method whose answers hardly depend on the image; empty where nothing must."""
    said = hardly_looks(numbers.study, phrases.code(method.label) + method.runs.mark, method.chance)
    reference = method.label == numbers.study.reference and numbers.compared
    return f"{said} Gains over such a reference say little." if reference and method.chance.doubtful else said


def hardly_looks(study: StudyData, name: str, chance: Chance) -> str:
    """The same of a method called `name`, by its tests."""
    if chance.mean_recall is None or chance.accuracy is None:
        return ""
    parts = []
    if chance.collapsed.any():
        into = phrases.listed([f"*{study.classes[i]}*" for i in sorted(chance.collapsed_into)])
        parts.append(
            f"**{name} has collapsed** in {_of_trainings(chance)}: it answers {into} to at least {100 * COLLAPSED:g} % "
            "of the images, every class counting alike."
        )
    mean = (
        f"its mean-class accuracy is {phrases.percent(chance.mean_recall.value)} %, and whatever ignores the image, a "
        f"constant answer or a guess, has {phrases.percent(chance.mean_recall.baseline)} % "
        f"(p {phrases.p_value(chance.mean_recall.p)})"
    )
    constant = study.classes[int(study.counts["test"].argmax())]
    accuracy = (
        f"its accuracy is {phrases.percent(chance.accuracy.value)} %, and always answering *{constant}* has "
        f"{phrases.percent(chance.accuracy.baseline)} % (p {phrases.p_value(chance.accuracy.p)})"
    )
    if not chance.above:
        parts.append(f"**{name} is not shown to be better than chance**: {mean}; {accuracy}.")
    elif not chance.accuracy.significant:
        parts.append(f"{name} is not shown to beat the best constant answer in accuracy: {accuracy}.")
    return " ".join(parts)


def chance_levels(numbers: Numbers) -> str:
    """What the rivals that ignore the image reach on this test set."""
    study = numbers.study
    counts = study.counts
    constant = int(counts["test"].argmax())
    told = (
        f"always answering {study.classes[constant]} has "
        f"{phrases.percent(counts['test'][constant] / counts['test'].sum())} % accuracy"
    )
    if "train" in counts and counts["train"].sum():
        guess = guess_accuracy(counts["train"], counts["test"])
        told += f", guessing with the shares of training {phrases.percent(guess)} %"
    return f"{told}, and both have {phrases.percent(1 / max(1, int((counts['test'] > 0).sum())))} % mean-class accuracy"


# -- what is not ranked ----------------------------------------------------------------------------------------------


def _why(method: MethodRuns) -> str:
    """Why nothing is claimed of a method, as the end of a sentence about it."""
    reasons = ["reads other test images"] * method.transductive
    reasons += ["tried to get at sealed files"] * bool(method.blocked)
    return phrases.listed(reasons)


def footnotes(methods: Sequence[MethodRuns]) -> dict[str, str]:
    """What the signs mean that tell why a method is not ranked, by sign."""
    notes = {}
    if any(m.transductive for m in methods):
        notes["⚠"] = "⚠ reads other test images, or remembers them: shown, not ranked."
    blocked: dict[str, dict[str, None]] = {}
    for method in methods:  # of several studies, a method may come more than once
        if method.blocked:
            blocked.setdefault(method.label, {}).update(dict.fromkeys(method.blocked))
    if blocked:
        told = "; ".join(f"{phrases.code(label)}: {attempts(tuple(of))}" for label, of in blocked.items())
        notes["⊘"] = f"⊘ tried to get at sealed files ({told}) and was refused: shown, not ranked."
    return notes


def all_footnotes(numbers: Numbers) -> dict[str, str]:
    """What all signs beside labels mean, by sign."""
    notes = footnotes(numbers.study.methods)
    weak = [m for m in numbers.methods if m.chance.doubtful]
    if weak:
        told = "; ".join(f"{phrases.code(m.label)} {_what_it_is(m.chance)}" for m in weak)
        notes["∅"] = f"∅ hardly a classifier: {told}."
    return notes


def attempts(blocked: tuple[str, ...], most: int = FEW) -> str:
    """What was tried, in short."""
    more = len(blocked) - most
    return ", ".join([*(phrases.code(a) for a in blocked[:most]), *([f"{more:,} more"] if more > 0 else [])])


# -- what is missing -------------------------------------------------------------------------------------------------


def missing_folds(study: StudyData) -> str:
    """Which folds of the protocol no number rests on, and which trainings lack one; empty where none is missing."""
    planned = study.protocol.get("folds")
    planned = planned if isinstance(planned, int) else 1
    gone = [fold for fold in range(planned) if fold not in study.folds]
    parts = [f"{len(gone)} of {planned} folds are missing (fold {phrases.span(gone)})"] if len(gone) > 1 else []
    parts += [f"fold {gone[0]} of {planned} is missing"] if len(gone) == 1 else []
    for method in study.methods:
        for seed in method.seeds:
            lacks = sorted(set(study.folds) - {r.fold for r in method.runs if r.seed == seed})
            if lacks:
                parts.append(f"{phrases.code(method.label)} seed {seed} lacks fold {phrases.span(lacks)}")
    if not parts:
        return ""
    told = "; ".join(parts)
    return f"{told[0].upper()}{told[1:]}: numbers rest on fewer test images than the protocol has."


def cautions(numbers: Numbers) -> list[str]:
    """What a reader must keep in mind about the whole study."""
    study = numbers.study
    pairs = max((m.pairs for m in numbers.compared), default=MIN_SEEDS)
    lines = []
    if pairs == 1:
        lines.append("With one seed the intervals cover the sampling of test images, not the spread between trainings.")
    if pairs < MIN_SEEDS:
        lines.append(f"A gain is claimed only from {MIN_SEEDS} shared seeds on.")
    untested = [f"*{study.classes[i]}*" for i in np.flatnonzero(study.counts["test"] == 0)]
    if untested:
        has, them = ("has", "it") if len(untested) == 1 else ("have", "them")
        lines.append(f"{phrases.listed(untested)} {has} no test images: means over classes leave {them} out.")
    return lines

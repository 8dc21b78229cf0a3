"""The sentences of a report's answer: gains and their cost, methods that hardly classify, and what is missing.

They follow from verdicts, intervals and tests alone. All pages and the terminal take them from here.
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
    """The study's answer in one to three sentences; methods that gain are named with their side effects."""
    study = numbers.study
    if study.watermarks:
        return "These numbers are not a fair estimate (see above), so no gain is claimed."
    if study.reference is None:
        methods = phrases.count(len(study.methods), "method")
        return f"Recall of {methods}. The study has no reference method, so no gains are computed."
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
    effects = [f"{phrases.code(m.label)} changes {_side_effects(m)}" for m in won]
    return " ".join([*claims, f"At the same time, {'; '.join(effects)}." if effects else ""]).strip()


def _count_claims(ranked: list[MethodNumbers], name: str, aim: str, reference: str) -> str:
    won = [phrases.code(m.label) for m in ranked if m.verdicts[name] is Verdict.GAIN]
    lost = [phrases.code(m.label) for m in ranked if m.verdicts[name] is Verdict.LOSS]
    if len(ranked) == 1:
        did = "improves on" if won else "does worse than" if lost else "is not shown to improve on"
        return f"{phrases.code(ranked[0].label)} {did} {phrases.code(reference)} in {aim}."
    of = f"of {len(ranked)} methods"
    improve = "improves" if len(won) == 1 else "improve"
    head = f"{len(won)} {of} ({phrases.listed(won)}) {improve} on" if won else f"None {of} is shown to improve on"
    tail = f"; {phrases.listed(lost)} {'does' if len(lost) == 1 else 'do'} worse" if lost else ""
    return f"{head} {phrases.code(reference)} in {aim}{tail}."


def _side_effects(method: MethodNumbers) -> str:
    parts = [f"accuracy by {phrases.points(method.gains['accuracy'].value)} points"]
    if HEAD in method.gains:
        parts.insert(0, f"recall of the frequent classes by {phrases.points(method.gains[HEAD].value)} points")
    return phrases.listed(parts)


def rarest(study: StudyData) -> str:
    """The class of the headline, described: the rarest that has test images."""
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
    """One method's gains on the rarest class and on the mean over classes, with verdicts and side effects."""
    study = numbers.study
    by_class, mean = numbers.headline
    parts = [
        f"{what} {phrases.gain_with_interval(method.gains[name])} points ({_verdict_words(numbers, method, name)})"
        for what, name in ((f"recall of {study.classes[rarest_of(study)]}", by_class), (SCORES["mean_recall"], mean))
    ]
    mark = f"{method.mark.strip()} ".lstrip()
    who = f"{mark}**{phrases.code(method.label)}** vs {phrases.code(study.reference or '')}"
    return f"{who} ({phrases.count(method.pairs, 'shared seed')}): {'; '.join(parts)}. {cost(numbers, method)}."


def cost(numbers: Numbers, method: MethodNumbers) -> str:
    """How recall of the frequent classes and accuracy change, and whether that is a loss beyond its interval."""
    study, members = numbers.study, numbers.groups.members
    parts = [("accuracy", method.gains["accuracy"])]
    if HEAD in method.gains:
        frequent = phrases.listed([study.classes[i] for i in members["head"]])
        parts.insert(0, (f"recall of the frequent classes ({frequent})", method.gains[HEAD]))
    changes = ", ".join(f"{what} {phrases.gain_with_interval(gain)} points" for what, gain in parts)
    if not any(method.gains[name].value > 0 for name in numbers.headline):
        return f"Other changes: {changes}"
    return f"Cost: {changes}" if any(gain.high < 0 for _, gain in parts) else f"No cost shown: {changes}"


def _verdict_words(numbers: Numbers, method: MethodNumbers, name: str) -> str:
    verdict = method.verdicts[name]
    if verdict is Verdict.CHANCE:
        return not_called(numbers, method, method.gains[name])
    if verdict is not Verdict.NOT_RANKED:
        return verdict.value
    if numbers.study.watermarks:
        return "no claim, because the protocol is watermarked"
    if not method.ranked:
        return f"not ranked, because it {_why(method.runs)}"
    return f"not ranked, because the reference {_why(numbers.study.method(str(numbers.study.reference)))}"


def not_called(numbers: Numbers, method: MethodNumbers, gain: Interval) -> str:
    """Why a gain or a loss is not counted: the better side hardly classifies."""
    if gain.value > 0:
        return f"not counted as a gain, because it {_defect(method.chance)}"
    reference = numbers.method(str(numbers.study.reference))
    return f"not counted as a loss, because the reference {phrases.code(reference.label)} {_defect(reference.chance)}"


# -- collapse and chance ---------------------------------------------------------------------------------------------


def _defect(chance: Chance) -> str:
    """ "has collapsed for 4 of 5 seeds", "is not significantly better than chance"."""
    if chance.collapsed.any():
        return f"has collapsed for {_of_seeds(chance)}"
    return "is not significantly better than chance"


def _of_seeds(chance: Chance) -> str:
    collapsed, seeds = int(chance.collapsed.sum()), len(chance.collapsed)
    return "its only seed" if seeds == 1 else f"{collapsed} of {seeds} seeds"


def no_classifiers(numbers: Numbers) -> list[str]:
    """A sentence on every method that has collapsed, is at chance, or does not beat the best constant prediction."""
    return [sentence for m in numbers.methods if (sentence := no_classifier(numbers, m))]


def no_classifier(numbers: Numbers, method: MethodNumbers) -> str:
    """A warning about a method whose predictions hardly depend on the image; empty where there is none."""
    sentence = hardly_looks(numbers.study, phrases.code(method.label) + method.runs.mark, method.chance)
    reference = method.label == numbers.study.reference and numbers.compared
    return f"{sentence} Gains over such a reference mean little." if reference and method.chance.doubtful else sentence


def hardly_looks(study: StudyData, name: str, chance: Chance) -> str:
    """The same of a method called `name`, by its tests."""
    if chance.mean_recall is None or chance.accuracy is None:
        return ""
    parts = []
    if chance.collapsed.any():
        into = phrases.listed([f"*{study.classes[i]}*" for i in sorted(chance.collapsed_into)])
        parts.append(
            f"**{name} has collapsed** for {_of_seeds(chance)}: it predicts {into} for at least {100 * COLLAPSED:g} % "
            "of the images (classes weighted equally)."
        )
    mean = (
        f"its mean-class accuracy is {phrases.percent(chance.mean_recall.value)} %, against "
        f"{phrases.percent(chance.mean_recall.baseline)} % for any classifier that ignores the image "
        f"(p {phrases.p_value(chance.mean_recall.p)})"
    )
    constant = study.classes[int(study.counts["test"].argmax())]
    accuracy = (
        f"its accuracy is {phrases.percent(chance.accuracy.value)} %, against "
        f"{phrases.percent(chance.accuracy.baseline)} % for always predicting *{constant}* "
        f"(p {phrases.p_value(chance.accuracy.p)})"
    )
    if not chance.above:
        parts.append(f"**{name} is not significantly better than chance**: {mean}; {accuracy}.")
    elif not chance.accuracy.significant:
        parts.append(f"{name} is not significantly better in accuracy than the best constant prediction: {accuracy}.")
    return " ".join(parts)


def chance_levels(numbers: Numbers) -> str:
    """What classifiers that ignore the image reach on this test set."""
    study = numbers.study
    counts = study.counts
    constant = int(counts["test"].argmax())
    accuracy = phrases.percent(counts["test"][constant] / counts["test"].sum())
    mean = phrases.percent(1 / max(1, int((counts["test"] > 0).sum())))
    always = f"always predicting {study.classes[constant]} gives {accuracy} % accuracy"
    if "train" in counts and counts["train"].sum():
        guess = phrases.percent(guess_accuracy(counts["train"], counts["test"]))
        return f"{always}, guessing by class frequency in training {guess} %; both give {mean} % mean-class accuracy"
    return f"{always} and {mean} % mean-class accuracy"


# -- what is not ranked ----------------------------------------------------------------------------------------------


def _why(method: MethodRuns) -> str:
    """Why nothing is claimed about a method, as the end of a sentence."""
    reasons = ["reads other test images"] * method.transductive
    reasons += ["tried to open sealed files"] * bool(method.blocked)
    return phrases.listed(reasons)


def footnotes(methods: Sequence[MethodRuns]) -> dict[str, str]:
    """The meaning of the signs beside methods that are not ranked, by sign."""
    notes = {}
    if any(m.transductive for m in methods):
        notes["⚠"] = "⚠ reads or remembers other test images; listed but not ranked."
    blocked: dict[str, dict[str, None]] = {}
    for method in methods:  # of several studies, a method may come more than once
        if method.blocked:
            blocked.setdefault(method.label, {}).update(dict.fromkeys(method.blocked))
    if blocked:
        tried = "; ".join(f"{phrases.code(label)}: {attempts(tuple(of))}" for label, of in blocked.items())
        notes["⊘"] = f"⊘ tried to open sealed files ({tried}) and was refused; listed but not ranked."
    return notes


def all_footnotes(numbers: Numbers) -> dict[str, str]:
    """The meaning of all signs beside labels, by sign."""
    notes = footnotes(numbers.study.methods)
    weak = [m for m in numbers.methods if m.chance.doubtful]
    if weak:
        defects = "; ".join(f"{phrases.code(m.label)} {_defect(m.chance)}" for m in weak)
        notes["∅"] = f"∅ hardly a classifier: {defects}."
    return notes


def attempts(blocked: tuple[str, ...], most: int = FEW) -> str:
    """The attempts to open sealed files, shortened."""
    more = len(blocked) - most
    return ", ".join([*(phrases.code(a) for a in blocked[:most]), *([f"{more:,} more"] if more > 0 else [])])


# -- what is missing -------------------------------------------------------------------------------------------------


def missing_folds(study: StudyData) -> str:
    """Folds of the protocol without runs, and seeds that lack a fold; empty where none is missing."""
    planned = study.protocol.get("folds")
    planned = planned if isinstance(planned, int) else 1
    gone = [fold for fold in range(planned) if fold not in study.folds]
    parts = [f"{len(gone)} of {planned} folds are missing (fold {phrases.span(gone)})"] if len(gone) > 1 else []
    parts += [f"fold {gone[0]} of {planned} is missing"] if len(gone) == 1 else []
    for method in study.methods:
        for seed in method.seeds:
            lacks = sorted(set(study.folds) - {r.fold for r in method.runs if r.seed == seed})
            if lacks:
                parts.append(f"{phrases.code(method.label)} seed {seed} is missing fold {phrases.span(lacks)}")
    if not parts:
        return ""
    missing = "; ".join(parts)
    return f"{missing[0].upper()}{missing[1:]}. The results cover fewer test images than the protocol has."


def cautions(numbers: Numbers) -> list[str]:
    """Caveats about the whole study."""
    study = numbers.study
    pairs = max((m.pairs for m in numbers.compared), default=MIN_SEEDS)
    lines = []
    if pairs == 1:
        lines.append(
            "With one seed, intervals cover the sampling of test images but not the variation between training runs."
        )
    if pairs < MIN_SEEDS:
        lines.append(f"Gains are claimed only with at least {MIN_SEEDS} shared seeds.")
    untested = [f"*{study.classes[i]}*" for i in np.flatnonzero(study.counts["test"] == 0)]
    if untested:
        has, them = ("has", "it") if len(untested) == 1 else ("have", "them")
        lines.append(f"{phrases.listed(untested)} {has} no test images, so means over classes leave {them} out.")
    return lines

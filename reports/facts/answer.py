"""The sentences of a report's answer: gains and their cost, methods that hardly classify, and what is missing.

They follow from verdicts, intervals and tests alone. All pages and the terminal take them from here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.minority import HEAD, TAIL, detectable
from fer_bench.reports.facts.numbers import (
    BEYOND,
    JUDGED_BEYOND,
    SCORES,
    MethodNumbers,
    Numbers,
    rarest_of,
    recall_key,
)
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.reports.facts.rise import Rise, rise_of
from fer_bench.reports.facts.verdicts import ADVISED_SEEDS, CLAIMS, Verdict
from fer_bench.stats.chance import COLLAPSED, Chance, guess_accuracy
from fer_bench.stats.hierarchy import ALPHA
from fer_bench.stats.power import POWER

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
    ranked = [m for m in numbers.compared if m.ranked and m.label != numbers.second]
    if not ranked:
        return f"No method can be compared with {phrases.code(study.reference)}."
    improve = ("improves on", "improve on")
    claims = [
        _count_claims(ranked, key, improve, f"{phrases.code(study.reference)} in {_aim(numbers, key)}")
        for key in numbers.headline
    ]
    beyond = [m for m in ranked if m.beyond]
    if beyond:
        what = f"the second reference {phrases.code(str(numbers.second))} in {SCORES[JUDGED_BEYOND]}"
        claims.append(_count_claims(beyond, BEYOND + JUDGED_BEYOND, ("beats", "beat"), what))
    won = [m for m in ranked if Verdict.GAIN in {m.verdicts[key] for key in numbers.headline}]
    effects = [f"{phrases.code(m.label)} changes {_side_effects(m)}" for m in won]
    at_once = [f"At the same time, {'; '.join(effects)}."] if effects else []
    return " ".join([*claims, *_rises(numbers, won), *at_once])


def _rises(numbers: Numbers, methods: Sequence[MethodNumbers]) -> list[str]:
    """Which methods shift the decision instead of ranking images better, and of which that is not decided."""
    if numbers.second is None:
        return []
    found: dict[Rise, list[str]] = {Rise.SHIFT: [], Rise.UNDECIDED: []}
    for method in methods:
        rise = rise_of(numbers, method.gains, method.area)
        if method.verdicts.get(TAIL) is Verdict.GAIN and rise in found:
            found[rise].append(phrases.code(method.label))
    said = {
        Rise.SHIFT: f"is a shift of the decision, which {phrases.code(numbers.second)} gives too.",
        Rise.UNDECIDED: "is a better ranking or a shift of the decision: that is not decided.",
    }
    return [
        f"What {phrases.listed(labels)} {'does' if len(labels) == 1 else 'do'} to the tail {said[rise]}"
        for rise, labels in found.items()
        if labels
    ]


def two_families(other: str) -> str:
    """That another page of the study tests the same runs; `other` begins the sentence."""
    return (
        f"{other} of this study tests the same runs as another family, so the probability of any false claim on the "
        f"two pages together is at most {200 * ALPHA:g} %."
    )


def _aim(numbers: Numbers, key: str) -> str:
    """What a gain of the headline is about, the rarest class with its numbers of images."""
    if key == numbers.headline[0]:
        return f"recall of {rarest(numbers.study)}"
    return phrases.endpoint(numbers.study, key)


def _count_claims(ranked: list[MethodNumbers], key: str, verbs: tuple[str, str], than: str) -> str:
    """How many methods are better, and which; `verbs` of one method and of several."""
    won = [phrases.code(m.label) for m in ranked if m.verdicts[key] is Verdict.GAIN]
    lost = [phrases.code(m.label) for m in ranked if m.verdicts[key] is Verdict.LOSS]
    one, many = verbs
    if len(ranked) == 1:
        did = one if won else "does worse than" if lost else f"is not shown to {many}"
        return f"{phrases.code(ranked[0].label)} {did} {than}."
    of = f"of {len(ranked)} methods"
    head = f"{len(won)} {of} ({phrases.listed(won)}) {one if len(won) == 1 else many}" if won else ""
    tail = f"; {phrases.listed(lost)} {'does' if len(lost) == 1 else 'do'} worse" if lost else ""
    return f"{head or f'None {of} is shown to {many}'} {than}{tail}."


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
    """One method's gains on the rarest class, the tail and the mean over classes, with verdicts and side effects."""
    study = numbers.study
    parts = [
        f"{phrases.endpoint(study, key, named=False)} {phrases.gain_with_interval(method.gains[key])} points "
        f"({_verdict_words(numbers, method, key)})"
        for key in numbers.headline
    ]
    mark = f"{method.mark.strip()} ".lstrip()
    who = f"{mark}**{phrases.code(method.label)}** vs {phrases.code(study.reference or '')}"
    told = f"{who} ({phrases.shared(study, method.shared)}): {'; '.join(parts)}. {cost(numbers, method)}."
    return f"{told} {beyond(numbers, method)}".strip()


def beyond(numbers: Numbers, method: MethodNumbers) -> str:
    """Whether a method beats the second reference as well; empty where it is not compared with one."""
    key = BEYOND + JUDGED_BEYOND
    if key not in method.judged:
        return ""
    did = {Verdict.GAIN: "It beats", Verdict.LOSS: "It does worse than"}.get(
        method.verdicts[key], "It is not shown to beat"
    )
    why = "" if method.verdicts[key] in CLAIMS else f" ({_verdict_words(numbers, method, key)})"
    others = [TAIL, "accuracy"] if TAIL in method.beyond else ["accuracy"]
    beside = ", ".join(
        f"{phrases.endpoint(numbers.study, name, named=False)} {phrases.gain_with_interval(method.beyond[name])}"
        for name in others
    )
    return (
        f"{did} the second reference {phrases.code(str(numbers.second))}: {SCORES[JUDGED_BEYOND]} "
        f"{phrases.gain_with_interval(method.beyond[JUDGED_BEYOND])} points{why}; beside it, {beside} points."
    )


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
        return not_called(numbers, method, name)
    if verdict is not Verdict.NOT_RANKED:
        return verdict.value
    if method.label == numbers.second:
        return "the second reference, of which nothing is claimed"
    if numbers.study.watermarks:
        return "no claim, because the protocol is watermarked"
    if not method.ranked:
        return f"not ranked, because it {_why(method.runs)}"
    return f"not ranked, because the reference {_why(numbers.study.method(str(numbers.study.reference)))}"


def not_called(numbers: Numbers, method: MethodNumbers, key: str) -> str:
    """Why a gain or a loss is not counted: the better side hardly classifies."""
    second = key.startswith(BEYOND)
    gain = method.beyond[key.removeprefix(BEYOND)] if second else method.gains[key]
    if gain.value > 0:
        return f"not counted as a gain, because it {_defect(method.chance)}"
    reference = numbers.method(str(numbers.second if second else numbers.study.reference))
    return f"not counted as a loss, because the reference {phrases.code(reference.label)} {_defect(reference.chance)}"


# -- what can be claimed and detected ---------------------------------------------------------------------------------


def family_in_words(numbers: Numbers, tested: str = "method") -> str:
    """The one family of hypotheses of a page: what is tested, endpoints and levels; empty where nothing is tested."""
    family, study = numbers.family, numbers.study
    if not family.methods:
        return ""
    levels, classes = family.hierarchy, sum(key.startswith(recall_key("")) for key in family.secondary)
    behind = [f"recall of each of {classes} classes" if classes > 1 else "recall of the other class"] if classes else []
    behind += [SCORES["mean_recall"]] * ("mean_recall" in family.secondary)
    if BEYOND + JUDGED_BEYOND in family.secondary:
        behind.append(f"{SCORES[JUDGED_BEYOND]} against the second reference {phrases.code(str(numbers.second))}")
    return (
        f"Claims form one family: {phrases.count(levels.methods, tested)}. The primary endpoint of each is the "
        f"{phrases.endpoint(study, family.primary)}, tested at α = {ALPHA:g} / {levels.methods} = "
        f"{levels.primary_alpha:.3g}. Only if it differs are {phrases.count(levels.secondary, 'secondary endpoint')} "
        f"tested ({phrases.listed(behind)}), each at {levels.primary_alpha:.3g} / {levels.secondary} = "
        f"{levels.secondary_alpha:.3g}. So the probability of any false claim is at most {100 * ALPHA:g} % (Bonferroni "
        "gatekeeping, Bretz et al. 2009). Intervals are unadjusted 95 % intervals unless they are called simultaneous."
    )


def detectable_in_words(numbers: Numbers) -> str:
    """The smallest true gain in the primary endpoint that this study would claim; empty where nothing is tested."""
    family, study = numbers.family, numbers.study
    tested = [m for m in numbers.methods if detectable(numbers, m, family.primary) is not None]
    if not tested:
        return ""
    seeds = sorted({m.pairs for m in tested})
    members = [i for i in study.order if family.primary != TAIL or i in numbers.groups.members["tail"]]
    images = sum(int(study.counts["test"][i]) for i in members)
    more = ""
    if seeds[0] < ADVISED_SEEDS and not study.crossed:
        more = f" {ADVISED_SEEDS} seeds would detect {_range_of(numbers, tested, ADVISED_SEEDS)}."
    return (
        f"Detectable: {phrases.span(seeds)} {study.one}s and {images:,} test images detect a true gain in "
        f"{phrases.endpoint(study, family.primary)} of {_range_of(numbers, tested)} with probability {POWER:g}, at "
        f"α = {family.hierarchy.primary_alpha:.3g} and with the spread seen here.{more}"
    )


def _range_of(numbers: Numbers, tested: Sequence[MethodNumbers], seeds: int | None = None) -> str:
    """ "4.1 points", or "3.0 (`a`) to 5.2 points (`b`)" where methods differ; of `seeds` or more seeds."""
    smallest = []
    for method in tested:
        enough = None if seeds is None else max(seeds, method.pairs)
        smallest.append((detectable(numbers, method, numbers.family.primary, enough) or 0.0, method.label))
    (low, first), (high, last) = min(smallest), max(smallest)
    texts = [f"{100 * gain:.1f}" if np.isfinite(gain) else "more than 100" for gain in (low, high)]
    if texts[0] == texts[1]:
        return f"{texts[0]} points"
    return f"{texts[0]} ({phrases.code(first)}) to {texts[1]} points ({phrases.code(last)})"


# -- collapse and chance ---------------------------------------------------------------------------------------------


def _defect(chance: Chance) -> str:
    """ "has collapsed for 4 of 5 seeds", "is not significantly better than chance"."""
    if chance.collapsed.any():
        return f"has collapsed for {_of_seeds(chance)}"
    return "is not significantly better than chance"


def _of_seeds(chance: Chance) -> str:
    collapsed, seeds = int(chance.collapsed.sum()), len(chance.collapsed)
    return "its only seed" if seeds == 1 else f"{collapsed} of {seeds} {'trainings' if chance.crossed else 'seeds'}"


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
        for training, there in method.folds_of.items():
            lacks = sorted(set(study.folds) - there)
            if lacks:
                which = training.named(subsets=study.crossed)
                parts.append(f"{phrases.code(method.label)} {which} is missing fold {phrases.span(lacks)}")
    if not parts:
        return ""
    missing = "; ".join(parts)
    return f"{missing[0].upper()}{missing[1:]}. The results cover fewer test images than the protocol has."


def cautions(numbers: Numbers) -> list[str]:
    """Caveats about the whole study."""
    study = numbers.study
    lines = []
    if max((m.pairs for m in numbers.compared), default=0) == 1:
        lines.append(
            "With one seed, intervals cover the sampling of test images but not the variation between training runs, "
            "so no gain is claimed."
        )
    lines += [caution] if (caution := phrases.one_draw(study)) else []
    untested = [f"*{study.classes[i]}*" for i in np.flatnonzero(study.counts["test"] == 0)]
    if untested:
        has, them = ("has", "it") if len(untested) == 1 else ("have", "them")
        lines.append(f"{phrases.listed(untested)} {has} no test images, so means over classes leave {them} out.")
    return lines

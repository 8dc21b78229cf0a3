"""Numbers and verdicts in words. A sentence never claims more than its interval supports."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from fer_bench.reports.facts.numbers import SCORES, MethodNumbers, Numbers, covered
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.reports.facts.runs import Training
from fer_bench.reports.facts.verdicts import CLAIMS, Verdict
from fer_bench.stats.intervals import Interval

UNKNOWN = "–"


def percent(share: float) -> str:
    """A share as percent with one decimal: 0.625 -> "62.5"."""
    return f"{100 * share + 0.0:.1f}" if np.isfinite(share) else UNKNOWN


def points(share: float) -> str:
    """A difference as signed percentage points with one decimal: -0.031 -> "−3.1"."""
    if not np.isfinite(share):
        return UNKNOWN
    text = f"{abs(100 * share):.1f}"
    return text if text == "0.0" else ("+" if share > 0 else "−") + text


def share_with_interval(interval: Interval) -> str:
    """ "62.5 [49.2, 74.1]"."""
    if not np.isfinite(interval.value):
        return UNKNOWN
    return f"{percent(interval.value)} [{percent(interval.low)}, {percent(interval.high)}]"


def gain_with_interval(interval: Interval) -> str:
    """ "+4.2 [+1.0, +7.5]"."""
    if not np.isfinite(interval.value):
        return UNKNOWN
    return f"{points(interval.value)} [{points(interval.low)}, {points(interval.high)}]"


def claimed(gain: Interval, verdict: Verdict | None) -> str:
    """A gain with its interval, bold if the verdict on it is a claim."""
    text = gain_with_interval(gain)
    return f"**{text}**" if verdict in CLAIMS else text


def limits(interval: Interval | None) -> str:
    """ "[+1.0, +7.5]"; a dash where there is none."""
    return UNKNOWN if interval is None else gain_with_interval(interval).partition(" ")[2] or UNKNOWN


def mean_and_spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over trainings (one less than their number in the denominator); one has no spread."""
    values = values[np.isfinite(values)]
    if not len(values):
        return UNKNOWN
    spread = f"{100 * values.std(ddof=1):.1f}" if len(values) > 1 else UNKNOWN
    return f"{percent(values.mean())} ± {spread}"


def p_value(p: float | None) -> str:
    """ "0.031", "< 0.001"; a dash where there is none."""
    if p is None or not np.isfinite(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """ "1 seed", "5 seeds"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(items: list[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def span(values: list[int]) -> str:
    """Integers with runs shortened: [0, 1, 2, 5] -> "0–2, 5"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts)


def code(label: str) -> str:
    """A label as Markdown code."""
    return f"`{label}`"


def method_name(method: MethodNumbers | MethodRuns) -> str:
    """A method's label as tables show it, with the signs that stand beside it."""
    return code(method.label) + method.mark


def describe_class(study: StudyData, index: int) -> str:
    """A class with its number of training and test images."""
    counts = study.counts
    train = f"{counts['train'][index]:,} training and " if "train" in counts else ""
    return f"*{study.classes[index]}* ({train}{count(int(counts['test'][index]), 'test image')})"


def endpoint(study: StudyData, key: str, *, named: bool = True) -> str:
    """What a gain is about: "recall of disgust", "mean recall of the tail (disgust and fear)", "accuracy".

    Without `named`, the classes of a group are left out.
    """
    kind, _, of = key.partition(":")
    if kind == "recall":
        return f"recall of {of}"
    if kind != "group":
        return SCORES[key]
    members = covered(study, key)
    classes = [study.classes[i] for i in study.order if i in members]
    return f"{'mean ' * (len(classes) > 1)}recall of the {of}{f' ({listed(classes)})' * named}"


def sampling(study: StudyData) -> str:
    """The sampling units of intervals and tests where these are not single images; empty where they are."""
    if study.clusters is None:
        return ""
    units, images = len(np.unique(study.clusters)), len(study.clusters)
    if study.grouped:
        together = f"{_together(study)} form one sampling unit"
        return f"{together}: intervals and tests are based on {units:,} units, not {images:,} images."
    together = "An image that several folds test is one sampling unit"
    return f"{together}: intervals and tests are based on {units:,} images, not {images:,} predictions."


def _together(study: StudyData) -> str:
    """Which images form one sampling unit; records of earlier versions know people and sequences alone."""
    people = "Images of the same person (or sequence, where no person is named)"
    facts = next((r.facts["copies"] for r in study.runs if r.facts.get("copies")), None)
    if facts is None:
        return people
    copies = "copies of one photograph" if facts.get("near") else "identical images"
    return f"{people}, and {copies}," if facts.get("people") else f"{copies.capitalize()} with the same label"


def one_seed_each(numbers: Numbers) -> bool:
    """Whether every method was trained once, so that nothing is a mean over seeds."""
    return all(len(m.trainings) == 1 for m in numbers.methods)


def varied(study: StudyData) -> str:
    """What differs between the trainings of a method: "seeds", "subsets", or both."""
    seeds = any(len(m.seeds) > 1 for m in study.methods)
    return "subsets and seeds" if study.crossed and seeds else "subsets" if study.crossed else "seeds"


def trainings_heading(study: StudyData) -> str:
    """The heading of a column that counts the trainings of methods (:func:`trainings`)."""
    return "Subsets × seeds" if study.crossed else "Seeds"


def trainings(study: StudyData, of: Sequence[Training]) -> str:
    """How many trainings these are: "5", or "3 × 2" in a study of several subsets."""
    return f"{len({t.subset for t in of})} × {len({t.seed for t in of})}" if study.crossed else str(len(of))


def shared(study: StudyData, of: Sequence[Training]) -> str:
    """ "5 shared seeds", "3 subsets × 2 seeds shared"."""
    if not study.crossed:
        return count(len(of), "shared seed")
    subsets, seeds = (len({t[place] for t in of}) for place in (0, 1))
    return f"{count(subsets, 'subset')} × {count(seeds, 'seed')} shared"


def interval_of(numbers: Numbers) -> str:
    """What the intervals of a report cover; a single seed says nothing about other training runs."""
    if one_seed_each(numbers):
        return "95 % intervals over images (one seed says nothing about other training runs)"
    both = varied(numbers.study).replace(" and ", ", ")
    return f"95 % intervals over {both} and images"


def conditions(study: StudyData) -> str:
    """What the claims of a report are conditional on."""
    seeds = [len(m.seeds) for m in study.methods]
    several = "1 seed" if max(seeds) == 1 else f"{span(sorted(set(seeds)))} seeds"
    trained, beyond = "this training set", "not another training set"
    if study.crossed:
        trained = f"the images from which {len(study.subsets)} training sets were drawn (`{study.profile}`)"
        beyond = "not other images to draw from"
    chosen = {(r.spec.get("selection") or {}).get("rule") for r in study.runs} - {None}
    rule = f" (`{'`, `'.join(sorted(map(str, chosen)))}`)" if chosen else ""
    flipped = any((r.spec.get("recipe") or {}).get("test_flip") for r in study.runs)
    return (
        f"All of this is conditional on {trained}, this test set, {several} per method and this rule for "
        f"selecting the epoch{rule}. Intervals cover other test images of the same kind"
        f"{', other draws of the training set' * study.crossed}{'' if max(seeds) == 1 else ' and other seeds'}, "
        f"but {beyond}.{' Predictions are means over an image and its mirror image (`test_flip`).' * flipped}"
    )


SUBSETS = 3  # draws that a caution proposes


def one_draw(study: StudyData) -> str:
    """A caution where all runs share one draw of a thinned training set, with the command that adds others."""
    if study.crossed or study.profile == "natural":
        return ""
    fold = " of each fold" if len(study.folds) > 1 else ""
    hidden = (
        f"All runs train on the same draw{fold} of the thinned training set (`{study.profile}`), so the intervals say "
        f"nothing about other draws; `--subsets {SUBSETS}` would"
    )
    command = re.sub(r" --subsets[ =]\d+", "", study.command)
    if not command.startswith(("fer-bench run ", "fer-bench ablate ")):
        return f"{hidden}."
    return f"{hidden} (finished runs are kept): {code(f'{command} --subsets {SUBSETS}')}"


def mean_over_seeds(numbers: Numbers) -> str:
    """What the numbers of a report are: means over seeds (and subsets), or those of one seed."""
    return "one seed" if one_seed_each(numbers) else f"mean over {varied(numbers.study)}"


def spread_over_seeds(numbers: Numbers) -> str:
    """What "62.5 ± 1.2" means with several seeds, and "62.5 ± –" with one."""
    if one_seed_each(numbers):
        return "one seed per method, so no standard deviation (–)"
    one = " (– for a single seed)" if any(len(m.trainings) == 1 for m in numbers.methods) else ""
    return f"mean ± standard deviation over {varied(numbers.study)}{one}"

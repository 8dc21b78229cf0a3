"""Section "Seen and unseen images": test images with copies in training, and those without, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import MethodNumbers, Numbers, headline_of
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.seen import KINDS, Compared, Seen, seen_by, unseen_gains
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections.section import Context, Section

CAUTION = (
    "A network may remember the copy of an image; but images that were collected twice may also be easier, so a "
    "difference is not memory alone. Accuracy depends on how many copies each class has as well: compare mean-class "
    "accuracy and recalls."
)


def build(context: Context) -> list:
    """Counts, and scores on seen and unseen images."""
    numbers, study = context.numbers, context.study
    seen = {m.label: own for m in numbers.methods if (own := seen_by(study, m.label)) is not None}
    unknown = [phrases.code(m.label) for m in numbers.methods if m.label not in seen]
    silent = _silent(unknown, len(numbers.methods))
    if not seen:
        return [silent]
    if not any(own.copies.any() for own in seen.values()):
        return [f"No test image has a copy among the training or validation images.{_searched(study)}", silent]
    methods = [m for m in numbers.methods if m.label in seen]
    gains = gain_table(numbers, list(seen))
    return [
        f"{_counted(list(seen.values()))}{_searched(study)} {CAUTION}",
        silent,
        TableBlock(accuracy_table(numbers, methods, seen), "seen-accuracy", "Accuracy by what was seen in training"),
        *score_tables(numbers, methods, seen),
        TableBlock(gains, "unseen-gains", "Gains on unseen images") if gains else None,
    ]


# -- sentences -------------------------------------------------------------------------------------------------------


def _silent(unknown: Sequence[str], methods: int) -> str:
    """Whose records say nothing about copies."""
    if not unknown:
        return ""
    whose = "these runs" if len(unknown) == methods else f"runs of {phrases.listed(list(unknown))}"
    return (
        f"The records of {whose} do not say which test images have copies in training, as those of earlier versions "
        "do not, so this can't be reported."
    )


def _searched(study: StudyData) -> str:
    """Why near copies were not looked for, where they were not."""
    facts: dict[str, Any] = next((r.facts["copies"] for r in study.runs if r.facts.get("copies")), {})
    reason = " ".join(str(facts.get("reason") or "").split())
    return (
        ""
        if facts.get("near", True)
        else f" Only identical images count as copies here: {reason or 'no reason is given'}."
    )


def _counted(seen: Sequence[Seen]) -> str:
    """How many test images have copies, of which kinds."""
    names = list(KINDS)
    exact, near = (_images(seen, names[k : k + 2]) for k in (0, 2))
    conflict, val, total = _images(seen, names[1:4:2]), _images(seen, names[4:5]), _images(seen, names)
    text = f"Of {total} test images, {exact} have an exact copy among the training images, and {near} more a near copy"
    text += " (another picture of the same photograph)"
    text += f"; {val} have a copy among the validation images alone" if val != "0" else ""
    return f"{text}. Of those with a copy in training, {conflict} have one with another label."


def _images(seen: Sequence[Seen], names: Sequence[str]) -> str:
    """Images of some parts: the number, or the range where runs have trained on different images."""
    numbers = sorted({int(n) for own in seen for n in np.sum([own.parts[name] for name in names], axis=(0, 2))})
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


# -- tables ----------------------------------------------------------------------------------------------------------


def accuracy_table(numbers: Numbers, methods: Sequence[MethodNumbers], seen: dict[str, Seen]) -> Table:
    """Accuracy of every method on each kind of test image."""
    accuracies = {label: own.accuracies() for label, own in seen.items()}
    names = [name for name in KINDS if any(name in of for of in accuracies.values())]
    everyone = list(seen.values())

    def cell(method: MethodNumbers, name: str) -> str:
        interval = accuracies[method.label].get(name)
        return phrases.share_with_interval(interval) if interval else phrases.UNKNOWN

    columns = [
        Column("Test images with", lambda name: "all test images" if name == "all" else name, right=False),
        Column("Images", lambda name: _images(everyone, list(KINDS) if name == "all" else [name])),
        *(Column(phrases.method_name(m), each(cell, m)) for m in methods),
    ]
    caption = (
        f"Accuracy in %, {phrases.mean_over_seeds(numbers)}, with {phrases.interval_of(numbers)}. An image with exact "
        "copies is not counted among those with near ones. Another label: at least one of its copies of that kind has "
        "another label than the image."
    )
    return tabulate(columns, ["all", *names], caption)


def score_tables(numbers: Numbers, methods: Sequence[MethodNumbers], seen: dict[str, Seen]) -> list[TableBlock]:
    """Every score on seen and unseen images, and the differences; none where no class has both kinds."""
    of = {m.label: seen[m.label].comparison for m in methods}
    names = [name for name in next(iter(of.values())) if all(name in scores for scores in of.values())]
    if not names:
        return []
    score = Column("Score", lambda name: phrases.endpoint(numbers.study, name), right=False)
    images = [
        Column(
            title, each(lambda side, name: f"{np.mean([scores[name].images[side] for scores in of.values()]):,.0f}", k)
        )
        for k, title in enumerate(("Seen", "Unseen"))
    ]
    both, differences = (
        [Column(phrases.method_name(m), each(cell, of[m.label])) for m in methods]
        for cell in (
            lambda scores, name: _both(scores[name]),
            lambda scores, name: phrases.gain_with_interval(scores[name].difference),
        )
    )
    classes, recalls = len(numbers.study.classes), sum(name.startswith("recall:") for name in names)
    some = f" Mean-class accuracy is that of the {phrases.count(recalls, 'class', 'classes')} with both kinds."
    caption = (
        "Seen: test images with an exact or near copy in training, and their number; unseen: those with no copy in "
        f"training or validation. In %, {phrases.mean_over_seeds(numbers)}: seen / unseen.{some * (recalls < classes)}"
    )
    gaps = (
        f"Seen minus unseen in points, with {phrases.interval_of(numbers)}. The intervals are not corrected "
        f"for multiple comparisons: about one in twenty of these {len(names) * len(methods)} would miss the truth."
    )
    title = "Scores on seen and unseen images"
    return [
        TableBlock(tabulate([score, *images, *both], names, caption), "seen-unseen", title),
        TableBlock(tabulate([score, *differences], names, gaps), "seen-differences", "Seen minus unseen images"),
    ]


def _both(compared: Compared) -> str:
    """ "57.9 / 55.4"."""
    return f"{phrases.percent(compared.seen.value)} / {phrases.percent(compared.unseen.value)}"


def gain_table(numbers: Numbers, labels: Sequence[str]) -> Table | None:
    """Gains over the reference on all test images and on unseen ones; None where there is nothing to compare."""
    study = numbers.study
    if study.reference not in labels:
        return None
    rows = []
    for method in numbers.compared:
        gains = unseen_gains(study, method.label) if method.label in labels else {}
        rows += [(method, name, gains[name]) for name in ("accuracy", *reversed(headline_of(study))) if name in gains]
    if not rows:
        return None
    columns = [
        Column("Method", lambda r: phrases.method_name(r[0]), right=False),
        Column("Score", lambda r: phrases.endpoint(study, r[1]), right=False),
        Column("Gain on all images", lambda r: phrases.gain_with_interval(r[0].gains[r[1]])),
        Column("Gain on unseen images", lambda r: phrases.gain_with_interval(r[2])),
    ]
    caption = (
        f"Paired gains over {phrases.code(str(study.reference))} in points, with {phrases.interval_of(numbers)}, on "
        "all test images and on those without any copy in training or validation."
    )
    return tabulate(columns, rows, caption)


SECTION = Section("seen", "Seen and unseen images", build)

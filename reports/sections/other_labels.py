"""Section "Scored against other labels": do gains hold under another data set's labels of the same images?"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import Numbers, recall_key
from fer_bench.reports.facts.other_labels import (
    EXPECTED,
    OTHER,
    OWN,
    VOTES,
    Rescored,
    SameImages,
    moved,
    rescore,
    same_images,
)
from fer_bench.reports.render.blocks import Block, Bullets, Paragraph, TableBlock
from fer_bench.reports.render.table import Column, Table, tabulate
from fer_bench.reports.sections.section import Context, Section
from fer_bench.stats.intervals import Interval

SHOWN = 2  # classes that a row of the table of agreement names
OVERALL = {"mean_recall": "mean-class accuracy", "accuracy": "accuracy"}


def build(context: Context) -> list[Block]:
    """For each data set that labels the test images anew: how far the labels agree, and all scores under both."""
    blocks: list[Block] = []
    for found in context.study.relabelled:
        images = same_images(context.study, found)
        if images is None:
            blocks.append(Paragraph(f"{found.title} labels none of the test images with a class of this study."))
            continue
        blocks += _blocks(context.numbers, images, several=len(context.study.relabelled) > 1)
    return blocks


def _blocks(numbers: Numbers, images: SameImages, *, several: bool) -> list[Block]:
    rescored, title = rescore(images), images.found.title
    suffix = f"-{images.found.name.replace(':', '-')}" if several else ""
    gains = gain_table(numbers, images, rescored)
    return [
        Paragraph(coverage(images)),
        Paragraph(agreement(images)),
        TableBlock(agreement_table(images), f"other-labels{suffix}", f"Own labels and those of {title}"),
        Bullets(tuple(sentence(images, r) for r in rescored if r.gains)),
        TableBlock(score_table(numbers, images, rescored), f"rescored{suffix}", f"Scores under both labels ({title})",
                   sortable=False),
        *([TableBlock(gains, f"rescored-gains{suffix}", f"Gains under both labels ({title})", sortable=False)]
          if gains else []),
    ]  # fmt: skip


def coverage(images: SameImages) -> str:
    """Which images are scored, and what became of the others."""
    found, lost = images.found, images.lost
    rule = f" ({found.rule})" if found.rule else ""
    kept = phrases.count(len(images.own.labels), "image")
    text = f"{found.title} (`{found.name}`) labels the same images anew. This section is about the {kept} of "
    text += f"{images.total:,} in the test set that it assigns to a class of this study{rule}."
    reasons = []
    if lost.undecided:
        reasons.append(f"{phrases.count(lost.undecided, 'image has', 'images have')} no label")
    if lost.elsewhere:
        names = phrases.listed([f"*{name}*" for name in lost.classes_elsewhere])
        number = phrases.count(lost.elsewhere, "image belongs", "images belong")
        reasons.append(f"{number} to a class that this study lacks ({names})")
    if lost.unmatched:
        number = phrases.count(lost.unmatched, "image was", "images were")
        reasons.append(f"{number} not found among its images, or not with certainty among copies")
    return f"{text} Of the others, {phrases.listed(reasons)}." if reasons else text


def agreement(images: SameImages) -> str:
    """How far the two labels agree, and what expected accuracy means."""
    title, number = images.found.title, len(images.own.labels)
    text = f"The data set's own label and that of {title} are the same for {images.agreeing:,} of these images "
    text += f"({phrases.percent(images.agreeing / number)} %)."
    if images.votes is None:
        return text
    own, best = images.expected(images.own.labels).mean(), images.votes.max(1).mean()
    text += " *Expected accuracy* is the probability that a prediction agrees with one annotator drawn at random: "
    text += "the mean share of an image's votes for the predicted class. Only votes for classes of this study count, "
    text += f"{phrases.percent(images.votes_kept)} % of all. The own labels reach {phrases.percent(own)} %, the labels "
    text += f"of {title} {phrases.percent(images.expected(images.other.labels).mean())} %, and nothing can reach more "
    return text + f"than {phrases.percent(best)} %."


def sentence(images: SameImages, rescored: Rescored) -> str:
    """A method's gains in mean-class accuracy and in accuracy under both labels."""
    title, parts = images.found.title, []
    for key, text in OVERALL.items():
        own, other = (phrases.gain_with_interval(rescored.gains[kind, key]) for kind in (OWN, OTHER))
        parts.append(f"{text} {own} under the own labels, {other} under those of {title}")
    against = phrases.code(images.own.reference or "")
    return f"{phrases.code(rescored.label)} vs {against}: {'; '.join(parts)} (points)."


def agreement_table(images: SameImages) -> Table:
    """For each class by own label: how many images keep it, and what the others are called."""
    study, title, matrix = images.own, images.found.title, images.confusion

    def others(label: int) -> str:
        names = [f"{study.classes[k]} {n:,}" for k, n in moved(images, label)[:SHOWN]]
        return ", ".join(names) or phrases.UNKNOWN

    def share(label: int) -> str:
        total = matrix[label].sum()
        return phrases.percent(matrix[label, label] / total) if total else phrases.UNKNOWN

    columns = [
        Column("Class", lambda i: study.classes[i], right=False),
        Column("Images, own labels", lambda i: f"{matrix[i].sum():,}"),
        Column(f"Images, {title}", lambda i: f"{matrix[:, i].sum():,}"),
        Column("Images with both", lambda i: f"{matrix[i, i]:,}"),
        Column(f"Own labels that {title} confirms, %", share),
        Column(f"Otherwise mostly called by {title}", others, right=False),
    ]
    return tabulate(columns, study.order, "Classes from the rarest in training to the most frequent.")


def _rows(images: SameImages) -> list[tuple[str, str, str, str]]:
    """What is scored, under which labels, on how many images, and its key: every class, then the scores of all."""
    study, title = images.own, images.found.title
    kinds = [(OWN, "own", images.own), (OTHER, title, images.other)]
    rows = []
    for label in study.order:
        for kind, name, part in kinds:
            number = f"{int((part.labels == label).sum()):,}"
            rows.append(
                (f"recall of {study.classes[label]}", name, number, f"{kind} {recall_key(study.classes[label])}")
            )
    everything = f"{len(study.labels):,}"
    rows += [(text, name, everything, f"{kind} {key}") for key, text in OVERALL.items() for kind, name, _ in kinds]
    if images.votes is not None:
        rows.append(("expected accuracy", f"{title} votes", everything, f"{VOTES} {EXPECTED}"))
    return rows


def _table(numbers: Numbers, images: SameImages, methods: Iterable[tuple[Rescored, str]], caption: str) -> Table:
    """A row for each score and labelling, a column for each method; with each method, which of its numbers."""
    columns = [
        Column("Score", lambda r: r[0], right=False),
        Column("Labels", lambda r: r[1], right=False),
        Column("Images", lambda r: r[2]),
    ]
    for rescored, what in methods:
        name = phrases.method_name(numbers.method(rescored.label))
        columns.append(Column(name, partial(_cell, rescored, what)))
    return tabulate(columns, _rows(images), caption)


def _cell(rescored: Rescored, what: str, row: tuple[str, str, str, str]) -> str:
    kind, _, key = row[3].partition(" ")
    of: dict[tuple[str, str], Interval] = getattr(rescored, what)
    return (phrases.share_with_interval if what == "scores" else phrases.gain_with_interval)(of[kind, key])


def score_table(numbers: Numbers, images: SameImages, rescored: list[Rescored]) -> Table:
    """Recall of every class and the scores of all, under both labels."""
    caption = f"In %, {phrases.mean_over_seeds(numbers)}, with {phrases.interval_of(numbers)}; all on the same images."
    return _table(numbers, images, [(r, "scores") for r in rescored], caption)


def gain_table(numbers: Numbers, images: SameImages, rescored: list[Rescored]) -> Table | None:
    """Gains over the reference under both labels; None where there is nothing to compare."""
    compared = [(r, "gains") for r in rescored if r.gains]
    if not compared:
        return None
    caption = (
        f"Paired differences from {phrases.code(numbers.study.reference or '')} in percentage points, with "
        f"{phrases.interval_of(numbers)}; all on the same images. The intervals are not corrected for multiple "
        "comparisons, and no verdict of this report rests on them."
    )
    return _table(numbers, images, compared, caption)


SECTION = Section("other-labels", "Scored against other labels", build)

"""Section "Recall for every class": recall and the gains over the reference, class by class."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import SCORES, MethodNumbers, Numbers, recall_key
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> list:
    """Recall of every class and the gains over the reference."""
    numbers = context.numbers
    gains = gain_table(numbers)
    over = f"Gains over {phrases.code(context.study.reference or '')}"
    return [
        TableBlock(recall_table(numbers), "recall", "Recall of every class"),
        context.figure("recall", draw_recall, "Recall of every class and method with intervals"),
        TableBlock(gains, "gains", over, footer=len(SCORES)) if gains else None,
        context.figure("gains", draw_gains, "Gain over the reference for every class, with intervals"),
    ]


def recall_table(numbers: Numbers) -> Table:
    """Recall of every class, the rarest first, with its interval."""
    study = numbers.study
    by_method = [
        Column(phrases.method_name(m), each(lambda m, i: phrases.share_with_interval(m.recall[i]), m))
        for m in numbers.methods
    ]
    kind = "" if phrases.one_seed_each(numbers) else " for the effective number of images"
    shares = f"Recall in %, {phrases.mean_over_seeds(numbers)}, with {phrases.interval_of(numbers)}"
    caption = f"{shares}: Wilson intervals{kind}. {_order(study)}"
    return tabulate([*_class_columns(study), *by_method], study.order, caption)


def _order(study: StudyData) -> str:
    """The order of the classes, and the meaning of bold names."""
    counts = study.counts.get("train", study.counts["test"])
    if counts.min() == counts.max():
        return f"All classes have the same number of {'training' if 'train' in study.counts else 'test'} images."
    where = "in training" if "train" in study.counts else "in the test set (training counts are unknown)"
    bold = "less than half of an even share of the images"
    if counts.min() >= counts.mean() / 2:
        bold = "the rarest class" if (counts == counts.min()).sum() == 1 else "the rarest classes"
    return f"Classes from the rarest {where} to the most frequent; bold: {bold}."


def gain_table(numbers: Numbers) -> Table | None:
    """Gains over the reference for every class and every score; None where there is nothing to compare."""
    study = numbers.study
    if not numbers.compared:
        return None
    name = _class_columns(study)[0].cell
    rows = [(name(i), recall_key(study.classes[i])) for i in study.order]
    rows += [(heading, name) for name, heading in reversed(SCORES.items())]
    by_method = [Column(phrases.method_name(m), each(_gain, m)) for m in numbers.compared]
    caption = (
        f"Paired differences from {phrases.code(study.reference or '')} in percentage points, with unadjusted "
        f"{phrases.interval_of(numbers)}. Bold: claimed, after correction for the whole family (see the "
        f"answer). About one in twenty of these {len(rows) * len(by_method)} intervals would miss the truth by chance, "
        "so a difference that is not bold is a hint, not a finding."
    )
    return tabulate([Column("Recall of", lambda r: r[0], right=False), *by_method], rows, caption)


def _gain(method: MethodNumbers, row: tuple[str, str]) -> str:
    return phrases.claimed(method.gains[row[1]], method.verdicts.get(row[1]))


def _class_columns(study: StudyData) -> list[Column]:
    counts = study.counts

    def name(index: int) -> str:
        return f"**{study.classes[index]}**" if index in study.rare else study.classes[index]

    columns = [Column("Class", name, right=False)]
    for role, heading in (("train", "Train"), ("test", "Test")):
        if role in counts:
            columns.append(Column(heading, each(lambda c, i: f"{c[i]:,}", counts[role])))
    return columns


@figures.styled
def draw_recall(numbers: Numbers) -> Drawing:
    """Recall of every class and method, with intervals; of more classes than :data:`figures.MOST` the rarest."""
    order = numbers.study.order[: figures.MOST]
    intervals = [(m, [m.recall[i] for i in order]) for m in numbers.methods]
    figure, axes = figures.new_figure(figures.WIDTH, figures.dot_height(len(order), len(intervals)))
    axis = axes[0, 0]
    figures.dots_of(axis, numbers, intervals)
    axis.set_yticks(range(len(order)), figures.class_ticks(numbers))
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"recall, % ({phrases.mean_over_seeds(numbers)}; 95 % interval)")
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
    return figure


@figures.styled
def draw_gains(numbers: Numbers) -> Drawing | None:
    """Gain over the reference for every class and for the mean over classes; None without a comparison."""
    if not numbers.compared:
        return None
    study = numbers.study
    keys = [*(recall_key(study.classes[i]) for i in study.order[: figures.MOST]), "mean_recall"]
    intervals = [(m, [m.gains[k] for k in keys]) for m in numbers.compared]
    figure, axes = figures.new_figure(figures.WIDTH, figures.dot_height(len(keys), len(intervals)))
    axis = axes[0, 0]
    figures.dots_of(axis, numbers, intervals)
    axis.axvline(0, color="#333333", linewidth=1)
    axis.axhline(len(keys) - 1.5, color="#555555", linewidth=0.8)
    axis.set_yticks(range(len(keys)), [*figures.class_ticks(numbers), "mean-class accuracy"])
    against = figures.shorten(numbers.method(str(study.reference)).short)
    axis.set_xlabel(f"gain over {against}, percentage points (95 % interval, paired)")
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
    return figure


SECTION = Section("recall", "Recall for every class", build)

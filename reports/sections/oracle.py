"""Section "Honest and oracle scores": what choosing the epoch on the test set would add."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.special import stdtrit

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import Leak, MethodNumbers, Numbers
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> list | str:
    """The honest number beside the oracle's, and how far scores move between the last epochs."""
    table = leak_table(context.numbers)
    if table is None:
        return "No run kept its test predictions of every epoch, so the oracle is unknown."
    luck = luck_table(context.numbers)
    derived = [m for m in context.study.methods if any(r.facts.get("derived") for r in m.runs)]
    names = phrases.listed([phrases.code(m.label) for m in derived]) if derived else ""
    return [
        f"The oracle of {names} is not known: the logits of epochs that were not selected are not stored."
        * bool(names),
        TableBlock(table, "leak", "Honest and oracle scores"),
        TableBlock(luck, "luck", "Single-epoch luck") if luck else None,
    ]


LEAK_COLUMNS = (
    Column("Method", phrases.method_name, right=False),
    Column("Epochs", lambda m: phrases.span(sorted(set(m.leak["accuracy"].candidates.tolist())))),
    *(
        column
        for name, heading in (("mean_recall", "mean-class"), ("accuracy", "accuracy"))
        for column in (
            Column(f"Honest {heading}", each(lambda n, m: phrases.percent(m.leak[n].honest.mean()), name)),
            Column(f"Oracle {heading}", each(lambda n, m: phrases.percent(m.leak[n].oracle.mean()), name)),
            Column("Leak gap", each(lambda n, m: _gap(m.leak[n]), name)),
        )
    ),
)


def _gap(leak: Leak) -> str:
    """The mean gap with its interval where runs differ, and its range; nothing where there was only one epoch."""
    gap = leak.gap
    if leak.candidates.max() < 2:
        return phrases.UNKNOWN
    mean, low, high = phrases.points(gap.mean()), f"{100 * gap.min():.1f}", f"{100 * gap.max():.1f}"
    if low == high:
        return mean + f" (all {len(gap)} runs)" * (len(gap) > 1)
    reach = float(stdtrit(len(gap) - 1, 0.975)) * gap.std(ddof=1) / np.sqrt(len(gap))
    ends = phrases.points(max(0.0, gap.mean() - reach)), phrases.points(gap.mean() + reach)
    return f"{mean} [{', '.join(ends)}] ({low} to {high})"


def leak_table(numbers: Numbers) -> Table | None:
    """Honest and oracle scores; None where no run kept its per-epoch predictions."""
    rows = [m for m in numbers.methods if m.leak]
    caption = (
        "Epochs: the number to choose from in each run. Honest: the epoch chosen by the selection rule. Oracle: the "
        "best epoch on the test set, which can't be known in advance. The leak gap, in points, is what choosing the "
        "epoch on the test set would have added: mean over runs, with the 95 % t-interval over runs, truncated at 0 "
        "because no gap is negative (minimum to maximum). Equal gaps have no interval, because they don't show that "
        "other runs would have the same gap. With fewer epochs, there is less to gain."
    )
    return tabulate(LEAK_COLUMNS, rows, caption) if rows else None


LAST = 0.25  # share of the epochs, from the end, over which a score is watched
FEWEST = 3


def luck_table(numbers: Numbers) -> Table | None:
    """How much test scores vary over the last epochs of a run; None where no predictions were kept."""
    rows = [m for m in numbers.methods if _last_scores(m, "mean_recall")]
    columns = [Column("Method", phrases.method_name, right=False)]
    columns.append(Column("Last epochs", _watched))
    for name, heading in (("mean_recall", "Mean-class accuracy"), ("accuracy", "Accuracy")):
        columns.append(Column(f"{heading}: sd over epochs", partial(_luck, name, "sd")))
        columns.append(Column("range", partial(_luck, name, "range")))
    caption = (
        f"Test scores over the last {100 * LAST:g} % of the epochs (at least {FEWEST}) of each run: standard deviation "
        "and range in points, mean over runs. A gain of this size can be due to one lucky epoch."
    )
    return tabulate(columns, rows, caption) if rows else None


def _last_scores(method: MethodNumbers, name: str) -> list[np.ndarray]:
    """A score on the test after each of the last epochs, for every run that kept enough of them."""
    each = [scores[name] for scores in method.epochs]
    return [s[-max(FEWEST, round(LAST * len(s))) :] for s in each if len(s) >= FEWEST]


def _watched(method: MethodNumbers) -> str:
    return phrases.span(sorted({len(s) for s in _last_scores(method, "accuracy")}))


def _luck(name: str, what: str, method: MethodNumbers) -> str:
    scores = _last_scores(method, name)
    spread = [s.std(ddof=1) if what == "sd" else np.ptp(s) for s in scores]
    return f"{100 * np.mean(spread):.2f}" if spread else phrases.UNKNOWN


SECTION = Section("leak", "Honest and oracle scores", build)

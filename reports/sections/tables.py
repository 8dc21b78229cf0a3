"""The tables of a study's report. A new column is an entry in one of the tuples below, not a branch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import stdtrit

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.numbers import SCORES, Leak, MethodNumbers, Numbers, recall_key
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.reports.render.table import Column, Table, each, rows_csv, tabulate
from fer_bench.stats import confusion
from fer_bench.stats.chance import COLLAPSED, ChanceTest


def title(method: MethodNumbers | MethodRuns) -> str:
    """A method's label as a table shows it."""
    return phrases.code(method.label) + method.mark


def _class_columns(study: StudyData) -> list[Column]:
    counts = study.counts

    def name(index: int) -> str:
        return f"**{study.classes[index]}**" if index in study.rare else study.classes[index]

    columns = [Column("Class", name, right=False)]
    for role, heading in (("train", "Train"), ("test", "Test")):
        if role in counts:
            columns.append(Column(heading, each(lambda c, i: f"{c[i]:,}", counts[role])))
    return columns


def recall_table(numbers: Numbers) -> Table:
    """Recall of every class, the rarest first, with its interval."""
    study = numbers.study
    shown = [Column(title(m), each(lambda m, i: phrases.share_with_interval(m.recall[i]), m)) for m in numbers.methods]
    one = phrases.one_seed_each(numbers)
    whose = "Wilson's" if one else "Wilson's, for the number of images that would explain the spread seen"
    with_interval = f"with {phrases.interval_of(numbers)}: {whose}"
    caption = f"Recall in %, {phrases.mean_over_seeds(numbers)}, {with_interval}. {_order(study)}"
    return tabulate([*_class_columns(study), *shown], study.order, caption)


def _order(study: StudyData) -> str:
    """In which order the classes stand, and what bold names mean."""
    counts = study.counts.get("train", study.counts["test"])
    if counts.min() == counts.max():
        return f"All classes have equally many {'training' if 'train' in study.counts else 'test'} images."
    where = "in training" if "train" in study.counts else "in the test, since training images are not known,"
    bold = "fewer than half of an even share"
    if counts.min() >= counts.mean() / 2:
        bold = "the rarest" if (counts == counts.min()).sum() == 1 else "the rarest ones"
    return f"Classes from the rarest {where} to the most frequent; bold: {bold}."


def gain_table(numbers: Numbers) -> Table | None:
    """Gains over the reference for every class and every score; None where there is nothing to compare."""
    study = numbers.study
    if not numbers.compared:
        return None
    name = _class_columns(study)[0].cell
    rows = [(name(i), recall_key(study.classes[i])) for i in study.order]
    rows += [(heading, name) for name, heading in reversed(SCORES.items())]
    shown = [
        Column(title(m), each(lambda m, r: phrases.gain_with_interval(m.gains[r[1]]), m)) for m in numbers.compared
    ]
    caption = (
        f"Percentage points over {phrases.code(study.reference or '')}, paired, with {phrases.interval_of(numbers)} "
        f"(Newcombe's). Each interval stands alone: of these {len(rows) * len(shown)}, about one in twenty would miss "
        "the truth by chance, so a single class is a hint and not a finding."
    )
    return tabulate([Column("Recall of", lambda r: r[0], right=False), *shown], rows, caption)


def _score(name: str, method: MethodNumbers) -> str:
    interval = phrases.share_with_interval(method.scores[name]).partition(" ")[2]
    return f"{phrases.mean_and_spread(method.by_seed[name])} {interval}".strip()


SCORE_COLUMNS = (
    Column("Method", title, right=False),
    Column("Seeds", lambda m: str(len(m.seeds))),
    *(Column(heading[0].upper() + heading[1:], each(_score, name)) for name, heading in SCORES.items()),
)


def score_table(numbers: Numbers) -> Table:
    """Accuracy, mean-class accuracy and macro-F1 of every method."""
    caption = f"In %: {phrases.spread_over_seeds(numbers)}, and {phrases.interval_of(numbers)}."
    return tabulate(SCORE_COLUMNS, numbers.methods, caption)


def _lead(against: ChanceTest | None) -> str:
    return phrases.UNKNOWN if against is None else phrases.points(against.value - against.baseline)


def _leaning(study: StudyData, method: MethodNumbers) -> str:
    """The answers that trainings give most, with the share of the images of an average class."""
    shares = 100 * method.chance.dominant_share
    answers = phrases.listed([study.classes[i] for i in dict.fromkeys(method.chance.dominant_class.tolist())])
    ends = dict.fromkeys(f"{share:.0f}" for share in (shares.min(), shares.max()))
    return f"{answers}, {' to '.join(ends)} %"


def chance_table(numbers: Numbers) -> Table:
    """Every method against answers that ignore the image."""
    columns = [
        Column("Method", title, right=False),
        Column("Mean-class accuracy above chance", lambda m: _lead(m.chance.mean_recall)),
        Column("p", lambda m: phrases.p_value(m.chance.mean_recall and m.chance.mean_recall.p)),
        Column("Accuracy above the best constant", lambda m: _lead(m.chance.accuracy)),
        Column("p", lambda m: phrases.p_value(m.chance.accuracy and m.chance.accuracy.p)),
        Column("Most given answer", each(_leaning, numbers.study), right=False),
        Column("Collapsed trainings", lambda m: f"{int(m.chance.collapsed.sum())} of {len(m.chance.collapsed)}"),
    ]
    if any(m.chance.testable for m in numbers.methods):
        caption = (
            f"In points, with one-sided p after Holm's correction for the two tests: {answer.chance_levels(numbers)}. "
            "Mean-class accuracy is tested by shuffling the labels (Ojala and Garriga 2010), accuracy by a score test "
            "with the crossed variance. The most given answer: to what share of the images it is given, every class "
            f"counting alike; a training of {100 * COLLAPSED:g} % or more has collapsed."
        )
    else:
        caption = "Fewer than two classes have test images, so nothing tells whether answers look at the image."
    return tabulate(columns, numbers.methods, caption)


def _by_fold(method: MethodRuns, study: StudyData, name: str) -> np.ndarray:
    """A score in every fold, mean over seeds."""
    score, classes = confusion.SCORES[name], len(study.classes)
    values: dict[int, list[float]] = {}
    for run in method.runs:
        matrix = confusion.confusion_matrix(run.labels, run.predictions, classes)
        values.setdefault(run.fold, []).append(float(score(matrix)))
    return np.asarray([np.mean(values[fold]) for fold in sorted(values)])


def _spread(study: StudyData, name: str, method: MethodRuns) -> str:
    values = 100 * _by_fold(method, study, name)
    low, high = (phrases.percent(v / 100) for v in (values.min(), values.max()))
    return f"{phrases.mean_and_spread(values / 100)} ({low} to {high})"


def fold_table(numbers: Numbers) -> Table | None:
    """Scores pooled over folds beside their spread from fold to fold; None for a single fold."""
    study = numbers.study
    if len(study.folds) < 2:
        return None
    columns = [Column("Method", lambda m: title(numbers.method(m.label)), right=False)]
    columns.append(Column("Folds", lambda m: str(len({r.fold for r in m.runs}))))
    for name, heading in SCORES.items():
        pooled = each(lambda n, m: phrases.percent(numbers.method(m.label).scores[n].value), name)
        columns.append(Column(f"Pooled {heading}", pooled))
        columns.append(Column(f"{heading[0].upper()}{heading[1:]} by fold", each(partial(_spread, study), name)))
    caption = (
        "In %. Pooled: the predictions of all folds are scored together, for each seed, then averaged; intervals and "
        "gains elsewhere in this report are of this kind. By fold: each fold is scored alone (mean over seeds); mean ± "
        "standard deviation over folds (smallest to largest). Folds share training images, so their spread is no "
        "standard error."
    )
    if study.repeated:
        caption += (
            f" {study.repeated:,} of the pooled test images are repetitions of images in other folds; intervals take "
            "repetitions of an image together."
        )
    return tabulate(columns, study.methods, caption)


LEAK_COLUMNS = (
    Column("Method", title, right=False),
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
    """The mean gap with its interval where runs differ, and its range; nothing where there was no epoch to choose."""
    gap = leak.gap
    if leak.candidates.max() < 2:
        return phrases.UNKNOWN
    mean, low, high = phrases.points(gap.mean()), f"{100 * gap.min():.1f}", f"{100 * gap.max():.1f}"
    if low == high:
        return mean + f" (in all {len(gap)} runs)" * (len(gap) > 1)
    reach = float(stdtrit(len(gap) - 1, 0.975)) * gap.std(ddof=1) / np.sqrt(len(gap))
    ends = phrases.points(max(0.0, gap.mean() - reach)), phrases.points(gap.mean() + reach)
    return f"{mean} [{', '.join(ends)}] ({low} to {high})"


def leak_table(numbers: Numbers) -> Table | None:
    """Honest against oracle; None where no run kept its per-epoch predictions."""
    rows = [m for m in numbers.methods if m.leak]
    caption = (
        "Epochs: those of a run that could be chosen. Honest: the one that the selection rule chose. Oracle: the best "
        "of them on the test set, which nobody can know beforehand. The gap, in points, is what peeking would have "
        "added: mean over runs, with the 95 % t-interval over runs, cut at 0 since no gap is below it (smallest to "
        "largest). Equal gaps have no interval: they don't show that other runs have the same. The fewer epochs, the "
        "less there is to gain by peeking."
    )
    return tabulate(LEAK_COLUMNS, rows, caption) if rows else None


def _card(key: str, otherwise: str = phrases.UNKNOWN) -> Callable[[MethodRuns], str]:
    return lambda m: str(m.card.get(key) or otherwise)


def _paper(method: MethodRuns) -> str:
    card = method.card
    text, year = str(card.get("paper") or ""), str(card.get("year") or "")
    text = text if year in text else f"{text} {year}".strip()
    return f"[{text or 'link'}]({card['url']})" if card.get("url") else text or phrases.UNKNOWN


def _params(method: MethodRuns) -> str:
    params = method.runs[0].spec.get("params") or {}
    return ", ".join(f"{k}={v}" for k, v in sorted(params.items())) or "none"


def _weights(method: MethodRuns) -> str:
    parameters = method.card.get("parameters")
    return f"{parameters / 1e6:.2f} M" if isinstance(parameters, (int, float)) else phrases.UNKNOWN


METHOD_COLUMNS = (
    Column("Method", title, right=False),
    Column("Title", _card("title"), right=False),
    Column("Paper", _paper, right=False),
    Column("Changes", _card("changes"), right=False),
    Column("Parameters", _params, right=False),
    Column("Weights", _weights),
)


def method_table(study: StudyData) -> Table:
    """The methods as their cards describe them; columns of which nothing is known are left out."""
    known = [c for c in METHOD_COLUMNS if any(c.cell(m) != phrases.UNKNOWN for m in study.methods)]
    return tabulate(known, study.methods)


def counts_table(study: StudyData) -> Table:
    """Images by class and role."""
    counts = study.counts
    columns = [Column("Class", lambda i: study.classes[i] if i >= 0 else "all", right=False)]
    for role, heading in (("train", "Training"), ("val", "Validation"), ("test", "Test")):
        if role in counts:
            column = Column(heading, each(lambda c, i: f"{c[i] if i >= 0 else c.sum():,}", counts[role]))
            columns.append(column)
    return tabulate(columns, [*study.order, -1])


def pooled(study: StudyData, method: MethodNumbers) -> str:
    """What a confusion matrix is made of, as the end of a sentence: one training, several, several folds."""
    several = f", mean over {phrases.count(len(method.seeds), 'seed')}" if len(method.seeds) > 1 else ""
    by_seed = [{r.fold for r in method.runs.runs if r.seed == seed} for seed in method.seeds]
    if len(study.folds) < 2:
        return several
    if any(folds != by_seed[0] for folds in by_seed):
        return f", all answers of {phrases.count(len(method.runs.runs), 'run')} pooled"
    return f"{several}, {phrases.count(len(by_seed[0]), 'fold')} pooled"


def confusion_table(numbers: Numbers, method: MethodNumbers) -> Table:
    """Row-normalised confusion matrix in %, classes from the rarest to the most frequent."""
    study = numbers.study
    sizes = method.matrix.sum(1)

    def cell(column: int, row: int) -> str:
        text = phrases.percent(method.matrix[row, column] / sizes[row]) if sizes[row] else phrases.UNKNOWN
        return f"**{text}**" if row == column else text

    columns = [Column("True \\ predicted", lambda i: study.classes[i], right=False)]
    columns += [Column(study.classes[j], each(cell, j)) for j in study.order]
    return tabulate(columns, study.order)


def _openings(method: MethodRuns) -> str:
    seals = [r.facts["seal"] for r in method.runs if r.facts.get("seal")]
    if not seals:
        return phrases.UNKNOWN
    return phrases.span(sorted({int(s.get("count", 0)) for s in seals}))


def _blocked(method: MethodRuns) -> str:
    seals = [r.facts["seal"] for r in method.runs if r.facts.get("seal")]
    return str(sum(len(s.get("blocked") or []) for s in seals)) if seals else phrases.UNKNOWN


def _probe(method: MethodRuns, key: str) -> list[float]:
    checks = [c for r in method.runs for c in (r.facts.get("probe") or {}).get("checks", [])]
    return [c[key] for c in checks if c.get(key) is not None]


def _flipped(method: MethodRuns) -> str:
    flipped = _probe(method, "flipped")
    images = max((r.facts["probe"].get("images", 0) for r in method.runs if r.facts.get("probe")), default=0)
    return f"{max(flipped):g} of {images:,}" if flipped else phrases.UNKNOWN


def _verdict(method: MethodRuns) -> str:
    if method.transductive:
        return "⚠ reads other test images"
    unprobed = sum(1 for r in method.runs if not r.facts.get("probe"))
    return "each image alone" if not unprobed else f"not probed in {phrases.count(unprobed, 'run')}"


SEAL_COLUMNS = (
    Column("Method", title, right=False),
    Column("Openings a run", _openings),
    Column("Blocked attempts", _blocked),
    Column("Largest logit change", lambda m: f"{max(_probe(m, 'max_difference'), default=float('nan')):.1e}"),
    Column("Predictions changed", _flipped),
    Column("Predicts", _verdict, right=False),
)


def seal_table(study: StudyData) -> Table:
    """How often the test was opened, and whether predictions depend on the rest of the batch."""
    return tabulate(SEAL_COLUMNS, study.methods)


CSV_HEADER = (
    *("method", "transductive", "quantity", "train_images", "test_images", "seeds", "percent", "low", "high"),
    *("gain_points", "gain_low", "gain_high", "gain_seeds"),
    *("watermark", "blocked", "collapsed_seeds", "chance_p"),
)


def csv_text(numbers: Numbers) -> str:
    """Every headline number in long form: one line a method and quantity, in percent with four decimals."""
    study = numbers.study
    counts = study.counts
    rows: list[tuple[str, ...] | list[str]] = [CSV_HEADER]
    for m in numbers.methods:
        standing = ["; ".join(m.runs.blocked), str(int(m.chance.collapsed.sum())), _chance_p(m)]
        quantities = [(recall_key(study.classes[i]), m.recall[i], i) for i in study.order]
        for key, interval, index in [*quantities, *((n, m.scores[n], None) for n in SCORES)]:
            gain = m.gains.get(key)
            images = [
                "" if index is None or role not in counts else str(counts[role][index]) for role in ("train", "test")
            ]
            cells = [m.label, str(m.transductive).lower(), key, *images, str(len(m.seeds))]
            cells += [_decimal(v) for v in (interval.value, interval.low, interval.high)]
            cells += [_decimal(v) for v in (gain.value, gain.low, gain.high)] if gain else ["", "", ""]
            cells += [str(m.pairs) if gain else "", "; ".join(study.watermarks), *standing]
            rows.append(cells)
    return rows_csv(rows)


def _chance_p(method: MethodNumbers) -> str:
    """The smaller p-value of the two tests against answers that ignore the image."""
    tests = [t.p for t in (method.chance.mean_recall, method.chance.accuracy) if t is not None]
    return f"{min(tests):.4f}" if tests else ""


def _decimal(share: float) -> str:
    return f"{100 * share + 0.0:.4f}" if np.isfinite(share) else ""

"""The page on several data sets: ranks over all of them, every method's numbers, and gains over the reference."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure as Drawing

from fer_bench.printable import csv_cells
from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.across import (
    FREQUENT,
    JUDGED,
    MEAN,
    MEASURES,
    PRICE,
    RARE,
    Comparison,
    Entry,
    Measure,
    profile,
)
from fer_bench.reports.facts.records import Run
from fer_bench.reports.facts.verdicts import CLAIMS, Verdict
from fer_bench.reports.render import blocks, marks
from fer_bench.reports.render.blocks import Block, Bullets, Code, Document, Figure, Notice, Paragraph, Part, TableBlock
from fer_bench.reports.render.table import Column, Table, each, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.settings import PER_RUN, flatten, in_words
from fer_bench.reports.sections.significance import draw_ranks, rank_tests

if TYPE_CHECKING:
    from fer_bench.stats.ranks import Ranking

FEW = 10  # data sets below which tests over ranks find little (Demsar 2006, section 3.2)
VERDICTS = (
    "Gains and losses are those that a study's own report claims. They are corrected for the comparisons of that "
    "study, but not for the number of data sets. A data set counts only if its report can give a verdict."
)
IN_TABLE = ("backbone", "pretrained", "recipe.epochs")  # settings that the table of studies shows
APART = {*PER_RUN, *IN_TABLE, "profile", "dataset_params"}  # not listed as settings that differ


def page(comparison: Comparison, name: str) -> Document:
    """The whole page as a document, for any format."""
    methods, sets = (
        phrases.count(len(comparison.methods), "method"),
        phrases.listed([e.title for e in comparison.entries]),
    )
    intro: list[Block] = [Paragraph(f"{methods} on {len(comparison.entries)} data sets: {sets}.")]
    for entry in comparison.entries:
        if entry.study.watermarks:
            why = "; ".join(entry.study.watermarks)
            intro.append(Notice(f"**Watermarked: not a fair estimate on {entry.title}.** {why}"))
        if folds := answer.missing_folds(entry.study):
            intro.append(Notice(f"{entry.title}: {folds}"))
    parts = {
        "ranks": ("Ranks over all data sets", _ranks(comparison)),
        "scores": ("Scores", _scores(comparison)),
        "gains": ("Gains over the reference", _gains(comparison)),
        "compared": ("What was compared", _compared(comparison)),
        "missing": ("What is missing", [Bullets(comparison.notes) if comparison.notes else "Nothing is missing."]),
        "repeat": ("How to reproduce this", _repeat(comparison)),
    }
    notes = _footnotes(comparison)
    built = tuple(
        Part(key, title, blocks.footnoted(blocks.blocks(content), notes)) for key, (title, content) in parts.items()
    )
    return Document(name, tuple(intro), built, _origin(comparison))


def _footnotes(comparison: Comparison) -> dict[str, str]:
    """The attempts of methods marked ⊘, in any of the studies."""
    tried = [e.study.method(label) for label in sorted(comparison.blocked) for e in comparison.entries]
    notes = answer.footnotes(tried)
    notes.pop("⚠", None)  # captions say it
    return notes


def _origin(comparison: Comparison) -> tuple[str, ...]:
    """What the numbers were computed from, for the head of a file that may be passed on alone."""
    lines: list[str] = []
    for study in (e.study for e in comparison.entries):
        lines.append(f"study {study.name}: {study.command}".removesuffix(": "))
        lines.append(f"data {study.dataset}, fingerprint {study.fingerprint}")
        lines += [f"{m.label}: runs {', '.join(r.record.id for r in m.runs)}" for m in study.methods]
        lines += [marks.plain(f"⚠ {reason}") for reason in study.watermarks]
    return (*lines, *map(marks.plain, comparison.notes))


# -- ranks -----------------------------------------------------------------------------------------------------------


def _ranks(comparison: Comparison) -> list[Block | str]:
    """The tests over all data sets and their diagram, or why there are none."""
    ranking = comparison.ranking(MEAN)
    methods, sets = len(comparison.ranked), len(comparison.blocks(MEAN))
    aside = " ".join(_set_aside(comparison))
    if ranking is None:
        left = f"{phrases.count(methods, 'method')} and {phrases.count(sets, 'data set')}"
        why = f"There are no ranks: they need at least two methods and two data sets, and {left} can be ranked."
        return [why, aside]
    alt = f"Critical-difference diagram: mean ranks of {methods} methods over {sets} data sets"
    cautions = " ".join(_cautions(comparison, ranking))
    return [_tests(ranking), cautions, aside, Figure("ranks", alt, draw_ranks(ranking))]


def _tests(ranking: Ranking) -> str:
    return (
        f"Ranks of {len(ranking.names)} methods in mean-class accuracy over {ranking.blocks} data sets. Each method "
        f"has one value per data set, the mean over seeds; ties share ranks. {rank_tests(ranking, 'data sets')}"
    )


def _cautions(comparison: Comparison, ranking: Ranking) -> Iterator[str]:
    """Caveats about the tests."""
    if ranking.blocks < FEW:
        yield (
            f"With fewer than {FEW} data sets these tests have little power: a bar does not show that methods are "
            "equal, and the diagram is a description, not evidence. The p-values of chi² and F are approximations for "
            "many data sets, and with few that of F can be far too small; the permutation test needs no approximation."
        )
    studies = [e.study for e in comparison.blocks(MEAN)]
    if min(len({s.dataset for s in studies}), len({s.fingerprint for s in studies})) < len(studies):
        yield (
            "Some of these data sets are the same images under another protocol or profile, so they are not "
            "independent, and the tests are overconfident."
        )


def _set_aside(comparison: Comparison) -> Iterator[str]:
    """Which methods and data sets the ranks leave out, and why."""
    if comparison.left_out:
        yield f"Left out because not in every study: {_codes(comparison.left_out)}."
    if comparison.transductive:
        yield f"Listed with ⚠ but not ranked (reads other test images): {_codes(comparison.transductive)}."
    if comparison.blocked:
        yield f"Listed with ⊘ but not ranked (tried to open sealed files): {_codes(comparison.blocked)}."
    marked = [e.title for e in comparison.entries if e.study.watermarks]
    if marked:
        yield f"Listed with ⚠ but not ranked (not a fair estimate): {phrases.listed(marked)}."


def _codes(labels: Iterable[str]) -> str:
    return phrases.listed([phrases.code(label) for label in sorted(labels)])


# -- numbers ---------------------------------------------------------------------------------------------------------


def _scores(comparison: Comparison) -> list[Block]:
    """A table for each measure, and the classes of the tail."""
    hardly = (f"{e.title}: {sentence}" for e in comparison.entries for sentence in _no_classifiers(comparison, e))
    tables = (_score_table(comparison, m) for m in MEASURES)
    return [*tables, Bullets(tuple(map(_tail, comparison.entries))), Bullets(tuple(hardly))]


def _score_table(comparison: Comparison, measure: Measure) -> TableBlock:
    """Method by data set, with the mean rank."""
    ranking = comparison.ranking(measure)
    ranks = {} if ranking is None else dict(zip(ranking.names, ranking.ranks, strict=True))
    columns = [Column("Method", lambda label: _name(comparison, label), right=False)]
    columns += [Column(e.title + e.mark, each(_spread, (e, measure))) for e in comparison.entries]
    columns.append(Column("Mean rank", lambda label: f"{ranks[label]:.2f}" if label in ranks else phrases.UNKNOWN))
    title = measure.title[0].upper() + measure.title[1:]
    caption = f"{title} in %, mean ± standard deviation over {_varied(comparison)}. "
    caption += f"Mean rank over {ranking.blocks} data sets (1 is best)." if ranking else "Too few can be ranked."
    aside = [e.title for e in comparison.doubtful(measure)]
    if aside:
        titles = phrases.listed(aside)
        caption += f" Ranks leave out {titles}, where a method has collapsed or is at chance."
    if any(e.mark for e in comparison.entries) or comparison.transductive:
        caption += " ⚠: listed but not ranked."
    caption += _doubtful(comparison)
    return TableBlock(tabulate(columns, comparison.methods, caption), f"scores-{marks.slug(measure.key)}", title)


def _varied(comparison: Comparison) -> str:
    """What the trainings of a method differ in, on the data set where most does."""
    return max((phrases.varied(e.study) for e in comparison.entries), key=len)


def _name(comparison: Comparison, label: str) -> str:
    return phrases.code(label) + comparison.mark(label)


def _spread(of: tuple[Entry, Measure], label: str) -> str:
    entry, measure = of
    return phrases.mean_and_spread(entry.by_seed(label, measure)) + _doubt(entry, label)


def _doubt(entry: Entry, label: str) -> str:
    """∅ for a method that has collapsed or is at chance on a data set."""
    return " ∅" * entry.numbers.method(label).chance.doubtful


def _doubtful(comparison: Comparison) -> str:
    """What ∅ means, as the end of a caption, where tables may show it."""
    marked = any(_doubt(e, label) for e in comparison.entries for label in comparison.methods)
    return " ∅: the method or its reference has collapsed or is not significantly better than chance." * marked


def _tail(entry: Entry) -> str:
    """The tail classes of a data set, with their numbers of images."""
    if not entry.tail:
        return f"{entry.title}: no tail, because {entry.numbers.groups.reason}."
    return (
        f"{entry.title}: the tail is "
        + phrases.listed([phrases.describe_class(entry.study, i) for i in entry.tail])
        + "."
    )


# -- gains -----------------------------------------------------------------------------------------------------------


def _gains(comparison: Comparison) -> list[Block | str | None]:
    """Sentences that follow from verdicts alone, a table for each measure, and the figure of the tail."""
    if comparison.reference is None:
        return ["The studies have no common reference, so no gains are computed."]
    drawn, entries = draw_gains(comparison), comparison.entries
    alt = "Gain in recall of the tail classes on every data set, with intervals"
    return [
        Bullets(tuple(_sentence(comparison, label) for label in comparison.compared)),
        VERDICTS,
        Bullets(tuple(f"{e.title}: {sentence}" for e in comparison.entries if (sentence := phrases.sampling(e.study)))),
        *(_gain_table(comparison, m) for m in JUDGED),
        "Side effects on the frequent classes and on accuracy:",
        *(
            _price_table(comparison, m)
            for m in PRICE
            if any(e.gain(c, m) for e in entries for c in comparison.compared)
        ),
        Figure("gains", alt, drawn) if drawn else None,
    ]


def _sentence(comparison: Comparison, label: str) -> str:
    if label in comparison.unranked:
        reasons = ["reads other test images"] * (label in comparison.transductive)
        reasons += ["tried to open sealed files"] * (label in comparison.blocked)
        reason = f"nothing is claimed, because it {phrases.listed(reasons)}"
        return f"{_name(comparison, label)}: {reason}. {_side_effects(comparison, label)}."
    judged = [f"{m.title}: {_counted(comparison.judged(label, m))}" for m in JUDGED]
    against = phrases.code(str(comparison.reference))
    return f"{phrases.code(label)} vs {against}. {_sentences([*judged, _side_effects(comparison, label)])}"


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def _side_effects(comparison: Comparison, label: str) -> str:
    """How recall of the frequent classes and accuracy change on every data set."""
    changes = []
    for measure in PRICE:
        gains = [(e.title, gain) for e in comparison.entries if (gain := e.gain(label, measure))]
        if gains:
            each_one = phrases.listed([f"{phrases.points(gain.value)} ({title})" for title, gain in gains])
            changes.append(f"{measure.title} {each_one} points")
    return f"Side effects: {'; '.join(changes)}" if changes else "Side effects are unknown"


def _no_classifiers(comparison: Comparison, entry: Entry) -> Iterator[str]:
    """Sentences on methods that have collapsed or are at chance on a data set."""
    for label in comparison.methods:
        if sentence := answer.no_classifier(entry.numbers, entry.numbers.method(label)):
            yield sentence


def _counted(verdicts: dict[str, Verdict]) -> str:
    """ "gain in 1 of 2 data sets (toy), loss in 0 of 2"."""
    of = phrases.count(len(verdicts), "data set")
    if not verdicts:
        return "no data set allows a verdict"
    by_chance = [t for t, v in verdicts.items() if v is Verdict.CHANCE]
    aside = f" (on {phrases.listed(by_chance)} a difference is due to collapse or chance)" if by_chance else ""
    if not set(CLAIMS) & set(verdicts.values()):
        return f"no gain or loss shown in {of}{aside}"
    gains, losses = ([t for t, v in verdicts.items() if v is kind] for kind in CLAIMS)
    named = [f" ({', '.join(where)})" if where else "" for where in (gains, losses)]
    return f"gain in {len(gains)} of {of}{named[0]}, loss in {len(losses)} of {len(verdicts)}{named[1]}{aside}"


def _gain_table(comparison: Comparison, measure: Measure) -> TableBlock:
    columns = [Column("Method", lambda label: _name(comparison, label), right=False)]
    columns += [Column(e.title + e.mark, each(_gain, (comparison, e, measure))) for e in comparison.entries]
    for heading, kind in (("Gains in", Verdict.GAIN), ("Losses in", Verdict.LOSS)):
        columns.append(Column(heading, each(_count, (comparison, measure, kind))))
    caption = (
        f"Gain in {measure.title} in percentage points over {phrases.code(str(comparison.reference))}, with its 95 % "
        "interval (unadjusted). Bold and counted: gains and losses that the study's own report claims."
        + _doubtful(comparison)
    )
    return TableBlock(
        tabulate(columns, comparison.compared, caption),
        f"gains-{marks.slug(measure.key)}",
        f"Gains in {measure.title}",
    )


def _gain(of: tuple[Comparison, Entry, Measure], label: str) -> str:
    comparison, entry, measure = of
    gain = entry.gain(label, measure)
    if gain is None:
        return phrases.UNKNOWN
    verdict = comparison.judged(label, measure).get(entry.title) if measure in JUDGED else None
    return phrases.claimed(gain, verdict) + (_doubt(entry, label) or _doubt(entry, str(comparison.reference)))


def _price_table(comparison: Comparison, measure: Measure) -> TableBlock:
    columns = [Column("Method", lambda label: _name(comparison, label), right=False)]
    columns += [Column(e.title + e.mark, each(_gain, (comparison, e, measure))) for e in comparison.entries]
    caption = (
        f"Change in {measure.title} in percentage points against {phrases.code(str(comparison.reference))}, with its "
        "95 % interval." + _doubtful(comparison)
    )
    title = f"Change in {measure.title}"
    return TableBlock(tabulate(columns, comparison.compared, caption), f"price-{marks.slug(measure.key)}", title)


def _count(of: tuple[Comparison, Measure, Verdict], label: str) -> str:
    comparison, measure, kind = of
    verdicts = list(comparison.judged(label, measure).values())
    return f"{verdicts.count(kind)} of {len(verdicts)}" if verdicts else phrases.UNKNOWN


@figures.styled
def draw_gains(comparison: Comparison) -> Drawing | None:
    """Gain of the tail over the reference, a band per data set and a dot per method; None where none is known."""
    labels = comparison.compared
    entries = [e for e in comparison.entries if any(e.gain(label, RARE) for label in labels)]
    if not entries:
        return None
    figure, axes = figures.new_figure(figures.WIDTH, 1.2 + len(entries) * max(0.5, 0.14 * len(labels) + 0.1))
    axis, looks = axes[0, 0], figures.looks_of(comparison.methods)
    names = {label: figures.shorten(label) + comparison.mark(label) for label in labels}
    figures.dots(axis, [(names[m], looks[m], [e.gain(m, RARE) for e in entries]) for m in labels])
    axis.axvline(0, color="#333333", linewidth=1)
    axis.set_yticks(range(len(entries)), [_band(e) for e in entries])
    reference = figures.shorten(str(comparison.reference))
    axis.set_xlabel(f"gain of the tail over {reference}, percentage points (95 % interval, paired)")
    figures.legend(figure, axis)
    return figure


def _band(entry: Entry) -> str:
    names = ", ".join(entry.study.classes[i] for i in entry.tail)
    return f"{figures.shorten(entry.title, 32)}{entry.mark}\n{figures.shorten(names, 32)}"


# -- what was compared, and how to repeat it ---------------------------------------------------------------------------


def _compared(comparison: Comparison) -> list[Block | str | None]:
    """The studies, and what else differs between their settings."""
    crossed = any(e.study.crossed for e in comparison.entries)
    settings = {e.title: _values(e.runs(comparison.methods)) for e in comparison.entries}

    def setting(key: str, entry: Entry) -> str:
        return " / ".join(settings[entry.title].get(key, [phrases.UNKNOWN]))

    columns = [
        Column("Data set", lambda e: e.study.dataset + e.mark, right=False),
        Column("Study", lambda e: phrases.code(e.study.name), right=False),
        Column("Protocol", lambda e: phrases.code(str(e.study.protocol.get("name", ""))), right=False),
        Column("Profile", lambda e: phrases.code(profile(e.study)), right=False),
        *(Column(key.rpartition(".")[2].capitalize(), each(setting, key), right=False) for key in IN_TABLE),
        Column("Seeds", lambda e: phrases.span(sorted({r.seed for r in e.runs(comparison.methods)}))),
        *([Column("Subsets", lambda e: phrases.span(list(e.study.subsets)))] if crossed else []),
        Column("Test images", lambda e: f"{len(e.study.labels):,}"),
        Column("Data fingerprint", lambda e: phrases.code(e.study.fingerprint), right=False),
    ]
    caption = "Settings may differ between data sets; a study's own report lists what its methods share."
    table = TableBlock(tabulate(columns, comparison.entries, caption), "studies", "Studies that were compared")
    different = _different(settings)
    heading = "Other settings that differ between the studies:" if different else "No other setting differs."
    return [table, heading, TableBlock(different, "differing", "Settings that differ") if different else None]


def _values(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Every setting of some runs with all its values, including the code of each method."""
    by_setting: dict[str, set[str]] = {}
    for run in runs:
        name = phrases.code(run.label)
        code = {f"code of {name}": str(run.record.json("spec").get("source", ""))[:12]}
        params = {f"{name} {key}": value for key, value in flatten(run.spec.get("params") or {}).items()}
        for key, value in (flatten(run.spec) | params | code).items():
            by_setting.setdefault(key, set()).add(in_words(value))
    return {key: sorted(values) for key, values in by_setting.items()}


def _different(settings: Mapping[str, Mapping[str, list[str]]]) -> Table | None:
    """The settings that are not the same in all studies, a column per study; None where all agree."""
    keys = sorted({key for of in settings.values() for key in of if APART.isdisjoint((key, key.split(".")[0]))})
    cells_of = {key: [" / ".join(of.get(key, [phrases.UNKNOWN])) for of in settings.values()] for key in keys}
    differing = [key for key, values in cells_of.items() if len(set(values)) > 1]
    if not differing:
        return None
    columns = [Column("Setting", str, right=False)]
    columns += [
        Column(title, each(lambda i, key: cells_of[key][i], i), right=False) for i, title in enumerate(settings)
    ]
    return tabulate(columns, differing)


def _repeat(comparison: Comparison) -> list[Block | str | None]:
    """Commands, fingerprints and run ids."""
    studies = [e.study for e in comparison.entries]
    commands = dict.fromkeys(s.command for s in studies if s.command)
    lines = []
    for study in studies:
        runs = (
            f"{phrases.code(m.label)} " + ", ".join(phrases.code(r.record.id) for r in m.runs) for m in study.methods
        )
        facts = f"{phrases.code(study.name)}, data fingerprint {phrases.code(study.fingerprint)}"
        lines.append(f"{facts}: {'; '.join(runs)}")
    return [Code("\n".join(commands)) if commands else None, "Runs in the ledger, by study:", Bullets(tuple(lines))]


# -- CSV -------------------------------------------------------------------------------------------------------------

CSV_HEADER = (
    "method", "transductive", "dataset", "protocol", "profile", "study", "measure", "seeds", "percent", "sd", "ranked",
    "gain", "gain_low", "gain_high", "gain_seeds", "verdict", "watermark", "blocked", "collapsed_seeds",
)  # fmt: skip


def csv_text(comparison: Comparison) -> str:
    """Every number of the page in long form, in percent and points with four decimals."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(CSV_HEADER)
    for measure in (*MEASURES, FREQUENT):
        counted = comparison.blocks(measure) if measure in MEASURES and comparison.ranking(measure) else []
        for label in comparison.methods:
            for entry in comparison.entries:
                ranked = label in comparison.ranked and entry in counted
                rows.writerow(csv_cells(_line(comparison, entry, label, measure, ranked)))
    return out.getvalue()


def _line(comparison: Comparison, entry: Entry, label: str, measure: Measure, ranked: bool) -> list[str]:
    study, values = entry.study, entry.by_seed(label, measure)
    values = values[np.isfinite(values)]
    gain = entry.gain(label, measure) if comparison.reference not in (None, label) else None
    verdict = comparison.judged(label, measure).get(entry.title) if gain and measure in JUDGED else None
    return [
        label,
        str(label in comparison.transductive).lower(),
        *(study.dataset, str(study.protocol.get("name", "")), profile(study), study.name, measure.key),
        str(len(values)),
        _decimal(values.mean()) if len(values) else "",
        _decimal(values.std(ddof=1)) if len(values) > 1 else "",
        str(ranked).lower(),
        *(map(_decimal, (gain.value, gain.low, gain.high)) if gain else ("", "", "")),
        str(entry.numbers.method(label).pairs) if gain else "",
        verdict.name.lower() if verdict else "",
        "; ".join(study.watermarks),
        "; ".join(study.method(label).blocked),
        str(int(entry.numbers.method(label).chance.collapsed.sum())),
    ]


def _decimal(share: float) -> str:
    return f"{100 * share + 0.0:.4f}"

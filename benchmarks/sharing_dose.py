"""Does sharing help a rare class the more, the more it has in common with others? The page of a dose-response study.

The built-in faces have a dose: `shared`, the share of disgust's action units that other expressions have too. The
studies ``sharing-dose-...`` of a home train the same arms of `rasn` at several doses: without sharing (the reference),
with forms of sharing, and with a control that has as many weights and shares nothing. The people of the faces, their
expressions and the seeds are the same at every dose, so gains are compared by person and seed.

    python benchmarks/sharing_dose.py HOME... --out sharing-dose
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
from dose_numbers import (
    ARMS,
    AUROC,
    CONTROL,
    CONTROLLED,
    MEASURES,
    MINORITY,
    PREFIX,
    REFERENCE,
    Dose,
    Doses,
    Effect,
    Effects,
    effects_of,
    load_doses,
    score,
)
from matplotlib.figure import Figure as Drawing

from fer_bench.base.files import write_text
from fer_bench.errors import FerBenchError
from fer_bench.printable import csv_cells, printable
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.verdicts import CLAIMS, Verdict
from fer_bench.reports.render import figure_files, markdown
from fer_bench.reports.render.blocks import Block, Bullets, Code, Document, Figure, Part, TableBlock, blocks
from fer_bench.reports.render.page_folder import Target, aside, check, move
from fer_bench.reports.render.table import Column, each, tabulate
from fer_bench.reports.sections import figures

AGAIN = "python benchmarks/sharing_dose.py"


# -- the page --------------------------------------------------------------------------------------------------------


def page(doses: Doses, effects: Effects) -> Document:
    """The whole page."""
    notes = (*doses.notes, *_uncontrolled(doses))
    parts = [
        ("answer", "Answer", [lead(doses, effects), reading(doses, effects), *_about(doses, effects)]),
        ("reference", "Without sharing", [_absolute(doses)]),
        ("gains", "Gains by dose", [_figure(doses, effects), *(_gains(doses, effects, m) for m in MEASURES)]),
        ("missing", "What was left out", [Bullets(notes) if notes else "Nothing."]),
        ("repeat", "How to reproduce this", _repeat(doses)),
    ]
    forms = phrases.listed([ARMS[s] for s in doses.sources])
    intro = (
        f"{phrases.count(len(doses.doses), 'dose')} ({doses.percents}), "
        f"{phrases.count(len(doses.seeds), 'seed')} for each arm and dose. The dose is the share of *{MINORITY}*'s "
        f"action units that other expressions of the built-in faces have too, by probability times intensity. "
        f"Arms: {forms}, and no sharing."
    )
    return Document(
        title="Sharing and what there is to share",
        intro=blocks(intro),
        parts=tuple(Part(name, title, blocks(content)) for name, title, content in parts),
    )


def lead(doses: Doses, effects: Effects) -> str:
    """What is seen, in two sentences."""
    slopes = {pair: effects.of[*pair, "recall", None] for pair in doses.tested}
    forms = [pair for pair in doses.tested if pair[1] == REFERENCE]
    first, last = doses.doses[0].percent, doses.doses[-1].percent
    changes = phrases.listed(
        [f"{phrases.gain_with_interval(slopes[pair].interval)} points with {ARMS[pair[0]]}" for pair in forms]
    )
    grows = _shown([p for p in forms if slopes[p].verdict is Verdict.GAIN], "grow")
    falls = _shown([p for p in forms if slopes[p].verdict is Verdict.LOSS], "fall")
    said = " and ".join(filter(None, [grows, falls])) or "is not shown to grow or fall"
    one = "With one seed, what" if len(doses.seeds) == 1 else "What"
    one += f" sharing gains in recall of *{MINORITY}* {said} as more of its action units occur elsewhere: along a "
    one += f"straight line, it changes by {changes} from a dose of 0 to 100 % (trained at {first} to {last})."
    claims = [_claim(effects, e) for pair in forms for e in effects.row(pair, "recall")[:-1] if e.claimed]
    two = phrases.listed(claims) if claims else "at no dose is a form shown to gain or lose recall"
    two = f"{_capital(two)} against the same network without sharing"
    if (CONTROLLED, CONTROL) not in doses.tested:
        return f"{one} {two}; no control with as many weights was trained at every dose."
    beyond = effects.row((CONTROLLED, CONTROL), "recall")[:-1]
    certain = [_claim(effects, e) for e in beyond if e.claimed]
    if certain:
        return f"{one} {two}; {phrases.listed(certain)} against the control, which has as many weights."
    values = [e.interval.value for e in beyond]
    span = f"{phrases.points(min(values))} to {phrases.points(max(values))} points"
    return f"{one} {two}, nor {ARMS[CONTROLLED]} against their control, which has as many weights ({span})."


def reading(doses: Doses, effects: Effects) -> str:
    """Why only what lies beyond the control speaks of sharing, and how its slope runs in each seed."""
    recall = {d.percent: float(doses.samples[REFERENCE, d.shared].values["recall"].mean()) for d in doses.doses}
    low, high = min(recall, key=recall.__getitem__), max(recall, key=recall.__getitem__)
    least, most = (f"{phrases.percent(recall[dose])} %" for dose in (low, high))
    room = (
        f"**How to read it.** Without sharing, recall of *{MINORITY}* is {most} at a dose of {high} and {least} at "
        f"{low}. Where it is lower there is more room for a gain. So a slope over no sharing may come from that room "
        "and not from what there is to share, with any change that helps at all."
    )
    if (CONTROLLED, CONTROL) not in doses.tested:
        return f"{room} No control was trained at every dose, which would have the same room."
    slope = effects.of[CONTROLLED, CONTROL, "recall", None]
    seeds = phrases.listed([phrases.points(v) for v in slope.by_seed])
    each_seed = "in the one seed" if len(slope.by_seed) == 1 else f"in the {len(slope.by_seed)} seeds"
    few = " So few seeds can't show a slope of this size." * (len(slope.by_seed) < 5 and slope.verdict not in CLAIMS)
    return (
        f"{room} The control has the same room and as many weights, so the slope to read is that of {ARMS[CONTROLLED]} "
        f"beyond the control: {seeds} points {each_seed}, {phrases.gain_with_interval(slope.interval)} together.{few}"
    )


def _uncontrolled(doses: Doses) -> list[str]:
    """A note on the dictionary, whose control no study of this page trains."""
    if "dictionary" not in doses.sources:
        return []
    return [
        "No control with the weights of the dictionary (`share.source=own_projection`) takes part, so what the "
        "dictionary gains may be due to its weights or to the room that the reference leaves."
    ]


def _shown(pairs: Sequence[tuple[str, str]], how: str) -> str:
    return f"is shown to {how} with {phrases.listed([ARMS[arm] for arm, _ in pairs])}" if pairs else ""


def _claim(effects: Effects, effect: Effect) -> str:
    """ "with class prototypes, recall is shown to rise at 50 % (+9.0 [+4.0, +14.0] points)"; it may be a shift."""
    rises, size = effect.interval.value > 0, phrases.gain_with_interval(effect.interval)
    area = effects.of[effect.arm, effect.other, AUROC, effect.shared].interval
    doubt = ", but no AUROC" if rises and not area.low > 0 else ""
    said = f"with {ARMS[effect.arm]}, recall is shown to {'rise' if rises else 'fall'}"
    return f"{said} at {100 * (effect.shared or 0):g} % ({size} points{doubt})"


def _about(doses: Doses, effects: Effects) -> list[str]:
    """What was tested, and what the intervals cover."""
    study, several = doses.doses[0].study, len(doses.seeds) > 1
    people = len(np.unique(study.truth.units))
    seeds = f"{phrases.count(len(doses.seeds), 'seed')} (seed{'s' * several} {phrases.span(list(doses.seeds))})"
    over = "seeds and people" if several else "people only: one seed says nothing about other training runs"
    claim = (
        f"{'One' if several else 'With more than one seed, one'} family of {effects.tests} comparisons is tested: the "
        "gain in recall at each dose and its slope, of each form over the reference, and of class prototypes over the "
        f"control. A difference is *shown* if its p-value times {effects.tests} is below 0.05 (Bonferroni), so the "
        "probability of any false claim is at most 5 %. All intervals are unadjusted 95 % intervals."
    )
    how = (
        f"Every arm was trained at every dose with {seeds}. Intervals cover {over}. The {len(study.labels):,} test "
        f"images show {people:,} people, each of whom is one sampling unit. The people, their expressions and all "
        "random draws but the exchanged action units are the same at every dose. So the slope is the least-squares "
        "slope of the gains over the doses, computed for each seed and without each person in turn, and its interval "
        "is the crossed t-interval that reports print for AUROC. No interval covers other training sets."
    )
    return [claim, how]


def _absolute(doses: Doses) -> TableBlock:
    seeds = "one seed" if len(doses.seeds) == 1 else "mean over seeds"

    def share(measure: str, dose: Dose) -> str:
        hardly = " ∅" * ((REFERENCE, dose.shared) in doses.doubtful)
        return phrases.share_with_interval(score(doses.samples[REFERENCE, dose.shared], measure)) + hardly

    def images(role: str, dose: Dose) -> str:
        counts = dose.study.counts.get(role)
        return phrases.UNKNOWN if counts is None else f"{counts[dose.minority]:,}"

    columns = [
        Column("Dose", lambda d: d.percent),
        Column(f"Training images of {MINORITY}", each(images, "train")),
        Column("Test images", each(images, "test")),
        *(Column(_capital(title), each(share, measure)) for measure, title in MEASURES.items()),
    ]
    caption = f"The reference, {phrases.code(doses.doses[0].arms[REFERENCE])}, in %: {seeds}, with 95 % intervals."
    return TableBlock(tabulate(columns, doses.doses, caption), "dose-reference", "Scores without sharing by dose")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _pair(pair: tuple[str, str]) -> str:
    arm, other = pair
    return ARMS[arm] if other == REFERENCE else f"{ARMS[arm]} − {ARMS[other]}"


def _gains(doses: Doses, effects: Effects, measure: str) -> TableBlock:
    def cell(place: int, pair: tuple[str, str]) -> str:
        effect = effects.row(pair, measure)[place]
        hardly = any((source, effect.shared) in doses.doubtful for source in pair)
        return phrases.claimed(effect.interval, effect.verdict) + " ∅" * hardly

    def slope(pair: tuple[str, str]) -> Effect:
        return effects.row(pair, measure)[-1]

    columns = [
        Column("Arm", _pair, right=False),
        *(Column(f"At {dose.percent}", each(cell, k)) for k, dose in enumerate(doses.doses)),
        Column("Slope", each(cell, len(doses.doses))),
        Column("Slope by seed", lambda pair: ", ".join(map(phrases.points, slope(pair).by_seed))),
    ]
    if measure == "recall":
        columns.append(Column("Adjusted p of the slope", lambda pair: phrases.p_value(slope(pair).adjusted)))
        columns.append(Column("Verdict on the slope", lambda pair: _verdict(slope(pair)), right=False))
    caption = (
        f"Paired differences in {MEASURES[measure]}, in percentage points, from the reference or from the control, "
        "with 95 % intervals. Slope: the change per 100 points of dose along the least-squares line."
    )
    caption += " Bold: claimed." * (measure == "recall")
    marked = any((source, dose.shared) in doses.doubtful for dose in doses.doses for source in ARMS)
    caption += " ∅: one side has collapsed or is not shown to be better than chance." * marked
    return TableBlock(tabulate(columns, doses.contrasts, caption), f"dose-{measure}", f"Gains in {MEASURES[measure]}")


def _verdict(effect: Effect) -> str:
    return "not tested" if effect.verdict is None else effect.verdict.value


def _figure(doses: Doses, effects: Effects) -> Figure:
    alt = f"What each arm gains over no sharing in four measures, against the share of {MINORITY}'s shared action units"
    return Figure(PREFIX, alt, draw(doses, effects))


@figures.styled
def draw(doses: Doses, effects: Effects) -> Drawing:
    """A panel for each measure: the gain over the reference by dose, with intervals; the control in grey."""
    figure, axes = figures.new_figure(figures.WIDTH, 6.4, 2, 2, sharex=True)
    pairs = [pair for pair in doses.contrasts if pair[1] == REFERENCE]
    looks = figures.looks_of([arm for arm, _ in pairs if arm != CONTROL])
    looks[CONTROL] = ("#777777", "x", ":")
    step = 1.5 * (doses.doses[-1].shared - doses.doses[0].shared)
    for axis, (measure, title) in zip(axes.flat, MEASURES.items(), strict=True):
        for k, pair in enumerate(pairs):
            colour, marker, line = looks[pair[0]]
            row = [e for e in effects.row(pair, measure)[:-1] if e.interval.known]
            x = np.array([100 * (e.shared or 0) for e in row]) + (k - (len(pairs) - 1) / 2) * step
            low, value, high = (100 * np.array([getattr(e.interval, a) for e in row]) for a in ("low", "value", "high"))
            axis.vlines(x, low, high, color=colour, linewidth=1.2, alpha=0.6)
            axis.plot(x, value, color=colour, marker=marker, linestyle=line, markersize=5, label=ARMS[pair[0]])
        axis.axhline(0, color="#333333", linewidth=1)
        axis.set_title(title)
        axis.set_xticks([100 * dose.shared for dose in doses.doses])
        axis.grid(axis="y")
    for axis in axes[:, 0]:
        axis.set_ylabel("gain over no sharing, points")
    for axis in axes[-1]:
        axis.set_xlabel(f"dose: action units of {MINORITY} that others have, %")
    figures.legend(figure, axes[0, 0])
    return figure


def _repeat(doses: Doses) -> list[Block | str]:
    commands = [dose.study.command for dose in doses.doses if dose.study.command]
    return [
        "One study for each dose. All can share one home; each command prepares the faces of its dose first.",
        Code("\n".join([*commands, f"{AGAIN} . --out {PREFIX}"])),
        "Other work ran on the machine that trained these runs, so their training times mean nothing.",
    ]


HEADER = (
    "kind", "arm", "against", "measure", "shared", "seeds", "value", "low", "high", "p", "p_adjusted", "verdict",
)  # fmt: skip


def csv_text(doses: Doses, effects: Effects) -> str:
    """All numbers in long form: scores in %, differences in points, slopes in points per 100 points of dose."""
    out = StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(HEADER)
    seeds = len(doses.seeds)
    for (source, at), sample in doses.samples.items():
        for measure in MEASURES:
            row = ["score", ARMS[source], "", measure, f"{at:g}", seeds, _points(float(sample.values[measure].mean()))]
            rows.writerow(csv_cells([*map(str, row), "", "", "", "", ""]))
    for e in effects.of.values():
        kind, at = ("slope", "") if e.shared is None else ("gain", f"{e.shared:g}")
        limits = [_points(v) for v in (e.interval.value, e.interval.low, e.interval.high)]
        p = [f"{v:.6f}" if v is not None and np.isfinite(v) else "" for v in (e.interval.p, e.adjusted)]
        verdict = e.verdict.name.lower() if e.verdict else ""
        rows.writerow(csv_cells([kind, ARMS[e.arm], ARMS[e.other], e.measure, at, str(seeds), *limits, *p, verdict]))
    return out.getvalue()


def _points(share: float) -> str:
    return f"{100 * share:.4f}" if np.isfinite(share) else ""


def build(homes: Sequence[Path], out: Path, *, force: bool = False) -> Path:
    """Write ``report.md``, ``dose.csv`` and the figure into `out`; returns the path of the page.

    Raises
    ------
    LedgerError
        The studies are missing or can't be compared.
    FerBenchError
        The folder holds files of others under these names.
    """
    target = Target(out=out, force=force, again=f"{AGAIN} {' '.join(map(str, homes))} --out {out}")
    check(target, ["report.md", "dose.csv"])
    doses = load_doses(homes)
    effects = effects_of(doses)
    document = page(doses, effects)
    with aside(target) as folder:
        for figure in document.figures:
            figure_files.save(figure.drawn, folder / "figures", figure.name)
        write_text(folder / "report.md", printable(markdown.page(document)))
        write_text(folder / "dose.csv", printable(csv_text(doses, effects)))
        move(folder, target)
    return out / "report.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the page of some homes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("homes", nargs="+", type=Path, metavar="HOME", help="folder that holds a ledger/")
    parser.add_argument("--out", type=Path, required=True, help="folder that is written")
    parser.add_argument("--force", action="store_true", help="also replace files that this script did not write")
    given = parser.parse_args(arguments)
    try:
        print(f"report: {build(given.homes, given.out, force=given.force)}")
    except FerBenchError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()

"""The page of an ablation: what each module of a method contributes, beyond extra capacity and a shift of the decision.

It stands beside the report of the same study, under the name :data:`STEM`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure as Drawing

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.ablation import Ablation, Contrast, Finding
from fer_bench.reports.facts.minority import HEAD, TAIL
from fer_bench.reports.facts.numbers import MethodNumbers, recall_key
from fer_bench.reports.facts.rise import Rise, gain_of_shift, rise_in_words
from fer_bench.reports.facts.verdicts import Judgement, Verdict
from fer_bench.reports.pages.ablation_cost import arm_name, cost_table, size_ratio
from fer_bench.reports.render import blocks
from fer_bench.reports.render.blocks import Block, Bullets, Code, Document, Figure, Link, Notice, Part, TableBlock
from fer_bench.reports.render.table import Column, each, rows_csv, tabulate
from fer_bench.reports.sections import figures
from fer_bench.reports.sections.operating_point import of_tail, precisions
from fer_bench.reports.sections.table_csv import judged_cells, points_cell
from fer_bench.stats.intervals import Interval

STEM = "ablation"
LINK = Link("The contribution of each module", STEM)
SIDE = ("accuracy", HEAD)


def page(ablation: Ablation) -> Document:
    """The whole page as a document, for any format."""
    study = ablation.numbers.study
    arms, under = phrases.count(len(ablation.arms), "arm"), study.protocol.get("name", "")
    place = f"{study.dataset}{f' under {phrases.code(under)}' if under else ''}, study {phrases.code(study.name)}"
    intro: list[Block] = list(blocks.blocks(f"{arms} of {phrases.code(ablation.method)} on {place}."))
    if study.watermarks:
        intro.append(Notice(f"**Watermarked: not a fair estimate.** {'; '.join(study.watermarks)}"))
    if folds := answer.missing_folds(study):
        intro.append(Notice(folds))
    intro.append(Link("The report of this study", "report"))
    parts = [
        ("answer", "Answer", _answer(ablation)),
        ("contributions", "What each module contributes", _contributions(ablation)),
        ("capacity", "Beyond extra capacity", _capacity(ablation)),
        ("decision", "Learning or a shift of the decision", _decision(ablation)),
        ("cost", "Parameters and training time", [cost_table(ablation)]),
        ("missing", "What is missing or failed", _missing(ablation)),
        ("repeat", "How to reproduce this", [Code(study.command) if study.command else None]),
    ]
    notes = answer.all_footnotes(ablation.numbers)
    built = ((name, title, blocks.footnoted(blocks.blocks(content), notes)) for name, title, content in parts)
    return Document(
        title=f"Ablation of {ablation.method}",
        intro=tuple(intro),
        parts=tuple(Part(name, title, content) for name, title, content in built if content),
        origin=(f"study {study.name}: {study.command}".removesuffix(": "), f"ablation of {ablation.method}"),
    )


# -- the answer ------------------------------------------------------------------------------------------------------


def _answer(ablation: Ablation) -> list[Block | str | None]:
    numbers = ablation.numbers
    family = answer.family_in_words(replace(numbers, family=ablation.family), "comparison")
    if family and any(not c.judged for c in ablation.contrasts):
        family += " Comparisons that add no module are shown and not tested."
    if family and numbers.family.methods:
        family += f" {answer.two_families('The report')}"
    return [
        summary(ablation),
        Bullets(tuple(sentence(ablation, c) for c in ablation.modules)),
        Bullets(tuple(answer.no_classifiers(numbers))),
        " ".join(answer.cautions(numbers)),
        family,
        phrases.conditions(numbers.study),
        phrases.sampling(numbers.study),
    ]


def summary(ablation: Ablation) -> str:
    """The answer in one to three sentences."""
    study, modules = ablation.numbers.study, ablation.modules
    if study.watermarks:
        return "These numbers are not a fair estimate (see above), so no contribution is claimed."
    if not modules:
        return (
            f"No module of {phrases.code(ablation.method)} can be judged: no two arms that differ in one were trained."
        )
    primary = ablation.family.primary
    found = {kind: [c for c in modules if ablation.finding(c) is kind] for kind in Finding}
    aim = phrases.endpoint(study, primary)
    sentences = [_first(ablation, found[Finding.RAISES], aim), *_asides(found)]
    if primary != "mean_recall":
        sentences.append(_mean(modules))
    return " ".join(sentences)


def _first(ablation: Ablation, raising: Sequence[Contrast], aim: str) -> str:
    modules, method = ablation.modules, phrases.code(ablation.method)
    gains = [f"{_module(c)} ({phrases.gain_with_interval(c.gains[ablation.family.primary])} points)" for c in raising]
    if len(modules) == 1:
        shown = "is shown to raise" if raising else "is not shown to raise"
        return f"The module {gains[0] if raising else _module(modules[0])} of {method} {shown} {aim}."
    of = f"of {len(modules)} modules of {method}"
    if not raising:
        return f"None {of} is shown to raise {aim}."
    return f"{len(raising)} {of} {'is' if len(raising) == 1 else 'are'} shown to raise {aim}: {phrases.listed(gains)}."


def _asides(found: dict[Finding, list[Contrast]]) -> list[str]:
    """One sentence on gains that may not be some, or are none, and on modules that harm; none where there are none."""
    parts = []
    if undecided := [c for c in found[Finding.RAISES] if c.rise is Rise.UNDECIDED]:
        parts.append(
            f"the AUROC of the tail is not shown to rise with {_names(undecided)}, so it is not decided whether this "
            "is more than a shift of the decision"
        )
    if shifted := found[Finding.SHIFT]:
        do = "does" if len(shifted) == 1 else "do"
        parts.append(
            f"what {_names(shifted)} {do} to it is a shift of the decision, which the second reference gives too"
        )
    if wider := found[Finding.CAPACITY]:
        are = "is" if len(wider) == 1 else "are"
        parts.append(f"{_names(wider)} {are} not shown to add more than as many other parameters do")
    if harmful := found[Finding.LOWERS]:
        parts.append(f"{_names(harmful)} lower{'s' * (len(harmful) == 1)} it")
    text = "; ".join(parts)
    return [_sentence(text)] if text else []


def _mean(modules: Sequence[Contrast]) -> str:
    raised = [c for c in modules if c.verdicts.get("mean_recall") is Verdict.GAIN]
    lowered = [c for c in modules if c.verdicts.get("mean_recall") is Verdict.LOSS]
    parts = [f"{_names(raised)} raise{'s' * (len(raised) == 1)} mean-class accuracy"] if raised else []
    parts += [f"{_names(lowered)} lower{'s' * (len(lowered) == 1)} mean-class accuracy"] if lowered else []
    return _sentence("; ".join(parts) or "no module is shown to change mean-class accuracy")


def _sentence(text: str) -> str:
    """The text with a capital, also where it begins with bold print, and a full stop."""
    start = len(text) - len(text.lstrip("*"))
    return f"{text[: start + 1].upper()}{text[start + 1 :]}."


def _module(contrast: Contrast) -> str:
    return f"**{contrast.arm.adds}**"


def _names(contrasts: Sequence[Contrast]) -> str:
    return phrases.listed([_module(c) for c in contrasts])


def sentence(ablation: Ablation, contrast: Contrast) -> str:
    """What one module contributes, at what cost, beyond extra capacity, and whether it is a shift of the decision."""
    study, primary = ablation.numbers.study, ablation.family.primary
    keys = [primary, *(["mean_recall"] if primary != "mean_recall" else []), *(k for k in SIDE if k in contrast.gains)]
    parts = [f"{phrases.endpoint(study, key, named=False)} {_gain_in_words(ablation, contrast, key)}" for key in keys]
    head = f"{_module(contrast)}, {arm_name(ablation, contrast.arm)} vs {arm_name(ablation, contrast.other)}"
    told = f"{head} ({phrases.shared(study, contrast.shared)}): {'; '.join(parts)}."
    return " ".join(
        filter(
            None,
            [
                told,
                _beyond_in_words(ablation, contrast),
                rise_in_words(ablation.numbers, contrast.gains, contrast.auroc),
            ],
        )
    )


def _gain_in_words(ablation: Ablation, contrast: Contrast, key: str) -> str:
    text, judgement = f"{phrases.gain_with_interval(contrast.gains[key])} points", contrast.judged.get(key)
    return text if judgement is None else f"{text} ({_verdict(ablation, judgement)})"


def _verdict(ablation: Ablation, judgement: Judgement) -> str:
    if judgement.verdict is Verdict.NOT_RANKED and ablation.numbers.study.watermarks:
        return "no claim, because the protocol is watermarked"
    return judgement.verdict.value


def _beyond_in_words(ablation: Ablation, contrast: Contrast) -> str:
    control, ratio = ablation.beyond(contrast), size_ratio(ablation, contrast.arm, contrast.other)
    if control is None:
        more = f"It has {100 * (ratio - 1):.1f} % more parameters" if ratio is not None and ratio > 1.001 else ""
        absent = "and was not compared with an arm that has as many, so a gain may be due to extra capacity"
        return f"{more} than {phrases.code(contrast.other.name)} {absent}." if more else ""
    key = ablation.family.primary
    sized = size_ratio(ablation, control.other, control.arm)
    size = f", which has {sized:.2f} times as many parameters" if sized is not None else ""
    return (
        f"Beyond the control {arm_name(ablation, control.other)}{size}: "
        f"{phrases.endpoint(ablation.numbers.study, key, named=False)} {_gain_in_words(ablation, control, key)}."
    )


# -- contributions ---------------------------------------------------------------------------------------------------


def _contributions(ablation: Ablation) -> list[Block | str | None]:
    contrasts = [c for c in ablation.contrasts if not c.beyond]
    if not contrasts:
        return ["No two arms can be compared."]
    drawn = draw(ablation)
    alt = "Contribution of every module to the recall of each class, with intervals"
    return [
        _summary_table(ablation, contrasts, "ablation-modules", "Contributions of the modules"),
        _test_table(ablation, contrasts, "ablation-tests", "Tests of the contributions"),
        Figure("ablation-contributions", alt, drawn) if drawn else None,
        _class_table(ablation, contrasts, "ablation-classes", "Contributions to every class"),
    ]


def _capacity(ablation: Ablation) -> list[Block | str | None]:
    contrasts = [c for c in ablation.contrasts if c.beyond]
    if not contrasts:
        named = any(arm.control for arm in ablation.arms)
        why = "No control was trained" if named else "The card names no arm with as many parameters"
        return [f"{why}, so a gain may be due to extra capacity."] if ablation.modules else []
    return [
        "The same arms against controls, which have as many parameters and lack the module.",
        _summary_table(ablation, contrasts, "ablation-beyond", "Beyond extra capacity"),
        _test_table(ablation, contrasts, "ablation-beyond-tests", "Tests of what is beyond extra capacity"),
        _class_table(ablation, contrasts, "ablation-beyond-classes", "Beyond extra capacity, class by class"),
    ]


def _summary_table(ablation: Ablation, contrasts: Sequence[Contrast], name: str, title: str) -> TableBlock:
    study = ablation.numbers.study
    keys = [key for key in (TAIL, "mean_recall", "accuracy", HEAD) if key in contrasts[0].gains]
    headings = {TAIL: "Tail", "mean_recall": "Mean-class accuracy", "accuracy": "Accuracy", HEAD: "Head"}
    columns = [
        *_who(ablation),
        Column(phrases.trainings_heading(study), lambda c: phrases.trainings(study, c.shared)),
        *(Column(headings[key], each(_cell, key)) for key in keys),
    ]
    caption = (
        f"Paired differences in percentage points, with unadjusted {phrases.interval_of(ablation.numbers)}; bold: "
        "claimed."
    )
    return TableBlock(tabulate(columns, contrasts, caption), name, title, stacked=True)


def _who(ablation: Ablation) -> list[Column]:
    """The module, and the two arms that are compared."""
    return [
        Column("Module", lambda c: _module(c) if c.arm.adds else phrases.UNKNOWN, right=False),
        Column("Arms", lambda c: _arms(ablation, c), right=False),
    ]


def _arms(ablation: Ablation, contrast: Contrast) -> str:
    return f"{arm_name(ablation, contrast.arm)} − {arm_name(ablation, contrast.other)}"


def _test_table(ablation: Ablation, contrasts: Sequence[Contrast], name: str, title: str) -> TableBlock | None:
    """The tests of the primary endpoint; None where nothing is tested."""
    study, primary = ablation.numbers.study, ablation.family.primary
    tested = [c for c in contrasts if primary in c.judged]
    columns = [
        *_who(ablation),
        Column("p", lambda c: phrases.p_value(c.judged[primary].raw)),
        Column("Adjusted p", lambda c: phrases.p_value(c.judged[primary].p)),
        Column("Simultaneous interval", lambda c: phrases.limits(c.judged[primary].interval)),
        Column("Verdict", lambda c: _verdict(ablation, c.judged[primary]), right=False),
    ]
    caption = f"Tests of the {phrases.endpoint(study, primary, named=False)}, the primary endpoint."
    return TableBlock(tabulate(columns, tested, caption), name, title, stacked=True) if tested else None


def _cell(key: str, contrast: Contrast) -> str:
    return phrases.claimed(contrast.gains[key], contrast.verdicts.get(key))


def _class_table(ablation: Ablation, contrasts: Sequence[Contrast], name: str, title: str) -> TableBlock:
    study = ablation.numbers.study
    module = Column("Module", lambda c: _module(c) if c.arm.adds else _arms(ablation, c), right=False)
    classes = [Column(study.classes[i], each(_cell, recall_key(study.classes[i]))) for i in study.order]
    counts = [study.counts[role] for role in ("train", "test") if role in study.counts]
    images = ", ".join(f"{study.classes[i]} {' / '.join(f'{of[i]:,}' for of in counts)}" for i in study.order)
    which = "Training / test images" if len(counts) > 1 else "Test images"
    caption = (
        "Paired differences in recall in percentage points, from the rarest class in training to the most frequent, "
        f"with unadjusted {phrases.interval_of(ablation.numbers)}; bold: claimed. {which}: {images}."
    )
    return TableBlock(tabulate([module, *classes], contrasts, caption), name, title, stacked=True)


@figures.styled
def draw(ablation: Ablation) -> Drawing | None:
    """The contribution of every module to each class, to the tail and to the mean; None where there is none."""
    contrasts, numbers = ablation.modules, ablation.numbers
    if not contrasts:
        return None
    study = numbers.study
    keys = [recall_key(study.classes[i]) for i in study.order[: figures.MOST]]
    groups = {TAIL: "tail (mean)", "mean_recall": "mean-class accuracy"}
    groups = {key: name for key, name in groups.items() if key in contrasts[0].gains}
    names = [f"{c.arm.name} − {c.other.name}" for c in contrasts]
    looks = figures.looks_of(names)
    rows = [
        (figures.shorten(name, 90), looks[name], [_known(c.gains[key]) for key in (*keys, *groups)])
        for name, c in zip(names, contrasts, strict=True)
    ]
    figure, axes = figures.new_figure(figures.WIDTH, figures.dot_height(len(keys) + len(groups), len(rows)))
    axis = axes[0, 0]
    figures.dots(axis, rows)
    axis.axvline(0, color="#333333", linewidth=1)
    axis.axhline(len(keys) - 0.5, color="#555555", linewidth=0.8)
    axis.set_yticks(range(len(keys) + len(groups)), [*figures.class_ticks(numbers), *groups.values()])
    axis.set_xlabel("contribution to recall, percentage points (95 % interval, paired)")
    figures.legend(figure, axis)
    figures.watermark(numbers, figure)
    return figure


def _known(interval: Interval) -> Interval | None:
    return interval if interval.known else None


# -- the operating point --------------------------------------------------------------------------------------------


def _rows(ablation: Ablation) -> list[tuple[str, MethodNumbers]]:
    """The arms, and the second reference where no arm is it, with what the first column calls them."""
    rows = [(phrases.code(arm.name), ablation.of(arm)) for arm in ablation.trained]
    second = ablation.numbers.second
    if second is not None and second not in {method.label for _, method in rows}:
        rows.append((f"second reference, {phrases.code(second)}", ablation.numbers.method(second)))
    return [(name + method.mark, method) for name, method in rows]


def _decision(ablation: Ablation) -> list[Block | str | None]:
    numbers = ablation.numbers
    if numbers.groups.reason:
        return [f"The classes can't be divided into rare and frequent ones: {numbers.groups.reason}."]
    precision = of_tail(numbers, precisions(numbers))
    columns = [
        Column("Arm", lambda row: row[0], right=False),
        Column("Tail AUROC", lambda row: _area(ablation.areas.get(row[1].label))),
        Column("Tail recall", lambda row: phrases.share_with_interval(row[1].scores[TAIL])),
        Column("Tail precision", lambda row: precision(row[1])),
        Column("Mean-class accuracy", lambda row: phrases.share_with_interval(row[1].scores["mean_recall"])),
    ]
    caption = (
        f"In %: {phrases.mean_over_seeds(numbers)}, with {phrases.interval_of(numbers)}. AUROC (each class against the "
        "rest) and precision are means over the classes of the tail."
    )
    second, shift, against = numbers.second, gain_of_shift(numbers), phrases.code(str(numbers.study.reference))
    about = (
        "More recall of the tail can be had without learning: by a shift of the decision towards rare classes. The "
        "AUROC hardly depends on such a shift, and precision usually falls with it. "
    )
    about += (
        f"The second reference {phrases.code(second)} is the network of {against} with such a shift, which gives "
        f"{phrases.gain_with_interval(shift)} points of recall of the tail. A module that gains no more than that, "
        "within this interval, and no AUROC, has shifted the decision, if the interval lies above 0. In other cases "
        "without a gain in AUROC it is not decided."
        if second and shift
        else "This study has no second reference, so it is not known how much a shift alone would give."
    )
    arms = TableBlock(tabulate(columns, _rows(ablation), caption), "ablation-decision", "Operating points of the arms")
    return [about, *_shift_table(ablation), arms]


def _shift_table(ablation: Ablation) -> list[Block]:
    """What speaks for learning and what for a shift, module by module."""
    if not ablation.modules:
        return []

    columns = [
        Column("Module", _module, right=False),
        Column("Tail recall", each(_cell, TAIL)),
        Column("Tail AUROC", lambda c: _points(c.auroc)),
        Column("Above the shifted arm", lambda c: _points(c.above)),
        Column(
            "So it is", lambda c: c.rise.value if c.rise else "recall of the tail is not shown to rise", right=False
        ),
    ]
    caption = (
        "Differences in percentage points from the arm that each is compared with, with unadjusted 95 % intervals. "
        "Above the shifted arm: recall of the tail above that of the other arm, if the decision of that arm is shifted "
        "until it has the same accuracy (as in the section *Operating point* of the report). AUROC: mean over the "
        "classes of the tail, each against the rest, with a t-interval. Neither is tested."
    )
    return [
        TableBlock(tabulate(columns, ablation.modules, caption), "ablation-shift", "Learning or a shift", stacked=True)
    ]


def _points(interval: Interval | None) -> str:
    return phrases.UNKNOWN if interval is None else phrases.gain_with_interval(interval)


def _area(area: Interval | None) -> str:
    return phrases.UNKNOWN if area is None else phrases.share_with_interval(area)


def _missing(ablation: Ablation) -> list[Block | str | None]:
    left = [phrases.code(name) for name in ablation.left_out]
    not_asked = [f"Arms of the card that were not asked for: {phrases.listed(left)}."] if left else []
    notes = (*not_asked, *ablation.notes, *ablation.numbers.study.notes)
    return [Bullets(notes) if notes else "Nothing: every arm of the card was trained, and its records are complete."]


# -- CSV -------------------------------------------------------------------------------------------------------------

CSV_HEADER = (
    "comparison", "module", "arm", "arm_method", "against", "against_method", "quantity", "seeds", "points", "low",
    "high", "p", "p_adjusted", "simultaneous_low", "simultaneous_high", "verdict", "finding", "watermark",
)  # fmt: skip


def csv_text(ablation: Ablation) -> str:
    """Every difference of the page in long form, in points with four decimals."""
    rows: list[Sequence[str]] = [CSV_HEADER]
    for contrast in ablation.contrasts:
        kind = "beyond_control" if contrast.beyond else "contribution"
        sides = (contrast.arm.name, contrast.arm.label, contrast.other.name, contrast.other.label)
        finding = ablation.finding(contrast).name.lower() if contrast.arm.adds and not contrast.beyond else ""
        more = {"auroc:tail": contrast.auroc, "above_shift:tail": contrast.above}
        for key, interval in {**contrast.gains, **{k: v for k, v in more.items() if v is not None}}.items():
            cells = [kind, contrast.arm.adds, *sides, key, str(len(contrast.shared))]
            cells += [points_cell(v) for v in (interval.value, interval.low, interval.high)]
            cells += judged_cells(contrast.judged.get(key))
            cells += [finding if key == ablation.family.primary else "", "; ".join(ablation.numbers.study.watermarks)]
            rows.append(cells)
    return rows_csv(rows)

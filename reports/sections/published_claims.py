"""Section "Published results": ours, theirs, the difference, and whether the two are comparable at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fer_bench.reports.claims.comparable import Comparison, Ours, compare
from fer_bench.reports.claims.published import Claim, load
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import MethodNumbers
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.render.blocks import Block, Paragraph, TableBlock
from fer_bench.reports.render.table import Column, tabulate
from fer_bench.reports.sections.section import Context, Section

MOST = 20  # claims in a table; `fer-bench claims` lists all
METRICS = ("accuracy", "mean_recall", "macro_f1")
HEADINGS = {"accuracy": "accuracy", "mean_recall": "mean-class accuracy", "macro_f1": "macro-F1"}


def build(context: Context) -> list[Block]:
    """Claims that are comparable with a method of the study, then those that are not, with the reasons."""
    numbers, study = context.numbers, context.study
    claims = [c for c in load() if c.dataset == study.dataset.partition(":")[0] and c.metric in METRICS]
    if not claims:
        return []
    rows = {
        phrases.method_name(m): {c.claim.id: c for c in compare(claims, _values(m), _ours(study, m))}
        for m in numbers.methods
    }
    first = list(next(iter(rows.values())).values())
    sound = [c for c in first if any(of[c.claim.id].verdict.ok for of in rows.values())]
    others = [c for c in first if c not in sound]
    quarantined = sum(c.quarantined for c in claims)
    blocks: list[Block] = []
    if sound:
        blocks.append(_comparable(sound, rows))
    else:
        name = phrases.code(study.protocol.get("name", ""))
        blocks.append(Paragraph(f"No published result on record is comparable with results under {name}."))
    if others:
        blocks.append(_not_comparable(others))
    hidden = f"{phrases.count(quarantined, 'quarantined result')} left out. " if quarantined else ""
    dataset = study.dataset.partition(":")[0]
    blocks.append(Paragraph(f"{hidden}To list all results with their sources: `fer-bench claims --dataset {dataset}`."))
    return blocks


def _values(method: MethodNumbers) -> dict[str, tuple[float, float, float]]:
    known = {name: method.scores[name] for name in METRICS if name in method.scores}
    return {name: (100 * i.value, 100 * i.low, 100 * i.high) for name, i in known.items()}


def _ours(study: StudyData, method: MethodNumbers) -> Ours:
    runs = study.method(method.label).runs
    spec = runs[0].spec
    return Ours.recorded(
        study.dataset.partition(":")[0],
        {"name": "", **study.protocol},
        selection_rule=(spec.get("selection") or {}).get("rule", "val"),
        classes=len(study.classes),
        pretraining="ImageNet" if spec.get("pretrained") else "none",
        transductive=method.transductive,
        blocked=bool(method.runs.blocked),
        profile=spec.get("profile") or "natural",
        folds_run=len({run.fold for run in runs}),
        backbone=str(spec.get("backbone") or ""),
    )


def _comparable(sound: Sequence[Comparison], rows: dict[str, dict[str, Comparison]]) -> TableBlock:
    columns = [*_CLAIM, *(Column(label, _difference(of)) for label, of in rows.items())]
    columns.append(Column("Notes", lambda c: "; ".join(c.verdict.cautions), right=False))
    caption = (
        "Theirs in %, read in their code, README, figure or paper unless marked otherwise. Under each of our methods: "
        "the difference in points (ours minus theirs), and whether theirs lies within our 95 % interval." + _more(sound)
    )
    return TableBlock(tabulate(columns, sound[:MOST], caption), "claims", "Comparable published results")


def _difference(of: dict[str, Comparison]) -> Callable[[Comparison], str]:
    def cell(row: Comparison) -> str:
        mine = of[row.claim.id]
        return f"{phrases.points(mine.difference / 100)} {'(within)' * mine.within}".strip() if mine.verdict.ok else "–"

    return cell


def _not_comparable(others: Sequence[Comparison]) -> TableBlock:
    columns = [*_CLAIM, Column("Not comparable, because", lambda c: "; ".join(c.verdict.reasons), right=False)]
    caption = "Published results under other conditions: for orientation only, so no difference is computed."
    return TableBlock(
        tabulate(columns, others[:MOST], caption + _more(others)),
        "claims-others",
        "Published results that are not comparable",
    )


def _more(rows: Sequence[Comparison]) -> str:
    return f" The first {MOST} of {len(rows)} are listed." if len(rows) > MOST else ""


def _method(claim: Claim) -> str:
    mark = "" if claim.tag == "read" else f" *({claim.tag})*"
    year = f" ({claim.year})" if claim.year else ""
    return f"{claim.method}{year}{mark}"


_CLAIM = (
    Column("Published", lambda c: _method(c.claim), right=False),
    Column("Metric", lambda c: HEADINGS[c.claim.metric], right=False),
    Column("Theirs", lambda c: c.claim.text),
)


SECTION = Section("claims", "Published results", build)

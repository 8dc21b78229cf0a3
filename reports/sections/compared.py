"""Section "What was compared": settings, methods and data."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from fer_bench.contract.cards import Protocol
from fer_bench.errors import FerBenchError
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.records import MethodRuns, Run, StudyData
from fer_bench.reports.render.blocks import Bullets, TableBlock
from fer_bench.reports.render.table import Column, Table, each, pairs, tabulate
from fer_bench.reports.sections import search
from fer_bench.reports.sections.section import Context, Section
from fer_bench.reports.sections.settings import PER_RUN, flatten, in_words


def build(context: Context) -> list:
    """Everything that is shared by all runs, what differs, the methods and the data."""
    study = context.study
    shared, differing = settings(study)
    alone = len(study.methods) == 1
    different: list = [f"All runs share these settings{'' if alone else '; only the method differs'}."]
    if differing is not None:
        table = TableBlock(differing, "differing", "Settings that differ between the methods")
        different = [f"Settings that differ between {'runs' if alone else 'methods'}:", table]
    deviations = [f"{phrases.code(m.label)}: {d}" for m in study.methods for d in m.card.get("deviations") or ()]
    return [
        TableBlock(shared, "settings", "Settings that all runs share", sortable=False),
        *different,
        *search.blocks_of(study),
        TableBlock(method_table(study), "methods", "Methods as their cards describe them"),
        "Deviations from the papers:" if deviations else "",
        Bullets(tuple(deviations)),
        "Images by class:",
        TableBlock(counts_table(study), "images", "Images by class", footer=1),
    ]


NAMES = {"backbone": "backbone", "pretrained": "pretrained weights", "profile": "imbalance profile"}


def _settings(run: Run) -> dict[str, str]:
    spec = {k: v for k, v in run.spec.items() if k not in PER_RUN}
    return {NAMES.get(k, k): in_words(v) for k, v in sorted(flatten(spec).items())}


def settings(study: StudyData) -> tuple[Table, Table | None]:
    """Settings that all runs share, and those that differ between or within methods (None where all agree)."""
    by_method = [(m, [_settings(r) for r in m.runs]) for m in study.methods]
    names = sorted({n for _, runs in by_method for r in runs for n in r})
    values = {n: [sorted({r.get(n, phrases.UNKNOWN) for r in runs}) for _, runs in by_method] for n in names}
    differing = [n for n in names if len({tuple(v) for v in values[n]}) > 1 or len(values[n][0]) > 1]
    shared = {n: values[n][0][0] for n in names if n not in differing}
    table = pairs([*_facts(study), *_grouped(shared)], ("Setting", "Value"))
    if not differing:
        return table, None
    columns = [Column("Setting", str, right=False)]
    columns += [
        Column(phrases.method_name(m), each(lambda i, n: " / ".join(values[n][i]), i), right=False)
        for i, (m, _) in enumerate(by_method)
    ]
    return table, tabulate(columns, differing)


def _facts(study: StudyData) -> list[tuple[str, str]]:
    protocol = study.protocol
    name = " — ".join(x for x in (phrases.code(protocol.get("name", "")), protocol.get("title", "")) if x)
    roles = _division(protocol)
    seeds = sorted({s for m in study.methods for s in m.seeds})
    facts = [("data set", study.dataset), ("protocol", name), *roles, ("seeds", phrases.span(seeds))]
    if study.profile != "natural":
        draws = f"{len(study.subsets)} ({phrases.span(list(study.subsets))}); every seed is trained on each"
        facts.append(("draws of the training set", draws if study.crossed else "1, the same for all runs"))
    if len(study.folds) > 1:
        facts.append(("folds", f"{phrases.span(list(study.folds))}; their test images are pooled for each {study.one}"))
    facts.append(("clean manifest", _clean(protocol)))
    facts.append(("reference", phrases.code(study.reference) if study.reference else "none"))
    if study.second_reference:
        facts.append(("second reference", phrases.code(study.second_reference)))
    facts.append(("data fingerprint", phrases.code(study.fingerprint)))
    return facts


def _division(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the images were divided: named splits, or the protocol's scheme in words; and the hash of the split file."""
    lines = [(f"{r} split", ", ".join(map(str, protocol[r]))) for r in ("train", "val", "test") if protocol.get(r)]
    if protocol.get("scheme", "splits") != "splits" or protocol.get("holdout") or protocol.get("val_is_test"):
        fields = {f.name for f in dataclasses.fields(Protocol)}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in protocol.items() if k in fields}
        with contextlib.suppress(FerBenchError, TypeError):  # a record of another version may know other fields
            lines = [("division", Protocol(**known).in_words)]
    if protocol.get("split_sha256"):
        lines.append(("split file", phrases.code(protocol["split_sha256"][:16])))
    return lines


def _clean(protocol: Mapping[str, Any]) -> str:
    clean = protocol.get("clean")
    if not isinstance(clean, Mapping):
        return "not used: duplicates and doubtful images stay where the source has them"
    return f"{phrases.code(clean['sha256'][:16])}, {clean['rows']:,} images left out"


def _grouped(shared: Mapping[str, str]) -> list[tuple[str, str]]:
    """One line per group: the whole recipe in one, the whole selection in another."""
    groups: dict[str, list[str]] = {}
    for name, value in shared.items():
        group, dot, rest = name.partition(".")
        groups.setdefault(group, []).append(f"{rest} {value}" if dot else value)
    return [(group.replace("_", " "), ", ".join(values)) for group, values in groups.items()]


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


def weights(method: MethodRuns) -> str:
    parameters = method.card.get("parameters")
    return f"{parameters / 1e6:.2f} M" if isinstance(parameters, (int, float)) else phrases.UNKNOWN


METHOD_COLUMNS = (
    Column("Method", phrases.method_name, right=False),
    Column("Arm (in figures)", lambda m: phrases.code(m.arm) if m.arm else phrases.UNKNOWN, right=False),
    Column("Title", _card("title"), right=False),
    Column("Paper", _paper, right=False),
    Column("Changes", _card("changes"), right=False),
    Column("Parameters", _params, right=False),
    Column("Weights", weights),
)


def method_table(study: StudyData) -> Table:
    """The methods as their cards describe them; columns without any content are left out."""
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


SECTION = Section("compared", "What was compared", build)

"""Section "How to reproduce this": the command, the versions, the cost and the run ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.reports.render.blocks import Bullets, Code, TableBlock
from fer_bench.reports.render.table import Column, Table, pairs, tabulate
from fer_bench.reports.sections.compared import flatten, in_words
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> list:
    """The command, the versions, the run ids."""
    study = context.study
    folded = len(study.folds) > 1
    ids = tuple(
        f"{phrases.code(m.label)}: "
        + ", ".join(
            f"{r.training.named(subsets=study.crossed)}{f' fold {r.fold}' * folded} {phrases.code(r.record.id)}"
            for r in m.runs
        )
        for m in study.methods
    )
    environment = environment_table(study)
    cost = cost_table(study)
    return [
        Code(study.command) if study.command else None,
        TableBlock(environment, "environment", "Versions and hardware", sortable=False) if environment else None,
        TableBlock(cost, "cost", "Speed and duration") if cost else None,
        "Runs in the ledger:",
        Bullets(ids),
    ]


def environment_table(study: StudyData) -> Table | None:
    """Versions and hardware, with all values that occur; None where no run has any."""
    values_of: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for key, value in flatten(run.facts.get("environment") or {}).items():
            if isinstance(value, (str, int, float, bool)):
                values_of.setdefault(key.removeprefix("versions."), {})[in_words(value)] = None
    rows = [(key, " / ".join(values)) for key, values in sorted(values_of.items())]
    return pairs(rows, ("Environment", "Value")) if rows else None


def _timings(method: MethodRuns) -> list[dict[str, Any]]:
    return [r.facts["timing"] for r in method.runs if r.facts.get("timing")]


def _speed(method: MethodRuns) -> str:
    # The first epoch pays for compilation and autotuning.
    if _derived(method):
        return "derived"
    by_run = [t.get("images_per_second") or [] for t in _timings(method)]
    speeds = [speed for run in by_run for speed in run[1:] or run]
    return f"{np.median(speeds):,.0f}" if speeds else phrases.UNKNOWN


def _derived(method: MethodRuns) -> bool:
    """Whether its runs were read out of stored logits, without training."""
    return bool(method.runs) and all(r.facts.get("derived") for r in method.runs)


def training_seconds(method: MethodRuns) -> float | None:
    """Median over its runs, 0 for one that was read out of stored logits; None where no run was timed."""
    if _derived(method):
        return 0.0
    seconds = [t["total_seconds"] for t in _timings(method) if t.get("total_seconds") is not None]
    return float(np.median(seconds)) if seconds else None


def _minutes(method: MethodRuns) -> str:
    seconds = training_seconds(method)
    return phrases.UNKNOWN if seconds is None else f"{seconds / 60:.1f}"


def devices(method: MethodRuns) -> str:
    return " / ".join(dict.fromkeys(str(t["device"]) for t in _timings(method) if t.get("device"))) or phrases.UNKNOWN


COST_COLUMNS: tuple[Column, ...] = (
    Column("Method", phrases.method_name, right=False),
    Column("Images per second", _speed),
    Column("Minutes per run", _minutes),
    Column("Device", devices, right=False),
)


def cost_table(study: StudyData) -> Table | None:
    """Speed and duration; None where no run was timed."""
    rows = [m for m in study.methods if _timings(m)]
    return tabulate(COST_COLUMNS, rows, "Medians over runs (and over epochs, without the first).") if rows else None


SECTION = Section("repeat", "How to reproduce this", build)

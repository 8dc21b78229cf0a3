"""What was compared, where it ran and what it cost, as tables."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_bench.contract.cards import Protocol
from fer_bench.errors import FerBenchError
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.records import MethodRuns, Run, StudyData
from fer_bench.reports.render.table import Column, Table, each, pairs, tabulate
from fer_bench.reports.sections.tables import title

PER_RUN = ("method", "params", "seed", "fold", "dataset", "protocol", "test")  # told elsewhere, or different by design
NAMES = {"backbone": "backbone", "pretrained": "pretrained weights", "profile": "imbalance profile"}


def flatten(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dots between the keys."""
    out: dict[str, Any] = {}
    for key in value:
        name = f"{before}{key}"
        if isinstance(value[key], Mapping):
            out |= flatten(value[key], f"{name}.")
        else:
            out[name] = value[key]
    return out


def _settings(run: Run) -> dict[str, str]:
    spec = {k: v for k, v in run.spec.items() if k not in PER_RUN}
    return {NAMES.get(k, k): shown(v) for k, v in sorted(flatten(spec).items())}


def shown(value: Any) -> str:
    """A setting as a reader wants it."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return str(value)


def settings(study: StudyData) -> tuple[Table, Table | None]:
    """Settings that all runs share, and those that differ between or within methods (None where all agree)."""
    by_method = [(m, [_settings(r) for r in m.runs]) for m in study.methods]
    names = sorted({n for _, runs in by_method for r in runs for n in r})
    values = {n: [sorted({r.get(n, phrases.UNKNOWN) for r in runs}) for _, runs in by_method] for n in names}
    differing = [n for n in names if len({tuple(v) for v in values[n]}) > 1 or len(values[n][0]) > 1]
    shared = {n: values[n][0][0] for n in names if n not in differing}
    table = pairs([*_facts(study), *_grouped(shared)])
    if not differing:
        return table, None
    columns = [Column("Setting", str, right=False)]
    columns += [
        Column(title(m), each(lambda i, n: " / ".join(values[n][i]), i), right=False)
        for i, (m, _) in enumerate(by_method)
    ]
    return table, tabulate(columns, differing)


def _facts(study: StudyData) -> list[tuple[str, str]]:
    protocol = study.protocol
    name = " — ".join(x for x in (phrases.code(protocol.get("name", "")), protocol.get("title", "")) if x)
    roles = _division(protocol)
    seeds = sorted({s for m in study.methods for s in m.seeds})
    facts = [("data set", study.dataset), ("protocol", name), *roles, ("seeds", phrases.span(seeds))]
    if len(study.folds) > 1:
        facts.append(("folds", f"{phrases.span(list(study.folds))}; their test images are pooled for each seed"))
    facts.append(("clean manifest", _clean(protocol)))
    facts.append(("reference", phrases.code(study.reference) if study.reference else "none"))
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
        return "not used: duplicates and doubtful images are where the source has them"
    return f"{phrases.code(clean['sha256'][:16])}, {clean['rows']:,} images left out"


def _grouped(shared: Mapping[str, str]) -> list[tuple[str, str]]:
    """One line a group: everything of the recipe in one, everything of the selection in another."""
    groups: dict[str, list[str]] = {}
    for name, value in shared.items():
        group, dot, rest = name.partition(".")
        groups.setdefault(group, []).append(f"{rest} {value}" if dot else value)
    return [(group.replace("_", " "), ", ".join(values)) for group, values in groups.items()]


def environment(study: StudyData) -> Table | None:
    """Versions and hardware, with all values that occur; None where no run tells."""
    found: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for key, value in flatten(run.facts.get("environment") or {}).items():
            if isinstance(value, (str, int, float, bool)):
                found.setdefault(key.removeprefix("versions."), {})[shown(value)] = None
    rows = [(key, " / ".join(values)) for key, values in sorted(found.items())]
    return pairs(rows, ("Environment", "Value")) if rows else None


def _timings(method: MethodRuns) -> list[dict[str, Any]]:
    return [r.facts["timing"] for r in method.runs if r.facts.get("timing")]


def _speed(method: MethodRuns) -> str:
    # The first epoch pays for compilation and autotuning.
    by_run = [t.get("images_per_second") or [] for t in _timings(method)]
    speeds = [speed for run in by_run for speed in run[1:] or run]
    return f"{np.median(speeds):,.0f}" if speeds else phrases.UNKNOWN


def _minutes(method: MethodRuns) -> str:
    seconds = [t["total_seconds"] for t in _timings(method) if t.get("total_seconds") is not None]
    return f"{np.median(seconds) / 60:.1f}" if seconds else phrases.UNKNOWN


def _devices(method: MethodRuns) -> str:
    return " / ".join(dict.fromkeys(str(t["device"]) for t in _timings(method) if t.get("device"))) or phrases.UNKNOWN


COST_COLUMNS: tuple[Column, ...] = (
    Column("Method", title, right=False),
    Column("Images a second", _speed),
    Column("Minutes a run", _minutes),
    Column("Device", _devices, right=False),
)


def cost(study: StudyData) -> Table | None:
    """Speed and duration; None where no run was timed."""
    rows = [m for m in study.methods if _timings(m)]
    return tabulate(COST_COLUMNS, rows, "Medians over runs (and over epochs after the first).") if rows else None


# The search behind a tuned study --------------------------------------------------------------------------------------


def _tuned(study: StudyData) -> dict[str, Mapping[str, Any]]:
    """What the record tells of the search behind each method that is shown, by label."""
    told = study.tuned if isinstance(study.tuned, Mapping) else {}
    return {m.label: facts for m in study.methods if isinstance(facts := told.get(m.label), Mapping)}


def tuned_sentence(study: StudyData) -> str:
    """That the methods were tuned, and with which budgets; empty where none was."""
    tuned = _tuned(study)
    if not tuned:
        return ""
    trials = sorted({phrases.count(t, "trial") for f in tuned.values() if isinstance(t := f.get("trials"), int)})
    budget = "" if len(trials) != 1 else f" with {trials[0]} each"
    unequal = " **The budgets were not equal.**" if len(trials) > 1 else ""
    rest = [phrases.code(m.label) for m in study.methods if m.label not in tuned]
    left_out = f" Not tuned: {', '.join(rest)}." if rest else ""
    return f"The methods were tuned on validation images first{budget}; the test stayed sealed.{unequal}{left_out}"


def _told(facts: Mapping[str, Any], key: str) -> str:
    return shown(facts[key]) if facts.get(key) is not None else phrases.UNKNOWN


def _score(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    return phrases.percent(value) if isinstance(value, (int, float)) else phrases.UNKNOWN


SEARCH_COLUMNS: tuple[Column, ...] = (
    Column("Method", lambda row: phrases.code(row[0]), right=False),
    Column("Trials", lambda row: _told(row[1], "trials")),
    Column("Stopped early", lambda row: _told(row[1], "pruned")),
    Column("Seed of the search", lambda row: _told(row[1], "seed")),
    Column("Epochs a trial", lambda row: _told(row[1], "epochs")),
    Column("Default", lambda row: _score(row[1], "default_value")),
    Column("Best", lambda row: _score(row[1], "value")),
)


def searches(study: StudyData) -> Table | None:
    """How each method's configuration was searched; None where no method was tuned."""
    rows = list(_tuned(study).items())
    metrics = sorted({phrases.code(str(f["objective"])) for _, f in rows if f.get("objective")})
    caption = f"Default and best: {', '.join(metrics) or 'the score'} in % that the search maximised."
    return tabulate(SEARCH_COLUMNS, rows, caption) if rows else None


CHOICE_COLUMNS: tuple[Column, ...] = (
    Column("Method", lambda row: phrases.code(row[0]), right=False),
    Column("Parameter", lambda row: phrases.code(row[1]), right=False),
    Column("Searched", lambda row: row[2], right=False),
    Column("Chosen", lambda row: row[3], right=False),
)


def choices(study: StudyData) -> Table | None:
    """Where each parameter was searched and what was chosen; None where no method was tuned."""
    rows = []
    for label, facts in _tuned(study).items():
        space, values = (x if isinstance(x, Mapping) else {} for x in (facts.get("space"), facts.get("values")))
        for name in sorted({*space, *values}):
            searched = str(space.get(name) or phrases.UNKNOWN)
            rows.append((label, name, searched, shown(values[name]) if name in values else phrases.UNKNOWN))
    return tabulate(CHOICE_COLUMNS, rows) if rows else None

"""How the methods' configurations were searched, where the study tuned them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.table import Column, Table, tabulate
from fer_bench.reports.sections.settings import in_words


def blocks_of(study: StudyData) -> list:
    """The search that chose the methods' configurations, where one did."""
    how, what = searches(study), choices(study)
    return [
        tuned_sentence(study),
        TableBlock(how, "search", "The search behind each method") if how else None,
        TableBlock(what, "chosen", "What was searched and chosen", sortable=False) if what else None,
    ]


def _tuned(study: StudyData) -> dict[str, Mapping[str, Any]]:
    """The recorded search behind each method of the report, by label."""
    recorded = study.tuned if isinstance(study.tuned, Mapping) else {}
    return {m.label: facts for m in study.methods if isinstance(facts := recorded.get(m.label), Mapping)}


def tuned_sentence(study: StudyData) -> str:
    """That the methods were tuned, and with which budgets; empty where none was tuned."""
    tuned = _tuned(study)
    if not tuned:
        return ""
    trials = sorted({phrases.count(t, "trial") for f in tuned.values() if isinstance(t := f.get("trials"), int)})
    budget = "" if len(trials) != 1 else f" ({trials[0]} each)"
    unequal = " **The budgets were not equal.**" if len(trials) > 1 else ""
    rest = [phrases.code(m.label) for m in study.methods if m.label not in tuned]
    left_out = f" Not tuned: {', '.join(rest)}." if rest else ""
    first = f"The methods were first tuned on validation images{budget}; the test set stayed sealed."
    return f"{first}{unequal}{left_out}"


def _value(facts: Mapping[str, Any], key: str) -> str:
    return in_words(facts[key]) if facts.get(key) is not None else phrases.UNKNOWN


def _score(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    return phrases.percent(value) if isinstance(value, (int, float)) else phrases.UNKNOWN


SEARCH_COLUMNS: tuple[Column, ...] = (
    Column("Method", lambda row: phrases.code(row[0]), right=False),
    Column("Trials", lambda row: _value(row[1], "trials")),
    Column("Pruned", lambda row: _value(row[1], "pruned")),
    Column("Search seed", lambda row: _value(row[1], "seed")),
    Column("Epochs per trial", lambda row: _value(row[1], "epochs")),
    Column("Default", lambda row: _score(row[1], "default_value")),
    Column("Best", lambda row: _score(row[1], "value")),
)


def searches(study: StudyData) -> Table | None:
    """How each method's configuration was searched; None where no method was tuned."""
    rows = list(_tuned(study).items())
    metrics = sorted({phrases.code(str(f["objective"])) for _, f in rows if f.get("objective")})
    names = ", ".join(metrics)
    caption = f"Default and best: the score in % that the search maximised{f' ({names})' if names else ''}."
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
            rows.append((label, name, searched, in_words(values[name]) if name in values else phrases.UNKNOWN))
    return tabulate(CHOICE_COLUMNS, rows) if rows else None

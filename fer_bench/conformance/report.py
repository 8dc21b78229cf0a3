"""What the kit found, as text and as plain data."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from fer_bench.conformance.promise import FAILED, KEPT, NOTHING, UNCHECKED, Failure, Report, Verdict

MARKS = {KEPT: "ok", FAILED: "BROKEN", NOTHING: "-", UNCHECKED: "?"}
WIDTH = 110


def heading(report: Report) -> str:
    """The plug-in's name, title and file."""
    return f"{report.name}: {report.title} ({report.path})"


def line(verdict: Verdict) -> str:
    """One promise: its mark, its name, what it says or why it was not checked."""
    text = verdict.says
    if verdict.state in (NOTHING, UNCHECKED):
        text = f"{verdict.state}: {verdict.note}"
    elif verdict.note:
        text = f"{text} ({verdict.note})"
    return f"  {MARKS[verdict.state]:<8}{verdict.promise:<16}{text}"


def block(promise: str, failure: Failure, report: Report) -> str:
    """One failure: what is wrong, the smallest example, where to look, what to type."""
    rows = [("example", failure.example), ("look at", failure.look), ("see", failure.page)]
    body = [f"{promise}: {failure.what}"]
    for name, text in rows:
        if text:
            indent = " " * 11
            body += textwrap.wrap(
                text, WIDTH, initial_indent=f"  {name + ':':<9}", subsequent_indent=indent, break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
    command = f"fer-bench check {report.path} --only {_quoted(promise)}{_source(report)}"
    return "\n".join([*body, f"  {'next:':<9}{command}"])  # in one line, so that it can be copied


def _source(report: Report) -> str:
    return f" --from {_quoted(report.source)}" if report.source else ""


def summary(report: Report) -> str:
    """How many promises are kept, broken, and left open."""
    counts = [(state, sum(v.state == state for v in report.verdicts)) for state in MARKS]
    return ", ".join(f"{n} {state}" for state, n in counts if n)


def costs(report: Report) -> list[str]:
    """What a method costs beside plain cross-entropy, where that was measured."""
    if report.cost is None:
        return []
    time, kept, weights = (report.cost[name] for name in ("time", "kept", "weights"))
    text = f"cost beside plain cross-entropy: {time:.2f} x the time of training, {kept:.2f} x the memory of a step, "
    return [text + f"{weights:.2f} x the weights; {report.cost['state']:,} bytes of state"]


def in_words(report: Report) -> str:
    """The whole report."""
    lines = [heading(report), *(line(v) for v in report.verdicts), summary(report)]
    blocks = [block(v.promise, f, report) for v in report.broken for f in v.failures]
    return "\n\n".join(["\n".join(lines), *blocks])


def plain(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    return dataclasses.asdict(report)


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name

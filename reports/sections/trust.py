"""Section "Seal and probe"."""

from __future__ import annotations

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.records import MethodRuns, StudyData
from fer_bench.reports.render.blocks import Bullets, TableBlock
from fer_bench.reports.render.table import Column, Table, tabulate
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> list:
    """How often the test set was opened, and the probe for predictions that depend on the batch."""
    study = context.study
    lines = tuple(
        f"{r.name} opened its test set {int(r.facts['seal'].get('count', 0))} times."
        for r in study.runs
        if r.facts.get("seal") and int(r.facts["seal"].get("count", 0)) != (0 if r.facts.get("derived") else 1)
    )
    lines += tuple(
        f"{phrases.code(m.label)} was read out of the stored logits of {phrases.code(of)}, which opened the test: its "
        "probe is that run's, and that of the adjustment on stored logits."
        for m in study.methods
        if (of := next((str(r.facts["derived"].get("method")) for r in m.runs if r.facts.get("derived")), ""))
    )
    tried = ((phrases.code(m.label), m.blocked) for m in study.methods if m.blocked)
    lines += tuple(f"{label} was refused access: {answer.attempts(of, len(of))}." for label, of in tried)
    why = "The probe repeats predictions for single images, in batches of other sizes and in other orders."
    return [TableBlock(seal_table(study), "trust", "Seal and probe"), why, Bullets(lines)]


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
    return "independent of other images" if not unprobed else f"not probed in {phrases.count(unprobed, 'run')}"


SEAL_COLUMNS = (
    Column("Method", phrases.method_name, right=False),
    Column("Openings per run", _openings),
    Column("Blocked attempts", _blocked),
    Column("Largest logit change", lambda m: f"{max(_probe(m, 'max_difference'), default=float('nan')):.1e}"),
    Column("Predictions changed", _flipped),
    Column("Verdict", _verdict, right=False),
)


def seal_table(study: StudyData) -> Table:
    """How often the test set was opened, and whether predictions depend on the rest of the batch."""
    return tabulate(SEAL_COLUMNS, study.methods)


SECTION = Section("trust", "Seal and probe", build)

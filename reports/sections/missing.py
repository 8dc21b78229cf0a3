"""Section "What is missing or failed"."""

from __future__ import annotations

from fer_bench.reports.render.blocks import Block, Bullets
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> Block | str:
    """What is missing, failed or left out, of the study and of the report."""
    notes = (*context.study.notes, *context.remarks)
    return Bullets(notes) if notes else "Nothing: every run of the study is finished and its record is whole."


SECTION = Section("missing", "What is missing or failed", build)

"""Section "What is missing or failed"."""

from __future__ import annotations

from fer_bench.reports.render.blocks import Block, Bullets
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> Block | str:
    """What is missing, failed or left out, in the study and in the report."""
    notes = (*context.study.notes, *context.remarks)
    return Bullets(notes) if notes else "Nothing: every run of the study has finished, and its record is complete."


SECTION = Section("missing", "What is missing or failed", build)

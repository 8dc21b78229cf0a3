"""The sections of a study's report: one file per section, listed in :mod:`.registry`. Imports no page."""

from fer_bench.reports.sections.section import Context, Section

__all__ = ["Context", "Section"]

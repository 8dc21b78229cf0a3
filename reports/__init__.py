"""Tables, figures and pages, computed from the ledger alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fer_bench.ledger import Ledger

__all__ = ["build_report", "study_table"]


def build_report(ledger: Ledger, study: dict[str, Any], out: str | Path, **options: Any) -> Path:
    """Write ``report.md``, ``table.csv`` and ``figures/`` of a study into `out`; options as in :mod:`.markdown`."""
    from fer_bench.reports.markdown import build_report as build

    return build(ledger, study, Path(out), **options)


def study_table(ledger: Ledger, study: dict[str, Any]) -> Any:
    """The study's numbers as a rich renderable; see :mod:`.terminal`."""
    from fer_bench.reports.terminal import study_table as table

    return table(ledger, study)

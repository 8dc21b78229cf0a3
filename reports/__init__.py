"""Tables, figures and pages, computed from the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_bench.record.ledger import Ledger

__all__ = ["beside", "build_comparison", "build_report", "build_response", "study_table"]


def build_report(ledger: Ledger, study: dict[str, Any], out: str | Path, **options: Any) -> Path:
    """Write the report of a study into `out`; returns the path of ``report.md``.

    The folder then holds ``report.md`` with ``figures/``, ``report.html``, ``table.csv``, ``results.csv``, and every
    table as LaTeX and CSV in ``tables/``. Options and errors as in :func:`fer_bench.reports.build.build_report`.
    """
    from fer_bench.reports.build import build_report as build

    return build(ledger, study, Path(out), **options)


def beside(study: Mapping[str, Any], page: Path) -> dict[str, Path]:
    """Pages that were written beside a study's report, by what they are called: of an ablation, that on its modules."""
    other = page.with_stem("ablation")
    return {"ablation": other} if study.get("ablation") and other.is_file() else {}


def build_response(ledger: Ledger, studies: Sequence[Mapping[str, Any] | str], out: str | Path, **options: Any) -> Path:
    """Write the page of imbalance-response curves; see :func:`fer_bench.reports.build.build_response`."""
    from fer_bench.reports.build import build_response as build

    return build(ledger, studies, Path(out), **options)


def build_comparison(
    ledger: Ledger, studies: Sequence[Mapping[str, Any] | str], out: str | Path, **options: Any
) -> Path:
    """Write the page on several data sets; see :func:`fer_bench.reports.build.build_comparison`."""
    from fer_bench.reports.build import build_comparison as build

    return build(ledger, studies, Path(out), **options)


def study_table(ledger: Ledger, study: dict[str, Any]) -> Any:
    """The study's numbers as a rich renderable; see :mod:`.pages.terminal`."""
    from fer_bench.reports.pages.terminal import study_table as table

    return table(ledger, study)

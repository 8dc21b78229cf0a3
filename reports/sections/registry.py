"""The sections of a report, in their order, and those that installed packages add.

A package adds sections of its own by an entry point of the group ``fer_bench.report_sections`` that leads to a
:class:`Section` or to a list of them::

    from fer_bench.reports.sections import Section
    SECTION = Section("seeds", "Seeds", lambda context: f"{len(context.study.runs)} runs.", after="scores")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from fer_bench.errors import FerBenchError, PluginError
from fer_bench.reports.sections import (
    answer,
    calibration,
    compared,
    confusion_matrices,
    curves,
    frequency,
    further,
    minority,
    missing,
    operating_point,
    oracle,
    other_labels,
    overall,
    priors,
    published_claims,
    recall,
    repeat,
    seen,
    significance,
    trust,
)
from fer_bench.reports.sections.section import Section

GROUP = "fer_bench.report_sections"
SECTIONS: tuple[Section, ...] = (
    answer.SECTION,
    minority.SECTION,
    operating_point.SECTION,
    recall.SECTION,
    overall.SECTION,
    priors.SECTION,
    frequency.SECTION,
    further.SECTION,
    calibration.SECTION,
    other_labels.SECTION,
    oracle.SECTION,
    seen.SECTION,
    published_claims.SECTION,
    significance.SECTION,
    confusion_matrices.SECTION,
    curves.SECTION,
    compared.SECTION,
    trust.SECTION,
    missing.SECTION,
    repeat.SECTION,
)


def all_sections(extra: Iterable[Section] = ()) -> tuple[list[Section], list[str]]:
    """Built-in sections, those of installed packages and `extra`, in their order; and remarks on broken ones.

    Raises
    ------
    PluginError
        Two sections share a name.
    """
    installed, remarks = _installed()
    ordered: list[Section] = []
    for section in (*SECTIONS, *installed, *extra):
        names = [s.name for s in ordered]
        if section.name in names:
            other = ordered[names.index(section.name)]
            raise PluginError(
                f"two sections of the report are called '{section.name}'",
                where=f"{other.origin or 'built in'} and {section.origin or 'given'}",
                hint="rename one of them, or uninstall the package that brings it",
            )
        place = len(ordered)
        if section.after in names:
            place = names.index(section.after) + 1
            while place < len(ordered) and ordered[place].after == section.after:
                place += 1
        elif section.after:
            remarks.append(f"The section `{section.name}` comes last, because there is no section `{section.after}`.")
        ordered.insert(place, section)
    return ordered, remarks


def _installed() -> tuple[list[Section], list[str]]:
    """Sections of installed packages, and a sentence on each one that can't be loaded."""
    sections: list[Section] = []
    remarks: list[str] = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        try:
            sections += _load(point)
        except Exception as error:  # whatever the module raises, only its own section is lost
            why = error.what if isinstance(error, FerBenchError) else f"{type(error).__name__}: {error}"
            remarks.append(
                f"The report section `{point.name}` of `{point.value}` can't be used and is left out: {why}."
            )
    return sections, remarks


def _load(point: EntryPoint) -> list[Section]:
    loaded = point.load()
    sections = list(loaded) if isinstance(loaded, (list, tuple)) else [loaded]
    for section in sections:
        if not isinstance(section, Section):
            raise PluginError(f"it contains {type(section).__name__}, not a Section")
    return [dataclasses.replace(s, origin=f"entry point {point.value}") for s in sections]

"""Build the folder of a report: compute once, write every format into a temporary folder, then move the files.

The only module that knows facts, sections, pages and renderers.
"""

from __future__ import annotations

import contextlib
import gc
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from fer_bench.base.files import write_text
from fer_bench.errors import LedgerError, unknown
from fer_bench.printable import printable
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger
from fer_bench.reports.facts import tidy
from fer_bench.reports.facts.ablation import Ablation, ablation_of
from fer_bench.reports.facts.across import load_comparison
from fer_bench.reports.facts.numbers import Numbers, compute
from fer_bench.reports.facts.priors import Prior
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.facts.response import load_response
from fer_bench.reports.facts.scoring import begin
from fer_bench.reports.facts.second_process import Job, Work, work_for
from fer_bench.reports.pages import ablation as ablation_page
from fer_bench.reports.pages import across
from fer_bench.reports.pages import response as response_page
from fer_bench.reports.render import figure_files, html, latex, markdown
from fer_bench.reports.render.blocks import Document, Figure
from fer_bench.reports.render.marks import plain
from fer_bench.reports.render.page_folder import Target, aside, check, move, tell
from fer_bench.reports.render.table import table_csv
from fer_bench.reports.sections import Context, Section
from fer_bench.reports.sections.composition import document
from fer_bench.reports.sections.registry import all_sections
from fer_bench.reports.sections.table_csv import csv_text

REPORT = "report"  # what the main page of a folder is called


@dataclass(frozen=True)
class Format:
    """A format: the file that a reader opens first, its short names, and whether it contains figures.

    `write` takes a page, a folder, and what the page is called there: "report", or the name of a page beside it.
    """

    main: str
    write: Callable[[Document, Path, str], None]
    aliases: tuple[str, ...] = ()
    drawn: bool = False


def _write_markdown(page: Document, folder: Path, name: str) -> None:
    _put(folder / f"{name}.md", markdown.page(page))


def _write_html(page: Document, folder: Path, name: str) -> None:
    drawings = {f.name: (folder / "figures" / f"{f.name}.svg").read_bytes() for f in page.figures}
    _put(folder / f"{name}.html", html.page(page, drawings))


def _write_latex(page: Document, folder: Path, name: str) -> None:
    for file, text in latex.files(page, "main" if name == REPORT else name).items():
        _put(folder / "tables" / file, text)


def _write_csv(page: Document, folder: Path, name: str) -> None:
    for block in page.tables:
        _put(folder / "tables" / f"{block.id}.csv", table_csv(block.table))


def _put(path: Path, text: str) -> None:
    """Write a page, or a part of one, without characters that a terminal would obey."""
    write_text(path, printable(text))


FORMATS: Mapping[str, Format] = {
    "markdown": Format("report.md", _write_markdown, ("md",), drawn=True),
    "html": Format("report.html", _write_html, drawn=True),
    "latex": Format("tables/main.tex", _write_latex, ("tex",)),
    "csv": Format("table.csv", _write_csv),
}


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats from a comma-separated list, each by its full or its short name: "md,html" -> ("markdown", "html").

    Raises
    ------
    UnknownNameError
        There is no such format.
    """
    names = {alias: name for name, kind in FORMATS.items() for alias in (name, *kind.aliases)}
    requested = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in requested or [text]:
        if name not in names:
            raise unknown("format", name, names, where="--format")
    return tuple(dict.fromkeys(names[name] for name in requested))


def build_report(
    ledger: Ledger,
    study: Mapping[str, Any],
    out: Path,
    *,
    priors: Sequence[Prior] = (),
    formats: Sequence[str] = tuple(FORMATS),
    sections: Sequence[Section] = (),
    force: bool = False,
) -> Path:
    """Write the report of a study into `out`; returns the first file to open, ``report.md`` by default.

    `priors` adds a section on the accuracy under other class shares than the test's, `sections` adds others. Formats
    that are not requested stay as they are. Nothing in `out` changes before everything has been written, and no file
    that fer-bench did not write is replaced without `force` (:mod:`.render.page_folder`).

    Raises
    ------
    FerBenchError
        The folder can't be written, or holds files of others under our names.
    LedgerError
        No run of the study can be reported.
    PluginError
        Two sections share a name.
    UnknownNameError
        There is no such format.
    """
    chosen = parse_formats(",".join(formats))
    ordered, remarks = all_sections(sections)
    target = _target(ledger, "report", [study], out, chosen, force)
    with _uncollected(), work_for(len(study.get("runs", ()))) as work:
        if _drawn(chosen):
            work.add(import_module, figure_files.__name__)  # something for the helper to do while records are read
        data = load_study(ledger, study)
        scoring = begin(data, work)
        numbers = compute(data)
        ablation, broken = _ablation(numbers)
        links = () if ablation is None else (ablation_page.LINK,)
        context = Context(numbers, tuple(priors), (*remarks, *broken), scoring, links)
        with aside(target) as folder:
            pictures = _Pictures(work, folder, chosen)
            page = document(context, ordered, pictures.add)
            more = _separated(context) if "csv" in chosen else {}
            beside = {} if ablation is None else {ablation_page.STEM: ablation_page.page(ablation)}
            for figure in (f for other in beside.values() for f in other.figures):
                pictures.add(figure)
            if ablation is not None and "csv" in chosen:
                more[f"{ablation_page.STEM}.csv"] = ablation_page.csv_text(ablation)
            pictures.finish()
            return _write(page, folder, target, chosen, more, beside)


def _ablation(numbers: Numbers) -> tuple[Ablation | None, list[str]]:
    """The ablation that a study is; a remark where its record can't be used."""
    try:
        return ablation_of(numbers), []
    except LedgerError as error:
        return None, [f"{error.what[0].upper()}{error.what[1:]}, so there is no page on it."]


def _separated(context: Context) -> dict[str, str]:
    """The CSV files of a report besides its tables."""
    results = tidy.csv_text(context.study, context.results)
    return {"table.csv": csv_text(context.numbers), "results.csv": results}


def build_response(
    ledger: Ledger,
    studies: Sequence[Mapping[str, Any] | str],
    out: Path,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    force: bool = False,
    say: Callable[[str], None] = tell,
) -> Path:
    """Write the page of imbalance-response curves of some studies into `out`; returns the first file to open.

    Studies are given as records or by name; `say` is called with what is left out of the page, and why.

    Raises
    ------
    FerBenchError
        The folder can't be written, or holds files of others under our names.
    LedgerError
        The studies do not form a curve.
    UnknownNameError
        There is no such format.
    """
    chosen = parse_formats(",".join(formats))
    target = _target(ledger, "response", studies, out, chosen, force)
    response = load_response(ledger, studies)
    _report_notes(response.notes, say)
    return _write_at_once(response_page.page(response, out.name), target, chosen, response_page.csv_text(response))


def build_comparison(
    ledger: Ledger,
    studies: Sequence[Mapping[str, Any] | str],
    out: Path,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    force: bool = False,
    say: Callable[[str], None] = tell,
) -> Path:
    """Write the page on studies of several data sets into `out`; returns the first file to open.

    Studies are given as records or by name; `say` is called with what is left out of the page, and why.

    Raises
    ------
    FerBenchError
        The folder can't be written, or holds files of others under our names.
    LedgerError
        The studies can't be compared.
    UnknownNameError
        There is no such format.
    """
    chosen = parse_formats(",".join(formats))
    target = _target(ledger, "compare", studies, out, chosen, force)
    comparison = load_comparison(ledger, studies)
    _report_notes(comparison.notes, say)
    return _write_at_once(across.page(comparison, out.name), target, chosen, across.csv_text(comparison))


def _report_notes(notes: Sequence[str], say: Callable[[str], None]) -> None:
    for note in notes:
        say(f"! {plain(note)}")


def _target(
    ledger: Ledger,
    command: str,
    studies: Sequence[Mapping[str, Any] | str],
    out: Path,
    formats: Sequence[str],
    force: bool,
) -> Target:
    """The folder of a page, checked before anything is computed.

    It is fer-bench's own if it lies among the results of the ledger's home.
    """
    home = Home(ledger.root.resolve().parent)
    names = [study if isinstance(study, str) else str(study.get("name", "")) for study in studies]
    words = ["fer-bench", command, *names, "--home", str(home.root), "--out", str(out)]
    words += ["--format", ",".join(formats)] if set(formats) != set(FORMATS) else []
    own = out.resolve().is_relative_to(home.root / "results")
    target = Target(out=out, own=own, force=force, again=shlex.join(words))
    check(target, [FORMATS[name].main for name in formats])
    return target


def _write_at_once(page: Document, target: Target, formats: Sequence[str], table: str) -> Path:
    """Print the figures of a finished document and write it; `table` is what ``table.csv`` holds."""
    with aside(target) as folder:
        pictures = _Pictures(Work(), folder, formats)
        for figure in page.figures:
            pictures.add(figure)
        pictures.finish()
        return _write(page, folder, target, formats, {"table.csv": table} if "csv" in formats else {})


@dataclass(frozen=True)
class _Pictures:
    """The figures of a report on their way to files of `folder`, if a format contains figures."""

    work: Work
    folder: Path
    formats: Sequence[str]
    jobs: list[Job[None]] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        if _drawn(self.formats):
            self.jobs.append(self.work.add(figure_files.save, figure.drawn, self.folder / "figures", figure.name))

    def finish(self) -> None:
        self.work.results(self.jobs)


def _drawn(formats: Sequence[str]) -> bool:
    """Whether one of the formats contains figures."""
    return any(FORMATS[name].drawn for name in formats)


def _write(
    page: Document,
    folder: Path,
    target: Target,
    formats: Sequence[str],
    more: Mapping[str, str],
    beside: Mapping[str, Document] | None = None,
) -> Path:
    """Write documents into `folder`, beside their figures, then move everything; returns the first file to open."""
    for name in formats:
        for called, content in {REPORT: page, **(beside or {})}.items():
            FORMATS[name].write(content, folder, called)
    for file, text in more.items():
        _put(folder / file, text)
    move(folder, target)
    return target.out / FORMATS[formats[0]].main


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Python's garbage collector switched off: with a thousand records in memory it takes seconds and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""A report's marked text, LaTeX, CSV, sections from elsewhere, and its folder as a whole."""

from __future__ import annotations

import csv
import gc
import os
import re
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.cli.report import report as command
from fer_bench.errors import FerBenchError, LedgerError, PluginError, UnknownNameError
from fer_bench.reports import build, build_report
from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.render.blocks import Bullets, Code, Paragraph, TableBlock, blocks
from fer_bench.reports.render.markdown import block_markdown
from fer_bench.reports.render.marks import Span, plain, slug, spans
from fer_bench.reports.render.page_folder import REPORT
from fer_bench.reports.render.table import Table, table_csv
from fer_bench.reports.sections import Context, Section, recall
from fer_bench.reports.sections.composition import document
from fer_bench.reports.sections.registry import SECTIONS, all_sections

BASE, BETTER = (40, 8, 90), (40, 18, 90)
QUICK = ("latex", "csv")  # formats without figures
DRAWN = ("recall", "gains", "frequency", "confusion", "curves", "reliability", "tradeoff", "operating-point")
FIGURES = {f"figures/{name}.{kind}" for name in DRAWN for kind in ("svg", "png")}


@pytest.fixture
def small(bench):
    """Two methods, one seed each."""
    runs = [bench.run("base", 0, BASE), bench.run("better[a=<b>]", 0, BETTER)]
    return bench, bench.study(runs, ["better[a=<b>]", "base"])


def table(*rows: tuple[str, ...], titles=("Name", "Value"), caption="", name="mine", **options: Any) -> TableBlock:
    return TableBlock(Table(titles, tuple(i > 0 for i in range(len(titles))), rows, caption), name, "Mine", **options)


# -- marked text -----------------------------------------------------------------------------------------------------


def test_marks_are_taken_apart():
    assert spans("a **`b` c** *d* [e](https://x.org) `*f*`") == [
        Span("a "),
        Span("b", code=True, bold=True),
        Span(" c", bold=True),
        Span(" "),
        Span("d", italic=True),
        Span(" "),
        Span("e", url="https://x.org"),
        Span(" "),
        Span("*f*", code=True),
    ]


@pytest.mark.parametrize("text", ["2 * 3 * 4", "**open", "`open", "[62.5, 3.1] (2)", "a*b", "[x]( y )", "", "****"])
def test_what_is_not_closed_is_text(text):
    assert plain(text) == text
    assert all(s == Span(s.text) for s in spans(text))


@given(st.text(alphabet="ab *`[]()\\", max_size=30))
def test_no_letter_is_lost_and_no_text_is_empty(text):
    result = spans(text)
    assert all(s.text for s in result)
    letters = re.sub(r"[^ab]", "", text)
    assert re.sub(r"[^ab]", "", "".join(s.text + s.url for s in result)) == letters


def test_what_a_section_returns_becomes_blocks():
    assert blocks([" one ", None, "", Bullets(()), Code("x")]) == (Paragraph("one"), Code("x"))
    assert blocks("one") == (Paragraph("one"),)
    assert blocks(None) == ()
    with pytest.raises(TypeError, match="3 is not a block"):
        blocks([3])


def test_names_for_files_are_plain():
    assert slug("confusion `rasn[share.source=ema]` ⚠") == "confusion-rasn-share-source-ema"
    assert slug("愤怒") == "x"
    assert len(slug("rasn[" + "a=1," * 99 + "]")) <= 80


def test_markdown_takes_nothing_for_html_or_for_the_end_of_a_cell():
    assert block_markdown(Paragraph("<b> and `<b>` &amp; R&D")) == "\\<b> and `<b>` \\&amp; R&D"
    text = block_markdown(table(("a|b", "`c|d`\ne")))
    assert text.splitlines()[-1] == "| a\\|b | `c\\|d` e |"


# -- CSV -------------------------------------------------------------------------------------------------------------


def test_tables_are_csv_without_marks_and_with_the_minus_of_programs(tmp_path, small):
    block = table(("**a**, `b`", "−0.7 [−1.0, +0.2]"), ('say "c"', "–"))
    rows = list(csv.reader(table_csv(block.table).splitlines()))
    assert rows == [["Name", "Value"], ["a, b", "-0.7 [-1.0, +0.2]"], ['say "c"', "–"]]
    bench, study = small
    build_report(bench.ledger, study, tmp_path / "out", formats=["csv"])
    with open(tmp_path / "out" / "tables" / "images.csv", encoding="utf-8") as file:
        assert list(csv.reader(file))[1:] == [
            ["disgust", "40", "20", "20"],
            ["angry", "300", "50", "50"],
            ["happy", "900", "100", "100"],
            ["all", "1,240", "170", "170"],
        ]


# -- all formats -----------------------------------------------------------------------------------------------------


def test_every_format_tells_command_data_runs_versions_watermark_and_what_is_missing(bench, tmp_path):
    protocol = {"protocol": bench.data()["protocol"] | {"watermark": "selects on test, as the paper did"}}
    runs = [bench.run("base", 0, BASE, data=protocol), bench.run("better", 0, BETTER, data=protocol, finish=False)]
    study = bench.study(runs, ["better", "base"])
    folder = build_report(bench.ledger, study, tmp_path / "out").parent
    latex_text = "".join(p.read_text() for p in sorted((folder / "tables").glob("*.tex")))
    texts = {name: (folder / f"report.{name}").read_text() for name in ("md", "html")}
    for name, text in (texts | {"tex": re.sub(r"[\\{}]", "", latex_text)}).items():
        for sentence in (
            study["command"],
            "f00d",
            runs[0],
            "2.11",
            "Watermarked: not a fair estimate.",
            "as the paper did",
        ):
            assert sentence in text, (name, sentence)
        assert re.search("seed 0 .run " + runs[1] + ". is (unfinished|running|started) and is left out", text), name
    assert "% \\u26a0 selects on test" in (folder / "tables" / "recall.tex").read_text()
    assert "selects on test" in (folder / "table.csv").read_text()


# -- sections from elsewhere -----------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install(name, source, points)`` lays an installed package with entry points for sections on the path."""

    def write(name: str, source: str, *points: str) -> None:
        site = tmp_path / f"site_{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[fer_bench.report_sections]\n" + "\n".join(points) + "\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


THEIRS = """
from fer_bench.reports.render.blocks import Bullets, TableBlock
from fer_bench.reports.sections import Section
from fer_bench.reports.render.table import pairs

def seeds(context):
    rows = [(m.label, str(len(m.seeds))) for m in context.study.methods]
    return ["Seeds of every method:", TableBlock(pairs(rows), "recall", "Seeds"), Bullets(("done",))]

def wrong(context):
    return 1 / 0

SECTION = Section("seeds", "Seeds", seeds, after="recall")
MORE = [Section("wrong", "Wrong", wrong), Section("lost", "Lost", lambda c: "here", after="nowhere")]
NOTHING = 3
"""


def test_an_installed_package_adds_sections_to_every_format(install, small, tmp_path):
    install("seeds_pkg", THEIRS, "seeds = seeds_pkg:SECTION", "more = seeds_pkg:MORE")
    bench, study = small
    folder = build_report(bench.ledger, study, tmp_path / "out").parent
    text = (folder / "report.md").read_text()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[3:6] == ["Recall for every class", "Seeds", "Overall scores"]
    assert titles[-2:] == ["Wrong", "Lost"]
    assert "could not be built: entry point seeds_pkg:MORE raised ZeroDivisionError: division by zero." in text
    assert "The section `lost` comes last, because there is no section `nowhere`." in text
    page = (folder / "report.html").read_text()
    assert page.index('id="s-recall"') < page.index('id="s-seeds"') < page.index('id="s-scores"')
    assert (folder / "tables" / "recall-2.csv").read_text() == "What,Value\nbetter[a=<b>],1\nbase,1\n"
    assert r"\input{recall-2}" in (folder / "tables" / "main.tex").read_text()


def test_a_broken_entry_point_is_named_and_skipped(install, small, tmp_path):
    points = ("good = broken_pkg:SECTION", "odd = broken_pkg:NOTHING", "gone = broken_pkg:GONE", "none = no_such_pkg:X")
    install("broken_pkg", THEIRS, *points)
    bench, study = small
    text = build_report(bench.ledger, study, tmp_path / "out", formats=["markdown"]).read_text()
    assert "## Seeds" in text
    missing = text[text.index("## What is missing or failed") :]
    assert "`odd` of `broken_pkg:NOTHING` can't be used and is left out: it contains int, not a Section." in missing
    assert re.search(r"`gone` of `broken_pkg:GONE` can't be used and is left out: AttributeError", missing)
    assert re.search(r"`none` of `no_such_pkg:X` can't be used and is left out: ModuleNotFoundError", missing)


def test_the_garbage_collector_runs_again_after_a_report(small, tmp_path, monkeypatch):
    bench, study = small
    seen = []
    monkeypatch.setattr(build, "compute", lambda result: seen.append(gc.isenabled()) or compute(result, draws=50))
    build_report(bench.ledger, study, tmp_path / "out", formats=["csv"])
    with pytest.raises(LedgerError):
        build_report(bench.ledger, study | {"runs": []}, tmp_path / "out", formats=["csv"])
    assert seen == [False]
    assert gc.isenabled()


def test_two_sections_of_one_name_raise(install):
    install("twice_pkg", THEIRS.replace('"seeds", "Seeds"', '"scores", "Seeds"'), "seeds = twice_pkg:SECTION")
    with pytest.raises(PluginError, match=r"called 'scores'[\s\S]*built in and entry point twice_pkg:SECTION"):
        all_sections()


def test_sections_after_the_same_one_keep_their_order():
    extra = [Section(n, n, lambda c: None, after="recall") for n in ("one", "two")]
    names = [s.name for s in all_sections(extra)[0]]
    assert names[3:7] == ["recall", "one", "two", "scores"]
    assert all_sections()[0] == list(SECTIONS)


def test_slow_sections_are_built_last_and_stand_where_they_belong(small):
    bench, study = small
    numbers = compute(load_study(bench.ledger, study), draws=100)
    text = []

    def section(name, slow=False):
        build = lambda c: (text.append(name), c.figure(name, recall.draw_recall, name))[1]  # noqa: E731
        return Section(name, name, build, slow=slow)

    order = [section("one"), section("two", slow=True), section("three")]
    drawn = lambda figure: text.append(f"drawn {figure.name}")  # noqa: E731
    result = document(Context(numbers), order, drawn)
    assert text == ["one", "drawn one", "three", "drawn three", "two", "drawn two"]
    assert [part.name for part in result.parts] == ["one", "two", "three"]


def test_a_bug_in_a_built_in_section_is_not_hidden(small):
    bench, study = small
    numbers = compute(load_study(bench.ledger, study), draws=100)
    with pytest.raises(ZeroDivisionError):
        document(Context(numbers), [Section("bad", "Bad", lambda c: 1 / 0)])


# -- the folder as a whole -------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the list of them."""
    result = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != REPORT]
    return {str(p.relative_to(folder)): p.read_bytes() for p in result}


def test_only_the_formats_asked_for_are_written(small, tmp_path):
    bench, study = small
    path = build_report(bench.ledger, study, tmp_path / "out", formats=("html",))
    assert path.name == "report.html"
    assert set(contents(path.parent)) == {"report.html", *FIGURES}
    before = contents(path.parent)
    assert build_report(bench.ledger, study, tmp_path / "out", formats=("csv",)).name == "table.csv"
    after = contents(path.parent)
    assert {k: v for k, v in after.items() if k in before} == before
    assert {"table.csv", "tables/recall.csv"} <= set(after)
    assert not [name for name in after if name.endswith(".tex")]


@pytest.mark.parametrize(("text", "names"), [("md, HTML", ("markdown", "html")), ("tex,latex,csv", ("latex", "csv"))])
def test_formats_go_by_short_names_too(text, names):
    assert build.parse_formats(text) == names


@pytest.mark.parametrize("text", ["htlm", "", ",", "md,pdf"])
def test_an_unknown_format_is_answered_with_those_there_are(text):
    with pytest.raises(UnknownNameError, match=r"unknown format[\s\S]*--format"):
        build.parse_formats(text)
    with pytest.raises(UnknownNameError, match="did you mean 'html'"):
        build.parse_formats("htlm")


def test_the_command_writes_what_is_asked(small, tmp_path):
    out = tmp_path / "r"
    arguments = ["--home", str(tmp_path), "--out", str(out)]
    done = CliRunner().invoke(command, [*arguments, "--format", "tex,csv"])
    assert done.exit_code == 0, done.output
    assert str(out / "tables" / "main.tex") in done.output
    assert sorted(p.name for p in out.iterdir()) == [REPORT, "results.csv", "table.csv", "tables"]
    failed = CliRunner().invoke(command, [*arguments, "--format", "marcdown"])
    assert isinstance(failed.exception, UnknownNameError)
    assert "'markdown'" in str(failed.exception)


def test_what_no_page_shows_any_more_goes_and_everything_else_stays(bench, tmp_path):
    base, better = bench.run("base", 0, BASE), bench.run("better", 0, BETTER)
    out = tmp_path / "out"
    build_report(bench.ledger, bench.study([base, better], ["better", "base"]), out)
    (out / "notes.txt").write_text("mine")
    (out / "tables" / "main.pdf").write_text("made from main.tex")
    build_report(bench.ledger, bench.study([base], ["base"], None), out)
    kept = contents(out)
    assert {"notes.txt", "tables/main.pdf", "tables/recall.tex", "figures/recall.svg"} <= set(kept)
    assert not {"figures/gains.svg", "figures/gains.png", "tables/gains.tex", "tables/confusion-better.csv"} & set(kept)


def test_an_error_while_writing_leaves_the_old_report(small, tmp_path, monkeypatch):
    bench, study = small
    out = tmp_path / "out"
    build_report(bench.ledger, study, out, formats=QUICK)
    before = contents(out)

    def fail(*args):
        raise FerBenchError("the disk is full")

    monkeypatch.setattr("fer_bench.reports.build.latex.files", fail)
    with pytest.raises(FerBenchError, match="disk is full"):
        build_report(bench.ledger, bench.study(study["runs"][:1], ["base"]), out, formats=QUICK)
    assert contents(out) == before


def die(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("place", ["latex.files", "table_csv", "move"])
def test_a_killed_build_leaves_the_old_report_and_the_next_one_sweeps_up(small, tmp_path, monkeypatch, place):
    bench, study = small
    out = tmp_path / "out"
    build_report(bench.ledger, study, out, formats=QUICK)
    before = contents(out)
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(f"fer_bench.reports.build.{place}", die)
            build_report(bench.ledger, bench.study(study["runs"][:1], ["base"], None), out, formats=QUICK)
        finally:
            os._exit(1)  # never reached by a build that is killed
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    left = [p for p in out.iterdir() if p.name.startswith(".") and p.name != REPORT]
    assert len(left) == 1
    assert {k: v for k, v in contents(out).items() if not k.startswith(".")} == before
    build_report(bench.ledger, study, out, formats=QUICK)
    assert contents(out) == before


@pytest.mark.usefixtures("drawn_figures")
def test_a_stop_between_two_renames_leaves_whole_files_and_a_page_with_its_figures(small, tmp_path, monkeypatch):
    bench, study = small
    out, other, formats = tmp_path / "out", tmp_path / "other", ("markdown", "csv")
    build_report(bench.ledger, study, out, formats=formats)
    before = contents(out)
    second = bench.study(study["runs"][:1], ["base"], None)
    build_report(bench.ledger, second, other, formats=formats)
    fresh = contents(other)
    move, renamed = os.replace, []

    def stop(source, target):
        if Path(target).parent in (out, out / "figures", out / "tables"):
            renamed.append(Path(target).name)
        if len(renamed) == 12:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        build_report(bench.ledger, second, out, formats=formats)
    mixed = contents(out)
    assert mixed["figures/recall.svg"] == fresh["figures/recall.svg"] != before["figures/recall.svg"]
    assert all(data in (before.get(name), fresh.get(name)) for name, data in mixed.items())
    assert mixed["report.md"] == before["report.md"]
    assert set(re.findall(r"figures/\w+\.svg", mixed["report.md"].decode())) <= set(mixed)


def test_a_file_in_the_place_of_the_folder_is_told(small, tmp_path):
    bench, study = small
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FerBenchError, match="can't be written"):
        build_report(bench.ledger, study, tmp_path / "out")

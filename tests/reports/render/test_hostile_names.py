"""Names of classes, labels, studies and errors that a terminal, a browser, LaTeX or a spreadsheet would obey."""

from __future__ import annotations

import csv
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from fer_bench.cli import cli
from fer_bench.errors import LedgerError
from fer_bench.reports import build_report, study_table

HOSTILE = (
    "=cmd|' /C calc'!A0",
    "\x1b[2J\x1b]0;title\x07",
    r"$\frac{$",
    "\u202eyppah",
    "[/red]",
    "@SUM(A1)",
    "a\rb\x00",
    "-1+1",
)
LABEL = "+better[\x9b31m=<b>]"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")


@pytest.fixture
def hostile(bench, tmp_path):
    bench = type(bench)(tmp_path / "ledger", HOSTILE, tuple(range(5, 13)), (6,) * 8)
    runs = [bench.run(label, 0, hits) for label, hits in (("base", (3,) * 8), (LABEL, (5,) * 8))]
    text = "\x1b[31mloss is nan\x1b[0m"
    runs.append(bench.run("base", 1, (3,) * 8, finish=False, edit=lambda w: w.fail(ValueError(text))))
    return bench, bench.study(runs, [LABEL, "base"], command="fer-bench run \x1b[8mhidden")


def test_nothing_in_any_format_is_obeyed(hostile, tmp_path, check_latex):
    bench, study = hostile
    out = build_report(bench.ledger, study, tmp_path / "out").parent
    texts = {p: p.read_text(encoding="utf-8") for p in out.rglob("*") if p.is_file() and p.suffix != ".png"}
    assert len(texts) > 40
    assert [p for p, text in texts.items() if CONTROL.search(text)] == []
    for path, text in texts.items():
        if path.suffix == ".svg":
            ElementTree.fromstring(text)
        elif path.suffix == ".tex" and path.name != "main.tex":
            check_latex(text)
    assert r"\x1b[2J\x1b]0;title\x07" in texts[out / "report.md"]
    assert "(ValueError: \\x1b[31mloss is nan\\x1b[0m)" in texts[out / "report.md"]


def test_no_cell_of_a_csv_file_is_a_formula(hostile, tmp_path):
    bench, study = hostile
    out = build_report(bench.ledger, study, tmp_path / "out", formats=["csv"]).parent
    cells = [c for p in out.rglob("*.csv") for row in csv.reader(io.StringIO(p.read_text())) for c in row]
    assert {"'=cmd|' /C calc'!A0", "'@SUM(A1)", "-1+1", r"'+better[\x9b31m=<b>]"} <= set(cells)
    begun = [c for c in cells if re.match(r"[=@\t\r]|[+-].*[A-Za-z|!]", c)]
    assert [c for c in begun if not re.fullmatch(r"[+-][\d.]+ \[.*\]|[+-][\d.]+ \(.* to .*\)", c)] == []


@pytest.mark.slow
def test_the_terminal_obeys_nothing(hostile, tmp_path):
    bench, study = hostile
    console = Console(width=400, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(study_table(bench.ledger, study))
    output = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # its own bold type
    assert not CONTROL.search(output)
    assert r"\x1b[2J\x1b]0;title\x07" in output
    for what in ("runs", "studies"):
        listed = CliRunner().invoke(cli, ["list", what, "--home", str(tmp_path)])
        assert listed.exit_code == 0, listed.output
        assert not CONTROL.search(listed.output)
    with pytest.raises(LedgerError) as caught:
        bench.ledger.study("\x1b[31mred")
    assert not CONTROL.search(str(caught.value))


def test_a_class_keeps_its_numbers_under_its_shown_name(hostile, tmp_path):
    bench, study = hostile
    page = build_report(bench.ledger, study, tmp_path / "out", formats=["csv"])
    rows = {(r["method"], r["quantity"]): r for r in csv.DictReader(io.StringIO(page.read_text()))}
    assert float(rows["base", r"recall:\x1b[2J\x1b]0;title\x07"]["percent"]) == pytest.approx(50)
    assert np.isclose(float(rows["'" + r"+better[\x9b31m=<b>]", "accuracy"]["percent"]), 100 * 5 / 6)

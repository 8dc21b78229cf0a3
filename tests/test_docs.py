"""The project's pages: they are sound Markdown, their links lead somewhere, and their examples run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_bench.record.ledger import Ledger
from fer_bench.reports import build_report
from fer_bench.reports.facts.tidy import DTYPES
from fer_bench.stats.metrics import Answers, MetricContext, evaluate

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def test_a_linter_finds_nothing_in_any_page_and_all_links_lead_somewhere(markdown_linter):
    assert len(PAGES) > 5
    assert markdown_linter(*PAGES) == ""


def test_the_linter_would_find_something(markdown_linter, tmp_path):
    links = "[a page](gone.md), [a section](#gone), ![a picture](gone.png)"
    (tmp_path / "bad.md").write_text(f"# One\n\n{links}\n\n# Two\n\n\n\ntext \n")
    found = markdown_linter(tmp_path / "bad.md")
    assert sorted(re.findall(r"\[(MD\d+)\]", found)) == ["MD009", "MD012", "MD012", "MD025", "MD051", "MD057", "MD057"]


CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_examples_on_reports_run_and_print_what_the_page_says(capsys):
    text = (ROOT / "docs" / "reports.md").read_text()
    names: dict = {}
    for code in CODE.findall(text):
        exec(code, names)
    printed = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert f"It prints {printed[0]:.2f}, {printed[1]:.2f} and {printed[2]:.2f}" in text
    logits = np.array([[[0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.2, 0.3]]])
    values = evaluate(
        names["metric"], Answers.of_logits(logits), np.array([0, 0]), MetricContext(classes=tuple("abcd"))
    )
    assert values.values.tolist() == [0.5]  # the first image's class comes fourth
    assert names["section"].after == "recall"
    assert names["printed"].value == pytest.approx(names["second"].value)
    assert names["printed"].covers(0.1)  # the truth: 0.8 - 0.7


def test_the_examples_on_results_run_and_print_what_the_page_says(capsys, monkeypatch, tmp_path):
    text = (ROOT / "docs" / "results-in-python.md").read_text()
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for code in CODE.findall(text):
        if "read_csv" in code:
            ledger = Ledger(ROOT / "docs" / "results" / "fer2013-tiny" / "ledger")
            build_report(ledger, ledger.study("fer2013-tiny"), tmp_path, formats=["csv"])
            monkeypatch.chdir(tmp_path)
        exec(code, names)
        monkeypatch.chdir(ROOT)
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    table = re.search(r"```text\n(.*?)\n```", text, re.DOTALL)[1]
    assert table in printed
    gains = re.search(r"It prints `(\[.*?\])`", text)[1]
    assert gains in printed
    assert names["table"].shape == names["frame"].shape
    assert names["images"].correct.sum() == np.diag(pd.crosstab(names["images"].true, names["images"].predicted)).sum()
    assert (~names["sure"].correct).all()


def test_the_page_on_results_describes_every_column():
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", (ROOT / "docs" / "results-in-python.md").read_text(), re.MULTILINE)
    scores = rows[: next(place for place, (cell, _) in enumerate(rows) if cell == "`row`")]
    described = {}
    for cell, types in scores:
        names, kinds = re.findall(r"`(\w+)`", cell), types.split(", ")
        described |= dict(zip(names, kinds if len(kinds) == len(names) else kinds * len(names), strict=True))
    assert described == DTYPES

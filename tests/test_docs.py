"""The project's pages: they are sound Markdown, their links lead somewhere, and their examples run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fer_bench.stats.metrics import Answers, MetricContext, evaluate

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_a_linter_finds_nothing_in_any_page(markdown_linter):
    assert len(PAGES) > 5
    assert markdown_linter(*PAGES) == ""


def test_the_linter_would_find_something(markdown_linter, tmp_path):
    (tmp_path / "bad.md").write_text("# One\n\n# Two\n\n\n\ntext \n")
    assert "MD025" in markdown_linter(tmp_path / "bad.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    targets = [t for t in LINK.findall(page.read_text()) if not re.match(r"https?:|mailto:", t)]
    assert [t for t in targets if not (page.parent / t).exists()] == []


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
        names["column"], Answers.of_logits(logits), np.array([0, 0]), MetricContext(classes=tuple("abcd"))
    )
    assert values.values.tolist() == [0.5]  # the first image's class comes fourth
    assert names["section"].after == "recall"
    assert names["printed"].value == pytest.approx(names["second"].value)
    assert names["printed"].covers(0.1)  # the truth: 0.8 - 0.7

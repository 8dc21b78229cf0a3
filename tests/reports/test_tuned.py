"""A report on tuned methods says so: budget, seed and space of the search, and what it chose."""

from __future__ import annotations

import pytest

from fer_bench.reports import build_report

LABEL = "better[gamma=1.5]"
FACTS = {
    "label": "better",
    "trials": 20,
    "pruned": 7,
    "seed": 3,
    "epochs": 12,
    "objective": "val_mean_recall",
    "default_value": 0.4125,
    "value": 0.4875,
    "space": {"recipe.lr": "0.0004 to 0.012, logarithmic", "gamma": "0.5 to 5"},
    "values": {"recipe.lr": 0.0031, "gamma": 1.5},
}


@pytest.fixture
def page(bench, tmp_path):
    """``page(tuned)`` builds the report of two methods and returns its text in every format."""

    def build(**tuned):
        runs = [bench.run(n, s, (40, 10, 80)) for s in (0, 1) for n in (LABEL, "base")]
        study = bench.study(runs, [LABEL, "base"], **tuned)
        build_report(bench.ledger, bench.ledger.study(study["name"]), tmp_path / "out")
        pages = {p.suffix: p.read_text() for p in (tmp_path / "out").glob("report.*")}
        tables = {p.name: p.read_text() for p in (tmp_path / "out" / "tables").glob("*.tex")}
        return pages, tables

    return build


def rows(page: str, first: str) -> list[list[str]]:
    """Cells of the lines of Markdown that begin with a cell."""
    lines = [line for line in page.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_search_behind_each_method_is_told(page, check_latex):
    base = {**FACTS, "label": "base", "space": {"recipe.lr": "0.0004 to 0.012, logarithmic"}}
    base |= {"values": {"recipe.lr": 0.004}, "value": 0.4125, "seed": 3, "pruned": 0}
    pages, tables = page(tuned={LABEL: FACTS, "base": base})
    text = pages[".md"]
    sentence = "The methods were first tuned on validation images (20 trials each); the test set stayed sealed."
    assert text.count(sentence) == 2  # above everything, and beside the tables
    assert text.index(sentence) < text.index("## Answer")
    result = rows(text, f"`{LABEL}`")
    assert [f"`{LABEL}`", "20", "7", "3", "12", "41.2", "48.8"] in result
    assert [f"`{LABEL}`", "`gamma`", "0.5 to 5", "1.5"] in result
    assert [f"`{LABEL}`", "`recipe.lr`", "0.0004 to 0.012, logarithmic", "0.0031"] in result
    assert ["`base`", "20", "0", "3", "12", "41.2", "41.2"] in rows(text, "`base`")
    assert "the score in % that the search maximised (`val_mean_recall`)" in text
    assert "0.0004 to 0.012, logarithmic" in pages[".html"]
    assert "0.0004 to 0.012, logarithmic" in tables["chosen.tex"]
    check_latex(tables["chosen.tex"])
    check_latex(tables["search.tex"])


def test_unequal_budgets_and_methods_that_were_not_tuned_are_named(page):
    text = page(tuned={LABEL: FACTS})[0][".md"]
    assert "Not tuned: `base`." in text
    text = page(tuned={LABEL: FACTS, "base": {**FACTS, "trials": 5}})[0][".md"]
    assert "**The budgets were not equal.**" in text
    assert "trials each" not in text


def test_a_study_that_was_not_tuned_says_nothing_of_a_search(page):
    pages, tables = page()
    assert "tuned" not in pages[".md"]
    assert "search.tex" not in tables


@pytest.mark.parametrize(
    "tuned", [[], "x", {LABEL: 3}, {LABEL: {}}, {LABEL: {"space": 1, "values": [], "trials": "x"}}]
)
def test_a_malformed_record_of_a_search_spoils_no_report(page, tuned):
    assert "## Answer" in page(tuned=tuned)[0][".md"]


def test_no_format_shows_the_password_of_an_earlier_record(bench, tmp_path):
    runs = [bench.run(n, s, (40, 10, 80)) for s in (0, 1) for n in ("better", "base")]
    command = "fer-bench run better base --tracking-uri postgresql://alice:s3cr3tpw@host/db --dataset toy"
    study = bench.study(runs, ["better", "base"], command=command)
    build_report(bench.ledger, study, tmp_path / "out")
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(files) > 20
    assert [p for p in files if b"s3cr3tpw" in p.read_bytes()] == []
    assert "postgresql://***@host/db" in (tmp_path / "out" / "report.md").read_text()

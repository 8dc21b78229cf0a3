"""Gains over several data sets, what was compared, and the files of the page."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from click.testing import CliRunner

from fer_bench.cli.compare import compare as command
from fer_bench.errors import LedgerError
from fer_bench.reports import build_comparison
from fer_bench.reports.facts.across import MEAN, RARE, Comparison, load_comparison
from fer_bench.reports.facts.numbers import Verdict
from fer_bench.reports.pages import across
from fer_bench.reports.render.blocks import Document
from fer_bench.reports.render.markdown import page as markdown

# Every data set has 50 angry, 20 disgust, 100 happy test images, and 300, 40, 900 in training: disgust is the tail.
LOW, MIDDLE, HIGH = (40, 8, 90), (40, 12, 90), (40, 18, 90)  # disgust: 40 %, 60 %, 90 %
THREE = {"toy": (HIGH, MIDDLE, LOW), "faces": (HIGH, MIDDLE, LOW), "masks": (MIDDLE, HIGH, LOW)}  # of `a`, `b`, `base`


def load(bench, studies) -> Comparison:
    return load_comparison(bench.ledger, studies, draws=50)


def cells(document: Document, table: str) -> dict[str, dict[str, str]]:
    """Rows of a table by their first cell, each by column title."""
    result = next(t.table for t in document.tables if t.id == table)
    return {row[0]: dict(zip(result.titles, row, strict=True)) for row in result.rows}


def text_of(document: Document, part: str) -> str:
    """The Markdown of a section."""
    kept = tuple(p for p in document.parts if p.name == part)
    return markdown(Document("x", (), kept))


def lines(comparison: Comparison) -> list[dict[str, str]]:
    """The numbers of the page in long form."""
    return list(csv.DictReader(across.csv_text(comparison).splitlines()))


# -- gains -----------------------------------------------------------------------------------------------------------


def test_gains_are_counted_from_verdicts_and_not_from_signs(bench, add):
    studies = [
        add("toy", {"a": [HIGH] * 5, "base": [LOW] * 5}),
        add("one", {"a": [HIGH], "base": [LOW]}),  # the same gain, from one seed
        add("worse", {"a": [LOW] * 5, "base": [HIGH] * 5}),
    ]
    comparison = load(bench, studies)
    kinds = {"toy": Verdict.GAIN, "one": Verdict.ONE_SEED, "worse": Verdict.LOSS}
    assert comparison.judged("a", RARE) == comparison.judged("a", MEAN) == kinds
    document = across.page(comparison, "x")
    row = cells(document, "gains-group-tail")["`a`"]
    assert (row["Gains in"], row["Losses in"]) == ("1 of 3", "1 of 3")
    assert row["toy"].startswith("**+50.0 [")
    assert row["one"].startswith("+50.0 [")
    assert row["worse"].startswith("**−50.0 [")
    text = text_of(document, "gains")
    assert "Mean-class accuracy: gain in 1 of 3 data sets (toy), loss in 1 of 3 (worse)." in text


def test_without_a_claim_no_gain_is_told(bench, three):
    text = text_of(across.page(load(bench, three), "x"), "gains")
    none = "no gain or loss shown in 3 data sets"
    assert f"- `a` vs `base`. Mean-class accuracy: {none}. Recall of the tail classes: {none}. Side effects:" in text


def test_a_verdict_is_corrected_for_all_methods_of_its_study_those_left_out_included(bench, add):
    pair = {"a": [(40, result, 90) for result in (13, 14, 15, 14, 14)], "base": [LOW] * 5}
    others = {f"other{i}": [LOW] * 5 for i in range(8)}
    comparison = load(bench, [add("alone", pair), add("among", pair | others)])
    assert comparison.methods == ("a", "base")
    assert comparison.judged("a", RARE) == {"alone": Verdict.GAIN, "among": Verdict.NOT_ADJUSTED}


def test_studies_of_different_references_have_no_gains(bench, add):
    hits = {"a": [HIGH], "base": [LOW]}
    comparison = load(bench, [add("toy", hits), add("faces", hits, reference="a"), add("masks", hits, reference=None)])
    assert comparison.reference is None
    text = "`on-toy`: `base`, `on-faces`: `a` and `on-masks`: none"
    assert f"The studies have no common reference ({text}), so no gains are computed." in comparison.notes
    document = across.page(comparison, "x")
    assert not [t.id for t in document.tables if t.id.startswith("gains")]
    assert (
        text_of(document, "gains")
        == "# x\n\n## Gains over the reference\n\nThe studies have no common reference, so no gains are computed.\n"
    )
    assert {line["gain"] for line in lines(comparison)} == {""}
    assert comparison.ranking(MEAN).blocks == 3


def gains_axis(comparison: Comparison):
    return across.draw_gains(comparison).axes[0]


def test_the_figure_has_a_dot_at_every_gain_of_the_tail(bench, three):
    lines = {line.get_label(): line for line in gains_axis(load(bench, three)).lines}
    assert lines["a"].get_xdata() == pytest.approx([50, 50, 20])
    assert lines["b"].get_xdata() == pytest.approx([20, 20, 50])
    rows = np.array([lines[label].get_ydata() for label in ("a", "b")])
    assert np.round(rows).tolist() == [[0, 1, 2], [0, 1, 2]]  # each in the band of its data set
    assert (rows[0] < rows[1]).all()


def test_without_known_gains_of_the_tail_there_is_no_figure(bench, add):
    bench.train = (100, 100, 100)
    flat = {"counts": {"train": [100] * 3, "test": [50, 20, 100]}}
    comparison = load(bench, [add(name, {"a": [HIGH], "base": [LOW]}, data=flat) for name in ("toy", "faces")])
    assert across.draw_gains(comparison) is None
    assert "Recall of the tail classes: no data set allows a verdict. Side effects: accuracy" in text_of(
        across.page(comparison, "x"), "gains"
    )


# -- what was compared -----------------------------------------------------------------------------------------------


def test_settings_may_differ_and_are_listed(bench, add):
    hits = {"a": [HIGH, HIGH], "base": [LOW]}
    recipe = bench.spec("a", 0)["recipe"]
    other = {"backbone": "large", "pretrained": True, "recipe": recipe | {"epochs": 9, "lr": 0.5}}
    document = across.page(load(bench, [add("toy", hits), add("faces", hits, spec=other)]), "x")
    assert list(cells(document, "studies")["faces"].values()) == [
        *(
            "faces",
            "`on-faces`",
            "`faces/official`",
            "`natural`",
            "large",
            "yes",
            "9",
            "0–1",
            "170",
            "`print-of-faces`",
        ),
    ]
    assert cells(document, "differing") == {"recipe.lr": {"Setting": "recipe.lr", "toy": "0.1", "faces": "0.5"}}


def test_methods_whose_code_or_defaults_changed_between_studies_are_told(bench, add):
    hits = {"a": [HIGH], "base": [LOW]}
    studies = [add("toy", hits), add("faces", hits, spec={"params": {"gamma": 3}})]
    rows = cells(across.page(load(bench, studies), "x"), "differing")
    assert rows["`a` gamma"] == {"Setting": "`a` gamma", "toy": "–", "faces": "3"}

    def other_code(writer):
        writer.put("spec", writer.json("spec") | {"source": "changed"})

    facts = {"dataset": "masks", "protocol": bench.data()["protocol"] | {"name": "masks/official"}}
    runs = [bench.run(label, 0, HIGH, data=facts, spec={"dataset": "masks"}, edit=other_code) for label in hits]
    changed = bench.study(runs, list(hits), name="on-masks", dataset="masks")
    rows = cells(across.page(load(bench, [studies[0], changed]), "x"), "differing")
    assert rows["code of `a`"] == {"Setting": "code of `a`", "toy": "s", "masks": "changed"}


def test_equal_settings_are_said_to_be_equal(bench, three):
    assert "No other setting differs." in text_of(across.page(load(bench, three), "x"), "compared")


def test_commands_fingerprints_and_runs_are_given(bench, three):
    text = text_of(across.page(load(bench, three), "x"), "repeat")
    for study in three:
        assert study["command"] in text
        assert f"`{study['name']}`, data fingerprint `print-of-{study['dataset']}`: `a` `{study['runs'][0]}`" in text
        assert all(f"`{key}`" in text for key in study["runs"])


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rich(add) -> list[dict]:
    """Three studies with everything that a page has to explain."""
    hits = {"a[x=<b>]": [HIGH, MIDDLE], "cheat": [HIGH, HIGH], "base": [LOW, LOW]}
    first = add("toy", hits | {"more": [HIGH]}, transductive=["cheat"])
    second = add("faces", hits, spec={"backbone": "large"})
    return [first, second, add("masks", hits, protocol={"watermark": "selects on test"})]


def test_the_command_writes_the_page_in_every_format(bench, three, tmp_path):
    done = CliRunner().invoke(command, ["on-toy", "on-faces", "on-masks", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.output
    out = tmp_path / "results" / "on-toy-compare"
    assert done.output == f"report: {out / 'report.md'}\n"
    files = {str(p.relative_to(out)) for p in out.rglob("[!.]*.*")}
    drawn = {f"figures/{name}.{kind}" for name in ("ranks", "gains") for kind in ("svg", "png")}
    tables = ("scores-mean-recall", "scores-accuracy", "scores-group-tail", "gains-mean-recall", "gains-group-tail")
    tables += ("price-group-head", "price-accuracy")
    output = {f"tables/{name}.{kind}" for name in (*tables, "studies") for kind in ("tex", "csv")}
    assert files == {"report.md", "report.html", "table.csv", "tables/main.tex"} | drawn | output
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert len(rows) == 4 * 3 * 3
    row = next(r for r in rows if (r["method"], r["dataset"], r["measure"]) == ("a", "masks", "group:tail"))
    assert (row["percent"], row["sd"], row["gain"], row["gain_seeds"]) == ("60.0000", "", "20.0000", "1")
    assert (row["ranked"], row["verdict"], row["study"], row["protocol"]) == (
        *("true", "one_seed", "on-masks", "masks/official"),
    )


def test_the_long_form_has_spreads_and_what_is_ranked_marked_and_judged(bench, rich):
    result = {(r["method"], r["dataset"]): r for r in lines(load(bench, rich)) if r["measure"] == "group:tail"}
    spread = 100 * (0.9 - 0.6) / 2**0.5
    ours = result["a[x=<b>]", "toy"]
    assert (ours["percent"], ours["sd"], ours["seeds"], ours["verdict"]) == (
        "75.0000",
        f"{spread:.4f}",
        "2",
        "noise",
    )
    assert [result["a[x=<b>]", name]["ranked"] for name in ("toy", "faces", "masks")] == ["true", "true", "false"]
    assert (result["cheat", "toy"]["ranked"], result["cheat", "toy"]["transductive"]) == ("false", "true")
    assert (result["cheat", "toy"]["gain"], result["cheat", "toy"]["verdict"]) == ("50.0000", "")
    assert (result["base", "toy"]["gain"], result["base", "toy"]["watermark"]) == ("", "")
    assert result["base", "masks"]["watermark"] == "selects on test"


def test_only_formats_that_were_asked_for_are_written(bench, three, tmp_path):
    path = build_comparison(bench.ledger, three, tmp_path / "out", formats=["csv"])
    assert path == tmp_path / "out" / "table.csv"
    assert {p.suffix for p in (tmp_path / "out").rglob("[!.]*.*")} == {".csv"}


def test_an_unknown_study_is_told(bench, three, tmp_path):
    done = CliRunner().invoke(command, ["on-toy", "on-face", "--home", str(tmp_path)])
    assert isinstance(done.exception, LedgerError)
    assert "no study called 'on-face'" in str(done.exception)
    assert not (tmp_path / "results").exists()


def test_the_page_is_the_same_byte_for_byte(bench, rich, tmp_path):
    folders = [build_comparison(bench.ledger, rich, tmp_path / side / "out").parent for side in ("one", "two")]
    first, second = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in folders)
    assert len(first) > 15
    assert first == second


def test_every_format_says_what_is_missing_and_what_it_was_made_from(
    bench, rich, tmp_path, markdown_linter, check_latex
):
    folder = build_comparison(bench.ledger, rich, tmp_path / "out").parent
    assert markdown_linter(folder / "report.md") == ""
    tables = {p.stem: p.read_text() for p in (folder / "tables").glob("*.tex")}
    for text in tables.values():
        check_latex(text)
    page = (folder / "report.html").read_text()
    for sentence in (rich[0]["command"].partition("[")[0], *rich[2]["runs"], "selects on test", "print-of-faces"):
        assert sentence in (folder / "report.md").read_text()
        assert sentence in page
        assert sentence in tables["scores-mean-recall"]  # a table that travels alone still tells where it is from
    assert "<b>" not in page.partition("<main>")[2]

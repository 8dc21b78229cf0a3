"""The report of a ledger in which every recall is known."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from fer_bench.errors import LedgerError
from fer_bench.reports import build_report, study_table
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import Verdict, compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.render.markdown import page, table_markdown
from fer_bench.reports.sections import (
    Context,
    Section,
    compared,
    confusion_matrices,
    oracle,
    overall,
    recall,
    table_csv,
    trust,
)
from fer_bench.reports.sections.composition import document
from fer_bench.reports.sections.registry import SECTIONS

# toy data: angry 300 train / 50 test, disgust 40 / 20, happy 900 / 100
BASE, BETTER = (40, 8, 90), (40, 18, 90)


@pytest.fixture
def five_seeds(bench):
    """`better` finds 18 of 20 disgust images, `base` 8; all else is equal, in each of five seeds."""
    runs = [bench.run(label, s, hits) for label, hits in (("base", BASE), ("better", BETTER)) for s in range(5)]
    return bench, bench.study(runs, ["better", "base"])


def numbers_of(bench, study, draws=300):
    return compute(load_study(bench.ledger, study), draws=draws)


def text_of(numbers):
    """The page without its figures."""
    sections = [s for s in SECTIONS if s.name not in ("frequency", "curves", "confusion", "recall")]
    return page(document(Context(numbers), sections))


def rows_of(table):
    return {row[0].strip("*`"): row[1:] for row in table.rows}


def test_the_numbers_are_those_computed_by_hand(five_seeds):
    bench, study = five_seeds
    numbers = numbers_of(bench, study)
    base, better = numbers.method("base"), numbers.method("better")
    assert [i.value for i in base.recall] == pytest.approx([40 / 50, 8 / 20, 90 / 100])
    assert base.scores["accuracy"].value == pytest.approx((40 + 8 + 90) / 170)
    assert base.scores["mean_recall"].value == pytest.approx((0.8 + 0.4 + 0.9) / 3)
    # F1 = 2 TP / (true + predicted); 10 angry are taken for disgust, 12 disgust for happy, 10 happy for angry
    f1 = [80 / (50 + 50), 16 / (20 + 18), 180 / (100 + 102)]
    assert base.scores["macro_f1"].value == pytest.approx(np.mean(f1))
    assert better.gains["recall:disgust"].value == pytest.approx(10 / 20)
    assert better.gains["mean_recall"].value == pytest.approx(0.5 / 3)
    assert better.gains["recall:angry"].value == 0
    # Five seeds that answer alike: Wilson of 8 of 20 with t = 2.093 (19 degrees of freedom) for z, t² / 20 = .219:
    # (.4 + .1095 -+ 2.093 sqrt(.012 + .002738)) / 1.219 -> .2095 to .6264
    assert phrases.share_with_interval(base.recall[1]) == "40.0 [21.0, 62.6]"


def test_a_large_gain_in_five_seeds_is_called_one(five_seeds):
    bench, study = five_seeds
    numbers = numbers_of(bench, study)
    verdicts = numbers.method("better").verdicts
    assert {verdicts[key] for key in ("recall:disgust", "group:tail", "mean_recall")} == {Verdict.GAIN}
    text = text_of(numbers)
    assert (
        "`better` improves on `base` in recall of the rarest class, *disgust* (40 training and 20 test images)" in text
    )
    assert re.search(r"recall of disgust \+50\.0 \[\+\d+\.\d, \+\d+\.\d\] points \(gain\);", text)


def test_spread_over_seeds_uses_one_less_than_their_number(bench):
    runs = [bench.run("base", s, (40, k, 90)) for s, k in enumerate((8, 10, 12))]
    numbers = numbers_of(bench, bench.study(runs, ["base"]))
    # mean-class accuracy .70, .7333, .7667: sd with n - 1 is .0333
    assert rows_of(overall.score_table(numbers))["base"][2].startswith("73.3 ± 3.3 [")
    assert numbers.method("base").recall[1].value == pytest.approx(0.5)


def test_a_gain_within_its_interval_is_never_claimed(bench):
    # A/A: the same hit rates on other images, so the true gain is 0.
    make = np.random.default_rng(1)
    runs = []
    for label in ("base", "same"):
        for seed in range(5):
            logits = make.normal(size=(170, 3)) + 1.5 * np.eye(3)[bench.labels]
            runs.append(bench.run(label, seed, logits=logits.astype(np.float32)))
    numbers = numbers_of(bench, bench.study(runs, ["same", "base"]))
    gains = numbers.method("same").gains
    assert gains["recall:disgust"].covers(0)
    assert gains["mean_recall"].covers(0)
    text = text_of(numbers)
    assert "`same` is not shown to improve on `base`" in text
    assert text.count("within noise") == 3
    assert "`same` is not shown to help the rare expressions" in text
    assert ", a gain" not in text
    assert "gains over" not in text


def test_one_seed_never_makes_a_gain(bench):
    runs = [bench.run("base", 0, BASE), bench.run("better", 0, BETTER)]
    numbers = numbers_of(bench, bench.study(runs, ["better", "base"]))
    assert numbers.method("better").gains["recall:disgust"].low > 0
    verdicts = numbers.method("better").verdicts
    assert {verdicts[key] for key in numbers.headline} == {Verdict.ONE_SEED}
    text = text_of(numbers)
    assert "is not shown to improve on" in text
    assert "With one seed" in text
    assert "so no gain is claimed" in text


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_a_few_seeds_may_claim_a_gain(bench, seeds):
    runs = [bench.run(label, s, h) for label, h in (("base", BASE), ("better", BETTER)) for s in range(seeds)]
    numbers = numbers_of(bench, bench.study(runs, ["better", "base"]))
    assert numbers.method("better").verdicts["recall:disgust"] is Verdict.GAIN
    text = text_of(numbers)
    assert "`better` improves on `base` in recall of the rarest class" in text
    assert f"Detectable: {seeds} seeds and 20 test images detect a true gain" in text
    assert "5 seeds would detect" in text


def test_many_comparisons_are_corrected(bench):
    runs = [bench.run("base", s, BASE) for s in range(5)]
    labels = [f"m{i}" for i in range(6)]
    runs += [bench.run(m, s, (40, 13, 90)) for m in labels for s in range(5)]
    numbers = numbers_of(bench, bench.study(runs, [*labels, "base"]), draws=100)
    assert all(numbers.method(m).gains["recall:disgust"].low > 0 for m in labels)
    for judgement in (numbers.method(m).judged["recall:disgust"] for m in labels):
        assert judgement.verdict is Verdict.NOT_ADJUSTED
        assert judgement.p == pytest.approx(6 * judgement.raw)
        assert judgement.interval.covers(0.0)


def test_classes_run_from_the_rarest_and_rare_ones_are_bold(five_seeds):
    bench, study = five_seeds
    table = recall.recall_table(numbers_of(bench, study))
    assert [row[:3] for row in table.rows] == [
        ("**disgust**", "40", "20"),
        ("angry", "300", "50"),
        ("happy", "900", "100"),
    ]


def test_a_transductive_method_is_marked_listed_last_and_not_ranked(bench):
    runs = [bench.run("reader", s, BETTER, transductive=True) for s in range(5)]
    runs += [bench.run("base", s, BASE) for s in range(5)]
    numbers = numbers_of(bench, bench.study(runs, ["reader", "base"]))
    assert [m.label for m in numbers.methods] == ["base", "reader"]
    assert set(numbers.method("reader").verdicts.values()) == {Verdict.NOT_RANKED}
    for table in (recall.recall_table(numbers), recall.gain_table(numbers), overall.score_table(numbers)):
        assert "`reader` ⚠" in table_markdown(table)
    for table in (oracle.leak_table(numbers), trust.seal_table(numbers.study), compared.method_table(numbers.study)):
        assert "`reader` ⚠" in table_markdown(table)
    text = text_of(numbers)
    assert "⚠ **`reader`** vs `base`" in text
    assert "not ranked, because it reads other test images" in text
    assert "3 of 64" in text


def test_a_watermark_stands_on_top_and_forbids_claims(bench):
    protocol = bench.data()["protocol"] | {"watermark": "selects on test, as the paper did"}
    runs = [
        bench.run(m, s, h, data={"protocol": protocol})
        for m, h in (("base", BASE), ("better", BETTER))
        for s in range(5)
    ]
    numbers = numbers_of(bench, bench.study(runs, ["better", "base"]))
    text = text_of(numbers)
    assert text.index("selects on test, as the paper did") < text.index("## Answer")
    assert "no gain is claimed" in text
    assert ", a gain" not in text


def test_honest_and_oracle_stand_side_by_side(bench):
    # The chosen epoch finds 8 of 20 disgust images; the other epoch finds all of them.
    best = bench.labels.copy()
    best[50:70] = 1
    chosen = np.where((np.arange(170) >= 58) & (bench.labels == 1), 2, bench.labels)
    logits = (4 * np.eye(3)[chosen]).astype(np.float32)
    run = bench.run("base", 0, logits=logits, epochs=np.stack([best, chosen]).astype(np.uint8))
    leak = numbers_of(bench, bench.study([run], ["base"])).method("base").leak["mean_recall"]
    assert (leak.honest[0], leak.oracle[0]) == pytest.approx(((1 + 0.4 + 1) / 3, 1.0))
    assert leak.gap[0] == pytest.approx(0.2)


def test_folds_are_pooled_for_each_seed(bench):
    # Fold 0 holds 170 images with 8 of 20 disgust right, fold 1 as many with 18 of 20: together 26 of 40.
    runs = [bench.run("base", 0, h, spec={"fold": f}, data={"fold": f}) for f, h in ((0, BASE), (1, BETTER))]
    numbers = numbers_of(bench, bench.study(runs, ["base"]))
    assert numbers.method("base").recall[1].value == pytest.approx(26 / 40)
    assert numbers.study.counts["test"].tolist() == [100, 40, 200]
    assert numbers.study.counts["train"].tolist() == [300, 40, 900]


def test_settings_that_differ_are_told(bench):
    tuned = bench.spec("better", 0)["recipe"] | {"lr": 0.02}
    runs = [bench.run("base", 0, BASE), bench.run("better", 0, BETTER, spec={"recipe": tuned})]
    text = text_of(numbers_of(bench, bench.study(runs, ["better", "base"])))
    assert "| Setting | `better` | `base` |" in text
    assert "| recipe.lr | 0.02 | 0.1 |" in text


def test_the_csv_holds_the_numbers_of_the_table(five_seeds):
    bench, study = five_seeds
    rows = list(csv.DictReader(table_csv.csv_text(numbers_of(bench, study)).splitlines()))
    row = next(r for r in rows if (r["method"], r["quantity"]) == ("better", "recall:disgust"))
    assert (row["train_images"], row["test_images"], row["seeds"]) == ("40", "20", "5")
    assert (row["percent"], row["gain_points"]) == ("90.0000", "50.0000")
    assert len(rows) == 2 * (3 + 3 + 3)  # classes, groups, scores
    assert row["verdict"] == "gain"
    assert float(row["p"]) == float(row["p_adjusted"]) < 0.05  # the tail is disgust alone, and the method is alone
    assert (row["simultaneous_low"], row["simultaneous_high"]) == (row["gain_low"], row["gain_high"])
    mean = next(r for r in rows if (r["method"], r["quantity"]) == ("better", "mean_recall"))
    assert float(mean["simultaneous_low"]) < float(mean["gain_low"])
    accuracy = next(r for r in rows if (r["method"], r["quantity"]) == ("better", "accuracy"))
    assert (accuracy["p"], accuracy["verdict"]) == ("", "")  # a cost, which is not tested


def test_the_terminal_shows_the_same_numbers(five_seeds):
    bench, study = five_seeds
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(study_table(bench.ledger, study))
    text = console.export_text()
    numbers = compute(load_study(bench.ledger, study))
    for cell in [c for row in recall.recall_table(numbers).rows for c in row[3:]]:
        assert cell in text


def test_labels_with_brackets_survive_markdown_and_terminal(bench):
    label = "rasn[share.source=ema]"
    study = bench.study([bench.run(label, 0, BASE)], [label], None)
    assert f"`{label}`" in text_of(numbers_of(bench, study))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(study_table(bench.ledger, study))
    assert label in console.export_text()


def test_rebuilding_gives_the_same_bytes_and_clean_markdown(five_seeds, tmp_path):
    bench, study = five_seeds

    def built() -> dict[str, bytes]:
        path = build_report(bench.ledger, study, tmp_path / "out")
        return {str(p.relative_to(path.parent)): p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}

    first = built()
    for name in first:
        (tmp_path / "out" / name).unlink()
    assert built() == first
    drawn = {
        f"figures/{name}.{kind}"
        for name in (
            "recall",
            "gains",
            "frequency",
            "confusion",
            "curves",
            "reliability",
            "tradeoff",
            "operating-point",
        )
        for kind in ("svg", "png")
    }
    assert drawn | {"report.md", "report.html", "table.csv", "results.csv", ".fer-bench-report.json"} == {
        n for n in first if not n.startswith("tables/")
    }
    named = {Path(n).stem for n in first if n.endswith(".tex")} - {"main"}
    assert named == {Path(n).stem for n in first if n.startswith("tables/") and n.endswith(".csv")}
    assert {"recall", "gains", "scores", "leak", "images", "methods", "trust"} <= named
    text = first["report.md"].decode()
    assert_lint_clean(text)
    assert {f"figures/{n}.svg" for n in re.findall(r"figures/(\w+)\.svg", text)} <= set(first)
    assert b"<dc:date>" not in first["figures/recall.svg"]
    assert study["command"] in text
    assert all(run in text for run in study["runs"])


def kind_of(line: str) -> str:
    """What a line of Markdown belongs to."""
    marks = {"| ": "table", "- ": "list", "# ": "heading", "##": "heading"}
    return marks.get(line[:2], "text")


def assert_lint_clean(text: str) -> None:
    """One H1, blank lines around headings, tables and lists, no trailing spaces, equal cells in every table row."""
    lines = text.split("\n")
    assert sum(line.startswith("# ") for line in lines) == 1
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert all(line == line.rstrip() for line in lines)
    for before, line in itertools.pairwise(lines):
        if kind_of(before) != kind_of(line) or kind_of(line) == "heading":
            assert not (before and line), (before, line)
        elif kind_of(line) == "table":
            assert len(re.split(r"(?<!\\)\|", before)) == len(re.split(r"(?<!\\)\|", line))


def test_a_markdown_linter_finds_nothing(five_seeds, tmp_path, markdown_linter):
    bench, study = five_seeds
    (tmp_path / "report.md").write_text(page(document(Context(numbers_of(bench, study)))))
    assert markdown_linter(tmp_path / "report.md", links=False) == "", "its figures are not here"


def test_a_section_is_an_entry_and_a_failing_one_breaks_nothing(five_seeds):
    bench, study = five_seeds

    def broken(context):
        raise LedgerError("no such thing")

    numbers = numbers_of(bench, study)
    extra = [Section("mine", "Mine", lambda c: f"{len(c.study.runs)} runs"), Section("bad", "Bad", broken)]
    text = page(document(Context(numbers), extra))
    assert "## Mine\n\n10 runs" in text
    assert "## Bad\n\nThis section could not be built: no such thing." in text


def test_many_confusion_matrices_stand_in_one_picture(bench):
    hits = [(40, 2 * k, 90) for k in range(confusion_matrices.WRITTEN + 2)]
    runs = [bench.run(f"m{k}", 0, of) for k, of in enumerate(hits)]
    drawn = confusion_matrices.draw(numbers_of(bench, bench.study(runs, [f"m{k}" for k in range(len(hits))]), draws=20))
    axis = drawn.axes[0]
    picture = axis.images[0].get_array().filled(np.nan)
    assert picture.shape == (4 * 4, 3 * 4 - 1)  # four rows of three: a title above, a gap between
    titles = {text.get_text(): text.get_position() for text in axis.texts}
    for k, of in enumerate(hits):
        top, left = (k // 3) * 4 + 1, (k % 3) * 4
        assert titles[f"m{k}"] == (left + 1, top - 0.6)
        # disgust is the rarest and happy the most frequent; disgust is taken for happy, angry for disgust
        expected = [[5 * of[1], 0, 100 - 5 * of[1]], [20, 80, 0], [0, 10, 90]]
        assert picture[top : top + 3, left : left + 3] == pytest.approx(np.array(expected))
    assert np.isnan(picture[0]).all()
    assert np.isnan(picture[:, 3]).all()
    assert np.isnan(picture[13:, 4:]).all()
    ticks = {
        int(place): label.get_text() for place, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    }
    assert {ticks[row] for row in (1, 5, 9, 13)} == {"disgust"}


def test_a_figure_without_data_is_left_out(bench):
    numbers = numbers_of(bench, bench.study([bench.run("base", 0, BASE)], ["base"], None))
    assert recall.draw_gains(numbers) is None
    assert recall.gain_table(numbers) is None


@pytest.mark.slow
def test_the_command_writes_the_report_and_prints_it(five_seeds, tmp_path):
    from fer_bench.cli.report import report

    bench, _ = five_seeds
    home = bench.ledger.root.parent
    result = CliRunner().invoke(report, ["--home", str(home), "--out", str(tmp_path / "here")])
    assert result.exit_code == 0, result.output
    assert "disgust" in result.output
    assert str(tmp_path / "here" / "report.md") in result.output
    assert Path(tmp_path / "here" / "report.md").is_file()

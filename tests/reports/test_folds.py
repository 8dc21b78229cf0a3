"""Folds and divisions in the report: pooled beside by fold, what was divided how, and other test priors."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from fer_bench.cli.report import report as command
from fer_bench.errors import FerBenchError
from fer_bench.reports import build_report
from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.sections.overall import fold_table
from fer_bench.reports.sections.priors import Prior, parse_prior, prior_table
from fer_bench.stats.confusion import accuracy_under_prior

# toy data: angry 300 train / 50 test, disgust 40 / 20, happy 900 / 100
WORSE, BETTER = (40, 8, 90), (40, 18, 90)


def numbers_of(bench, study):
    return compute(load_study(bench.ledger, study), draws=200)


@pytest.fixture
def two_folds(bench):
    """One method, two seeds, two folds of 170 images each: 8 of 20 disgust images found in fold 0, 18 in fold 1."""
    rows = np.arange(170)
    runs = [
        bench.run("base", s, h, spec={"fold": f}, data={"fold": f}, rows=rows + 170 * f)
        for s in (0, 1)
        for f, h in ((0, WORSE), (1, BETTER))
    ]
    return bench, bench.study(runs, ["base"])


def test_pooled_and_by_fold_stand_side_by_side(two_folds):
    table = fold_table(numbers_of(*two_folds))
    (row,) = table.rows
    cells = dict(zip(table.titles, row, strict=True))
    # accuracy: 138 of 170 and 148 of 170; pooled 286 of 340; sd over two folds = difference / sqrt 2
    assert cells["Pooled accuracy"] == "84.1"
    assert cells["Accuracy by fold"] == "84.1 ± 4.2 (81.2 to 87.1)"
    assert cells["Folds"] == "2"
    assert "not a standard error" in table.caption
    assert "repetitions" not in table.caption


def test_images_that_several_folds_test_are_told(bench):
    runs = [bench.run("base", 0, h, spec={"fold": f}, data={"fold": f}) for f, h in ((0, WORSE), (1, BETTER))]
    table = fold_table(numbers_of(bench, bench.study(runs, ["base"])))
    assert "170 of the pooled test images repeat images of other folds" in table.caption


def test_one_fold_has_no_fold_table(bench):
    assert fold_table(numbers_of(bench, bench.study([bench.run("base", 0, WORSE)], ["base"]))) is None


def test_the_page_holds_the_fold_table_and_says_that_folds_are_pooled(two_folds, tmp_path):
    bench, study = two_folds
    text = build_report(bench.ledger, study, tmp_path / "out").read_text()
    assert "| Method | Folds | Pooled accuracy |" in text
    assert "their test images are pooled for each seed" in text
    assert "seed 0 fold 0 `" in text
    assert "seed 1 fold 1 `" in text


def described(bench, tmp_path, **protocol) -> str:
    data = {"protocol": bench.data()["protocol"] | protocol}
    study = bench.study([bench.run("base", 0, WORSE, data=data)], ["base"])
    return build_report(bench.ledger, study, tmp_path / "out").read_text()


def test_the_division_is_told_in_words_with_the_hash_of_its_file(bench, tmp_path):
    text = described(
        bench, tmp_path, scheme="kfold", folds=10, group="subject", train=[], val=[], test=[], split_sha256="ab" * 32
    )
    assert (
        "| division | 10 folds: report one, select on the next fold, train on the others; each subject in one" in text
    )
    assert "| split file | `abababababababab` |" in text


def test_every_report_says_which_clean_manifest_was_used(bench, tmp_path):
    assert "| clean manifest | not used" in described(bench, tmp_path)
    assert "| clean manifest | `cdcdcdcdcdcdcdcd`, 1,853 images left out |" in described(
        bench, tmp_path, clean={"sha256": "cd" * 32, "rows": 1853}
    )


def test_a_division_written_by_another_version_does_not_stop_the_report(bench, tmp_path):
    assert "# toy-study" in described(bench, tmp_path, scheme="of the future", folds=3)


def test_runs_on_other_splits_are_not_mixed(bench):
    protocol = bench.data()["protocol"]
    runs = [
        bench.run("base", s, WORSE, data={"protocol": protocol | {"split_sha256": "a" if s < 2 else "b"}})
        for s in range(3)
    ]
    study = load_study(bench.ledger, bench.study(runs, ["base"]))
    assert study.method("base").seeds == (0, 1)
    assert any("differs from the other runs in its split file" in note for note in study.notes)


# -- test priors -----------------------------------------------------------------------------------------------------


@pytest.fixture
def numbers(bench):
    return numbers_of(bench, bench.study([bench.run("base", 0, WORSE)], ["base"]))


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("train", [300 / 1240, 40 / 1240, 900 / 1240]),
        ("test", [50 / 170, 20 / 170, 100 / 170]),
        ("forward:100", [10 / 111, 1 / 111, 100 / 111]),  # happy 1, angry 1/10, disgust 1/100
        ("backward:100", [10 / 111, 100 / 111, 1 / 111]),
    ],
)
def test_shares_and_accuracy_of_a_prior(numbers, text, shares):
    prior = parse_prior(text)
    assert prior.shares(numbers.study) == pytest.approx(shares)
    (row,) = prior_table(numbers, [prior]).rows
    expected = 100 * np.dot(shares, [40 / 50, 8 / 20, 90 / 100])
    assert row[0] == text
    assert row[2].startswith(f"{expected:.1f} [")


def test_a_class_without_test_images_is_left_out_of_the_prior():
    matrix = np.array([[8, 2, 0], [0, 0, 0], [0, 5, 5]])
    assert accuracy_under_prior(matrix, np.array([0.2, 0.5, 0.3])) == pytest.approx((0.2 * 0.8 + 0.3 * 0.5) / 0.5)


@pytest.mark.parametrize("text", ["unifrom", "forward", "forward:0.5", "backward:nan", "uniform:3", "forward:x", ""])
def test_a_prior_that_makes_no_sense_is_refused(text):
    with pytest.raises(FerBenchError, match=r"prior|ratio"):
        parse_prior(text)


def test_priors_print_as_they_are_typed():
    assert [str(parse_prior(t)) for t in ("train", "forward:50", "backward:2.5")] == [
        "train",
        "forward:50",
        "backward:2.5",
    ]
    assert parse_prior("uniform") == Prior("uniform")


@pytest.mark.slow
def test_the_command_adds_the_section_only_when_asked(bench, tmp_path):
    bench.study([bench.run("base", 0, WORSE)], ["base"])
    for args, output in (([], False), (["--test-prior", "uniform", "--test-prior", "backward:50"], True)):
        done = CliRunner().invoke(command, ["--home", str(tmp_path), "--out", str(tmp_path / "r"), *args])
        assert done.exit_code == 0, done.output
        assert ("## Accuracy under other test priors" in (tmp_path / "r" / "report.md").read_text()) == output

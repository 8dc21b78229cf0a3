"""Test images that are no draws of their own: of one person or sequence, or tested by several folds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint

from fer_bench.reports import build_report
from fer_bench.reports.facts.numbers import compute, recall_key
from fer_bench.reports.facts.priors import parse_prior
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.sections import Context, minority
from fer_bench.reports.sections.priors import prior_table

# toy data: angry 300 train / 50 test, disgust 40 / 20, happy 900 / 100
HITS = {"base": [(40, 8, 90), (38, 9, 92)], "better": [(41, 15, 90), (36, 17, 93)]}


def numbers_of(bench, study):
    return compute(load_study(bench.ledger, study), draws=300)


def study_of(bench, name="toy", copies=1, folds=1, **options):
    """Two methods, two seeds; every image `copies` times in the test of each of `folds` folds."""
    labels = np.repeat(bench.labels, copies)
    runs = []
    for label, seeds in HITS.items():
        for seed, hits in enumerate(seeds):
            for fold in range(folds):
                times = tuple(copies * h for h in hits)
                text = {"spec": {"fold": fold}, "data": {"fold": fold}} if folds > 1 else {}
                runs.append(bench.run(label, seed, times, labels=labels, **text, **options))
    return bench.study(runs, ["better", "base"], name=name)


def same(ours, theirs):
    """Whether two methods' numbers are alike in every interval and p-value."""
    for mine, other in zip(ours.methods, theirs.methods, strict=True):
        for name in ("scores", "gains", "improvement"):
            for key, interval in getattr(mine, name).items():
                expected = dataclasses.astuple(getattr(other, name)[key])
                assert dataclasses.astuple(interval) == pytest.approx(expected, nan_ok=True), (name, key)
        for interval, expected in zip(mine.recall, other.recall, strict=True):
            assert dataclasses.astuple(interval) == pytest.approx(dataclasses.astuple(expected), nan_ok=True)


@pytest.fixture
def once(bench):
    return numbers_of(bench, study_of(bench))


def test_an_image_that_three_folds_test_alike_counts_once(bench, once):
    thrice = numbers_of(bench, study_of(bench, "folds", folds=3))
    assert len(thrice.study.labels) == 3 * 170
    assert thrice.study.repeated == 340
    same(thrice, once)


def test_three_frames_of_a_sequence_that_are_answered_alike_count_once(bench, once):
    groups = np.repeat(np.arange(170), 3)
    thrice = numbers_of(bench, study_of(bench, "frames", copies=3, groups=groups))
    same(thrice, once)


def test_without_groups_they_would_count_three_times(bench):
    tripled = bench.run("base", 0, (120, 24, 270), labels=np.repeat(bench.labels, 3))
    result = numbers_of(bench, bench.study([tripled], ["base"])).method("base").recall[1]
    assert (result.low, result.high) == pytest.approx(proportion_confint(24, 60, method="wilson"))


def test_people_who_show_every_expression_are_drawn_with_all_of_it(bench):
    # One seed; the disgust images 0 to 19 are of ten people, two each, of which the first eight are right. Without each
    # person in turn the recall is 7/18 (eight times) or 8/18, so V = 9/10 · 10 · .8 · .2 / 18² by the jackknife.
    people = np.concatenate([np.arange(50) % 10, np.arange(20) % 10, np.arange(100) % 10])
    runs = [bench.run("base", 0, HITS["base"][0], groups=people)]
    result = numbers_of(bench, bench.study(runs, ["base"])).method("base").recall[1]
    images = 1 + 0.4 * 0.6 / (9 * 0.16 / 18**2)
    t, z = distributions.t.ppf(0.975, 9), distributions.norm.ppf(0.975)
    low, high = proportion_confint(0.4 * images * (z / t) ** 2, images * (z / t) ** 2, method="wilson")
    assert (result.low, result.high) == pytest.approx((low, high))


def test_the_detectable_gain_is_that_of_the_independent_images(bench, once):
    def detectable(numbers):
        (table, *_) = [b for b in minority.build(Context(numbers)) if getattr(b, "id", "") == "minority"]
        return [row[table.table.titles.index("Detectable")] for row in table.table.rows]

    alone = detectable(once)
    thrice = numbers_of(bench, study_of(bench, "frames", copies=3, groups=np.repeat(np.arange(170), 3)))
    assert detectable(thrice) == alone
    assert any(cell not in ("–", "> 100") for cell in alone)


def test_other_test_priors_resample_the_same_groups(bench, once):
    thrice = numbers_of(bench, study_of(bench, "frames", copies=3, groups=np.repeat(np.arange(170), 3)))
    prior = [parse_prior("uniform")]
    assert prior_table(thrice, prior).rows == prior_table(once, prior).rows


def test_the_report_says_what_is_drawn(bench, tmp_path):
    people = np.arange(170) % 17
    text = build_report(bench.ledger, study_of(bench, groups=people), tmp_path / "p", formats=["markdown"]).read_text()
    units = "form one sampling unit: intervals and tests are based on 17 units, not 170 images."
    assert units in " ".join(text.split())
    assert "McNemar's test is not given" in text
    text = build_report(bench.ledger, study_of(bench, "f", folds=2), tmp_path / "f", formats=["markdown"]).read_text()
    assert "is one sampling unit: intervals and tests are based on 170 images, not 340 predictions." in " ".join(
        text.split()
    )
    text = build_report(bench.ledger, study_of(bench, "s"), tmp_path / "s", formats=["markdown"]).read_text()
    assert "Intervals and tests draw" not in text
    assert "McNemar's test of each seed" in text


def test_a_run_without_groups_takes_those_of_another_with_the_same_images(bench):
    groups = np.arange(170) // 2
    runs = [bench.run("base", 0, HITS["base"][0], groups=groups), bench.run("base", 1, HITS["base"][1])]
    result = load_study(bench.ledger, bench.study(runs, ["base"]))
    assert result.clusters.tolist() == groups.tolist()
    alone = load_study(bench.ledger, bench.study(runs[1:], ["base"]))
    assert alone.clusters is None


def test_one_image_a_person_changes_nothing(bench, once):
    each = numbers_of(bench, study_of(bench, "each", groups=np.arange(170)[::-1].copy()))
    assert each.study.clusters is None
    same(each, once)


def test_a_fold_with_one_image_a_person_does_not_hide_the_people_of_another(bench):
    groups = {0: np.arange(170) % 85, 1: np.arange(170) + 100}
    text = [{"spec": {"fold": f}, "data": {"fold": f}, "rows": np.arange(170) + 170 * f} for f in groups]
    runs = [bench.run("base", 0, HITS["base"][0], groups=groups[f], **text[f]) for f in groups]
    result = load_study(bench.ledger, bench.study(runs, ["base"]))
    assert result.clusters.tolist() == [*groups[0].tolist(), *groups[1].tolist()]


def test_damaged_groups_are_told_and_cost_nothing_else(bench):
    run = bench.run("base", 0, HITS["base"][0], groups=np.arange(170) // 2)
    file = bench.ledger.run(run).path / "test_groups.npy"
    file.write_bytes(file.read_bytes()[:-1])
    result = load_study(bench.ledger, bench.study([run], ["base"]))
    assert result.clusters is None
    assert any("test_groups.npy has changed since the run" in note for note in result.notes)


def test_groups_that_do_not_fit_the_images_cost_the_run(bench):
    runs = [bench.run("base", 0, HITS["base"][0], groups=np.arange(3)), bench.run("base", 1, HITS["base"][1])]
    result = load_study(bench.ledger, bench.study(runs, ["base"]))
    assert [r.seed for r in result.runs] == [1]
    assert any("(3,) groups do not fit 170 labels" in note for note in result.notes)


def test_gains_of_rare_classes_are_judged_by_group(bench):
    numbers = numbers_of(bench, study_of(bench, groups=np.arange(170) % 17))
    single = numbers_of(bench, study_of(bench, "single"))
    key = recall_key("disgust")
    by_person, by_image = (n.method("better").gains[key] for n in (numbers, single))
    assert by_person.value == pytest.approx(by_image.value)
    assert by_person.p != pytest.approx(by_image.p, rel=1e-3)

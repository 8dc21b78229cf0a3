"""Intervals against published values, closed forms and plain loops."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fer_bench.rng import numpy_generator
from fer_bench.stats import intervals, scores


def test_wilson_gives_newcombes_published_example():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 -> 0.2553 to 0.3662; 0 of 20 -> 0 to 0.1611.
    interval = intervals.wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert (intervals.wilson(0, 20).low, round(intervals.wilson(0, 20).high, 4)) == (0.0, 0.1611)


def test_wilson_is_twelve_points_wide_on_fer2013_disgust():
    # By hand, z = 1.96, n = 55, p = .65: half = 1.96 / (1 + 3.8416/55) * sqrt(.2275/55 + 3.8416/12100) = .1223
    interval = intervals.wilson(0.65 * 55, 55)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.1223, abs=1e-4)


@given(n=st.integers(1, 3000), share=st.floats(0, 1), level=st.floats(0.5, 0.99))
def test_wilson_agrees_with_scipy_on_whole_counts_and_holds_its_value(n, share, level):
    hits = round(share * n)
    ours = intervals.wilson(hits, n, level)
    theirs = scipy_stats.binomtest(hits, n).proportion_ci(level, "wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_wilson_of_no_images_is_unknown():
    assert not intervals.wilson(0, 0).known


def test_holm_gives_the_textbook_adjustment():
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1 -> .02, .03, .06, .04; made monotone: .02, .03, .06, .06
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = intervals.holm([0.5, np.nan, 0.9])
    assert adjusted[[0, 2]] == pytest.approx([1.0, 1.0])
    assert np.isnan(adjusted[1])
    assert len(intervals.holm([])) == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert intervals.holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 8))
def test_stacked_metrics_equal_the_plain_ones(seed, classes):
    matrices = np.random.default_rng(seed).integers(0, 9, size=(3, 2, classes, classes))
    matrices[..., 0, :] += 1  # at least one image
    for name, score in scores.SCORES.items():
        expected = [[score(m) for m in row] for row in matrices]
        assert intervals.STACKED[name](matrices) == pytest.approx(np.array(expected), nan_ok=True)
    expected = np.array([[scores.recalls(m) for m in row] for row in matrices])
    assert intervals.recalls(matrices) == pytest.approx(expected, nan_ok=True)
    assert intervals.recall_of(1)(matrices) == pytest.approx(expected[..., 1], nan_ok=True)


def test_resampling_keeps_class_sizes_and_shares_images_between_runs():
    labels = np.repeat([0, 1, 2], [3, 5, 9])
    predictions = np.random.default_rng(0).integers(0, 3, size=(2, len(labels)))
    twice = np.concatenate([predictions, predictions[:1]])
    drawn = intervals.resampled(labels, twice, 3, 50, np.random.default_rng(1))
    assert (drawn.true == [3, 5, 9]).all()
    assert (drawn.answered.sum(-1) == 17).all()
    for margin in (drawn.right, drawn.answered):
        assert (margin[:, 0] == margin[:, 2]).all()
        assert (margin[:, 0] != margin[:, 1]).any()


def test_bootstrap_of_one_seed_has_the_binomial_standard_error():
    # 400 images with recall .7: SE = sqrt(.7 * .3 / 400) = .0229, so the interval is .7 -+ 1.96 * .0229 = .0449
    labels = np.zeros(400, dtype=int)
    predictions = np.where(np.arange(400) < 280, 0, 1)[None]
    interval = intervals.bootstrap(labels, predictions, {"r": intervals.recall_of(0)}, classes=2, draws=20_000)["r"]
    assert interval.value == pytest.approx(0.7)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.0449, abs=0.002)


def test_bootstrap_of_seeds_that_differ_as_wholes_has_their_standard_error():
    # Every seed is right on all images or on none: all spread is between seeds, variance p (1 - p) / S = .24 / 10.
    labels = np.zeros(50, dtype=int)
    predictions = np.repeat((np.arange(10) >= 4).astype(int)[:, None], 50, axis=1)
    interval = intervals.bootstrap(labels, predictions, {"r": intervals.recall_of(0)}, classes=2, draws=4000)["r"]
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.4, 0.1, 0.7))  # binomial(10, .4) quantiles


def test_difference_equals_a_plain_loop_over_seeds_and_images():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [4, 6, 10])
    ours, theirs = rng.integers(0, 3, size=(2, 3, len(labels)))
    fast = intervals.bootstrap_difference(labels, ours, theirs, classes=3, draws=3000)
    values = {name: [] for name in scores.SCORES}
    for _ in range(1500):
        images = np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in range(3)])
        seeds = rng.integers(0, 3, size=3)
        for name, score in scores.SCORES.items():
            a, b = (
                np.mean([score(scores.confusion(labels[images], p[s][images], 3)) for s in seeds])
                for p in (ours, theirs)
            )
            values[name].append(a - b)
    for name, sample in values.items():
        assert [fast[name].low, fast[name].high] == pytest.approx(np.quantile(sample, [0.025, 0.975]), abs=0.03)


def test_images_are_paired_so_a_common_difficulty_cancels():
    # Both methods miss the same 40 of 100 images; ours gets 5 more. Unpaired, the SE would be .069; paired it is .022.
    labels = np.zeros(100, dtype=int)
    theirs = (np.arange(100) < 40).astype(int)[None]
    ours = (np.arange(100) < 35).astype(int)[None]
    gain = intervals.bootstrap_difference(labels, ours, theirs, {"r": intervals.recall_of(0)}, classes=2)["r"]
    assert gain.value == pytest.approx(0.05)
    assert 0.0 < gain.low < gain.high < 0.11


def test_equal_predictions_have_a_gain_of_exactly_zero():
    predictions = np.random.default_rng(0).integers(0, 3, size=(4, 60))
    labels = np.repeat([0, 1, 2], 20)
    for gain in intervals.bootstrap_difference(labels, predictions, predictions, classes=3, draws=200).values():
        assert (gain.value, gain.low, gain.high, gain.p) == (0.0, 0.0, 0.0, 1.0)
        assert gain.covers(0.0)


def test_images_that_one_side_has_not_seen_are_left_out_on_both():
    labels = np.array([0, 0, 0, 0])
    ours, theirs = np.array([[0, 0, 1, -1]]), np.array([[0, 1, -1, 0]])
    gain = intervals.bootstrap_difference(labels, ours, theirs, {"r": intervals.recall_of(0)}, classes=2)["r"]
    assert gain.value == pytest.approx(2 / 2 - 1 / 2)  # images 0 and 1 only


def test_the_stream_is_named_so_the_same_call_gives_the_same_interval():
    labels, predictions = np.repeat([0, 1], 30), np.random.default_rng(0).integers(0, 2, size=(3, 60))
    first = intervals.bootstrap(labels, predictions, classes=2, names=("a",))
    assert first == intervals.bootstrap(labels, predictions, classes=2, names=("a",))
    assert first != intervals.bootstrap(labels, predictions, classes=2, names=("b",))
    assert numpy_generator(0, "bootstrap", "a").random() != numpy_generator(0, "bootstrap", "b").random()


def test_an_image_tested_in_several_folds_is_drawn_as_one():
    # 40 images, each tested three times with one answer: the spread is that of 40 images, not of 120.
    right = (np.arange(40) < 28).astype(int)
    labels, predictions = np.zeros(120, int), np.tile(1 - right, 3)[None]
    metric = {"r": intervals.recall_of(0)}
    given = {"classes": 2, "draws": 8000}
    single = intervals.bootstrap(labels[:40], predictions[:, :40], metric, **given)["r"]
    together = intervals.bootstrap(labels, predictions, metric, **given, clusters=np.tile(np.arange(40), 3))["r"]
    apart = intervals.bootstrap(labels, predictions, metric, **given)["r"]
    assert (together.value, together.low, together.high) == (single.value, single.low, single.high)
    assert apart.high - apart.low == pytest.approx((single.high - single.low) / 3**0.5, rel=0.15)


def test_people_are_drawn_with_all_their_images_of_every_class():
    # Two people: all right or all wrong. A draw takes (right, right), one of each (half of the draws), (wrong, wrong).
    labels = np.array([0, 0, 1, 0, 1, 1])
    person = np.array(["a", "a", "a", "b", "b", "b"])
    predictions = np.where(person == "a", labels, 1 - labels)[None]
    rng = np.random.default_rng(0)
    drawn = intervals.resampled(labels, predictions, 2, 4000, rng, clusters=person)
    found = np.concatenate([drawn.right, drawn.true, drawn.answered], axis=-1)[:, 0]
    # Of (c0, c1): right, true, answered. Person a: 2, 1 right of 2, 1; person b: 0, 0 right of 1, 2, answered 2, 1.
    assert {tuple(row) for row in found} == {(4, 2, 4, 2, 4, 2), (2, 1, 3, 3, 4, 2), (0, 0, 2, 4, 4, 2)}
    assert (drawn.right[:, 0, 0] == 2).mean() == pytest.approx(0.5, abs=0.03)


def test_clusters_of_one_image_change_nothing():
    rng = np.random.default_rng(4)
    labels, (ours, theirs) = np.repeat([0, 1, 2], [5, 9, 30]), rng.integers(0, 3, (2, 4, 44))
    plain = intervals.bootstrap_difference(labels, ours, theirs, classes=3, draws=300)
    assert intervals.bootstrap_difference(labels, ours, theirs, classes=3, draws=300, clusters=np.arange(44)) == plain


def test_clusters_of_another_length_are_refused():
    with pytest.raises(ValueError, match="shape of the labels"):
        intervals.bootstrap(np.zeros(3, int), np.zeros((1, 3), int), classes=2, clusters=np.zeros(2))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_the_probability_of_improvement_is_the_mann_whitney_statistic(ours, reference):
    u = scipy_stats.mannwhitneyu(ours, reference).statistic
    found = intervals.probability_of_improvement(np.array(ours, float), np.array(reference, float))
    assert found == pytest.approx(u / len(ours) / len(reference))


def test_improvement_has_the_interval_of_a_plain_loop_over_seeds_and_images():
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], [12, 20])
    ours, theirs = np.where(rng.random((2, 4, 32)) < [[[0.75]], [[0.6]]], labels, 1 - labels)
    fast = intervals.bootstrap_improvement(labels, ours, theirs, classes=2, draws=4000)["mean_recall"]
    sample = []
    for _ in range(1500):
        images = np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in (0, 1)])
        seeds = rng.integers(0, 4, size=4)
        a, b = (
            [scores.mean_recall(scores.confusion(labels[images], p[s][images], 2)) for s in seeds]
            for p in (ours, theirs)
        )
        sample.append(np.mean([(x > y) + (x == y) / 2 for x in a for y in b]))
    assert [fast.low, fast.high] == pytest.approx(np.quantile(sample, [0.025, 0.975]), abs=0.08)
    assert fast.low <= fast.value <= fast.high
    assert np.isnan(fast.p)


def test_equal_runs_improve_on_each_other_in_half_of_the_pairs():
    predictions = np.zeros((3, 10), int)
    found = intervals.bootstrap_improvement(np.zeros(10, int), predictions, predictions, classes=2, draws=50)[
        "accuracy"
    ]
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_replicates_of_two_methods_may_be_subtracted():
    rng = np.random.default_rng(5)
    labels, (ours, theirs) = np.repeat([0, 1, 2], [6, 10, 30]), rng.integers(0, 3, (2, 5, 46))
    options = {"classes": 3, "draws": 300, "names": ("a",)}
    a, b = (intervals.replicates(labels, side, **options) for side in (ours, theirs))
    paired = intervals.bootstrap_difference(labels, ours, theirs, **options)
    for name, interval in (a - b).intervals().items():
        assert (interval.value, interval.low, interval.high) == (
            paired[name].value,
            paired[name].low,
            paired[name].high,
        )


def test_replicates_drawn_in_blocks_are_those_drawn_at_once(monkeypatch):
    labels, predictions = np.repeat([0, 1], 20), np.random.default_rng(6).integers(0, 2, (3, 40))
    options = {"classes": 2, "draws": 50, "names": ("blocks",)}
    at_once = intervals.replicates(labels, predictions, **options).drawn["accuracy"]
    monkeypatch.setattr(intervals, "BLOCK", 7 * 3 * 2**2)  # seven draws at a time
    assert np.array_equal(intervals.replicates(labels, predictions, **options).drawn["accuracy"], at_once)


def test_improvement_on_every_draw_is_that_of_a_plain_loop_over_pairs():
    # Ties count half; a seed without a value (NaN) meets nobody.
    ours, theirs = np.array([[0.1, 0.5, np.nan], [0.2, 0.2, 0.9]]), np.array([[0.3, 0.5, 0.7], [0.2, np.nan, 0.1]])
    shares = np.array([[1, 1, 1], [2, 0, 1]]) / 3
    side = [intervals.Replicates({"x": v[0]}, {"x": v}, shares) for v in (ours, theirs)]
    found = side[0].improvements(side[1], level=0.0)["x"]
    expected = []
    for a, b, w in zip(ours, theirs, shares, strict=True):
        known = [(i, j) for i in range(3) for j in range(3) if np.isfinite(a[i]) and np.isfinite(b[j])]
        won = sum(w[i] * w[j] * ((a[i] > b[j]) + (a[i] == b[j]) / 2) for i, j in known)
        expected.append(won / sum(w[i] * w[j] for i, j in known))
    assert found.low == found.high == pytest.approx(np.median(expected))
    assert found.value == pytest.approx(expected[0])


def test_the_p_value_of_a_difference_is_that_of_the_crossed_t_test():
    rng = np.random.default_rng(1)
    labels, (ours, theirs) = np.repeat([0, 1], 40), rng.integers(0, 2, (2, 5, 80))
    exact = intervals.crossed_difference(labels, ours, theirs, classes=2)
    found = intervals.bootstrap_difference(labels, ours, theirs, classes=2, draws=100)
    assert {name: i.p for name, i in found.items()} == {name: i.p for name, i in exact.items()}


def test_unpaired_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        intervals.bootstrap_difference(np.zeros(2, int), np.zeros((2, 2), int), np.zeros((3, 2), int), classes=2)


def test_two_equal_methods_seldom_differ():
    # A/A: five seeds each of one method, whose hits depend on image, seed and chance. 95 % promises 5 % at most.
    rng = np.random.default_rng(11)
    labels, alarms = np.repeat([0, 1], [55, 200]), 0
    for _ in range(200):
        chance = np.clip(rng.beta(2, 1, len(labels)) + rng.normal(0, 0.04, (2, 5, 1)), 0, 1)
        ours, theirs = np.where(rng.random((2, 5, len(labels))) < chance, labels, 1 - labels)
        metric = {"r": intervals.recall_of(0)}
        alarms += not intervals.bootstrap_difference(labels, ours, theirs, metric, classes=2, draws=400)["r"].covers(0)
    assert alarms / 200 <= 0.05


def test_the_coverage_benchmark_simulates_the_recall_and_the_spread_it_names():
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    right, truth = benchmark.hits(np.random.default_rng(0), 2000, (0.65, 0.95), 2000, 0.03)
    assert right.shape == (2, 2000, 2000)
    assert truth.mean(1) == pytest.approx([0.65, 0.95], abs=0.003)
    assert truth.std(1) == pytest.approx([0.03, 0.03], rel=0.1)
    assert right.mean(2) == pytest.approx(truth, abs=0.08)  # 2000 images: standard error .01, common to all trainings


def test_statistics_metrics_and_reports_import_no_torch():
    modules = ["fer_bench.stats.intervals", "fer_bench.stats.scores", "fer_bench.record.ledger", "fer_bench.cli.report"]
    names = [
        "render.markdown",
        "sections.figures",
        "pages.terminal",
        "sections.registry",
        "facts.phrases",
        "pages.across",
    ]
    modules += [f"fer_bench.reports.{name}" for name in names]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

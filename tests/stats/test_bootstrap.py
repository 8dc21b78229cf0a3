"""The crossed bootstrap against closed forms and plain loops over seeds and images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn import metrics as reference

from fer_bench.rng import numpy_generator
from fer_bench.stats import bootstrap
from fer_bench.stats.bootstrap import Draws, bootstrap_difference, replicates
from fer_bench.stats.confusion import SCORES, ClassRecall
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import score_differences
from fer_bench.stats.sampling import Truth, paired

RECALL = {"r": ClassRecall(0)}
MARGINS = {
    f"{margin} {label}": lambda margins, margin=margin, label=label: getattr(margins, margin)[..., label]
    for margin in ("correct", "support", "predicted")
    for label in range(3)
}
"""Scores that are the margins themselves."""
PLAIN = {
    "accuracy": reference.accuracy_score,
    "mean_recall": reference.balanced_accuracy_score,
    "macro_f1": lambda labels, predicted: reference.f1_score(labels, predicted, average="macro"),
}


def truth(labels, clusters=None):
    return Truth(labels=labels, classes=int(labels.max()) + 1 if labels.any() else 2, clusters=clusters)


def test_resampling_keeps_class_sizes_and_shares_images_between_runs():
    labels = np.repeat([0, 1, 2], [3, 5, 9])
    predictions = np.random.default_rng(0).integers(0, 3, size=(2, len(labels)))
    twice = np.concatenate([predictions, predictions[:1]])
    drawn = replicates(truth(labels), twice, MARGINS, Draws(number=50)).drawn
    assert [set(drawn[f"support {c}"].ravel()) for c in range(3)] == [{3}, {5}, {9}]
    assert (sum(drawn[f"predicted {c}"] for c in range(3)) == 17).all()
    for kind in ("correct", "predicted"):
        margins = np.stack([drawn[f"{kind} {c}"] for c in range(3)])
        assert (margins[:, :, 0] == margins[:, :, 2]).all()
        assert (margins[:, :, 0] != margins[:, :, 1]).any()


def test_bootstrap_of_one_seed_has_the_binomial_standard_error():
    # 400 images with recall .7: SE = sqrt(.7 * .3 / 400) = .0229, so the interval is .7 -+ 1.96 * .0229 = .0449
    labels = np.zeros(400, dtype=int)
    predictions = np.where(np.arange(400) < 280, 0, 1)[None]
    interval = replicates(truth(labels), predictions, RECALL, Draws(number=20_000)).intervals()["r"]
    assert interval.value == pytest.approx(0.7)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.0449, abs=0.002)


def test_bootstrap_of_seeds_that_differ_as_wholes_has_their_standard_error():
    # Every seed is right on all images or on none: all spread is between seeds, variance p (1 - p) / S = .24 / 10.
    labels = np.zeros(50, dtype=int)
    predictions = np.repeat((np.arange(10) >= 4).astype(int)[:, None], 50, axis=1)
    interval = replicates(truth(labels), predictions, RECALL, Draws(number=4000)).intervals()["r"]
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.4, 0.1, 0.7))  # binomial(10, .4) quantiles


@pytest.mark.slow
def test_difference_equals_a_plain_loop_over_seeds_and_images():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [4, 6, 10])
    ours, theirs = rng.integers(0, 3, size=(2, 3, len(labels)))
    fast = bootstrap_difference(truth(labels), ours, theirs, draws=Draws(number=3000))
    values = {name: [] for name in SCORES}
    for _ in range(800):
        images = np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in range(3)])
        seeds = rng.integers(0, 3, size=3)
        for name, score in PLAIN.items():
            a, b = (np.mean([score(labels[images], p[s][images]) for s in seeds]) for p in (ours, theirs))
            values[name].append(a - b)
    for name, sample in values.items():
        assert [fast[name].low, fast[name].high] == pytest.approx(np.quantile(sample, [0.025, 0.975]), abs=0.03)


def test_images_are_paired_so_a_common_difficulty_cancels():
    # Both methods miss the same 40 of 100 images; ours gets 5 more. Unpaired, the SE would be .069; paired it is .022.
    labels = np.zeros(100, dtype=int)
    theirs = (np.arange(100) < 40).astype(int)[None]
    ours = (np.arange(100) < 35).astype(int)[None]
    gain = bootstrap_difference(truth(labels), ours, theirs, RECALL)["r"]
    assert gain.value == pytest.approx(0.05)
    assert 0.0 < gain.low < gain.high < 0.11


def test_equal_predictions_have_a_gain_of_exactly_zero():
    predictions = np.random.default_rng(0).integers(0, 3, size=(4, 60))
    labels = np.repeat([0, 1, 2], 20)
    for gain in bootstrap_difference(truth(labels), predictions, predictions, draws=Draws(number=200)).values():
        assert (gain.value, gain.low, gain.high, gain.p) == (0.0, 0.0, 0.0, 1.0)
        assert gain.covers(0.0)


def test_images_that_one_side_has_not_seen_are_left_out_on_both():
    labels = np.array([0, 0, 0, 0])
    ours, theirs = np.array([[0, 0, 1, -1]]), np.array([[0, 1, -1, 0]])
    gain = bootstrap_difference(truth(labels), ours, theirs, RECALL)["r"]
    assert gain.value == pytest.approx(2 / 2 - 1 / 2)  # images 0 and 1 only


def test_the_stream_is_named_so_the_same_call_gives_the_same_interval():
    labels, predictions = np.repeat([0, 1], 30), np.random.default_rng(0).integers(0, 2, size=(3, 60))
    first, again, other = (
        replicates(truth(labels), predictions, draws=Draws(names=(name,))).intervals() for name in ("a", "a", "b")
    )
    assert first == again
    assert first != other
    assert numpy_generator(0, "bootstrap", "a").random() != numpy_generator(0, "bootstrap", "b").random()


def test_an_image_tested_in_several_folds_is_drawn_as_one():
    # 40 images, each tested three times with one answer: the spread is that of 40 images, not of 120.
    right = (np.arange(40) < 28).astype(int)
    labels, predictions = np.zeros(120, int), np.tile(1 - right, 3)[None]
    copies = np.tile(np.arange(40), 3)
    single, together, apart = (
        replicates(test_set, predictions[:, : len(test_set.labels)], RECALL, Draws(number=8000)).intervals()["r"]
        for test_set in (truth(labels[:40]), truth(labels, copies), truth(labels))
    )
    assert (together.value, together.low, together.high) == (single.value, single.low, single.high)
    assert apart.high - apart.low == pytest.approx((single.high - single.low) / 3**0.5, rel=0.15)


def test_people_are_drawn_with_all_their_images_of_every_class():
    # Two people: all right or all wrong. A draw takes (right, right), one of each (half of the draws), (wrong, wrong).
    labels = np.array([0, 0, 1, 0, 1, 1])
    person = np.array(["a", "a", "a", "b", "b", "b"])
    predictions = np.where(person == "a", labels, 1 - labels)[None]
    scores = {name: score for name, score in MARGINS.items() if not name.endswith("2")}
    drawn = replicates(truth(labels, person), predictions, scores, Draws(number=4000)).drawn
    rows = np.stack([drawn[name][:, 0] for name in scores], axis=1)
    # Correct, support, predicted of both classes. Person a: 2, 1 correct of 2, 1; b: 0, 0 of 1, 2, predicted 2, 1.
    assert {tuple(row) for row in rows} == {(4, 2, 4, 2, 4, 2), (2, 1, 3, 3, 4, 2), (0, 0, 2, 4, 4, 2)}
    assert (drawn["correct 0"] == 2).mean() == pytest.approx(0.5, abs=0.03)


def test_clusters_of_one_image_change_nothing():
    rng = np.random.default_rng(4)
    labels, (ours, theirs) = np.repeat([0, 1, 2], [5, 9, 30]), rng.integers(0, 3, (2, 4, 44))
    plain, clustered = (
        bootstrap_difference(test_set, ours, theirs, draws=Draws(number=300))
        for test_set in (truth(labels), truth(labels, np.arange(44)))
    )
    assert clustered == plain


def test_clusters_of_another_length_are_refused():
    with pytest.raises(ValueError, match="shape of the labels"):
        truth(np.zeros(3, int), np.zeros(2))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_the_probability_of_improvement_is_the_mann_whitney_statistic(ours, theirs):
    u = scipy_stats.mannwhitneyu(ours, theirs).statistic
    p = bootstrap.probability_of_improvement(np.array(ours, float), np.array(theirs, float))
    assert p == pytest.approx(u / len(ours) / len(theirs))


@pytest.mark.slow
def test_improvement_has_the_interval_of_a_plain_loop_over_seeds_and_images():
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], [12, 20])
    ours, theirs = np.where(rng.random((2, 4, 32)) < [[[0.75]], [[0.6]]], labels, 1 - labels)
    a, b = (replicates(truth(labels), side, draws=Draws(number=4000)) for side in (ours, theirs))
    fast = a.improvements(b)["mean_recall"]
    sample = []
    for _ in range(800):
        images = np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in (0, 1)])
        seeds = rng.integers(0, 4, size=4)
        a, b = ([PLAIN["mean_recall"](labels[images], p[s][images]) for s in seeds] for p in (ours, theirs))
        sample.append(np.mean([(x > y) + (x == y) / 2 for x in a for y in b]))
    assert [fast.low, fast.high] == pytest.approx(np.quantile(sample, [0.025, 0.975]), abs=0.08)
    assert fast.low <= fast.value <= fast.high
    assert np.isnan(fast.p)


def test_equal_runs_improve_on_each_other_in_half_of_the_pairs():
    predictions = np.zeros((3, 10), int)
    side = replicates(truth(np.zeros(10, int)), predictions, draws=Draws(number=50))
    even = side.improvements(side)["accuracy"]
    assert (even.value, even.low, even.high) == (0.5, 0.5, 0.5)


def test_replicates_of_two_methods_may_be_subtracted():
    rng = np.random.default_rng(5)
    labels, (ours, theirs) = np.repeat([0, 1, 2], [6, 10, 30]), rng.integers(0, 3, (2, 5, 46))
    draws = Draws(number=300, names=("a",))
    a, b = (replicates(truth(labels), side, draws=draws) for side in (ours, theirs))
    expected = bootstrap_difference(truth(labels), ours, theirs, draws=draws)
    for name, gain in (a - b).intervals().items():
        assert (gain.value, gain.low, gain.high) == (expected[name].value, expected[name].low, expected[name].high)


def test_replicates_drawn_in_blocks_are_those_drawn_at_once(monkeypatch):
    labels, predictions = np.repeat([0, 1], 20), np.random.default_rng(6).integers(0, 2, (3, 40))
    draws = Draws(number=50, names=("blocks",))
    at_once = replicates(truth(labels), predictions, draws=draws).drawn["accuracy"]
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * 3 * 2**2)  # seven draws at a time
    assert np.array_equal(replicates(truth(labels), predictions, draws=draws).drawn["accuracy"], at_once)


def test_improvement_on_every_draw_is_that_of_a_plain_loop_over_pairs():
    # Ties count half; a seed without a value (NaN) meets nobody.
    ours, theirs = np.array([[0.1, 0.5, np.nan], [0.2, 0.2, 0.9]]), np.array([[0.3, 0.5, 0.7], [0.2, np.nan, 0.1]])
    shares = np.array([[1, 1, 1], [2, 0, 1]]) / 3
    side = [bootstrap.Replicates({"x": v[0]}, {"x": v}, shares) for v in (ours, theirs)]
    median = side[0].improvements(side[1], level=0.0)["x"]
    expected = []
    for a, b, w in zip(ours, theirs, shares, strict=True):
        known = [(i, j) for i in range(3) for j in range(3) if np.isfinite(a[i]) and np.isfinite(b[j])]
        won = sum(w[i] * w[j] * ((a[i] > b[j]) + (a[i] == b[j]) / 2) for i, j in known)
        expected.append(won / sum(w[i] * w[j] for i, j in known))
    assert median.low == median.high == pytest.approx(np.median(expected))
    assert median.value == pytest.approx(expected[0])


def test_the_p_value_of_a_difference_is_that_of_the_interval_that_reports_print():
    rng = np.random.default_rng(1)
    labels, (ours, theirs) = np.repeat([0, 1], 40), rng.integers(0, 2, (2, 5, 80))
    a, b = (jackknife(truth(labels), side, SCORES) for side in paired(ours, theirs))
    gains = bootstrap_difference(truth(labels), ours, theirs, draws=Draws(number=100))
    assert {name: i.p for name, i in gains.items()} == {name: i.p for name, i in score_differences(a, b).items()}


def test_unpaired_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        bootstrap_difference(truth(np.zeros(2, int)), np.zeros((2, 2), int), np.zeros((3, 2), int))


def test_two_equal_methods_seldom_differ():
    # A/A: five seeds each of one method, whose hits depend on image, seed and chance. 95 % promises 5 % at most.
    rng = np.random.default_rng(11)
    labels, alarms = np.repeat([0, 1], [55, 200]), 0
    for _ in range(200):
        chance = np.clip(rng.beta(2, 1, len(labels)) + rng.normal(0, 0.04, (2, 5, 1)), 0, 1)
        ours, theirs = np.where(rng.random((2, 5, len(labels))) < chance, labels, 1 - labels)
        alarms += not bootstrap_difference(truth(labels), ours, theirs, RECALL, Draws(number=400))["r"].covers(0)
    assert alarms / 200 <= 0.05

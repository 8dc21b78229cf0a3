"""Standard errors over seeds and images against plain loops, the analysis of variance, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fer_bench.stats import confusion, crossed_errors
from fer_bench.stats.bootstrap import Draws, bootstrap_difference
from fer_bench.stats.confusion import ClassRecall, GroupRecall, confusion_matrix
from fer_bench.stats.crossed_errors import combination, jackknife
from fer_bench.stats.intervals import score_differences, t_intervals
from fer_bench.stats.sampling import Truth

RECALL = {"r": ClassRecall(0)}


def truth(labels, classes=2, clusters=None):
    return Truth(labels=labels, classes=classes, clusters=clusters)


def interval_of(labels, predictions, scores=RECALL, clusters=None):
    """The t-intervals of predictions [S, n] of two classes."""
    return t_intervals(jackknife(truth(labels, clusters=clusters), predictions, scores))


def gain_of(labels, ours, reference):
    """The t-interval of the gain in recall of class 0."""
    a, b = (jackknife(truth(labels), side, RECALL) for side in (ours, reference))
    return t_intervals(a - b)["r"]


def left_out_by_hand(labels, ours, reference, score, classes):
    """One plain loop over images: gains by seed, and by class what images do to one seed and to two alike."""
    seeds = len(ours)

    def gains(keep):
        of = lambda answers: score(confusion_matrix(labels[keep], answers[keep], classes))  # noqa: E731
        return np.array([of(a) - of(b) for a, b in zip(ours, reference, strict=True)])

    everything = np.ones(len(labels), bool)
    alone, common = [], []
    for c in np.unique(labels):
        left = []
        for i in np.flatnonzero(labels == c):
            keep = everything.copy()
            keep[i] = False
            left.append(gains(keep))
        n = len(left)
        covariance = (n - 1) / n * (n - 1) * np.cov(np.array(left).T)  # np.cov divides by n - 1
        alone.append(np.trace(covariance) / seeds)
        common.append((covariance.sum() - np.trace(covariance)) / seeds / (seeds - 1))
    return gains(everything), np.array(alone), np.array(common)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["accuracy", "mean_recall", "macro_f1"]))
def test_the_standard_error_and_the_degrees_of_freedom_are_those_of_a_plain_loop_over_images(seed, name):
    rng = np.random.default_rng(seed)
    sizes, seeds = (4, 9, 20), 4
    labels = np.repeat([0, 1, 2], sizes)
    chance = np.clip(rng.beta(2, 1, len(labels)) + rng.normal(0, 0.1, (2, seeds, 1)), 0, 1)
    ours, reference = np.where(rng.random((2, seeds, len(labels))) < chance, labels, (labels + 1) % 3)
    a, b = (jackknife(truth(labels, 3), p, {name: confusion.SCORES[name]}) for p in (ours, reference))
    estimate = (a - b).estimates[name]
    gains, alone, common = left_out_by_hand(labels, ours, reference, confusion.SCORES[name], 3)
    spread, least = gains.var(ddof=1), alone.sum() - common.sum()
    between, images = max(spread, least) / seeds, max(common.sum(), 0)
    of_images = sum(c**2 / (n - 1) for c, n in zip(common, sizes, strict=True))
    assert estimate.value == pytest.approx(gains.mean())
    assert estimate.standard_error == pytest.approx((between + images) ** 0.5)
    assert estimate.var_excess == pytest.approx(between - max(least, 0) / seeds)
    assert estimate.df == pytest.approx((between + images) ** 2 / (between**2 / (seeds - 1) + of_images))


def test_all_of_the_variance_of_seeds_costs_degrees_of_freedom_and_images_explain_some_of_it():
    # Seeds of 20 images whose answers are independent: v = .0125, c = 0. Two of equal value have the variance v / 2.
    estimate = crossed_errors.combine(np.array([0.5, 0.5]), np.array([0.0125]), np.array([0.00625]), np.array([20]))
    assert estimate.standard_error == pytest.approx(0.00625**0.5)
    assert (estimate.df, estimate.var_excess) == (1, 0)
    # Three that are 10 points apart: MS = .01 is below v. At 20 points MS = .04, and .0275 of it is not explained.
    estimate = crossed_errors.combine(
        np.array([0.4, 0.5, 0.6]), np.array([0.0125]), np.array([0.0125 / 3]), np.array([20])
    )
    assert (estimate.standard_error**2, estimate.df, estimate.var_excess) == pytest.approx((0.0125 / 3, 2, 0))
    estimate = crossed_errors.combine(
        np.array([0.3, 0.5, 0.7]), np.array([0.0125]), np.array([0.0125 / 3]), np.array([20])
    )
    assert (estimate.standard_error**2, estimate.df, estimate.var_excess) == pytest.approx((0.04 / 3, 2, 0.0275 / 3))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_an_interval_of_a_difference_is_what_a_plain_loop_over_images_gives(seed):
    rng = np.random.default_rng(seed)
    sizes, seeds = (4, 9, 20), 4
    labels = np.repeat([0, 1, 2], sizes)
    chance = np.clip(rng.beta(2, 1, len(labels)) + rng.normal(0, 0.15, (2, seeds, 1)), 0, 1)
    ours, reference = np.where(rng.random((2, seeds, len(labels))) < chance, labels, (labels + 1) % 3)
    nobody = np.tile((labels + 1) % 3, (seeds, 1))  # all wrong, so that the difference to it is a method's own recall

    def parts(one, other):
        values, alone, common = left_out_by_hand(labels, one, other, confusion.SCORES["mean_recall"], 3)
        explained = max(alone.sum() - common.sum(), 0) / seeds
        between = max(values.var(ddof=1) / seeds, explained)
        doubt = sum(c**2 / (n - 1) for c, n in zip(common, sizes, strict=True))
        return values.mean(), between + max(common.sum(), 0), between, between - explained, doubt

    (a, v_a, s_a, e_a, doubt_a), (b, v_b, s_b, e_b, doubt_b), (gain, v, s, _, doubt) = (
        parts(*pair) for pair in ((ours, nobody), (reference, nobody), (ours, reference))
    )

    def quantile(variance, of_seeds, doubt):
        return scipy_stats.t.ppf(0.975, variance**2 / (of_seeds**2 / (seeds - 1) + doubt))

    def limits(share, variance, t):
        n = 1 + share * (1 - share) / variance
        middle, half = share + t**2 / 2 / n, t * (share * (1 - share) / n + t**2 / 4 / n**2) ** 0.5
        return (middle - half) / (1 + t**2 / n), (middle + half) / (1 + t**2 / n)

    t = quantile(v, min(v, max(s, (e_a**2 + e_b**2) ** 0.5)), doubt)
    (a_low, a_high), (b_low, b_high) = limits(a, v_a, t), limits(b, v_b, t)
    # One image of the smallest class, of 4, is a twelfth of the mean of three recalls.
    k = (max(v, min(1 / 12**2, v_a + v_b)) / (v_a + v_b)) ** 0.5
    down, up = (k * np.hypot(*pair) for pair in ((a - a_low, b_high - b), (a_high - a, b - b_low)))
    sides = (jackknife(truth(labels, 3), p, {"r": confusion.mean_recall}) for p in (ours, reference))
    interval = score_differences(*sides)["r"]
    (a_least, a_most), (b_least, b_most) = (
        limits(share, variance, quantile(variance, of_seeds, doubt))
        for share, variance, of_seeds, doubt in ((a, v_a, s_a, doubt_a), (b, v_b, s_b, doubt_b))
    )
    expected = gain, max(gain - down, a_least - b_most), min(gain + up, a_most - b_least)
    assert (interval.value, interval.low, interval.high) == pytest.approx(expected)


def test_one_seed_owes_all_it_shows_to_its_images():
    estimate = crossed_errors.combine(np.array([0.6]), np.array([0.24 / 54]), np.array([0.24 / 54]), np.array([55]))
    assert (estimate.var_seeds, estimate.var_excess, estimate.var_images) == pytest.approx((0, 0, 0.24 / 54))
    assert estimate.df == pytest.approx(54)


def test_without_a_common_part_it_is_students_test_of_the_seeds():
    gains = np.array([0.05, 0.08, -0.03, 0.09, 0.06])
    estimate = crossed_errors.combine(gains, np.zeros(1), np.zeros(1), np.array([40]))
    expected = scipy_stats.ttest_1samp(gains, 0.0)
    assert (estimate.value, estimate.p) == pytest.approx((gains.mean(), expected.pvalue))
    assert estimate.df == pytest.approx(4)
    assert estimate.limits(0.95) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_seeds_that_answer_alike_give_the_binomial_standard_error():
    # 55 images, 33 right in all five seeds: jackknife variance .6 · .4 / 54, with 54 degrees of freedom.
    labels = np.zeros(55, int)
    predictions = np.tile((np.arange(55) >= 33).astype(int), (5, 1))
    estimate = jackknife(truth(labels), predictions, RECALL).estimates["r"]
    assert (estimate.value, estimate.standard_error, estimate.df) == pytest.approx((0.6, (0.24 / 54) ** 0.5, 54))
    assert (estimate.var_seeds, estimate.var_images) == pytest.approx((0.0, 0.24 / 54))


def test_one_seed_has_the_error_of_its_images():
    labels, predictions = np.zeros(55, int), (np.arange(55) >= 33).astype(int)[None]
    interval = interval_of(labels, predictions)["r"]
    half = scipy_stats.t.ppf(0.975, 54) * (0.24 / 54) ** 0.5
    assert (interval.low, interval.high) == pytest.approx((0.6 - half, 0.6 + half))


def test_two_seeds_that_agree_by_chance_still_have_a_wide_interval():
    # Both seeds have half of the images right, but different halves: their values agree, one image alone says 1/19.
    labels = np.zeros(20, int)
    predictions = np.stack([np.arange(20) % 2, 1 - np.arange(20) % 2])
    interval = interval_of(labels, predictions)["r"]
    assert interval.high - interval.low > 0.3


def test_what_never_varies_has_neither_limits_nor_a_p_value():
    # One image, always gained: nothing tells how far that is chance.
    labels, ours, reference = np.zeros(1, int), np.zeros((5, 1), int), np.ones((5, 1), int)
    gain = gain_of(labels, ours, reference)
    assert gain.value == 1.0
    assert np.isnan([gain.low, gain.high, gain.p]).all()
    same = gain_of(labels, ours, ours)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_seeds_without_a_value_are_left_out():
    labels = np.array([0, 0, 0, 0, 1, 1])
    predictions = np.array([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [-1, -1, -1, -1, 1, 1]])
    all_four, three, nothing = (interval_of(labels, p)["r"] for p in (predictions, predictions[:3], predictions[3:]))
    assert (all_four.value, all_four.low, all_four.high) == pytest.approx((three.value, three.low, three.high))
    assert not nothing.known


def test_an_image_tested_several_times_counts_once():
    rng = np.random.default_rng(0)
    labels, predictions = np.repeat([0, 1], 15), rng.integers(0, 2, (4, 30))
    once = interval_of(labels, predictions, confusion.SCORES)
    copies = np.tile(np.arange(30), 3)
    thrice = interval_of(np.tile(labels, 3), np.tile(predictions, 3), confusion.SCORES, copies)
    for name, interval in once.items():
        assert (thrice[name].low, thrice[name].high) == pytest.approx((interval.low, interval.high))


def test_images_are_left_out_as_if_they_had_never_been_there():
    rng = np.random.default_rng(2)
    labels, runs = np.repeat([0, 1, 2], [5, 9, 14]), rng.integers(-1, 3, (4, 28))
    scores = {"macro_f1": confusion.macro_f1, "mean_recall": confusion.mean_recall, "recall": ClassRecall(1)}
    for clusters in (None, np.arange(28)[::-1], np.repeat(np.arange(14), 2)):
        sample = jackknife(truth(labels, 3, clusters), runs, scores)
        if clusters is None or len(np.unique(clusters)) == 28:
            units = [[[i] for i in np.flatnonzero(labels == c)] for c in range(3)]
        else:
            units = [[np.flatnonzero(clusters == u) for u in np.unique(clusters)]]
        assert sample.units == tuple(len(of) for of in units)
        for name, score in scores.items():
            for stratum, of in enumerate(units):
                left = sample.left_out[name].get(stratum, sample.values[name])  # it does not depend on other strata
                by_hand = np.array(
                    [score(confusion_matrix(np.delete(labels, i), np.delete(runs, i, axis=1), 3)) for i in of]
                )
                order = np.lexsort(by_hand.T)
                ours = np.broadcast_to(left, by_hand.shape)
                assert ours[np.lexsort(ours.T)] == pytest.approx(by_hand[order], nan_ok=True)


def test_people_are_left_out_with_all_their_images():
    # Jackknife over four people with 2, 2, 1, 1 images and 2, 0, 1, 0 hits: accuracies without each 1/4, 3/4, 2/5, 3/5.
    labels = np.array([0, 1, 0, 1, 0, 1])
    person = np.array([0, 0, 1, 1, 2, 3])
    predictions = np.where(np.isin(person, [0, 2]), labels, 1 - labels)[None]
    estimate = jackknife(truth(labels, clusters=person), predictions, {"a": confusion.accuracy}).estimates["a"]
    left = np.array([1 / 4, 3 / 4, 2 / 5, 3 / 5])
    assert estimate.standard_error == pytest.approx((3 / 4 * ((left - left.mean()) ** 2).sum()) ** 0.5)


@pytest.mark.slow
def test_intervals_of_a_gain_cover_it_in_19_of_20_studies_where_the_percentile_bootstrap_does_not():
    # 600 images that all fare alike and three trainings that differ by 10 points: only trainings matter.
    rng = np.random.default_rng(7)
    labels = np.zeros(600, int)
    covered = np.zeros(2)
    for _ in range(300):
        right = rng.random((2, 3, 600)) < 0.6 + 0.10 * rng.normal(size=(2, 3, 1))
        ours, reference = 1 - right.astype(int)
        covered += [
            gain_of(labels, ours, reference).covers(),
            bootstrap_difference(truth(labels), ours, reference, RECALL, Draws(number=200))["r"].covers(),
        ]
    assert covered[0] / 300 == pytest.approx(0.95, abs=0.03)
    assert covered[1] / 300 < 0.85


def test_the_images_that_a_metric_rests_on_are_found_by_changing_one_answer():
    # 3 angry, 5 sad and 9 happy images, all right: nothing varies, so only what a changed answer would do tells.
    labels = np.repeat([0, 1, 2], [3, 5, 9])
    # One of 3 angry images is a ninth of the mean of three recalls: as if there were nine that count alike.
    scores = {"sad": ClassRecall(1), "two": GroupRecall((1, 2)), "all": confusion.mean_recall}
    scores["accuracy"] = confusion.accuracy
    for predictions in (labels, np.roll(labels, 9)):
        assert jackknife(truth(labels, 3), predictions[None], scores).effective_units == {
            "sad": 5,
            "two": 10,
            "all": 9,
            "accuracy": 17,
        }
    people = np.repeat([0, 1, 2, 3, 4], [3, 2, 3, 5, 4])  # angry: one person; sad and happy: two each
    effective = jackknife(truth(labels, 3, people), labels[None], scores).effective_units
    assert effective == pytest.approx({"sad": 2, "two": 4, "all": 3, "accuracy": 1 / (9 / 17 / 2)})
    everybody = np.arange(17) % 3  # three people show every class, so nothing rests on more than three
    assert set(jackknife(truth(labels, 3, everybody), labels[None], scores).effective_units.values()) == {3}


def test_a_contrast_of_several_samples_is_that_of_their_values_with_and_without_each_unit():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], 30)
    samples = [
        jackknife(truth(labels), np.where(rng.random((3, 60)) < p, labels, 1 - labels), RECALL) for p in (0.5, 0.7, 0.9)
    ]
    slope = combination(samples, [-1, 0, 1])
    plain = samples[2] - samples[0]
    assert t_intervals(slope)["r"] == t_intervals(plain)["r"]
    doubled = t_intervals(combination(samples, [-2, 0, 2]))["r"]
    assert (doubled.value, doubled.low) == pytest.approx(
        (2 * t_intervals(plain)["r"].value, 2 * t_intervals(plain)["r"].low)
    )
    assert doubled.p == pytest.approx(t_intervals(plain)["r"].p)


def test_samples_of_other_trainings_or_units_make_no_contrast():
    labels = np.repeat([0, 1], 30)
    three, two = (jackknife(truth(labels), np.tile(labels, (seeds, 1)), RECALL) for seeds in (3, 2))
    fewer = jackknife(truth(labels[5:]), np.tile(labels[5:], (3, 1)), RECALL)
    for other in (two, fewer):
        with pytest.raises(ValueError, match="differ in their trainings or in their sampling units"):
            combination([three, other], [1, -1])
    with pytest.raises(ValueError, match="2 samples and 1 weights"):
        combination([three, three], [1])

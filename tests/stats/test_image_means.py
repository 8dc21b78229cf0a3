"""Means over images of numbers between 0 and 1: what other images and seeds would have given."""

from __future__ import annotations

import numpy as np
import pytest

from fer_bench.stats.confusion import accuracy
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.image_means import jackknife_of_means
from fer_bench.stats.intervals import score_differences, score_intervals
from fer_bench.stats.sampling import Truth


def test_mean_and_its_error_for_one_seed_by_hand():
    truth = Truth(labels=np.zeros(4, dtype=int), classes=2)
    sample = jackknife_of_means(truth, {"share": np.array([[0.0, 0.5, 0.5, 1.0]])})
    estimate = sample.estimates["share"]
    assert estimate.value == 0.5
    # variance of the mean: sample variance (0.25 + 0 + 0 + 0.25) / 3 over 4 images
    assert estimate.standard_error**2 == pytest.approx(0.5 / 3 / 4)
    assert sample.left_out["share"][0][:, 0] == pytest.approx([2 / 3, 0.5, 0.5, 1 / 3])


def test_classes_are_strata_so_differences_between_them_add_nothing():
    truth = Truth(labels=np.array([0, 0, 1, 1]), classes=2)
    sample = jackknife_of_means(truth, {"share": np.array([[0.2, 0.2, 0.9, 0.9]])})
    assert sample.estimates["share"].value == pytest.approx(0.55)
    # leaving out any image moves the mean within its class by the same amount, so nothing varies
    assert sample.estimates["share"].standard_error == 0.0
    assert sample.effective_units["share"] == 4


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("unseen", [0, 30])
def test_values_of_0_and_1_are_an_accuracy(clustered, unseen):
    """Against the jackknife of confusion matrices, which leaves out units of other sums."""
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [20, 50, 80])
    clusters = rng.integers(0, 40, 150) if clustered else None
    truth = Truth(labels=labels, classes=3, clusters=clusters)
    sides = []
    for share in (0.8, 0.6):
        predictions = np.where(rng.random((4, 150)) < share, labels, (labels + 1) % 3)
        predictions[:, 150 - unseen :] = -1
        hits = np.where(predictions < 0, np.nan, predictions == labels)
        sides.append((jackknife_of_means(truth, {"a": hits}), jackknife(truth, predictions, {"a": accuracy})))
    for ours, theirs in sides:
        assert ours.estimates["a"].standard_error == pytest.approx(theirs.estimates["a"].standard_error)
        same = score_intervals(ours)["a"], score_intervals(theirs)["a"]
        assert [same[0].value, same[0].low, same[0].high] == pytest.approx([same[1].value, same[1].low, same[1].high])
    gains = [score_differences(sides[0][k], sides[1][k])["a"] for k in (0, 1)]
    assert [gains[0].low, gains[0].high, gains[0].p] == pytest.approx([gains[1].low, gains[1].high, gains[1].p])


def test_subsets_of_the_training_images_are_a_third_source_of_variance():
    """Against the jackknife of confusion matrices, which leaves out units of other sums."""
    rng = np.random.default_rng(7)
    labels, subsets = np.repeat([0, 1], [30, 60]), np.repeat([0, 1, 2], 2)
    truth = Truth(labels=labels, classes=2)
    rates = np.repeat([0.6, 0.7, 0.9], 2)[:, None]
    predictions = np.where(rng.random((6, 90)) < rates, labels, 1 - labels)
    ours = jackknife_of_means(truth, {"a": (predictions == labels).astype(float)}, subsets)
    theirs = jackknife(truth, predictions, {"a": accuracy}, subsets)
    same = score_intervals(ours)["a"], score_intervals(theirs)["a"]
    assert [same[0].low, same[0].high] == pytest.approx([same[1].low, same[1].high])
    without = score_intervals(jackknife_of_means(truth, {"a": (predictions == labels).astype(float)}))["a"]
    assert same[0].high - same[0].low > without.high - without.low


def test_images_that_a_seed_has_not_seen_do_not_count():
    truth = Truth(labels=np.zeros(3, dtype=int), classes=2)
    sample = jackknife_of_means(truth, {"share": np.array([[0.5, 1.0, np.nan], [0.0, 0.5, 1.0]])})
    assert sample.values["share"].tolist() == [0.75, 0.5]


def test_images_of_one_cluster_are_left_out_together():
    truth = Truth(labels=np.array([0, 1, 0]), classes=2, clusters=np.array([7, 7, 9]))
    sample = jackknife_of_means(truth, {"share": np.array([[0.0, 0.5, 1.0]])})
    assert sample.units == (2,)
    assert sample.left_out["share"][0][:, 0].tolist() == [1.0, 0.25]
    assert not sample.units_are_images

"""The jackknife of areas under ROC curves, against leaving out units one by one."""

import numpy as np
import pytest

from fer_bench.stats.auroc_errors import AUROC, jackknife_of_auroc
from fer_bench.stats.intervals import t_intervals
from fer_bench.stats.probabilities import auroc
from fer_bench.stats.sampling import Truth

LABELS = np.repeat([0, 1, 2], (9, 4, 6))


def some_logits(trainings=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(trainings, len(LABELS), 3)) + 1.5 * np.eye(3)[LABELS]
    return np.round(logits, 1)  # so that some are tied


def brute_force(logits, kept, classes):
    """Mean area of the classes without some images, computed anew."""
    return auroc(logits[:, kept], LABELS[kept])[:, classes].mean(1)


@pytest.mark.parametrize("classes", [[1], [1, 2]])
def test_areas_without_each_image_are_those_computed_anew(classes):
    logits = some_logits()
    sample = jackknife_of_auroc(Truth(labels=LABELS, classes=3), logits, classes)
    assert sample.values[AUROC] == pytest.approx(auroc(logits, LABELS)[:, classes].mean(1))
    assert (sample.units, sample.units_are_images) == ((9, 4, 6), True)
    for stratum in range(3):
        images = np.flatnonzero(stratum == LABELS)
        anew = [brute_force(logits, np.arange(len(LABELS)) != i, classes) for i in images]
        assert sample.left_out[AUROC][stratum] == pytest.approx(np.array(anew))


def test_units_of_several_images_and_classes_are_left_out_whole():
    clusters = np.arange(len(LABELS)) % 7  # each holds images of several classes
    logits = some_logits(2, seed=1)
    sample = jackknife_of_auroc(Truth(labels=LABELS, classes=3, clusters=clusters), logits, [1, 2])
    anew = [brute_force(logits, clusters != unit, [1, 2]) for unit in range(7)]
    assert (sample.units, sample.units_are_images) == ((7,), False)
    assert sample.left_out[AUROC][0] == pytest.approx(np.array(anew))


def test_images_that_a_training_has_not_seen_do_not_count():
    logits = some_logits(2, seed=2)
    logits[0, [2, 10]] = np.nan
    sample = jackknife_of_auroc(Truth(labels=LABELS, classes=3), logits, [1])
    seen = np.delete(np.arange(len(LABELS)), [2, 10])
    assert sample.values[AUROC][0] == pytest.approx(brute_force(logits, seen, [1])[0])
    assert sample.left_out[AUROC][0][2, 0] == pytest.approx(sample.values[AUROC][0])
    without = brute_force(logits, np.setdiff1d(seen, [0]), [1])[0]
    assert sample.left_out[AUROC][0][0, 0] == pytest.approx(without)


def test_a_shift_of_the_decision_moves_no_area_and_one_by_hand():
    logits = some_logits(2, seed=3)
    truth = Truth(labels=LABELS, classes=3)
    one, other = (jackknife_of_auroc(truth, of, [1]) for of in (logits + np.array([0, 2.5, 0]), logits))
    difference = t_intervals(one - other)[AUROC]
    assert (difference.value, difference.low, difference.high) == pytest.approx((0, 0, 0))
    # Two images of class 1 at log-odds 3 and 1, three others at 2, 1 and 0: 3 + 1.5 of 6 pairs are in order.
    odds = np.array([3.0, 1.0, 2.0, 1.0, 0.0])
    tiny = jackknife_of_auroc(
        Truth(labels=np.array([1, 1, 0, 0, 0]), classes=2), np.stack([0 * odds, odds], 1)[None], [1]
    )
    assert tiny.values[AUROC] == pytest.approx([4.5 / 6])
    assert tiny.left_out[AUROC][1][:, 0] == pytest.approx([1.5 / 3, 1.0])
    assert tiny.left_out[AUROC][0][:, 0] == pytest.approx([3.5 / 4, 3 / 4, 2.5 / 4])

"""Tests against answers that ignore the image: values by hand, and their level where there is no effect."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from fer_bench.stats.chance import against_chance, guess_accuracy
from fer_bench.stats.confusion import SCORES
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import holm
from fer_bench.stats.sampling import Truth

LABELS = np.repeat([0, 1, 2], [50, 20, 100])


def measured(predictions, labels=LABELS, classes=3, clusters=None, permutations=499):
    predictions = np.atleast_2d(predictions)
    truth = Truth(labels=labels, classes=classes, clusters=clusters)
    return against_chance(jackknife(truth, predictions, SCORES), truth, predictions, permutations)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_one_answer_to_everything_has_collapsed_and_is_at_chance(seeds):
    chance = measured(np.full((seeds, 170), 1))
    assert (chance.mean_recall.value, chance.mean_recall.baseline) == pytest.approx((1 / 3, 1 / 3))
    assert (chance.accuracy.value, chance.accuracy.baseline) == pytest.approx((20 / 170, 100 / 170))
    assert (chance.mean_recall.p, chance.accuracy.p) == (1.0, 1.0)
    assert not chance.above
    assert chance.collapsed.tolist() == [True] * seeds
    assert chance.collapsed_into == {1}


def test_the_best_constant_answer_is_not_better_than_itself():
    chance = measured(np.full(170, 2))
    assert chance.accuracy.value == chance.accuracy.baseline
    assert chance.accuracy.p == 1.0  # one half, twice by Holm
    assert not chance.above


def test_guessing_is_at_chance_and_has_not_collapsed():
    guessed = np.random.default_rng(0).choice(3, size=(5, 170), p=[0.24, 0.03, 0.73])
    chance = measured(guessed)
    assert not chance.above
    assert not chance.collapsed.any()


def test_a_classifier_that_sees_something_is_above_chance():
    rng = np.random.default_rng(1)
    chance = measured(np.where(rng.random((2, 170)) < 0.5, LABELS, rng.integers(0, 3, (2, 170))))
    assert chance.above
    assert chance.mean_recall.significant


def test_the_shares_of_answers_weigh_every_class_alike():
    # Nothing of 96 other images is called smile, and one of 4 smiles is missed: 25 % and 100 % are "other".
    labels = np.repeat([0, 1], [4, 96])
    chance = measured(np.where(np.arange(100) < 3, 0, 1), labels, 2)
    assert chance.dominant_share.tolist() == pytest.approx([(0.25 + 1) / 2])
    assert not chance.collapsed.any()
    # One of 4 smiles is found: 75 % and 100 %, so 87.5 %; none of 4 and all but 9 of 96: 95.3 %.
    assert not measured(np.where(np.arange(100) < 1, 0, 1), labels, 2).collapsed.any()
    assert measured(np.where(np.arange(100) > 90, 0, 1), labels, 2).collapsed.all()


def test_of_two_trainings_one_may_have_collapsed():
    chance = measured(np.stack([LABELS, np.full(170, 1)]))
    assert chance.collapsed.tolist() == [False, True]
    assert chance.collapsed_into == {1}
    assert chance.above


def test_shuffling_counts_the_orders_that_agree_as_well():
    # Six images of three classes, recalls 1, 1/2, 1/2; of all 6! orders of the labels, how many do as well?
    labels, answers = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 0])
    orders = np.array(list(itertools.permutations(labels)))
    as_good = [np.mean([(answers[o == c] == c).mean() for c in range(3)]) > 2 / 3 - 1e-9 for o in orders]
    variance = 2 * 0.25 / 5**2  # of the accuracy, by the jackknife: (n_c - 1) r_c (1 - r_c) / (n - 1)² of each class
    z = (4 / 6 - 1 / 3) / np.sqrt((2 / 9) / (1 + (2 / 9) / variance))
    both = holm([np.mean(as_good), scipy_stats.t.sf(z, 2)])  # V² / (2 (V / 2)² / 1) = 2 degrees of freedom
    chance = measured(answers, labels, permutations=4999)
    assert (chance.mean_recall.p, chance.accuracy.p) == pytest.approx(tuple(both), abs=0.02)


def test_accuracy_against_the_best_constant_is_a_score_test():
    # One training, 80 of 100 and 35 of 50 right; the best constant answer has 2/3.
    labels = np.repeat([0, 1], [100, 50])
    chance = measured(np.concatenate([np.arange(100) >= 80, np.arange(50) < 35]).astype(int), labels, 2)
    parts = np.array([99 * 0.8 * 0.2, 49 * 0.7 * 0.3]) / 149**2  # variance by class, by the jackknife
    df = parts.sum() ** 2 / (parts**2 / [99, 49]).sum()
    share = 115 / 150
    z = (share - 2 / 3) / np.sqrt((2 / 9) / (1 + share * (1 - share) / parts.sum()))
    assert chance.mean_recall.p == pytest.approx(2 / 500)  # no order does as well
    assert chance.accuracy.p == pytest.approx(scipy_stats.t.sf(z, df))


def test_the_test_keeps_its_level_for_a_rare_class_and_for_trainings_that_answer_alike():
    # Two of 62 images are of class 1; guesses by shares, the same guesses in all three trainings, look better in one
    # study of twenty at most, though a single hit moves the mean recall by 17 points.
    labels, rng = np.repeat([0, 1, 2], [30, 2, 30]), np.random.default_rng(3)
    alarms = [
        measured(np.tile(rng.choice(3, size=62, p=[0.48, 0.04, 0.48]), (3, 1)), labels, permutations=99).above
        for _ in range(200)
    ]
    assert np.mean(alarms) <= 0.08


def test_answers_that_tell_people_apart_and_not_expressions_gain_nothing_by_it():
    # Each of 20 people has 5 images, mostly of an expression of its own, and one answer. Shuffled within people.
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 5)
    labels = np.where(rng.random(100) < 0.8, people % 2, 1 - people % 2)
    assert measured(people % 2, labels, 2, people).mean_recall.p == 1
    assert measured(people % 2, labels, 2).mean_recall.p < 0.01


def test_copies_of_an_image_are_shuffled_as_one():
    # Three images of each class, ten copies each: 4 of 6 right is what one order of ten gives, not one in a million.
    labels, image = np.repeat([0, 1], 30), np.repeat(np.arange(6), 10)
    answers = np.repeat([0, 0, 1, 1, 1, 0], 10)
    assert measured(answers, labels, 2, image).mean_recall.p > 0.4
    assert measured(answers, labels, 2).mean_recall.p < 0.05


@pytest.mark.parametrize("labels", [np.zeros(8, int), np.full(8, 2)])
def test_one_class_with_test_images_tells_nothing(labels):
    chance = measured(labels, labels)
    assert not chance.testable
    assert chance.above
    assert not chance.collapsed.any()


def test_folds_that_a_training_lacks_are_left_out():
    predictions = np.stack([LABELS, np.where(np.arange(170) < 70, LABELS, -1)])  # the second has seen no happy image
    chance = measured(predictions)
    assert chance.mean_recall.baseline == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert chance.accuracy.baseline == pytest.approx((100 / 170 + 50 / 70) / 2)


def test_what_a_guess_accuracy_the_shares_of_training_is_expected_to_hit():
    assert guess_accuracy(np.array([300, 100]), np.array([10, 30])) == pytest.approx(0.75 * 0.25 + 0.25 * 0.75)

"""Scores of confusion matrices against scikit-learn, and by hand where it differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn import metrics as reference

from fer_bench.stats import class_groups, confusion


@st.composite
def predictions(draw):
    classes = draw(st.integers(2, 8))
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, size=40)])  # every class occurs
    return classes, labels, rng.integers(0, classes, size=len(labels))


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_scores_of_one_matrix_agree_with_scikit_learn(case):
    classes, labels, predicted = case
    matrix = confusion.confusion_matrix(labels, predicted, classes)
    shared = {"average": None, "zero_division": 0, "labels": range(classes)}
    assert (matrix == reference.confusion_matrix(labels, predicted, labels=range(classes))).all()
    assert confusion.recalls(matrix) == pytest.approx(reference.recall_score(labels, predicted, **shared))
    assert confusion.precisions(matrix) == pytest.approx(reference.precision_score(labels, predicted, **shared))
    assert confusion.f1_scores(matrix) == pytest.approx(reference.f1_score(labels, predicted, **shared))
    assert confusion.accuracy(matrix) == pytest.approx(reference.accuracy_score(labels, predicted))
    assert confusion.mean_recall(matrix) == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert confusion.macro_f1(matrix) == pytest.approx(reference.f1_score(labels, predicted, average="macro"))


def test_the_scores_of_a_small_matrix_are_those_computed_by_hand():
    # truth 0: 3 right, 1 taken for 1; truth 1: 1 right, 1 taken for 0; class 2 never occurs and is never predicted
    matrix = confusion.confusion_matrix(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert confusion.recalls(matrix)[:2].tolist() == [0.75, 0.5]
    assert np.isnan(confusion.recalls(matrix)[2])
    assert confusion.mean_recall(matrix) == pytest.approx((0.75 + 0.5) / 2)
    assert confusion.accuracy(matrix) == pytest.approx(4 / 6)
    assert confusion.macro_f1(matrix) == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert confusion.precisions(matrix)[2] == 0


def test_small_integer_labels_do_not_overflow():
    labels = np.full(10, 200, dtype=np.uint8)
    assert confusion.confusion_matrix(labels, labels, 201)[200, 200] == 10


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_scores_of_one_matrix_and_of_a_stack_are_those_of_plain_numpy_to_the_last_bit(seed, classes):
    # A training's history and its record must not change by a bit, whatever shape the scores are computed in.
    rng = np.random.default_rng(seed)
    labels, runs = rng.integers(0, classes, 30), rng.integers(0, classes, (3, 30))  # some classes are absent
    matrices = confusion.confusion_matrix(labels, runs, classes)
    for run, matrix in zip(runs, matrices, strict=True):
        assert matrix.dtype == np.int64
        assert (confusion.confusion_matrix(labels, run, classes) == matrix).all()
        hits, support, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        with np.errstate(invalid="ignore"):
            recalls, f1 = hits / support, 2 * hits / (support + predicted)
        np.testing.assert_array_equal(confusion.recalls(matrix), recalls)
        expected = {"accuracy": hits.sum() / 30, "mean_recall": np.nanmean(recalls), "macro_f1": np.nanmean(f1)}
        assert {name: float(score(matrix)) for name, score in confusion.SCORES.items()} == expected
    for score in confusion.SCORES.values():
        assert score(matrices).tolist() == [float(score(matrix)) for matrix in matrices]


def test_images_that_a_run_has_not_seen_are_left_out():
    labels, predictions = np.array([0, 0, 1, 1]), np.array([[0, -1, 1, 0], [-1, -1, -1, 1]])
    assert confusion.confusion_matrix(labels, predictions, 2).tolist() == [[[1, 0], [1, 1]], [[0, 0], [0, 1]]]
    assert confusion.mean_confusion_matrix(labels, predictions, 2).tolist() == [[0.5, 0.0], [0.5, 1.0]]
    margins = confusion.Margins.count(labels, predictions, 2)
    assert margins.correct.tolist() == [[1, 1], [0, 1]]
    assert margins.support.tolist() == [[1, 2], [0, 1]]
    assert margins.predicted.tolist() == [[2, 1], [0, 1]]


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_scores_of_a_stack_agree_with_scikit_learn_run_by_run(case):
    classes, labels, predicted = case
    runs = np.stack([predicted, labels])
    matrices = confusion.confusion_matrix(labels, runs, classes)
    shared = {"average": None, "zero_division": 0, "labels": range(classes)}
    for run, precision, f1 in zip(runs, confusion.precisions(matrices), confusion.f1_scores(matrices), strict=True):
        assert precision == pytest.approx(reference.precision_score(labels, run, **shared))
        assert f1 == pytest.approx(reference.f1_score(labels, run, **shared))
    recall = reference.recall_score(labels, predicted, **shared)
    assert confusion.geometric_mean(matrices) == pytest.approx([scipy_stats.gmean(recall), 1.0])
    assert confusion.worst_recall(matrices) == pytest.approx([recall.min(), 1.0])
    assert confusion.GroupRecall((0, 1))(matrices) == pytest.approx([recall[:2].mean(), 1.0])


def test_recall_of_a_group_leaves_out_classes_without_images():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert confusion.GroupRecall((0, 1, 2))(matrix) == pytest.approx((0.75 + 0.5) / 2)


def test_classes_without_images_leave_the_geometric_mean_and_the_worst_class_alone():
    matrix = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    assert confusion.geometric_mean(matrix) == pytest.approx((0.75 * 0.5) ** 0.5)
    assert confusion.worst_recall(matrix) == 0.5
    assert np.isnan(confusion.worst_recall(np.zeros((2, 2))))
    assert np.isnan(confusion.geometric_mean(np.zeros((2, 2))))


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_scores_under_another_prior_are_scikit_learns_with_sample_weights(case):
    classes, labels, predicted = case
    matrices = confusion.confusion_matrix(labels, predicted[None], classes)
    prior = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    weights = prior[labels] / np.bincount(labels)[labels]
    expected = confusion.under_prior(matrices, prior)
    assert expected.sum() == pytest.approx(1)
    assert confusion.accuracy(expected)[0] == pytest.approx(
        reference.accuracy_score(labels, predicted, sample_weight=weights)
    )
    f1 = reference.f1_score(labels, predicted, sample_weight=weights, average="macro")
    assert confusion.macro_f1(expected)[0] == pytest.approx(f1)
    assert confusion.recalls(expected) == pytest.approx(confusion.recalls(matrices))
    uniform = confusion.under_prior(matrices, np.full(classes, 1 / classes))
    assert confusion.accuracy(uniform) == pytest.approx(confusion.mean_recall(matrices))


def test_a_prior_leaves_out_classes_without_images():
    matrix = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    # Shares .5 and .3 become .625 and .375: accuracy .625 · .75 + .375 · .5
    assert confusion.accuracy(confusion.under_prior(matrix, np.array([0.5, 0.3, 0.2]))) == pytest.approx(0.65625)


def test_shifted_priors_fall_from_the_most_to_the_least_frequent_class():
    forward = class_groups.shifted_prior(np.array([100, 900, 300]), 4)
    assert forward == pytest.approx(np.array([0.25, 1.0, 0.5]) / 1.75)
    assert class_groups.shifted_prior(np.array([100, 900, 300]), 1 / 4) == pytest.approx(
        np.array([1.0, 0.25, 0.5]) / 1.75
    )
    assert class_groups.shifted_prior(np.array([5, 5, 5]), 1) == pytest.approx([1 / 3] * 3)

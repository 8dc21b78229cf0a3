"""Metrics against scikit-learn, and by hand where it differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from fer_bench import metrics


@st.composite
def predictions(draw):
    classes = draw(st.integers(2, 8))
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, size=40)])  # every class occurs
    return classes, labels, rng.integers(0, classes, size=len(labels))


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_every_metric_agrees_with_scikit_learn(case):
    classes, labels, predicted = case
    matrix = metrics.confusion(labels, predicted, classes)
    shared = {"average": None, "zero_division": 0, "labels": range(classes)}
    assert (matrix == reference.confusion_matrix(labels, predicted, labels=range(classes))).all()
    assert metrics.recalls(matrix) == pytest.approx(reference.recall_score(labels, predicted, **shared))
    assert metrics.precisions(matrix) == pytest.approx(reference.precision_score(labels, predicted, **shared))
    assert metrics.f1_scores(matrix) == pytest.approx(reference.f1_score(labels, predicted, **shared))
    assert metrics.accuracy(matrix) == pytest.approx(reference.accuracy_score(labels, predicted))
    assert metrics.mean_recall(matrix) == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert metrics.macro_f1(matrix) == pytest.approx(reference.f1_score(labels, predicted, average="macro"))


def test_the_scores_of_a_small_matrix_are_those_computed_by_hand():
    # truth 0: 3 right, 1 taken for 1; truth 1: 1 right, 1 taken for 0; class 2 never occurs and is never predicted
    matrix = metrics.confusion(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert metrics.recalls(matrix)[:2].tolist() == [0.75, 0.5]
    assert np.isnan(metrics.recalls(matrix)[2])
    assert metrics.mean_recall(matrix) == pytest.approx((0.75 + 0.5) / 2)
    assert metrics.accuracy(matrix) == pytest.approx(4 / 6)
    assert metrics.macro_f1(matrix) == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert metrics.precisions(matrix)[2] == 0


def test_small_integer_labels_do_not_overflow():
    labels = np.full(10, 200, dtype=np.uint8)
    assert metrics.confusion(labels, labels, 201)[200, 200] == 10

"""Metrics against scikit-learn, and by hand where it differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn import metrics as reference

from fer_bench.stats import class_groups, confusion, probabilities, scores


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
    matrix = scores.confusion(labels, predicted, classes)
    shared = {"average": None, "zero_division": 0, "labels": range(classes)}
    assert (matrix == reference.confusion_matrix(labels, predicted, labels=range(classes))).all()
    assert scores.recalls(matrix) == pytest.approx(reference.recall_score(labels, predicted, **shared))
    assert scores.precisions(matrix) == pytest.approx(reference.precision_score(labels, predicted, **shared))
    assert scores.f1_scores(matrix) == pytest.approx(reference.f1_score(labels, predicted, **shared))
    assert scores.accuracy(matrix) == pytest.approx(reference.accuracy_score(labels, predicted))
    assert scores.mean_recall(matrix) == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert scores.macro_f1(matrix) == pytest.approx(reference.f1_score(labels, predicted, average="macro"))


def test_the_scores_of_a_small_matrix_are_those_computed_by_hand():
    # truth 0: 3 right, 1 taken for 1; truth 1: 1 right, 1 taken for 0; class 2 never occurs and is never predicted
    matrix = scores.confusion(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert scores.recalls(matrix)[:2].tolist() == [0.75, 0.5]
    assert np.isnan(scores.recalls(matrix)[2])
    assert scores.mean_recall(matrix) == pytest.approx((0.75 + 0.5) / 2)
    assert scores.accuracy(matrix) == pytest.approx(4 / 6)
    assert scores.macro_f1(matrix) == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert scores.precisions(matrix)[2] == 0


def test_small_integer_labels_do_not_overflow():
    labels = np.full(10, 200, dtype=np.uint8)
    assert scores.confusion(labels, labels, 201)[200, 200] == 10


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_stacks_give_every_run_the_numbers_of_scikit_learn(case):
    classes, labels, predicted = case
    runs = np.stack([predicted, labels])
    matrices = confusion.confusions(labels, runs, classes)
    shared = {"average": None, "zero_division": 0, "labels": range(classes)}
    for run, precision, f1 in zip(runs, confusion.precisions(matrices), confusion.f1_scores(matrices), strict=True):
        assert precision == pytest.approx(reference.precision_score(labels, run, **shared))
        assert f1 == pytest.approx(reference.f1_score(labels, run, **shared))
    recall = reference.recall_score(labels, predicted, **shared)
    assert confusion.geometric_mean(matrices) == pytest.approx([scipy_stats.gmean(recall), 1.0])
    assert confusion.worst_recall(matrices) == pytest.approx([recall.min(), 1.0])
    assert confusion.group_recall((0, 1))(matrices) == pytest.approx([recall[:2].mean(), 1.0])


def test_recall_of_a_group_leaves_out_classes_without_images():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert confusion.group_recall((0, 1, 2))(matrix) == pytest.approx((0.75 + 0.5) / 2)


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
    matrices = confusion.confusions(labels, predicted[None], classes)
    prior = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    weights = prior[labels] / np.bincount(labels)[labels]
    found = confusion.under_prior(matrices, prior)
    assert found.sum() == pytest.approx(1)
    assert confusion.accuracy(found)[0] == pytest.approx(
        reference.accuracy_score(labels, predicted, sample_weight=weights)
    )
    f1 = reference.f1_score(labels, predicted, sample_weight=weights, average="macro")
    assert confusion.macro_f1(found)[0] == pytest.approx(f1)
    assert confusion.recalls(found) == pytest.approx(confusion.recalls(matrices))
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


def test_calibration_error_by_hand():
    # Confidences .95 .95 .55 .55 (bins 15 and 9 of 15); right, wrong, right, right: gaps |.5 - .95| and |1 - .55|.
    chances = np.array([[[0.95, 0.05], [0.05, 0.95], [0.55, 0.45], [0.45, 0.55]]])
    labels = np.array([0, 0, 0, 1])
    assert probabilities.calibration_error(chances, labels) == pytest.approx([0.5 * 0.45 + 0.5 * 0.45])
    bins = probabilities.top_label_reliability(chances, labels)
    assert np.flatnonzero(bins.counts[0]).tolist() == [8, 14]
    assert bins.confidence[0, [8, 14]] == pytest.approx([0.55, 0.95])
    assert bins.frequency[0, [8, 14]] == pytest.approx([1.0, 0.5])
    assert np.isnan(bins.frequency[0, 0])


def test_bins_hold_their_upper_edge():
    bins = probabilities.reliability(np.array([0.0, 0.2, 0.2000001, 1.0]), np.ones(4, bool), bins=5)
    assert bins.counts.tolist() == [2, 1, 0, 0, 1]


@given(st.integers(1, 20), st.lists(st.floats(0, 1), max_size=30))
def test_bins_are_those_of_a_search_among_the_edges(bins, chances):
    edges = np.linspace(0, 1, bins + 1)
    # Every edge and its nearest neighbours, where a division may round to either side.
    near = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1), chances])
    near = near[(near >= 0) & (near <= 1)]
    expected = np.maximum(np.searchsorted(edges, near, side="left") - 1, 0)
    counts = probabilities.reliability(near, np.ones(len(near), bool), bins).counts
    assert counts.tolist() == np.bincount(expected, minlength=bins).tolist()
    for place, chance in zip(expected, near, strict=True):
        alone = probabilities.reliability(np.array([chance]), np.ones(1, bool), bins).counts
        assert alone.argmax() == place


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3 * probabilities.TOGETHER), st.integers(0, 3))
def test_rows_that_are_put_into_bins_together_give_what_each_gives_alone(seed, rows, unknown):
    rng = np.random.default_rng(seed)
    chances, truth = rng.random((rows, 20)), rng.random((rows, 20)) < 0.5
    chances[rng.random(chances.shape) < 0.1 * unknown] = np.nan
    together = probabilities.reliability(chances, truth)
    for row in range(rows):
        alone = probabilities.reliability(chances[row], truth[row])
        for name in ("counts", "confidence", "frequency"):
            np.testing.assert_array_equal(getattr(together, name)[row], getattr(alone, name))


def test_pooled_reliability_is_that_of_all_seeds_in_a_row():
    rng = np.random.default_rng(4)
    chances, labels = probabilities.softmax(rng.normal(size=(3, 40, 4)) * 2), rng.integers(0, 4, 40)
    pooled = probabilities.top_label_reliability(chances, labels).pooled()
    in_a_row = probabilities.top_label_reliability(chances.reshape(1, 120, 4), np.tile(labels, 3))
    assert pooled.counts.tolist() == in_a_row.counts[0].tolist()
    for name in ("confidence", "frequency"):
        assert getattr(pooled, name) == pytest.approx(getattr(in_a_row, name)[0], nan_ok=True)
    assert pooled.error == pytest.approx(in_a_row.error[0])


def test_classwise_calibration_follows_the_definition_of_kull():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 200, 3)) * 2, rng.integers(0, 3, 200)
    chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for seed in range(2):
        by_class = []
        for c in range(3):
            error = 0.0
            for m in range(15):
                inside = (chance[seed, :, c] > m / 15) & (chance[seed, :, c] <= (m + 1) / 15)
                if inside.any():
                    gap = (labels[inside] == c).mean() - chance[seed, inside, c].mean()
                    error += inside.mean() * abs(gap)
            by_class.append(error)
        assert probabilities.class_calibration_errors(chance, labels)[seed] == pytest.approx(by_class)
        assert probabilities.classwise_calibration_error(chance, labels)[seed] == pytest.approx(np.mean(by_class))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 7), st.booleans())
def test_brier_top_two_and_auroc_agree_with_scikit_learn(seed, classes, coarse):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 40)])
    logits = rng.normal(size=(2, len(labels), classes))
    # Coarse logits tie often. Of two classes alike everything but one, so that equal odds are equal to the last bit.
    logits = np.where(np.arange(classes) == 0, np.round(logits), 0.0) if coarse else logits
    chance = probabilities.softmax(logits)
    onehot = np.eye(classes)[labels]
    for seed_index in range(2):
        own = chance[seed_index]
        assert probabilities.brier(chance, labels)[seed_index] == pytest.approx(((own - onehot) ** 2).sum(1).mean())
        areas = [reference.roc_auc_score(labels == c, own[:, c]) for c in range(classes)]
        assert probabilities.auroc(logits, labels)[seed_index] == pytest.approx(areas)
        macro = reference.roc_auc_score(labels, own, multi_class="ovr", labels=range(classes))
        assert probabilities.macro_auroc(logits, labels)[seed_index] == pytest.approx(macro)
        if not coarse:
            top = reference.top_k_accuracy_score(labels, own, k=2, labels=range(classes))
            assert probabilities.top_k_accuracy(logits, labels)[seed_index] == pytest.approx(top)


def test_scikit_learns_multi_class_brier_score_is_ours():
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(4), rng.integers(0, 4, 60)])
    chances = probabilities.softmax(rng.normal(size=(1, 64, 4)))
    expected = reference.brier_score_loss(labels, chances[0], labels=range(4), scale_by_half=False)
    assert probabilities.brier(chances, labels)[0] == pytest.approx(expected)


def test_large_logits_of_half_precision_neither_overflow_nor_lose_their_order():
    logits = np.array([[[60000.0, 59000.0], [60000.0, 50000.0], [1000.0, 60000.0]]], dtype=np.float16)
    chance = probabilities.softmax(logits)
    assert chance.dtype == np.float64
    assert np.isfinite(chance).all()
    # Probabilities of class 0 are 1, 1 and 0 to the last bit; the odds still tell the first two apart.
    assert probabilities.auroc(logits, np.array([1, 0, 1]))[0].tolist() == [1.0, 1.0]


def test_equal_logits_go_to_the_first_class_as_in_a_decision():
    logits = np.zeros((1, 4, 4))
    assert probabilities.top_k_accuracy(logits, np.arange(4), 1).tolist() == [0.25]
    assert probabilities.top_k_accuracy(logits, np.arange(4), 2).tolist() == [0.5]
    assert (logits.argmax(-1) == np.arange(4)).mean() == 0.25


def test_images_a_seed_has_not_seen_are_left_out_of_every_score():
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(2, 30, 3)), rng.integers(0, 3, 30)
    logits[1, 20:] = np.nan
    of_chances = (probabilities.brier, probabilities.calibration_error, probabilities.classwise_calibration_error)
    of_logits = (probabilities.top_k_accuracy, probabilities.auroc, probabilities.macro_auroc)
    for measures, answers in ((of_chances, probabilities.softmax(logits)), (of_logits, logits)):
        for score in measures:
            alone = score(answers[1:, :20], labels[:20])
            assert score(answers, labels)[1] == pytest.approx(alone[0])


def test_a_class_without_images_has_no_area():
    labels = np.array([0, 0, 1])
    areas = probabilities.auroc(np.random.default_rng(0).normal(size=(1, 3, 3)), labels)
    assert np.isfinite(areas[0, :2]).all()
    assert np.isnan(areas[0, 2])

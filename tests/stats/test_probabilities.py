"""Scores of probabilities and logits against scikit-learn, and by hand where it differs."""

from __future__ import annotations

from inspect import signature

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from fer_bench.stats import probabilities


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
@given(st.integers(0, 10**6), st.integers(1, 3 * probabilities.ROWS_TOGETHER), st.integers(0, 3))
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


@pytest.mark.skipif("labels" not in signature(reference.brier_score_loss).parameters, reason="scikit-learn before 1.7")
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

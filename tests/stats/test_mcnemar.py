"""McNemar's test against published tables, SciPy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fer_bench.stats import mcnemar


@pytest.mark.parametrize(
    ("gained", "lost", "images", "exact_p", "mid_p"),
    [(1, 7, 21, 0.070, 0.039), (6, 16, 161, 0.052, 0.035)],
    ids=["airway hyper-responsiveness", "complete response"],
)
def test_the_examples_of_fagerland_come_out_as_printed(gained, lost, images, exact_p, mid_p):
    # Fagerland, Lydersen, Laake (2013), tables 1 and 2 with the p-values of their section "Examples".
    result = mcnemar.mcnemar(gained, lost, images)
    assert (round(result.exact_p, 3), round(result.mid_p, 3)) == (exact_p, mid_p)
    assert mcnemar.mcnemar(lost, gained, images).mid_p == result.mid_p


def test_equal_counts_have_the_mid_p_of_the_definition():
    # 1 - P(X = 2) / 2 with X ~ binomial(4, 1/2): 1 - 6/32
    assert mcnemar.mcnemar(2, 2, 9).mid_p == pytest.approx(1 - 6 / 32)
    assert (mcnemar.mcnemar(0, 0, 9).exact_p, mcnemar.mcnemar(0, 0, 9).mid_p) == (1.0, 1.0)


@given(st.one_of(st.integers(0, 60), st.integers(900, 3000)), st.integers(0, 60), st.booleans())
def test_the_mid_p_is_half_the_probability_of_the_table_off_the_exact_p(fewer, apart, swapped):
    counts = (fewer + apart, fewer) if swapped else (fewer, fewer + apart)
    law = scipy_stats.binom(sum(counts), 0.5)
    seen = law.pmf(counts[0])
    expected = 1 - seen / 2 if apart == 0 else 2 * law.cdf(fewer) - seen
    assert mcnemar.mcnemar(*counts, 10_000).mid_p == pytest.approx(expected if sum(counts) else 1.0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_exact_p_is_that_of_scipys_binomial_test(gained, lost):
    expected = scipy_stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    result = mcnemar.mcnemar(gained, lost, 200)
    assert result.exact_p == pytest.approx(expected)
    assert result.mid_p <= result.exact_p


def test_statsmodels_agrees_on_the_exact_and_the_pooled_test():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    labels, ours = np.zeros(40, int), np.array([[0] * 30 + [1] * 10])
    reference = np.array([[0] * 18 + [1] * 12 + [0] * 4 + [1] * 6])  # 12 gained, 4 lost
    table = [[18, 12], [4, 6]]
    assert mcnemar.mcnemar_by_seed(labels, ours, reference)[0].exact_p == pytest.approx(tables.mcnemar(table).pvalue)
    asymptotic = tables.mcnemar(table, exact=False, correction=False).pvalue
    assert mcnemar.pooled(labels, ours, reference) == pytest.approx(asymptotic)


def test_seeds_are_tested_one_by_one_on_the_images_both_have_seen():
    labels = np.array([0, 0, 0, 1, 1])
    ours = np.array([[0, 0, 1, 1, -1], [0, 0, 0, 1, 1]])
    reference = np.array([[1, 0, 0, 0, 1], [0, 0, 0, 1, 1]])
    first, second = mcnemar.mcnemar_by_seed(labels, ours, reference)
    assert (first.gained, first.lost, first.images) == (2, 1, 4)  # images 0 and 3 gained, image 2 lost, image 4 unseen
    assert (first.discordance, first.difference) == (0.75, 0.25)
    assert (second.gained, second.lost, second.exact_p) == (0, 0, 1.0)
    one_class = mcnemar.mcnemar_by_seed(labels, ours, reference, label=0)[0]
    assert (one_class.gained, one_class.lost, one_class.images) == (1, 1, 3)


def test_pooling_counts_an_image_once_however_many_seeds_repeat_it():
    # Ten seeds that say the same are worth one. Treated as ten times the images the p-value would be 1e-5.
    labels, ours, reference = np.zeros(20, int), np.zeros((1, 20), int), np.ones((1, 20), int)
    ours[0, :8], reference[0, :15] = 1, 0  # 5 gained, 8 lost
    once = mcnemar.pooled(labels, ours, reference)
    assert mcnemar.pooled(labels, np.repeat(ours, 10, 0), np.repeat(reference, 10, 0)) == pytest.approx(once)
    assert once == pytest.approx(scipy_stats.chi2.sf((5 - 8) ** 2 / 13, 1))


def test_pooling_follows_durkalskis_formula():
    # Images with sums of gains 2, 1, -1, 0: chi² = 2² / (4 + 1 + 1)
    labels = np.zeros(4, int)
    ours, reference = np.array([[0, 0, 1, 0], [0, 0, 0, 1]]), np.array([[1, 1, 0, 0], [1, 0, 0, 1]])
    assert mcnemar.pooled(labels, ours, reference) == pytest.approx(scipy_stats.chi2.sf(4 / 6, 1))
    assert mcnemar.pooled(labels, ours, ours) == 1.0


def test_the_combination_keeps_its_level_whether_seeds_agree_or_not():
    assert mcnemar.combined([0.01, 0.03]) == pytest.approx(0.04)
    assert mcnemar.combined([0.9, 0.8]) == 1.0
    assert np.isnan(mcnemar.combined([np.nan]))
    rng = np.random.default_rng(0)
    alike = rng.random((4000, 1)).repeat(5, axis=1)
    for p_values in (alike, rng.random((4000, 5)), np.column_stack([alike[:, 0], 1 - alike[:, 0]])):
        assert np.mean([mcnemar.combined(p) <= 0.05 for p in p_values]) <= 0.05


def test_equal_methods_fail_every_mcnemar_test_once_their_trainings_differ():
    # Why no combination of seeds is a verdict on methods: trainings here move the recall by 3 points.
    rng = np.random.default_rng(1)
    labels, alarms = np.zeros(2000, int), 0
    for _ in range(200):
        right = rng.random((2, 5, 2000)) < 0.7 + 0.03 * rng.normal(size=(2, 5, 1))
        alarms += mcnemar.pooled(labels, *(1 - right.astype(int))) < 0.05
    assert alarms / 200 > 0.3


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        mcnemar.mcnemar(5, 6, 10)
    with pytest.raises(ValueError, match="one shape"):
        mcnemar.mcnemar_by_seed(np.zeros(2, int), np.zeros((1, 2), int), np.zeros((2, 2), int))

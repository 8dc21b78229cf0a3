"""Friedman, Iman-Davenport and Nemenyi against Demsar's worked example, his table of quantiles, and SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fer_bench.stats import ranks

NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip
"""Demsar (2006), table 6. In the row before the last he ranks 0.975 before 0.975: a digit that he did not print."""


def test_demsars_worked_example_comes_out_as_printed():
    # Section 3.2.4: mean ranks 3.143, 2.000, 2.893, 1.964; chi² = 9.28, F = 3.69; CD = 1.25 at 0.05 and 1.12 at 0.10.
    ranking = ranks.rank_methods(AUC, NAMES, correct_ties=False)
    assert ranking.names == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert ranking.ranks == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=5e-4)
    assert (round(ranking.chi2, 2), round(ranking.f, 2)) == (9.28, 3.69)
    assert (round(ranking.critical_difference, 2), round(ranks.critical_difference(4, 14, 0.10), 2)) == (1.25, 1.12)
    assert scipy_stats.f.isf(0.05, 3, 39) < ranking.f  # "the critical value of F(3, 39) is 2.85, so we reject"
    assert ranking.f_p < 0.05


def test_all_four_of_demsar_are_one_clique_at_5_percent_and_two_at_10():
    # At 0.05 the extremes differ by 1.18 < 1.25. At 0.10 by more than 1.12, and C4.5 - C4.5+m by 1.14 as well.
    assert ranks.rank_methods(AUC, NAMES).cliques == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    two = ranks.rank_methods(AUC, NAMES, alpha=0.10).cliques
    assert two == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))


@pytest.mark.parametrize(
    ("alpha", "quantiles"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_the_critical_differences_follow_from_demsars_table_of_quantiles(alpha, quantiles):
    for k, q in enumerate(quantiles, start=2):  # table 5 (a), k = 2 to 10
        assert ranks.critical_difference(k, 20, alpha) == pytest.approx(q * (k * (k + 1) / 120) ** 0.5, rel=5e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 6), st.integers(2, 12))
def test_scipy_gives_the_same_statistic_with_ties(seed, k, blocks):
    values = np.random.default_rng(seed).integers(0, 4, (blocks, k)).astype(float)
    if (values == values[:, :1]).all():
        return  # nothing but ties: no statistic
    expected = scipy_stats.friedmanchisquare(*values.T)
    ranking = ranks.rank_methods(values, tuple("abcdef"[:k]))
    assert (ranking.chi2, ranking.chi2_p) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_p_value_of_a_pair_falls_below_alpha_just_beyond_the_critical_difference():
    ranking = ranks.rank_methods(AUC, NAMES, alpha=0.10)
    apart = np.abs(ranking.ranks[:, None] - ranking.ranks)
    assert ((ranking.pairwise_p < 0.10) == (apart >= ranking.critical_difference)).all()
    assert (np.diag(ranking.pairwise_p) == 1).all()
    assert ranking.pairwise_p == pytest.approx(ranking.pairwise_p.T)


def test_lower_is_better_where_asked():
    errors = np.array([[0.1, 0.2], [0.1, 0.3], [0.2, 0.4]])
    ranking = ranks.rank_methods(errors, ("a", "b"), better="lower")
    assert (ranking.names, ranking.ranks.tolist()) == (("a", "b"), [1.0, 2.0])
    assert ranking.f == np.inf  # every block agrees
    assert ranking.f_p == 0.0


def test_methods_that_always_tie_do_not_differ():
    ranking = ranks.rank_methods(np.ones((3, 4)), NAMES)
    assert (ranking.chi2, ranking.chi2_p, ranking.f) == (0.0, 1.0, 0.0)
    assert ranking.cliques == (NAMES,)


@pytest.mark.parametrize("values", [np.ones((1, 2)), np.ones((3, 1)), np.ones((3, 3)), np.array([[1, np.nan]] * 2)])
def test_what_can_not_be_ranked_is_refused(values):
    with pytest.raises(ValueError):
        ranks.rank_methods(values, ("a", "b"))


def test_the_permutation_p_is_the_share_of_orders_with_as_large_a_statistic():
    values = np.array([[0.5, 0.4, 0.4], [0.7, 0.6, 0.1], [0.2, 0.3, 0.1]])

    places = scipy_stats.rankdata(values, axis=1)

    def chi2(rows):
        return scipy_stats.friedmanchisquare(*np.transpose(rows)).statistic

    orders = itertools.product(*(itertools.permutations(row) for row in values))
    expected = np.mean([chi2(rows) >= chi2(values) - 1e-9 for rows in orders])
    assert ranks.permutation_p(places) == pytest.approx(expected)
    assert 0.05 < expected < 0.5


def test_the_permutation_p_of_many_orders_is_sampled_and_repeatable():
    values = np.random.default_rng(3).normal(size=(12, 5))
    values[:, 0] += 0.9
    places = scipy_stats.rankdata(values, axis=1)
    p = ranks.permutation_p(places)
    assert p == ranks.permutation_p(places)
    assert p == pytest.approx(scipy_stats.friedmanchisquare(*values.T).pvalue, abs=0.02)

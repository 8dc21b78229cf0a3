"""Trainings of several subsets and seeds: mean squares and standard errors against sums by hand, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.special import ndtr, ndtri

from fer_bench.stats.bootstrap import Draws, bootstrap_difference, replicates
from fer_bench.stats.confusion import ClassRecall, mean_recall
from fer_bench.stats.crossed_errors import combine_crossed, jackknife
from fer_bench.stats.crossed_subsets import MeanSquares, complete, table_of
from fer_bench.stats.intervals import score_differences, score_intervals, t_intervals
from fer_bench.stats.sampling import Truth

RECALL = {"r": ClassRecall(0)}
# Three subsets (rows) of two seeds. Grand mean 7; subset means 4, 7, 10; seed means 8, 6.
TABLE = np.array([[5.0, 3.0], [8.0, 6.0], [11.0, 9.0]]) + np.array([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]])


def of(labels, predictions, subsets=None):
    return jackknife(Truth(labels=labels, classes=2), predictions, RECALL, subsets)


def test_the_mean_squares_are_those_of_a_table_worked_out_by_hand():
    # Squares of the deviations: subsets 2 (9 + 0 + 9) = 36 on 2 df; seeds 3 (1 + 1) = 6 on 1; the rest 4 on 2.
    found = MeanSquares.of(TABLE)
    assert (found.subset, found.seed, found.rest) == pytest.approx((18, 6, 2))
    assert found.plain_sum == found.bounded_sum == pytest.approx(22)
    assert found.df_of_sum(3, 2) == pytest.approx(22**2 / (18**2 / 2 + 6**2 / 1 + 2**2 / 2))


def test_an_effect_below_the_rest_counts_as_none():
    found = MeanSquares(subset=18.0, seed=1.0, rest=2.0)
    assert (found.plain_sum, found.bounded_sum) == (17, 18)
    assert found.df_of_sum(3, 2) == 2  # only the mean square of the subsets is left
    assert MeanSquares(subset=1.0, seed=1.0, rest=2.0).bounded_sum == 2
    assert MeanSquares(subset=1.0, seed=1.0, rest=2.0).df_of_sum(4, 3) == 6
    # Three nearly equal mean squares: Satterthwaite gives 1.1² / (.605 + 1.21 + .5) = .5, below both parts.
    assert MeanSquares(subset=1.05, seed=1.05, rest=1.0).df_of_sum(3, 2) == 1


def test_without_images_the_standard_error_is_that_of_the_analysis_of_variance():
    # 22 / 6 is the variance of the mean of six; Searle, Casella and McCulloch, with C = 0.
    shares = TABLE / 20
    estimate = combine_crossed(shares, [(shares[None], 40)])
    df = 22**2 / (18**2 / 2 + 6**2 + 2**2 / 2)
    assert (estimate.value, estimate.standard_error**2) == pytest.approx((0.35, 22 / 6 / 400))
    assert estimate.df == pytest.approx(df)
    assert estimate.p == pytest.approx(2 * scipy_stats.t.sf(0.35 / (22 / 6 / 400) ** 0.5, df))


def by_hand(labels, answers):
    """Plain loops over the images of class 0: the parts of the variance of the mean recall of a table [R, S, n]."""
    R, S = answers.shape[:2]
    correct = (answers == 0)[:, :, labels == 0].astype(float)
    n = correct.shape[2]
    cov = np.cov(correct.reshape(R * S, n)) / n  # of the mean over images of one training
    cells = [(r, s) for r in range(R) for s in range(S)]
    sums = {"own": [], "subset": [], "seed": [], "neither": []}
    for i, (r, s) in enumerate(cells):
        for j, (q, t) in enumerate(cells):
            kind = {(True, True): "own", (True, False): "subset", (False, True): "seed"}.get(
                (r == q, s == t), "neither"
            )
            sums[kind].append(cov[i, j])
    v, c1, c2, c3 = (np.mean(sums[k]) for k in ("own", "subset", "seed", "neither"))
    values = correct.mean(2)
    mean, by_subset, by_seed = values.mean(), values.mean(1), values.mean(0)
    ms = (
        S * sum((x - mean) ** 2 for x in by_subset) / (R - 1),
        R * sum((x - mean) ** 2 for x in by_seed) / (S - 1),
        sum((values[r, s] - by_subset[r] - by_seed[s] + mean) ** 2 for r, s in cells) / (R - 1) / (S - 1),
    )
    images = (v + (S - 1) * c1 - c2 - (S - 1) * c3, v + (R - 1) * c2 - c1 - (R - 1) * c3, v - c1 - c2 + c3)
    a, b, e = (max(x, y) for x, y in zip(ms, images, strict=True))
    return mean, (max(a, e) + max(b, e) - e) / (R * S), max(c3, 0)


@pytest.mark.parametrize("seed", range(6))
def test_the_standard_error_is_that_of_plain_loops_over_pairs_of_trainings(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], (30, 12))
    chance = rng.beta(2, 1, 42) + rng.normal(0, 0.2, (3, 1, 1)) + rng.normal(0, 0.1 * (seed % 2), (1, 4, 1))
    answers = np.where(rng.random((3, 4, 42)) < chance, labels, 1 - labels)
    estimate = of(labels, answers.reshape(12, 42), np.repeat([0, 1, 5], 4)).estimates["r"]
    mean, trainings, images = by_hand(labels, answers)
    expected = (mean, trainings, images, (trainings + images) ** 0.5)
    assert (
        estimate.value, estimate.var_seeds, estimate.var_images, estimate.standard_error
    ) == pytest.approx(expected)  # fmt: skip
    assert 0 <= estimate.var_excess <= estimate.var_seeds


def test_subsets_that_differ_more_than_seeds_widen_the_interval():
    # Two seeds give .5 and .6 on one subset, .8 and .9 on the other: four seeds of one subset would say less.
    labels, right = np.zeros(40, int), (20, 24, 32, 36)
    answers = np.stack([np.arange(40) >= hits for hits in right]).astype(int)
    one, two = of(labels, answers), of(labels, answers, np.array([0, 0, 1, 1]))
    assert two.estimates["r"].var_seeds > 1.5 * one.estimates["r"].var_seeds
    assert two.estimates["r"].df < one.estimates["r"].df
    a, b = (score_intervals(sample)["r"] for sample in (one, two))
    assert b.low < a.low < a.high < b.high


def test_one_subset_or_one_seed_of_each_is_the_design_of_seeds_alone():
    rng = np.random.default_rng(0)
    labels, answers = np.zeros(40, int), rng.integers(0, 2, (4, 40))
    plain = of(labels, answers).estimates["r"]
    assert of(labels, answers, np.zeros(4, int)).estimates["r"] == plain
    assert of(labels, answers, np.arange(4)).estimates["r"] == plain


def test_rows_may_come_in_any_order_of_the_subsets():
    rng = np.random.default_rng(1)
    labels, answers, subsets = np.zeros(40, int), rng.integers(0, 2, (6, 40)), np.array([0, 0, 0, 1, 1, 1])
    mixed = [0, 3, 1, 4, 2, 5]
    assert of(labels, answers[mixed], subsets[mixed]).estimates["r"].standard_error == pytest.approx(
        of(labels, answers, subsets).estimates["r"].standard_error
    )


def test_a_difference_is_paired_by_subset_and_seed():
    # Both methods suffer alike from a poor subset: the gain does not vary with it.
    labels, right = np.zeros(40, int), np.array([20, 20, 30, 30, 10, 10])
    reference, ours = (np.stack([np.arange(40) >= h for h in hits]).astype(int) for hits in (right, right + 4))
    subsets = np.repeat([0, 1, 2], 2)
    gain = score_differences(of(labels, ours, subsets), of(labels, reference, subsets))["r"]
    assert gain.value == pytest.approx(0.1)
    assert (of(labels, ours, subsets) - of(labels, reference, subsets)).estimates["r"].var_seeds < 0.002
    assert of(labels, ours, subsets).estimates["r"].var_seeds > 0.01


def test_an_unknown_score_leaves_out_what_the_complete_cross_lacks():
    # The second seed of the second subset has not seen class 0, so seed 1 leaves both subsets.
    labels = np.repeat([0, 1], (20, 4))
    answers = np.stack([np.arange(24) >= hits for hits in (10, 12, 14, 16)]).astype(int)
    answers[3, :20] = -1
    estimate = of(labels, answers, np.array([0, 0, 1, 1])).estimates["r"]
    assert (estimate.value, estimate.n_seeds) == (pytest.approx((10 + 14) / 40), 2)


def test_a_complete_cross_keeps_what_it_can():
    present = np.ones((3, 4), bool)
    present[1, 2] = False
    subsets, seeds = complete(present)
    assert (subsets.tolist(), seeds.tolist()) == ([0, 1, 2], [0, 1, 3])
    assert [x.tolist() for x in complete(present[:, 1:3])] == [[0, 1, 2], [0]]  # three subsets rather than four runs
    present[1] = [True, False, False, False]
    assert [x.tolist() for x in complete(present)] == [[0, 2], [0, 1, 2, 3]]
    assert [x.tolist() for x in complete(np.eye(2, dtype=bool))] == [[0], [0]]


def test_subsets_with_different_numbers_of_seeds_are_refused():
    with pytest.raises(ValueError, match="same seeds"):
        table_of(np.array([0, 0, 1]), np.ones(3, bool))


def test_the_bootstrap_draws_subsets_as_well():
    labels = np.zeros(40, int)
    answers = np.stack([np.arange(40) >= hits for hits in (8, 8, 32, 32)]).astype(int)
    subsets, draws = np.array([0, 0, 1, 1]), Draws(number=400)
    drawn = replicates(Truth(labels=labels, classes=2), answers, RECALL, draws, subsets)
    assert drawn.shares.sum(1) == pytest.approx(np.ones(400))
    # A draw of two subsets takes one of them twice in half of the draws.
    assert np.isclose(drawn.shares.reshape(400, 2, 2).sum(2), 1).any(1).mean() == pytest.approx(0.5, abs=0.1)
    wide, narrow = (
        replicates(Truth(labels=labels, classes=2), answers, RECALL, draws, of).intervals()["r"]
        for of in (subsets, None)
    )
    assert wide.low < narrow.low
    gain = bootstrap_difference(
        Truth(labels=labels, classes=2), answers, np.ones_like(answers), RECALL, draws, subsets=subsets
    )["r"]
    assert gain.low < 0.25
    assert gain.p > 0.05


def simulated(rng, subsets, seeds, images=46, recall=0.6, spread=(0.057, 0.015)):
    """Answers [R S, n] of trainings that differ by subset and by training, and the recall over all of them."""
    hard = rng.normal(0, 0.8, images)
    slope = (1 + 0.8**2) ** 0.5 / float(np.exp(-(ndtri(recall) ** 2) / 2) / (2 * np.pi) ** 0.5)
    effect = rng.normal(0, spread[0], (subsets, 1, 1)) + rng.normal(0, spread[1], (subsets, seeds, 1))
    chance = ndtr(ndtri(recall) * (1 + 0.8**2) ** 0.5 + hard + slope * effect)
    return (rng.random(chance.shape) > chance).astype(int).reshape(subsets * seeds, images)


@pytest.mark.parametrize(("subsets", "seeds"), [(3, 2), (3, 3), (5, 2), (5, 3)])
def test_intervals_cover_a_recall_whose_spread_is_5_7_points_over_subsets_and_1_5_over_seeds(subsets, seeds):
    rng, labels, of_rows = np.random.default_rng(7), np.zeros(46, int), np.repeat(np.arange(subsets), seeds)
    samples = [of(labels, simulated(rng, subsets, seeds), of_rows) for _ in range(250)]
    # The mean over the effects of ndtr is a little nearer to 1/2 than .6: far less than these margins.
    assert np.mean([score_intervals(sample)["r"].covers(0.6) for sample in samples]) > 0.915
    assert np.mean([t_intervals(sample)["r"].covers(0.6) for sample in samples]) > 0.915


def test_one_draw_hides_its_own_effect():
    # The same truth with one subset: five seeds of many images look alike, and their interval misses the truth.
    rng, labels = np.random.default_rng(7), np.zeros(800, int)
    missed = {}
    for subsets, seeds in ((1, 5), (5, 2)):
        of_rows = np.repeat(np.arange(subsets), seeds)
        samples = [of(labels, simulated(rng, subsets, seeds, images=800), of_rows) for _ in range(80)]
        missed[subsets] = np.mean([not score_intervals(sample)["r"].covers(0.6) for sample in samples])
    assert missed[1] > 0.3
    assert missed[5] < 0.12


def test_macro_scores_take_the_same_way():
    rng = np.random.default_rng(3)
    labels, answers = np.repeat([0, 1, 2], 15), rng.integers(0, 3, (6, 45))
    sample = jackknife(Truth(labels=labels, classes=3), answers, {"m": mean_recall}, np.repeat([0, 1], 3))
    assert 0 < sample.estimates["m"].standard_error < 0.2

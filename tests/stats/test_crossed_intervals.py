"""Score intervals over seeds and images: against statsmodels, a published example, hand calculation and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint

from fer_bench.stats import confusion, intervals
from fer_bench.stats.confusion import ClassRecall
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.sampling import Truth

RECALL = {"r": ClassRecall(0)}


def measured(predictions, labels=None, scores=RECALL):
    """The jackknife of predictions [S, n]; all images of class 0 unless labels are given."""
    predictions = np.atleast_2d(predictions)
    labels = np.zeros(predictions.shape[1], int) if labels is None else labels
    return jackknife(Truth(labels=labels, classes=3), predictions, scores)


def limits(interval):
    return interval.low, interval.high


def newcombe(both, ours, theirs, neither, corrected):
    """Newcombe's interval of a paired difference: method 10 where phi is corrected for continuity, else method 8."""
    n = both + ours + theirs + neither
    rows = (both + ours, theirs + neither), (both + theirs, ours + neither)
    (p1, l1, u1), (p2, l2, u2) = ((k / n, *proportion_confint(k, n, method="wilson")) for k, _ in rows)
    odds = both * neither - ours * theirs
    if corrected:
        odds = max(odds - n / 2, 0) if odds > 0 else odds
    phi = odds / np.sqrt(np.prod([float(k) for row in rows for k in row]))
    d = p1 - p2
    low = d - np.sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = d + np.sqrt((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2)
    return low, high


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 900), share=st.floats(0, 1))
def test_the_recall_of_one_training_has_wilsons_interval(n, share):
    hits = round(share * n)
    interval = intervals.score_intervals(measured((np.arange(n) >= hits).astype(int)))["r"]
    assert limits(interval) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-8)


def test_our_transcript_of_newcombe_gives_the_published_example():
    # Fagerland, Lydersen, Laake (2017), Statistical analysis of contingency tables, section 8: complete response before
    # and after consolidation (Cavo et al. 2012), 59, 6, 16, 80 patients: -0.0621 (-0.1186 to -0.0046).
    assert newcombe(59, 6, 16, 80, corrected=True) == pytest.approx((-0.1186, -0.0046), abs=5e-5)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 90)] * 4))
def test_the_difference_of_two_trainings_has_newcombes_interval(table):
    ours, theirs = (np.repeat(answers, table) for answers in ([0, 0, 1, 1], [0, 1, 0, 1]))
    interval = intervals.score_differences(measured(ours), measured(theirs))["r"]
    assert interval.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert limits(interval) == pytest.approx(newcombe(*table, corrected=False), abs=1e-8)


def test_seeds_that_agree_leave_the_number_of_images_as_it_is():
    # 33 of 55 right in all five seeds: V = .6 · .4 / 54 with 54 degrees of freedom, so n = 55 with t = 2.0049.
    interval = intervals.score_intervals(measured(np.tile((np.arange(55) >= 33).astype(int), (5, 1))))["r"]
    t, z = distributions.t.ppf(0.975, 54), distributions.norm.ppf(0.975)
    expected = proportion_confint(33 * (z / t) ** 2, 55 * (z / t) ** 2, method="wilson")
    assert limits(interval) == pytest.approx(expected)


def test_seeds_that_err_on_different_images_are_worth_more_images_and_seeds_that_differ_fewer():
    wrong = np.zeros((4, 40), int)
    for seed in range(4):
        wrong[seed, 10 * seed : 10 * seed + 10] = 1  # each misses ten images of its own: every image is right in 3 of 4
    apart = (np.arange(40) < np.array([2, 6, 14, 18])[:, None]).astype(int)  # 2 to 18 missed
    widths = [np.ptp(limits(intervals.score_intervals(measured(p))["r"])) for p in (wrong, apart)]
    low, high = proportion_confint(30, 40, method="wilson")
    assert widths[0] < high - low < widths[1]


def test_seeds_that_differ_as_wholes_have_the_error_and_the_degrees_of_freedom_of_their_spread():
    # Recalls .6, .7, .8 without any part of images in common: V = .01 / 3, two degrees of freedom.
    n = 100_000
    right = np.stack([np.arange(n) % 10 < k for k in (6, 7, 8)])
    rng = np.random.default_rng(0)
    interval = intervals.score_intervals(measured(1 - np.stack([rng.permutation(row) for row in right]).astype(int)))[
        "r"
    ]
    assert limits(interval) == pytest.approx(by_hand(0.7, 0.01 / 3, distributions.t.ppf(0.975, 2)), abs=2e-3)


def by_hand(p, variance, t):
    """Wilson's limits for the images that would explain `variance`."""
    images = 1 + p * (1 - p) / variance
    middle, half = (p + t * t / 2 / images) / (1 + t * t / images), t / (1 + t * t / images)
    half *= np.sqrt(p * (1 - p) / images + t * t / 4 / images**2)
    return middle - half, middle + half


def test_what_never_varies_has_the_interval_of_the_images_that_it_rests_on():
    labels = np.repeat([0, 1], [20, 300])
    scores = {"rare": ClassRecall(0), "often": ClassRecall(1)}
    scores |= {"mean": confusion.mean_recall, "all": confusion.accuracy}
    by_score = intervals.score_intervals(measured(np.tile(labels, (3, 1)), labels, scores))
    assert limits(by_score["rare"]) == pytest.approx(proportion_confint(20, 20, method="wilson"))
    assert limits(by_score["often"]) == pytest.approx(proportion_confint(300, 300, method="wilson"))
    assert limits(by_score["all"]) == pytest.approx(proportion_confint(320, 320, method="wilson"))
    # One rare image is a fortieth of the mean of both recalls. In doubt is what all rare images leave open, halved:
    # rare images of a recall of .025^(1/20) = .83 are all right in one study of forty, and then the mean is .916.
    assert limits(by_score["mean"]) == pytest.approx(proportion_confint(40, 40, method="wilson"))
    assert by_score["mean"].low == pytest.approx((1 + 0.025 ** (1 / 20)) / 2, abs=0.01)


def test_one_answer_to_everything_has_wilsons_interval_of_all_images_in_accuracy():
    # One training says "other" to 37 smiling and 95 other images: 95 of 132 are right.
    labels = np.repeat([0, 1], [37, 95])
    interval = intervals.score_intervals(measured(np.ones(132, int), labels, {"all": confusion.accuracy}))["all"]
    assert limits(interval) == pytest.approx(proportion_confint(95, 132, method="wilson"))


def test_a_gain_goes_no_further_than_the_intervals_of_both_sides_allow():
    # Recalls of .55 and .45 in two trainings against .45 and .55: images explain how far trainings of a side differ,
    # but not gains of ten points and of minus ten, and with one degree of freedom those alone leave 71 points in doubt.
    right = [[(np.arange(100) + 50 * k) % 100 < h for k, h in enumerate(side)] for side in ((55, 45), (45, 55))]
    ours, theirs = (measured(1 - np.array(side).astype(int)) for side in right)
    a, b = (intervals.score_intervals(side)["r"] for side in (ours, theirs))
    interval = intervals.score_differences(ours, theirs)["r"]
    assert interval.value == pytest.approx(0)
    assert limits(interval) == pytest.approx((a.low - b.high, a.high - b.low))
    assert limits(interval) == pytest.approx((-0.195, 0.195), abs=5e-4)


def test_equal_answers_differ_by_nothing_but_other_images_might_tell():
    answers = (np.arange(55) >= 11).astype(int)
    interval = intervals.score_differences(measured(np.tile(answers, (5, 1))), measured(np.tile(answers, (5, 1))))["r"]
    assert (interval.value, interval.p) == (0.0, 1.0)
    assert (
        -0.06 < interval.low < 0.0 < interval.high < 0.06
    )  # three of 55 may differ and not be seen: the rule of three


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), seeds=st.integers(1, 5))
def test_intervals_hold_their_value_and_stay_within_shares(seed, seeds):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], rng.integers(1, 12, 3))
    scores = confusion.SCORES | {str(c): ClassRecall(c) for c in range(3)}
    ours, theirs = (measured(rng.integers(0, 3, (seeds, len(labels))), labels, scores) for _ in range(2))
    for side in (ours, theirs):
        assert all(0 <= i.low <= i.value <= i.high <= 1 for i in intervals.score_intervals(side).values())
    for i in intervals.score_differences(ours, theirs).values():
        assert -1 - 1e-12 <= i.low <= i.value <= i.high <= 1 + 1e-12


def test_swapping_the_methods_mirrors_the_interval():
    rng = np.random.default_rng(3)
    ours, theirs = (measured(rng.integers(0, 2, (3, 40))) for _ in range(2))
    there, back = (intervals.score_differences(*pair)["r"] for pair in ((ours, theirs), (theirs, ours)))
    assert limits(there) == pytest.approx((-back.high, -back.low))
    assert there.p == pytest.approx(back.p)


@pytest.mark.parametrize(("tens", "variance"), [((5, 7, 6), 0.01 / 3), ((4, 6, 8), 0.04 / 3)])
def test_all_of_a_difference_may_be_in_doubt_but_no_more(tens, variance):
    # Differences of 10, 0, 20 points or 20, 10, 0: V = .01 / 3, two degrees of freedom; the sides differ as much.
    # Recalls .6, .7, .8 against others, of 100,000 images, errors on different ones: images explain next to nothing.
    n, rng = 100_000, np.random.default_rng(0)
    ours, theirs = (
        measured(1 - np.stack([rng.permutation(np.arange(n) % 10 < k) for k in shares]).astype(int))
        for shares in ((6, 7, 8), tens)
    )
    interval, t = intervals.score_differences(ours, theirs)["r"], distributions.t.ppf(0.975, 2)
    r = (0.01 / 3 + variance - 0.01 / 3) / (2 * np.sqrt(0.01 / 3 * variance))
    (a_low, a_high), (b_low, b_high) = by_hand(0.7, 0.01 / 3, t), by_hand(0.6, variance, t)
    down, up = (0.7 - a_low, b_high - 0.6), (a_high - 0.7, 0.6 - b_low)
    low = 0.1 - np.sqrt(down[0] ** 2 - 2 * r * down[0] * down[1] + down[1] ** 2)
    high = 0.1 + np.sqrt(up[0] ** 2 - 2 * r * up[0] * up[1] + up[1] ** 2)
    assert limits(interval) == pytest.approx((low, high), abs=4e-3)


def test_a_class_without_images_is_unknown():
    labels = np.repeat([0, 1], 10)
    sides = [measured(np.tile(labels, (2, 1)), labels, {"none": ClassRecall(2)}) for _ in range(2)]
    assert not intervals.score_intervals(sides[0])["none"].known
    assert not intervals.score_differences(*sides)["none"].known


@pytest.mark.slow
@pytest.mark.parametrize(("images", "recall", "seeds"), [(16, 0.5, 5), (55, 0.65, 2), (55, 0.8, 5), (160, 0.65, 3)])
def test_intervals_cover_recall_and_gain_in_about_19_of_20_studies(images, recall, seeds):
    # Images are hard or easy, harder for one method, trainings differ by a point as wholes, chance does the rest.
    rng = np.random.default_rng([images, seeds])
    covered, studies = np.zeros(2), 400
    levels = [distributions.norm.ppf(p) * np.sqrt(2.7**2 + 2) for p in (recall, recall - 0.05)]
    for _ in range(studies):
        hard, sides = 2.7 * rng.normal(size=images), []
        for level in levels:
            sway = 0.08 * rng.normal(size=(seeds, 1))
            right = level + sway + hard + rng.normal(size=images) + rng.normal(size=(seeds, images)) > 0
            sides.append(measured(1 - right.astype(int)))
        covered += [
            intervals.score_intervals(sides[0])["r"].covers(recall),
            intervals.score_differences(*sides)["r"].covers(0.05),
        ]
    assert (covered / studies > 0.925).all()
    assert (covered / studies < 0.995).all()

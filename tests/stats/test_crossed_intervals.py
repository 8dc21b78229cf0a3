"""Score intervals over seeds and images: against statsmodels, a published example, hand calculation and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

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


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 900), share=st.floats(0, 1))
def test_the_recall_of_one_training_has_wilsons_interval(n, share):
    hits = round(share * n)
    interval = intervals.score_intervals(measured((np.arange(n) >= hits).astype(int)))["r"]
    assert limits(interval) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 90)] * 4))
def test_the_difference_of_two_trainings_has_newcombes_interval_shortened_by_the_pairing(table):
    # both right, only ours, only theirs, neither: each of n images is worth +1, 0 or -1.
    (_, gained, lost, _), n = table, sum(table)
    ours, theirs = (np.repeat(answers, table) for answers in ([0, 0, 1, 1], [0, 1, 0, 1]))
    a, b = (int((side == 0).sum()) for side in (ours, theirs))
    unpaired = confint_proportions_2indep(a, n, b, n, method="newcomb", compare="diff")
    k = np.sqrt((gained + lost - (gained - lost) ** 2 / n) / (a * (n - a) / n + b * (n - b) / n))
    sides = [np.array(proportion_confint(k, n, method="wilson")) for k in (a, b)]
    value = (a - b) / n
    expected = np.maximum(value + k * (np.array(unpaired) - value), [sides[0][0] - sides[1][1], -2])
    expected = np.minimum(expected, [2, sides[0][1] - sides[1][0]])
    interval = intervals.score_differences(measured(ours), measured(theirs))["r"]
    assert interval.value == pytest.approx(value)
    assert limits(interval) == pytest.approx(tuple(expected), abs=1e-8)


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
    # Recalls of .55, .50, .45 against .45, .50, .55, of the same images: gains of 10, 0 and -10 points, which three
    # trainings alone have to judge (t = 4.3), while images explain most of each side: c = .002197, V = .0025 / 3 + c
    # with 23.2 degrees of freedom (t = 2.068), so n = 83.5 and Wilson's limits are .1104 away.
    recalls = np.array([[55, 50, 45], [45, 50, 55]])
    ours, theirs = (measured((np.arange(100) >= side[:, None]).astype(int)) for side in recalls)
    a, b = (intervals.score_intervals(side)["r"] for side in (ours, theirs))
    interval = intervals.score_differences(ours, theirs)["r"]
    assert interval.value == 0
    assert limits(interval) == pytest.approx((a.low - b.high, a.high - b.low))
    assert limits(interval) == pytest.approx((-0.2207, 0.2207), abs=5e-4)


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
    k = np.sqrt(0.01 / 3 / (0.01 / 3 + variance))
    (a_low, a_high), (b_low, b_high) = by_hand(0.7, 0.01 / 3, t), by_hand(0.6, variance, t)
    low, high = 0.1 - k * np.hypot(0.7 - a_low, b_high - 0.6), 0.1 + k * np.hypot(a_high - 0.7, 0.6 - b_low)
    assert limits(interval) == pytest.approx((low, high), abs=4e-3)


def test_a_class_without_images_is_unknown():
    labels = np.repeat([0, 1], 10)
    sides = [measured(np.tile(labels, (2, 1)), labels, {"none": ClassRecall(2)}) for _ in range(2)]
    assert not intervals.score_intervals(sides[0])["none"].known
    unknown = intervals.score_differences(*sides)["none"]
    assert not unknown.known
    assert np.isnan(unknown.p)


@st.composite
def predictions_of_two_methods(draw):
    """Labels of three classes, and predictions [2, S, n] that are alike or not, often right or often wrong."""
    sizes, seeds = draw(st.tuples(*[st.integers(1, 40)] * 3)), draw(st.integers(1, 5))
    labels = np.repeat([0, 1, 2], sizes)
    rng, right = np.random.default_rng(draw(st.integers(0, 10**6))), draw(st.tuples(*[st.floats(0, 1)] * 2))
    same, spread = draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])), draw(st.sampled_from([0.0, 0.1, 0.4]))
    luck = np.where(rng.random(len(labels)) < same, rng.random(len(labels)), rng.random((2, seeds, len(labels))))
    chance = np.reshape(right, (2, 1, 1)) + spread * rng.normal(size=(2, seeds, 1))
    return labels, np.where(luck < chance, labels, (labels + 1) % 3)


SEVERAL = {"r": ClassRecall(0), "mean": confusion.mean_recall, "f1": confusion.macro_f1, "all": confusion.accuracy}
LEVELS = st.one_of(st.floats(0.001, 0.9999), st.integers(2, 12).map(lambda k: 1 - 10.0**-k))


@settings(max_examples=150, deadline=None)
@given(predictions_of_two_methods(), LEVELS, LEVELS)
def test_an_interval_excludes_zero_exactly_where_p_is_below_one_minus_its_level(study, one, other):
    labels, predictions = study
    sides = [measured(p, labels, SEVERAL) for p in predictions]
    low, high = sorted((one, other))
    for kind in (intervals.score_differences, lambda a, b, level: intervals.t_intervals(a - b, level)):
        narrow, wide = kind(*sides, low), kind(*sides, high)
        for name in SEVERAL:
            for level, i in ((low, narrow[name]), (high, wide[name])):
                assert i.p == narrow[name].p or not i.known  # p does not depend on the level
                assert np.isnan(i.p) == (not i.known)
                if i.known and abs(i.p - (1 - level)) > 1e-9 * i.p:  # else rounding decides
                    assert (i.p < 1 - level) == (not i.covers(0.0))
            if narrow[name].known:
                assert wide[name].low <= narrow[name].low + 1e-12
                assert wide[name].high >= narrow[name].high - 1e-12
                assert (narrow[name].p == 1) == (round(narrow[name].value, 12) == 0)
    assert all(i.known for i in intervals.score_differences(*sides).values())


@settings(max_examples=60, deadline=None)
@given(predictions_of_two_methods())
def test_the_interval_whose_level_is_one_minus_p_touches_zero(study):
    labels, predictions = study
    sides = [measured(p, labels, SEVERAL) for p in predictions]
    for name, interval in intervals.score_differences(*sides).items():
        if 1e-9 < interval.p < 1:  # 1 - p is rounded to 1e-16
            touching = intervals.score_differences(*sides, 1 - interval.p)[name]
            assert min(abs(touching.low), abs(touching.high)) == pytest.approx(0, abs=1e-7)


def test_the_p_value_of_one_image_is_that_of_wilsons_limits_by_hand():
    # Ours is right on one image in all five seeds, the reference never: shares 1 and 0 of one image, normal quantiles.
    # Either limit is z² / (1 + z²) away, so the interval touches 0 where sqrt(2) z² / (1 + z²) = 1, unless the sides
    # together, 2 z² / (1 + z²), do not reach that far: they do at z = 1. So z² = 1 / (sqrt(2) - 1).
    sides = [measured(np.full((5, 1), answer)) for answer in (0, 1)]
    interval = intervals.score_differences(*sides)["r"]
    assert (interval.value, interval.p) == pytest.approx((1.0, 2 * distributions.norm.sf((1 / (2**0.5 - 1)) ** 0.5)))


def test_equal_answers_keep_an_interval_at_a_recall_of_one_half():
    # Two sides of recall .5 with 54 degrees of freedom: k² = (1 / 60²) / (2 · .25 / 59).
    answers = np.tile(np.arange(60) % 2, (5, 1))
    interval = intervals.score_differences(measured(answers), measured(answers))["r"]
    low, high = by_hand(0.5, 0.25 / 59, distributions.norm.ppf(0.975))
    k = (1 / 60**2 / (2 * 0.25 / 59)) ** 0.5
    assert limits(interval) == pytest.approx((-k * np.sqrt(2) * (0.5 - low), k * np.sqrt(2) * (high - 0.5)))


def test_a_p_value_too_small_to_tell_from_zero_is_zero():
    right, wrong = np.zeros((5, 5000), int), np.ones((5, 5000), int)
    right[:, :5], wrong[:, :5] = 1, 0
    right[0, :9], wrong[1, :9] = 1, 0  # so that both sides vary and trainings differ
    assert 0 <= intervals.score_differences(measured(right), measured(wrong))["r"].p < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("images", "recall", "seeds"), [(16, 0.5, 5), (55, 0.65, 3), (55, 0.8, 5), (160, 0.65, 3)])
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

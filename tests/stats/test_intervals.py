"""Wilson's interval and Holm's correction against published values and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fer_bench.stats import intervals


def test_wilson_gives_newcombes_published_example():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 -> 0.2553 to 0.3662; 0 of 20 -> 0 to 0.1611.
    interval = intervals.wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert (intervals.wilson(0, 20).low, round(intervals.wilson(0, 20).high, 4)) == (0.0, 0.1611)


def test_wilson_is_twelve_points_wide_on_fer2013_disgust():
    # By hand, z = 1.96, n = 55, p = .65: half = 1.96 / (1 + 3.8416/55) * sqrt(.2275/55 + 3.8416/12100) = .1223
    interval = intervals.wilson(0.65 * 55, 55)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.1223, abs=1e-4)


@given(n=st.integers(1, 3000), share=st.floats(0, 1), level=st.floats(0.5, 0.99))
def test_wilson_agrees_with_scipy_on_whole_counts_and_holds_its_value(n, share, level):
    hits = round(share * n)
    ours = intervals.wilson(hits, n, level)
    theirs = scipy_stats.binomtest(hits, n).proportion_ci(level, "wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_wilson_of_no_images_is_unknown():
    assert not intervals.wilson(0, 0).known


def test_holm_gives_the_textbook_adjustment():
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1 -> .02, .03, .06, .04; made monotone: .02, .03, .06, .06
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = intervals.holm([0.5, np.nan, 0.9])
    assert adjusted[[0, 2]] == pytest.approx([1.0, 1.0])
    assert np.isnan(adjusted[1])
    assert len(intervals.holm([])) == 0


def test_holm_agrees_with_statsmodels(monkeypatch):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    monkeypatch.setattr("gc.collect", int)  # statsmodels collects garbage in every call, which takes 0.2 s beside torch

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def agrees(p_values):
        assert intervals.holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])

    agrees()

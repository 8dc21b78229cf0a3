"""Imbalance profiles: exact counts, nested subsets, and errors whose proposals are accepted."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.data.imbalance import NATURAL, Profile, pick, sizes
from tests.data.conftest import (
    FACES,
    TRAINING,
    apportioned,
    counted,
    exponential,
    feasible_folds,
    names,
    quick,
    ratios,
    shuffled_labels,
)

# ---- counts ----


def test_the_long_tailed_cifar_of_ldam_comes_out_rounded():
    # 5000 * 100 ** (-k / 9) = 5000, 2997.4, 1796.9, 1077.2, 645.8, 387.1, 232.1, 139.1, 83.4, 50: LDAM-DRW's code cuts
    # the decimals off (1796 and 645 images), here they are rounded (1797 and 646)
    assert counted("exp:100", [5000] * 10) == [5000, 2997, 1797, 1077, 646, 387, 232, 139, 83, 50]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # in the order happy, neutral, sad, fear, angry, surprise, disgust
        ("exp:50", (7215, 3759, 1958, 1020, 532, 277, 144)),  # 7215 / 50 = 144.3
        ("exp:100", (7215, 3349, 1554, 722, 335, 155, 72)),  # 7215 / 10 = 721.5, half goes up
        ("step:10", (4097, 4097, 4097, 4097, 410, 410, 410)),  # fear is the smallest of the four frequent ones
        ("step:20:0.2", (3171, 3171, 3171, 3171, 3171, 3171, 159)),  # one class of seven; 3171 / 20 = 158.55
        ("balanced:436", (436,) * 7),
        ("natural", (7215, 4965, 4830, 4097, 3995, 3171, 436)),
    ],
)
def test_counts_of_fer2013(text, expected):
    by_frequency = ("happy", "neutral", "sad", "fear", "angry", "surprise", "disgust")
    result = dict(zip(FACES, counted(text, TRAINING, FACES), strict=True))
    assert tuple(result[name] for name in by_frequency) == expected


@quick
@given(head=st.integers(1, 5000), ratio=ratios, classes=st.integers(2, 9))
def test_exp_follows_its_formula_rounded_half_up(head, ratio, classes):
    expected = exponential(head, ratio, classes)
    assert counted(f"exp:{ratio}", [head] * classes) == expected
    assert counted(f"exp:{ratio},head={head}", [head + 5] * classes) == expected


@quick
@given(head=st.integers(1, 5000), ratio=ratios, classes=st.integers(2, 9), percent=st.integers(1, 99))
def test_step_follows_its_formula_rounded_half_up(head, ratio, classes, percent):
    rare = min(max(classes * percent // 100, 1), classes - 1)
    tail = max(1, math.floor(head / Fraction(str(ratio)) + Fraction(1, 2)))
    expected = [head] * (classes - rare) + [tail] * rare
    assert counted(f"step:{ratio}:{percent / 100},head={head}", [head + 5] * classes) == expected


def test_the_number_of_rare_classes_does_not_suffer_from_binary_fractions():
    assert 100 * 0.29 < 29
    assert counted("step:2:0.29", [10] * 100).count(5) == 29


@quick
@given(base=st.integers(1, 4), classes=st.integers(2, 6), extra=st.integers(0, 300))
def test_a_total_is_shared_by_largest_remainder(base, classes, extra):
    total = classes + extra
    weights = [Fraction(base) ** k for k in reversed(range(classes))]  # of the ratio base^(C-1), whose roots are whole
    result = counted(f"exp:{base ** (classes - 1)},total={total}", [total] * classes)
    assert result == apportioned(weights, total)


@quick
@given(ratio=ratios, classes=st.integers(2, 6), extra=st.integers(0, 300), percent=st.integers(1, 99))
def test_a_total_of_a_step_is_shared_by_largest_remainder(ratio, classes, extra, percent):
    total, rare = classes + extra, min(max(classes * percent // 100, 1), classes - 1)
    weights = [Fraction(str(ratio))] * (classes - rare) + [Fraction(1)] * rare
    result = counted(f"step:{ratio}:{percent / 100},total={total}", [total] * classes)
    assert result == apportioned(weights, total)


@quick
@given(ratio=ratios, classes=st.integers(2, 9), extra=st.integers(0, 1000), kind=st.sampled_from(["exp", "step"]))
def test_a_total_is_met_exactly_and_no_class_outgrows_the_one_before(ratio, classes, extra, kind):
    total = classes + extra
    result = counted(f"{kind}:{ratio},total={total}", [total] * classes)
    assert sum(result) == total
    assert result == sorted(result, reverse=True)
    assert result[-1] >= 1


def test_of_equal_remainders_the_class_nearer_to_the_head_wins():
    # six images at 1.4 to 1 are 3.5 and 2.5, though 1 / 1.4 has no end as a decimal
    assert counted("exp:1.4,total=6", [6, 6]) == [4, 2]
    assert counted("exp:1.4,total=6,order=c1>c0", [6, 6]) == [2, 4]
    assert counted("step:1:0.5,total=5", [9, 9, 9]) == [2, 2, 1]


def test_classes_stand_in_order_of_frequency_and_equal_ones_by_label():
    assert counted("exp:4,head=8", [10, 20, 30]) == [2, 4, 8]
    assert counted("exp:4,head=8", [30, 30, 30]) == [8, 4, 2]


def test_a_given_order_decides_which_class_is_the_head():
    assert counted("exp:4,order=c1>c2>c0", [10, 12, 30]) == [3, 12, 6]
    assert counted("step:3,order=c2>c0>c1", [12, 12, 30]) == [12, 4, 12]


@quick
@given(fold=feasible_folds(), larger=ratios)
def test_no_class_of_exp_grows_with_the_ratio_and_the_head_stays(fold, larger):
    available, ratio = fold
    before, after = (counted(f"exp:{r}", available) for r in (ratio, max(ratio, larger)))
    assert all(b >= a for b, a in zip(before, after, strict=True))
    assert max(before) == max(after) == max(available)


# ---- subsets ----


def test_images_are_taken_in_the_order_of_their_hashes():
    # for p in 0 1 2 3 4 5 6 7; do printf "k/$p" | b2sum; done     sorted by hash: 6 7 3 0 5 2 4 1
    labels, classes = np.array([0, 1, 0, 1, 0, 1, 0, 1]), ["a", "b"]
    assert pick(Profile.parse("balanced:1"), labels, classes, "k").tolist() == [6, 7]
    assert pick(Profile.parse("balanced:2"), labels, classes, "k").tolist() == [0, 3, 6, 7]
    assert pick(Profile.parse("exp:3,order=b>a,head=3"), labels, classes, "k").tolist() == [3, 5, 6, 7]


def test_another_key_takes_other_images():
    labels = np.zeros(200, np.int64)
    labels[100:] = 1
    one, other = (pick(Profile.parse("balanced:50"), labels, ["a", "b"], key).tolist() for key in ("x/0", "x/1"))
    assert len(one) == len(other) == 100
    assert one != other


def test_natural_is_every_image_and_every_count():
    assert pick(NATURAL, np.array([1, 0, 1]), ["a", "b"], "k").tolist() == [0, 1, 2]
    assert sizes(NATURAL, [1, 2], ["a", "b"]).tolist() == [1, 2]


@quick
@given(fold=feasible_folds(), larger=ratios)
def test_exp_subsets_have_their_counts_and_are_nested(fold, larger):
    available, ratio = fold
    labels, classes = shuffled_labels(available), names(len(available))
    subsets = []
    for profile in (Profile.parse(f"exp:{r}") for r in (ratio, max(ratio, larger))):
        rows = pick(profile, labels, classes, "toy/p/0")
        assert np.bincount(labels[rows], minlength=len(classes)).tolist() == counted(str(profile), available)
        assert (np.diff(rows) > 0).all()
        subsets.append(set(rows.tolist()))
    assert subsets[1] <= subsets[0]


@quick
@given(
    available=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    smaller=ratios,
    larger=ratios,
    text=st.sampled_from(["exp:{},head={}", "step:{},head={}", "step:{}:0.2,head={}"]),
)
def test_subsets_with_one_head_are_nested_for_all_ratios(available, smaller, larger, text):
    labels, classes = shuffled_labels(available), names(len(available))
    smaller, larger = sorted((smaller, larger))
    inner, outer = (
        set(pick(Profile.parse(text.format(r, min(available))), labels, classes, "k").tolist())
        for r in (larger, smaller)
    )
    assert inner <= outer


@quick
@given(available=st.lists(st.integers(1, 40), min_size=2, max_size=6), extra=st.integers(0, 100), factor=ratios)
def test_step_subsets_are_nested_wherever_they_fit(available, extra, factor):
    smallest = math.ceil(max(available) / min(available))
    labels, classes = shuffled_labels(available), names(len(available))
    inner, outer = (
        set(pick(Profile.parse(f"step:{r}"), labels, classes, "k").tolist())
        for r in (round((smallest + extra) * factor, 1), smallest + extra)
    )
    assert inner <= outer


@quick
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_balanced_subsets_are_nested(available, data):
    labels, classes = shuffled_labels(available), names(len(available))
    more = data.draw(st.integers(1, min(available)))
    fewer = data.draw(st.integers(1, more))
    inner, outer = (pick(Profile.parse(f"balanced:{n}"), labels, classes, "k").tolist() for n in (fewer, more))
    assert set(inner) <= set(outer)
    assert (len(inner), len(outer)) == (fewer * len(classes), more * len(classes))

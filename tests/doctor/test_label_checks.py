"""What counts and copies tell of labels: exchanges between two classes."""

from math import comb

import numpy as np
import pytest

from fer_bench.doctor.label_checks import disagreements, exchanges

FER2013 = {
    "classes": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "known": np.array(
        [
            [3995, 436, 4097, 7215, 4830, 3171, 4965],
            [467, 56, 496, 895, 653, 415, 607],
            [491, 55, 528, 879, 594, 416, 626],
        ]
    ),
}


@pytest.mark.parametrize("pair", [(0, 3), (1, 3), (5, 6), (0, 4)])
def test_random_exchange_of_a_fifth_is_estimated(pair):
    a, b = pair
    rng = np.random.default_rng(a)
    observed = FER2013["known"].copy()
    out, back = rng.binomial(observed[0, a], 0.2), rng.binomial(observed[0, b], 0.2)
    observed[0, [a, b]] += back - out, out - back
    (result,) = exchanges(observed, FER2013["known"], ["Training", "PublicTest", "PrivateTest"])
    assert {result.gained, result.lost} == {a, b}
    assert result.split == "Training"
    gap = abs(int(FER2013["known"][0, a] - FER2013["known"][0, b]))
    assert result.share == pytest.approx(abs(back - out) / gap)
    assert abs(result.share - 0.2) < 4 * np.sqrt(0.16 * FER2013["known"][0, [a, b]].sum()) / gap


def test_relabelling_that_no_exchange_explains_has_no_share():
    observed = FER2013["known"].copy()
    observed[0, [3, 1]] += 100, -100  # the larger class has grown
    (result,) = exchanges(observed, FER2013["known"], ["Training", "PublicTest", "PrivateTest"])
    assert (result.gained, result.lost, result.moved, result.share) == (3, 1, 100, None)


def test_a_few_corrected_labels_count_as_slips():
    observed = FER2013["known"].copy()
    observed[0, [4, 6]] += 3, -3
    assert [one.slips for one in exchanges(observed, FER2013["known"], ["a", "b", "c"])] == [True]
    observed[0, [4, 6]] += 400, -400
    assert [one.slips for one in exchanges(observed, FER2013["known"], ["a", "b", "c"])] == [False]


def test_exchange_between_classes_of_equal_size_has_no_share():
    observed = FER2013["known"].copy()
    observed[0, [0, 2]] += 30, -30  # angry and fear: chance alone moves 36
    (result,) = exchanges(observed, FER2013["known"], ["Training", "PublicTest", "PrivateTest"])
    assert (result.gained, result.lost, result.share) == (0, 2, None)


def pairs(torn: int, whole: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of copies: some labelled 0 and 1, the others alike."""
    labels = np.array([0, 1] * torn + [0, 0] * whole)
    return np.arange(len(labels)).reshape(-1, 2), labels


def binomial_tail(n: int, total: int, share: float) -> float:
    return sum(comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(n, total + 1))


def test_copies_that_disagree_more_often_than_slips_are_told_with_the_p_of_the_test():
    (result,) = disagreements(*pairs(12, 28), 7)
    assert (result.classes, result.torn, result.groups, result.pairs) == ((0, 1), 12, 40, 21)
    assert result.share == pytest.approx((1 - 0.4**0.5) / 2)  # 2 f (1 - f) = 0.3
    assert result.p == pytest.approx(21 * binomial_tail(12, 40, 0.1))
    assert result.p < 0.01


@pytest.mark.parametrize(("torn", "whole"), [(5, 2), (7, 0), (29, 0), (4, 96), (10, 90), (16, 84)])
def test_what_a_few_groups_or_slips_do_is_no_evidence(torn, whole):
    assert disagreements(*pairs(torn, whole), 7) == []


def test_the_test_counts_all_pairs_of_classes():
    torn, whole = 11, 39  # p is 0.009 alone, and 0.03 among the three pairs of three classes
    assert 0.003 < binomial_tail(torn, torn + whole, 0.1) < 0.01
    assert len(disagreements(*pairs(torn, whole), 2)) == 1
    assert disagreements(*pairs(torn, whole), 3) == []


def test_slips_alone_accuse_a_set_no_more_often_than_the_level_says():
    rng = np.random.default_rng(2)
    accused = 0
    for _ in range(400):
        torn = int(rng.binomial(60, 0.1))
        accused += bool(disagreements(*pairs(torn, 60 - torn), 2))
    assert accused <= 400 * 0.01 + 3 * (400 * 0.01 * 0.99) ** 0.5


def test_missing_labels_and_groups_of_three_classes_tear_nothing():
    labels = np.array([0, -1, 1] * 3 + [0, 1, 2] * 9)
    assert disagreements(np.arange(len(labels)).reshape(-1, 3), labels, 3) == []

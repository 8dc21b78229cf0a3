"""What counts and copies tell of labels: exchanges between two classes."""

import numpy as np
import pytest

from fer_bench.label_checks import disagreements, exchanges

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
    (found,) = exchanges(observed, FER2013["known"], ["Training", "PublicTest", "PrivateTest"])
    assert {found.gained, found.lost} == {a, b}
    assert found.split == "Training"
    gap = abs(int(FER2013["known"][0, a] - FER2013["known"][0, b]))
    assert found.share == pytest.approx(abs(back - out) / gap)
    assert abs(found.share - 0.2) < 4 * np.sqrt(0.16 * FER2013["known"][0, [a, b]].sum()) / gap


def test_relabelling_that_no_exchange_explains_has_no_share():
    observed = FER2013["known"].copy()
    observed[0, [3, 1]] += 100, -100  # the larger class has grown
    (found,) = exchanges(observed, FER2013["known"], ["Training", "PublicTest", "PrivateTest"])
    assert (found.gained, found.lost, found.moved, found.share) == (3, 1, 100, None)


def test_exchange_between_classes_of_equal_size_has_no_share():
    observed = FER2013["known"].copy()
    observed[0, [0, 2]] += 30, -30  # angry and fear: chance alone moves 36
    (found,) = exchanges(observed, FER2013["known"], ["Training", "PublicTest", "PrivateTest"])
    assert (found.gained, found.lost, found.share) == (0, 2, None)


def test_copies_disagree_only_where_many_groups_are_torn():
    labels = np.array([0, 1] * 5 + [0, 0] * 5 + [1, 2] * 4 + [2, 2] * 3)
    groups = np.arange(len(labels)).reshape(-1, 2)
    (found,) = disagreements(groups, labels)
    assert (found.classes, found.torn, found.groups) == ((0, 1), 5, 10)
    assert found.share == pytest.approx(0.5)  # 2 f (1 - f) = 0.5
    assert disagreements(groups[:4], labels) == []


def test_missing_labels_and_groups_of_three_classes_tear_nothing():
    labels = np.array([0, -1, 1] * 3 + [0, 1, 2] * 9)
    assert disagreements(np.arange(len(labels)).reshape(-1, 3), labels) == []

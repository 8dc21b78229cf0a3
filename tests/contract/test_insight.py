"""What a method may tell in insight(), and what is said where it tells something else."""

from __future__ import annotations

import pytest
import torch

from fer_bench import Insight, Method
from fer_bench.contract.method import checked_insight
from fer_bench.errors import TrainingError

MAPS, SHARES = torch.rand(3, 4, 5), torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])


def test_a_method_tells_nothing_by_default():
    told = checked_insight(Method().insight(torch.nn.Identity(), torch.zeros(3, 1, 8, 8)), 3, Method())
    assert (dict(told.maps), told.shares, told.sources) == ({}, None, ())


def test_maps_of_any_size_and_shares_are_taken():
    told = Insight(maps={"one": MAPS, "two": MAPS[:, :1]}, shares=SHARES, sources=("a", "b"))
    assert checked_insight(told, 3, Method()) is told


WRONG = {
    "not an insight": ({"one": MAPS}, "must return a Insight, not dict"),
    "an image too few": (Insight(maps={"one": MAPS[:2]}), r"map 'one' has shape \[2, 4, 5\], expected \[3, h, w\]"),
    "a channel": (Insight(maps={"one": MAPS[:, None]}), r"has shape \[3, 1, 4, 5\]"),
    "an array": (Insight(maps={"one": MAPS.numpy()}), "must be a tensor, not ndarray"),
    "negative": (Insight(maps={"one": MAPS - 2}), "negative values, down to -[12]"),
    "not finite": (Insight(maps={"one": MAPS / 0}), "not finite"),
    "a source too few": (Insight(shares=SHARES, sources=("a",)), r"shares has shape \[3, 2\], expected \[3, 1\]"),
    "sums of two": (Insight(shares=2 * SHARES, sources=("a", "b")), "must sum to 1; they sum to 2 to 2"),
    "no shares": (Insight(sources=("a", "b")), "names 2 sources but gives no shares"),
    "a name twice": (Insight(shares=SHARES, sources=("a", "a")), "two sources have the same name"),
}


@pytest.mark.parametrize(("told", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(told, message):
    with pytest.raises(TrainingError, match=message) as caught:
        checked_insight(told, 3, Method())
    assert caught.value.where == "insight"

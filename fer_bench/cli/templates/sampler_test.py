"""Tests of new_method; run them with pytest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fer_bench import TrainView, conforms, load_plugin

FILE = Path(__file__).parents[1] / "new_method.py"


def test_it_keeps_what_every_method_must() -> None:
    """The same checks as `fer-bench check`."""
    conforms(FILE)


@pytest.mark.parametrize(("power", "share"), [(0.0, 1 / 2), (0.5, 1 / 4), (1.0, 1 / 10)])
def test_the_share_of_the_rare_class_is_that_of_the_formula(power: float, share: float) -> None:
    """1,000 and 9,000 images: 1000^p / (1000^p + 9000^p) is 1/(1 + 9^p). A share of 10,000 draws is within 0.02."""
    labels = np.repeat([0, 1], [1_000, 9_000])
    view = TrainView(images=torch.zeros(10_000, 1, 1, 1, dtype=torch.uint8), labels=labels, num_classes=2)
    drawn = load_plugin(FILE)({"power": power}).draw(view, 0, np.random.default_rng(0))
    assert len(drawn) == 10_000
    assert (labels[drawn] == 0).mean() == pytest.approx(share, abs=0.02)

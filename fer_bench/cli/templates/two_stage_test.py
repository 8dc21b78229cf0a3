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


def test_the_second_stage_trains_the_classifier_alone() -> None:
    """A tenth of 20 epochs is two."""
    first, second = load_plugin(FILE)().stages()
    assert (first.length(20), first.freeze) == (20, ())
    assert (second.length(20), second.freeze, second.reinit) == (2, ("trunk",), ("head",))


def test_the_second_stage_is_balanced_and_the_first_is_not() -> None:
    """100 and 9,900 images, and a class without any: 1 % of the first epoch is rare, and half of the second one."""
    labels = np.repeat([0, 2], [100, 9_900])
    view = TrainView(images=torch.zeros(10_000, 1, 1, 1, dtype=torch.uint8), labels=labels, num_classes=3)
    method = load_plugin(FILE)()
    for stage, share in zip(method.stages(), (0.01, 0.5), strict=True):
        drawn = method.streams(stage)["main"].sampler(view, 0, np.random.default_rng(0))
        assert (labels[drawn] == 0).mean() == pytest.approx(share, abs=0.02)

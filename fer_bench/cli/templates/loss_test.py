"""Tests of new_method; run them with pytest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fer_bench import Context, Output, conforms, load_plugin

FILE = Path(__file__).parents[1] / "new_method.py"


def method(tau: float) -> Any:
    """The method, on a training fold with 10 images of the first class and 90 of the second."""
    made = load_plugin(FILE)({"tau": tau})
    made.ctx = Context(
        classes=("rare", "frequent"),
        counts=np.array([10, 90]),
        image_shape=(1, 48, 48),
        seed=0,
        epochs=1,
        batch_size=2,
        device=torch.device("cpu"),
        recipe={},
    )
    return made


def test_it_keeps_what_every_method_must() -> None:
    """The same checks as `fer-bench check`."""
    conforms(FILE)


def test_equal_logits_give_the_training_shares() -> None:
    """With logits 0 the softmax of log π is π, so the loss of the rare class is -log 0.1."""
    loss = method(tau=1.0).criterion(Output(logits=torch.zeros(1, 2)), torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log(0.1))


def test_without_strength_it_is_cross_entropy() -> None:
    """The softmax of (log 3, 0) is (3/4, 1/4)."""
    loss = method(tau=0.0).criterion(Output(logits=torch.tensor([[math.log(3), 0.0]])), torch.tensor([1]))
    assert loss.item() == pytest.approx(-math.log(1 / 4))

"""Tests of new_method; run them with pytest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fer_bench import Batch, Context, conforms, load_plugin

FILE = Path(__file__).parents[1] / "new_method.py"


def test_it_keeps_what_every_method_must() -> None:
    """The same checks as `fer-bench check`."""
    conforms(FILE)


def test_weights_are_those_of_the_paper() -> None:
    """β = 1/2, one and two images: (1/2)/(1/2) = 1 and (1/2)/(3/4) = 2/3, which are 6/5 and 4/5 with the sum 2."""
    method = load_plugin(FILE)({"beta": 0.5})
    method.ctx = Context(
        classes=("rare", "frequent"),
        counts=np.array([1, 2]),
        image_shape=(1, 48, 48),
        seed=0,
        epochs=1,
        batch_size=2,
        device=torch.device("cpu"),
        recipe={},
    )
    images, labels = torch.zeros(2, 1, 48, 48), torch.tensor([0, 1])
    batch = Batch(views=[images], y=labels, index=torch.arange(2), generator=torch.Generator())
    assert method.image_weights(batch).tolist() == pytest.approx([6 / 5, 4 / 5])

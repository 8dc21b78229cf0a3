"""Tests of new_method; run them with pytest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from fer_bench import conforms, load_plugin

FILE = Path(__file__).parents[1] / "new_method.py"


def test_it_keeps_what_every_method_must() -> None:
    """The same checks as `fer-bench check`."""
    conforms(FILE)


def test_it_separates_what_can_be_separated_and_never_says_a_class_without_images() -> None:
    """Features left and right of zero; the second of three classes has no training image."""
    method = load_plugin(FILE)()
    method.ctx = SimpleNamespace(num_classes=3)
    method.fit_estimator(np.array([[-2.0], [-1.0], [1.0]]), np.array([0, 0, 2]))
    again = load_plugin(FILE)()
    again.ctx = method.ctx
    again.load_state_dict(method.state_dict())
    scores = again.predict_estimator(np.array([[-3.0], [3.0]]))
    assert scores.argmax(1).tolist() == [0, 2]
    assert (scores[:, 1] == -100.0).all()

"""Tests of new_method; run them with pytest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from fer_bench import Batch, conforms, load_plugin

FILE = Path(__file__).parents[1] / "new_method.py"


def test_it_keeps_what_every_method_must() -> None:
    """The same checks as `fer-bench check`."""
    conforms(FILE)


def test_images_and_labels_have_the_same_shares() -> None:
    """An image is filled with its label, 0 or 1: so a mixed one is filled with the share of class 1 in its target."""
    method = load_plugin(FILE)({"alpha": 1.0})
    method.ctx = SimpleNamespace(num_classes=2)
    labels = torch.tensor([0, 1, 0, 1])
    images = labels.float().reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    batch = Batch(views=[images], y=labels, index=torch.arange(4), generator=torch.Generator().manual_seed(1))
    mixed = method.on_batch(batch)
    assert torch.allclose(mixed.x, mixed.soft[:, 1].reshape(4, 1, 1, 1).expand(4, 1, 8, 8))
    assert torch.allclose(mixed.soft.sum(1), torch.ones(4))
    assert ((mixed.soft > 0.01) & (mixed.soft < 0.99)).any(), "nothing was mixed"

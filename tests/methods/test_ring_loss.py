"""Ring loss against its formula, and the radius that the first batch sets."""

import numpy as np
import pytest
import torch

from fer_bench.methods.ring_loss import RingLoss, feature_lengths


def test_lengths_by_hand_and_their_gradient_at_zero():
    f = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    lengths = feature_lengths(f)
    lengths.sum().backward()
    torch.testing.assert_close(lengths, torch.tensor([5.0, 1e-6]))
    torch.testing.assert_close(f.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_the_first_batch_sets_the_radius_and_later_ones_do_not(make_method, tiny_trunk, make_batch):
    method = make_method(RingLoss)
    model = method.build_model(tiny_trunk).train()
    first = method.training_step(model, make_batch())
    mean = np.linalg.norm(first.output.features.detach().double(), axis=1).mean()
    assert model.radius.item() == pytest.approx(mean, rel=1e-5)
    method.training_step(model, make_batch(seed=1))
    assert model.radius.item() == pytest.approx(mean, rel=1e-5)


def test_loss_and_gradient_of_the_radius(make_method, tiny_trunk, make_batch):
    method, batch = make_method(RingLoss, {"weight": 0.5}), make_batch()
    model = method.build_model(tiny_trunk).train()
    with torch.no_grad():
        model.radius.fill_(2.0)
    loss = method.training_step(model, batch)
    gaps = np.linalg.norm(loss.output.features.detach().double(), axis=1) - 2
    assert loss.parts["ring"].item() == pytest.approx((gaps**2).mean() / 2, rel=1e-5)
    torch.testing.assert_close(loss.total, loss.parts["ce"] + 0.5 * loss.parts["ring"])
    loss.total.backward()
    assert model.radius.grad.item() == pytest.approx(-0.5 * gaps.mean(), rel=1e-4)

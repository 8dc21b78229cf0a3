"""ArcFace, CosFace and SphereFace: the margins and their losses against float64 formulas."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Output
from fer_bench.methods.arcface import ArcFace, card, with_margins

ANGLES = torch.tensor([0.3, 1.0, 2.0, 2.5])


def test_additive_angle():
    expected = [math.cos(0.8), math.cos(1.5), math.cos(2.5), math.cos(3.0)]
    torch.testing.assert_close(with_margins(ANGLES.cos(), 1.0, 0.5, 0.0), torch.tensor(expected))


def test_additive_cosine():
    torch.testing.assert_close(with_margins(ANGLES.cos(), 1.0, 0.0, 0.35), ANGLES.cos() - 0.35)


def test_factor_on_the_angle_continues_beyond_pi():
    # 4 θ is 1.2, 4, 8 and 10: 0, 1, 2 and 3 half turns
    expected = [math.cos(1.2), -math.cos(4) - 2, math.cos(8) - 4, -math.cos(10) - 6]
    torch.testing.assert_close(with_margins(ANGLES.cos(), 4.0, 0.0, 0.0), torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("margins", [(1.0, 0.5, 0.0), (1.35, 0.0, 0.0), (4.0, 0.0, 0.0), (1.2, 0.4, 0.2)])
def test_the_label_s_logit_falls_over_the_whole_range_of_the_angle(margins):
    cosines = torch.linspace(1, -1, 4001)
    falling = with_margins(cosines, *margins)
    assert (falling.diff() <= 1e-5).all()
    assert falling.diff().abs().max() < 0.2  # without a jump
    assert (falling <= cosines + 1e-5).all()


@pytest.mark.parametrize("params", [{}, {"m2": 0.0, "m3": 0.35}, {"m1": 1.35, "m2": 0.0}], ids=str)
def test_loss_and_gradient_follow_the_formula(make_method, params):
    method = make_method(ArcFace, {"scale": 16.0, **params})
    m = {"m1": 1.0, "m2": 0.5, "m3": 0.0, **params}
    y = torch.tensor([2, 0, 5])
    logits = (16 * (torch.rand(3, 7) * 1.4 - 0.7)).requires_grad_()
    losses = method.criterion(Output(logits=logits), y)
    z = logits.detach().double().requires_grad_()
    expected = []
    for i, label in enumerate(y.tolist()):
        own = 16 * (torch.cos(m["m1"] * torch.acos(z[i, label] / 16) + m["m2"]) - m["m3"])
        others = sum(torch.exp(z[i, k]) for k in range(7) if k != label)
        expected.append(-own + torch.log(own.exp() + others))
    np.testing.assert_allclose(losses.detach(), torch.stack(expected).detach(), rtol=1e-4)
    losses.sum().backward()
    torch.stack(expected).sum().backward()
    np.testing.assert_allclose(logits.grad, z.grad, rtol=1e-3, atol=1e-6)
    soft = method.criterion(Output(logits=logits), F.one_hot(y, 7).float())
    torch.testing.assert_close(soft, losses)


def test_parallel_and_opposite_features_have_finite_gradients(make_method):
    logits = torch.tensor([[64.0, -64.0, 0.0], [-64.0, 64.0, 64.0]], requires_grad=True)
    make_method(ArcFace, counts=[1, 1, 1]).criterion(Output(logits=logits), torch.tensor([0, 0])).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_predictions_are_scaled_cosines(make_method, tiny_trunk, make_batch):
    method = make_method(ArcFace)
    model = method.build_model(tiny_trunk).eval()
    output = method.predict(model, make_batch().x)
    cosines = F.normalize(output.features, dim=1) @ F.normalize(model.head.weight, dim=1).T
    torch.testing.assert_close(output.logits, 64 * cosines)
    assert set(card.also_known) == {"cosface", "sphereface"}

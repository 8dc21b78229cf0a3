"""Centre, island and attentive centre loss: distances and steps of the centres worked out by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import LossOut, Output
from fer_bench.methods._shared.centers import center_steps, island_steps, pairwise_cosines, squared_gaps
from fer_bench.methods.center_loss import CenterLoss
from fer_bench.methods.dacl import DACL

CENTERS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
FEATURES = torch.tensor([[1.0, 1.0], [3.0, 1.0], [2.0, 2.0]])
LABELS = F.one_hot(torch.tensor([0, 1, 1]), 3).float()


def test_squared_distances_by_hand():
    assert squared_gaps(FEATURES, CENTERS, LABELS).tolist() == [[1, 1], [1, 1], [0, 4]]


def test_distance_of_shared_labels_is_the_expected_one():
    shares = torch.tensor([[0.25, 0.0, 0.75]])
    # dimension 1: (1 - 0)² either way; dimension 2: 0.25 · 1 + 0.75 · 9
    torch.testing.assert_close(squared_gaps(FEATURES[:1], CENTERS, shares), torch.tensor([[1.0, 7.0]]))


def test_centers_move_to_the_mean_slowed_down_by_one_image_and_an_absent_class_stays():
    # class 0: (0 - 1)/2 twice; class 1: ((2-3) + (2-2))/3 and ((0-1) + (0-2))/3
    expected = torch.tensor([[-0.5, -0.5], [-1 / 3, -1.0], [0.0, 0.0]])
    torch.testing.assert_close(center_steps(CENTERS, FEATURES, LABELS), expected)


def test_steps_count_dimensions_by_their_attention():
    attention = torch.tensor([[0.5, 0.0], [1.0, 1.0], [1.0, 0.5]])
    expected = torch.tensor([[-0.25, 0.0], [-1 / 3, -2 / 3], [0.0, 0.0]])
    torch.testing.assert_close(center_steps(CENTERS, FEATURES, LABELS, attention), expected)


def test_pairs_of_centers_by_hand():
    # at right angles: cos 0; opposite: -1; of the third pair again 0. Each pair counts twice
    centers = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    assert pairwise_cosines(centers).item() == pytest.approx(2 * (1 + 0 + 1))


def test_island_steps_are_the_gradient_over_the_number_of_others():
    centers = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    steps = island_steps(centers.detach())
    for j in range(4):
        row = centers[j]
        cosines = sum(F.cosine_similarity(row, centers[k].detach(), dim=0) for k in range(4) if k != j)
        (gradient,) = torch.autograd.grad(cosines, centers)
        np.testing.assert_allclose(steps[j], gradient[j] / 3, rtol=1e-9)


def test_a_center_of_length_zero_makes_nothing_that_is_not_finite():
    assert torch.isfinite(island_steps(CENTERS)).all()
    assert torch.isfinite(pairwise_cosines(CENTERS))


@pytest.mark.parametrize(("cls", "params"), [(CenterLoss, {"island": 10.0}), (CenterLoss, {}), (DACL, {})])
def test_loss_and_gradient_follow_the_formula(make_method, tiny_trunk, make_batch, cls, params):
    method, batch = make_method(cls, {"weight": 0.1, **params}), make_batch()
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    f, c = loss.output.features, model.centers.double().numpy()
    gaps = f.detach().double().numpy() - c[batch.y]
    attention = loss.output.extra.get("attention", torch.ones_like(f)).detach().double().numpy()
    ce = F.cross_entropy(loss.output.logits.double(), batch.y).item()
    unit = c / np.linalg.norm(c, axis=1, keepdims=True)
    pairs = sum(unit[j] @ unit[k] + 1 for j in range(7) for k in range(7) if j != k)
    center = (attention * gaps**2).sum() / (2 * len(f)) + params.get("island", 0.0) * pairs
    assert loss.total.item() == pytest.approx(ce + 0.1 * center, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss.parts["center"], f, retain_graph=True)
    if cls is CenterLoss:
        np.testing.assert_allclose(gradient, gaps / len(f), rtol=1e-4, atol=1e-7)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    soft = method.training_step(model, dataclasses.replace(batch, soft=F.one_hot(batch.y, 7).float()))
    torch.testing.assert_close(soft.parts["center"], loss.parts["center"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", [CenterLoss, DACL])
def test_centers_take_their_step_after_the_weights(make_method, tiny_trunk, make_batch, cls):
    method, batch = make_method(cls), make_batch()
    model = method.build_model(tiny_trunk).train()
    before = model.centers.clone()
    features, attention = torch.randn(4, 128), torch.rand(4, 128)
    output = Output(logits=torch.zeros(4, 7), features=features, extra={"attention": attention})
    method.on_step_end(model, batch, LossOut(total=torch.zeros(()), output=output))
    weights = attention if cls is DACL else torch.ones_like(features)
    for k in range(7):
        members = batch.y == k
        pull = (weights[members] * (before[k] - features[members])).sum(0) / (1 + members.sum())
        torch.testing.assert_close(model.centers[k], before[k] - 0.5 * pull)


def test_centers_are_buffers_of_the_network_and_not_learned(make_method, tiny_trunk):
    model = make_method(CenterLoss).build_model(tiny_trunk)
    assert "centers" in dict(model.named_buffers())
    assert "centers" not in dict(model.named_parameters())
    assert 0.8 < model.centers.norm(dim=1).mean() < 1.2


def test_attention_is_left_out_of_predictions(make_method, tiny_trunk, make_batch):
    method = make_method(DACL)
    model = method.build_model(tiny_trunk).eval()
    assert method.predict(model, make_batch().x).extra == {}
    assert [m.out_features for m in model.attention if hasattr(m, "out_features")] == [164, 512, 64, 256]

"""RUL: mixing by uncertainty worked out by hand, and a step against its formula."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.method import Stage
from fer_bench.methods.rul import RUL, mixed_by_uncertainty

SMALL = {"features": 8}


def test_mixing_by_hand():
    mu = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]])
    u = torch.tensor([1.0, 3.0, 1.0])
    mixed = mixed_by_uncertainty(mu, u.log(), torch.tensor([1, 2, 0]))
    # shares of the first of each pair: 1/4, 3/4, 1/2
    torch.testing.assert_close(mixed, torch.tensor([[0.25, 1.5], [1.0, 2.5], [2.5, 2.0]]))


def test_uncertainties_beyond_float32_are_mixed_all_the_same():
    mixed = mixed_by_uncertainty(torch.eye(2), torch.tensor([200.0, 200.0]), torch.tensor([1, 0]))
    torch.testing.assert_close(mixed, torch.full((2, 2), 0.5))


def test_an_image_mixed_with_itself_stays():
    mu = torch.randn(3, 4)
    torch.testing.assert_close(mixed_by_uncertainty(mu, torch.randn(3), torch.arange(3)), mu)


def test_uncertainty_is_the_mean_variance(make_method, tiny_trunk, make_batch):
    model = make_method(RUL, SMALL | {"dropout": 0.0}).build_model(tiny_trunk).train()
    output = model(make_batch().x)
    log_var = model.log_var(output.fmap.detach()).detach().double().numpy()
    np.testing.assert_allclose(output.extra["log_uncertainty"].detach(), np.log(np.exp(log_var).mean(1)), rtol=1e-4)


def test_loss_is_half_that_of_each_label_of_a_pair(make_method, tiny_trunk, make_batch):
    method, batch = make_method(RUL, SMALL | {"dropout": 0.0}), make_batch()
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    output = model(batch.x)
    order = torch.randperm(4, generator=method.generator("pairs"))
    assert order.tolist() != [0, 1, 2, 3]
    mu, u = output.features.detach().double(), output.extra["log_uncertainty"].detach().double().exp()
    w, b = (p.detach().double() for p in model.head.parameters())
    expected = 0.0
    for i, j in enumerate(order.tolist()):
        z = w @ ((u[i] * mu[i] + u[j] * mu[j]) / (u[i] + u[j])) + b
        expected += (-0.5 * z.log_softmax(0)[batch.y[i]] - 0.5 * z.log_softmax(0)[batch.y[j]]) / 4
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-4)
    soft = method.training_step(model, dataclasses.replace(batch, soft=F.one_hot(batch.y, 7).float()))
    torch.testing.assert_close(soft.total, loss.total)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_prediction_leaves_the_uncertainties_out(make_method, tiny_trunk, make_batch):
    method, batch = make_method(RUL, SMALL), make_batch()
    model = method.build_model(tiny_trunk).eval()
    before = method.predict(model, batch.x).logits
    with torch.no_grad():
        for p in model.log_var.parameters():
            p.fill_(3.0)
    assert torch.equal(method.predict(model, batch.x).logits, before)


def test_only_the_classifier_learns_at_a_rate_of_its_own(make_method, tiny_trunk):
    method = make_method(RUL, SMALL | {"head_lr": 10.0})
    object.__setattr__(method.ctx, "recipe", {"weight_decay": 0.01})
    model = method.build_model(tiny_trunk)
    groups = method.param_groups(model, Stage())
    fast = {id(p) for g in groups if g["lr_scale"] == 10 for p in g["params"]}
    assert fast == {id(p) for p in model.head.parameters()}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert all((p.ndim > 1) == (g["weight_decay"] == 0.01) for g in groups for p in g["params"])

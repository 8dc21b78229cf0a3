"""The memory of class centroids, against formulas worked out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fer_bench.methods._shared.memory import Memory, ModulatedAttention, SquashedCosine, centroid_loss
from fer_bench.methods.baseline_resnet import BaselineResNet
from fer_bench.methods.oltr import Oltr

SECOND = {"second.epochs": 0.5}


def draws(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_attention_changes_nothing_at_first():
    fmap = draws(2, 8, 3, 4)
    assert torch.equal(ModulatedAttention((8, 3, 4))(fmap), fmap)


def test_attention_is_self_attention_weighed_by_position():
    module, fmap = ModulatedAttention((6, 2, 3)), draws(2, 6, 2, 3)
    with torch.no_grad():
        module.out.weight.normal_()
    x = fmap.double().numpy().reshape(2, 6, 6)  # [B, D, positions]
    convolved = {}
    for name in ("value", "query", "key"):
        part = getattr(module, name)
        weight = part.weight.detach().double().numpy()[:, :, 0, 0]
        convolved[name] = np.einsum("cd,bdp->bcp", weight, x) + part.bias.detach().numpy()[:, None]
    expected = x.copy()
    for b in range(2):
        attention = softmax(convolved["query"][b].T @ convolved["key"][b])  # [p, p']
        seen = convolved["value"][b] @ attention.T
        mask = module.out.weight.detach().double().numpy()[:, :, 0, 0] @ seen
        where = module.where.weight.detach().double().numpy() @ x[b].reshape(-1) + module.where.bias.detach().numpy()
        expected[b] += softmax(where) * mask
    np.testing.assert_allclose(module(fmap).detach().numpy().reshape(2, 6, 6), expected, atol=1e-4)


def test_logits_are_squashed_cosines():
    head, x = SquashedCosine(2, 2, 16.0), torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e4, 4e4]])
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, -0.1]]))
    five = 16 * 5 / 6
    expected = [[0.6 * five, -0.8 * five], [0.0, 0.0], [16 * 0.6, -16 * 0.8]]
    torch.testing.assert_close(head(x), torch.tensor(expected), atol=1e-3, rtol=0)


def test_the_memory_adds_what_it_recalls_and_scales_by_nearness():
    memory, x, z = Memory(5, 3, 16.0), draws(4, 5), draws(4, 3, seed=1)
    with torch.no_grad():
        memory.centroids.normal_()
    m, f = memory.centroids.detach().double().numpy(), x.double().numpy()
    nearest = np.min(np.linalg.norm(f[:, None] - m[None], axis=2), axis=1, keepdims=True)
    select = np.tanh(f @ memory.selector.weight.detach().double().numpy().T + memory.selector.bias.detach().numpy())
    v = 10 / nearest * (f + select * (softmax(z.double().numpy()) @ m))
    w = memory.cosine.weight.detach().double().numpy()
    length = np.linalg.norm(v, axis=1, keepdims=True)
    expected = 16 * (v / (1 + length)) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    np.testing.assert_allclose(memory(x, z).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_feature_on_its_centroid_does_no_harm():
    memory = Memory(3, 2, 16.0)
    x = torch.zeros(1, 3, requires_grad=True)
    memory(x, torch.zeros(1, 2)).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(memory.centroids.grad).all()


def test_the_centroids_loss_and_its_gradients():
    x, y, centroids = draws(4, 3).requires_grad_(), torch.tensor([0, 0, 1, 0]), draws(3, 3, seed=1).requires_grad_()
    loss = centroid_loss(x, y, centroids)
    f, m = x.detach().double().numpy(), centroids.detach().double().numpy()
    gaps = ((f[:, None] - m[None]) ** 2).sum(2)
    own = gaps[range(4), y.numpy()].sum() / 8
    away = (gaps.sum() - gaps[range(4), y.numpy()].sum()) / 12
    assert away < 10
    assert loss.item() == pytest.approx(own + 0.01 * (10 - away), rel=1e-5)
    loss.backward()
    repel_m = np.zeros_like(m)
    for c in range(3):
        for i in range(4):
            if y[i] != c:
                repel_m[c] += 0.01 * 2 * (f[i] - m[c]) / 12
    attract_m = np.zeros_like(m)
    for c in range(3):
        mine = y.numpy() == c
        attract_m[c] = (m[c] - f[mine]).sum(0) / (1 + mine.sum()) / 4
    np.testing.assert_allclose(centroids.grad.numpy(), attract_m + repel_m, rtol=1e-4, atol=1e-7)
    repel_f = np.stack([sum(-0.01 * 2 * (f[i] - m[c]) / 12 for c in range(3) if c != y[i]) for i in range(4)])
    np.testing.assert_allclose(x.grad.numpy(), (f - m[y.numpy()]) / 4 + repel_f, rtol=1e-4, atol=1e-7)


def test_the_first_stage_is_plain_training_and_the_memory_starts_from_class_means(fit_small):
    plain, run = fit_small(BaselineResNet), fit_small(Oltr, {**SECOND, "second.lr": 0.001})
    for ours, theirs in zip(run.weights[:2], plain.weights, strict=True):
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    images = (run.view.images.float() / 255 - 0.5) / 0.25
    plain.model.eval()
    with torch.no_grad():
        features = plain.model(images).features
    means = torch.stack([features[run.view.labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(run.states[1]["means"], means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.weights[2]["memory.centroids"], means, rtol=0.02, atol=1e-3)
    assert (run.states[1]["remembers"], run.states[2]["remembers"]) == (False, True)


def test_everything_learns_in_the_second_stage_and_is_read_out(fit_small):
    run = fit_small(Oltr, SECOND)
    before, after = run.weights[1:]
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"trunk", "head", "attention", "memory"}
    again = Oltr(run.method.params)
    again.ctx = run.method.ctx
    again.load_state_dict(run.states[2])
    run.model.eval()
    x = torch.randn(2, 1, 24, 24)
    with torch.no_grad():
        assert torch.equal(again.predict(run.model, x).logits, run.model.remember(x).logits)
        assert run.model.remember(x).logits.abs().max() <= 16


def test_the_trunk_learns_more_slowly(make_method, tiny_trunk):
    method = make_method(Oltr, {"second.trunk_lr": 0.2})
    model = method.build_model(tiny_trunk)
    groups = method.param_groups(model, method.stages()[1])
    factor = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    assert {factor[id(p)] for p in model.trunk.parameters()} == {0.2}
    assert {factor[id(p)] for n, p in model.named_parameters() if not n.startswith("trunk")} == {1.0}
    assert len(factor) == len(list(model.parameters()))


def test_insight_tells_the_centroids_that_are_recalled_and_nothing_before_there_is_a_memory(make_method, tiny_trunk):
    method = make_method(Oltr, SECOND)
    x = draws(3, *method.ctx.image_shape)
    model = method.build_model(tiny_trunk).eval()
    assert not method.insight(model, x).maps
    method.remembers = True
    told = method.insight(model, x)
    torch.testing.assert_close(told.maps["attention"].sum((1, 2)), torch.ones(3))
    # at first the attention changes nothing, so the memory gets the shares of the plain classifier
    np.testing.assert_allclose(told.shares.detach(), softmax(model(x).logits.detach().numpy()), atol=1e-5)
    assert told.sources == method.ctx.classes

"""DAN: both losses against float64 loops, and the network against the formulas of its heads."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.methods._shared.attention_heads import AttentionHead
from fer_bench.methods.dan import DAN, affinity_loss, partition_loss


def test_affinity_loss_and_its_gradients():
    f, c = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    y = torch.tensor([0, 3, 3, 1, 0])
    affinity_loss(f, c, F.one_hot(y, 4).float()).backward()
    g, d = f.detach().double().requires_grad_(), c.detach().double().requires_grad_()
    variance = sum(((d[:, j] - d[:, j].sum() / 4) ** 2).sum() / 3 for j in range(3))
    expected = sum(((g[i] - d[k]) ** 2).sum() for i, k in enumerate(y.tolist())) / 5 / variance
    expected.backward()
    assert affinity_loss(f, c, F.one_hot(y, 4).float()).item() == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(f.grad, g.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(c.grad, d.grad, rtol=1e-4, atol=1e-6)


def test_partition_loss_by_hand():
    # of each image and dimension the variance over two heads is (a - b)²/2: 2, 0, 0.5, 8; mean 2.625
    heads = torch.tensor([[[1.0, 3.0], [3.0, 3.0]], [[0.0, 0.0], [1.0, 4.0]]])
    assert partition_loss(heads).item() == pytest.approx(math.log(1 + 2 / 2.625), rel=1e-6)


def test_heads_that_agree_cost_much_but_not_infinitely():
    heads = torch.ones(2, 3, 4, requires_grad=True)
    loss = partition_loss(heads)
    loss.backward()
    assert 20 < loss.item() < 100
    assert torch.isfinite(heads.grad).all()


def test_one_head_has_nothing_to_be_told_apart_from(make_method, tiny_trunk, make_batch):
    method, batch = make_method(DAN, {"heads": 1}), make_batch()
    model = method.build_model(tiny_trunk).eval()
    output = model(batch.x)
    assert partition_loss(output.extra["heads"]).item() == 0.0
    torch.testing.assert_close(output.features, model.heads[0](output.fmap))


def test_insight_is_what_the_heads_multiply_the_map_by(make_method, tiny_trunk, make_batch):
    method, batch = make_method(DAN, {"heads": 2}), make_batch()
    model = method.build_model(tiny_trunk).eval()
    maps, fmap = method.insight(model, batch.x).maps, model(batch.x).fmap
    assert list(maps) == ["head 1", "head 2"]
    pooled = (fmap * maps["head 2"][:, None]).mean((2, 3))
    torch.testing.assert_close(model.heads[1](fmap), pooled * model.heads[1].gate(pooled))


def test_a_head_follows_its_formula():
    head, fmap = AttentionHead(32).eval(), torch.randn(2, 32, 3, 3)
    conv, norm = head.reduce
    assert (conv.out_channels, head.gate[0].out_features) == (16, 2)
    middle = norm(conv(fmap))
    shapes = [((3, 3), (1, 1)), ((1, 3), (0, 1)), ((3, 1), (1, 0))]
    total = 0
    for (convolution, batch_norm), (size, padding) in zip(head.look, shapes, strict=True):
        assert convolution.kernel_size == size
        total = total + batch_norm(F.conv2d(middle, convolution.weight, convolution.bias, padding=padding))
    pooled = (fmap * total.clamp_min(0).sum(1, keepdim=True)).mean((2, 3))
    torch.testing.assert_close(head(fmap), pooled * head.gate(pooled))


def test_logits_read_the_sum_of_the_heads_log_shares(make_method, tiny_trunk, make_batch):
    model = make_method(DAN).build_model(tiny_trunk).eval()
    output = model(make_batch().x)
    heads = torch.stack([head(output.fmap) for head in model.heads], 1).double()
    shares = heads.exp() / heads.exp().sum(1, keepdim=True)
    torch.testing.assert_close(output.features, shares.log().sum(1).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, model.classify(output.features))


def test_a_step_adds_both_losses_and_moves_everything(make_method, tiny_trunk, make_batch):
    method, batch = make_method(DAN, {"affinity": 0.5, "partition": 2.0}), make_batch()
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    parts = loss.parts
    torch.testing.assert_close(loss.total, parts["ce"] + 0.5 * parts["affinity"] + 2 * parts["partition"])
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.centers.grad.abs().sum() > 0

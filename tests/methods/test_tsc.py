"""TSC against plain loops in float64, and its corners by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Batch
from fer_bench.errors import SpecError
from fer_bench.methods._shared.contrastive import some_positives
from fer_bench.methods._shared.corners import simplex
from fer_bench.methods.tsc import TSC

COUNTS = (60, 25, 10)


def views_batch(size=6, epoch=0):
    g = torch.Generator().manual_seed(0)
    x = [torch.randn(size, 1, 32, 32, generator=g) for _ in range(2)]
    return Batch(views=x, y=torch.arange(size) % 3, index=torch.arange(size), generator=g, epoch=epoch)


def loss_by_loops(z, y, chosen, corners, weight, tau):
    z, losses = z.double(), []
    for i in range(len(z)):
        bottom = sum(math.exp(float(z[i] @ z[a]) / tau) for a in range(len(z)) if a != i)
        bottom += sum(math.exp(float(z[i] @ c) / tau) for c in corners.double())
        log_q = [float(z[i] @ z[p]) / tau - math.log(bottom) for p in range(len(z)) if chosen[i, p]]
        total, count = sum(log_q), len(log_q)
        if len(corners):
            total += weight * (float(z[i] @ corners[y[i]].double()) / tau - math.log(bottom))
            count += 1
        losses.append(-total / count)
    return losses


def test_corners_lie_as_far_apart_as_they_can():
    for n in (2, 3, 7):
        corners = simplex(n)
        expected = torch.full((n, n), -1 / (n - 1)).fill_diagonal_(1.0)
        torch.testing.assert_close(corners @ corners.T, expected)


def test_classes_get_the_corners_that_lie_nearest_together(make_method, tiny_trunk):
    model = make_method(TSC, {"dim": 8}, counts=COUNTS).build_model(tiny_trunk)
    model.centres.copy_(model.corners[[2, 0, 1]])
    model.match()
    assert model.corner_of.tolist() == [2, 0, 1]


def test_centres_move_a_tenth_of_the_way_and_absent_classes_stay(make_method, tiny_trunk):
    model = make_method(TSC, {"dim": 8}, counts=COUNTS).build_model(tiny_trunk)
    axes = torch.eye(8)
    model.centres.copy_(axes[:3])
    model.follow(axes[[7, 7]], torch.tensor([0, 0]))
    expected = (0.9 * axes[0] + 0.1 * axes[7]) / math.hypot(0.9, 0.1)
    torch.testing.assert_close(model.centres, torch.stack([expected, *axes[1:3]]))


@pytest.mark.parametrize("epoch", [0, 1])
def test_loss_equals_plain_loops_before_and_after_the_corners_count(make_method, tiny_trunk, epoch):
    params = {"dim": 8, "positives": 1, "temperature": 0.3, "target": 0.4}
    method = make_method(TSC, params, counts=COUNTS)  # two epochs, so the corners count in the second
    model, batch, seen = method.build_model(tiny_trunk).train(), views_batch(epoch=epoch), []
    model.projector.register_forward_hook(lambda _, given, z: seen.append(z.detach()))
    loss = method.training_step(model, batch).total
    y, images = batch.y.repeat(2), torch.arange(6).repeat(2)
    chosen = some_positives(y, images, 1, method.generator("positives"))
    corners = model.corners if epoch else model.corners[:0]
    expected = loss_by_loops(seen[0], y, chosen, corners, 0.4, 0.3)
    assert loss.item() == pytest.approx(sum(expected) / 12, rel=1e-5)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.trunk.parameters())


def test_corner_of_a_class_follows_the_match(make_method, tiny_trunk):
    method = make_method(TSC, {"dim": 8, "target.from": 0.0}, counts=COUNTS)
    model, batch = method.build_model(tiny_trunk).eval(), views_batch()
    plain = method.training_step(model, batch).total
    model.corner_of.copy_(torch.tensor([1, 2, 0]))
    assert not torch.equal(method.training_step(model, batch).total, plain)


def test_batch_of_one_and_an_empty_class_leave_finite_gradients(make_method, tiny_trunk):
    method = make_method(TSC, {"dim": 8, "target.from": 0.0}, counts=(60, 0, 10))
    model = method.build_model(tiny_trunk).train()
    method.on_epoch_start(0, model)
    loss = method.training_step(model, views_batch(size=1)).total
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_second_stage_is_cross_entropy(make_method, tiny_trunk):
    method = make_method(TSC, counts=COUNTS)
    model, batch = method.build_model(tiny_trunk).eval(), views_batch()
    batch = batch.with_(views=batch.views[:1])
    expected = F.cross_entropy(model(batch.x).logits, batch.y)
    torch.testing.assert_close(method.training_step(model, batch).total, expected)
    assert method.stages()[1].freeze == ("trunk", "projector")


def test_more_classes_than_dimensions_are_refused(make_method, tiny_trunk):
    with pytest.raises(SpecError, match="9 classes"):
        make_method(TSC, {"dim": 8}, counts=(5,) * 9).build_model(tiny_trunk)

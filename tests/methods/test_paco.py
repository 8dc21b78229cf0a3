"""PaCo's loss against plain loops in float64; the queue and the moving average, also over a restart."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench.contract.batch import Batch
from fer_bench.contract.method import Stage
from fer_bench.methods._shared.momentum import MomentumCopy, Queue
from fer_bench.methods.paco import PaCo

COUNTS = (60, 25, 10, 5)
SMALL = {"dim": 4, "queue": 10, "alpha": 0.05, "temperature": 0.3}


def views_batch(size=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = [torch.randn(size, 1, 32, 32, generator=g) for _ in range(2)]
    return Batch(views=x, y=torch.arange(size) % 4, index=torch.arange(size), generator=g)


def step(method, model, batch):
    """One step as the harness takes it, with a plain step of gradient descent."""
    loss = method.training_step(model, batch)
    model.zero_grad()
    loss.total.backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= 0.1 * p.grad
    method.on_step_end(model, batch, loss)
    return loss


def paco_by_loops(logits, y, z, members, labels, prior, alpha, tau):
    """-(log q_y + α Σ_p log q_p) / (1 + α |P|) with one softmax q over classes and members, in float64."""
    losses = []
    for i in range(len(y)):
        row = [float(logits[i, c]) + math.log(prior[c]) for c in range(len(prior))]
        own, positives = int(y[i]), []
        for k in range(len(members)):
            if k == i or int(labels[k]) < 0:
                continue
            row.append(float(z[i] @ members[k]) / tau)
            if int(labels[k]) == own:
                positives.append(row[-1])
        bottom = math.log(sum(math.exp(v) for v in row))
        total = row[own] - bottom + alpha * sum(v - bottom for v in positives)
        losses.append(-total / (1 + alpha * len(positives)))
    return losses


def test_row_of_one_anchor_by_hand(make_method):
    # two equally frequent classes with logits 0; one other image of the class at similarity 1, τ = 1, α = 1/2:
    # the row is log ½, log ½, 1; bottom log(1 + e). -(log ½ - b + ½ (1 - b)) / 1.5
    method = make_method(PaCo, {"alpha": 0.5}, counts=(50, 50))
    close = torch.tensor([[9.0, 1.0]])  # the first is the anchor itself
    loss = method.losses(torch.zeros(1, 2), torch.tensor([0]), close, torch.tensor([0]), torch.tensor([0, 0]))
    b = math.log(1 + math.e)
    assert loss.item() == pytest.approx(-(math.log(0.5) - b + 0.5 * (1 - b)) / 1.5, rel=1e-6)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_loss_equals_plain_loops(make_method, tiny_trunk, steps):
    method = make_method(PaCo, SMALL, counts=COUNTS)
    model = method.build_model(tiny_trunk).train()
    for k in range(steps):  # an empty queue, one half full, one that has wrapped
        step(method, model, views_batch(seed=k + 1))
    batch, seen = views_batch(), []
    model.projector.register_forward_hook(lambda _, given, z: seen.append(z.detach().double()))
    old, labels = model.queue.entries()
    loss = method.training_step(model, batch)
    keys = loss.output.extra["keys"].double()
    members = torch.cat([seen[0], keys, old.double()])
    y = torch.cat([batch.y, batch.y, labels])
    logits = loss.output.logits.detach().double()
    expected = paco_by_loops(logits, batch.y, seen[0], members, y, np.array(COUNTS) / 100, 0.05, 0.3)
    assert loss.total.item() == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert int((labels >= 0).sum()) == min(4 * steps, 10)


def test_without_compared_images_it_is_the_logit_adjusted_loss(make_method):
    method = make_method(PaCo, counts=COUNTS)
    logits, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    close = torch.full((3, 5), 7.0)
    found = method.losses(logits, y, close, y, torch.full((5,), -1))
    prior = torch.tensor(COUNTS) / 100
    torch.testing.assert_close(found, F.cross_entropy(logits + prior.log(), y, reduction="none"))
    compared = method.losses(logits, y, close, y, torch.tensor([0, 1, 2, 3, -1]))
    assert (compared > found).all()  # an image of another class adds to the bottom alone


def test_one_hot_targets_give_the_loss_of_labels_and_soft_ones_mix_the_centres(make_method):
    method = make_method(PaCo, SMALL, counts=COUNTS)
    logits, y, close = torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.randn(3, 6)
    others = torch.tensor([0, 1, 2, 0, 3, -1])
    hard = method.losses(logits, y, close, y, others)
    torch.testing.assert_close(method.losses(logits, F.one_hot(y, 4).float(), close, y, others), hard)
    smoothed = method.losses(logits, 0.8 * F.one_hot(y, 4).float() + 0.05, close, y, others)
    assert torch.isfinite(smoothed).all()
    assert not torch.equal(smoothed, hard)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_extreme_logits_and_temperatures_leave_finite_gradients(make_method, scale):
    method = make_method(PaCo, counts=(60, 0, 10, 5))
    logits = (scale * torch.randn(3, 4)).requires_grad_()
    close = (200 * torch.randn(3, 6)).requires_grad_()
    y, others = torch.tensor([0, 2, 2]), torch.tensor([0, 2, 2, 0, 3, -1])
    loss = method.losses(logits, y, close, y, others).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(close.grad).all()


# -- the queue and the moving average --------------------------------------------------------------------------------


def test_queue_keeps_the_last_entries_and_wraps():
    queue = Queue(5, 1)
    assert queue.labels.tolist() == [-1] * 5
    for first in (0, 3, 6):  # 0 1 2, 3 4 5, 6 7 8
        n = torch.arange(first, first + 3)
        queue.add(n[:, None].float(), n)
    vectors, labels = queue.entries()
    assert sorted(labels.tolist()) == [4, 5, 6, 7, 8]
    assert vectors[:, 0].tolist() == labels.tolist()


def test_batch_larger_than_the_queue_leaves_its_last_entries():
    queue = Queue(3, 1)
    queue.add(torch.arange(7.0)[:, None], torch.arange(7))
    assert sorted(queue.labels.tolist()) == [4, 5, 6]


def test_entries_are_copies():
    queue = Queue(2, 1)
    vectors, _ = queue.entries()
    queue.add(torch.ones(1, 1), torch.tensor([3]))
    assert vectors.sum() == 0


def test_copy_follows_by_a_moving_average_and_never_learns():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(2.0)
    mine = MomentumCopy(module)
    with torch.no_grad():
        module.weight.fill_(4.0)
    mine.follow(module, 0.75)
    assert mine.module.weight.item() == 2.5  # 0.75 * 2 + 0.25 * 4
    assert not mine.module.weight.requires_grad


def test_step_moves_the_average_fills_the_queue_and_gives_the_copy_no_gradient(make_method, tiny_trunk):
    method = make_method(PaCo, {**SMALL, "momentum": 0.5}, counts=COUNTS)
    model, batch = method.build_model(tiny_trunk).train(), views_batch()
    was = model.key_trunk.module.body.conv1.weight.clone()
    assert torch.equal(was, model.trunk.body.conv1.weight)  # the copy starts equal
    loss = step(method, model, batch)
    weight = model.key_trunk.module.body.conv1.weight
    torch.testing.assert_close(weight, 0.5 * was + 0.5 * model.trunk.body.conv1.weight)
    assert not torch.equal(weight, was)
    assert weight.grad is None
    assert torch.equal(model.queue.labels[:4], batch.y)
    assert torch.equal(model.queue.vectors[:4], loss.output.extra["keys"])


def test_restart_from_the_saved_state_goes_on_bitwise(make_method, tiny_trunk):
    method = make_method(PaCo, SMALL, counts=COUNTS)
    model = method.build_model(tiny_trunk).train()
    for k in range(3):
        step(method, model, views_batch(seed=k))
    saved = copy.deepcopy(model.state_dict())
    fresh = make_method(PaCo, SMALL, counts=COUNTS)
    other = fresh.build_model(tiny_trunk).train()
    other.load_state_dict(saved)
    for k in range(3, 5):
        step(method, model, views_batch(seed=k))
        step(fresh, other, views_batch(seed=k))
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_evaluation_reads_the_classifier_alone(make_method, tiny_trunk):
    method = make_method(PaCo, SMALL, counts=COUNTS)
    model = method.build_model(tiny_trunk).eval()
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(method.predict(model, x).logits, model.head(model.trunk(x)[1]))
    assert method.streams(Stage())["main"].views == 2


def test_batch_of_one_leaves_finite_gradients(make_method, tiny_trunk):
    method = make_method(PaCo, SMALL, counts=COUNTS)
    model = method.build_model(tiny_trunk).train()
    for k in range(2):
        assert torch.isfinite(step(method, model, views_batch(size=1, seed=k)).total)
    assert all(torch.isfinite(p).all() for p in model.parameters())

"""Contrastive losses against plain loops in float64 that the tests write out themselves."""

import math

import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Batch
from fer_bench.contract.method import Stage
from fer_bench.methods._shared.contrastive import (
    Projector,
    balanced_contrast,
    some_positives,
    supervised_contrast,
)
from fer_bench.methods.bcl import BCL
from fer_bench.methods.supcon import SupCon


def embeddings(n, dim=5, seed=0, grad=False):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, dim, generator=g), dim=1).requires_grad_(grad)


def views_batch(views, size=6, side=32, classes=7, y=None):
    g = torch.Generator().manual_seed(3)
    x = [torch.randn(size, 1, side, side, generator=g) for _ in range(views)]
    y = torch.arange(size) % classes if y is None else y
    return Batch(views=x, y=y, index=torch.arange(size), generator=g)


def supcon_by_loops(z, y, tau, positive):
    """-(1/|P|) Σ_p log(e^{zi·zp/τ} / Σ_{a≠i} e^{zi·za/τ}) of each anchor, in float64."""
    z, losses = z.detach().double(), []
    for i in range(len(z)):
        bottom = sum(math.exp(float(z[i] @ z[a]) / tau) for a in range(len(z)) if a != i)
        chosen = [p for p in range(len(z)) if positive(i, p)]
        terms = [math.log(math.exp(float(z[i] @ z[p]) / tau) / bottom) for p in chosen]
        losses.append(-sum(terms) / len(terms) if terms else 0.0)
    return losses


def balanced_by_loops(z, y, prototypes, tau):
    """BCL's loss of each anchor: S_j are members of class j and its prototype, the anchor left out; in float64."""
    z, prototypes, losses = z.detach().double(), prototypes.detach().double(), []
    for i in range(len(z)):
        sets = {}
        for j in range(len(prototypes)):
            members = [z[k] for k in range(len(z)) if int(y[k]) == j and k != i]
            sets[j] = [math.exp(float(z[i] @ m) / tau) for m in (*members, prototypes[j])]
        bottom = sum(sum(s) / len(s) for s in sets.values())
        own = sets[int(y[i])]
        losses.append(-sum(math.log(e / bottom) for e in own) / len(own))
    return losses


# -- supervised contrast ---------------------------------------------------------------------------------------------


def test_supervised_contrast_by_hand():
    # four embeddings on a square; τ = 1. Anchor 0 = (1, 0), its positive (0, 1), the others (-1, 0) and (0, -1):
    # similarities 0, -1, 0, so -log(1 / (1 + e^-1 + 1)) = 0.8620
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    loss = supervised_contrast(z, torch.tensor([0, 0, 1, 1]), 1.0)
    assert loss[0].item() == pytest.approx(math.log(2 + math.exp(-1)), rel=1e-6)
    assert loss[0].item() == pytest.approx(0.8620, abs=5e-5)


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_supervised_contrast_equals_plain_loops(tau):
    z, y = embeddings(10), torch.tensor([0, 1, 2, 0, 0, 1, 2, 2, 3, 0])
    expected = supcon_by_loops(z, y, tau, lambda i, p: p != i and y[i] == y[p])
    torch.testing.assert_close(supervised_contrast(z, y, tau), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert expected[8] == 0.0  # the only one of its class


def test_gradient_equals_that_of_finite_differences():
    y = torch.tensor([0, 0, 1, 2])
    z = embeddings(4).double().requires_grad_()

    def loss(z):
        a = z @ z.T / 0.5
        rows = []
        for i in range(4):
            others = torch.stack([a[i, k] for k in range(4) if k != i])
            own = [a[i, k] - others.logsumexp(0) for k in range(4) if k != i and y[k] == y[i]]
            rows.append(-torch.stack(own).mean() if own else torch.zeros((), dtype=z.dtype))
        return torch.stack(rows).mean()

    (expected,) = torch.autograd.grad(loss(z), z)
    x = z.detach().float().requires_grad_()
    (found,) = torch.autograd.grad(supervised_contrast(x, y, 0.5).mean(), x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_anchor_without_positives_has_no_loss_and_no_nan():
    z = embeddings(3, grad=True)
    loss = supervised_contrast(z, torch.tensor([0, 1, 2]), 0.1)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_single_embedding_has_no_loss_and_no_nan():
    z = embeddings(1, grad=True)
    loss = supervised_contrast(z, torch.tensor([2]), 0.1)
    loss.sum().backward()
    assert loss.item() == 0.0
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("tau", [0.005, 10.0])
def test_losses_stay_float32_and_finite_under_bfloat16_at_extreme_temperatures(tau):
    z, y, prototypes = embeddings(8, dim=16, grad=True), torch.arange(8) % 3, embeddings(3, dim=16, seed=1)
    plain = supervised_contrast(z, y, tau), balanced_contrast(z, y, prototypes, tau)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = supervised_contrast(z, y, tau), balanced_contrast(z, y, prototypes, tau)
    for a, b in zip(inside, plain, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
        (grad,) = torch.autograd.grad(a.sum(), z)
        assert torch.isfinite(grad).all()


def test_k_positives_are_the_other_view_and_k_of_the_class():
    y = torch.tensor([0] * 6 + [1] * 2).repeat(2)
    images = torch.arange(8).repeat(2)
    chosen = some_positives(y, images, 3, torch.Generator().manual_seed(0))
    assert chosen[:6].sum(1).tolist() == [4] * 6  # the other view and three more
    assert chosen[6].sum() == 3  # the other view, and both views of the only other image
    assert not chosen.diagonal().any()
    assert (y[:, None] == y)[chosen].all()
    for i in range(16):
        assert chosen[i, (i + 8) % 16]
    again = some_positives(y, images, 3, torch.Generator().manual_seed(0))
    other = some_positives(y, images, 3, torch.Generator().manual_seed(1))
    assert torch.equal(chosen, again)
    assert not torch.equal(chosen, other)


def test_contrast_of_k_positives_equals_plain_loops():
    y, images = torch.tensor([0, 0, 0, 1, 1]).repeat(2), torch.arange(5).repeat(2)
    z, chosen = embeddings(10), some_positives(y, images, 2, torch.Generator().manual_seed(0))
    expected = supcon_by_loops(z, y, 0.2, lambda i, p: bool(chosen[i, p]))
    found = supervised_contrast(z, y, 0.2, chosen)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)


# -- balanced contrast -----------------------------------------------------------------------------------------------


def test_balanced_contrast_by_hand():
    # one anchor (1, 0) of class 0, prototypes (1, 0) and (-1, 0), τ = 1: S_0 = {c_0}, S_1 = {c_1}; log(1 + e^-2)
    z, prototypes = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = balanced_contrast(z, torch.tensor([0]), prototypes, 1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_balanced_contrast_equals_plain_loops(tau):
    z, prototypes = embeddings(9), embeddings(4, seed=1)
    y = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0, 1])  # class 3 is missing from the batch
    expected = torch.tensor(balanced_by_loops(z, y, prototypes, tau))
    torch.testing.assert_close(balanced_contrast(z, y, prototypes, tau), expected, rtol=1e-5, atol=1e-5)


def test_copies_of_a_class_do_not_weigh_more_in_the_denominator():
    # an anchor of class 0 against one or a hundred equal images of class 1: the averages are the same
    z, prototypes = embeddings(2), embeddings(2, seed=1)
    copies = torch.cat([z[:1], z[1:].repeat(100, 1)])
    one = balanced_contrast(z, torch.tensor([0, 1]), torch.stack([prototypes[0], z[1]]), 0.1)[0]
    many = balanced_contrast(copies, torch.tensor([0] + [1] * 100), torch.stack([prototypes[0], z[1]]), 0.1)[0]
    torch.testing.assert_close(one, many)


# -- the methods -----------------------------------------------------------------------------------------------------


def test_embeddings_have_length_1_and_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = Projector(8, 3)(torch.randn(5, 8, dtype=torch.bfloat16))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("positives", [0, 2])
def test_first_stage_of_supcon_is_the_mean_over_all_views(make_method, tiny_trunk, positives):
    method = make_method(SupCon, {"positives": positives, "dim": 8, "temperature": 0.2})
    model, batch = method.build_model(tiny_trunk).train(), views_batch(2, y=torch.tensor([0, 0, 0, 1, 1, 5]))
    seen = []
    model.projector.register_forward_hook(lambda _, given, z: seen.append(z.detach()))
    loss = method.training_step(model, batch).total
    y, images = batch.y.repeat(2), torch.arange(6).repeat(2)
    chosen = some_positives(y, images, positives, method.generator("positives"))

    def positive(i, p):
        return bool(chosen[i, p]) if positives else bool(p != i and y[i] == y[p])

    expected = supcon_by_loops(seen[0], y, 0.2, positive)
    assert loss.item() == pytest.approx(sum(expected) / 12, rel=1e-5)
    loss.backward()
    assert model.trunk.body.conv1.weight.grad.abs().sum() > 0
    assert model.head.weight.grad is None


def test_second_stage_of_supcon_trains_a_fresh_head_by_cross_entropy(make_method, tiny_trunk):
    method = make_method(SupCon)
    first, second = method.stages()
    assert second.lr_scale == 10.0
    assert (second.freeze, second.reinit) == (("trunk", "projector"), ("head",))
    assert (first.name, first.freeze) == ("train", ())
    assert (first.length(20), second.length(20)) == (20, 2)
    assert method.streams(first)["main"].views == 2
    assert method.streams(second)["main"].views == 1
    model, batch = method.build_model(tiny_trunk).eval(), views_batch(1)
    loss = method.training_step(model, batch)
    torch.testing.assert_close(loss.total, F.cross_entropy(model(batch.x).logits, batch.y))


def test_strong_augmentation_is_for_the_compared_views(make_method):
    spec = make_method(BCL).streams(Stage())["main"]
    assert (spec.views, spec.augment[0]) == (3, None)
    assert spec.augment[1].shift == 6.0  # an eighth of 48 pixels
    assert make_method(BCL, {"augment": "recipe"}).streams(Stage())["main"].augment == (None, None, None)


def bcl_by_parts(method, model, batch):
    """α CE(z + τ log π) of the first view + β BCL of the other two, from the module's own parts."""
    with torch.no_grad():
        every = model.trunk(torch.cat(batch.views))[1]
        z = model.projector(every)[len(batch.y) :]
        prototypes = model.prototypes(model.head.weight)
        logits = model.head(every[: len(batch.y)])
    pi = torch.tensor(method.ctx.counts / method.ctx.counts.sum())
    adjusted = logits.double() + method.params["tau"] * pi.log()
    classify = F.cross_entropy(adjusted, batch.y)
    pull = balanced_by_loops(z, batch.y.repeat(2), prototypes, method.params["temperature"])
    return method.params["alpha"] * classify.item() + method.params["beta"] * sum(pull) / len(pull)


def test_loss_of_bcl_is_the_sum_of_its_parts(make_method, tiny_trunk):
    method = make_method(BCL, {"dim": 8, "alpha": 2.0, "beta": 0.6})
    model, batch = method.build_model(tiny_trunk).train(), views_batch(3)
    loss = method.training_step(model, batch)
    assert loss.total.item() == pytest.approx(bcl_by_parts(method, model, batch), rel=1e-4)
    assert loss.output.logits.shape == (6, 7)
    loss.total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(("cls", "views"), [(SupCon, 2), (BCL, 3)])
def test_batch_of_one_and_a_class_without_images_leave_finite_gradients(make_method, tiny_trunk, cls, views):
    method = make_method(cls, {"dim": 8}, counts=(10, 4, 0, 2))
    model, batch = method.build_model(tiny_trunk).train(), views_batch(views, size=1)
    loss = method.training_step(model, batch).total
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_one_hot_targets_give_the_loss_of_labels(make_method, tiny_trunk):
    method = make_method(BCL, {"dim": 8})
    model, batch = method.build_model(tiny_trunk).train(), views_batch(3)
    soft = batch.with_(soft=F.one_hot(batch.y, 7).float())
    a, b = (method.training_step(model, x).total for x in (batch, soft))
    torch.testing.assert_close(a, b)

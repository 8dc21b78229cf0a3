"""Sharpness-aware methods, against ascents and gradients worked out in float64 without their code."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench.contract.batch import Batch, LossOut, Output
from fer_bench.contract.method import Method
from fer_bench.methods._shared.sharpness import add_gradients, ascent, gradients
from fer_bench.methods.focal_sam import FocalSam
from fer_bench.methods.imbsam import ImbSam
from fer_bench.methods.sam import Sam
from fer_bench.training.second_pass import SecondPass

COUNTS = (60, 25, 10, 5)


class Net(nn.Module):
    """A linear layer, BatchNorm, dropout and a head, on vectors that stand for images."""

    def __init__(self, drop=0.0):
        super().__init__()
        self.first, self.norm, self.drop, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(drop), None
        self.head = nn.Linear(8, len(COUNTS))

    def forward(self, x):
        hidden = self.drop(torch.tanh(self.norm(self.first(x.flatten(1)))))
        return Output(logits=self.head(hidden), features=hidden)


def batch_of(size=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 6, 1, 1, generator=g)
    return Batch(views=[x], y=torch.arange(size) % len(COUNTS), index=torch.arange(size), generator=g)


def step(method, model, batch):
    """One step's gradient, as the harness takes it."""
    again = SecondPass(model, nullcontext(), batch.generator)
    loss = method.training_step(model, batch)
    model.zero_grad(set_to_none=True)
    method.backward(model, batch, loss, again)
    return [p.grad.clone() for p in model.parameters()]


def forward64(params, x):
    """The network of `Net` in float64, from its parameters in order."""
    w1, b1, gamma, beta, w2, b2 = params
    h = x @ w1.T + b1
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt() * gamma + beta
    return torch.tanh(h) @ w2.T + b2


def gradient64(params, x, loss_of):
    """Gradient in float64 of a loss of logits at given parameters."""
    free = [p.detach().clone().requires_grad_() for p in params]
    loss = loss_of(forward64(free, x))
    return list(torch.autograd.grad(loss, free))


def length(grads):
    return sum(float((g**2).sum()) for g in grads) ** 0.5


def double(model, batch):
    return [p.detach().double() for p in model.parameters()], batch.x.flatten(1).double()


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-4, atol=2e-6)


# -- the ascent ------------------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """Two scalars w with the loss ½ (a₁ w₁² + a₂ w₂²)."""

    def __init__(self, w):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(w))

    def loss(self):
        return 0.5 * (torch.tensor([1.0, 4.0]) * self.weight**2).sum()


class OnQuadratic(Sam):
    def training_step(self, model, batch):
        return LossOut(total=model.loss())


def test_sam_on_a_quadratic_by_hand(make_method):
    # w = (3, 1): g = (3, 4), |g| = 5; rho 0.5: w moves by (0.3, 0.4) to (3.3, 1.4), where the gradient is (3.3, 5.6)
    model = Quadratic([3.0, 1.0])
    (grad,) = step(make_method(OnQuadratic, {"rho": 0.5}), model, batch_of())
    torch.testing.assert_close(grad, torch.tensor([3.3, 5.6]))
    assert model.weight.tolist() == [3.0, 1.0]


def test_asam_on_a_quadratic_by_hand(make_method):
    # T = |w| + 0.01 = (3.01, 1.01); Tg = (9.03, 4.04); rho 0.5
    size = (9.03**2 + 4.04**2) ** 0.5
    moved = (3 + 0.5 * 3.01 * 9.03 / size, 1 + 0.5 * 1.01 * 4.04 / size)
    (grad,) = step(make_method(OnQuadratic, {"rho": 0.5, "adaptive": True}), Quadratic([3.0, 1.0]), batch_of())
    torch.testing.assert_close(grad, torch.tensor([moved[0], 4 * moved[1]]))


def test_without_a_slope_nothing_moves_and_nothing_is_nan():
    model = Quadratic([0.0, 0.0])
    model.loss().backward()
    (shift,) = ascent(model, 0.5)
    assert shift.tolist() == [0.0, 0.0]


def test_all_shifts_together_have_the_length_rho_and_frozen_weights_stay():
    model = Net()
    model.first.weight.requires_grad_(False)
    F.cross_entropy(model(batch_of().x).logits, batch_of().y).backward()
    shifts = ascent(model, 0.7)
    assert shifts[0] is None
    assert length(s for s in shifts if s is not None) == pytest.approx(0.7, rel=1e-5)


def test_gradients_that_are_kept_are_copies_and_add_up():
    model = Quadratic([3.0, 1.0])
    model.loss().backward()
    kept = gradients(model)
    model.weight.grad.zero_()
    add_gradients(model, kept)
    add_gradients(model, [None])
    assert model.weight.grad.tolist() == [3.0, 4.0]


# -- SAM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("adaptive", [False, True])
def test_gradient_of_sam_equals_one_worked_out_in_float64(make_method, adaptive, tau):
    model, batch = Net().train(), batch_of()
    params, x = double(model, batch)
    shift = tau * torch.tensor(np.log(np.array(COUNTS) / 100))

    def loss_of(logits):
        return F.cross_entropy(logits + shift, batch.y)

    g = gradient64(params, x, loss_of)
    names = [name for name, _ in model.named_parameters()]
    t = [
        p.abs() + 0.01 if adaptive and "weight" in n else torch.ones_like(p) for n, p in zip(names, params, strict=True)
    ]
    size = length(a * b for a, b in zip(t, g, strict=True))
    moved = [p + 0.3 * a**2 * b / size for p, a, b in zip(params, t, g, strict=True)]
    method = make_method(Sam, {"rho": 0.3, "adaptive": adaptive, "tau": tau}, counts=COUNTS)
    assert_close(step(method, model, batch), gradient64(moved, x, loss_of))


def test_radius_0_is_plain_training(make_method):
    model, batch = Net().train(), batch_of()
    plain = step(make_method(Method, counts=COUNTS), model, batch)
    found = step(make_method(Sam, {"rho": 0.0}, counts=COUNTS), model, batch)
    assert_close(found, [g.double() for g in plain])


def test_batch_norm_statistics_move_once(make_method):
    model, twin, batch = Net().train(), Net().train(), batch_of()
    twin.load_state_dict(model.state_dict())
    step(make_method(Method, counts=COUNTS), twin, batch)
    step(make_method(Sam, {"rho": 2.0}, counts=COUNTS), model, batch)
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert int(model.norm.num_batches_tracked) == 1


def test_both_passes_meet_the_same_dropout_mask(make_method):
    model, batch = Net(drop=0.5).train(), batch_of()
    masks = []
    model.drop.register_forward_hook(lambda _, given, out: masks.append((out == 0) & (given[0] != 0)))
    step(make_method(Sam, counts=COUNTS), model, batch)
    assert len(masks) == 2
    assert torch.equal(*masks)
    assert masks[0].any()


# -- ImbSAM and Focal-SAM: one part of the loss at the present weights, one at others --------------------------------


def split64(params, x, y, rho, share, weight=1.0):
    """∇ Σ (1 - r) l / B at w, plus ∇ Σ r l / B at w + ρ g/‖g‖, in float64."""
    r = torch.tensor(share, dtype=torch.float64)[y]

    def part(factor):
        return lambda logits: (factor * F.cross_entropy(logits, y, reduction="none")).mean()

    plain = gradient64(params, x, part(1 - r))
    g = gradient64(params, x, part(weight * r))
    size = length(g)
    moved = [p + (rho / size * s if size else 0 * s) for p, s in zip(params, g, strict=True)]
    return [a + b for a, b in zip(plain, gradient64(moved, x, part(weight * r)), strict=True)]


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_gradient_of_imbsam_equals_one_worked_out_in_float64(make_method, weight):
    model, batch = Net().train(), batch_of()
    method = make_method(ImbSam, {"rho": 0.4, "tail_weight": weight}, counts=COUNTS)
    assert method.rare.tolist() == [0, 0, 1, 1]  # the mean is 25: below 12.5
    expected = split64(*double(model, batch), batch.y, 0.4, [0, 0, 1, 1], weight)
    assert_close(step(method, model, batch), expected)


def test_gradient_of_focal_sam_equals_one_worked_out_in_float64(make_method):
    model, batch = Net().train(), batch_of()
    method = make_method(FocalSam, {"rho": 0.4, "gamma": 2.0, "sharpness": 0.5}, counts=COUNTS)
    share = [0.5 * 0.4**2, 0.5 * 0.75**2, 0.5 * 0.9**2, 0.5 * 0.95**2]
    np.testing.assert_allclose(method.share, share)
    assert_close(step(method, model, batch), split64(*double(model, batch), batch.y, 0.4, share))


def test_focal_sam_of_share_1_is_sam(make_method):
    model, batch = Net().train(), batch_of()
    all_of_it = make_method(FocalSam, {"rho": 0.3, "gamma": 0.0, "sharpness": 1.0}, counts=COUNTS)
    sam = step(make_method(Sam, {"rho": 0.3}, counts=COUNTS), model, batch)
    assert_close(step(all_of_it, model, batch), [g.double() for g in sam])


def test_rare_classes_of_fer2013_and_rafdb(make_method):
    rafdb = (1290, 281, 717, 4772, 1982, 705, 2524)
    assert make_method(ImbSam).rare.tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert make_method(ImbSam, counts=rafdb).rare.tolist() == [0, 1, 1, 0, 0, 1, 0]


@pytest.mark.parametrize(("cls", "params"), [(ImbSam, {"tail": 0.0}), (FocalSam, {"sharpness": 0.0})])
def test_without_a_flat_part_it_is_plain_training(make_method, cls, params):
    model, batch = Net().train(), batch_of()
    plain = step(make_method(Method, counts=COUNTS), model, batch)
    assert_close(step(make_method(cls, params, counts=COUNTS), model, batch), [g.double() for g in plain])


@pytest.mark.parametrize("cls", [Sam, ImbSam, FocalSam])
def test_one_hot_targets_give_the_gradient_of_labels(make_method, cls):
    model, batch = Net().train(), batch_of()
    method = make_method(cls, counts=COUNTS)
    hard = step(method, model, batch)
    soft = step(method, model, batch.with_(soft=F.one_hot(batch.y, 4).float()))
    assert_close(soft, [g.double() for g in hard])


@pytest.mark.parametrize("cls", [Sam, ImbSam, FocalSam])
def test_loss_is_the_plain_one_and_statistics_move_once(make_method, cls):
    model, twin, batch = Net().train(), Net().train(), batch_of()
    twin.load_state_dict(model.state_dict())
    expected = make_method(Method, counts=COUNTS).training_step(twin, batch).total
    again = SecondPass(model, nullcontext(), batch.generator)
    method = make_method(cls, counts=COUNTS)
    loss = method.training_step(model, batch)
    method.backward(model, batch, loss, again)
    torch.testing.assert_close(loss.total, expected)
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("cls", [Sam, ImbSam, FocalSam])
def test_batch_without_rare_classes_and_a_class_without_images_do_no_harm(make_method, cls):
    model, batch = Net().train(), batch_of()
    batch = batch.with_(y=torch.zeros_like(batch.y))
    method = make_method(cls, {"tau": 1.0}, counts=(60, 25, 0, 15))
    assert all(torch.isfinite(g).all() for g in step(method, model, batch))


@pytest.mark.parametrize("cls", [Sam, ImbSam, FocalSam])
def test_certain_predictions_leave_finite_gradients(make_method, cls):
    model, batch = Net().train(), batch_of()
    with torch.no_grad():
        model.head.weight.mul_(1e4)
    assert all(torch.isfinite(g).all() for g in step(make_method(cls, {"tau": 1.0}, counts=COUNTS), model, batch))

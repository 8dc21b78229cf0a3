"""ProCo against scipy's Bessel functions, and against averages over drawn embeddings."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import ive
from scipy.stats import vonmises_fisher
from torch.nn import functional as F

from fer_bench.contract.batch import Batch
from fer_bench.methods._shared.directions import Directions, concentration, log_bessel
from fer_bench.methods.proco import ProCo

COUNTS = (60, 25, 10, 5)
KAPPAS = np.array([0.01, 1.0, 10.0, 63.0, 600.0, 1e4, 1e5])


def bessel_by_scipy(kappa, dim):
    """log(I_ν(κ) κ^-ν), from the exponentially scaled function."""
    nu = dim / 2 - 1
    return np.log(ive(nu, kappa)) + kappa - nu * np.log(kappa)


@pytest.mark.parametrize(("dim", "tolerance"), [(16, 1e-6), (32, 1e-8), (128, 1e-11)])
def test_bessel_function_equals_that_of_scipy(dim, tolerance):
    kappa = KAPPAS[ive(dim / 2 - 1, KAPPAS) > 0]  # scipy's underflows for small ones
    assert len(kappa) >= 4
    found = log_bessel(torch.tensor(kappa), dim)
    np.testing.assert_allclose(found, bessel_by_scipy(kappa, dim), rtol=tolerance)


def test_bessel_function_at_zero_is_its_limit():
    # I_ν(κ) κ^-ν -> 1 / (2^ν Γ(ν + 1))
    for dim in (16, 128):
        nu = dim / 2 - 1
        limit = -nu * math.log(2) - math.lgamma(nu + 1)
        assert log_bessel(torch.zeros((), dtype=torch.float64), dim).item() == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("dim", [16, 128])
def test_slope_of_the_bessel_function_is_the_ratio_of_two(dim):
    kappa = torch.tensor([10.0, 63.0, 600.0, 1e4], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_bessel(kappa, dim).sum(), kappa)
    k = kappa.detach().numpy()
    np.testing.assert_allclose(slope, ive(dim / 2, k) / ive(dim / 2 - 1, k), rtol=1e-5)


def test_concentration_by_hand():
    found = concentration(torch.tensor([0.0, 0.5, 0.9, 1.0]), 128)
    assert found.tolist() == pytest.approx([0, 128 * 0.5 / 0.75, 128 * 0.9 / 0.19, 1e5])


def directions(mean, dim=16):
    made = Directions(len(mean), dim)
    made.means[0] = mean
    return made


def test_logit_is_the_logarithm_of_the_mean_over_drawn_embeddings():
    g = torch.Generator().manual_seed(0)
    mu = F.normalize(torch.randn(16, generator=g), dim=0)
    z = F.normalize(mu + 0.3 * torch.randn(3, 16, generator=g), dim=1)
    made = directions(0.8 * mu[None])
    kappa = 16 * 0.8 / (1 - 0.64)
    drawn = vonmises_fisher(mu.double().numpy() / np.linalg.norm(mu.double().numpy()), kappa).rvs(
        100_000, random_state=np.random.default_rng(0)
    )
    expected = np.log(np.exp(z.double().numpy() @ drawn.T / 0.5).mean(1))
    np.testing.assert_allclose(made.log_expected(z, 0.5)[:, 0], expected, atol=0.01)


def test_logits_equal_the_closed_form_by_scipy():
    g = torch.Generator().manual_seed(1)
    mean = 0.9 * F.normalize(torch.randn(3, 128, generator=g), dim=1)
    z = F.normalize(torch.randn(5, 128, generator=g), dim=1)
    length = mean.double().norm(dim=1).numpy()
    kappa = 128 * length / (1 - length**2)
    w = (kappa / length)[:, None] * mean.double().numpy() + z.double().numpy()[:, None] / 0.1
    expected = bessel_by_scipy(np.linalg.norm(w, axis=2), 128) - bessel_by_scipy(kappa, 128)
    np.testing.assert_allclose(directions(mean, 128).log_expected(z, 0.1), expected, rtol=1e-5, atol=1e-6)


def test_unseen_class_is_as_far_from_every_image():
    z = F.normalize(torch.randn(6, 16), dim=1)
    logits = directions(torch.zeros(1, 16)).log_expected(z, 0.1)
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


@pytest.mark.parametrize("temperature", [0.01, 10.0])
@pytest.mark.parametrize("length", [0.0, 0.5, 1.0])
def test_logits_and_gradients_are_finite_float32_at_extremes(length, temperature):
    mu = F.normalize(torch.randn(2, 16), dim=1)
    z = torch.cat([mu, -mu]).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = directions(length * mu).log_expected(z, temperature)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(z.grad).all()


def test_means_are_those_of_all_embeddings_since_the_last_epoch_began():
    made = Directions(3, 2)
    first, second, third = torch.randn(3, 2), torch.randn(4, 2), torch.randn(2, 2)
    made.turn()
    made.add(first, torch.tensor([0, 0, 1]))
    made.add(second, torch.tensor([0, 1, 1, 1]))
    expected = torch.cat([first[:2], second[:1]]).mean(0)
    torch.testing.assert_close(made.means[0, 0], expected)
    assert made.means[0, 2].tolist() == [0, 0]
    made.turn()
    torch.testing.assert_close(made.means[0, 0], expected)  # the last epoch's
    assert made.means[1].abs().sum() == 0
    made.add(third, torch.tensor([0, 2]))
    torch.testing.assert_close(made.means[0, 0], torch.cat([first[:2], second[:1], third[:1]]).mean(0))
    torch.testing.assert_close(made.means[1, 0], third[0])
    torch.testing.assert_close(made.means[0, 2], third[1])


# -- the method ------------------------------------------------------------------------------------------------------


def views_batch(size=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = [torch.randn(size, 1, 32, 32, generator=g) for _ in range(3)]
    return Batch(views=x, y=torch.arange(size) % 3, index=torch.arange(size), generator=g)


def test_loss_is_the_sum_of_logit_adjusted_losses(make_method, tiny_trunk):
    method = make_method(ProCo, {"dim": 16, "alpha": 0.5}, counts=COUNTS)
    model, batch = method.build_model(tiny_trunk).train(), views_batch()
    method.on_epoch_start(0, model)
    seen = []
    model.projector.register_forward_hook(lambda _, given, z: seen.append(z.detach()))
    loss = method.training_step(model, batch)
    shift = torch.tensor(np.log(np.array(COUNTS) / 100))
    expected = F.cross_entropy(loss.output.logits.detach().double() + shift, batch.y)
    z = seen[0][6:].split(6)
    for k in range(2):  # the second view meets the first one in the means
        known, labels = torch.cat(z[: k + 1]).double(), batch.y.repeat(k + 1)
        rows = torch.zeros(6, 4, dtype=torch.float64)
        for c in range(4):
            mean = known[labels == c].mean(0) if (labels == c).any() else torch.zeros(16, dtype=torch.float64)
            kappa = concentration(mean.norm(), 16)
            at = kappa * mean / mean.norm().clamp_min(1e-12) + z[k].double() / 0.1
            rows[:, c] = log_bessel(at.norm(dim=1), 16) - log_bessel(kappa, 16)
        expected += 0.5 * 0.5 * F.cross_entropy(rows + shift, batch.y)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_restart_from_the_saved_state_goes_on_bitwise(make_method, tiny_trunk):
    method = make_method(ProCo, {"dim": 16}, counts=COUNTS)
    model = method.build_model(tiny_trunk).train()
    for epoch in range(2):
        method.on_epoch_start(epoch, model)
        method.training_step(model, views_batch(seed=epoch))
    other = method.build_model(tiny_trunk).train()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    totals = []
    for m in (model, other):
        method.on_epoch_start(2, m)
        totals.append(method.training_step(m, views_batch(seed=2)).total)
    assert torch.equal(*totals)


def test_batch_of_one_and_a_class_without_images_leave_finite_gradients(make_method, tiny_trunk):
    method = make_method(ProCo, {"dim": 16}, counts=(60, 0, 10, 5))
    model = method.build_model(tiny_trunk).train()
    method.on_epoch_start(0, model)
    loss = method.training_step(model, views_batch(size=1)).total
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())

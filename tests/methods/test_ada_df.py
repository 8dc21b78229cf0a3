"""Ada-DF: schedule, class distributions and fused targets worked out by hand; the state that a resumed run needs."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench.contract.batch import Batch, Output
from fer_bench.methods._shared.distributions import divergences, factors, fused, with_floor
from fer_bench.methods.ada_df import AdaDF


@pytest.mark.parametrize(
    ("epoch", "of_divergence", "of_ce"),
    [
        (1, math.exp(-4 / 9), 1.0),  # 0.6412
        (2, math.exp(-1 / 9), 1.0),  # 0.8948
        (3, 1.0, 1.0),
        (4, 1.0, math.exp(-1 / 16)),  # 0.9394
        (6, 1.0, math.exp(-1 / 4)),  # 0.7788
        (75, 1.0, math.exp(-((24 / 25) ** 2))),  # 0.3979
    ],
)
def test_factors_at_beta_3(epoch, of_divergence, of_ce):
    assert factors(epoch, 3.0) == pytest.approx((of_divergence, of_ce))


def test_rows_below_the_threshold_are_replaced_and_all_sum_to_one():
    means = torch.tensor([[0.8, 0.2, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.8, 0.2, 0.0], [0.15, 0.7, 0.15], [0.15, 0.15, 0.7]])
    torch.testing.assert_close(with_floor(means, 0.7), expected)


def test_fused_targets_by_hand():
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    classes = torch.tensor([[0.7, 0.3], [0.7, 0.3], [0.3, 0.7]])
    # attentions 0.3, 0.5, 0.4 become 0.2, 1, 0.6
    target = fused(p, classes, torch.tensor([0.3, 0.5, 0.4]), 0.2)
    torch.testing.assert_close(target, torch.tensor([[0.54, 0.46], [0.7, 0.3], [0.26, 0.74]]))


def test_equal_attentions_count_as_the_lowest():
    target = fused(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([0.4]), 0.2)
    torch.testing.assert_close(target, torch.tensor([[0.9, 0.1]]))


def test_divergence_and_its_gradients():
    target, z = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.0, 1.0]], requires_grad=True), torch.randn(2, 3)
    z.requires_grad_()
    divergences(target, z).mean().backward()
    t, w = target.detach().double().numpy(), z.detach().double().numpy()
    log_q = w - np.log(np.exp(w).sum(1, keepdims=True))
    log_t = np.log(np.where(t > 0, t, 1))
    assert divergences(target, z).mean().item() == pytest.approx((t * (log_t - log_q)).sum() / 2, rel=1e-5)
    np.testing.assert_allclose(z.grad, (np.exp(log_q) - t) / 2, atol=1e-6)
    np.testing.assert_allclose(target.grad[0], (log_t - log_q + 1)[0] / 2, rtol=1e-4)
    assert torch.isfinite(target.grad).all()


class Fixed(nn.Module):
    """A network whose branch 1 gives fixed logits by the pixel of the image."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, x):
        logits = self.table[x[:, 0, 0, 0].long()]
        return Output(logits=logits, extra={"auxiliary": logits})


def test_class_distributions_are_mean_probabilities_over_the_training_fold(make_method):
    method = make_method(AdaDF, counts=[2, 1, 1])
    p = torch.tensor([[0.9, 0.1, 0.0], [0.7, 0.1, 0.2], [0.3, 0.6, 0.1], [0.05, 0.05, 0.9]])
    images = torch.arange(4.0).reshape(4, 1, 1, 1)
    y = torch.tensor([0, 0, 1, 2])
    parts = [slice(0, 3), slice(3, 4)]
    batches = [Batch(views=[images[s]], y=y[s], index=torch.arange(4)[s], generator=torch.Generator()) for s in parts]
    model = Fixed(p.clamp_min(1e-30).log()).train()
    method.before_eval(model, lambda: batches)
    expected = torch.tensor([[0.8, 0.1, 0.1], [0.15, 0.7, 0.15], [0.05, 0.05, 0.9]])
    torch.testing.assert_close(method.distributions, expected)
    assert model.training
    other = make_method(AdaDF, counts=[2, 1, 1])
    other.on_fit_start(None, None)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.distributions, method.distributions)


def test_a_step_follows_the_formula(make_method, tiny_trunk, make_batch):
    method, batch = make_method(AdaDF, {"margin": 1.0}), dataclasses.replace(make_batch(), epoch=5)
    method.on_fit_start(None, None)
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    z1, z2 = (z.detach().double().numpy() for z in (loss.output.extra["auxiliary"], loss.output.logits))
    a = loss.output.extra["attention"].detach().double().numpy()
    high = np.sort(a)[-2:].mean() - np.sort(a)[:-2].mean()  # ⌊0.7 · 4⌋ in the high group
    w = (a - a.min()) / (a.max() - a.min()) * 0.8 + 0.2
    log_p = z1 - np.log(np.exp(z1).sum(1, keepdims=True))
    log_q = z2 - np.log(np.exp(z2).sum(1, keepdims=True))
    rows = np.full((7, 7), 0.05) + np.eye(7) * 0.65
    t = (1 - w)[:, None] * np.exp(log_p) + w[:, None] * rows[batch.y]
    ce = -log_p[range(4), batch.y].mean()
    kl = (t * (np.log(t) - log_q)).sum(1).mean()
    expected = math.exp(-1 / 4) * ce + kl + 1 - high  # epoch 6
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    soft = method.training_step(model, dataclasses.replace(batch, soft=F.one_hot(batch.y, 7).float()))
    torch.testing.assert_close(soft.total, loss.total)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_branches_share_stem_and_first_stage_and_the_second_predicts(make_method, tiny_trunk, make_batch):
    method = make_method(AdaDF, {"freeze_shared": True})
    model = method.build_model(tiny_trunk).eval()
    (stage,) = method.stages()
    assert stage.freeze == ("branches.shared",)
    parts = {name.split(".")[1] for name, _ in model.branches.shared.named_parameters()}
    assert parts == {"conv1", "bn1", "layer1"}
    before = method.predict(model, make_batch().x).logits
    with torch.no_grad():
        for p in (*model.branches.trunks[0].parameters(), *model.heads[0].parameters()):
            p.fill_(0.1)
    assert torch.equal(method.predict(model, make_batch().x).logits, before)

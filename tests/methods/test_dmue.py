"""DMUE: each part by hand or against float64 loops over the images that the paper names."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.methods._dmue.losses import (
    auxiliary_loss,
    gram_loss,
    latent_targets,
    ramps,
    similarities,
    soft_loss,
)
from fer_bench.methods.dmue import DMUE

Y = torch.tensor([0, 2, 1, 2, 0])


@pytest.mark.parametrize(
    ("epoch", "up", "down"),
    [(0, math.exp(-5), 1.0), (3, math.exp(-20 / 9), 1.0), (9, 1.0, 1.0), (12, 1.0, math.exp(-1 / 16))],
)
def test_ramps_of_nine_epochs(epoch, up, down):
    assert ramps(epoch, 9.0) == pytest.approx((up, down))


def test_a_branch_learns_from_the_images_of_other_classes():
    logits = torch.randn(5, 3, 2)
    log_p = logits.double().log_softmax(2)
    # branch 0 sees images 1 2 3, labels 2 1 2 as 1 0 1; branch 1: 0 1 3 4 as 0 1 1 0; branch 2: 0 2 4 as 0 1 0
    seen = [[(1, 1), (2, 0), (3, 1)], [(0, 0), (1, 1), (3, 1), (4, 0)], [(0, 0), (2, 1), (4, 0)]]
    expected = sum(np.mean([-log_p[i, c, k] for i, k in pairs]) for c, pairs in enumerate(seen)) / 3
    assert auxiliary_loss(logits, Y).item() == pytest.approx(expected, rel=1e-5)


def test_soft_targets_come_from_the_branch_of_the_label_sharpened():
    latent = torch.zeros(2, 3, 2)
    latent[0, 2] = torch.tensor([0.8, 0.2]).log()  # label 2
    latent[1, 1] = torch.tensor([0.5, 0.5]).log()  # label 1
    targets = latent_targets(latent, torch.tensor([2, 1]), 0.5)
    # 0.8² and 0.2² over their sum 0.68
    torch.testing.assert_close(targets, torch.tensor([[0.64 / 0.68, 0.04 / 0.68, 0.0], [0.5, 0.0, 0.5]]))


def test_soft_loss_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    targets, one_hot = torch.tensor([[0.0, 0.6, 0.4]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert soft_loss(p.log(), targets, one_hot).item() == pytest.approx((0.09 + 0.04) / 3, rel=1e-5)


def test_gram_matrices_are_compared_among_other_classes():
    auxiliary, necked = torch.randn(5, 3, 2), torch.randn(5, 4)
    expected = []
    for c in range(3):
        kept = (c != Y).numpy()
        grams = []
        for f in (auxiliary[:, c].double().numpy()[kept], necked.double().numpy()[kept]):
            g = f @ f.T
            grams.append(g / np.linalg.norm(g, axis=1, keepdims=True))
        expected.append(((grams[0] - grams[1]) ** 2).mean())
    assert gram_loss(auxiliary, necked, Y).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_similarities_are_class_means_of_cosines_rescaled():
    f = torch.randn(5, 4)
    unit = F.normalize(f.double(), dim=1)
    cosines = (unit @ unit.T).numpy()
    means = np.stack([cosines[:, (c == Y).numpy()].mean(1) for c in range(3)], 1)
    low, high = means.min(1, keepdims=True), means.max(1, keepdims=True)
    ours = similarities(f, F.one_hot(Y, 4).float())  # a fourth class is absent
    np.testing.assert_allclose(ours[:, :3], (means - low) / (high - low), atol=1e-5)
    assert ours[:, 3].tolist() == [0.0] * 5


def test_a_step_adds_the_parts_by_the_ramps_and_moves_everything(make_method, tiny_trunk, make_batch):
    method, batch = make_method(DMUE, {"ramp": 1.0, "similarity": 3.0}, counts=[4, 3, 3]), make_batch(size=8)
    batch.y = batch.y % 3
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    p = loss.parts
    expected = math.exp(-5) * (p["ce"] + 0.5 * p["soft"] + 3 * p["similarity"]) + p["auxiliary"]
    torch.testing.assert_close(loss.total, expected)
    loss.total.backward()
    assert all(torch.isfinite(q.grad).all() for q in model.parameters() if q.requires_grad)


def test_the_target_branch_predicts_alone(make_method, tiny_trunk, make_batch):
    method = make_method(DMUE, counts=[4, 3, 3])
    model = method.build_model(tiny_trunk).eval()
    before = method.predict(model, make_batch().x)
    assert before.extra == {}
    with torch.no_grad():
        for q in (*model.branches.trunks[1].parameters(), *model.others.parameters(), *model.certainty.parameters()):
            q.fill_(0.3)
    assert torch.equal(method.predict(model, make_batch().x).logits, before.logits)

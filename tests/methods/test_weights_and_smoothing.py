"""Class weights beside label smoothing: images are weighed by their labels, smoothed targets are not."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Batch, Output
from fer_bench.contract.method import Method
from fer_bench.methods._shared.losses import focal_losses
from fer_bench.methods.baseline_focal import BaselineFocal
from fer_bench.methods.baseline_weighted import BaselineWeighted
from fer_bench.methods.rasn import RASN
from fer_bench.training.fit import _smooth

COUNTS = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])  # FER2013; the second class is disgust
W = COUNTS.sum() / (7 * COUNTS)
EPSILON = 0.1

# method, its parameters, the weights of classes [7], whether it divides by the weights of the batch
WEIGHTED = {
    "weighted": (BaselineWeighted, {}, W, True),
    "weighted, over the batch": (BaselineWeighted, {"reduction": "batch"}, W, False),
    "square root": (BaselineWeighted, {"power": 0.5}, (COUNTS / COUNTS.sum()) ** -0.5, True),
    "RASN": (RASN, {"sampler": "class_weighted_ce"}, W, True),
    "focal at γ = 0": (BaselineFocal, {"gamma": 0.0, "weights": "inverse"}, W, False),
}


def make_batch(target):
    """A batch of labels [B] or soft targets [B, C] without images."""
    y, soft = (target, None) if target.ndim == 1 else (target.argmax(1), target)
    return Batch(views=[], y=y, soft=soft, index=torch.arange(len(y)), generator=torch.Generator())


def gradient_of(method, logits, target, smoothing=EPSILON):
    """Gradient of the loss that training minimises for logits [B, C]."""
    leaf = logits.clone().requires_grad_()
    method.batch_loss(Output(logits=leaf), _smooth(make_batch(target), smoothing, logits.shape[1])).backward()
    return leaf.grad


def every_image(counts=COUNTS, share=1):
    """Labels of a training fold with these counts, or of a `share`-th of each class."""
    return torch.from_numpy(np.repeat(np.arange(len(counts)), np.maximum(counts // share, 1)))


def test_every_class_has_the_target_mass_that_smoothing_alone_would_give(make_method):
    """With weights N/(C n_c) every class has the mass 1/C before smoothing, so (1 - ε)/C + ε/C = 1/C after it.

    Where smoothed targets are weighed instead, disgust has w (0.9 n + 0.1 N/7) / Σ = 0.236 and the others less.
    """
    labels = every_image()
    logits = torch.zeros(len(labels), 7, dtype=torch.float64)
    mass = 1 / 7 - gradient_of(make_method(BaselineWeighted), logits, labels).sum(0)  # the gradient is Σ w (p - q)
    np.testing.assert_allclose(mass, 1 / 7, atol=1e-6)
    wrong = W * ((1 - EPSILON) * COUNTS + EPSILON * COUNTS.sum() / 7)
    assert (wrong / wrong.sum())[1] == pytest.approx(0.236, abs=5e-4)


def test_a_classifier_that_sees_nothing_is_stationary_at_equal_shares(make_method):
    """Images of which no feature is known: weights that balance the classes leave equal probabilities, smoothed or not.

    With weights on smoothed targets the rarest class would come out first, and every image would be given to it.
    """
    labels = every_image(share=100)
    counts = np.bincount(labels)
    method = make_method(BaselineWeighted, counts=counts)
    for smoothing in (0.0, 0.1, 0.5):
        bias = gradient_of(method, torch.zeros(len(labels), 7), labels, smoothing).sum(0)
        torch.testing.assert_close(bias, torch.zeros(7), atol=1e-6, rtol=0)


def test_smoothing_moves_no_decision_between_two_separated_classes(make_method):
    """Logits at the smoothed target are stationary for every image, whatever its class weighs."""
    labels = every_image(share=100)
    smoothed = F.one_hot(labels, 7) * 0.9 + 0.1 / 7
    gradient = gradient_of(make_method(BaselineWeighted), smoothed.log(), labels)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)


def by_numpy(logits, soft, weights, relative):
    """Gradient of Σ_i w_i (-Σ_k q'_ik log p_ik) / D in float64, worked out on paper: w_i (p_i - q'_i) / D."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    w = np.array([sum(q * v for q, v in zip(row, weights, strict=True)) for row in soft])
    target = [[(1 - EPSILON) * q + EPSILON / 7 for q in row] for row in soft]
    return w[:, None] * (p - np.array(target)) / (w.sum() if relative else len(w))


@pytest.mark.parametrize("kind", ["labels", "votes", "mixed"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_the_gradient_is_that_of_an_independent_float64_calculation(make_method, name, kind):
    cls, params, weights, relative = WEIGHTED[name]
    if not relative:
        weights = weights * COUNTS.sum() / (COUNTS * weights).sum()
    rng = np.random.default_rng(0)
    logits, labels = 2 * rng.standard_normal((32, 7)), rng.integers(0, 7, 32)
    soft = np.eye(7)[labels]
    if kind == "votes":
        soft = rng.multinomial(10, (soft + 0.1) / 1.7) / 10
    elif kind == "mixed":
        soft = 0.3 * soft + 0.7 * soft[rng.permutation(32)]
    target = torch.from_numpy(labels) if kind == "labels" else torch.from_numpy(soft).float()
    gradient = gradient_of(make_method(cls, params), torch.from_numpy(logits).float(), target)
    np.testing.assert_allclose(gradient, by_numpy(logits, soft, weights, relative), rtol=0, atol=1e-6)


def test_weighted_focal_loss_weighs_images_too(make_method):
    """At γ = 2 the smoothed share of disgust in another image has that image's weight."""
    logits, labels = torch.randn(8, 7, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 7
    p = logits.double().softmax(1)
    target = F.one_hot(labels, 7).double() * 0.9 + 0.1 / 7
    each = (target * (1 - p) ** 2 * -p.log()).sum(1)
    expected = (torch.from_numpy(W)[labels] * each).mean()
    batch = _smooth(make_batch(labels), 0.1, 7)
    loss = make_method(BaselineFocal, {"weights": "inverse"}).batch_loss(Output(logits=logits), batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def optimum(gamma, smoothing=0.1, classes=7):
    """p of the label at which the focal loss of a smoothed target is lowest, the rest even; by bisection, in floats.

    With r = (1 - p)/(C - 1) for each other class, dL/dp = 0 where q_y g(p) = q_o g(r), g(p) = d/dp (1 - p)^γ log p.
    """

    def g(p):
        return (1 - p) ** gamma / p - (gamma * (1 - p) ** (gamma - 1) * math.log(p) if gamma else 0.0)

    q_o = smoothing / classes
    q_y = 1 - smoothing + q_o
    low, high = 1 / classes, 1 - 1e-12
    for _ in range(200):
        p = (low + high) / 2
        low, high = (p, high) if q_y * g(p) > q_o * g((1 - p) / (classes - 1)) else (low, p)
    return p


@pytest.mark.parametrize(("gamma", "said"), [(0.0, "0.91"), (2.0, "0.69")])
def test_the_focal_loss_of_a_smoothed_target_is_lowest_where_its_card_says(gamma, said):
    p = optimum(gamma)
    assert f"{p:.2f}" == said
    assert said in BaselineFocal.card.calibration
    target = torch.full((3, 7), 0.1 / 7)
    target[:, 0] += 0.9
    around = torch.tensor([p - 0.01, p, p + 0.01])
    probabilities = torch.cat([around[:, None], ((1 - around) / 6)[:, None].expand(3, 6)], dim=1)
    left, lowest, right = focal_losses(probabilities.log(), target, gamma).tolist()
    assert lowest < min(left, right)


def test_the_other_streams_of_a_step_are_weighed_by_labels_too(make_method):
    labels = torch.tensor([1, 3, 3, 1])
    batch = _smooth(make_batch(torch.tensor([0])).with_(aux={"rare": make_batch(labels)}), 0.1, 7)
    weights = make_method(BaselineWeighted, {"reduction": "batch"}).image_weights(batch.aux["rare"])
    np.testing.assert_allclose(weights, W[labels], rtol=1e-6)


def test_a_rasn_step_trains_on_weighted_images(make_method, tiny_trunk):
    method = make_method(RASN, {"sampler": "class_weighted_ce", "share.source": "none"})
    model = method.build_model(tiny_trunk)
    labels = torch.tensor([1, 3, 4, 1])
    images = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    batch = _smooth(make_batch(labels).with_(views=[images]), 0.1, 7)
    step = method.training_step(model, batch)
    p = step.output.logits.detach().double().softmax(1)
    target = F.one_hot(labels, 7).double() * 0.9 + 0.1 / 7
    each, w = -(target * p.log()).sum(1), torch.from_numpy(W)[labels]
    assert step.total.item() == pytest.approx(((w * each).sum() / w.sum()).item(), rel=1e-5)


def test_without_weights_the_loss_is_the_criterions_to_the_last_bit():
    logits, labels = torch.randn(8, 7), torch.arange(8) % 7
    method = Method()
    for batch in (make_batch(labels), _smooth(make_batch(labels), 0.1, 7)):
        expected = F.cross_entropy(logits, batch.target)
        assert torch.equal(method.batch_loss(Output(logits=logits), batch), expected)

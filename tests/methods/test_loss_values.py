"""Losses against formulas written out in the standard library's floats: values, and gradients by central differences.

Each reference gives the loss of one image if its label were k, from its logits z. What a method treats as a constant
for the gradient is computed from `at`, the logits at which the gradient is taken. Logits of images, votes and class
counts are small enough to be followed by hand.
"""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch

from fer_bench.contract.batch import Output
from fer_bench.contract.method import Method

COUNTS = [3995, 436, 4097, 7215, 4830, 3171, 4965]  # FER2013
N, C = sum(COUNTS), 7
RARE = [0.5 * n**-0.25 / 436**-0.25 for n in COUNTS]  # LDAM's margins
SEEN = [40, 0, 41, 72, 48, 31, 50]
B, S = 6, 30.0  # images; scale of cosine heads


def ce(z, k):
    """-log softmax(z)_k."""
    top = max(z)
    return top + math.log(sum(math.exp(v - top) for v in z)) - z[k]


def p(z, k):
    return math.exp(-ce(z, k))


def but(z, k, off):
    """Logits of which that of k has lost something."""
    return [v - off if j == k else v for j, v in enumerate(z)]


def sigmoid_focal(z, k, gamma):
    total = 0.0
    for j, v in enumerate(z):
        one = 1 / (1 + math.exp(-v))
        hit = one if j == k else 1 - one
        total += (1 - hit) ** gamma * -math.log(hit)
    return total


def las(z, k):
    epsilon = 0.02 + (0.3 - 0.02) * math.sin(math.pi * (COUNTS[k] - 436) / (2 * (7215 - 436)))
    return sum((epsilon / C + (1 - epsilon) * (j == k)) * ce(z, j) for j in range(C))


def seesaw(z, k, at):
    moved = []
    for j, v in enumerate(z):
        seen_j, seen_k = max(SEEN[j], 1), max(SEEN[k], 1)
        s = (seen_j / seen_k) ** 0.8 if seen_j < seen_k else 1.0
        ratio = p(at, j) / max(p(at, k), 0.01)
        s *= ratio**2 if ratio > 1 else 1.0
        moved.append(v if j == k else v + math.log(s))
    return ce(moved, k)


def equalised(z, k, dropped):
    """Disgust, class 1, is the only rare class; if it is dropped, images of other classes do without its logit."""
    if not dropped or k == 1:
        return ce(z, k)
    return math.log(sum(math.exp(v) for j, v in enumerate(z) if j != 1)) - z[k]


def influence(z, k, at, gamma):
    distance = sum(abs(p(z, j) - (j == k)) for j in range(C))
    return ce(z, k) * (1 - p(z, k)) ** gamma * 1000 / (distance * 3.5 + 1e-3)  # ‖f‖₁ = 3.5 in every image


def gcl(z, k, noise, margin, gamma, at):
    def moved(logits):
        cloud = [0.5 * abs(e) * math.log(7215 / n) / math.log(7215 / 436) for e, n in zip(noise, COUNTS, strict=True)]
        return but([v - S * c for v, c in zip(logits, cloud, strict=True)], k, S * margin)

    return (1 - p(moved(at), k)) ** gamma * ce(moved(z), k)


def log_shares(tau):
    return [tau * math.log(n / N) for n in COUNTS]


def added(z, shift):
    return [v + s for v, s in zip(z, shift, strict=True)]


def scaled(z, gamma):
    return [v / (7215 / n) ** gamma for v, n in zip(z, COUNTS, strict=True)]


def unit(z, tau):
    length = math.sqrt(sum(v * v for v in z))
    return [v / (length + 1e-7) / tau for v in z]


# file, parameters, reference (z, k, at, random numbers of the image) -> loss, scale of the logits
CASES = {
    "class_balanced": ("class_balanced", {}, lambda z, k, at, r: ce(z, k), 3.0),
    "class_balanced, sigmoid": ("class_balanced", {"loss": "sigmoid"}, lambda z, k, at, r: sigmoid_focal(z, k, 0), 3.0),
    "class_balanced, focal": (
        "class_balanced",
        {"loss": "focal", "gamma": 1.5},
        lambda z, k, at, r: sigmoid_focal(z, k, 1.5),
        3.0,
    ),
    "ldam": ("ldam", {}, lambda z, k, at, r: ce(but(z, k, S * RARE[k]), k), 10.0),
    "logit_adjust": ("logit_adjust", {}, lambda z, k, at, r: ce(added(z, log_shares(1.0)), k), 3.0),
    "logit_adjust, τ=1.5": ("logit_adjust", {"tau": 1.5}, lambda z, k, at, r: ce(added(z, log_shares(1.5)), k), 3.0),
    "vs": ("vs", {}, lambda z, k, at, r: ce(added(scaled(z, 0.3), log_shares(1.0)), k), 3.0),
    "cdt": ("vs", {"tau": 0.0, "gamma": 0.2}, lambda z, k, at, r: ce(scaled(z, 0.2), k), 3.0),
    "label_aware_smoothing": ("label_aware_smoothing", {"head": 0.3, "tail": 0.02}, lambda z, k, at, r: las(z, k), 3.0),
    "seesaw": ("seesaw", {}, lambda z, k, at, r: seesaw(z, k, at), 2.0),
    "equalization": ("equalization", {"gamma": 0.6}, lambda z, k, at, r: equalised(z, k, r[1] < 0.6), 3.0),
    "influence_balanced": ("influence_balanced", {}, lambda z, k, at, r: influence(z, k, at, 0.0), 1.0),
    "influence_balanced, focal": (
        "influence_balanced",
        {"gamma": 1.0},
        lambda z, k, at, r: influence(z, k, at, 1.0),
        1.0,
    ),
    "gcl": ("gcl", {}, lambda z, k, at, r: gcl(z, k, r, 0.0, 0.0, at), 10.0),
    "gcl, classifier": ("gcl", {}, lambda z, k, at, r: gcl(z, k, r, 0.1, 1.0, at), 10.0),
    "ala": (
        "ala",
        {},
        lambda z, k, at, r: ce(but(z, k, S * (1 - at[k] / S) / 2 / math.log2(COUNTS[k] / 436 + 1)), k),
        10.0,
    ),
    "poly_loss": ("poly_loss", {}, lambda z, k, at, r: ce(z, k) + 2 * (1 - p(z, k)), 3.0),
    "poly_loss, focal": (
        "poly_loss",
        {"gamma": 1.5, "epsilon": -1.0},
        lambda z, k, at, r: (1 - p(z, k)) ** 1.5 * ce(z, k) - (1 - p(z, k)) ** 2.5,
        3.0,
    ),
    "generalized_cross_entropy": (
        "generalized_cross_entropy",
        {},
        lambda z, k, at, r: (1 - p(z, k) ** 0.7) / 0.7,
        3.0,
    ),
    "symmetric_cross_entropy": (
        "symmetric_cross_entropy",
        {},
        lambda z, k, at, r: 0.1 * ce(z, k) + 4 * sum(p(z, j) for j in range(C) if j != k),
        3.0,
    ),
    "logit_norm": ("logit_norm", {"tau": 0.1}, lambda z, k, at, r: ce(unit(z, 0.1), k), 3.0),
}


def method_of(make_method, name):
    """A method in the state in which its loss is compared, and the random numbers that it draws [B, C]."""
    file, params, _, _ = CASES[name]
    module = importlib.import_module(f"fer_bench.methods.{file}")
    (cls,) = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Method) and v is not Method]
    method = make_method(cls, params)
    draws = torch.zeros(B, C)
    if file == "seesaw":
        method.load_state_dict({"seen": torch.tensor(SEEN)})
    if file == "influence_balanced":
        method.on_epoch_start(1, torch.nn.Identity())
    if file == "equalization":
        draws = torch.rand(B, C, generator=method.generator("equalization"))
    if file == "gcl":
        method.moment = ("classifier" if "classifier" in name else "representation", 0, 3)
        draws = (torch.randn(B, C, generator=method.generator("cloud")) / 3).clamp(-1, 1)
    return method, draws.double().numpy()


def targets(kind):
    """Labels [B], or votes [B, C] of four people."""
    labels = torch.tensor([1, 3, 0, 5, 1, 6])
    if kind == "labels":
        return labels
    return 0.75 * torch.nn.functional.one_hot(labels, C) + 0.25 * torch.nn.functional.one_hot(labels.roll(2), C)


def logits_of(scale):
    z = scale * torch.randn(B, C, generator=torch.Generator().manual_seed(0))
    return z.clamp(-S, S)


@pytest.mark.parametrize("kind", ["labels", "votes"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_formula(make_method, name, kind):
    method, draws = method_of(make_method, name)
    _, _, reference, scale = CASES[name]
    target = targets(kind)
    weights = target if kind == "votes" else torch.nn.functional.one_hot(target, C)
    z = logits_of(scale).requires_grad_()
    features = torch.tensor([[1.5, -2.0]]).expand(B, 2)
    losses = method.criterion(Output(logits=z, features=features), target)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert losses.shape == (B,)
    for i, at in enumerate(z.detach().double().tolist()):
        q = weights[i].tolist()

        def loss(row, i=i, q=q, at=at):
            return sum(share * reference(row, k, at, draws[i]) for k, share in enumerate(q) if share)

        size = max(1.0, abs(loss(at)))
        assert losses[i].item() == pytest.approx(loss(at), abs=1e-6 * size)
        h = 1e-5
        slopes = [(loss(but(at, j, -h)) - loss(but(at, j, h))) / (2 * h) for j in range(C)]
        np.testing.assert_allclose(z.grad[i].numpy(), slopes, rtol=0, atol=1e-6 * max(1.0, np.abs(slopes).max()))

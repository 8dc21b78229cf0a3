"""Losses as methods: printed vectors, targets, extremes, empty classes, epochs, stages, draws and state."""

import importlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Batch, Output
from fer_bench.contract.method import Method, Stage
from fer_bench.methods._shared.losses import effective_weights, ldam_margins
from fer_bench.methods._shared.priors import log_prior
from fer_bench.methods._shared.samplers import Oversample, Power
from fer_bench.methods._shared.smoothing import label_aware_shares
from fer_bench.methods.ala import rarities
from fer_bench.methods.gcl import cloud_sizes
from fer_bench.methods.lade import lader
from fer_bench.methods.vs import temperatures
from fer_bench.training.fit import _smooth

FER2013 = (3995, 436, 4097, 7215, 4830, 3171, 4965)
RAFDB = (1290, 281, 717, 4772, 1982, 705, 2524)

METHODS = {
    "baseline_weighted": ({}, {"kind": "effective", "reduction": "batch"}),
    "class_balanced": ({}, {"loss": "sigmoid"}, {"loss": "focal", "gamma": 0.5}),
    "ldam": ({}, {"weights": "none"}),
    "logit_adjust": ({}, {"tau": 2.0, "weights": "inverse"}),
    "vs": ({}, {"tau": 0.0}),
    "label_aware_smoothing": ({}, {"shape": "convex", "head": 0.4}),
    "seesaw": ({}, {"p": 0.0}, {"q": 0.0}),
    "equalization": ({}, {"gamma": 1.0}),
    "influence_balanced": ({}, {"gamma": 0.5, "detach": True}),
    "gcl": ({},),
    "ala": ({},),
    "lade": ({},),
    "poly_loss": ({}, {"gamma": 0.5, "epsilon": -1.0}),
    "generalized_cross_entropy": ({}, {"q": 0.01}),
    "symmetric_cross_entropy": ({},),
    "logit_norm": ({},),
}
VARIANTS = [(name, params) for name, all_params in METHODS.items() for params in all_params]
variants = pytest.mark.parametrize(
    ("name", "params"), VARIANTS, ids=lambda v: v if isinstance(v, str) else str(v or "")
)


@pytest.fixture
def ready(make_method):
    """A method in its last epochs, when everything that it does is switched on."""

    def make(name, params=None, epochs=10, **context):
        module = importlib.import_module(f"fer_bench.methods.{name}")
        (cls,) = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Method) and v is not Method]
        method = make_method(cls, params or {}, **context)
        method.ctx = replace(method.ctx, epochs=epochs)
        method.on_epoch_start(epochs - 1, torch.nn.Identity())
        method.moment = ("train", epochs - 1, 0)
        return method

    return make


def batch_of(target, smoothing=0.0, classes=7, epoch=9):
    y, soft = (target, None) if target.ndim == 1 else (target.argmax(1), target)
    plain = Batch(views=[], y=y, soft=soft, index=torch.arange(len(y)), generator=torch.Generator(), epoch=epoch)
    return _smooth(plain, smoothing, classes) if smoothing else plain


def loss_of(method, logits, target, smoothing=0.0, epoch=9):
    """The loss that training minimises; the features are those of no network."""
    features = torch.linspace(-1, 1, 8 * len(logits)).view(-1, 8)
    batch = batch_of(target, smoothing, logits.shape[1], epoch)
    return method.batch_loss(Output(logits=logits, features=features), batch)


def logits_and_labels(size=16, classes=7, scale=3.0):
    g = torch.Generator().manual_seed(0)
    return scale * torch.randn(size, classes, generator=g), torch.randint(0, classes, (size,), generator=g)


# -- vectors ---------------------------------------------------------------------------------------------------------

VECTORS = {
    "class-balanced, β=0.999": (
        effective_weights(FER2013, 0.999),
        (0.7991, 2.2189, 0.7977, 0.7850, 0.7907, 0.8187, 0.7899),
    ),
    "LDAM": (ldam_margins(FER2013), (0.2874, 0.5000, 0.2856, 0.2479, 0.2741, 0.3045, 0.2722)),
    "LDAM, RAF-DB": (ldam_margins(RAFDB), (0.3416, 0.5000, 0.3956, 0.2463, 0.3068, 0.3973, 0.2888)),
    "log π": (log_prior(FER2013), (-1.9722, -4.1873, -1.9470, -1.3810, -1.7824, -2.2032, -1.7548)),
    "smoothing": (label_aware_shares(FER2013, 0.1, 0.0), (0.0734, 0, 0.0750, 0.1000, 0.0851, 0.0592, 0.0867)),
    "VS": (temperatures(FER2013, 0.3), (1.1940, 2.3207, 1.1850, 1, 1.1279, 1.2797, 1.1187)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_classes_are_those_worked_out_elsewhere(name):
    made, printed = VECTORS[name]
    np.testing.assert_allclose(made, printed, rtol=0, atol=5.1e-5)


def test_a_class_without_images_is_left_alone():
    counts = (100, 0, 10)
    np.testing.assert_allclose(ldam_margins(counts), [0.5 * 0.1**0.25, 0, 0.5])
    np.testing.assert_allclose(log_prior(counts), [math.log(10 / 11), 0, math.log(1 / 11)])
    np.testing.assert_allclose(temperatures(counts, 0.3), [1, 1, 10**0.3])
    np.testing.assert_allclose(cloud_sizes(counts), [0, 0, 1])
    np.testing.assert_allclose(rarities(counts), [1 / math.log2(11), 0, 1])


@pytest.mark.parametrize("shape", ["linear", "concave", "convex"])
def test_smoothing_by_class_goes_from_tail_to_head_in_the_shape_that_is_asked_for(shape):
    shares = label_aware_shares((100, 550, 1000, 0), 0.3, 0.1, shape)
    middle = {"linear": 0.2, "concave": 0.1 + 0.2 * math.sqrt(0.5), "convex": 0.3 - 0.2 * math.sqrt(0.5)}[shape]
    np.testing.assert_allclose(shares, [0.1, middle, 0.3, 0.1], rtol=1e-12)


# -- what every loss keeps -------------------------------------------------------------------------------------------


@variants
def test_one_hot_targets_give_the_loss_and_gradient_of_labels(ready, name, params):
    method = ready(name, params)
    logits, y = logits_and_labels()
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    hard, soft = loss_of(method, a, y), loss_of(method, b, F.one_hot(y, 7).float())
    hard.backward()
    soft.backward()
    torch.testing.assert_close(hard, soft)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6 * float(a.grad.abs().max()))


@variants
def test_a_mixed_label_gives_the_mixture_of_the_losses(ready, name, params):
    method = ready(name, params | {"weights": "none"} if "weights" in ready(name).params else params)
    logits, y = logits_and_labels()
    output = Output(logits=logits, features=torch.linspace(-1, 1, 8 * len(logits)).view(-1, 8))
    other = y.roll(1)
    mixed = 0.3 * F.one_hot(y, 7) + 0.7 * F.one_hot(other, 7)
    expected = 0.3 * method.criterion(output, y) + 0.7 * method.criterion(output, other)
    torch.testing.assert_close(method.criterion(output, mixed), expected, rtol=1e-5, atol=1e-5)


@variants
def test_bfloat16_changes_nothing_after_the_logits(ready, name, params):
    method = ready(name, params)
    logits, y = logits_and_labels()
    rounded = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss_of(method, rounded, y, 0.1)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss_of(method, rounded.float(), y, 0.1), rtol=1e-6, atol=0)


@variants
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_extreme_logits_have_finite_losses_and_gradients(ready, name, params, smoothing):
    method = ready(name, params)
    logits = torch.zeros(6, 7)
    logits[0, 1] = logits[1, 2] = 1e4  # certain and right, certain and wrong
    logits[2] = 1e4
    logits[3] = -1e4
    logits[4] = torch.tensor([1e4, -1e4, 1e4, -1e4, 0, 1e4, -1e4])
    logits.requires_grad_()
    loss = loss_of(method, logits, torch.tensor([1, 1, 3, 1, 1, 0]), smoothing)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@variants
@pytest.mark.parametrize("counts", [(50, 0, 7), (0, 0, 9), (5, 5, 5), (1, 900), tuple(range(1, 51))], ids=str)
def test_empty_single_and_equal_classes_do_no_harm(ready, name, params, counts):
    method = ready(name, params, counts=counts)
    logits, _ = logits_and_labels(4, len(counts))
    labels = torch.from_numpy(np.random.default_rng(0).choice(np.flatnonzero(counts), 4))
    for size in (1, 4):
        leaf = logits[:size].clone().requires_grad_()
        loss = loss_of(method, leaf, labels[:size], 0.1)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(leaf.grad).all()


def minimiser(method, target):
    """Logits [C] at which the loss of one image is lowest, found from zero."""
    z = torch.zeros(1, len(method.ctx.counts), requires_grad=True)
    optimiser = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = method.criterion(Output(logits=z), target).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return z.detach()[0]


@pytest.mark.parametrize("name", ["logit_adjust", "vs", "lade"])
def test_a_class_without_images_does_not_win_by_the_prior_that_it_lacks(ready, name):
    """Smoothing gives it a share of 0.1/3. With log 0 in place of its prior, that share would need a huge logit."""
    method = ready(name, counts=(90, 10, 0))
    z = minimiser(method, torch.tensor([[0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3]]))
    assert z.argmax() == 1
    assert z[2] < z.mean()


# -- epochs ----------------------------------------------------------------------------------------------------------


def test_deferred_weights_set_in_after_eight_of_ten_epochs(ready):
    method = ready("ldam")
    batch = batch_of(torch.tensor([1, 3]))
    assert method.image_weights(replace(batch, epoch=7)) is None
    weights = method.image_weights(replace(batch, epoch=8))
    np.testing.assert_allclose(weights, [4.0772, 0.3384], rtol=0, atol=5e-5)


def test_deferred_cross_entropy_is_pytorchs_with_weights_from_the_chosen_epoch_on(ready):
    method = ready("baseline_weighted", {"kind": "effective", "weights.from": 0.8})
    logits, y = logits_and_labels()
    w = (1 - 0.9999) / (1 - 0.9999 ** np.array(FER2013))
    w = torch.tensor(w * 7 / w.sum(), dtype=torch.float32)
    torch.testing.assert_close(loss_of(method, logits, y, epoch=7), F.cross_entropy(logits, y))
    torch.testing.assert_close(loss_of(method, logits, y, epoch=8), F.cross_entropy(logits, y, weight=w))


def test_class_balanced_weights_can_wait_too(ready):
    method = ready("class_balanced", {"weights.from": 0.5, "beta": 0.999})
    batch = batch_of(torch.tensor([1, 3]))
    assert method.image_weights(replace(batch, epoch=4)) is None
    np.testing.assert_allclose(method.image_weights(replace(batch, epoch=5)), [2.2189, 0.7850], atol=5e-5)


def test_influence_counts_from_the_middle_of_the_training_on(ready):
    method = ready("influence_balanced")
    logits, y = logits_and_labels()
    method.on_epoch_start(4, torch.nn.Identity())
    torch.testing.assert_close(loss_of(method, logits, y), F.cross_entropy(logits, y))
    method.on_epoch_start(5, torch.nn.Identity())
    assert loss_of(method, logits, y) > 10 * F.cross_entropy(logits, y)


def test_influence_weights_are_inverse_counts_that_sum_to_the_number_of_classes(ready):
    weights = ready("influence_balanced").image_weights(batch_of(torch.arange(7))).double()
    np.testing.assert_allclose(weights, 7 / np.array(FER2013) / (1 / np.array(FER2013)).sum(), rtol=1e-6)


# -- each in its own way ---------------------------------------------------------------------------------------------


def test_a_detached_influence_only_scales_the_gradient_of_cross_entropy(ready):
    logits, y = logits_and_labels()
    features = torch.full((16, 2), 1.5)
    p = logits.softmax(1)
    factor = 1000 / ((p - F.one_hot(y, 7)).abs().sum(1) * 3 + 1e-3)
    gradients = {}
    for detach in (False, True):
        leaf = logits.clone().requires_grad_()
        method = ready("influence_balanced", {"detach": detach})
        method.criterion(Output(logits=leaf, features=features), y).sum().backward()
        gradients[detach] = leaf.grad
    torch.testing.assert_close(gradients[True], factor[:, None] * (p - F.one_hot(y, 7)), rtol=1e-5, atol=1e-3)
    assert (gradients[True] - gradients[False]).abs().max() > 1


def test_smoothing_by_class_takes_the_place_of_the_recipes(ready, tiny_trunk):
    method = ready("label_aware_smoothing", {"head": 0.3})
    model = method.build_model(tiny_trunk).eval()
    x, y = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 3, 3, 0])
    plain, smoothed = (batch_of(y, s).with_(views=[x]) for s in (0.0, 0.1))
    step = method.training_step(model, smoothed)
    assert torch.equal(step.total, method.training_step(model, plain).total)
    nll = -step.output.logits.detach().double().log_softmax(1)
    epsilon = torch.tensor([0.0, 0.3, 0.3, 0.3 * math.sin(math.pi * (3995 - 436) / (2 * (7215 - 436)))])
    expected = ((1 - epsilon) * nll[torch.arange(4), y] + epsilon * nll.mean(1)).mean()
    assert step.total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_vector_scaling_without_temperatures_is_logit_adjustment(ready):
    logits, y = logits_and_labels()
    a, b = ready("vs", {"gamma": 0.0, "tau": 0.7}), ready("logit_adjust", {"tau": 0.7})
    assert torch.equal(loss_of(a, logits, y), loss_of(b, logits, y))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("logit_adjust", {"tau": 0.0}),
        ("equalization", {"gamma": 0.0}),
        ("equalization", {"threshold": 0.01}),
        ("seesaw", {"p": 0.0, "q": 0.0}),
        ("ldam", {"margin": 0.0, "weights": "none"}),
        ("ala", {"strength": 0.0}),
        ("gcl", {"noise": 0.0}),
        ("poly_loss", {"epsilon": 0.0}),
        ("label_aware_smoothing", {"head": 0.0}),
        ("class_balanced", {"beta": 0.0}),
        ("symmetric_cross_entropy", {"alpha": 1.0, "beta": 0.0}),
    ],
)
def test_switched_off_a_loss_is_cross_entropy(ready, name, params):
    logits, y = logits_and_labels()
    torch.testing.assert_close(loss_of(ready(name, params), logits, y), F.cross_entropy(logits, y))


@pytest.mark.parametrize("name", ["ldam", "ala", "gcl"])
def test_a_cosine_head_gives_logits_within_its_scale(ready, tiny_trunk, name):
    model = ready(name, {"scale": 20.0}).build_model(tiny_trunk).eval()
    logits = model(torch.randn(4, 1, 48, 48)).logits
    assert logits.abs().max() <= 20 + 1e-4
    assert not [n for n, _ in model.head.named_parameters() if "bias" in n]


@pytest.mark.parametrize(("loss", "bias"), [("sigmoid", -math.log(6)), ("focal", -math.log(6))])
def test_sigmoid_forms_start_at_one_in_seven(ready, tiny_trunk, loss, bias):
    head = ready("class_balanced", {"loss": loss}).build_model(tiny_trunk).head
    torch.testing.assert_close(head.bias.sigmoid(), torch.full((7,), 1 / 7))
    assert head.bias[0].item() == pytest.approx(bias)


def test_the_length_of_logits_is_nothing_to_logit_norm(ready):
    logits, y = logits_and_labels()
    method = ready("logit_norm")
    torch.testing.assert_close(loss_of(method, 10 * logits, y), loss_of(method, logits, y))


def test_only_rare_classes_that_are_not_the_label_drop_out(ready):
    """Disgust has 1.5 % of the images. Where it drops out, its logit has no gradient; an image of it keeps it."""
    method = ready("equalization", {"gamma": 1.0})
    logits = torch.zeros(2, 7, requires_grad=True)
    method.criterion(Output(logits=logits), torch.tensor([3, 1])).sum().backward()
    sixth, seventh = 1 / 6, 1 / 7
    torch.testing.assert_close(logits.grad[0], torch.tensor([sixth, 0, sixth, sixth - 1, sixth, sixth, sixth]))
    torch.testing.assert_close(logits.grad[1], seventh - F.one_hot(torch.tensor(1), 7))


def test_draws_of_the_equalization_repeat_within_a_step_and_change_with_it(ready):
    method = ready("equalization", {"gamma": 0.5})
    output, y = Output(logits=torch.zeros(400, 7)), torch.full((400,), 3)
    first = method.criterion(output, y)
    assert torch.equal(first, method.criterion(output, y))
    dropped = torch.isclose(first, torch.tensor(math.log(6)))
    assert 150 < dropped.sum() < 250
    method.moment = ("train", 9, 1)
    assert not torch.equal(first, method.criterion(output, y))


def test_seesaw_counts_each_label_once_and_keeps_the_counts(ready, tiny_trunk):
    method = ready("seesaw", {"mix": "mixup"})
    model = method.build_model(tiny_trunk)
    batch = batch_of(torch.tensor([1, 3, 3, 0])).with_(views=[torch.randn(4, 1, 48, 48)])
    for _ in range(2):
        mixed = method.on_batch(batch)
        method.training_step(model, mixed)
        method.training_step(model, mixed)  # a second look, as sharpness-aware methods take
    assert method.seen.tolist() == [2, 2, 0, 4, 0, 0, 0]
    again = ready("seesaw")
    again.load_state_dict(method.state_dict())
    again.on_batch(batch)
    assert again.seen.tolist() == [3, 3, 0, 6, 0, 0, 0]


def test_gcl_trains_the_classifier_on_balanced_batches_for_a_last_share_of_epochs(ready):
    first, last = ready("gcl").stages()
    assert (first.length(200), last.length(200)) == (200, 30)
    assert (last.freeze, last.reinit, last.lr_scale) == (("trunk",), (), 0.02)
    method = ready("gcl", {"sampler": "oversample"})
    assert method.streams(first)["main"].sampler == Oversample()
    assert method.streams(last)["main"].sampler == Power(q=0.0)
    assert [s.name for s in ready("gcl", {"head.epochs": 0.0}).stages()] == ["representation"]


def test_clouds_grow_with_rarity_and_spare_the_largest_class(ready):
    """At logits of 0 the loss of an image is log Σ_j e^(-s |ε_j| d_j) + s |ε_y| d_y, with d = 0 for class 0."""
    method = ready("gcl", {"scale": 1.0, "noise": 1.0}, counts=(100, 10, 1))
    output = Output(logits=torch.zeros(3000, 3))
    loss = {y: method.criterion(output, torch.full((3000,), y)) for y in range(3)}
    clouds = {y: loss[y] - loss[0] for y in (1, 2)}  # s |ε_y| d_y
    assert (clouds[1] >= -1e-6).all()
    assert clouds[2].max() == pytest.approx(1.0, abs=1e-5)  # clipped at three standard deviations
    half_normal = math.sqrt(2 / math.pi) / 3
    assert clouds[2].mean().item() == pytest.approx(half_normal, rel=0.05)
    assert clouds[1].mean().item() == pytest.approx(half_normal / 2, rel=0.05)


# -- LADE ------------------------------------------------------------------------------------------------------------


def lader_by_hand(z, labels, counts, strength):
    """Σ_c π_c (-mean of z_c over images of c + D_c + λ D_c²) in floats; a class that the batch lacks has no mean."""
    total = 0.0
    for c, n in enumerate(counts):
        own = [row[c] for row, y in zip(z, labels, strict=True) if y == c]
        prior = n / sum(counts)
        d = math.log(sum(math.exp(row[c]) / (prior * len(counts)) for row in z) / len(z))
        total += prior * (-(sum(own) / len(own) if own else 0.0) + d + strength * d * d)
    return total


def test_the_regulariser_of_lade_is_that_of_the_formula():
    logits, y = logits_and_labels(5, 7, scale=1.0)
    leaf = logits.clone().requires_grad_()
    value = lader(leaf, F.one_hot(y, 7).float(), np.array(FER2013), 0.3)
    value.backward()
    z = logits.double().tolist()
    assert value.item() == pytest.approx(lader_by_hand(z, y.tolist(), FER2013, 0.3), rel=1e-6)
    h = 1e-5
    for i in range(5):
        for j in range(7):
            ends = []
            for step in (-h, h):
                moved = [list(row) for row in z]
                moved[i][j] += step
                ends.append(lader_by_hand(moved, y.tolist(), FER2013, 0.3))
            assert leaf.grad[i, j].item() == pytest.approx((ends[1] - ends[0]) / (2 * h), abs=1e-6)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_the_regulariser_of_lade_is_finite_for_extreme_logits_and_empty_classes(size):
    z = torch.zeros(3, 4, requires_grad=True)
    logits = z + torch.tensor([[size, 0, 0, 0], [0, size, 0, 0], [size, size, size, size]])
    value = lader(logits, F.one_hot(torch.tensor([0, 1, 1]), 4).float(), np.array([5, 9, 1, 0]), 0.1)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(z.grad).all()
    assert (z.grad[:, 3] == 0).all()


def test_a_step_of_lade_adds_its_regulariser_to_balanced_softmax(ready, tiny_trunk):
    method = ready("lade", {"alpha": 0.5, "lambda": 0.3})
    model = method.build_model(tiny_trunk).eval()
    y = torch.tensor([1, 3, 3, 0])
    x = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    step = method.training_step(model, batch_of(y, 0.1).with_(views=[x]))
    z = step.output.logits.detach()
    prior = torch.tensor(FER2013) / sum(FER2013)
    softmax = F.cross_entropy(z + prior.log(), y, label_smoothing=0.1).item()
    by_hand = lader_by_hand(z.double().tolist(), y.tolist(), FER2013, 0.3)
    assert step.total.item() == pytest.approx(softmax + 0.5 * by_hand, rel=1e-6)
    assert step.parts["regulariser"].item() == pytest.approx(by_hand, rel=1e-6)


# -- composition -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_losses_compose_with_samplers_and_mixing(ready, name):
    method = ready(name, {"sampler": "oversample", "mix": "mixup"})
    assert method.streams(Stage())["main"].sampler == Oversample()
    batch = batch_of(torch.tensor([1, 3, 4, 0])).with_(views=[torch.randn(4, 1, 8, 8)])
    mixed = method.on_batch(batch)
    assert mixed.soft.shape == (4, 7)
    assert not torch.equal(mixed.x, batch.x)

"""GLMC and H2T: losses and maps against NumPy in float64."""

import numpy as np
import pytest
import torch

from fer_bench.contract.batch import Batch
from fer_bench.contract.method import Stage
from fer_bench.methods._shared.samplers import BalancedCapped, Power
from fer_bench.methods.glmc import GLMC, weighted_loss
from fer_bench.methods.h2t import H2T, fused

from .conftest import FER2013


def batch_of(y, seed=0, views=1, side=24, **changes):
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(len(y), 1, side, side, generator=g) for _ in range(views)]
    return Batch(views=images, y=torch.tensor(y), index=torch.arange(len(y)), generator=g, **changes)


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


# -- H2T -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), [((2, 10, 3, 3), 1), ((2, 3, 3, 10), 3), ((2, 5, 10), 2)])
def test_a_share_of_the_channels_is_the_other_maps_wherever_channels_lie(shape, axis):
    a, b = torch.zeros(shape), torch.ones(shape)
    out = fused(a, b, 0.25, 10, torch.Generator().manual_seed(0))
    by_channel = out.movedim(axis, 0).reshape(10, -1)
    assert (by_channel == by_channel[:, :1]).all()
    assert by_channel[:, 0].sum() == 2  # floor(2.5)
    assert torch.equal(fused(a, b, 0.0, 10, torch.Generator()), a)
    assert torch.equal(fused(a, b, 1.0, 10, torch.Generator()), b)
    assert a.sum() == 0, "nothing is written in place"


def test_all_channels_are_equally_likely():
    drawn = sum(fused(torch.zeros(1, 8, 1, 1), torch.ones(1, 8, 1, 1), 0.5, 8, torch.Generator().manual_seed(s))
                for s in range(200))  # fmt: skip
    assert drawn.sum() == 800
    assert (drawn - 100).abs().max() < 30


def test_the_second_stage_adds_natural_images_to_balanced_ones(make_method):
    method = make_method(H2T)
    first, second = method.stages()
    assert second.freeze == ("trunk",)
    assert second.reinit == ()
    assert set(method.streams(first)) == {"main"}
    assert isinstance(method.streams(second)["main"].sampler, BalancedCapped)
    assert set(method.streams(second)) == {"main", "natural"}


def test_fused_maps_are_pooled_and_classified_with_the_balanced_labels(make_method, tiny_trunk):
    method = make_method(H2T, {"share": 0.5})
    method.moment = ("classifier", 1, 0)
    model = method.build_model(tiny_trunk).eval()
    batch = batch_of([1, 0, 5], aux={"natural": batch_of([3, 3], seed=1)})
    out = method.training_step(model, batch)
    with torch.no_grad():
        one = model.trunk.body.forward_features(batch.x).double().numpy()
        two = model.trunk.body.forward_features(batch.aux["natural"].x).double().numpy()[[0, 1, 0]]
        chosen = torch.randperm(128, generator=method.generator("channels"))[:64].numpy()
        one[:, chosen] = two[:, chosen]
        features = one.mean((2, 3))
        logits = features @ model.head.weight.double().numpy().T + model.head.bias.double().numpy()
    assert out.output.logits.detach().numpy() == pytest.approx(logits, abs=1e-5)
    assert out.total.item() == pytest.approx(-log_softmax(logits)[range(3), [1, 0, 5]].mean(), rel=1e-5)
    out.total.backward()
    assert model.head.weight.grad is not None
    assert all(p.grad is None for p in model.trunk.parameters())


def test_only_the_first_stage_mixes(make_method):
    method = make_method(H2T, {"mix": "mixup"})
    assert method.on_batch(batch_of([0, 1])).soft is not None
    assert method.on_batch(batch_of([0, 1], aux={"natural": batch_of([0, 1])})).soft is None


# -- GLMC ------------------------------------------------------------------------------------------------------------


def test_streams_are_two_views_of_natural_and_of_rarer_images(make_method):
    streams = make_method(GLMC).streams(Stage())
    assert {name: spec.views for name, spec in streams.items()} == {"main": 2, "partners": 2}
    assert streams["partners"].sampler == Power(q=0.8)


def test_weighted_losses_by_hand():
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 3
    q = torch.tensor([[1.0, 0, 0, 0], [0.3, 0, 0.7, 0], [0, 0.5, 0, 0.5]])
    w = np.array([0.2, 2.0, 1.5, 0.3])
    batch = batch_of([0, 2, 1]).with_(soft=q)
    expected = -(w * q.double().numpy() * log_softmax(z.double().numpy())).sum(1).mean()
    assert weighted_loss(z, batch, torch.as_tensor(w)).item() == pytest.approx(expected, rel=1e-5)
    hard = batch_of([0, 2, 1])
    expected = -(w[[0, 2, 1]] * log_softmax(z.double().numpy())[range(3), [0, 2, 1]]).mean()
    assert weighted_loss(z, hard, torch.as_tensor(w)).item() == pytest.approx(expected, rel=1e-5)


def test_smoothing_spreads_the_weighted_label_and_no_class_weight():
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    w = torch.tensor([0.5, 100.0, 1.0, 1.0])
    batch = batch_of([0]).with_(soft=torch.tensor([[1.0, 0, 0, 0]]), smoothing=0.1)
    log_p = log_softmax(z.double().numpy())[0]
    expected = -0.5 * (0.9 * log_p[0] + 0.1 * log_p.mean())
    assert weighted_loss(z, batch, w).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_loss_of_a_step_agrees_with_plain_numpy(epoch, make_method, tiny_trunk):
    method = make_method(GLMC, {"dim": 16})
    method.moment = ("train", epoch, 0)
    model = method.build_model(tiny_trunk)
    for module in model.modules():  # as in training, but for BatchNorm, whose statistics the first pass would move
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    batch = batch_of([0, 1, 3], views=2, epoch=epoch, aux={"partners": batch_of([1, 1, 5], seed=4, views=2)})
    loss = method.training_step(model, batch)

    g = method.generator("mix")
    share = float(np.random.default_rng(int(torch.randint(2**31, (), generator=g))).beta(1.0, 1.0))
    box = []
    for _ in range(2):
        centre, half = int(torch.randint(24, (), generator=g)), int(24 * (1 - share) ** 0.5) // 2
        box += [max(centre - half, 0), min(centre + half, 24)]
    partners = batch.aux["partners"]
    blended = share * batch.views[0] + (1 - share) * partners.views[0]
    pasted = batch.views[1].clone()
    pasted[:, :, box[0] : box[1], box[2] : box[3]] = partners.views[1][:, :, box[0] : box[1], box[2] : box[3]]
    kept = 1 - (box[1] - box[0]) * (box[3] - box[2]) / 24**2
    one_hot, other = np.eye(7)[[0, 1, 3]], np.eye(7)[[1, 1, 5]]
    weights = (1 / FER2013) / (1 / FER2013).sum() * 7
    plain = weighted = 0.0
    heads = []
    for x, mu in ((blended, share), (pasted, kept)):
        with torch.no_grad():
            out = model(x)
        q = mu * one_hot + (1 - mu) * other
        plain -= (q * log_softmax(out.extra["plain"].double().numpy())).sum(1).mean()
        weighted -= (weights * q * log_softmax(out.logits.double().numpy())).sum(1).mean()
        heads.append((out.extra["p"].double().numpy(), out.extra["z"].double().numpy()))

    def cosine(a, b):
        return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()

    agreement = cosine(heads[0][0], heads[1][1]) + cosine(heads[1][0], heads[0][1])
    blend = 1 - (epoch / 2) ** 2
    expected = blend * plain + (1 - blend) * weighted - 10 * agreement
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    assert loss.parts["consistency"].item() == pytest.approx(-agreement, rel=1e-4)


def test_projections_are_targets_and_get_no_gradient_as_such(make_method, tiny_trunk):
    method = make_method(GLMC, {"dim": 16})
    method.moment = ("train", 0, 0)
    model = method.build_model(tiny_trunk)
    partners = batch_of([1, 1, 5], seed=4, views=2)
    loss = method.training_step(model, batch_of([0, 1, 3], views=2, aux={"partners": partners}))
    loss.parts["consistency"].backward()
    assert model.guess.weight.grad.abs().sum() > 0
    assert model.head.weight.grad is None
    assert set(model.eval()(partners.x).extra) == set(), "what only training needs is not computed in evaluation"

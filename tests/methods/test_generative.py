"""Methods that make new images or features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench import Batch, Output, Stage, TrainView
from fer_bench.methods._shared.autoencoder import PIXELS, Autoencoder, resized
from fer_bench.methods.deep_smote import DeepSmote, OneClassBatches
from fer_bench.methods.m2m import M2m
from fer_bench.training.dataplane import to_float

SMALL = {"width": 4, "codes": 8}


def changed(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


def parts(names):
    return {name.split(".")[0] for name in names}


# -- DeepSMOTE -------------------------------------------------------------------------------------------------------


def test_pixels_of_a_batch_lie_where_the_autoencoder_ends():
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-PIXELS, PIXELS]


@pytest.mark.parametrize("shape", [(1, 48, 48), (3, 24, 24), (1, 29, 33)])
def test_the_autoencoder_gives_images_of_the_same_shape(shape):
    coder = Autoencoder(shape, 4, 8)
    codes = coder.encode(torch.randn(2, *shape))
    assert codes.shape == (2, 8)
    assert coder.decode(codes).shape == (2, *shape)
    assert coder.decode(1e4 * codes).abs().max() <= PIXELS


def test_batches_of_one_class_are_drawn_class_by_class(faces):
    images, labels = faces((20, 12, 5, 3))
    view = TrainView(images=images, labels=labels, num_classes=4)
    seen = set()
    for seed in range(10):
        positions = OneClassBatches(size=8)(view, 0, np.random.default_rng(seed))
        assert positions.shape == (40,)
        for batch in labels[positions].reshape(5, 8):
            assert len(set(batch)) == 1
            seen.add(batch[0])
        for batch, c in zip(positions.reshape(5, 8), labels[positions].reshape(5, 8)[:, 0], strict=True):
            assert len(set(batch)) == 8 or (labels == c).sum() < 8, "no image twice while there are others"
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("detach", [False, True])
def test_the_loss_is_two_reconstructions(make_method, tiny_trunk, make_batch, detach):
    method = make_method(DeepSmote, {**SMALL, "detach": detach})
    model = method.build_model(tiny_trunk).eval()  # without batch statistics, images can be looked at one by one
    method.moment = ("autoencoder", 0, 0)
    main, alike = make_batch(size=3), make_batch(size=4, seed=1)
    loss = method.training_step(model, main.with_(aux={"alike": alike}))
    with torch.no_grad():
        once = model.coder.decode(model.coder.encode(main.x)) - main.x
        again = model.coder.decode(model.coder.encode(alike.x)) - alike.x  # a permutation of both changes no mean
    torch.testing.assert_close(loss.total, once.square().mean() + again.square().mean())
    loss.parts["permuted"].backward()
    assert (model.coder.encoder[0].weight.grad is None) == detach


def test_new_images_bring_each_class_to_the_size_of_the_largest(fit_small, faces):
    run = fit_small(DeepSmote, {**SMALL, "autoencoder.epochs": 0.5})
    assert [entry["stage"] for entry in run.history] == ["autoencoder", "train", "train"]
    made = run.method.generate(Stage(name="generate", kind="generate"), run.model, run.view)
    assert np.bincount(made.labels).tolist() == [20, 20, 20, 20]
    assert torch.equal(made.images[:40], run.view.images), "the real images stay as they are"
    assert (made.images.dtype, made.images.shape) == (torch.uint8, (80, 1, 24, 24))
    again = run.method.generate(Stage(name="generate", kind="generate"), run.model, run.view)
    assert torch.equal(made.images, again.images)
    assert parts(changed(run.weights[0], run.weights[1])) == {"trunk", "head"}, "the autoencoder stands"


def test_a_lone_image_gives_its_own_reconstruction(fit_small):
    run = fit_small(DeepSmote, SMALL, counts=(6, 5, 4, 1), batch_size=4)
    made = run.method.generate(Stage(name="generate", kind="generate"), run.model, run.view)
    run.model.coder.eval()
    with torch.no_grad():
        (lone,) = run.view.images[run.view.labels == 3].split(1)
        own = (run.model.coder.decode(run.model.coder.encode(to_float(lone))) / PIXELS + 1) * 127.5
    new = made.images[16:][made.labels[16:] == 3].float()
    assert len(new) == 5
    assert (new - own).abs().max() <= 0.51


def test_images_of_another_size_come_back_at_their_own(make_method, tiny_trunk, faces):
    images, labels = faces((6, 3, 3, 3))
    method = make_method(DeepSmote, SMALL, counts=(6, 3, 3, 3), image_shape=(1, 48, 48))
    view = TrainView(images=images, labels=labels, num_classes=4)
    made = method.generate(Stage(name="generate", kind="generate"), method.build_model(tiny_trunk), view)
    assert made.images.shape == (24, 1, 24, 24)
    assert resized(images, (24, 24)) is images


# -- major-to-minor --------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """A network whose logits are easy to work out: weights times pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights))

    def forward(self, x):
        return Output(logits=x.flatten(1) @ self.weights.T)


class Pair(Linear):
    """The network being trained, and g."""

    def __init__(self, weights, source):
        super().__init__(weights)
        self.source = Linear(source)


def weights(classes=3, pixels=16, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (classes, pixels)).astype(np.float32)


def test_a_translation_follows_the_normalised_gradient(make_method):
    method = make_method(M2m, {"steps": 2, "lam": 0.3}, counts=(30, 10, 2))
    f, g = weights(seed=0), weights(seed=1)
    start = np.random.default_rng(2).uniform(-1.9, 1.9, (2, 16)).astype(np.float32)
    own, rare = np.array([0, 1]), np.array([2, 2])
    x = start.astype(np.float64)
    for _ in range(2):
        p = np.exp(x @ g.T.astype(np.float64))
        p /= p.sum(1, keepdims=True)
        slope = (p - np.eye(3)[rare]) @ g + 0.3 * f[own]
        x = np.clip(x - 0.4 * slope / np.linalg.norm(slope, axis=1, keepdims=True), -2, 2)  # 0.1 of pixels 0 to 1
    images = torch.from_numpy(start).reshape(2, 1, 4, 4)
    made = method.translate(Pair(f, g), images, torch.from_numpy(own), torch.from_numpy(rare))
    np.testing.assert_allclose(made.flatten(1).numpy(), x, atol=1e-5)


def batch_of(labels):
    x = torch.rand(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    y = torch.tensor(labels)
    return Batch(views=[x], y=y, index=torch.arange(len(labels)), generator=torch.Generator())


def test_only_rare_places_are_taken_and_only_if_g_is_sure(make_method):
    method = make_method(M2m, {"gamma": 0.6, "steps": 20}, counts=(5000, 3000, 100))
    method.moment = ("train", 5, 3)
    network, batch = Pair(weights(seed=0), weights(seed=1)), batch_of([0] * 12 + [1] * 12 + [2] * 12)
    made = method.translated(network, batch)
    moved = (made != batch.x).flatten(1).any(1)
    assert not moved[:12].any(), "an image of the largest class is never replaced"
    assert moved[24:].sum() >= 8, "98 of 100 places of the rarest class are wanted"
    sure = F.softmax(network.source(made[moved]).logits, 1).gather(1, batch.y[moved, None])
    assert (sure >= 0.6).all()
    assert torch.equal(made, method.translated(network, batch)), "the same step, the same draws"
    unsure = make_method(M2m, {"gamma": 1.0, "steps": 1}, counts=(5000, 3000, 100))
    unsure.moment = ("train", 5, 3)
    assert torch.equal(unsure.translated(network, batch), batch.x)


def test_seeds_have_more_images_than_the_class_they_are_translated_into(make_method):
    method = make_method(M2m, {"gamma": 0.0, "beta": 0.0, "steps": 1, "step": 0.0}, counts=(50, 20, 1))
    method.moment = ("train", 0, 0)
    batch = batch_of([0, 0, 1, 2, 2, 2])
    made = method.translated(Pair(weights(), weights()), batch)
    distance = torch.cdist(made.flatten(1), batch.x.flatten(1))  # without steps only noise of length 2 at most is added
    for place in (made != batch.x).flatten(1).any(1).nonzero()[:, 0].tolist():
        near = [c for c, d in zip(batch.y.tolist(), distance[place].tolist(), strict=True) if d <= 2.0 + 1e-5]
        assert any(c < batch.y[place] for c in near)


def test_equal_classes_are_never_translated(make_method):
    method = make_method(M2m, {"gamma": 0.0}, counts=(20, 20, 20))
    batch = batch_of([0, 1, 2, 0])
    assert method.translated(Pair(weights(), weights()), batch) is batch.x


def test_translation_starts_late_and_leaves_statistics_alone(make_method, tiny_trunk, make_batch):
    from fer_bench.methods._shared.samplers import BalancedCapped

    method = make_method(M2m, {"from": 0.5, "gamma": 0.0, "steps": 1})  # two epochs a stage
    model, stage = method.build_model(tiny_trunk), method.stages()[1]
    started = []
    for epoch in range(4):
        method.on_epoch_start(epoch, model)
        started.append(isinstance(method.streams(stage)["main"].sampler, BalancedCapped))
    assert started == [False, False, False, True]
    model.train()
    before = {n: b.clone() for n, b in model.named_buffers()}
    method.moment = ("train", 3, 0)
    method.translated(model, make_batch())
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_one_network_learns_at_a_time(fit_small):
    run = fit_small(M2m, {"from": 0.5, "gamma": 0.0, "steps": 1}, epochs=2)
    assert [entry["stage"] for entry in run.history] == ["source", "source", "train", "train"]
    assert parts(changed(run.weights[0], run.weights[1])) == {"source"}
    assert parts(changed(run.weights[1], run.weights[3])) == {"trunk", "head"}

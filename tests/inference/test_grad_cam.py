"""Grad-CAM against what it must be where the network is simple, and the maps of other families of networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fer_bench import Output
from fer_bench.inference.grad_cam import as_map, grad_cam
from fer_bench.inference.trained import load_trained
from fer_bench.training.dataplane import prepare
from tests.inference.conftest import World


@pytest.fixture
def trained(world: World):
    return load_trained(world.runs["baseline_resnet"], world.home, world.available, device="cpu")


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)


def test_behind_mean_pooling_and_a_linear_head_it_is_the_class_activation_map(trained):
    # Selvaraju et al. 2017, section 3.1: dz_c / dF_d = W_cd / (h w) in every place, so Grad-CAM is CAM over h w
    classes = np.array([0, 1, 2, 0, 1])
    found = grad_cam(trained, IMAGES, classes)
    with torch.no_grad():
        fmap = trained.model.trunk.body.forward_features(prepare(torch.from_numpy(IMAGES), 0)).double().numpy()
    weight = trained.model.head.weight.detach().double().numpy()
    size = fmap.shape[2] * fmap.shape[3]
    expected = np.stack(
        [np.maximum(0, np.tensordot(weight[c], f, 1)) / size for c, f in zip(classes, fmap, strict=True)]
    )
    assert found.shape == expected.shape
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_an_image_has_the_same_map_alone(trained):
    together = grad_cam(trained, IMAGES, np.zeros(5, np.int64))
    alone = torch.cat([grad_cam(trained, image[None], np.zeros(1, np.int64)) for image in IMAGES])
    one_by_one = grad_cam(replace(trained, transductive=True), IMAGES, np.zeros(5, np.int64))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)
    assert torch.equal(alone, one_by_one)


def test_the_network_keeps_its_weights_gradients_and_mode(trained):
    grad_cam(trained, IMAGES, np.zeros(5, np.int64))
    assert all(p.grad is None for p in trained.model.parameters())
    assert not trained.model.training


@pytest.mark.parametrize("fmap", ["none", "detached", "beside"])
def test_a_network_without_a_map_behind_its_logits_has_none(trained, fmap):
    linear = nn.Linear(3 * 16 * 16, 3)

    def predict(model, x):
        maps = {"none": None, "detached": x.detach(), "beside": torch.relu(x)}
        return Output(logits=linear(x.flatten(1)), fmap=maps[fmap])

    trained.method.predict = predict
    assert grad_cam(trained, IMAGES, np.zeros(5, np.int64)) is None


def test_maps_of_other_networks_are_brought_to_channels_and_places():
    values = torch.arange(2 * 7 * 3 * 3).reshape(2, 7, 3, 3).float()
    assert torch.equal(as_map(values), values)
    assert torch.equal(as_map(values.permute(0, 2, 3, 1)), values)  # Swin: [n, h, w, D]
    tokens = values.flatten(2).transpose(1, 2)
    for prefix in (0, 1, 5):  # ViT: class and register tokens come first
        assert torch.equal(as_map(torch.cat([torch.full((2, prefix, 7), -1.0), tokens], 1)), values)
    assert as_map(torch.zeros(2, 7)) is None
    assert as_map(torch.zeros(2, 62, 4)) is None  # 62 to 54 is no square


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_transformers_of_timm_give_such_maps(name):
    import timm

    size = {"img_size": 64, "window_size": 2} if "swin" in name else {"img_size": 64}
    body = timm.create_model(name, num_classes=0, in_chans=1, **size).eval()
    with torch.no_grad():
        found = as_map(body.forward_features(torch.zeros(2, 1, 64, 64)))
    side = 4 if "vit" in name else 2
    assert found.shape == (2, body.num_features, side, side)

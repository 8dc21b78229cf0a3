"""Where the places of a last map lie, for networks of which that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fer_bench import Output
from fer_bench.inference.places import Places, measured
from fer_bench.inference.trained import load_trained
from tests.inference.conftest import World

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)


@pytest.fixture
def trained(world: World):
    return load_trained(world.runs["baseline_resnet"], world.home, world.available, device="cpu")


def places_of(trained, network):
    for parameter in network.parameters():
        nn.init.ones_(parameter)  # so that all pixels of a place move it alike
    trained.method.predict = lambda model, x: Output(logits=network(x).mean((2, 3)), fmap=network(x))
    return measured(trained, IMAGES)


def test_a_padded_convolution_centres_its_places_on_multiples_of_its_stride(trained):
    network = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1))
    found = places_of(trained, network)
    for centres in (found.rows, found.columns):
        np.testing.assert_allclose(centres[1:], [4, 8, 12])
        assert 0 <= centres[0] <= 1  # half of what it sees lies outside the image


def test_patches_lie_in_the_middle_of_their_part_of_the_image(trained):
    found = places_of(trained, nn.Conv2d(3, 64, 4, 4))
    np.testing.assert_allclose(found.rows, [1.5, 5.5, 9.5, 13.5], atol=0.5)
    np.testing.assert_allclose(found.columns, Places.even((4, 4), (16, 16)).columns, atol=0.5)


def test_a_network_that_mixes_all_places_has_even_ones(trained):
    class Mixed(nn.Module):
        def forward(self, x):
            return nn.functional.avg_pool2d(x, 16).expand(-1, -1, 4, 4)

    found = places_of(trained, Mixed())
    np.testing.assert_allclose(found.rows, [1.5, 5.5, 9.5, 13.5])


def test_a_network_without_a_map_has_no_places(trained):
    trained.method.predict = lambda model, x: Output(logits=x.mean((2, 3)))
    assert measured(trained, IMAGES) is None


def test_maps_are_linear_between_centres_and_constant_beyond_them():
    places = Places(np.array([0.0, 2.0]), np.array([1.0, 3.0]))
    drawn = places.stretched(torch.tensor([[[0.0, 4.0], [2.0, 6.0]]]), (4, 5))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn[0, 0], [0, 0, 2, 4, 4])
    np.testing.assert_allclose(drawn[0, :, 0], [0, 1, 2, 2])


def test_even_places_are_those_of_an_ordinary_enlargement():
    values = torch.rand(2, 3, 5)
    expected = nn.functional.interpolate(values[:, None], size=(12, 20), mode="bilinear", align_corners=False)[:, 0]
    drawn = Places.even((3, 5), (12, 20)).stretched(values, (12, 20))
    np.testing.assert_allclose(drawn, expected.numpy(), atol=1e-6)

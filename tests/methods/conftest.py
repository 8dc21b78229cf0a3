"""A tiny world for method tests: 7 classes with FER2013's counts, and a narrow ResNet on 24-pixel images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fer_bench.contract.backbones import build_trunk
from fer_bench.contract.batch import Batch, Context

FER2013 = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def make_context():
    def make(counts=FER2013, image_shape=(1, 48, 48)):
        return Context(
            classes=tuple(f"class{c}" for c in range(len(counts))),
            counts=np.asarray(counts),
            image_shape=image_shape,
            seed=0,
            epochs=2,
            batch_size=4,
            device=torch.device("cpu"),
            recipe={},
        )

    return make


@pytest.fixture
def make_method(make_context):
    """Build a method of a class with some parameters, as the harness does."""

    def make(cls, params=None, **context):
        method = cls(cls.card.resolve(params or {}))
        method.ctx = make_context(**context)
        return method

    return make


@pytest.fixture
def tiny_trunk():
    """A function without arguments that gives the same fresh trunk each time."""

    def make():
        torch.manual_seed(1)
        return build_trunk("resnet10_tiny", in_chans=1, image_size=48)

    return make


@pytest.fixture
def make_batch():
    def make(size=4, side=48, seed=0):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(size, 1, side, side, generator=g)
        y = torch.randint(0, 7, (size,), generator=g)
        return Batch(views=[x], y=y, index=torch.arange(size), generator=g)

    return make

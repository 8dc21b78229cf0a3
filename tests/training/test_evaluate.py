from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fer_bench.contract.backbones import Classifier, build_trunk
from fer_bench.contract.batch import Output
from fer_bench.contract.method import Method
from fer_bench.training.evaluate import predict, predict_exactly
from fer_bench.training.recipe import Recipe


def switches():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


@pytest.fixture
def all_on():
    """Kernels chosen as the harness has them in training on a GPU."""
    matmul, cudnn, before = torch.backends.cuda.matmul, torch.backends.cudnn, switches()
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = True
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


class Noting(Method):
    """Notes how kernels are chosen when it predicts."""

    def predict(self, model, x):
        self.seen = switches()
        return super().predict(model, x)


def test_the_probe_neither_rounds_to_ten_bits_nor_tries_kernels_for_each_size_of_batch(all_on):
    method = Noting()
    method.ctx = SimpleNamespace(num_classes=3)
    model = Classifier(build_trunk("resnet10_tiny", in_chans=1, image_size=16), 3)
    logits = predict_exactly(method, model, torch.zeros(3, 1, 16, 16, dtype=torch.uint8), Recipe(), batch=2)
    assert logits.shape == (3, 3)
    assert method.seen == (False, False, False)
    assert switches() == (True, True, True)


class Corner(Method):
    """Its logits and features are the grey of the first pixel, squared."""

    def predict(self, model, x):
        seen = x[:, 0, 0, :1] ** 2
        return Output(logits=torch.cat([seen, -seen], dim=1), features=2 * seen)

    def extract(self, model, x):
        return x[:, 0, 0, :1] ** 2

    def predict_estimator(self, features):
        return np.concatenate([features, -features], axis=1)


@pytest.mark.parametrize(("flip", "seen"), [(False, [4.0, 0.0]), (True, [2.5, 0.5])])
def test_flip_averages_an_image_and_its_mirror_image(flip, seen):
    images = torch.full((2, 1, 16, 16), 127.5).round()  # normalised: 0, but for the corners
    images[0, 0, 0, 0], images[0, 0, 0, -1] = 255, 191.25  # 2 and 1
    images[1, 0, 0, 0], images[1, 0, 0, -1] = 127.5, 63.75  # 0 and -1
    method = Corner()
    found = predict(method, nn.Identity(), images.to(torch.uint8), Recipe(test_flip=flip), features=True)
    assert found.logits[:, 0].tolist() == pytest.approx(seen, abs=0.02)
    assert found.logits[:, 1].tolist() == pytest.approx([-v for v in seen], abs=0.02)
    assert found.features[:, 0].tolist() == pytest.approx([2 * v for v in seen], abs=0.04)
    of_estimator = predict(method, nn.Identity(), images.to(torch.uint8), Recipe(test_flip=flip), estimator=True)
    assert of_estimator.logits[:, 0].tolist() == pytest.approx(seen, abs=0.02)

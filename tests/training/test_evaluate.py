from types import SimpleNamespace

import pytest
import torch

from fer_bench.contract.backbones import Classifier, build_trunk
from fer_bench.contract.method import Method
from fer_bench.training.evaluate import predict_exactly
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

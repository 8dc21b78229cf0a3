"""Methods that change which images are drawn: their streams, and the loss they share."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Output, TrainView
from fer_bench.contract.method import Stage
from fer_bench.methods._shared.samplers import Effective, Power, Progressive, RepeatFactor, Undersample
from fer_bench.methods.cmo import CMO
from fer_bench.methods.effective_sampling import EffectiveSampling
from fer_bench.methods.mixup import Mixup
from fer_bench.methods.power_sampling import PowerSampling
from fer_bench.methods.progressive_sampling import ProgressiveSampling
from fer_bench.methods.repeat_factor import RepeatFactorSampling
from fer_bench.methods.undersample import RandomUndersampling
from fer_bench.rng import numpy_generator

CASES = [
    (RandomUndersampling, {}, Undersample(seed=0)),
    (RandomUndersampling, {"redraw": "epoch", "cap": 50}, Undersample(redraw=True, cap=50)),
    (RandomUndersampling, {"epoch_length": "full"}, Undersample(epoch_length="full")),
    (PowerSampling, {}, Power(q=0.0)),
    (PowerSampling, {"q": 0.5}, Power(q=0.5)),
    (ProgressiveSampling, {}, Progressive(epochs=2)),
    (EffectiveSampling, {}, Effective(beta=0.9999)),
    (RepeatFactorSampling, {}, RepeatFactor(threshold=None)),
    (RepeatFactorSampling, {"threshold": 0.3}, RepeatFactor(threshold=0.3)),
    (RepeatFactorSampling, {"epoch_length": "full"}, RepeatFactor(epoch_length="full")),
    (Mixup, {"sampler": "sqrt"}, Power(q=0.5)),
]


@pytest.mark.parametrize(("cls", "params", "sampler"), CASES)
def test_a_method_draws_with_the_sampler_that_its_parameters_name(cls, params, sampler, make_method):
    streams = make_method(cls, params).streams(Stage())
    assert {name: spec.sampler for name, spec in streams.items()} == {"main": sampler}


def test_two_streams_of_cmo_take_the_backgrounds_from_the_chosen_sampler(make_method):
    streams = make_method(CMO, {"sampler": "capped", "patch.q": -1.0}).streams(Stage())
    assert streams["patches"].sampler == Power(q=-1.0)
    assert type(streams["main"].sampler).__name__ == "BalancedCapped"


def test_an_undersampled_run_has_its_own_subset(make_method):
    labels = np.repeat([0, 1], [30, 5])
    view = TrainView(images=torch.zeros(35, 1, 1, 1), labels=labels, num_classes=2)
    method = make_method(RandomUndersampling)
    kept = set(method.sampler()(view, 0, numpy_generator(0, "data")))
    method.ctx = type(method.ctx)(**{**vars(method.ctx), "seed": 1})
    assert kept != set(method.sampler()(view, 0, numpy_generator(0, "data")))


@pytest.mark.parametrize("cls", [PowerSampling, Mixup])
def test_the_loss_is_cross_entropy_of_each_image_and_takes_weights(cls, make_method, make_batch):
    batch = make_batch()
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(1)) * 5
    method = make_method(cls, {"weights": "inverse"})
    expected = -torch.log_softmax(logits.double(), 1)[torch.arange(4), batch.y]
    near = pytest.approx(expected.tolist(), rel=1e-5, abs=1e-6)
    assert method.criterion(Output(logits=logits), batch.y).tolist() == near
    one_hot = F.one_hot(batch.y, 7).float()
    assert method.criterion(Output(logits=logits), one_hot).tolist() == near
    weights = 28709 / (7 * np.array([3995, 436, 4097, 7215, 4830, 3171, 4965]))[batch.y]
    weighted = (expected.numpy() * weights).mean()
    assert method.batch_loss(Output(logits=logits), batch).item() == pytest.approx(weighted, rel=1e-5)


def test_weights_wait_for_their_epoch(make_method, make_batch):
    method = make_method(PowerSampling, {"weights": "inverse", "weights.from": 0.5})  # of two epochs
    assert method.image_weights(make_batch().with_(epoch=0)) is None
    assert method.image_weights(make_batch().with_(epoch=1)) is not None

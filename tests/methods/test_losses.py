import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fer_bench.contract.batch import Batch, Output
from fer_bench.methods._shared.losses import effective_weights, focal_losses, inverse_weights
from fer_bench.methods.baseline_focal import BaselineFocal
from fer_bench.methods.baseline_resnet import BaselineResNet
from fer_bench.methods.baseline_weighted import BaselineWeighted
from fer_bench.methods.rasn import RASN
from fer_bench.training.fit import _smooth

FER2013 = (3995, 436, 4097, 7215, 4830, 3171, 4965)
RAFDB = (1290, 281, 717, 4772, 1982, 705, 2524)

CRITERIA = [
    (BaselineResNet, {}),
    (BaselineFocal, {}),
    (BaselineFocal, {"gamma": 0.5, "weights": "inverse"}),
    (BaselineFocal, {"weights": "effective"}),
    (BaselineWeighted, {}),
    (BaselineWeighted, {"reduction": "batch"}),
    (BaselineWeighted, {"power": 0.5, "normalise": "classes", "reduction": "batch"}),
    (RASN, {}),
    (RASN, {"sampler": "class_weighted_ce"}),
]


def logits_and_labels(size=16, scale=3.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(size, 7, generator=g), torch.randint(0, 7, (size,), generator=g)


def loss_of(method, logits, target, smoothing=0.0):
    """The loss that training minimises, for labels [B] or soft targets [B, 7]."""
    y, soft = (target, None) if target.ndim == 1 else (target.argmax(1), target)
    batch = Batch(views=[], y=y, soft=soft, index=torch.arange(len(y)), generator=torch.Generator())
    if smoothing:
        batch = _smooth(batch, smoothing, logits.shape[1])
    return method.batch_loss(Output(logits=logits), batch)


@pytest.mark.parametrize(
    ("counts", "printed"),
    [
        (FER2013, (1.0266, 9.4066, 1.0010, 0.5684, 0.8491, 1.2934, 0.8260)),
        (RAFDB, (1.3589, 6.2384, 2.4449, 0.3674, 0.8845, 2.4865, 0.6945)),
    ],
)
def test_inverse_weights_equal_the_published_vectors(counts, printed):
    np.testing.assert_allclose(inverse_weights(counts), printed, atol=5e-5)
    np.testing.assert_allclose(inverse_weights(counts), sum(counts) / (7 * np.array(counts)), rtol=1e-12)


def test_square_root_weights_equal_the_published_vector():
    printed = (0.8058, 2.4390, 0.7957, 0.5996, 0.7328, 0.9044, 0.7228)
    np.testing.assert_allclose(inverse_weights(FER2013, 0.5, "classes"), printed, atol=5e-5)


@pytest.mark.parametrize(
    ("counts", "printed"),
    [
        (FER2013, (0.5282, 4.0772, 0.5175, 0.3384, 0.4541, 0.6401, 0.4445)),
        (RAFDB, (0.6712, 2.9315, 1.1740, 0.2141, 0.4518, 1.1933, 0.3642)),
    ],
)
def test_effective_number_weights_equal_the_published_vectors(counts, printed):
    np.testing.assert_allclose(effective_weights(counts), printed, atol=5e-5)


@given(
    counts=st.lists(st.integers(0, 10_000), min_size=2, max_size=10).filter(any),
    power=st.floats(0.0, 2.0),
)
def test_weights_are_finite_normalised_and_never_favour_the_larger_class(counts, power):
    counts = np.array(counts)
    images, classes = inverse_weights(counts, power), inverse_weights(counts, power, "classes")
    assert np.isfinite(images).all()
    assert (images * counts).sum() == pytest.approx(counts.sum())
    assert classes.sum() == pytest.approx(len(counts))
    present = np.flatnonzero(counts)
    by_size = images[present[np.argsort(counts[present])]]
    assert (np.diff(by_size) <= 1e-9 * by_size[:-1]).all()
    assert (images[counts == 0] == 0).all()


@pytest.mark.parametrize(("cls", "params"), CRITERIA, ids=str)
def test_one_hot_targets_give_the_loss_and_gradient_of_hard_labels(make_method, cls, params):
    method = make_method(cls, params)
    logits, y = logits_and_labels()
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    hard = loss_of(method, a, y)
    soft = loss_of(method, b, F.one_hot(y, 7).float())
    hard.backward()
    soft.backward()
    torch.testing.assert_close(hard, soft)
    torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(("cls", "params"), CRITERIA, ids=str)
def test_loss_under_bfloat16_autocast_is_float32(make_method, cls, params):
    method = make_method(cls, params)
    logits, y = logits_and_labels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [loss_of(method, logits, target, 0.1) for target in (y, F.one_hot(y, 7).float())]
    for loss in inside:
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, loss_of(method, logits, y, 0.1), rtol=1e-6, atol=0)


def test_focal_loss_of_a_sample_worked_out_by_hand():
    logits = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)]])
    by_hand = (1 - 0.2) ** 2 * -math.log(0.2)  # 0.64 * 1.6094 = 1.0300
    assert focal_losses(logits, torch.tensor([1]), 2.0).item() == pytest.approx(by_hand, rel=1e-6)
    assert by_hand == pytest.approx(1.0300, abs=5e-5)


def test_focal_loss_of_a_soft_target_worked_out_by_hand():
    logits = torch.tensor([[math.log(0.5), math.log(0.5)]])
    target = torch.tensor([[0.75, 0.25]])
    by_hand = 0.5**2 * math.log(2)  # both classes: q sums to 1, p = 1/2
    assert focal_losses(logits, target, 2.0).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_with_gamma_0_is_cross_entropy(make_method, smoothing):
    logits, y = logits_and_labels()
    loss = loss_of(make_method(BaselineFocal, {"gamma": 0.0}), logits, y, smoothing)
    torch.testing.assert_close(loss, F.cross_entropy(logits, y, label_smoothing=smoothing))


def test_weighted_focal_loss_takes_p_from_the_unweighted_softmax(make_method):
    logits, y = logits_and_labels()
    w = torch.tensor(inverse_weights(FER2013), dtype=torch.float32)
    p = logits.softmax(1)[torch.arange(len(y)), y]
    expected = (w[y] * (1 - p) ** 2 * -p.log()).mean()
    method = make_method(BaselineFocal, {"weights": "inverse"})
    torch.testing.assert_close(loss_of(method, logits, y), expected)


@settings(deadline=None, max_examples=50)
@given(gamma=st.floats(0.0, 5.0), scale=st.sampled_from([0.0, 1.0, 50.0, 1e4]))
def test_focal_gradient_is_finite_even_for_certain_predictions(gamma, scale):
    logits, y = logits_and_labels(scale=scale)
    logits.requires_grad_()
    loss = focal_losses(logits, y, gamma).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_weighted_loss_equals_pytorch_with_weights(make_method):
    logits, y = logits_and_labels()
    w = torch.tensor(28709 / (7 * np.array(FER2013)), dtype=torch.float32)
    loss = loss_of(make_method(BaselineWeighted), logits, y)
    torch.testing.assert_close(loss, F.cross_entropy(logits, y, weight=w))


def test_power_0_is_plain_cross_entropy(make_method):
    logits, y = logits_and_labels()
    for reduction in ("weights", "batch"):
        loss = loss_of(make_method(BaselineWeighted, {"power": 0.0, "reduction": reduction}), logits, y)
        torch.testing.assert_close(loss, F.cross_entropy(logits, y))


def test_scale_of_the_weights_cancels_when_divided_by_their_sum(make_method):
    logits, y = logits_and_labels()
    a, b = (loss_of(make_method(BaselineWeighted, {"normalise": n}), logits, y, 0.1) for n in ("images", "classes"))
    torch.testing.assert_close(a, b)


def test_a_class_without_images_does_not_break_the_weighted_loss(make_method):
    method = make_method(BaselineWeighted, counts=(100, 0, 10))
    for target in (torch.tensor([0, 2]), torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])):
        assert torch.isfinite(loss_of(method, torch.randn(2, 3), target, 0.1))
    assert loss_of(method, torch.randn(1, 3), torch.tensor([[0.0, 1.0, 0.0]])) == 0

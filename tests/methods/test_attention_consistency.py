"""EAC and MEK: maps and their mirror images, class weights of RAF-DB, and smooth labels worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from fer_bench.contract.backbones import Trunk, build_trunk
from fer_bench.contract.batch import Output
from fer_bench.contract.method import Stage
from fer_bench.errors import SpecError
from fer_bench.methods._shared.consistency import mirror_gaps
from fer_bench.methods._shared.maps import activation_maps
from fer_bench.methods.eac import EAC
from fer_bench.methods.mek import MEK, rebalance_weights, smooth_labels

RAFDB = np.array([1290, 281, 717, 4772, 1982, 705, 2524])


class Symmetric(nn.Module):
    """One convolution whose kernels are their own mirror images: it commutes with mirroring."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.copy_(self.conv.weight + self.conv.weight.flip(3))

    def forward_features(self, x):
        return self.conv(x)

    def forward_head(self, fmap, pre_logits):
        return fmap.mean((2, 3))


def test_activation_maps_are_the_weighted_sums_of_channels_and_give_the_weights_no_gradient():
    head, fmap = nn.Linear(3, 2), torch.randn(2, 3, 2, 2, requires_grad=True)
    maps = activation_maps(fmap, head)
    w = head.weight.detach().double().numpy()
    f = fmap.detach().double().numpy()
    expected = [[sum(w[k, d] * f[b, d] for d in range(3)) for k in range(2)] for b in range(2)]
    np.testing.assert_allclose(maps.detach(), expected, rtol=1e-5, atol=1e-6)
    maps.sum().backward()
    assert head.weight.grad is None
    assert fmap.grad is not None


def test_gap_between_a_map_and_a_mirrored_one_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    mirrored = torch.tensor([[[[2.0, 0.0], [4.0, 3.0]]]])  # turned back: 0 2, 3 4
    assert mirror_gaps(maps, mirrored).tolist() == [[0.25]]


def test_a_network_that_commutes_with_mirroring_is_consistent_and_another_one_is_not(make_method, make_batch):
    batch = make_batch(side=6)
    for params in ({"weight": 5.0}, {"weight": 500.0}):
        method = make_method(EAC, params, image_shape=(1, 6, 6))
        model = method.build_model(lambda: Trunk(Symmetric()))
        loss = method.training_step(model, batch)
        assert loss.parts["consistency"].item() < 1e-12
        with torch.no_grad():
            model.trunk.body.conv.weight[0, 0, :, 0] += 1.0
        assert method.training_step(model, batch).parts["consistency"].item() > 1e-3


def consistency(model, x, weights):
    """Σ_c w_c (mean over images and positions), from the formula, in float64."""
    f, g = (model.trunk(v)[0].detach().double().numpy() for v in (x, x.flip(3)))
    w = model.head.weight.detach().double().numpy()
    gaps = [np.tensordot(w[k], f.swapaxes(0, 1), 1) - np.tensordot(w[k], g.swapaxes(0, 1), 1)[..., ::-1]
            for k in range(len(w))]  # fmt: skip
    return sum(weight * np.mean(gap**2) for weight, gap in zip(weights, gaps, strict=True))


@pytest.mark.parametrize(("cls", "weights"), [(EAC, [1 / 7] * 7), (MEK, rebalance_weights(RAFDB))])
def test_loss_is_cross_entropy_plus_weighted_consistency(make_method, tiny_trunk, make_batch, cls, weights):
    method, batch = make_method(cls, {"weight": 3.0}, counts=RAFDB), make_batch()
    model = method.build_model(tiny_trunk).eval()  # so that the trunk gives the same map again
    loss = method.training_step(model, batch)
    expected = consistency(model, batch.x, weights)
    assert loss.parts["consistency"].item() == pytest.approx(expected, rel=1e-4)
    assert loss.total.item() == pytest.approx(loss.parts["ce"].item() + 3 * expected, rel=1e-4)


def test_both_views_get_a_gradient(make_method, tiny_trunk, make_batch):
    method, batch = make_method(EAC), make_batch()
    model = method.build_model(tiny_trunk).train()
    method.training_step(model, batch).total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_training_images_are_erased_and_never_mirrored(make_method):
    method = make_method(EAC)
    object.__setattr__(method.ctx, "recipe", {"flip": 0.5, "shift": 3.0, "rotate": 7.0, "scale": 0.1, "erase": 0.0})
    augment = method.streams(Stage())["main"].augment
    assert (augment.flip, augment.shift, augment.rotate, augment.scale) == (0.0, 3.0, 7.0, 0.1)
    assert (augment.erase, augment.erase_area) == (0.5, (0.02, 0.25))


def test_a_backbone_without_a_last_map_is_refused(make_method):
    method = make_method(EAC, image_shape=(1, 32, 32))
    with pytest.raises(SpecError, match="eac needs a backbone with a last map"):
        method.build_model(lambda: build_trunk("vit_tiny_patch16_224", in_chans=1, image_size=32))


def test_weights_of_raf_db_are_the_constants_of_the_authors_code():
    expected = [0.9512, 4.3669, 1.7114, 0.2571, 0.6191, 1.7406, 0.4862]
    np.testing.assert_allclose(rebalance_weights(RAFDB), expected, atol=5e-5)


def test_smooth_labels_by_hand():
    # N = 60; weights 60/(10 n): 0.6, 0.3, 0.2, 0. Of label 0, class 1 gets ε 0.3/0.5, class 2 ε 0.2/0.5
    rows = smooth_labels(np.array([10, 20, 30, 0]), 0.1)
    np.testing.assert_allclose(rows[0], [0.9, 0.06, 0.04, 0])
    np.testing.assert_allclose(rows[1], [0.075, 0.9, 0.025, 0])
    np.testing.assert_allclose(rows[2], [0.1 * 6 / 9, 0.1 * 3 / 9, 0.9, 0])
    np.testing.assert_allclose(rows[3], [0.1 * 6 / 11, 0.1 * 3 / 11, 0.1 * 2 / 11, 0.9])


def test_a_class_alone_with_images_is_not_smoothed():
    np.testing.assert_allclose(smooth_labels(np.array([5, 0]), 0.2), [[1, 0], [0.2, 0.8]])


def test_loss_of_smooth_labels_and_its_gradient(make_method):
    method, y = make_method(MEK, {"smoothing": 0.3}, counts=RAFDB), torch.tensor([1, 3, 6])
    logits = torch.randn(3, 7, requires_grad=True)
    losses = method.criterion(Output(logits=logits), y)
    z = logits.detach().double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    w = RAFDB.sum() / (10 * RAFDB)
    q = np.zeros((3, 7))
    for i, label in enumerate(y.tolist()):
        rest = sum(w) - w[label]
        q[i] = [0.7 if c == label else 0.3 * w[c] / rest for c in range(7)]
    np.testing.assert_allclose(losses.detach(), -(q * np.log(p)).sum(1), rtol=1e-5)
    losses.sum().backward()
    np.testing.assert_allclose(logits.grad, p - q, atol=1e-6)
    one_hot = nn.functional.one_hot(y, 7).float()
    torch.testing.assert_close(method.criterion(Output(logits=logits), one_hot), losses)


def test_without_consistency_there_is_one_view_and_the_recipes_augmentation(make_method, tiny_trunk, make_batch):
    method, batch = make_method(MEK, {"weight": 0.0}), make_batch()
    model = method.build_model(tiny_trunk).train()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    loss = method.training_step(model, batch)
    assert (len(seen), loss.parts) == (1, {})
    assert method.streams(Stage())["main"].augment is None

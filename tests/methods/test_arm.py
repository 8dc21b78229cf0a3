"""ARM: shapes of the paper, its forward pass, and what it reads in evaluation."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.backbones import Trunk, build_trunk
from fer_bench.errors import SpecError
from fer_bench.methods._rasn.dealbino import DeAlbino
from fer_bench.methods.arm import ARM


def trained(method, trunk, batch):
    model = method.build_model(trunk).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimiser.zero_grad()
        method.training_step(model, batch).total.backward()
        optimiser.step()
    method.before_eval(model, lambda: [batch])
    return model.eval()


def test_shapes_of_the_paper():
    module, fmap = DeAlbino((512, 7, 7)), torch.randn(2, 512, 7, 7)
    assert module.arrange(fmap).shape == (2, 2, 112, 112)
    assert (module.conv.kernel_size, module.conv.stride, module.conv.bias) == ((32, 32), (8, 8), None)
    assert module(fmap).shape == (2, 2, 11, 11)


class Wide(torch.nn.Module):
    """A trunk that ends in a map of 512x7x7."""

    num_features = 512

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 512, 8, stride=8)

    def forward_features(self, x):
        return self.conv(x)

    def forward_head(self, fmap, pre_logits):
        return fmap.mean((2, 3))


def test_121_cells_are_read_and_the_batch_mean_is_added(make_method, make_batch):
    method, batch = make_method(ARM, image_shape=(1, 56, 56)), make_batch(side=56)
    model = method.build_model(lambda: Trunk(Wide())).train()
    output = model(batch.x)
    assert model.head.in_features == 121
    arranged = F.pixel_shuffle(model.trunk.body.conv(batch.x), 16)
    kernel, norm = model.dealbino.conv.weight, model.dealbino.norm
    maps = torch.cat([F.conv2d(arranged[:, k : k + 1], kernel, stride=8) for k in range(2)], 1)
    maps = F.batch_norm(maps, None, None, norm.weight, norm.bias, training=True)
    own, shared = maps.mean(1), maps.mean((0, 1))
    features = (own + 1.0 * shared).flatten(1)  # α starts at 1
    torch.testing.assert_close(output.features, features, rtol=1e-4, atol=1e-5)
    assert model.sharing.alpha.requires_grad


@pytest.mark.parametrize("evaluate", ["frozen_ema", "train_set_mean", "none"])
def test_a_prediction_reads_its_image_alone(make_method, tiny_trunk, make_batch, evaluate):
    method, batch = make_method(ARM, {"eval.affinity": evaluate}), make_batch()
    model = trained(method, tiny_trunk, batch)
    together = method.predict(model, batch.x).logits
    alone = torch.cat([method.predict(model, x).logits for x in batch.x.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_as_published_a_prediction_reads_its_batch(make_method, tiny_trunk, make_batch):
    method, batch = make_method(ARM, {"eval.affinity": "test_batch"}), make_batch()
    model = trained(method, tiny_trunk, batch)
    together = method.predict(model, batch.x).logits
    alone = torch.cat([method.predict(model, x).logits for x in batch.x.split(1)])
    assert (together - alone).abs().max() > 1e-3


def test_every_parameter_learns(make_method, tiny_trunk, make_batch):
    method = make_method(ARM)
    model = method.build_model(tiny_trunk).train()
    method.training_step(model, make_batch()).total.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_map_too_small_for_the_kernel_is_stretched():
    module, fmap = DeAlbino((64, 1, 2), enlarge=True), torch.randn(2, 64, 1, 2)
    larger = F.interpolate(fmap, size=(3, 3), mode="bilinear", align_corners=False)
    assert module.out_shape == (1, 3, 3)
    assert torch.equal(module(fmap), module(larger))


def test_a_backbone_without_a_map_is_refused_by_name(make_method):
    vit = partial(build_trunk, "vit_tiny_patch16_224", in_chans=1, image_size=32)
    with pytest.raises(SpecError, match="arm needs a backbone with a last map"):
        make_method(ARM, image_shape=(1, 32, 32)).build_model(vit)

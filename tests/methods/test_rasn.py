import copy

import pytest
import torch
from torch import nn

from fer_bench.contract.backbones import Classifier, Trunk, build_trunk
from fer_bench.errors import SpecError
from fer_bench.methods._rasn.attention import Attend
from fer_bench.methods.baseline_resnet import BaselineResNet
from fer_bench.methods.rasn import RASN, card

ARM = {"head": "arm_dealbino"}
SWITCHES = [{name: choice} for name, param in card.params.items() for choice in param.choices or ()]
SWITCHES = [s | ARM if s == {"share.level": "arm"} else s for s in SWITCHES]
CROSSED = [
    {"share.level": level, "share.fusion": fusion, "share.source": source}
    for level in ("map", "pooled")
    for fusion in ("gate", "concat")
    for source in ("ema", "leave_one_out")
]
ARM_CROSSED = [
    ARM | {"share.level": "arm", "attn.type": attn, "share.fusion": fusion, "share.source": "leave_one_out"}
    for attn, fusion in [("cbam", "gate"), ("se", "concat"), ("none", "add_alpha")]
]
EVERY_BLOCK = [{"attn.place": "every_block", "attn.type": attn} for attn in ("se", "spatial", "none")]


def trained(method, trunk, batch, steps=1):
    """The method's network after some steps, in evaluation mode."""
    model = method.build_model(trunk).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = method.training_step(model, batch)
        loss.total.backward()
        optimiser.step()
    method.before_eval(model, lambda: [batch])
    return model.eval()


def logits(method, model, x):
    with torch.no_grad():
        return method.predict(model, x).logits


def movement(method, model, x):
    """Largest change of any logit between alone, halves, reversed, and the whole batch."""
    whole = logits(method, model, x)
    alone = torch.cat([logits(method, model, one) for one in x.split(1)])
    halves = torch.cat([logits(method, model, half) for half in x.split(len(x) // 2)])
    backwards = logits(method, model, x.flip(0)).flip(0)
    return max((whole - other).abs().max().item() for other in (alone, halves, backwards))


@pytest.mark.slow
@pytest.mark.parametrize("params", SWITCHES + CROSSED + ARM_CROSSED + EVERY_BLOCK, ids=str)
def test_every_switch_trains_predicts_from_one_image_and_survives_a_state_round_trip(
    make_method, tiny_trunk, make_batch, params
):
    method, batch = make_method(RASN, params), make_batch()
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.parameters()), "a parameter without gradient is dead weight"

    method.before_eval(model, lambda: [batch])
    model.eval()
    out = method.predict(model, batch.x)
    assert out.logits.shape == (4, 7)
    if params.get("eval.affinity") != "test_batch":
        assert movement(method, model, batch.x) < 1e-5

    fresh = make_method(RASN, params).build_model(tiny_trunk).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(logits(method, fresh, batch.x), out.logits)


def test_test_batch_affinity_moves_predictions_of_weights_whose_frozen_form_does_not(
    make_method, tiny_trunk, make_batch
):
    clean, leaky = make_method(RASN), make_method(RASN, {"eval.affinity": "test_batch"})
    batch = make_batch(8)
    model = trained(clean, tiny_trunk, batch)
    probe = leaky.build_model(tiny_trunk).eval()
    probe.load_state_dict(model.state_dict())
    assert movement(clean, model, batch.x) < 1e-5
    assert movement(leaky, probe, batch.x) > 1e-3
    backwards = logits(leaky, probe, batch.x.flip(0)).flip(0)
    torch.testing.assert_close(
        backwards, logits(leaky, probe, batch.x), rtol=0, atol=1e-5
    )  # only who, not in what order


@pytest.mark.parametrize("params", [{"share.alpha": 0}, {"share.source": "none"}], ids=str)
@pytest.mark.parametrize("level", ["map", "pooled"])
def test_without_sharing_and_attention_it_is_the_plain_baseline(make_method, tiny_trunk, make_batch, params, level):
    rasn, plain = make_method(RASN, params | {"attn.type": "none", "share.level": level}), make_method(BaselineResNet)
    batch = make_batch()
    torch.manual_seed(5)
    shared = rasn.build_model(tiny_trunk)
    torch.manual_seed(5)
    baseline = plain.build_model(tiny_trunk)
    for mode in (True, False):
        shared.train(mode), baseline.train(mode)
        torch.testing.assert_close(shared(batch.x, batch.y).logits, baseline(batch.x).logits)


def test_a_seed_gives_trunk_and_head_the_values_of_the_baseline(make_method, tiny_trunk):
    torch.manual_seed(5)
    shared = make_method(RASN).build_model(tiny_trunk).state_dict()
    baseline = make_method(BaselineResNet).build_model(tiny_trunk).state_dict()
    assert all(torch.equal(shared[name], value) for name, value in baseline.items())


@pytest.mark.parametrize("level", ["map", "pooled"])
def test_frozen_affinity_shifts_all_logits_by_one_constant_vector(make_method, tiny_trunk, make_batch, level):
    method, batch = make_method(RASN, {"share.level": level}), make_batch(8)
    model = trained(method, tiny_trunk, batch)
    with_sharing = logits(method, model, batch.x)
    affinity = model.sharing.source.ema * model.sharing.gate(model.sharing.source.ema)
    model.sharing.alpha.data.zero_()
    shift = with_sharing - logits(method, model, batch.x)
    expected = affinity.mean((2, 3)) @ model.head.weight.T  # α·W·m, with α near 1 after one small step
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-5)
    torch.testing.assert_close(shift[:1], expected, rtol=0.05, atol=1e-3)
    assert shift.abs().max() > 1e-3


def test_eval_affinity_none_predicts_like_alpha_0(make_method, tiny_trunk, make_batch):
    method, batch = make_method(RASN, {"eval.affinity": "none"}), make_batch()
    model = trained(method, tiny_trunk, batch)
    before = logits(method, model, batch.x)
    model.sharing.alpha.data.zero_()
    torch.testing.assert_close(logits(method, model, batch.x), before)


@pytest.mark.parametrize("source", ["batch_mean", "class_balanced_mean"])
def test_train_set_mean_is_the_mean_over_all_clean_batches(make_method, tiny_trunk, make_batch, source):
    method = make_method(RASN, {"eval.affinity": "train_set_mean", "share.source": source})
    model = method.build_model(tiny_trunk).eval()
    batches = [make_batch(4, seed=1), make_batch(3, seed=2)]
    method.before_eval(model, lambda: batches)
    with torch.no_grad():
        maps = torch.cat([model.shareable(b.x)[1] for b in batches])
    y = torch.cat([b.y for b in batches])
    expected = maps.mean(0)
    if source == "class_balanced_mean":
        expected = torch.stack([maps[y == c].mean(0) for c in y.unique()]).mean(0)
    torch.testing.assert_close(model.sharing.source.train_mean[0], expected)


def test_train_set_mean_is_taken_in_evaluation_mode_and_gives_the_mode_back(make_method, tiny_trunk, make_batch):
    method = make_method(RASN, {"eval.affinity": "train_set_mean"})
    model = method.build_model(tiny_trunk).train()
    statistics = model.trunk.body.bn1.running_mean.clone()
    method.before_eval(model, lambda: [make_batch()])
    assert model.training
    assert torch.equal(model.trunk.body.bn1.running_mean, statistics)


def test_bfloat16_autocast_keeps_affinity_and_logits_in_float32(make_method, tiny_trunk, make_batch):
    for params in ({}, ARM | {"share.level": "arm"}, {"share.fusion": "concat"}, {"attn.place": "every_block"}):
        method, batch = make_method(RASN, params), make_batch()
        model = method.build_model(tiny_trunk).train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = method.training_step(model, batch)
        loss.total.backward()
        assert loss.output.logits.dtype == model.sharing.source.ema.dtype == torch.float32
        assert torch.isfinite(loss.total)


def test_labels_reach_the_network_in_training_only(make_method, tiny_trunk, make_batch):
    method, batch = make_method(RASN, {"share.source": "class_balanced_mean"}), make_batch()
    model = trained(method, tiny_trunk, batch)
    assert torch.equal(model(batch.x, batch.y).logits, model(batch.x).logits)


def test_a_copy_of_the_model_runs_its_own_attention(make_method, tiny_trunk, make_batch):
    method = make_method(RASN, {"attn.place": "every_block"})
    model = method.build_model(tiny_trunk).eval()
    before = logits(method, twin := copy.deepcopy(model), make_batch().x)
    for gate in (m for m in model.modules() if isinstance(m, Attend)):
        for p in gate.parameters():
            p.data.fill_(3.0)
    assert torch.equal(logits(method, twin, make_batch().x), before)
    assert not torch.equal(logits(method, model, make_batch().x), before)


def test_every_block_means_each_residual_block_and_nowhere_else(make_method, tiny_trunk):
    model = make_method(RASN, {"attn.place": "every_block"}).build_model(tiny_trunk)
    assert sum(isinstance(m, Attend) for m in model.modules()) == 4  # resnet10_tiny: four stages of one block
    assert model.attend is None
    assert model.sharing.gate is None


class MapBody(nn.Module):
    """A stand-in for a timm model whose last map has a given shape."""

    def __init__(self, channels, side):
        super().__init__()
        self.num_features, self.stem = channels, nn.Conv2d(1, channels, 1)
        self.resize = nn.AdaptiveAvgPool2d(side)

    def forward_features(self, x):
        return self.stem(self.resize(x))

    def forward_head(self, fmap, pre_logits):
        return fmap.mean((2, 3))


@pytest.mark.parametrize(
    ("channels", "side", "maps", "out"),
    [(512, 7, 2, 11), (512, 6, 2, 9), (128, 6, 2, 9), (2048, 3, 8, 3)],  # the first is ARM at 224 pixels: 121 numbers
)
def test_dealbino_head_keeps_the_proportions_of_arm(make_method, make_batch, channels, side, maps, out):
    method = make_method(RASN, ARM | {"share.level": "arm", "attn.type": "none"})
    model = method.build_model(lambda: Trunk(MapBody(channels, side)))
    assert model.dealbino.out_shape == (maps, out, out)
    assert model.head.in_features == out * out
    assert model.train()(make_batch().x).features.shape == (4, out * out)
    if channels == 512:
        assert (model.dealbino.conv.kernel_size, model.dealbino.conv.stride) == ((32, 32), (8, 8))


def test_arm_level_is_the_formula_of_arm(make_method, make_batch):
    method = make_method(RASN, ARM | {"share.level": "arm", "attn.type": "none", "share.alpha": 0.5})
    model = method.build_model(lambda: Trunk(MapBody(512, 7))).train()
    x = make_batch().x
    a = model.dealbino(model.trunk.body.forward_features(x))  # [B, 2, 11, 11]
    z = a.mean(1) + 0.5 * a.mean((0, 1))
    torch.testing.assert_close(model(x).features, z.flatten(1))


@pytest.mark.parametrize(
    ("params", "channels", "side", "says"),
    [
        (ARM, 512, 2, "at least 3x3"),
        (ARM, 6, 7, "rearrange 6 channels"),
        (ARM | {"share.level": "pooled"}, 512, 7, "doesn't fit"),
        ({"share.level": "arm"}, 512, 7, "head=arm_dealbino"),
        ({"attn.place": "every_block"}, 512, 7, "not MapBody"),
    ],
)
def test_switches_that_fit_neither_backbone_nor_each_other_are_refused(make_method, params, channels, side, says):
    with pytest.raises(SpecError, match=says):
        make_method(RASN, params).build_model(lambda: Trunk(MapBody(channels, side)))


class ChannelsLastBody(MapBody):
    """The layout of timm's Swin models: [B, h, w, D]."""

    def forward_features(self, x):
        return super().forward_features(x).permute(0, 2, 3, 1)


def test_a_backbone_without_a_convolutional_map_is_refused_by_its_kind(make_method):
    with pytest.raises(SpecError, match="VisionTransformer gives"):
        make_method(RASN, image_shape=(1, 32, 32)).build_model(
            lambda: build_trunk("vit_tiny_patch16_224", in_chans=1, image_size=32)
        )
    with pytest.raises(SpecError, match="ChannelsLastBody gives"):
        make_method(RASN).build_model(lambda: Trunk(ChannelsLastBody(512, 7)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet18"])
@pytest.mark.parametrize("level", ["map", "pooled"])
def test_any_convolutional_backbone_fits(make_method, make_batch, name, level):
    method = make_method(RASN, {"share.level": level})
    model = trained(method, lambda: build_trunk(name, in_chans=1, image_size=24), batch := make_batch())
    assert isinstance(model, Classifier)
    assert movement(method, model, batch.x) < 1e-5

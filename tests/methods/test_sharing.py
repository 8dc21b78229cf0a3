"""The sharing module alone, against formulas worked out in the tests."""

import pytest
import torch

from fer_bench.errors import SpecError
from fer_bench.methods._rasn.affinity import Sharing
from fer_bench.methods._rasn.attention import CBAMGate, SpatialGate
from fer_bench.methods._rasn.sources import balanced_shares, make_source

CLASSES = 3


def sharing(
    shape=(5, 1, 1), *, source="batch_mean", momentum=0.9, atoms=4, evaluate="frozen_ema", fusion="add_alpha", alpha=1,
    detach=False, gate=None,
):  # fmt: skip
    origin = make_source(source, shape, CLASSES, momentum=momentum, atoms=atoms, evaluate=evaluate)
    return Sharing(origin, shape[0], fusion=fusion, alpha=alpha, detach=detach, gate=gate)


def features(size=6, shape=(5, 1, 1)):
    return torch.randn(size, *shape, requires_grad=True)


def upstream_and_received(module, f):
    """g_i = ∂L/∂z_i of a random linear loss, and ∂L/∂f_i."""
    z = module(f)
    g = torch.randn_like(z)
    (z * g).sum().backward()
    return g, f.grad


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_each_sample_receives_its_gradient_plus_alpha_times_the_mean_gradient(alpha):
    g, received = upstream_and_received(sharing(alpha=alpha), f := features())
    torch.testing.assert_close(received, g + alpha / len(f) * g.sum(0))


def test_detached_sharing_passes_each_gradient_alone():
    g, received = upstream_and_received(sharing(detach=True), features())
    torch.testing.assert_close(received, g)


def test_leave_one_out_gives_the_mean_gradient_of_the_others():
    g, received = upstream_and_received(sharing(source="leave_one_out"), f := features())
    torch.testing.assert_close(received, g + (g.sum(0) - g) / (len(f) - 1))


def test_detaching_changes_no_forward_value():
    f = features()
    for source in ("batch_mean", "leave_one_out", "ema"):
        torch.testing.assert_close(sharing(source=source)(f), sharing(source=source, detach=True)(f))


def test_batch_mean_is_added_to_each_sample():
    f = features()
    torch.testing.assert_close(sharing(alpha=0.5)(f), f + 0.5 * f.mean(0))


def test_leave_one_out_of_a_lone_sample_shares_nothing():
    f = features(size=1)
    torch.testing.assert_close(sharing(source="leave_one_out")(f), f)


def test_class_balanced_mean_is_the_mean_of_class_means():
    f, y = features(size=5), torch.tensor([2, 2, 2, 0, 0])
    expected = (f[:3].mean(0) + f[3:].mean(0)) / 2
    torch.testing.assert_close(sharing(source="class_balanced_mean")(f, y), f + expected)
    torch.testing.assert_close(balanced_shares(y), torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4]))


def test_class_balanced_mean_without_labels_is_refused_in_training_only():
    module = sharing(source="class_balanced_mean")
    with pytest.raises(SpecError, match="needs the labels"):
        module(features())
    module.eval()(features())


def test_stored_mean_starts_at_the_first_batch_and_then_follows_its_momentum():
    module = sharing(momentum=0.8)
    first, second = features(), features()
    module(first)
    torch.testing.assert_close(module.source.ema, first.detach().mean(0, keepdim=True))
    module(second)
    expected = 0.8 * first.mean(0, keepdim=True) + 0.2 * second.mean(0, keepdim=True)
    torch.testing.assert_close(module.source.ema, expected.detach())
    assert not module.source.ema.requires_grad


def test_evaluation_leaves_the_stored_mean_alone():
    module = sharing()
    module(features())
    before = module.source.ema.clone()
    module.eval()(features())
    assert torch.equal(module.source.ema, before)


def test_ema_source_shares_the_updated_running_mean():
    module = sharing(source="ema", momentum=0.8)
    first, second = features(), features()
    module(first)
    torch.testing.assert_close(module(second), second + 0.8 * first.mean(0) + 0.2 * second.mean(0))


def test_ema_source_passes_the_gradient_of_the_present_batch_only():
    module = sharing(source="ema", momentum=0.8)
    module(features())
    g, received = upstream_and_received(module, f := features())
    torch.testing.assert_close(received, g + 0.2 / len(f) * g.sum(0))


def test_gate_fusion_follows_its_formula():
    f = features()
    a = f.mean(0)
    torch.testing.assert_close(sharing(fusion="gate")(f), f * torch.sigmoid(a) + a)


def test_concat_fusion_starts_as_the_sum_and_learns():
    module, f = sharing(fusion="concat", alpha=0.5), features()
    z = module(f)
    torch.testing.assert_close(z, f + 0.5 * f.mean(0))
    z.square().sum().backward()
    assert module.mix.weight.grad.abs().sum() > 0


def test_attended_affinity_is_gated_without_a_residual():
    gate = SpatialGate()
    module, f = sharing(shape=(5, 4, 4), gate=gate), features(shape=(5, 4, 4))
    a = f.mean(0, keepdim=True)
    torch.testing.assert_close(module(f), f + a * gate(a))


def test_cbam_gate_follows_its_formula():
    gate, f = CBAMGate(8, 4), torch.randn(2, 8, 5, 5)
    mlp = gate.channel.mlp
    channel = torch.sigmoid(mlp(f.mean((2, 3), keepdim=True)) + mlp(f.amax((2, 3), keepdim=True)))
    assert [m.out_channels for m in (mlp[0], mlp[2])] == [2, 8]
    g = f * channel
    spatial = torch.sigmoid(gate.spatial.conv(torch.stack([g.mean(1), g.amax(1)], 1)))
    torch.testing.assert_close(gate(f), channel * spatial)


def test_only_a_learnable_alpha_is_a_parameter():
    assert [n for n, _ in sharing(alpha="learnable").named_parameters()] == ["alpha"]
    assert sharing(alpha="learnable").alpha.item() == 1.0
    assert not list(sharing(alpha=0.1).parameters())
    assert {"alpha", "source.ema", "source.train_mean"} <= set(sharing(alpha=0.1).state_dict())

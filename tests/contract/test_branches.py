"""Networks that share their first part: the same numbers as whole networks, and each part run and trained once."""

import copy

import pytest
import timm
import torch

from fer_bench.contract.backbones import Trunk, build_trunk
from fer_bench.contract.branches import Branches
from fer_bench.errors import SpecError

SIZES = {"resnet10_tiny": 24, "regnetx_002": 32, "convnext_atto": 32, "vit_tiny_patch16_224": 32, "efficientnet_b0": 32,
         "deit_tiny_patch16_224": 32}  # fmt: skip


def makers(name):
    """A maker of trunks that keeps what it made, copied before anybody changes it."""
    made = []

    def make():
        trunk = build_trunk(name, in_chans=1, image_size=SIZES[name])
        made.append(copy.deepcopy(trunk))
        return trunk

    return make, made


@pytest.mark.parametrize("own", [1, 2, 3])
@pytest.mark.parametrize("name", SIZES)
def test_first_branch_computes_what_the_whole_network_does(name, own):
    torch.manual_seed(0)
    make, made = makers(name)
    branches = Branches(make, 2, own=own).eval()
    x = torch.randn(2, 1, SIZES[name], SIZES[name])
    with torch.no_grad():
        (fmap, features), (_, other) = branches(x)
        expected_map, expected = made[0].eval()(x)

    assert torch.equal(fmap, expected_map)
    assert torch.equal(features, expected)
    assert features.shape == (2, branches.num_features)
    assert not torch.equal(features, other)


@pytest.mark.parametrize("name", SIZES)
def test_every_weight_learns_and_is_held_once(name):
    torch.manual_seed(0)
    make, made = makers(name)
    branches = Branches(make, 3)
    sum(features.square().sum() for _, features in branches(torch.randn(4, 1, SIZES[name], SIZES[name]))).backward()

    assert all(p.grad is not None for p in branches.parameters())
    whole = sum(p.numel() for p in made[0].parameters())
    held = sum(p.numel() for p in branches.parameters())
    own = sum(p.numel() for p in branches.trunks[0].parameters())
    assert held == whole + 2 * own
    assert own < whole


def test_shared_stages_are_the_first_three_and_the_branches_have_the_last():
    branches = Branches(lambda: build_trunk("resnet10_tiny", in_chans=1, image_size=24), 2)
    shared = {name.split(".")[1] for name, _ in branches.shared.named_parameters()}
    each = {name.split(".")[1] for name, _ in branches.trunks[1].named_parameters()}
    assert shared == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    assert each == {"layer4"}


def test_copy_runs_on_its_own_weights():
    branches = Branches(lambda: build_trunk("resnet10_tiny", in_chans=1, image_size=24), 2).eval()
    x = torch.randn(1, 1, 24, 24)
    twin = copy.deepcopy(branches)
    with torch.no_grad():
        before = branches(x)[0][1]
        for p in twin.parameters():
            p.zero_()
        assert torch.equal(branches(x)[0][1], before)
        assert not twin(x)[0][1].any()


def test_network_that_nobody_knows_how_to_divide_is_refused_by_name():
    with pytest.raises(SpecError, match="a VGG can't be divided") as caught:
        Branches(lambda: Trunk(timm.create_model("vgg11", num_classes=0)), 2)
    assert "resnet18_small" in caught.value.hint


def test_branch_without_stages_of_its_own_is_refused():
    with pytest.raises(SpecError, match="1 to 3 of the four stages"):
        Branches(lambda: build_trunk("resnet10_tiny", in_chans=1, image_size=24), 2, own=4)

"""Which backbones there are, and which of them take the images of a study."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm

from fer_bench.contract import backbones
from fer_bench.contract.backbone_names import SMALL, backbone_names, check_backbone
from fer_bench.contract.backbones import build_trunk, try_backbone
from fer_bench.errors import SpecError, UnknownNameError, WeightsError
from fer_bench.runs.spec import StudySpec
from fer_bench.runs.study import run_study


def test_the_names_read_from_source_are_those_that_timm_registers():
    assert set(backbone_names()) == set(timm.list_models())
    assert backbone_names()[:3] == list(SMALL)
    assert backbone_names("resnet18*") == [
        "resnet18_small",
        *(n for n in timm.list_models("resnet18*") if n not in SMALL),
    ]
    assert backbone_names("vit_*32*") == timm.list_models("vit_*32*")
    assert backbone_names("nothing like it*") == []


@pytest.mark.parametrize(
    "name", [*SMALL, "resnet18", "resnet18.a1_in1k", "tv_resnet50", "qwen3_vit_306m_enc.qwen3_vl_4b"]
)
def test_names_tags_and_deprecated_names_of_timm_are_known(name):
    if name.startswith("qwen3") and not timm.is_model(name):
        pytest.skip("this timm is older than the model")
    assert timm.is_model(name)
    check_backbone(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet81", "'resnet18'"), ("resnet18_smal", "'resnet18_small'"), ("resnet18.a1_in1", "'a1_in1k'"),
     ("resnet18.", "known tag"), ("", "known backbone"), (".a1_in1k", "known backbone")],
)  # fmt: skip
def test_a_misspelt_backbone_or_tag_is_answered_with_the_nearest(name, near):
    with pytest.raises(UnknownNameError) as caught:
        check_backbone(name)
    assert near in str(caught.value)


def test_a_tag_of_another_model_is_refused_when_the_network_is_built():
    check_backbone("resnet18.ra_in1k")
    with pytest.raises(UnknownNameError, match="unknown tag of resnet18 'ra_in1k'"):
        build_trunk("resnet18.ra_in1k", in_chans=1, image_size=32)


# -- pretrained weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet10_tiny", "coatnet_0_224"])
def test_a_backbone_without_weights_is_told(name):
    with pytest.raises(WeightsError, match=f"no pretrained weights for '{name}'"):
        build_trunk(name, in_chans=1, image_size=32, pretrained=True)


def test_weights_that_cannot_be_fetched_are_told_with_the_way_out(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"the pretrained weights of 'resnet10t\.c3_in1k' can't be loaded") as caught:
        build_trunk("resnet10t.c3_in1k", in_chans=1, image_size=32, pretrained=True)
    assert "--no-pretrained" in caught.value.next


# -- two images before a study starts ----------------------------------------------------------------------------------


@pytest.fixture
def study(tiny_run):
    """A study of one run with the given backbone and recipe fields."""

    def make(backbone: str, **recipe) -> StudySpec:
        run = tiny_run(backbone=backbone, recipe={"epochs": 1, **recipe})
        return StudySpec(name="s", command="fer-bench run", runs=(run,), labels=(run.method,), reference=None)

    return make


def size_offered(error: SpecError) -> int:
    assert error.next is not None
    return int(error.next.removeprefix("the same command with --set image_size="))


def test_a_backbone_that_cannot_take_the_images_is_refused_with_a_size_at_which_it_trains(workplace, study):
    with pytest.raises(SpecError, match="backbone 'dla46_c' can't take images of 16x16 pixels") as caught:
        run_study(study("dla46_c"), workplace, say=lambda line: None)
    assert (workplace.home.ledger.runs(), workplace.home.ledger.studies()) == ([], [])
    again = study("dla46_c", image_size=size_offered(caught.value), batch_size=64)
    assert len(run_study(again, workplace, say=lambda line: None).finished) == 1


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["inception_v3", "botnet26t_256"])  # fails in use; can't even be built
def test_the_size_that_is_offered_passes(backbone):
    with pytest.raises(SpecError, match="can't take images of 16x16 pixels") as caught:
        try_backbone(backbone, (1, 16, 16))
    size = size_offered(caught.value)
    try_backbone(backbone, (1, size, size))


def test_a_backbone_that_fails_at_every_size_is_said_to(monkeypatch):
    monkeypatch.setattr(backbones.Trunk, "pool", lambda self, fmap: fmap.mean())
    with pytest.raises(SpecError, match=r"its features are \(\)[\s\S]*no usual image size"):
        try_backbone("resnet10_tiny", (1, 16, 16))


def test_the_search_for_a_size_ends(monkeypatch):
    monkeypatch.setattr(backbones, "PATIENCE", -1.0)
    with pytest.raises(SpecError, match="no usual image size"):
        try_backbone("inception_v3", (1, 16, 16))


def test_each_backbone_is_tried_once_and_not_at_all_where_nothing_is_left_to_train(
    workplace, study, in_process, monkeypatch
):
    tried = []

    def attempt(name, shape, **kwargs):
        tried.append((name, shape))
        try_backbone(name, shape, **kwargs)

    monkeypatch.setattr("fer_bench.runs.worker.try_backbone", attempt)
    one = study("resnet10_tiny")
    two = replace(one, runs=(*one.runs, replace(one.runs[0], seed=1)))
    run_study(two, workplace, say=lambda line: None)
    assert tried == [("resnet10_tiny", (1, 16, 16))]
    run_study(two, workplace, say=lambda line: None)
    assert len(tried) == 1


def test_a_search_tries_its_backbone_too(workplace, tiny_run):
    from fer_bench.contract.params import Variant
    from fer_bench.tuning.search import build_search
    from fer_bench.tuning.tune import tune

    spec = tiny_run(backbone="dla46_c", recipe={"epochs": 1})
    kept = ("dataset", "dataset_params", "protocol", "backbone", "pretrained", "selection", "recipe")
    template = {name: getattr(spec, name) for name in kept}
    search = build_search(workplace, Variant("baseline_resnet"), template, "demo")
    with pytest.raises(SpecError, match="backbone 'dla46_c' can't take images of 16x16 pixels"):
        tune([search], 1, workplace, command="fer-bench tune", name="t", say=lambda line: None)
    assert workplace.home.ledger.runs() == []

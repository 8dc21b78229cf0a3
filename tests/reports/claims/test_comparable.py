from dataclasses import replace

import pytest

from fer_bench.errors import UnknownNameError
from fer_bench.reports.claims.comparable import Ours, comparable, compare
from fer_bench.reports.claims.published import Claim, load

ALL = load()
BY_ID = {c.id: c for c in ALL}

NET = Claim(
    dataset="toy", entry="net", method="Net", metric="accuracy", value=71.3, source="owner/name", tag="read",
    split="PrivateTest", protocol="toy/official", selection="val", seeds=5, pretraining="none",
)  # fmt: skip
OURS = Ours(dataset="toy", protocol="toy/official", split="PrivateTest", pretraining="none")


def test_like_is_compared_with_like():
    verdict = comparable(NET, OURS, "accuracy")
    assert (verdict.ok, verdict.reasons, verdict.cautions) == (True, (), ())


@pytest.mark.parametrize(
    ("theirs", "ours", "reason"),
    [
        ({"dataset": "other"}, {}, "different data set: other"),
        ({"metric": "mean_recall"}, {}, "different metric: mean_recall"),
        ({"classes": 8}, {"classes": 7}, "different number of classes: 8"),
        ({"selection": "test-best"}, {}, "theirs was selected on the test set"),
        ({"selection": "unknown"}, {}, "epoch selection not stated"),
        ({"selection": "none stated"}, {}, "epoch selection not stated"),
        ({"split": "PublicTest", "protocol": "toy/swap"}, {}, "different split: PublicTest"),
        ({"split": "PublicTest", "protocol": ""}, {}, "different split: PublicTest"),
        ({"protocol": "toy/dedup"}, {}, "different protocol: toy/dedup"),
        ({"protocol": ""}, {}, "no protocol here matches theirs"),
        ({"protocol": "", "flags": ("protocol-unknown",)}, {}, "protocol not stated"),
        ({"tag": "recalled"}, {}, "the number is from memory: verify it in its source"),
        ({"flags": ("quarantined",)}, {}, "theirs is quarantined: not confirmed, or known to be wrong"),
        ({"flags": ("transductive",)}, {}, "theirs reads the test batch"),
        ({"flags": ("oracle",)}, {}, "theirs is an upper bound that needs test labels"),
        ({"flags": ("ensemble",)}, {}, "theirs is an ensemble"),
        ({"flags": ("extra-data",)}, {}, "theirs is trained on additional data"),
        ({"flags": ("trained-on-val",)}, {}, "theirs is also trained on the validation images"),
        ({"flags": ("human",)}, {}, "theirs is human performance"),
        ({"flags": ("human",), "selection": "none stated"}, {}, "theirs is human performance"),
        ({"flags": ("validation",)}, {}, "its source calls it validation accuracy"),
        ({"pretraining": "faces", "flags": ("face-pretrained",)}, {}, "theirs is pretrained on faces"),
        ({}, {"pretraining": "MS-Celeb-1M"}, "ours is pretrained on faces"),
        ({}, {"transductive": True}, "ours reads other test images"),
        ({}, {"selection_rule": "test_best"}, "ours was selected on the test set"),
        ({}, {"val_is_test": True}, "ours was selected on the test set"),
        ({}, {"profile": "exp:50"}, "ours is trained on a subset of the training images: exp:50"),
        ({}, {"folds": 10, "folds_run": 1}, "ours covers 1 of the 10 folds"),
    ],
)
def test_one_difference_forbids_the_comparison_and_is_the_only_reason(theirs, ours, reason):
    verdict = comparable(replace(NET, **theirs), replace(OURS, **ours), "accuracy")
    assert (verdict.ok, verdict.reasons) == (False, (reason,))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"selection": "last"}, {}),
        ({}, {"selection_rule": "last"}),
        ({"selection": "test-best"}, {"val_is_test": True, "watermark": "picked on test"}),
        ({"selection": "test-best"}, {"selection_rule": "test_best"}),
        ({"flags": ("swapped",)}, {}),
        ({"flags": ("subject-leak", "frame-leak")}, {"watermark": "subjects leak"}),
        ({"pretraining": "faces", "flags": ("face-pretrained",)}, {"pretraining": "faces"}),
        ({"classes": 7}, {"classes": 7}),
        ({"classes": 7}, {}),
        ({}, {"folds": 10, "folds_run": 10}),
    ],
)
def test_what_both_sides_share_forbids_nothing(theirs, ours):
    assert comparable(replace(NET, **theirs), replace(OURS, **ours), "accuracy").reasons == ()


@pytest.mark.parametrize(
    ("theirs", "ours", "caution"),
    [
        ({"seeds": 1}, {}, "theirs is a single run"),
        ({"seeds": 0}, {}, "theirs gives no number of runs"),
        ({"pretraining": "ImageNet"}, {}, "different pretraining: theirs ImageNet, ours none"),
        ({"backbone": "VGG19"}, {"backbone": "resnet18"}, "different network: theirs VGG19, ours resnet18"),
        ({"tta": "TenCrop"}, {}, "theirs uses test-time augmentation: TenCrop"),
        ({"tag": "inferred"}, {}, "theirs is inferred"),
        ({"flags": ("approximate",)}, {}, "theirs is rounded or reported in passing"),
        ({}, {"watermark": "subjects leak"}, "both: subjects leak"),
    ],
)
def test_smaller_differences_are_told_but_forbid_nothing(theirs, ours, caution):
    verdict = comparable(replace(NET, **theirs), replace(OURS, **ours), "accuracy")
    assert (verdict.ok, verdict.cautions) == (True, (caution,))


def test_a_network_is_the_same_under_another_spelling():
    theirs = replace(NET, backbone="ResNet-18")
    assert comparable(theirs, replace(OURS, backbone="resnet18"), "accuracy").cautions == ()


def test_leaks_and_swaps_forbid_the_comparison_with_another_protocol():
    flagged = replace(NET, protocol="toy/leaky", flags=("subject-leak", "swapped"))
    reasons = comparable(flagged, OURS, "accuracy").reasons
    assert reasons == (
        "different protocol: toy/leaky",
        "the same people are in training and test",
        "the public splits are swapped: selected on PrivateTest, measured on PublicTest",
    )


def test_a_watermark_of_ours_forbids_the_comparison_with_other_protocols():
    ours = replace(OURS, protocol="toy/leaky", watermark="subjects leak")
    assert "ours is watermarked: subjects leak" in comparable(NET, ours, "accuracy").reasons


def test_the_lead_claim_can_be_compared_with_nothing():
    ours = Ours(dataset="rafdb", protocol="rafdb/holdout10", split="test", pretraining="ImageNet")
    verdict = comparable(BY_ID["rafdb/rasn:accuracy"], ours, "accuracy")
    assert verdict.reasons == (
        "epoch selection not stated",
        "its source calls it validation accuracy",
        "protocol not stated",
    )


@pytest.mark.parametrize(
    ("claim", "ours", "reasons"),
    [
        (
            "ferplus/eac:accuracy",
            Ours(dataset="ferplus", protocol="ferplus8/majority", split="PrivateTest", classes=8),
            ("different number of classes: 7", "epoch selection not stated", "protocol not stated"),
        ),
        (
            "ferplus/tagger:mean_recall",
            Ours(dataset="ferplus", protocol="ferplus8/majority", split="PrivateTest", classes=8),
            ("theirs is human performance",),
        ),
        (
            "affectnet/posterpp-8:accuracy",
            Ours(dataset="affectnet", protocol="affectnet7", split="val", classes=7),
            (
                "different number of classes: 8",
                "no protocol here matches theirs",
                "theirs was selected on the test set",
                "theirs is pretrained on faces",
            ),
        ),
        (  # the code loads IR50 and MobileFaceNet for AffectNet, too
            "affectnet/posterpp:accuracy",
            Ours(dataset="affectnet", protocol="affectnet7_bestval", split="val", classes=7, val_is_test=True),
            ("theirs is pretrained on faces",),
        ),
        (
            "ckplus/crossval-dan:accuracy",
            Ours(dataset="ckplus", protocol="ckplus/subject10", classes=8, folds=10, folds_run=10),
            (
                "different number of classes: 7",
                "different protocol: ckplus/frame_random",
                "theirs is pretrained on faces",
                "the same people are in training and test",
                "frames of the same sequence are in training and test",
            ),
        ),
        (  # 84.05 is the best epoch of the training whose last one is 82.44, that of ResNet-18 (face) + MEK
            "rafdb/mek-resnet18-best-epoch:mean_recall",
            Ours(dataset="rafdb", protocol="rafdb/paper_besttest", split="test", val_is_test=True),
            ("theirs is pretrained on faces",),
        ),
        (
            "fer2013/khaireddin-vgg:accuracy",
            Ours(dataset="fer2013", protocol="fer2013/official", split="PrivateTest"),
            (
                "different split: PublicTest",
                "the public splits are swapped: selected on PrivateTest, measured on PublicTest",
            ),
        ),
    ],
)
def test_known_numbers_are_kept_apart_for_the_right_reasons(claim, ours, reasons):
    result = BY_ID[claim]
    assert comparable(result, ours, result.metric).reasons == reasons


def test_official_fer2013_meets_the_one_family_that_selects_on_public_and_reports_private():
    ours = Ours(dataset="fer2013", protocol="fer2013/official", split="PrivateTest", pretraining="ImageNet")
    rows = compare(ALL, {"accuracy": (72.0, 70.5, 73.4)}, ours)
    assert {r.claim.method.partition(" ")[0] for r in rows if r.verdict.ok} == {
        "WuJie", "VGG19", "EfficientNet-b2b", "GoogLeNet", "ResNet-34", "Inception-v3", "BAM-ResNet-50", "DenseNet121",
        "ResNet-152", "CBAM-ResNet-50", "ResMaskingNet", "ResAttNet-56", "ResNeXt-50", "ResNet-50", "ResNet-101",
    }  # fmt: skip
    assert "fer2013/resmaskingnet-ensemble6" not in {f"{r.claim.dataset}/{r.claim.entry}" for r in rows if r.verdict.ok}


def test_ours_are_read_from_the_protocol_of_a_record():
    protocol = {"name": "toy/official", "test": ["PublicTest", "PrivateTest"], "watermark": "", "val_is_test": False}
    ours = Ours.recorded("toy", protocol, selection_rule="last", transductive=True)
    assert ours == Ours(
        dataset="toy", protocol="toy/official", split="PublicTest + PrivateTest", selection_rule="last",
        transductive=True,
    )  # fmt: skip
    assert Ours.recorded("toy", {"name": "toy/kfold", "test": [], "val_is_test": True, "watermark": "w"}).peeks
    assert Ours.recorded("toy", {"name": "toy/kfold", "folds": 10}, folds_run=3).folds == 10


def test_comparisons_show_the_difference_and_keep_the_quarantine_apart():
    claims = [
        replace(NET, entry="wild", value=99.0, flags=("quarantined",)),
        replace(NET, entry="peeked", value=90.0, selection="test-best"),
        NET,
        replace(NET, entry="better", value=75.0),
        replace(NET, entry="angry", metric="recall:angry", value=50.0),
        replace(NET, entry="elsewhere", dataset="other"),
        replace(NET, entry="unmeasured", metric="macro_f1"),
    ]
    ours = {"recall:anger": (60.0, 55.0, 65.0), "accuracy": (72.0, 71.0, 73.0), "kappa": (1.0, 1.0, 1.0)}
    rows = compare(claims, ours, OURS)
    assert [r.claim.entry for r in rows] == ["angry", "better", "net", "peeked"]
    assert [r.verdict.ok for r in rows] == [True, True, True, False]
    assert [round(r.difference, 6) for r in rows] == [10.0, -3.0, 0.7, -18.0]
    assert [r.within for r in rows] == [False, False, True, False]
    everything = compare(claims, ours, OURS, include_quarantined=True)
    assert [r.claim.entry for r in everything] == ["angry", "better", "net", "peeked", "wild"]
    assert not everything[-1].verdict.ok


def test_an_unknown_pretraining_of_ours_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="'ImageNet'"):
        Ours(dataset="toy", protocol="toy/official", pretraining="imagenet")

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from fer_bench.contract.card_reader import read_card
from fer_bench.contract.cards import DatasetCard
from fer_bench.errors import DataError, FerBenchError, UnknownNameError
from fer_bench.reports.claims.comparable import Ours, comparable
from fer_bench.reports.claims.published import (
    FACES,
    FLAGS,
    METRICS,
    SELECTIONS,
    TAGS,
    Claim,
    as_csv,
    canonical,
    load,
    select,
)

ROOT = Path(__file__).parents[3]
ALL = load()
BY_ID = {c.id: c for c in ALL}

NET = Claim(
    dataset="toy", entry="net", method="Net", metric="accuracy", value=71.3, source="owner/name", tag="read",
    split="PrivateTest", protocol="toy/official", selection="val", seeds=5, pretraining="none",
)  # fmt: skip


# -- the numbers that ship -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("fer2013/human:accuracy", "65 ± 5"),
        ("fer2013/tang-dlsvm:accuracy", "71.16"),
        ("fer2013/pramerdorfer-ensemble8:accuracy", "75.2"),
        ("fer2013/rasn:accuracy", "71.44"),
        ("fer2013/arm-v1:accuracy", "71.38"),
        ("fer2013/wujie-vgg19-public:accuracy", "71.496"),
        ("fer2013/wujie-vgg19-private:accuracy", "73.112"),
        ("fer2013/wujie-resnet18-private:accuracy", "72.973"),
        ("fer2013/khaireddin-vgg:accuracy", "73.06"),
        ("fer2013/khaireddin-vgg-finetuned:accuracy", "73.28"),
        ("fer2013/khaireddin-vgg-matrix:recall:disgust", "64"),
        ("fer2013/lethesec-resnet18:accuracy", "73.70"),
        ("fer2013/rmn-efficientnet-b2b:accuracy", "70.80"),
        ("fer2013/rmn-cbam-resnet50:accuracy", "73.39"),
        ("fer2013/rmn-resattnet56:accuracy", "68.54"),
        ("fer2013/rmn-resnext50-32x4d:accuracy", "72.22"),
        ("fer2013/rmn-resnet50:accuracy", "72.86"),
        ("fer2013/rmn-resnet101:accuracy", "73.47"),
        ("fer2013/resmaskingnet:accuracy", "74.14"),
        ("fer2013/resmaskingnet:recall:happy", "91"),
        ("fer2013/hust-resnet18:recall:fear", "48.1"),
        ("fer2013/hust-mek-resnet34:mean_recall", "69.60"),
        ("fer2013/crossval-ada-df:accuracy", "70.2 ± 0.7"),
        ("rafdb/rasn:accuracy", "90.91"),
        ("rafdb/scn:accuracy", "87.03"),
        ("rafdb/dan:mean_recall", "83.76"),
        ("rafdb/arm-v2:accuracy", "92.05"),
        ("rafdb/arm-v3:recall:neutral", "97.9"),
        ("rafdb/dlp-cnn:recall:disgust", "52.2"),
        ("rafdb/mek-table5-mobilenet:mean_recall", "74.34"),
        ("rafdb/mek-table5-resnet18-mek:accuracy", "89.77"),
        ("rafdb/mek-table5-resnet18-mek:recall:fear", "66.22"),
        ("rafdb/mek-table5-swin-mek:mean_recall", "87.71"),
        ("rafdb/hust-mek-resnet18-msceleb:mean_recall", "81.37"),
        ("rafdb/hust-parts-rac:accuracy", "87.26"),
        ("rafdb/crossval-mek-swin:accuracy", "88.9 ± 0.6"),
        ("ferplus/scn:accuracy", "89.35"),
        ("ferplus/crossval-dan:mean_recall", "66.9 ± 2.0"),
        ("rafdb/qcs:accuracy", "93.02"),
        ("rafdb/mfer:accuracy", "92.08"),
        ("rafdb/mftn-fer:accuracy", "92.20"),
        ("rafdb/hffer:accuracy", "92.18"),
        ("rafdb/fmae:accuracy", "93.1"),
        ("ferplus/qcs:accuracy", "91.85"),
        ("ferplus/mfer:accuracy", "91.09"),
        ("affectnet/qcs:accuracy", "67.94"),
        ("affectnet/qcs-8:accuracy", "64.40"),
        ("affectnet/mfer:accuracy", "67.06"),
        ("affectnet/mfer-8:accuracy", "63.15"),
        ("affectnet/mftn-fer:accuracy", "66.57"),
        ("affectnet/mftn-fer-8:accuracy", "63.48"),
        ("affectnet/ddamfnpp:accuracy", "67.36"),
        ("affectnet/posterpp-8:accuracy", "63.77"),
        ("sfew/arm:accuracy", "58.71"),
        ("ckplus/rasn:accuracy", "96.97"),
        ("ckplus/wujie-vgg19:accuracy", "94.646"),
    ],
)
def test_a_number_stands_as_its_source_prints_it(name, printed):
    assert BY_ID[name].text == printed


@pytest.mark.parametrize(
    ("entry", "recalls", "mean"),
    [
        ("rafdb/mek-table5-resnet18", (83.59, 59.46, 58.75, 95.44, 85.56, 78.40, 88.53), 78.53),
        ("rafdb/mek-table5-resnet50-mek", (88.75, 66.22, 80.63, 95.95, 89.75, 85.19, 87.65), 84.88),
        ("rafdb/hust-resnet18", (88.1, 51.4, 52.5, 91.7, 85.6, 74.7, 80.4), 74.92),
        ("rafdb/arm-v3", (90.3, 70.3, 64.4, 95.4, 83.9, 77.2, 97.9), 82.8),
    ],
)
def test_recalls_stand_under_their_classes_and_average_to_the_printed_mean(entry, recalls, mean):
    classes = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
    assert tuple(BY_ID[f"{entry}:recall:{c}"].value for c in classes) == recalls
    assert BY_ID[f"{entry}:mean_recall"].value == mean
    assert sum(recalls) / 7 == pytest.approx(mean, abs=0.06)


# the two tables of StevenHSKim/FER-crossval, README: mean and standard deviation of ten divisions, accuracy and
# balanced accuracy; its LNSUNet is MEK on Swin-T
CROSSVAL_MODELS = ("posterpp", "gsdnet", "mek-swin", "poster", "ddamfn", "ada-df", "dan")
CROSSVAL = {
    "ckplus": (
        "96.0 ± 1.3 | 99.3 ± 0.6 | 98.7 ± 0.8 | 98.4 ± 1.1 | 99.6 ± 0.5 | 99.2 ± 0.5 | 99.3 ± 0.8",
        "94.4 ± 1.8 | 99.0 ± 1.1 | 98.4 ± 1.3 | 97.5 ± 1.7 | 99.3 ± 1.1 | 98.7 ± 1.2 | 99.0 ± 1.3",
    ),
    "sfew": (
        "29.1 ± 3.8 | 33.5 ± 8.9 | 49.6 ± 3.3 | 44.8 ± 3.1 | 53.1 ± 4.2 | 57.4 ± 0.3 | 56.6 ± 3.3",
        "24.7 ± 3.5 | 28.0 ± 8.1 | 44.8 ± 3.5 | 38.5 ± 3.7 | 47.6 ± 4.3 | 51.4 ± 0.4 | 51.3 ± 3.3",
    ),
    "rafdb": (
        "75.6 ± 0.9 | 82.9 ± 1.9 | 88.9 ± 0.6 | 79.7 ± 1.1 | 87.4 ± 0.6 | 79.7 ± 0.8 | 86.7 ± 0.7",
        "62.4 ± 1.5 | 72.6 ± 2.2 | 81.5 ± 1.4 | 68.7 ± 2.0 | 78.9 ± 1.2 | 68.6 ± 1.8 | 78.0 ± 1.1",
    ),
    "ferplus": (
        "78.7 ± 0.4 | 81.6 ± 0.9 | 83.5 ± 0.4 | 79.6 ± 0.8 | 84.2 ± 0.5 | 83.6 ± 0.5 | 84.3 ± 0.4",
        "57.7 ± 2.4 | 61.3 ± 2.5 | 62.9 ± 2.2 | 59.1 ± 2.0 | 66.8 ± 1.6 | 63.0 ± 1.7 | 66.9 ± 2.0",
    ),
    "fer2013": (
        "60.4 ± 1.0 | 63.5 ± 0.8 | 68.6 ± 0.4 | 62.8 ± 1.0 | 68.4 ± 0.4 | 70.2 ± 0.7 | 69.1 ± 0.3",
        "54.1 ± 1.1 | 58.4 ± 1.5 | 64.0 ± 0.8 | 58.1 ± 0.9 | 65.8 ± 0.6 | 66.5 ± 0.9 | 66.4 ± 0.6",
    ),
    "expw": (
        "63.2 ± 0.4 | 64.2 ± 0.3 | 66.2 ± 0.3 | 63.5 ± 0.4 | 64.7 ± 0.2 | 65.4 ± 0.3 | 64.9 ± 0.2",
        "39.2 ± 0.7 | 40.3 ± 0.4 | 43.2 ± 0.5 | 39.8 ± 0.8 | 42.1 ± 0.7 | 44.7 ± 0.3 | 41.6 ± 0.7",
    ),
}


@pytest.mark.parametrize("dataset", CROSSVAL)
def test_repeated_divisions_stand_with_the_spread_that_their_tables_print(dataset):
    for metric, line in zip(("accuracy", "mean_recall"), CROSSVAL[dataset], strict=True):
        stand = [BY_ID[f"{dataset}/crossval-{model}:{metric}"].text for model in CROSSVAL_MODELS]
        assert stand == line.split(" | ")


@pytest.mark.parametrize(("dataset", "least"), [("fer2013", 70), ("rafdb", 150), ("ferplus", 20), ("ckplus", 15)])
def test_most_of_what_was_published_is_there(dataset, least):
    assert len([c for c in ALL if c.dataset == dataset]) >= least


def test_ids_are_unique_and_every_value_is_a_known_one():
    assert len(BY_ID) == len(ALL) >= 200
    assert {c.metric for c in ALL} <= set(METRICS)
    assert {c.tag for c in ALL} <= set(TAGS)
    assert {c.selection for c in ALL} <= set(SELECTIONS)
    assert {f for c in ALL for f in c.flags} <= set(FLAGS)
    assert all(c.source and 0 < c.value <= 100 for c in ALL)


def test_every_flag_selection_and_tag_is_used():
    assert {f for c in ALL for f in c.flags} == set(FLAGS)
    assert {c.selection for c in ALL} == set(SELECTIONS)
    assert {c.tag for c in ALL} == set(TAGS)


def test_the_quarantine_holds_the_four_methods():
    quarantined = {c.id for c in ALL if c.quarantined}
    assert quarantined == {
        "fer2013/resemotenet:accuracy", "fer2013/sdafe:accuracy", "fer2013/efficientfer:accuracy",
        "fer2013/patt-lite:accuracy", "rafdb/patt-lite:accuracy", "rafdb/resemotenet:accuracy",
        "affectnet/resemotenet:accuracy",
    }  # fmt: skip


def test_numbers_from_memory_stay_marked():
    assert BY_ID["rafdb/dlp-cnn:accuracy"].tag == "recalled"
    assert BY_ID["rafdb/dlp-cnn:mean_recall"].tag == "read"
    assert BY_ID["ferplus/vgg13-pld:accuracy"].tag == "recalled"
    assert BY_ID["rafdb/transfer:accuracy"].tag == "recalled"


def test_what_is_wrong_with_well_known_numbers_is_on_record():
    assert BY_ID["fer2013/khaireddin-vgg-finetuned:accuracy"].split == "PublicTest"
    assert set(BY_ID["fer2013/khaireddin-vgg-finetuned:accuracy"].flags) == {"swapped", "trained-on-val"}
    assert BY_ID["fer2013/lethesec-resnet18:accuracy"].selection == "test-best"
    assert BY_ID["rafdb/arm-v1:accuracy"].flags == ("transductive",)
    assert "subject-leak" in BY_ID["ckplus/wujie-resnet18:accuracy"].flags
    for dataset in ("fer2013", "rafdb", "ckplus"):  # its abstract calls all three validation accuracies
        assert BY_ID[f"{dataset}/rasn:accuracy"].flags == ("validation", "protocol-unknown")


def test_how_meks_table_was_selected_is_unknown():
    table = [c for c in ALL if c.entry.startswith("mek-table5-")]
    assert len({c.entry for c in table}) == 8
    assert {(c.selection, c.protocol) for c in table} == {("unknown", "")}
    assert BY_ID["rafdb/mek-resnet18-best-epoch:mean_recall"].selection == "test-best"


def test_newer_numbers_are_as_uncertain_as_their_sources():
    qcs = [c for c in ALL if c.entry in ("qcs", "qcs-8")]
    assert len(qcs) == 4
    assert all("best-run" in c.flags and c.tag == "abstract" for c in qcs)
    assert (BY_ID["rafdb/hffer:accuracy"].tag, BY_ID["rafdb/fmae:accuracy"].tag) == ("abstract", "recalled")
    assert {"approximate", "face-pretrained"} == set(BY_ID["rafdb/fmae:accuracy"].flags)
    readme = [c for c in ALL if c.entry.removesuffix("-8") in ("mfer", "mftn-fer")]
    assert {(c.tag, c.selection, c.pretraining) for c in readme} == {("read", "unknown", "MS-Celeb-1M")}
    newer = [*qcs, *readme, BY_ID["rafdb/hffer:accuracy"], BY_ID["rafdb/fmae:accuracy"]]
    assert {c.seeds for c in newer} == {0}


def test_the_best_of_several_runs_is_not_compared_with_a_mean():
    ours = Ours(dataset="rafdb", protocol="rafdb/holdout10", split="test")
    assert (
        "theirs is the best of several runs, not their mean"
        in comparable(BY_ID["rafdb/qcs:accuracy"], ours, "accuracy").reasons
    )


def test_who_starts_from_faces_and_who_re_ran_is_on_record():
    recalled = [BY_ID[f"rafdb/{name}:accuracy"] for name in ("transfer", "la-net", "s2d")]
    assert {(c.pretraining, c.tag) for c in recalled} == {("faces", "recalled")}
    assert BY_ID["fer2013/wujie-resnet18-selected-on-public:accuracy"].flags == ("third-party", "approximate")
    assert {BY_ID[f"ckplus/wujie-{n}:accuracy"].tta for n in ("vgg19", "resnet18")} == {"TenCrop"}


def test_how_far_people_agree_on_ferplus_stands_as_computed_and_as_human():
    result = {c.metric: c for c in ALL if (c.dataset, c.entry) == ("ferplus", "tagger")}
    assert {c.tag for c in result.values()} == {"computed"}
    assert {c.flags for c in result.values()} == {("human",)}
    assert (result["accuracy"].text, result["mean_recall"].text) == ("77.1", "67.6")
    classes = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
    assert [result[f"recall:{c}"].value for c in classes] == [74, 91, 75, 67, 69, 49, 58, 56]


def test_no_two_numbers_read_alike():
    text = [(c.dataset, c.method, c.metric, c.split, c.classes) for c in ALL]
    assert len(set(text)) == len(text)


def test_every_protocol_named_is_one_of_the_data_sets():
    for dataset in {c.dataset for c in ALL if c.protocol}:
        card = read_card(ROOT / "datasets" / f"{dataset}.py")
        assert isinstance(card, DatasetCard)
        known = {card.full_name(p): p for p in card.protocols}
        for claim in (c for c in ALL if c.dataset == dataset and c.protocol):
            assert claim.protocol in known, claim.id
            assert known[claim.protocol].val_is_test == (claim.selection == "test-best"), claim.id
            assert not known[claim.protocol].test or " + ".join(known[claim.protocol].test) == claim.split, claim.id


def test_face_weights_are_always_flagged():
    assert {c.id for c in ALL if c.pretraining in FACES} == {c.id for c in ALL if "face-pretrained" in c.flags}


# -- reading ---------------------------------------------------------------------------------------------------------

GOOD = """
dataset = "toy"

[[group]]
split = "test"
source = "owner/name"
tag = "read"
flags = ["third-party"]
claim = [
  { id = "a", method = "A", accuracy = 70.20 },
  { id = "b", method = "B", accuracy = [71, 2], flags = [], split = "val" },
]

[[claim]]
id = "c"
method = "C"
source = "a figure"
tag = "read"
mean_recall = 64.0
recall = { angry = 65, happy = 90.5 }
tags = { mean_recall = "computed" }
"""


def test_a_file_gives_one_claim_a_number_and_entries_outweigh_their_group(tmp_path):
    (tmp_path / "toy.toml").write_text(GOOD)
    result = {c.id: c for c in load(tmp_path)}
    assert list(result) == [
        "toy/c:mean_recall", "toy/c:recall:angry", "toy/c:recall:happy", "toy/a:accuracy", "toy/b:accuracy",
    ]  # fmt: skip
    assert [c.text for c in result.values()] == ["64.0", "65", "90.5", "70.20", "71 ± 2"]
    assert [c.tag for c in result.values()] == ["computed", "read", "read", "read", "read"]
    assert (result["toy/a:accuracy"].split, result["toy/a:accuracy"].flags) == ("test", ("third-party",))
    assert (result["toy/b:accuracy"].split, result["toy/b:accuracy"].flags) == ("val", ())
    assert result["toy/b:accuracy"].spread == 2.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("accuracy = 70.20", "acuracy = 70.20", ["unknown field 'acuracy'", "'accuracy'", "entry 2 ('a')"]),
        ("accuracy = 70.20", "accuracy = 170.20", ["170.2 is not a percentage", "entry 2 ('a')"]),
        ("accuracy = 70.20", "accuracy = 0", ["is not a percentage"]),
        ("accuracy = 70.20", "accuracy = nan", ["is not a number"]),
        ("accuracy = 70.20", "accuracy = true", ["is not a number"]),
        ("accuracy = 70.20", 'accuracy = "70.20"', ["is not a number", "[71.3, 0.4]"]),
        ("accuracy = 70.20", "accuracy = [1, 2, 3]", ["is not a number"]),
        ("accuracy = [71, 2]", "accuracy = [71, 200]", ["spread 200 is not a percentage"]),
        (", accuracy = 70.20 }", " }", ["contains no number"]),
        ('method = "A", ', "", ["lacks method"]),
        ('method = "A"', "method = 3", ["'method' is not text"]),
        ('"third-party"', '"third-prty"', ["unknown flag 'third-prty'", "'third-party'"]),
        ('"third-party"', "3", ["'flags' may contain only text"]),
        ('"computed"', "[]", ["'tags' may contain only text"]),
        ("angry = 65", "angri = 65", ["unknown metric 'recall:angri'", "'recall:angry'"]),
        ('mean_recall = "computed"', 'mean_recall = "counted"', ["unknown tag 'counted'", "'computed'"]),
        (
            'tags = { mean_recall = "computed" }',
            'tags = { accuracy = "read" }',
            ["unknown metric among the tags 'accuracy'"],
        ),
        ('split = "test"', 'slit = "test"', ["unknown field 'slit'", "'split'", "toy.toml"]),
        ('split = "test"', 'selection = "best"', ["unknown selection 'best'", "'test-best'"]),
        ('split = "test"', 'seeds = "many"', ["'seeds' is not a whole number"]),
        ('split = "test"', "seeds = -1", ["can't be negative"]),
        ('split = "test"', 'pretraining = "faces"', ["face-pretrained"]),
        ('split = "test"', 'pretraining = "imagenet"', ["unknown pretraining", "'ImageNet'"]),
        ('flags = ["third-party"]', 'protocol = "toy/x"\nflags = ["protocol-unknown"]', ["contradict"]),
        ('id = "b"', 'id = "a"', ["'toy/a' occurs twice", "entry 3 ('a')"]),
        ('dataset = "toy"', "", ["names no data set", "toy.toml"]),
        ('dataset = "toy"', "dataset = ", ["can't be read", "toy.toml"]),
        ("[[claim]]", "[claim]", ["'claim' is not a list of tables"]),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path, old, new, words):
    assert old in GOOD
    (tmp_path / "toy.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(FerBenchError) as caught:
        load(tmp_path)
    assert [t for t in words if t not in str(caught.value)] == []
    assert "toy.toml" in str(caught.value)


def test_an_id_may_not_stand_in_two_files_of_one_data_set(tmp_path):
    (tmp_path / "one.toml").write_text(GOOD)
    (tmp_path / "two.toml").write_text(GOOD)
    with pytest.raises(DataError, match="'toy/c' occurs twice"):
        load(tmp_path)


def test_a_folder_without_files_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no claims found"):
        load(tmp_path / "missing")


# -- choosing --------------------------------------------------------------------------------------------------------


def test_select_narrows_and_leaves_the_quarantine_out():
    result = select(dataset="fer2013", metric="accuracy")
    assert {c.dataset for c in result} == {"fer2013"}
    assert {c.metric for c in result} == {"accuracy"}
    assert not any(c.quarantined for c in result)
    more = select(dataset="fer2013", metric="accuracy", include_quarantined=True)
    assert {c.method for c in more} - {c.method for c in result} == {
        "ResEmoteNet",
        "SDAFE",
        "EfficientFER",
        "PAtt-Lite",
    }


def test_select_knows_a_class_under_its_other_names_and_a_method_in_any_case():
    assert canonical("recall:anger") == "recall:angry"
    assert select([replace(NET, metric="recall:happy")], metric="recall:happiness") != ()
    assert {c.method for c in select(dataset="fer2013", method="lethesec")} == {"LetheSec ResNet-18 (ResNet18-tricks)"}


@pytest.mark.parametrize(
    ("wanted", "near"),
    [({"dataset": "fer213"}, "'fer2013'"), ({"method": "RASNN"}, "'RASN'"), ({"metric": "acuracy"}, "'accuracy'")],
)
def test_select_answers_an_unknown_name_with_the_nearest(wanted, near):
    with pytest.raises(UnknownNameError, match=near):
        select(**wanted)


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_table_keeps_values_as_printed_and_one_line_a_number():
    rows = list(csv.DictReader(io.StringIO(as_csv([replace(NET, value=71.30, flags=("ensemble", "human")), NET]))))
    assert len(rows) == 2
    assert (rows[0]["id"], rows[0]["value"], rows[0]["flags"]) == ("toy/net:accuracy", "71.30", "ensemble human")
    assert (rows[1]["spread"], rows[1]["year"], rows[1]["seeds"]) == ("", "", "5")

"""The doctor: every injected fault is found, a clean set is left in peace, and page and manifest come out the same."""

from __future__ import annotations

import dataclasses
from math import comb

import numpy as np
from scipy.ndimage import gaussian_filter

from fer_bench import Chunk, Param, Problems, Protocol, Reading
from fer_bench.data.store import write_store
from fer_bench.doctor.examine import examine
from tests.doctor.conftest import CARD, CLASSES, COUNTS, World, posed, problems


def test_sound_data_give_no_error_and_no_warning(tmp_path):
    diagnosis = World.sound().examined(tmp_path)
    assert problems(diagnosis) == set()
    assert diagnosis.verdict == "0 errors, 0 warnings"
    assert {f.kind for f in diagnosis.findings} == {"labels", "counts-match", "imbalance"}
    assert diagnosis.dropped == ()


def test_exact_duplicates_are_found_within_across_and_with_conflicting_labels(tmp_path):
    world = World.sound()
    world.images[1] = world.images[0]  # both sad, both train
    world.images[125] = world.images[2]  # sad in val and in train
    world.images[153] = world.images[3]  # test and train
    world.images[100] = world.images[30]  # happy and angry in train
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("exact").groups == ((0, 1), (2, 125), (3, 153), (30, 100))
    assert diagnosis.of_kind("exact-across").groups == ((2, 125), (3, 153))
    assert diagnosis.of_kind("exact-across").detail == (
        "1 image of val has a copy in train",
        "1 image of test has a copy in train",
        "to leave them out: --protocol toy/dedup",
    )
    assert diagnosis.of_kind("exact-conflict").groups == ((30, 100),)
    assert diagnosis.conflicts == {("happy", "angry"): 1}
    assert problems(diagnosis) == {"exact-across", "exact-conflict"}
    assert diagnosis.dropped == (
        (1, "duplicate of row 0", 0),
        (2, "duplicate of row 125", 125),
        (3, "duplicate of row 153", 153),
        (30, "conflicting labels", None),
        (100, "conflicting labels", None),
    )


def test_the_protocol_that_is_advised_fits_the_splits_there_are(tmp_path):
    world = World.sound()
    world.images[153] = world.images[3]
    world = world.without(np.flatnonzero(world.split == "val"))
    holdout = Protocol(name="holdout10", train=("train",), test=("test",), holdout=0.1)
    card = dataclasses.replace(CARD, protocols=(*CARD.protocols, holdout))
    detail = world.examined(tmp_path / "a", card).of_kind("exact-across").detail
    assert detail[-1] == "to leave them out: --protocol toy/holdout10-dedup"
    assert world.examined(tmp_path / "b").of_kind("exact-across").detail == ("1 image of test has a copy in train",)


def test_near_duplicates_are_found_with_their_splits_and_labels(tmp_path):
    world = World.sound()
    world.images[1, 0] = np.rint(gaussian_filter(world.images[0, 0].astype(float), 1))
    world.images[165, 0] = np.roll(world.images[3, 0], (2, -1), (0, 1))  # happy in test, sad in train
    diagnosis = world.examined(tmp_path)
    assert list(zip(diagnosis.near.first, diagnosis.near.second, strict=True)) == [(0, 1), (3, 165)]
    assert diagnosis.of_kind("near").groups == ((0, 1), (3, 165))
    assert diagnosis.of_kind("near-across").groups == ((3, 165),)
    assert diagnosis.of_kind("near-conflict").groups == ((3, 165),)
    assert problems(diagnosis) == {"near-across", "near-conflict"}
    assert [row for row, _, _ in diagnosis.dropped] == [1, 3, 165]


def test_copies_of_copies_make_one_group(tmp_path):
    world = World.sound()
    world.images[1] = world.images[0]
    world.images[2, 0] = np.rint(0.8 * world.images[0, 0] + 30)
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("near").groups == ((0, 1, 2),)
    assert diagnosis.dropped == ((1, "duplicate of row 0", 0), (2, "near-duplicate of row 0", 0))


def test_constant_and_near_constant_images_are_told_apart(tmp_path):
    world = World.sound()
    world.images[[4, 70]] = 9
    world.images[5] = np.arange(48) // 4
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("constant").rows == (4, 70)
    assert diagnosis.of_kind("near-constant").rows == (5,)
    assert diagnosis.dropped == ((4, "constant", None), (5, "constant", None), (70, "constant", None))
    assert "near" not in {f.kind for f in diagnosis.findings}


def test_labels_in_alphabetical_order_are_recognised(tmp_path):
    world = World.sound()
    world.labels = np.array([sorted(CLASSES).index(CLASSES[k]) for k in world.labels])
    finding = world.examined(tmp_path).of_kind("label-order")
    assert finding.level == "error"
    assert "look alphabetical: the counts fit that order exactly" in finding.title
    assert finding.detail[0] == "images labelled sad are as many as expected for angry"


def test_missing_class_is_an_error_and_no_other_order(tmp_path):
    world = World.sound()
    diagnosis = world.without(np.flatnonzero(world.labels == 1)).examined(tmp_path)
    assert diagnosis.of_kind("missing-class").title == "There are no images of happy"
    assert problems(diagnosis) == {"missing-class", "counts"}


def test_class_missing_in_one_split_is_an_error(tmp_path):
    world = World.sound()
    gone = np.flatnonzero((world.labels == 3) & (world.split == "val"))
    assert world.without(gone).examined(tmp_path).of_kind("missing-class").detail == (
        "val has no images of neutral; 3 expected",
    )


def test_exchanged_labels_of_two_classes_are_told_with_their_share(tmp_path):
    world = World.sound()
    train = world.split == "train"
    sad, happy = (np.flatnonzero(train & (world.labels == k)) for k in (0, 1))
    world.labels[sad[:5]], world.labels[happy[:15]] = 1, 0  # a quarter of each
    diagnosis = world.examined(tmp_path)
    finding = diagnosis.of_kind("label-swap")
    assert (finding.level, finding.title) == ("error", "Labels have moved between two classes: sad and happy")
    assert finding.detail == (
        "train: 10 more images of sad than expected, and as many fewer of happy: happy was relabelled as sad, or 25% of"
        " both were exchanged at random",
    )
    assert problems(diagnosis) == {"label-swap", "counts"}


def test_hashes_tell_changed_labels_and_changed_pixels(tmp_path):
    world = World.sound()
    parts = world.store(tmp_path / "original").manifest["parts"]
    card = dataclasses.replace(CARD, digests={"pixels": parts["pixels"], "labels": parts["labels"]})
    assert world.examined(tmp_path / "same", card).of_kind("original").level == "note"
    world.labels[[0, 30]] = 1, 0  # the counts stay
    assert problems(world.examined(tmp_path / "labels", card)) == {"labels-changed"}
    world = World.sound()
    world.images[0, 0, 0, 0] ^= 1
    assert problems(world.examined(tmp_path / "pixels", card)) == {"pixels-changed"}


def test_person_in_training_and_test_is_an_error(tmp_path):
    world = World.sound()
    world.subject = [f"{s}{k % 9}" for k, s in enumerate(world.split)]
    assert problems(world.examined(tmp_path / "apart")) == set()
    world.subject[-1] = world.subject[0]
    finding = world.examined(tmp_path / "crossing").of_kind("subjects")
    assert (finding.level, finding.count, finding.detail) == ("error", 1, ("train0",))


def test_sequences_of_wrong_length_or_in_two_splits_are_found(tmp_path):
    world = World.sound()
    names = np.array([f"{s}-{k // 3}" for s, n in COUNTS.items() for k in range(sum(n))])
    card = dataclasses.replace(CARD, sequence=3)
    whole = np.flatnonzero([(names == n).sum() == 3 for n in names])
    world.extra = {"sequence": np.where(np.isin(np.arange(len(names)), whole), names, "")}
    assert problems(world.examined(tmp_path / "sound", card)) == set()
    world.extra["sequence"][150] = world.extra["sequence"][0]
    diagnosis = world.examined(tmp_path / "torn", card)
    assert diagnosis.of_kind("sequence-split").level == "error"
    assert "train-0: 4" in diagnosis.of_kind("sequence-length").detail


def test_near_duplicates_within_a_sequence_are_expected(tmp_path):
    world = World.sound()
    world.images[1, 0] = np.rint(gaussian_filter(world.images[0, 0].astype(float), 1))
    world.extra = {"sequence": np.array(["s1"] * 2 + [""] * (len(world.labels) - 2))}
    diagnosis = world.examined(tmp_path)
    assert problems(diagnosis) == set()
    assert len(diagnosis.near) == len(diagnosis.dropped) == 0


def test_likeness_of_one_person_is_told_and_condemns_nothing(tmp_path):
    world = posed()
    diagnosis = world.examined(tmp_path)
    assert problems(diagnosis) == set()
    assert diagnosis.dropped == ()
    finding = diagnosis.of_kind("alike")
    assert finding.level == "note"
    # 120 = 3 x 14 + 6 x 13 pictures in train, 33 = 6 x 4 + 3 x 3 in val, 34 = 7 x 4 + 2 x 3 in test
    pairs = 3 * comb(14, 2) + 6 * comb(13, 2) + 6 * comb(4, 2) + 3 * comb(3, 2) + 7 * comb(4, 2) + 2 * comb(3, 2)
    assert pairs - 9 < finding.count <= pairs
    assert finding.title == f"{finding.count} pairs of images of the same person look like copies"
    assert len(finding.groups) == finding.count
    other = sum(world.labels[a] != world.labels[b] for a, b in finding.groups)
    assert f"{other} of the pairs have different labels" in finding.detail
    assert all(world.subject[a] == world.subject[b] for a, b in finding.groups)


def test_equal_images_of_one_person_are_copies_all_the_same(tmp_path):
    world = posed()
    same = [k for k, name in enumerate(world.subject) if name == "train0"]
    first, second = same[1], next(k for k in same if world.labels[k] != world.labels[same[1]])
    world.images[second] = world.images[first]
    diagnosis = world.examined(tmp_path)
    assert problems(diagnosis) == {"exact-conflict"}
    assert diagnosis.dropped == ((first, "conflicting labels", None), (second, "conflicting labels", None))


def test_likeness_of_two_people_is_a_copy(tmp_path):
    world = posed()
    there, here = world.subject.index("test0"), world.subject.index("train0")
    world.images[there, 0] = np.rint(gaussian_filter(world.images[here, 0].astype(float), 1))
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("near-across") is not None
    assert here in [row for row, _, _ in diagnosis.dropped]


def test_lab_pictures_of_unknown_people_are_doubted_not_only_condemned(tmp_path):
    world = posed()
    world.subject = None
    diagnosis = world.examined(tmp_path)
    finding = diagnosis.of_kind("crowded")
    assert finding.title == "100% of the images closely resemble another one, as faces posed in a laboratory do"
    assert finding.detail[1].endswith("fer-bench show toy")
    assert len(diagnosis.dropped) > 100


def test_what_could_not_be_read_is_an_error_that_names_the_file(tmp_path):
    faults = Problems(lenient=True)
    faults.add("/somewhere/train/happy/3.png", None, "unreadable image: truncated")
    faults.add("/somewhere/list.csv", 7, "wrong label: 9")
    finding = World.sound().examined(tmp_path, faults=faults).of_kind("unreadable")
    assert (finding.level, finding.count) == ("error", 2)
    assert "happy/3.png: unreadable image: truncated" in finding.detail
    assert "somewhere/list.csv, row 7: wrong label: 9" in finding.detail


def test_missing_labels_and_mixed_source_files_are_told(tmp_path):
    world = World.sound()
    world.labels[3] = -1
    store = world.store(tmp_path, sizes={"48x48": 160, "50x48": 27}, modes={"L": 187})
    diagnosis = examine(store, CARD)
    assert diagnosis.of_kind("unlabelled").count == 1
    assert diagnosis.of_kind("sizes").detail == ("48x48: 160 files", "50x48: 27 files")
    assert diagnosis.of_kind("modes") is None


def test_counts_of_other_parameters_or_classes_are_not_compared(tmp_path):
    world = World.sound()
    chunk = Chunk(images=world.images, labels=world.labels, split=world.split.tolist(), source=[""] * len(world.labels))
    reading = Reading(layout="d", summary="", files=[], chunks=lambda: iter([chunk]), classes=("a", "b", "c", "d"))
    diagnosis = examine(write_store(tmp_path, CARD, reading, {}, {}), CARD)
    assert {f.kind for f in diagnosis.findings} == {"labels", "counts-unknown", "imbalance"}


def test_counts_are_compared_whatever_order_the_source_numbers_its_classes_in(tmp_path):
    card = dataclasses.replace(CARD, params={"classes": Param("", "order"), "other": Param(1, "another parameter")})
    world = World.sound()
    for given, kind in (({"classes": "angry,...", "other": 1}, "match"), ({"classes": "", "other": 2}, "unknown")):
        chunk = Chunk(
            images=world.images,
            labels=world.labels,
            split=world.split.tolist(),
            source=[""] * len(world.labels),
        )
        reading = Reading(layout="d", summary="", files=[], chunks=lambda chunk=chunk: iter([chunk]))
        diagnosis = examine(write_store(tmp_path, card, reading, given, {}), card)
        assert diagnosis.of_kind(f"counts-{kind}") is not None


def test_balance_is_told_by_hand_computed_figures(tmp_path):
    finding = World.sound().examined(tmp_path).of_kind("imbalance")
    assert "largest class / rarest class 9.10" in finding.title  # 91 happy, 10 neutral
    assert "train: largest class / rarest class 12.00, normalised entropy 0.820" in finding.detail
    # |20/120 - 6/33| + |60/120 - 16/33| + |35/120 - 8/33| + |5/120 - 3/33| = 0.12879, halved
    assert "train and val: class shares differ by 6.4 % of the images" in finding.detail


def test_exchange_that_leaves_the_counts_is_seen_in_copies(tmp_path):
    world = World.sound()
    world.images[20:50] = world.images[50:80]  # thirty pairs of happy images in train
    assert problems(world.examined(tmp_path / "sound")) == set()
    world.labels[20:32], world.labels[:12] = 0, 1
    diagnosis = world.examined(tmp_path / "exchanged")
    finding = diagnosis.of_kind("copies-disagree")
    assert finding.title == "12 of 30 groups of copies are labelled both sad and happy: labels may be exchanged"
    p = 6 * sum(comb(30, k) * 0.1**k * 0.9 ** (30 - k) for k in range(12, 31))
    assert finding.detail == (
        f"more than labelling slips in 10% of the groups would explain (binomial test, p = {p:.1g}, level 0.01,"
        " corrected for 6 pairs of classes)",
        "randomly exchanging 28% of both classes would have this effect",  # 2 f (1 - f) = 0.4
    )
    assert problems(diagnosis) == {"copies-disagree", "exact-conflict"}


def test_five_torn_pairs_of_seven_do_not_say_that_labels_are_exchanged(tmp_path):
    world = World.sound()
    world.images[20:27] = world.images[50:57]
    world.labels[20:25], world.labels[:5] = 0, 1
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("exact-conflict").count == 5
    assert problems(diagnosis) == {"exact-conflict"}

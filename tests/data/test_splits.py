"""Protocols to rows: parts are disjoint and complete, groups stay together, and nothing depends on the machine."""

import dataclasses
import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_bench import Chunk, DataError, DatasetCard, Protocol, Reading, SpecError
from fer_bench.data.clean_manifest import CleanManifest
from fer_bench.data.splits import check_fold, divide
from fer_bench.data.store import write_store
from fer_bench.errors import UnknownNameError

OFFICIAL = Protocol(name="official", train=("a",), val=("b",), test=("c",))
CLASSES = ("x", "y", "z")


@pytest.fixture
def store_of(tmp_path):
    """``store_of(labels, split=..., subject=..., extra=...)``: a store with these columns and one-pixel images."""

    def make(labels, split="all", subject=None, classes=CLASSES, **extra):
        n = len(labels)
        chunk = Chunk(
            images=(np.arange(n) % 251).astype(np.uint8).reshape(n, 1, 1, 1),
            labels=np.asarray(labels, dtype=np.int64),
            split=list(split) if len(split) == n else [split] * n,
            source=[str(k) for k in range(n)],
            subject=None if subject is None else [str(s) for s in subject],
            extra={k: np.asarray(v) for k, v in extra.items()},
        )
        card = DatasetCard(name="toy", title="toy", classes=classes, protocols=(OFFICIAL,))
        reading = Reading(layout="drawn", summary="drawn", files=[], chunks=lambda: iter([chunk]))
        return write_store(tmp_path, card, reading)

    return make


def card_with(*protocols: Protocol) -> DatasetCard:
    return DatasetCard(name="toy", title="toy", classes=CLASSES, protocols=protocols)


def divided(store, protocol, clean=None):
    return divide(store, card_with(protocol), protocol, clean)


def sets(fold):
    return {role: set(rows.tolist()) for role, rows in fold.items()}


def test_official_roles_are_the_named_splits(store_of):
    store = store_of([0, 1, 2, 0, 1, 2, 0], split="aaabbcc")
    (fold,) = divided(store, OFFICIAL).folds
    assert {r: v.tolist() for r, v in fold.items()} == {"train": [0, 1, 2], "val": [3, 4], "test": [5, 6]}


def test_the_split_file_has_one_line_a_row_and_its_hash_is_recorded(store_of):
    division = divided(store_of([0, 1, 2, 0, 1, 2, 0], split="aaabbcc"), OFFICIAL)
    expected = "row,fold0\n0,train\n1,train\n2,train\n3,val\n4,val\n5,test\n6,test\n"
    assert division.text == expected
    assert division.sha256 == hashlib.sha256(expected.encode()).hexdigest()


def test_selecting_on_the_test_is_written_into_the_split_file(store_of):
    protocol = Protocol(name="p", train=("a",), test=("c",), val_is_test=True, watermark="picked on test")
    assert divided(store_of([0, 1, 2, 0], split="aaac"), protocol).text.endswith("3,val+test\n")


def test_rows_of_splits_that_are_not_named_take_no_part(store_of):
    division = divided(store_of([0, 1, 2, 0, 0, 1], split="aaabcd"), OFFICIAL)
    assert division.text.endswith("5,\n")


def test_holdout_takes_its_share_of_every_class(store_of):
    labels = [0] * 100 + [1] * 50 + [2] * 11 + [0, 1, 2]
    split = "a" * 161 + "ccc"
    protocol = Protocol(name="p", train=("a",), test=("c",), holdout=0.1)
    division = divided(store_of(labels, split=split), protocol)
    (fold,) = division.folds
    assert np.bincount(division.labels[fold["val"]]).tolist() == [10, 5, 1]
    assert sets(fold)["train"] | sets(fold)["val"] == set(range(161))
    assert not sets(fold)["train"] & sets(fold)["val"]


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(10, 60), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
    folds=st.integers(3, 10),
)
def test_kfold_is_a_partition_with_equal_shares_of_every_class(tmp_path_factory, counts, seed, folds):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(3), counts))
    store = _store(tmp_path_factory.mktemp("s"), labels)
    division = divided(store, Protocol(name="p", scheme="kfold", folds=folds))
    tests = [set(f["test"].tolist()) for f in division.folds]
    assert sorted(row for test in tests for row in test) == list(range(len(labels)))
    for number, fold in enumerate(division.folds):
        parts = sets(fold)
        assert parts["val"] == tests[(number + 1) % folds]
        assert parts["train"] == set(range(len(labels))) - parts["val"] - parts["test"]
        for k, n in enumerate(counts):
            assert abs((labels[fold["test"]] == k).sum() - n / folds) < 1
    sizes = [len(t) for t in tests]
    assert max(sizes) - min(sizes) <= 2


def _store(folder, labels, **columns):
    chunk = Chunk(
        images=np.zeros((len(labels), 1, 1, 1), np.uint8), labels=np.asarray(labels),
        split=["all"] * len(labels), source=[""] * len(labels), **columns,
    )  # fmt: skip
    reading = Reading(layout="drawn", summary="", files=[], chunks=lambda: iter([chunk]))
    return write_store(folder, card_with(OFFICIAL), reading)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), subjects=st.integers(12, 40))
def test_no_subject_is_in_two_parts_of_a_fold(tmp_path_factory, seed, subjects):
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, subjects, 300)
    store = _store(tmp_path_factory.mktemp("s"), rng.integers(0, 3, 300), subject=[f"S{s:03}" for s in subject])
    for scheme in ({"scheme": "kfold", "folds": 5}, {"scheme": "shuffle", "folds": 3, "shares": (0.6, 0.2, 0.2)}):
        division = divided(store, Protocol(name="p", group="subject", **scheme))
        for fold in division.folds:
            people = {role: set(subject[rows].tolist()) for role, rows in fold.items()}
            assert not people["train"] & people["test"]
            assert not people["train"] & people["val"]
            assert not people["val"] & people["test"]
            assert sum(map(len, fold.values())) == 300


def test_subject_folds_are_near_equal_in_every_class(store_of):
    rng = np.random.default_rng(3)
    subject = np.repeat(np.arange(100), 6)
    labels = np.where(subject % 4 == 0, rng.integers(0, 3, 600), 0)
    division = divided(store_of(labels, subject=subject), Protocol(name="p", scheme="kfold", folds=10, group="subject"))
    for fold in division.folds:
        shares = np.bincount(labels[fold["test"]], minlength=3) / np.bincount(labels)
        assert np.all(np.abs(shares - 0.1) < 0.05)


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(5, 80), min_size=3, max_size=3))
def test_shuffles_have_the_asked_shares_and_differ(tmp_path_factory, counts):
    labels = np.repeat(np.arange(3), counts)
    store = _store(tmp_path_factory.mktemp("s"), labels)
    division = divided(store, Protocol(name="p", scheme="shuffle", folds=4, shares=(0.6, 0.2, 0.2)))
    for fold in division.folds:
        for role, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            have = np.bincount(labels[fold[role]], minlength=3)
            assert np.all(np.abs(have - np.asarray(counts) * share) < 1)
    assert len({f["test"].tobytes() for f in division.folds}) == 4


def test_blocks_are_those_of_the_published_ck_code(store_of):
    """The loop of CK.py, written down again from its description: running index, 990 slots, 957 distinct images."""
    sizes, take = [135, 177, 75, 207, 84, 249, 54], (12, 18, 9, 21, 9, 24, 6)
    classes = tuple("abcdefg")
    labels = np.repeat(np.arange(7), sizes)
    protocol = Protocol(name="p", scheme="blocks", folds=10, take=take, val_is_test=True, watermark="leaks")
    store = store_of(labels, classes=classes)
    card = dataclasses.replace(card_with(protocol), classes=classes)
    slots = 0
    covered: set[int] = set()
    for number, fold in enumerate(divide(store, card, protocol).folds):
        expected = []
        for c, n in enumerate(take):
            for k in range(n):
                start, end = sum(sizes[:c]), sum(sizes[: c + 1])
                expected.append(end - 1 - k if number == 9 else start + number * n + k)
        slots += len(expected)
        covered |= set(expected)
        assert fold["test"].tolist() == sorted(set(expected))
        assert set(fold["train"].tolist()) == set(range(981)) - set(expected)
        assert fold["val"].tolist() == fold["test"].tolist()
    assert (slots, len(covered)) == (990, 957)


def test_a_class_subset_is_renumbered_and_other_rows_are_left_out(store_of):
    protocol = Protocol(name="p", train=("a",), val=("b",), test=("c",), classes=("z", "x"))
    division = divided(store_of([0, 1, 2, 0, 2, 1, 0], split="aaabbcc"), protocol)
    assert division.classes == ("z", "x")
    assert division.labels.tolist() == [1, -1, 0, 1, 0, -1, 1]
    assert {r: v.tolist() for r, v in division.folds[0].items()} == {"train": [0, 2], "val": [3, 4], "test": [6]}


def test_another_label_column_is_used_and_unlabelled_rows_can_be_dropped(store_of):
    protocol = Protocol(name="p", train=("a",), val=("b",), test=("c",), label="votes", unlabelled="drop")
    division = divided(store_of([0] * 7, split="aaaabbc", votes=[0, 1, 2, -1, -1, 1, 2]), protocol)
    assert {r: v.tolist() for r, v in division.folds[0].items()} == {"train": [0, 1, 2], "val": [5], "test": [6]}


def test_unlabelled_rows_are_an_error_unless_dropped(store_of):
    with pytest.raises(DataError, match=r"2 images have no label in layout 'drawn'"):
        divided(store_of([0, 1, 2, -1, 0, -1], split="aaaabc"), OFFICIAL)


def test_unlabelled_rows_outside_the_protocol_do_not_matter(store_of):
    (fold,) = divided(store_of([0, 1, 2, 0, 1, -1], split="aaabcd"), OFFICIAL).folds
    assert fold["test"].tolist() == [4]


HOLDOUT = Protocol(name="holdout10", train=("a",), test=("c",), holdout=0.1)
FOLDS = Protocol(name="folds", scheme="kfold", folds=4)


@pytest.mark.parametrize("protocol", [OFFICIAL, HOLDOUT, FOLDS], ids=lambda p: p.name)
def test_every_protocol_has_a_twin_that_divides_alike_and_leaves_out_what_the_doctor_rejects(store_of, protocol):
    store = store_of([k % 3 for k in range(120)], split="a" * 60 + "b" * 30 + "c" * 30)
    clean = CleanManifest(np.array([3, 50, 70, 100]), ("constant",) * 4, "hash")
    card = card_with(FOLDS, HOLDOUT, OFFICIAL) if protocol is FOLDS else card_with(protocol, FOLDS)
    whole = divide(store, card, protocol).folds
    without = divide(store, card, card.protocol("dedup"), clean).folds
    for fold, other in zip(whole, without, strict=True):
        assert sets(other) == {role: rows - {3, 50, 70, 100} for role, rows in sets(fold).items()}


def test_twins_are_found_by_name_and_say_what_they_are():
    card = card_with(HOLDOUT, OFFICIAL)
    twin = card.protocol("toy/dedup")
    assert (twin.name, twin.of, twin.clean, card.full_name(twin)) == ("dedup", "holdout10", True, "toy/dedup")
    assert card.protocol("holdout10-dedup") == twin
    other = card.protocol("toy/official-dedup")
    assert (other.name, other.of, other.val) == ("official-dedup", "official", ("b",))
    assert "without the rows that the doctor rejects" in other.in_words
    with pytest.raises(UnknownNameError, match="toy/dedup"):
        card.protocol("dedupe")
    own = Protocol(name="dedup", train=("b",), test=("c",), val=("a",), clean=True)
    assert card_with(OFFICIAL, own).protocol("dedup") is own


def test_a_twin_that_does_not_fit_leads_to_one_that_does(store_of):
    store = store_of([0, 1, 2] * 20, split="a" * 30 + "c" * 30)
    card = card_with(OFFICIAL, HOLDOUT)
    with pytest.raises(DataError, match=r"--protocol toy/holdout10-dedup"):
        divide(store, card, card.protocol("dedup"))


def test_rows_of_the_clean_manifest_are_left_out_of_every_role(store_of):
    store = store_of([0, 1, 2, 0, 0, 1, 2, 2], split="aaaabbcc")
    clean = CleanManifest(np.array([3, 5, 7]), ("constant",) * 3, "hash")
    protocol = dataclasses.replace(OFFICIAL, clean=True)
    (fold,) = divided(store, protocol, clean).folds
    assert {r: v.tolist() for r, v in fold.items()} == {"train": [0, 1, 2], "val": [4], "test": [6]}
    (untouched,) = divided(store, OFFICIAL, clean).folds
    assert len(untouched["train"]) == 4


def test_the_division_never_changes(store_of):
    """Whoever changes the order of the rows changes everybody's splits."""
    store = store_of([k % 3 for k in range(60)], subject=[k // 4 for k in range(60)])
    kfold = divided(store, Protocol(name="p", scheme="kfold", folds=5))

    def digest(row):
        return hashlib.blake2b(f"toy/p/kfold/{row}".encode(), digest_size=16).hexdigest()

    firsts = [sorted(range(c, 60, 3), key=digest)[:4] for c in range(3)]  # a fifth of each class's 20 rows
    assert (
        kfold.folds[0]["test"].tolist()
        == sorted(row for first in firsts for row in first)
        == [4, 5, 9, 19, 27, 31, 33, 41, 45, 46, 50, 56]
    )
    grouped = divided(store, Protocol(name="p", scheme="kfold", folds=5, group="subject"))
    subjects = [sorted({int(r) // 4 for r in f["test"]}) for f in grouped.folds]
    assert subjects == [[5, 6, 13], [8, 10, 12], [1, 9, 14], [0, 2, 4], [3, 7, 11]]


def test_equal_remainders_take_turns_so_that_no_part_grows(store_of):
    labels = [c for c in range(3) for _ in range(4)]  # four images a class, in three parts: one part gets two
    division = divided(store_of(labels), Protocol(name="p", scheme="kfold", folds=3))
    assert sorted(len(f["test"]) for f in division.folds) == [4, 4, 4]


@pytest.mark.parametrize(
    ("columns", "protocol", "message"),
    [
        ({"split": "aaac"}, OFFICIAL, "the store has no val images"),
        ({"split": "aabc"}, OFFICIAL, "the training fold has no images of z"),
        ({}, Protocol(name="p", scheme="kfold", folds=3, group="person"), "no column 'person'"),
        ({}, Protocol(name="p", scheme="kfold", folds=3, group="subject"), "some images in the store have no subject"),
        ({}, Protocol(name="p", scheme="kfold", folds=3, label="vote"), "no column 'vote'"),
        ({}, Protocol(name="p", scheme="kfold", folds=3, label="source", classes=()), "training fold has no images"),
        ({"split": "abca"}, dataclasses.replace(OFFICIAL, classes=("x", "q")), "the store has no class 'q'"),
    ],
    ids=["no split", "no class", "no column", "no subjects", "no label column", "too few", "unknown class"],
)
def test_what_a_protocol_lacks_is_named_with_a_way_out(store_of, columns, protocol, message):
    with pytest.raises(DataError, match=message) as error:
        divided(store_of([0, 1, 2, 1], **columns), protocol)
    assert f"toy/{protocol.name}" in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"scheme": "kfolds"},
        {"scheme": "kfold", "folds": 2},
        {"scheme": "shuffle", "shares": (0.5, 0.2, 0.2)},
        {"scheme": "shuffle", "shares": (0.8, 0.2)},
        {"train": ("a",), "test": ("b",)},
        {"train": ("a",), "test": ("b",), "val": ("c",), "holdout": 0.1},
        {"train": ("a",), "test": ("b",), "val_is_test": True},
        {"train": ("a",), "val": ("b",)},
        {"train": ("a",), "val": ("b",), "test": ("c",), "folds": 4},
        {"scheme": "blocks", "folds": 10},
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(fields):
    with pytest.raises((SpecError, UnknownNameError)):
        Protocol(name="p", **fields)


def test_folds_are_checked():
    protocol = Protocol(name="p", scheme="kfold", folds=5)
    check_fold(protocol, 4, "toy/p")
    with pytest.raises(SpecError, match="its folds are 0 to 4"):
        check_fold(protocol, 5, "toy/p")


def test_shares_are_read_as_the_decimals_they_are_written_as():
    assert Fraction(str(0.1)) * 10 == 1

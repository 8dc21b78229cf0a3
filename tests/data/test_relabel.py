"""Other labels of the same images: images are matched by their pixels, and only where there is no doubt."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_bench import Chunk, DatasetCard, Protocol, Reading, Relabelling
from fer_bench.contract.card_reader import read_card
from fer_bench.contract.plugins import plugins
from fer_bench.data.prepare import prepare
from fer_bench.data.relabel import keep_labels, matching_rows, relabel
from fer_bench.data.store import Store, write_store
from fer_bench.errors import DataError
from fer_bench.record.home import Home
from fer_bench.record.relabelled import read_relabelled
from tests.conftest import real_unpacker

ROOT = Path(__file__).parents[2]
PROTOCOLS = (Protocol(name="p", train=("x",), val=("y",), test=("z",)),)
FIRST = DatasetCard(name="first", title="First", classes=("angry", "happy"), protocols=PROTOCOLS)
SECOND = DatasetCard(
    name="second",
    title="Second",
    classes=("joy", "anger", "contempt"),
    protocols=PROTOCOLS,
    relabels=Relabelling(
        of="first",
        title="Second opinion",
        rule="by vote",
        names={"joy": "happy", "anger": "angry"},
        votes={"happy": "v_joy", "angry": "v_anger", "contempt": "v_contempt", "not a face": "v_none"},
    ),
)
IMAGES = np.random.default_rng(1).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
VOTES = np.array([[9, 1, 0, 0], [0, 6, 4, 0], [1, 1, 8, 0], [0, 0, 0, 10], [4, 5, 1, 0], [10, 0, 0, 0]])
LABELS = np.array([0, 1, 2, -1, -1, 0])  # of the six images, by second


def written(root: Path, card: DatasetCard, images: np.ndarray, labels, votes=None) -> Store:
    extra = {} if votes is None else dict(zip(("v_joy", "v_anger", "v_contempt", "v_none"), votes.T, strict=True))
    rows = [str(k) for k in range(len(images))]
    chunk = Chunk(images=images, labels=np.asarray(labels), split=["x"] * len(images), source=rows, extra=extra)
    return write_store(root, card, Reading(layout="l", summary="s", files=[], chunks=lambda: iter([chunk])))


def pair(root: Path, order, images=IMAGES) -> tuple[Store, Store]:
    """The first data set with all images, the second with some of them in another order."""
    first = written(root, FIRST, images, np.zeros(len(images), dtype=int))
    return first, written(root, SECOND, images[order], LABELS[order], VOTES[order])


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]])
def test_images_are_matched_by_their_pixels_in_any_order(tmp_path, order):
    found = relabel(*pair(tmp_path, order), SECOND)
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.labels.tolist() == LABELS.tolist()
    assert found.votes.tolist() == VOTES.tolist()
    assert (found.images, found.name, found.title, found.rule) == (6, "second", "Second opinion", "by vote")


def test_classes_have_the_names_of_the_data_set_that_is_scored(tmp_path):
    found = relabel(*pair(tmp_path, [0, 1, 2]), SECOND)
    assert found.classes == ("happy", "angry", "contempt")
    assert found.answers == ("happy", "angry", "contempt", "not a face")


def test_images_without_counterpart_are_left_out(tmp_path):
    found = relabel(*pair(tmp_path, [4, 1]), SECOND)
    assert (found.rows.tolist(), found.labels.tolist(), found.images) == ([1, 4], [1, -1], 6)


def test_copies_are_matched_in_order_if_both_have_as_many(tmp_path):
    images = IMAGES.copy()
    images[3] = images[0]
    assert matching_rows(*pair(tmp_path, [2, 0, 3], images)).tolist() == [1, -1, 0, 2, -1, -1]


def test_copies_that_can_not_be_told_apart_are_left_out(tmp_path):
    images = IMAGES.copy()
    images[3] = images[0]
    assert matching_rows(*pair(tmp_path, [3, 5, 2], images)).tolist() == [-1, -1, 2, -1, -1, 1]


def test_images_of_another_shape_are_others(tmp_path):
    first = written(tmp_path, FIRST, IMAGES, np.zeros(6, dtype=int))
    second = written(tmp_path, SECOND, IMAGES.reshape(6, 1, 2, 8), LABELS, VOTES)
    assert (matching_rows(first, second) == -1).all()


def test_two_sets_without_a_common_image_are_told_apart(tmp_path):
    first = written(tmp_path, FIRST, IMAGES + 1, np.zeros(6, dtype=int))
    second = written(tmp_path, SECOND, IMAGES, LABELS, VOTES)
    with pytest.raises(DataError, match="'second' has none of these images") as error:
        relabel(first, second, SECOND)
    assert "prepared from the same files" in str(error.value)


def test_a_data_set_that_labels_nothing_anew_is_refused(tmp_path):
    first, second = pair(tmp_path, [0, 1])
    with pytest.raises(DataError, match="'first' does not label the images of another"):
        relabel(second, first, FIRST)


def test_labels_without_votes_can_be_had_too(tmp_path):
    card = replace(SECOND, relabels=replace(SECOND.relabels, votes={}))
    found = relabel(*pair(tmp_path, [0, 1]), card)
    assert (found.votes.shape, found.answers) == ((2, 0), ())


def test_labels_are_kept_in_the_ledger_and_renewed_when_votes_change(tmp_path):
    home = Home(tmp_path)
    first, second = pair(tmp_path / "data", [0, 1, 2])
    assert keep_labels(home, first, second, SECOND)[1]
    kept, new = keep_labels(home, first, second, SECOND)
    assert (kept.labels.tolist(), new) == ([0, 1, 2], False)
    changed = written(tmp_path / "data", SECOND, IMAGES[:3], LABELS[:3], VOTES[:3] + 1)
    assert changed.fingerprint == second.fingerprint  # votes are no part of it
    assert keep_labels(home, first, changed, SECOND)[1]
    again = read_relabelled(home.ledger.root, first.fingerprint, "second")
    assert again.votes.tolist() == (VOTES[:3] + 1).tolist()


CARDS = sorted(p for p in (ROOT / "datasets").glob("*.py") if not p.name.startswith("_"))


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.stem)
def test_what_a_card_says_of_other_labels_fits_the_data_set_that_it_names(path):
    card = read_card(path)
    if card.relabels is None:
        return
    other = read_card(path.with_name(f"{card.relabels.of}.py"))
    shared = {card.relabels.names.get(name, name) for name in card.classes}
    assert set(other.classes) <= shared
    assert set(card.relabels.names) <= set(card.classes)
    assert not card.relabels.votes or set(other.classes) <= set(card.relabels.votes)


def test_the_data_sets_that_label_images_anew_are_found():
    available = plugins()
    assert available.relabellers("fer2013") == ["ferplus"]
    assert available.relabellers("rafdb") == []


@pytest.mark.realdata
def test_the_real_votes_meet_the_real_images(tmp_path):
    unpack = real_unpacker()
    beside = Path(__file__).parents[3] / "shared" / "data" / "ferplus"
    votes = Path(os.environ.get("FER_BENCH_FERPLUS") or beside) / "fer2013new.csv"
    if not votes.is_file():
        pytest.skip("FER+'s votes are not here: set FER_BENCH_FERPLUS to the folder that holds fer2013new.csv")
    raw = tmp_path / "raw"
    unpack.main("csv", raw)
    (raw / "fer2013new.csv").write_bytes(votes.read_bytes())
    home, available = Home(tmp_path), plugins()
    first = prepare(home, available.dataset("fer2013"), raw / "fer2013.csv", say=lambda line: None)
    second = prepare(home, available.dataset("ferplus"), raw, say=lambda line: None)
    found = relabel(first, second, available.dataset_card("ferplus"))
    test = first.columns("split")["split"][found.rows] == "PrivateTest"
    labels = found.labels[test & (found.labels >= 0)]
    numbers = dict(zip(found.classes, np.bincount(labels, minlength=8).tolist(), strict=True))
    # the published counts of the test by majority
    assert numbers == {
        "neutral": 1090, "happy": 893, "surprise": 396, "sad": 384, "angry": 273, "disgust": 18, "fear": 83,
        "contempt": 16,
    }  # fmt: skip
    assert len(found.rows) == found.images == 35887
    assert set(found.votes.sum(1).tolist()) == {9, 10}  # one row of the published table has nine

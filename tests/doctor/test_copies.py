"""The search for copies: when near ones count, that it is done once, and that every run agrees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fer_bench import Chunk, DatasetCard, Protocol, Reading
from fer_bench.contract.plugins import plugins
from fer_bench.data.copies import NAME, copies_among, load_copies
from fer_bench.data.store import write_store
from fer_bench.doctor import copies as module
from fer_bench.doctor.copies import known_copies
from tests.conftest import real_unpacker

CARD = DatasetCard(
    name="album",
    title="album",
    classes=("a", "b"),
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
)


def photographs(number, seed=0):
    """Smooth random pictures, uint8 [number, 1, 48, 48], no two of them alike."""
    noise = np.random.default_rng(seed).normal(size=(number, 48, 48))
    smooth = np.stack([gaussian_filter(picture, 2.5) for picture in noise])
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)[:, None]


@pytest.fixture
def album(tmp_path):
    """Twenty photographs: row 20 is identical to row 3, row 21 a blurred copy of row 4."""

    def make(images=None, subject=None):
        if images is None:
            images = photographs(20)
            blurred = np.rint(gaussian_filter(images[4].astype(float), (0, 0.7, 0.7))).astype(np.uint8)
            images = np.concatenate([images, images[3:4], blurred[None]])
        n = len(images)
        split = ["train"] * (n - 4) + ["val"] * 1 + ["test"] * 3
        chunk = Chunk(images=images, labels=np.arange(n) % 2, split=split, source=[""] * n, subject=subject)
        return write_store(tmp_path, CARD, Reading(layout="", summary="", files=[], chunks=lambda: iter([chunk])))

    return make


def groups(numbers):
    return [g for k in dict.fromkeys(numbers.tolist()) if len(g := np.flatnonzero(numbers == k).tolist()) > 1]


def test_exact_and_near_copies_are_found(album, tmp_path):
    found = known_copies(album(), CARD, tmp_path)
    assert groups(found.exact) == [[3, 20]]
    assert groups(found.near) == [[3, 20], [4, 21]]
    assert found.facts == {"near": True, "reason": ""}


def test_the_search_is_done_once(album, tmp_path, monkeypatch):
    store, announced = album(), []

    def announce():
        announced.append(True)
        return lambda what, done: None

    first = known_copies(store, CARD, tmp_path, announce)
    monkeypatch.setattr(module, "copies_of", lambda patient: pytest.fail("looked for again"))
    again = known_copies(store, CARD, tmp_path, announce)
    assert announced == [True]
    assert (first.near == again.near).all()  # the numbers too: they are recorded
    assert (first.exact == again.exact).all()


def test_a_file_that_can_not_be_used_is_replaced(album, tmp_path):
    store = album()
    (tmp_path / NAME).write_text("{}")
    found = known_copies(store, CARD, tmp_path)
    assert load_copies(tmp_path, found.exact).near.tolist() == found.near.tolist()


def test_a_folder_that_can_not_be_written_does_not_stop_the_search(album, tmp_path):
    (tmp_path / "file").write_text("")
    assert groups(known_copies(album(), CARD, tmp_path / "file").near) == [[3, 20], [4, 21]]


def test_images_that_are_drawn_are_copies_only_where_they_are_identical(album, tmp_path):
    drawn = replace(CARD, built_in=True)
    found = known_copies(album(), drawn, tmp_path, lambda: pytest.fail("announced a search"))
    assert groups(found.near) == [[3, 20]]
    assert found.facts["near"] is False
    assert "drawn" in found.facts["reason"]


def test_a_large_store_is_searched_for_identical_images_alone(album, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 21)
    found = known_copies(album(), CARD, tmp_path, lambda: pytest.fail("announced a search"))
    assert groups(found.near) == [[3, 20]]
    assert found.facts["reason"] == "the store has more than 21 images"


def test_where_most_images_look_alike_only_identical_ones_are_copies(album, tmp_path):
    """A person photographed twice in a row: 16 of 20 images have a near copy."""
    first = photographs(12)
    second = np.stack([np.rint(gaussian_filter(x.astype(float), (0, 0.7, 0.7))).astype(np.uint8) for x in first[:8]])
    images = np.concatenate([first, second])
    found = known_copies(album(images), CARD, tmp_path / "nobody")
    assert groups(found.near) == []
    assert "nobody named" in found.facts["reason"]
    named = [f"p{k}" for k in range(12)] + [f"q{k}" for k in range(8)]  # other names: copies labelled as two people
    found = known_copies(album(images, named), CARD, tmp_path / "named")
    assert groups(found.near) == [[k, 12 + k] for k in range(8)]


@pytest.mark.realdata
def test_real_fer2013_has_the_known_copies(tmp_path):
    images, labels, usage = real_unpacker().load()
    labels = labels.astype(np.int64)
    split = [("Training", "PublicTest", "PrivateTest")[u] for u in usage]
    chunk = Chunk(images=images[:, None], labels=labels, split=split, source=[""] * len(labels))
    card = plugins().dataset_card("fer2013")
    reading = Reading(layout="array", summary="", files=[], chunks=lambda: iter([chunk]))
    copies = known_copies(write_store(tmp_path, card, reading), card, tmp_path)
    train, val, test = (np.flatnonzero(usage == u) for u in range(3))
    met = copies_among(copies, test, labels[test], train, labels[train])
    kinds = dict(zip(*np.unique(met, return_counts=True), strict=True))
    assert kinds == {0: 2887, 1: 330, 2: 273, 5: 84, 6: 15}  # 288 exact and 414 near copies in Training
    assert np.isin(copies.exact[test], copies.exact[train]).sum() == 288
    assert np.isin(copies.exact[val], copies.exact[train]).sum() == 280
    distinct = np.bincount(np.unique(np.stack([copies.near, copies.exact]), axis=1)[0], minlength=len(images))
    torn = np.isin(copies.near[test], copies.near[train]) & (distinct[copies.near[test]] > 1)
    assert torn.sum() == 518  # the doctor's count: groups that hold different images

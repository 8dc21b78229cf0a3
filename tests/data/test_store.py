"""The prepared store: what is written is read back, equal data give equal fingerprints, damage is noticed."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_bench import Chunk, DatasetCard, FerBenchError, Protocol, Reading
from fer_bench.data.soundness import digest_of
from fer_bench.data.store import Store, check_counts, duplicates, write_store
from fer_bench.errors import ChangedStoreError, StoreError

CARD = DatasetCard(
    name="toy",
    title="Toy",
    classes=("a", "b"),
    protocols=(Protocol(name="p", train=("x",), val=("y",), test=("z",)),),
    counts={"x": (2, 1), "y": (1, 1)},
)
LABELS, SPLITS = [0, 1, 0, 1, 0], ["x", "x", "x", "y", "y"]


def some_images(n: int = 5, seed: int = 0, shape=(1, 4, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def reading(images=None, labels=LABELS, splits=SPLITS, cuts=(2,), layout="l") -> Reading:
    images = some_images(len(labels)) if images is None else images

    def chunks():
        for rows in np.split(np.arange(len(labels)), cuts):
            yield Chunk(
                images=images[rows],
                labels=np.asarray(labels)[rows],
                split=[splits[r] for r in rows],
                source=[f"file {r}" for r in rows],
                extra={"frame": rows},
            )

    return Reading(layout=layout, summary="a toy", files=[], chunks=chunks)


def test_what_is_written_is_read_back(tmp_path):
    store = write_store(tmp_path, CARD, reading(), {"k": 1}, {"from": "here"})
    table = store.columns()
    assert np.array_equal(store.images(np.arange(5)), some_images())
    assert np.array_equal(store.images(np.array([4, 0])), some_images()[[4, 0]])
    assert table["label"].tolist() == LABELS
    assert table["split"].tolist() == SPLITS
    assert table["source"].tolist() == [f"file {k}" for k in range(5)]
    assert table["frame"].tolist() == list(range(5))
    assert (store.shape, len(store), store.classes) == ((1, 4, 3), 5, ("a", "b"))
    assert (store.manifest["params"], store.manifest["from"]) == ({"k": 1}, "here")
    assert store.manifest["counts"] == {"x": [2, 1], "y": [1, 1]}
    assert np.load(store.path / "images.npy").shape == (5, 1, 4, 3)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 4), max_size=3).map(sorted), layout=st.text("abc", min_size=1))
def test_fingerprint_depends_neither_on_chunks_nor_on_layout(tmp_path_factory, cuts, layout):
    one = write_store(tmp_path_factory.mktemp("a"), CARD, reading())
    cuts = sorted(set(cuts))
    two = write_store(tmp_path_factory.mktemp("b"), CARD, reading(cuts=cuts, layout=layout))
    assert one.fingerprint == two.fingerprint


def test_fingerprint_changes_with_pixel_label_and_split(tmp_path):
    images = some_images()
    images[3, 0, 0, 0] ^= 1
    variants = [reading(), reading(images), reading(labels=[0, 1, 1, 1, 0]), reading(splits=["x", "x", "y", "y", "y"])]
    prints = {write_store(tmp_path / str(k), CARD, r).fingerprint for k, r in enumerate(variants)}
    assert len(prints) == 4


def test_duplicates_are_grouped_and_told_by_split(tmp_path):
    images = some_images()
    images[2], images[3], images[4] = images[0], images[0], images[1]  # a a b | a b: labels 0 0, 1 and 1, 0
    store = write_store(tmp_path, CARD, reading(images))
    assert store.columns("duplicate")["duplicate"].tolist() == [0, 1, 0, 0, 1]
    assert duplicates(store) == {
        "distinct": 2,
        "groups": 2,
        "conflicting": 2,
        "by_split": {"x": 1, "y": 0},
        "across": {("x", "y"): 2},
    }


def test_counts_are_compared_with_the_card(tmp_path):
    assert write_store(tmp_path, CARD, reading()).manifest["checks"] == {"counts": "match", "differences": []}
    other = write_store(tmp_path, CARD, reading(labels=[0, 1, 1, -1, 0], splits=["x", "x", "x", "y", "w"]))
    assert other.manifest["checks"]["counts"] == "differ"
    assert other.manifest["checks"]["differences"] == [
        "1 image has no label",
        "x/a: 1, expected 2",
        "x/b: 2, expected 1",
        "y/a: 0, expected 1",
        "y/b: 0, expected 1",
        "w: 1 image in a split that the card does not list",
    ]
    nothing_known = DatasetCard(name="toy", title="", classes=("a", "b"), protocols=())
    assert check_counts(nothing_known, other.manifest)["counts"] == "unknown"


def test_missing_store_tells_the_command(tmp_path):
    with pytest.raises(StoreError, match="fer-bench data prepare toy --from PATH"):
        Store.open(tmp_path / "toy")


@pytest.mark.parametrize("name", ["images.npy", "table.csv"])
def test_changed_byte_is_noticed_by_verify_whatever_is_known(tmp_path, name):
    store = write_store(tmp_path, CARD, reading())
    data = bytearray((store.path / name).read_bytes())
    data[-2] ^= 1
    (store.path / name).write_bytes(data)
    with pytest.raises(StoreError, match=f"{name} has changed"):
        store.verify()


@pytest.mark.parametrize("text", ["", "{", json.dumps({"format": 99, "sizes": {}}), "[]", '{"format": 1}'])
def test_unreadable_or_foreign_manifest_is_an_error(tmp_path, text):
    store = write_store(tmp_path, CARD, reading())
    (store.path / "manifest.json").write_text(text)
    with pytest.raises(StoreError):
        Store.open(store.path)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (some_images().astype(np.float32), LABELS),
        (some_images()[:, 0], LABELS),
        (some_images(4), LABELS),
        (some_images(0), []),
    ],
)
def test_chunks_that_do_not_fit_are_refused(tmp_path, images, labels):
    def chunks():
        yield Chunk(images=images, labels=np.asarray(labels), split=["x"] * len(labels), source=["s"] * len(labels))

    bad = Reading(layout="l", summary="", files=[], chunks=chunks if len(labels) else lambda: iter(()))
    old = write_store(tmp_path, CARD, reading())
    with pytest.raises(StoreError):
        write_store(tmp_path, CARD, bad)
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]
    Store.open(old.path).verify()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("step", ["_write_images", "write_text", "write_json", "_swap"])
def test_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch, code, step):
    old = write_store(tmp_path, CARD, reading())

    def full(*args, **kwargs):
        raise OSError(code, "no space")

    monkeypatch.setattr(f"fer_bench.data.store.{step}", full)
    with pytest.raises(FerBenchError, match="the disk is full"):
        write_store(tmp_path, CARD, reading(some_images(seed=1)))
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]
    Store.open(old.path).verify()
    assert Store.open(old.path).fingerprint == old.fingerprint


# -- the source files ------------------------------------------------------------------------------------------------

NAMES = ["a b.png", "line\nbreak.png", "für.png"]


@pytest.fixture
def listing(tmp_path):
    """A store of three source files."""
    files = [tmp_path / name for name in NAMES]
    return write_store(tmp_path / "data", CARD, replace(reading(), files=files))


def test_source_files_are_listed_beside_the_manifest(listing, tmp_path):
    assert "a b.png" not in (listing.path / "manifest.json").read_text()
    assert listing.manifest["sources"] == 3
    assert (listing.path / "sources.jsonl").read_text().count("\n") == 3
    own = [listing.path / "images.npy", listing.path / "table.csv"]
    assert Store.open(listing.path).guarded_files() == [*own, *(tmp_path / name for name in NAMES)]


@pytest.mark.parametrize("change", [lambda file: file.write_text('"/elsewhere"\n'), lambda file: file.unlink()])
def test_a_list_of_source_files_that_was_changed_is_refused(listing, change):
    change(listing.path / "sources.jsonl")
    with pytest.raises(ChangedStoreError, match="the list of source files is not the one that was written"):
        Store.open(listing.path).guarded_files()
    with pytest.raises((ChangedStoreError, FileNotFoundError)):
        listing.verify()


def test_a_store_of_format_1_which_lists_them_in_its_manifest_is_read(listing, tmp_path):
    (listing.path / "sources.jsonl").unlink()
    manifest = {**listing.manifest, "format": 1, "sources": ["/faces/1.png"]}
    for entry in ("sha256", "sizes"):
        manifest[entry] = {name: v for name, v in manifest[entry].items() if name != "sources.jsonl"}
    manifest["self"] = digest_of(manifest)
    (listing.path / "manifest.json").write_text(json.dumps(manifest))
    old = Store.open(listing.path)
    assert old.guarded_files()[2:] == [Path("/faces/1.png")]
    old.verify()
    assert np.array_equal(old.images(np.arange(5)), some_images())


def test_a_store_of_a_later_format_is_refused(listing):
    (listing.path / "manifest.json").write_text(json.dumps({**listing.manifest, "format": 3}))
    with pytest.raises(StoreError, match="unknown format") as error:
        Store.open(listing.path)
    assert error.value.hint == "expected 1 or 2"

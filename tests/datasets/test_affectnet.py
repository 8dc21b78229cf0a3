"""AffectNet: both layouts, what annotations may hold, and what is said of files that are wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets.affectnet import CLASSES, AffectNet, card
from fer_bench.record.home import Home

# split, image id and AffectNet's label, in the order of the store: ids count as numbers
FACES = [("train", 3, 7), ("train", 20, 0), ("train", 100, 1), ("train", 101, 4), ("val", 1, 2), ("val", 11, 6)]
FACES += [("val", 200, 5), ("val", 1000, 3)]


def pixels(number: int) -> np.ndarray:
    """A picture unlike any other's: 16x16 RGB."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :, 0] = np.arange(16)
    image[:, :, 1:] = number % 251, number // 251
    return image


EXPECTED = [(pixels(n).transpose(2, 0, 1).tobytes(), k, s) for s, n, k in FACES]


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number)).save(path, "PNG")  # lossless; readers go by content, not by suffix


def annotate(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, value)


def annotated(root: Path, kind: Callable = str) -> Path:
    for split, number, label in FACES:
        folder = root / f"{split}_set"
        save(folder / "images" / f"{number}.jpg", number)
        annotate(folder / "annotations" / f"{number}_exp.npy", kind(label))
        for other in ("aro", "val", "lnd"):
            annotate(folder / "annotations" / f"{number}_{other}.npy", 0.5)
    return root


def numbered(root: Path) -> Path:
    for split, number, label in FACES:
        save(root / split / str(label) / f"{number}.jpg", number)
    return root


def named(root: Path) -> Path:
    names = ("Neutral", "Happiness", "sadness", "surprised", "Fear", "disgust", "angry", "Contempt")
    for split, number, label in FACES:
        save(root / split / names[label] / f"{number}.jpg", number)
    return root


def prepared(source: Path, home: Path, dataset: AffectNet | None = None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or AffectNet(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int, str]]:
    table = store.columns("label", "split")
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), int(k), str(s)) for i, k, s in zip(images, table["label"], table["split"], strict=True)]


@pytest.mark.parametrize(("write", "layout"), [(annotated, "annotations"), (numbered, "folders"), (named, "folders")])
def test_every_layout_gives_the_same_store(tmp_path, write, layout):
    store, said = prepared(write(tmp_path / "raw" / "AffectNet"), tmp_path)
    plain, _ = prepared(annotated(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.fingerprint == plain.fingerprint
    assert store.classes == CLASSES
    assert f"recognised {layout}" in said
    assert "split by folder (train, val)" in said


@pytest.mark.parametrize("kind", [str, int, float, np.int64, lambda k: np.asarray([k]), lambda k: np.asarray([str(k)])])
def test_an_annotation_may_hold_a_text_or_a_number(tmp_path, kind):
    assert rows_of(prepared(annotated(tmp_path / "raw", kind), tmp_path)[0]) == EXPECTED


def test_a_test_folder_is_kept_and_said_to_be_outside_the_protocols(tmp_path):
    raw = numbered(tmp_path / "raw")
    save(raw / "test/0/5.jpg", 5)
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == [*EXPECTED, (pixels(5).transpose(2, 0, 1).tobytes(), 0, "test")]
    assert "the protocols leave the test folder out" in said
    assert all("test" not in (*p.train, *p.val, *p.test) for p in card.protocols)


def with_label(value):
    def write(root: Path) -> Path:
        annotate(annotated(root) / "train_set/annotations/20_exp.npy", value)
        return root

    return write


def changed(base: Callable[[Path], Path], change: Callable[[Path], object]):
    def write(root: Path) -> Path:
        change(base(root))
        return root

    return write


FILE = r"20_exp\.npy: "
MALFORMED = {
    "label 8": (with_label("8"), FILE + r"unknown expression: 8 \(none\), expected 0 neutral \.\. 7 contempt"),
    "label 10": (with_label(10), FILE + r"unknown expression: 10 \(no face\)"),
    "label -1": (with_label("-1"), FILE + "unknown expression: -1"),
    "fraction": (with_label(2.5), FILE + r"unknown expression: 2\.5"),
    "not a number": (with_label(float("nan")), FILE + "unknown expression: nan"),
    "word": (with_label("happy"), FILE + "unreadable annotation: could not convert"),
    "two numbers": (with_label([1, 2]), FILE + "unreadable annotation"),
    "pickle": (with_label({"label": 1}), FILE + "unreadable annotation"),
    "empty annotation": (
        changed(annotated, lambda root: (root / "train_set/annotations/20_exp.npy").write_bytes(b"")),
        FILE + "unreadable annotation",
    ),
    "archive for annotation": (
        changed(annotated, lambda root: (root / "train_set/annotations/20_exp.npy").write_bytes(b"PK\x03\x04")),
        FILE + "unreadable annotation",
    ),
    "damaged header": (
        changed(
            annotated,
            lambda root: (root / "train_set/annotations/20_exp.npy").write_bytes(b"\x93NUMPY\x01\x00\x02\x00{("),
        ),
        FILE + "unreadable annotation",
    ),
    "no annotation": (
        changed(annotated, lambda root: (root / "train_set/annotations/20_exp.npy").unlink()),
        r"20\.jpg: an image without its annotation 20_exp\.npy",
    ),
    "no image": (
        changed(annotated, lambda root: (root / "val_set/images/11.jpg").unlink()),
        r"11_exp\.npy: no image for it",
    ),
    "id twice": (
        changed(annotated, lambda root: save(root / "val_set/images/11.png", 7)),
        r"11\.png: an image that is there twice: 11\.png, also \S+11\.jpg",
    ),
    "id in two classes": (
        changed(numbered, lambda root: save(root / "val/0/11.jpg", 7)),
        r"val/6/11\.jpg: an image that is there twice",
    ),
    "unknown class": (
        changed(numbered, lambda root: save(root / "val/8/12.jpg", 12)),
        r"unknown class folder: '8', expected 0 \.\. 7 or neutral",
    ),
    "damaged image": (
        changed(annotated, lambda root: (root / "val_set/images/11.jpg").write_bytes(b"no image")),
        r"11\.jpg: unreadable image",
    ),
    "no annotations folder": (
        changed(
            annotated,
            lambda root: [(root / f"{s}_set/annotations").rename(root / f"{s}_set/x") for s in ("train", "val")],
        ),
        r"no known layout of affectnet[\s\S]*looked for:\s+annotations: train_set",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_nothing_is_written(tmp_path, case):
    write, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "raw"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".affectnet.lock"]


@pytest.mark.parametrize(
    ("case", "lost"), [("label 8", ("train", 20)), ("no annotation", ("train", 20)), ("damaged image", ("val", 11))]
)
def test_lenient_reading_leaves_faulty_rows_out(tmp_path, case, lost):
    dataset = AffectNet(lenient=True)
    store, _ = prepared(MALFORMED[case][0](tmp_path / "raw"), tmp_path, dataset)
    assert rows_of(store) == [e for e, (s, n, _) in zip(EXPECTED, FACES, strict=True) if (s, n) != lost]
    assert len(dataset.faults) == 1


def test_the_protocols_of_the_card():
    assert [p.name for p in card.protocols] == ["affectnet7", "affectnet8", "affectnet7_bestval"]
    seven, eight, best = card.protocols
    assert seven.classes == best.classes == tuple(c for c in CLASSES if c != "contempt")
    assert eight.classes == CLASSES
    assert (bool(seven.watermark), bool(best.watermark), best.val_is_test) == (False, True, True)
    assert card.full_name(seven) == "affectnet7"

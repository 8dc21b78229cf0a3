"""Names of class folders and numbers of classes: how people write them, and in which orders sets are handed on."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError, SpecError
from fer_bench.contract.plugins import plugins
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._shared.class_names import ClassNames, class_position, nearest_class, parts_of
from fer_bench.record.home import Home

SEVEN = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
ALPHABETICAL = "angry,disgust,fear,happy,neutral,sad,surprise"


def draw(path: Path, value: int, side: int = 48) -> None:
    """A grey image that tells its class: of one value but for a mark that tells its name."""
    pixels = np.full((side, side), value, np.uint8)
    pixels[0, :8] = [ord(c) for c in f"{path.stem[-8:]:>8}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def prepared(name: str, source: Path, home: Path, **params) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), plugins().dataset(name, params), source, say=said.append)
    return store, "\n".join(said)


def read(store: Store) -> set[tuple[int, str]]:
    """(grey value, class) of the images."""
    values = store.images(np.arange(len(store)))[:, 0, -1, -1].tolist()
    return {(v, store.classes[k]) for v, k in zip(values, store.columns("label")["label"], strict=True)}


def value(name: str) -> int:
    """The grey value that stands for a class, whatever it is called."""
    position = class_position(name, (*SEVEN, "contempt"))
    return 10 * (position + 1)


# -- one name --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("happy", ("happy", None, None)),
        ("0_angry", ("angry", 0, None)),
        ("1-happy", ("happy", 1, None)),
        ("03. Sad", ("sad", 3, None)),
        ("angry_0", ("angry", 0, None)),
        ("happy_train", ("happy", None, "train")),
        ("Training Happy", ("happy", None, "train")),
        ("valid-sad-2", ("sad", 2, "val")),
        ("test", ("test", None, None)),
        ("train_test", ("train test", None, None)),
        ("7", ("", 7, None)),
    ],
)
def test_a_name_is_taken_apart(name, parts):
    found = parts_of(name)
    assert (found.words, found.number, found.role) == parts


@pytest.mark.parametrize(
    ("name", "position"),
    [("Happy ", 3), ("joy", 3), ("0_angry", 0), ("6-neutral", 6), ("happy_train", 3), ("2_sad", 4), ("hapy", None)],
)
def test_a_class_is_known_by_its_name_whatever_stands_around_it(name, position):
    assert class_position(name, SEVEN) == position


@pytest.mark.parametrize(
    ("name", "near"), [("hapy", "happy"), ("suprise", "surprise"), ("3_hapiness", "happy"), ("xyz", None)]
)
def test_the_nearest_class_is_named_by_its_own_name(name, near):
    assert nearest_class(name, SEVEN) == near


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("angry,disgust,fear,happy,sad,surprise", "neutral missing"),
        ("angry,angry,disgust,fear,happy,sad,surprise,neutral", "angry named twice"),
        ("angry,disgust,fear,hapy,sad,surprise,neutral", r"'hapy' is not a class[\s\S]*did you mean 'happy'"),
        ("angry,disgust,fear,hope,sad,surprise,neutral,x", "'hope' is not a class"),
    ],
)
def test_an_order_that_does_not_name_each_class_once_is_refused(text, told):
    with pytest.raises(SpecError, match=told):
        ClassNames.of(SEVEN, {"classes": text})


def test_an_order_may_use_other_words_for_the_classes():
    names = ClassNames.of(SEVEN, {"classes": "neutral,Happiness,surprise,sadness,anger,disgust,fear"})
    assert names.numbered == ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear")
    assert [names.position(str(k)) for k in range(8)] == [6, 3, 5, 4, 0, 1, 2, None]


@pytest.mark.parametrize(("numbers", "first"), [("0123456", 0), ("1234567", 1), ("123456", 1), ("01234567", 1)])
def test_numbers_begin_at_0_or_1_whichever_fits(numbers, first):
    assert ClassNames.of(SEVEN, {}, first=1).counted_as(numbers).first == first


# -- numbered sources ------------------------------------------------------------------------------------------------


def fer2013_folders(root: Path, order: list[str]) -> Path:
    for k, name in enumerate(order):
        for row, (split, usage) in enumerate((("train", "Training"), ("test", "PublicTest"), ("test", "PrivateTest"))):
            draw(root / split / str(k) / f"{usage}_{28709 * (row > 0) + 10 * k + row}.png", value(name))
    return root


def fer2013_csv(root: Path, order: list[str]) -> Path:
    rows = [f"{k},{' '.join([str(value(name))] * 2304)},{u}" for k, name in enumerate(order)
            for u in ("Training", "PublicTest", "PrivateTest")]  # fmt: skip
    root.mkdir()
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    return root


def rafdb_folders(root: Path, order: list[str]) -> Path:
    for k, name in enumerate(order):
        draw(root / "train" / str(k + 1) / f"train_{k + 1:05}_aligned.jpg", value(name))
        draw(root / "test" / str(k + 1) / f"test_{k + 1:04}_aligned.jpg", value(name))
    return root


def rafdb_list(root: Path, order: list[str]) -> Path:
    rafdb_folders(root, order)
    lines = [f"{s}_{k + 1:0{n}}.jpg {k + 1}" for s, n in (("train", 5), ("test", 4)) for k in range(len(order))]
    (root / "list.txt").write_text("\n".join(lines))
    return root


def affectnet_folders(root: Path, order: list[str]) -> Path:
    for k, name in enumerate(order):
        for split in ("train", "val"):
            draw(root / split / str(k) / f"{k}.jpg", value(name))
    return root


def affectnet_annotations(root: Path, order: list[str]) -> Path:
    for k, name in enumerate(order):
        for split in ("train_set", "val_set"):
            draw(root / split / "images" / f"{k}.jpg", value(name))
            (root / split / "annotations").mkdir(exist_ok=True)
            np.save(root / split / "annotations" / f"{k}_exp.npy", str(k))
    return root


def expw_list(root: Path, order: list[str]) -> Path:
    for k, name in enumerate(order):
        draw(root / "origin" / f"{k}.jpg", value(name))
    (root / "label.lst").write_text("\n".join(f"{k}.jpg {k}" for k in range(len(order))))
    return root


def ckplus_original(root: Path, order: list[str]) -> Path:
    for k, name in enumerate(order):
        for frame in (1, 2, 3):
            draw(root / "images" / f"S{k:03}" / "001" / f"S{k:03}_001_{frame:08}.png", value(name))
        path = root / "Emotion" / f"S{k:03}" / "001" / f"S{k:03}_001_00000003_emotion.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"  {k}.0000000e+00\n")
    return root


def ferplus_lists(root: Path, order: list[str]) -> Path:
    for split in ("Train", "Valid", "Test"):
        rows = []
        for k, name in enumerate(order):
            draw(root / f"FER2013{split}" / f"fer{k:07}.png", value(name))
            votes = [10 if j == k else 0 for j in range(10)]
            rows.append(f'fer{k:07}.png,"(0, 0, 48, 48)",{",".join(map(str, votes))}')
        (root / f"FER2013{split}" / "label.csv").write_text("\n".join(rows))
    return root


EIGHT = f"{ALPHABETICAL},contempt"
NUMBERED = [
    ("fer2013", fer2013_folders, ALPHABETICAL),
    ("fer2013", fer2013_csv, ALPHABETICAL),
    ("rafdb", rafdb_folders, ALPHABETICAL),
    ("rafdb", rafdb_list, ALPHABETICAL),
    ("affectnet", affectnet_folders, EIGHT),
    ("affectnet", affectnet_annotations, EIGHT),
    ("expw", expw_list, ALPHABETICAL),
    ("ckplus", ckplus_original, EIGHT),
    ("ferplus", ferplus_lists, EIGHT),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write", "order"), NUMBERED, ids=[w.__name__ for _, w, _ in NUMBERED])
def test_numbers_in_another_order_are_read_as_the_parameter_says(tmp_path, name, write, order):
    names = order.split(",")
    raw = write(tmp_path / "raw", names)
    store, said = prepared(name, raw, tmp_path, classes=order)
    known = {(v, k) for v, k in read(store)}
    expected = {(value(n), store.classes[class_position(n, store.classes)]) for n in names if n != "neutral"}
    assert {pair for pair in known if pair[0] != value("neutral")} == expected
    first = 1 if name in ("rafdb", "ferplus") else 0
    assert f"{first} = {store.classes[class_position('angry', store.classes)]} (" in said
    assert store.manifest["label_names"][0][0] == str(first)
    assert read(prepared(name, raw, tmp_path / "officially")[0]) != known


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_numbered_folders_may_begin_at_0_or_1(tmp_path, first):
    for k in range(7):
        draw(tmp_path / "raw" / "train" / str(k + first) / f"train_{k:05}_aligned.jpg", k)
        draw(tmp_path / "raw" / "test" / str(k + first) / f"test_{k:04}_aligned.jpg", k)
    store, said = prepared("rafdb", tmp_path / "raw", tmp_path)
    assert read(store) == set(enumerate(store.classes))
    assert f"labels are read as {first} = surprise (2 images)" in said


@pytest.mark.slow
@pytest.mark.parametrize("form", ["{k}_{name}", "{name}-{k}", "{name}_{role}", "{role} {name}"])
def test_numbers_and_splits_in_the_names_of_class_folders_do_not_matter(tmp_path, form):
    for role, usage in (("train", "Training"), ("test", "PrivateTest")):
        for k, name in enumerate(SEVEN):
            folder = form.format(k=6 - k, name=name, role=role)  # the name decides, not the number
            draw(tmp_path / "raw" / role / folder / f"{usage}_{28709 * (role == 'test') + k}.png", value(name))
    store, _ = prepared("fer2013", tmp_path / "raw", tmp_path)
    assert read(store) == {(value(name), name) for name in SEVEN}


def test_a_class_folder_that_says_another_split_is_a_fault(tmp_path):
    fer2013_folders(tmp_path / "raw", list(SEVEN))
    draw(tmp_path / "raw" / "train" / "happy_test" / "Training_500.png", 1)
    with pytest.raises(DataError, match="the name 'happy_test' says test, but it lies in the train folder"):
        prepared("fer2013", tmp_path / "raw", tmp_path)


MISSPELT = {
    "fer2013": ("train/{}/Training_1.png", "test/{}/PrivateTest_32298.png"),
    "rafdb": ("train/{}/train_00001.jpg", "test/{}/test_0001.jpg"),
    "affectnet": ("train/{}/1.jpg", "val/{}/2.jpg"),
    "ckplus": ("{}/S010_004_00000017.png", "{}/S011_004_00000017.png"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_class_folder_is_named_with_its_nearest_class(tmp_path, name):
    right, wrong = MISSPELT[name]
    draw(tmp_path / "raw" / right.format("happy"), 1)
    draw(tmp_path / "raw" / wrong.format("suprise"), 2)
    with pytest.raises(DataError) as error:
        prepared(name, tmp_path / "raw", tmp_path)
    assert re.search(r"suprise[\s\S]*did you mean 'surprise'\? \(rename the folder\)", str(error.value))

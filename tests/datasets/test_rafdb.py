"""RAF-DB: every layout in which people hold it, and what is said of files that are wrong."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets import rafdb
from fer_bench.datasets.rafdb import RafDb, card
from fer_bench.record.home import Home

# split, number and RAF-DB's label 1 .. 7, in the order of the store
FACES = [("train", n, k) for n, k in enumerate((5, 1, 7, 4, 2, 3, 6, 4, 1), 1)]
FACES += [("test", n, k) for n, k in enumerate((4, 7, 2, 1, 5, 3, 6), 1)]
COUNTS = {"train": (2, 1, 1, 2, 1, 1, 1), "test": (1, 1, 1, 1, 1, 1, 1)}
FOLDERS = ("Surprise", "fear", "Disgusted", "happiness", "sadness", "angry", "neutral")


class Tiny(RafDb):
    """The dataset under test, expecting 16 images."""

    card = dataclasses.replace(card, counts=COUNTS)


def pixels(split: str, number: int) -> np.ndarray:
    """The picture of a face: 100x100 RGB, unlike any other's, and smooth so that it is quick to write."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, :, 0] = np.arange(100)
    image[:, :, 1] = number
    image[:, :, 2] = 200 if split == "test" else 0
    return image


EXPECTED = [(pixels(s, n).transpose(2, 0, 1).tobytes(), k - 1, s) for s, n, k in FACES]


def stem(split: str, number: int, suffix: str = "_aligned") -> str:
    return f"{split}_{number:0{5 if split == 'train' else 4}}{suffix}"


def save(path: Path, split: str, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(split, number)).save(path, "PNG")  # lossless; readers go by content, not by suffix


def write_faces(root: Path, place: Callable[[str, int, int], str]) -> Path:
    for split, number, label in FACES:
        save(root / place(split, number, label), split, number)
    return root


def write_list(path: Path, *, shuffle: bool = True) -> Path:
    """RAF-DB's own list: train mixed, the last line without an end."""
    lines = [f"{stem(s, n, '')}.jpg {k}" for s, n, k in FACES]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines[::-1] if shuffle else lines))
    return path


def write_csvs(folder: Path, header: str = "image,label", suffix: str = "_aligned") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        lines = [f"{stem(s, n, suffix)}.jpg,{k}" for s, n, k in FACES if s == split]
        (folder / f"{split}_labels.csv").write_text("\n".join([header, *lines]) + "\n")


def original(root: Path) -> Path:
    write_list(root / "EmoLabel" / "list_patition_label.txt")
    return write_faces(root, lambda s, n, k: f"Image/aligned/{stem(s, n)}.jpg")


def beside(root: Path) -> Path:
    write_list(root / "labels.txt")
    return write_faces(root, lambda s, n, k: f"{stem(s, n)}.jpg")


def kaggle(root: Path, header: str = "image,label") -> Path:
    write_csvs(root, header)
    return write_faces(root, lambda s, n, k: f"DATASET/{s}/{k}/{stem(s, n)}.jpg")


def flat(root: Path) -> Path:
    write_csvs(root)
    return write_faces(root, lambda s, n, k: f"aligned/{s}/{s}_images/{stem(s, n)}.jpg")


def flat_list_inside(root: Path) -> Path:
    for split in ("train", "test"):
        lines = [f"{stem(s, n)}.jpg {k}" for s, n, k in FACES if s == split]
        (root / split).mkdir(parents=True)
        (root / split / "list.txt").write_text("\n".join(lines))
    return write_faces(root, lambda s, n, k: f"{s}/images/{stem(s, n)}.jpg")


def apvit(root: Path) -> Path:
    write_list(root / "list_patition_label.txt")
    return write_faces(root, lambda s, n, k: f"{'train' if s == 'train' else 'valid'}/{stem(s, n)}.jpg")


def apvit_classes(root: Path) -> Path:
    return write_faces(root, lambda s, n, k: f"{'train' if s == 'train' else 'valid'}/{k}/{stem(s, n)}.jpg")


def named(root: Path, test: str = "test", suffix: str = "_aligned") -> Path:
    return write_faces(root, lambda s, n, k: f"{s if s == 'train' else test}/{FOLDERS[k - 1]}/{stem(s, n, suffix)}.jpg")


def numbered(root: Path) -> Path:
    return write_faces(root, lambda s, n, k: f"{s}/{k}/{stem(s, n)}.jpg")


def prepared(source: Path, home: Path, dataset: RafDb | None = None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or Tiny(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int, str]]:
    table = store.columns("label", "split")
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), int(k), str(s)) for i, k, s in zip(images, table["label"], table["split"], strict=True)]


LAYOUTS = [
    (original, "original", "split by file name"),
    (beside, "original", "labels from labels.txt"),
    (kaggle, "kaggle", "labels from test_labels.csv, train_labels.csv"),
    (flat, "flat", "split by file name"),
    (flat_list_inside, "flat", "labels from test/list.txt, train/list.txt"),
    (apvit, "apvit", "the 7 images in the VALIDATION folder are RAF-DB's TEST"),
    (apvit_classes, "apvit", "the 7 images in the VALIDATION folder are RAF-DB's TEST"),
    (named, "folders", "no label list to check them against"),
    (numbered, "folders", "split by file name"),
]


@pytest.mark.parametrize(("write", "layout", "told"), LAYOUTS, ids=[w.__name__ for w, _, _ in LAYOUTS])
def test_every_layout_gives_the_same_store(tmp_path, write, layout, told):
    store, said = prepared(write(tmp_path / "raw"), tmp_path)
    plain, _ = prepared(original(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.fingerprint == plain.fingerprint
    assert store.manifest["layout"] == layout
    assert store.shape == (3, 100, 100)
    assert told in said
    assert "; aligned" in said
    assert "match its card" in said


def test_the_source_column_has_the_official_names(tmp_path):
    store, _ = prepared(kaggle(tmp_path / "raw"), tmp_path)
    names = store.columns("source")["source"].tolist()
    assert names == [f"{stem(s, n, '')}.jpg" for s, n, _ in FACES]


def test_the_source_may_lie_two_folders_above(tmp_path):
    original(tmp_path / "raw" / "RAF-DB" / "basic")
    assert rows_of(prepared(tmp_path / "raw", tmp_path)[0]) == EXPECTED


@pytest.mark.parametrize("header", ["Image,Label", "IMAGE, LABEL", '"image","label"'])
def test_csv_headers_may_be_written_otherwise(tmp_path, header):
    assert rows_of(prepared(kaggle(tmp_path / "raw", header), tmp_path)[0]) == EXPECTED


@pytest.mark.parametrize("change", [lambda t: "\n" + t.replace("\n", "\r\n") + "\r\n\r\n", lambda t: "\ufeff" + t])
def test_line_ends_blank_lines_and_marks_do_not_matter(tmp_path, change):
    raw = original(tmp_path / "raw")
    path = raw / "EmoLabel" / "list_patition_label.txt"
    path.write_bytes(change(path.read_text()).encode())
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


def test_originals_beside_the_aligned_images_are_left_unread(tmp_path):
    raw = original(tmp_path / "raw")
    for split, number, _ in FACES:
        path = raw / "Image" / "original" / f"{stem(split, number, '')}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(path, "PNG")
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert "16 originals of aligned images left unread" in said


def test_images_of_another_alignment_are_said_to_be_so(tmp_path):
    write_list(tmp_path / "raw" / "list.txt")
    for split, number, _ in FACES:
        Image.fromarray(pixels(split, number)).resize((112, 112)).save(
            tmp_path / "raw" / f"{stem(split, number, '')}.png"
        )
    store, said = prepared(tmp_path / "raw", tmp_path)
    assert "NOT ALIGNED" in said
    assert "results do not compare" in said
    assert store.shape == (3, 100, 100)
    assert [row[1:] for row in rows_of(store)] == [row[1:] for row in EXPECTED]


def test_the_name_decides_where_the_folder_says_another_split(tmp_path):
    raw = named(tmp_path / "raw")
    (raw / "test/sadness/train_00001_aligned.jpg").write_bytes(
        (raw / "train/sadness/train_00001_aligned.jpg").read_bytes()
    )
    (raw / "train/sadness/train_00001_aligned.jpg").unlink()
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert "1 images named train_ lie in the test folder: the name decides" in said


@pytest.mark.parametrize("folder", ["test", "valid"])
def test_other_names_are_split_by_folder_and_ordered_by_class(tmp_path, folder):
    raw = write_faces(tmp_path / "raw", lambda s, n, k: f"{s if s == 'train' else folder}/{FOLDERS[k - 1]}/face{n}.jpg")
    store, said = prepared(raw, tmp_path)
    by_class = sorted(FACES, key=lambda f: (f[0] != "train", f[2], f[1]))
    assert rows_of(store) == [(pixels(s, n).transpose(2, 0, 1).tobytes(), k - 1, s) for s, n, k in by_class]
    assert "split by folder" in said
    assert ("RAF-DB's TEST" in said) == (folder == "valid")


def test_other_names_in_validation_and_test_can_not_be_told_apart(tmp_path):
    raw = write_faces(tmp_path / "raw", lambda s, n, k: f"{s}/{k}/face{n}.jpg")
    save(raw / "valid/1/face90.jpg", "train", 90)
    with pytest.raises(DataError, match=r"can't be told whether the validation folder[\s\S]*face\d+\.jpg and 16 more"):
        prepared(raw, tmp_path)


def test_the_official_list_is_known_by_its_hash(tmp_path, monkeypatch):
    raw = original(tmp_path / "raw")
    assert "the official list" not in prepared(raw, tmp_path)[1]
    # SHA-256 of the list that this test writes, computed with sha256sum
    monkeypatch.setattr(rafdb, "OFFICIAL_LIST", "35cc363d73455bc1c46070bd5ebcb10e5f76407e5619cea3489038df397aceef")
    assert "(the official list)" in prepared(raw, tmp_path / "other")[1]
    assert card.counts["train"] == (1290, 281, 717, 4772, 1982, 705, 2524)
    assert (sum(card.counts["train"]), sum(card.counts["test"])) == (12271, 3068)


def test_counts_that_differ_from_the_card_warn(tmp_path):
    store, said = prepared(original(tmp_path / "raw"), tmp_path, RafDb())
    assert "WARNING: the image counts differ from its card" in said
    assert "train/surprise: 2, expected 1290" in said
    assert store.manifest["checks"]["counts"] == "differ"


def line(old: str, new: str):
    """Change one row of the original list."""

    def write(root: Path) -> Path:
        path = original(root) / "EmoLabel" / "list_patition_label.txt"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return root

    return write


def with_file(base: Callable[[Path], Path], name: str, data: bytes | None):
    """Write a file into a sound tree, or remove it."""

    def write(root: Path) -> Path:
        path = base(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink() if data is None else path.write_bytes(data)
        return root

    return write


def copied(base: Callable[[Path], Path], old: str, new: str):
    def write(root: Path) -> Path:
        (base(root) / new).parent.mkdir(parents=True, exist_ok=True)
        (root / new).write_bytes((root / old).read_bytes())
        return root

    return write


def moved(old: str, new: str):
    """Put a file of the kaggle tree elsewhere."""

    def write(root: Path) -> Path:
        (kaggle(root) / old).rename(root / new)
        return root

    return write


def cut(root: Path) -> Path:
    path = original(root) / "Image/aligned/test_0002_aligned.jpg"
    path.write_bytes(path.read_bytes()[:120])
    return root


LIST = r"list_patition_label\.txt, row \d+"
MALFORMED = {
    "label 8": (line("train_00001.jpg 5", "train_00001.jpg 8"), rf"{LIST}: unknown label: '8', expected 1 \.\. 7"),
    "label 0": (line("train_00001.jpg 5", "train_00001.jpg 0"), rf"{LIST}: unknown label: '0'"),
    "label word": (line("train_00001.jpg 5", "train_00001.jpg sad"), rf"{LIST}: unknown label: 'sad'"),
    "three columns": (line("train_00001.jpg 5", "train_00001.jpg 5 9"), rf"{LIST}: wrong number of columns: 3"),
    "one column": (line("train_00001.jpg 5", "train_00001.jpg"), rf"{LIST}: wrong number of columns: 1"),
    "other name": (line("train_00001.jpg 5", "face1.jpg 5"), rf"{LIST}: not a RAF-DB name: 'face1\.jpg'"),
    "row twice": (line("train_00002.jpg 1", "train_00001.jpg 5"), rf"{LIST}: an image listed twice: train_00001\.jpg"),
    "row without image": (line("train_00001.jpg 5", "train_00099.jpg 5"), rf"{LIST}: no image for train_00099\.jpg"),
    "image without row": (
        line("\ntrain_00001.jpg 5", ""),
        r"train_00001_aligned\.jpg: an image in no row of the label",
    ),
    "missing image": (
        with_file(original, "Image/aligned/test_0002_aligned.jpg", None),
        rf"{LIST}: no image for test_0002\.jpg",
    ),
    "stray image": (with_file(original, "Image/aligned/x.jpg", b"x"), r"x\.jpg: an image in no row of the label list"),
    "no image": (
        with_file(original, "Image/aligned/test_0002_aligned.jpg", b"no image"),
        r"test_0002_aligned\.jpg: unreadable image",
    ),
    "cut image": (cut, r"test_0002_aligned\.jpg: unreadable image"),
    "image twice": (
        copied(original, "Image/aligned/test_0002_aligned.jpg", "Image/aligned/more/test_0002_aligned.jpg"),
        r"an image that is there twice: test_0002_aligned\.jpg",
    ),
    "wrong class folder": (
        moved("DATASET/test/4/test_0001_aligned.jpg", "DATASET/test/5/test_0001_aligned.jpg"),
        r"test/5/test_0001_aligned\.jpg: its folder is class 5, but 4 in \S+test_labels\.csv, row 2",
    ),
    "lists against each other": (
        with_file(kaggle, "list.txt", b"test_0001.jpg 6"),
        r"two labels for test_0001\.jpg: 4, but 6 in \S+list\.txt, row 1",
    ),
    "unknown class folder": (
        copied(numbered, "test/4/test_0001_aligned.jpg", "test/0/test_0009_aligned.jpg"),
        r"test/0: unknown class folder: '0', expected 1 \.\. 7 or surprise",
    ),
    "image in two class folders": (
        copied(named, "test/happiness/test_0001_aligned.jpg", "test/sadness/test_0001_aligned.jpg"),
        r"an image that is there twice: test_0001_aligned\.jpg",
    ),
    "list without images": (
        lambda root: write_list(root / "EmoLabel" / "list_patition_label.txt") and root,
        r"no known layout[\s\S]*list_patition_label\.txt, but no images below",
    ),
    "classes without a split": (
        lambda root: write_faces(root, lambda s, n, k: f"{FOLDERS[k - 1]}/{s}{n}.jpg"),
        r"no known layout[\s\S]*no split folders and no names train_\*, test_\*",
    ),
    "other images": (with_file(lambda root: root, "photos/a.jpg", b"x"), r"no known layout of rafdb[\s\S]*looked for:"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_nothing_is_written(tmp_path, case):
    write, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "raw"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".rafdb.lock"]


def test_all_problems_are_told_at_once(tmp_path):
    raw = line("train_00001.jpg 5", "train_00001.jpg 9")(tmp_path / "raw")
    (raw / "Image/aligned/test_0002_aligned.jpg").unlink()
    (raw / "Image/aligned/test_0003_aligned.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="3 problems") as error:
        prepared(raw, tmp_path)
    told = str(error.value)
    assert all(w in told for w in ("unknown label: '9'", "no image for test_0002", "test_0003_aligned.jpg: unreadable"))


@pytest.mark.parametrize(
    ("case", "lost"),
    [
        ("label 8", [("train", 1)]),
        ("row twice", [("train", 1), ("train", 2)]),
        ("lists against each other", [("test", 1)]),
        ("wrong class folder", [("test", 1)]),
        ("image twice", []),
        ("cut image", [("test", 2)]),
    ],
)
def test_lenient_reading_leaves_faulty_rows_out(tmp_path, case, lost):
    dataset = Tiny(lenient=True)
    store, _ = prepared(MALFORMED[case][0](tmp_path / "raw"), tmp_path, dataset)
    kept = [e for e, (s, n, _) in zip(EXPECTED, FACES, strict=True) if (s, n) not in lost]
    assert rows_of(store) == kept
    assert len(dataset.faults) >= 1


def test_class_folders_may_lie_without_split_folders_where_names_tell(tmp_path):
    raw = write_faces(tmp_path / "raw", lambda s, n, k: f"{FOLDERS[k - 1]}/{stem(s, n)}.jpg")
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert "split by file name" in said


def test_the_protocols_of_the_card():
    honest, paper = card.protocols
    assert (honest.name, honest.holdout, honest.watermark) == ("holdout10", 0.1, "")
    assert (paper.name, paper.val_is_test, paper.select) == ("paper_besttest", True, "accuracy")
    assert "test set" in paper.watermark

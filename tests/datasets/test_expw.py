"""ExpW: faces cut out of photos by the boxes of a list, the list without boxes, and what is said of wrong rows."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets.expw import ExpW, card
from fer_bench.record.home import Home

PHOTOS = {"angry_man_9.jpg": 1, "angry_man_10.jpg": 2, "joy_1.jpg": 3}
# photo, face, top, left, right, bottom, confidence, label: as in the original, top comes before left
LINES = [
    "joy_1.jpg 0 4 10 26 20 97.5 3",
    "angry_man_10.jpg 1 0 24 40 16 61.2 6",
    "angry_man_10.jpg 0 8 0 16 24 88.0 0",
    "angry_man_9.jpg 0 14 24 40 30 12.25 5",
]
# name, photo, label, rows and columns of its pixels; in the order of the store
EXPECTED = [
    ("angry_man_9.jpg#0", "angry_man_9.jpg", 5, slice(14, 30), slice(24, 40)),
    ("angry_man_10.jpg#0", "angry_man_10.jpg", 0, slice(8, 24), slice(0, 16)),
    ("angry_man_10.jpg#1", "angry_man_10.jpg", 6, slice(0, 16), slice(24, 40)),
    ("joy_1.jpg#0", "joy_1.jpg", 3, slice(4, 20), slice(10, 26)),
]


def photo(number: int) -> np.ndarray:
    """Height 30, width 40: a pixel tells its row, its column and its photo."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, :, 0] = np.arange(30)[:, None]
    image[:, :, 1] = np.arange(40)
    image[:, :, 2] = number
    return image


def write(root: Path, lines: list[str] = LINES, *, table: str = "label.lst", photos: str = "origin") -> Path:
    (root / photos).mkdir(parents=True)
    for name, number in PHOTOS.items():
        Image.fromarray(photo(number)).save(root / photos / name, "PNG")  # lossless; readers go by content
    (root / table).parent.mkdir(exist_ok=True)
    (root / table).write_text("\n".join(lines) + "\n")
    return root


def prepared(source: Path, home: Path, dataset: ExpW | None = None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or ExpW(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[str, str, int, bytes]]:
    table = store.columns("source", "photo", "label")
    images = store.images(np.arange(len(store)))
    columns = (table["source"].tolist(), table["photo"].tolist(), table["label"].tolist())
    return [(s, p, k, i.tobytes()) for s, p, k, i in zip(*columns, images, strict=True)]


CUT = [(n, p, k, photo(PHOTOS[p])[r, c].transpose(2, 0, 1).tobytes()) for n, p, k, r, c in EXPECTED]


@pytest.mark.parametrize(
    ("table", "photos"),
    [
        ("label.lst", "origin"),
        ("label.lst", "."),
        ("label/label.lst", "image/origin"),
        ("label.lst", "images"),
        ("list.txt", "image"),
    ],
)
def test_faces_are_cut_out_wherever_list_and_photos_lie(tmp_path, table, photos):
    store, said = prepared(write(tmp_path / "raw" / "ExpW", table=table, photos=photos), tmp_path)
    assert rows_of(store) == CUT
    assert store.shape == (3, 16, 16)
    assert set(store.columns("split")["split"].tolist()) == {"all"}
    assert "recognised boxes" in said
    assert "faces cut out by their boxes" in said


def test_whole_photos_are_kept_on_request(tmp_path):
    store, said = prepared(write(tmp_path / "raw"), tmp_path, ExpW({"crop": False}))
    square = np.asarray(Image.fromarray(photo(1)).resize((40, 40), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    assert [row[:3] for row in rows_of(store)] == [row[:3] for row in CUT]
    assert np.array_equal(store.images(np.array([0]))[0], square)
    assert "whole images" in said


def test_a_list_without_boxes_is_a_table_of_images(tmp_path):
    lines = ["joy_1.jpg 3", "angry_man_10.jpg 0", "angry_man_9.jpg 5"]
    store, said = prepared(write(tmp_path / "raw", lines), tmp_path)
    assert [row[:3] for row in rows_of(store)] == [
        ("angry_man_9.jpg", "angry_man_9.jpg", 5),
        ("angry_man_10.jpg", "angry_man_10.jpg", 0),
        ("joy_1.jpg", "joy_1.jpg", 3),
    ]
    assert "recognised names" in said


def test_both_layouts_of_the_same_faces_give_the_same_store(tmp_path):
    boxes, _ = prepared(write(tmp_path / "raw"), tmp_path)
    cut = tmp_path / "cut"
    cut.mkdir()
    for name, _, _, rows, columns in EXPECTED:
        stem, face = name.split(".jpg#")
        number = PHOTOS[f"{stem}.jpg"]
        Image.fromarray(photo(number)[rows, columns]).save(cut / f"{stem}_{face}.png")
    (cut / "label.lst").write_text("\n".join(f"{n.replace('.jpg#', '_')}.png {k}" for n, _, k, _, _ in EXPECTED))
    names, _ = prepared(cut, tmp_path / "other")
    assert names.fingerprint == boxes.fingerprint


def test_photos_in_no_row_and_repeated_rows_are_said(tmp_path):
    raw = write(tmp_path / "raw", [*LINES, LINES[0], "", LINES[1]])
    Image.fromarray(photo(9)).save(raw / "origin" / "spare.jpg", "PNG")
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == CUT
    assert "1 images in no row left unread" in said
    assert "2 rows that repeat another word for word read once" in said


def replaced(row: int, line: str):
    return lambda root: write(root, [*LINES[:row], line, *LINES[row + 1 :]])


def damaged(root: Path) -> Path:
    path = write(root) / "origin/joy_1.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return root


def without_photos(root: Path) -> Path:
    root.mkdir()
    (root / "label.lst").write_text("\n".join(LINES))
    return root


MALFORMED = {
    "label 7": (
        replaced(1, LINES[1][:-1] + "7"),
        r"label\.lst, row 2: unknown label: '7', expected 0 angry \.\. 6 neu",
    ),
    "label -1": (replaced(1, LINES[1][:-1] + "-1"), r"row 2: unknown label: '-1'"),
    "label word": (replaced(1, LINES[1][:-1] + "sad"), r"row 2: unknown label: 'sad'"),
    "missing column": (replaced(2, "angry_man_10.jpg 0 8 0 16 24 0"), r"row 3: wrong number of columns: 7, expected 8"),
    "two columns among eight": (replaced(3, "angry_man_9.jpg 5"), r"row 4: wrong number of columns: 2"),
    "missing photo": (replaced(0, LINES[0].replace("joy_1", "joy_2")), r"row 1: no image for it: 'joy_2\.jpg'"),
    "fraction in box": (replaced(0, LINES[0].replace(" 26 ", " 2.6 ")), r"row 1: a face number or box is no integer"),
    "box outside": (
        replaced(0, LINES[0].replace(" 26 ", " 41 ")),
        r"joy_1\.jpg: the face box \(10, 4, 41, 20\) lies out",
    ),
    "box below zero": (replaced(0, LINES[0].replace(" 4 ", " -4 ")), r"joy_1\.jpg: the face box \(10, -4, 26, 20\)"),
    "empty box": (replaced(0, LINES[0].replace(" 26 ", " 10 ")), r"joy_1\.jpg: the face box \(10, 4, 10, 20\)"),
    "face twice": (
        replaced(1, LINES[2].replace("88.0 0", "88.0 1")),
        r"row 3: a face listed twice: angry_man_10\.jpg#0, also in row 2",
    ),
    "damaged photo": (damaged, r"joy_1\.jpg: unreadable image"),
    "no photos": (without_photos, r"no known layout of expw[\s\S]*label\.lst, but no photos in"),
    "another list": (
        lambda root: write(root, ["a b c"]),
        r"no known layout of expw[\s\S]*looked for:\s+boxes: label\.lst",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_nothing_is_written(tmp_path, case):
    make, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(make(tmp_path / "raw"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".expw.lock"]


@pytest.mark.parametrize(
    ("case", "lost"),
    [("label 7", "angry_man_10.jpg#1"), ("box outside", "joy_1.jpg#0"), ("damaged photo", "joy_1.jpg#0")],
)
def test_lenient_reading_leaves_faulty_rows_out(tmp_path, case, lost):
    dataset = ExpW(lenient=True)
    store, _ = prepared(MALFORMED[case][0](tmp_path / "raw"), tmp_path, dataset)
    assert rows_of(store) == [row for row in CUT if row[0] != lost]
    assert len(dataset.faults) == 1


def test_two_lists_are_both_named(tmp_path):
    raw = write(tmp_path / "raw")
    (raw / "more.lst").write_text("\n".join(LINES[:2]))
    with pytest.raises(DataError, match=r"2 layouts fit[\s\S]*label\.lst[\s\S]*more\.lst"):
        prepared(raw, tmp_path)


def test_the_protocol_keeps_the_faces_of_a_photo_together():
    assert [(p.name, p.group, p.shares) for p in card.protocols] == [("photo60-20-20", "photo", (0.6, 0.2, 0.2))]

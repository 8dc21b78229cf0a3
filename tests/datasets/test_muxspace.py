"""muxspace: a list of images with labels in any case, doubled rows, and files that are wrong."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets import muxspace
from fer_bench.datasets.muxspace import Muxspace
from fer_bench.record.home import Home

CLASSES = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
# user, image, emotion as the list has it; in no order
ROWS = [
    ("628", "Zoe_Example_0001.jpg", "neutral"),
    ("628", "Ada_Example_0002.jpg", "HAPPINESS"),
    ("302", "Ada_Example_0001.jpg", "Neutral"),
    ("302", "Bo_0001.jpg", "surprise"),
    ("jd", "CamExample_17.jpg", "disgust"),
    ("jd", "CamExample_2.jpg", "ANGER"),
    ("jd", "portrait-8588k.jpg", "fear"),
    ("jd", "Dee_Example_0001.jpg", "contempt"),
    ("jd", "Eve_Example_0001.jpg", "sadness"),
]
IN_ORDER = sorted(ROWS, key=lambda row: row[1])
SIDE = 24


def face(name: str) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


EXPECTED = [(face(image).tobytes(), CLASSES.index(emotion.lower())) for _, image, emotion in IN_ORDER]


def save(path: Path, image: np.ndarray) -> None:
    """A PNG under the list's .jpg names, so that pixels can be compared; the reader goes by content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "PNG")


def write_list(path: Path, rows=ROWS, header="user.id,image,emotion") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(row) for row in rows), ""]))


def write_clone(folder: Path, rows=ROWS, listed="data/legend.csv", images="images") -> Path:
    write_list(folder / listed, rows)
    for _, image, _ in ROWS:
        save(folder / images / image, face(image))
    return folder


def write_beside(folder: Path) -> Path:
    return write_clone(folder, listed="legend.csv")


def write_flat(folder: Path) -> Path:
    return write_clone(folder, listed="all/list.csv", images="all")


def prepared(source: Path, home: Path, dataset=None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or Muxspace(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int]]:
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), k) for i, k in zip(images, store.columns("label")["label"].tolist(), strict=True)]


@pytest.mark.parametrize("write", [write_clone, write_beside, write_flat])
def test_the_images_may_lie_in_any_of_three_places(tmp_path, write):
    store, said = prepared(write(tmp_path / "raw"), tmp_path)
    plain, _ = prepared(write_clone(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.fingerprint == plain.fingerprint
    assert store.manifest["layout"] == "list"
    assert store.manifest["counts"] == {"all": [1, 1, 1, 1, 1, 2, 1, 1]}
    assert f"recognised list: {tmp_path}" in said


def test_the_list_itself_may_be_the_source(tmp_path):
    raw = write_clone(tmp_path / "raw")
    assert rows_of(prepared(raw / "data" / "legend.csv", tmp_path)[0]) == EXPECTED


def test_order_of_rows_and_columns_and_quotes_do_not_matter(tmp_path):
    raw = write_clone(tmp_path / "raw")
    rows = [(f" {emotion}", f'"{image}"', user) for user, image, emotion in reversed(ROWS)]
    write_list(raw / "data" / "legend.csv", rows, '\ufeff"Emotion", image,user.id')
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


def test_users_and_the_names_of_people_are_kept(tmp_path):
    store, said = prepared(write_clone(tmp_path / "raw"), tmp_path)
    table = store.columns("source", "subject", "user")
    assert table["source"].tolist() == [image for _, image, _ in IN_ORDER]
    assert table["user"].tolist() == [user for user, _, _ in IN_ORDER]
    assert dict(zip(table["source"].tolist(), table["subject"].tolist(), strict=True)) == {
        "Ada_Example_0001.jpg": "Ada_Example",
        "Ada_Example_0002.jpg": "Ada_Example",
        "Bo_0001.jpg": "Bo",
        "CamExample_17.jpg": "CamExample",
        "CamExample_2.jpg": "CamExample",
        "Dee_Example_0001.jpg": "Dee_Example",
        "Eve_Example_0001.jpg": "Eve_Example",
        "Zoe_Example_0001.jpg": "Zoe_Example",
        "portrait-8588k.jpg": "portrait-8588k",
    }
    assert "7 different names in the file names" in said


def test_other_words_for_the_classes_are_known(tmp_path):
    words = {"ANGER": "angry", "HAPPINESS": "happy", "fear": "fearful", "sadness": "sad", "disgust": "Disgusted"}
    rows = [(user, image, words.get(emotion, emotion)) for user, image, emotion in ROWS]
    assert rows_of(prepared(write_clone(tmp_path / "raw", rows), tmp_path)[0]) == EXPECTED


def test_doubled_rows_of_one_label_give_one_image(tmp_path):
    raw = write_clone(tmp_path / "raw", [*ROWS, ("999", "Bo_0001.jpg", "SURPRISE")])
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert "999" not in store.columns("user")["user"].tolist()
    assert "1 images have several rows;" in said


CONFLICT = [*ROWS, ("999", "Bo_0001.jpg", "anger")]


def test_images_of_conflicting_labels_are_left_out(tmp_path):
    store, said = prepared(write_clone(tmp_path / "raw", CONFLICT), tmp_path)
    assert rows_of(store) == [
        row for row, (_, name, _) in zip(EXPECTED, IN_ORDER, strict=True) if name != "Bo_0001.jpg"
    ]
    assert "1 images have several rows, 1 with different labels (left out)" in said
    assert "image files without a row" not in said


def test_conflicting_labels_may_be_kept(tmp_path):
    store, said = prepared(write_clone(tmp_path / "raw", CONFLICT), tmp_path, Muxspace({"conflicts": "keep"}))
    table = store.columns("source", "label", "user", "duplicate")
    kept = [k for k, name in enumerate(table["source"].tolist()) if name.startswith("Bo_0001")]
    assert [table["source"][k] for k in kept] == ["Bo_0001.jpg", "Bo_0001.jpg#2"]
    assert [CLASSES[table["label"][k]] for k in kept] == ["anger", "surprise"]
    assert [table["user"][k] for k in kept] == ["999", "302"]
    assert table["duplicate"][kept[0]] == table["duplicate"][kept[1]]
    assert "(each label kept)" in said


def test_files_without_a_row_are_counted_and_left_out(tmp_path):
    store, said = prepared(write_clone(tmp_path / "raw", ROWS[1:]), tmp_path)
    assert len(store) == len(ROWS) - 1
    assert "1 image files without a row are left out" in said


def test_rows_by_class_are_compared_with_the_published_ones(tmp_path, monkeypatch):
    raw = write_clone(tmp_path / "raw")
    assert "NOT the published rows: anger 1 (published 252), contempt 1 (published 9), " in prepared(raw, tmp_path)[1]
    monkeypatch.setattr(muxspace, "PUBLISHED", (1, 1, 1, 1, 1, 2, 1, 1))
    assert "the rows of every class are the published ones" in prepared(raw, tmp_path / "b")[1]


def test_published_rows_are_the_known_number():
    assert sum(muxspace.PUBLISHED) == 13690


def test_other_lists_beside_the_legend_are_left_unread_and_named(tmp_path):
    raw = write_clone(tmp_path / "raw")
    write_list(raw / "data" / "legend_2.csv", ROWS[:1])
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert "legend_2.csv beside it left unread" in said


def test_colour_and_other_sizes_are_brought_together(tmp_path):
    raw = write_clone(tmp_path / "raw")
    save(raw / "images" / "Bo_0001.jpg", np.full((40, 30, 3), (9, 90, 200), dtype=np.uint8))
    store, said = prepared(raw, tmp_path, Muxspace({"size": 32}))
    assert store.shape == (3, 32, 32)
    assert (store.images(np.asarray([2]))[0] == np.reshape((9, 90, 200), (3, 1, 1))).all()
    assert "24x24 to 30x40 are brought to 32x32 (stretch)" in said


def deep() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(face("x").astype(np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def more(*rows: tuple[str, ...]):
    return lambda folder: write_clone(folder, [*ROWS, *rows])


def put(name: str, data: bytes):
    def changed(folder: Path) -> Path:
        (write_clone(folder) / name).write_bytes(data)
        return folder

    return changed


def headed(header: str):
    def changed(folder: Path) -> Path:
        write_list(write_clone(folder) / "data" / "legend.csv", header=header)
        return folder

    return changed


MALFORMED = {
    "unknown emotion": (
        more(("1", "Bo_0001.jpg", "love")),
        r"legend\.csv, row 11: unknown emotion: 'love', expected anger",
    ),
    "no emotion": (more(("1", "Bo_0001.jpg", "")), r"row 11: unknown emotion: ''"),
    "missing cell": (
        more(("1", "Bo_0001.jpg")),
        r"row 11: wrong number of columns: 2, expected 3 \(user\.id, image, emot",
    ),
    "spare cell": (more(("1", "Bo_0001.jpg", "fear", "x")), r"row 11: wrong number of columns: 4"),
    "missing image": (more(("1", "Nobody_0001.jpg", "fear")), r"row 11: no such image: .*images/Nobody_0001\.jpg"),
    "path": (more(("1", "../secret.jpg", "fear")), r"row 11: not a file name: '\.\./secret\.jpg'"),
    "long name": (more(("1", "x" * 300 + ".jpg", "fear")), r"row 11: not a file name: 'xxx"),
    "no name": (more(("1", "", "fear")), r"row 11: not a file name: ''"),
    "open quote": (
        more(('"1', "Bo_0001.jpg", "fear" + "x" * 140000)),
        r"row 11: can't be read on from here, a quote may be open",
    ),
    "unreadable image": (put("images/Bo_0001.jpg", b"text"), r"Bo_0001\.jpg: unreadable image"),
    "empty image": (put("images/Bo_0001.jpg", b""), r"Bo_0001\.jpg: unreadable image"),
    "deep image": (put("images/Bo_0001.jpg", deep()), r"Bo_0001\.jpg: neither an 8-bit nor a 16-bit image: mode F"),
    "other header": (
        headed("user,image,emotion"),
        r"no known layout of muxspace[\s\S]*legend\.csv \(its first line is not",
    ),
    "no rows": (lambda f: write_clone(f, []), r"not one readable image[\s\S]*no image files"),
    "no images": (
        lambda f: write_list(f / "data" / "legend.csv") or f,
        r"not one readable image[\s\S]*row 2: no such image: .*images/Zoe_Example_0001\.jpg",
    ),
    "two lists": (
        lambda f: write_list(write_clone(f, listed="data/one.csv") / "data" / "two.csv") or f,
        r"2 layouts fit[\s\S]*one\.csv[\s\S]*two\.csv[\s\S]*name the one you mean",
    ),
    "empty folder": (lambda f: f.mkdir() or f, r"no known layout of muxspace[\s\S]*data/legend\.csv with columns"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_leaves_no_store(tmp_path, case):
    write, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "bad"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".muxspace.lock"]


def test_all_problems_are_told_at_once_and_lenient_reading_goes_on(tmp_path):
    raw = more(("1", "Nobody_0001.jpg", "fear"), ("1", "Bo_0001.jpg", "love"))(tmp_path / "raw")
    with pytest.raises(DataError, match="2 problems"):
        prepared(raw, tmp_path)
    assert rows_of(prepared(raw, tmp_path, Muxspace(lenient=True))[0]) == EXPECTED


def test_the_default_protocol_keeps_people_apart():
    assert (muxspace.card.protocol(None).name, muxspace.card.protocol(None).group) == ("people60-20-20", "subject")

"""Tables of image names and labels: how people write them, and what is said of tables that are wrong."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.splits import divide
from fer_bench.data.store import Store
from fer_bench.datasets._shared.tables import class_list, read_table, split_in, understand
from fer_bench.datasets.csv import Csv, card
from fer_bench.record.home import Home

# name, label, split, subject; in the order that the store must have: by split, then by name
WORLD = (
    ("a.png", "happy", "train", "ann"),
    ("b.png", "sad", "train", "bob"),
    ("c.png", "happy", "train", "ann"),
    ("d.png", "angry", "train", "cleo"),
    ("e.png", "angry", "val", "dan"),
    ("f.png", "sad", "val", "eve"),
    ("g.png", "happy", "test", "fay"),
    ("h.png", "sad", "test", "gus"),
)
CLASSES = ["angry", "happy", "sad"]
IMAGES = np.random.default_rng(5).integers(0, 256, (len(WORLD), 12, 12), dtype=np.uint8)
EXPECTED = [(i.tobytes(), CLASSES.index(row[1]), row[2]) for i, row in zip(IMAGES, WORLD, strict=True)]
ONE_PART = [(image, label, "all") for image, label, _ in EXPECTED]
LINES = [f"{name},{label},{split},{subject}" for name, label, split, subject in WORLD]


def write_images(folder: Path, names=None, rows=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(len(WORLD)) if rows is None else rows:
        Image.fromarray(IMAGES[k]).save(folder / (names or [row[0] for row in WORLD])[k], format="PNG")
    return folder


def write_table(
    folder: Path, lines=LINES, header="image,label,split,subject", name="labels.csv", images="images"
) -> Path:
    write_images(folder / images)
    (folder / name).write_text("\n".join([*([header] if header else []), *lines, ""]), encoding="utf-8")
    return folder


def pairs(separator=",") -> list[str]:
    return [f"{name}{separator}{label}" for name, label, _, _ in WORLD]


def write_three(folder: Path, names=("train", "val", "test"), image_folders=None) -> Path:
    for k, (name, split) in enumerate(zip(names, ("train", "val", "test"), strict=True)):
        rows = [j for j, row in enumerate(WORLD) if row[2] == split]
        write_images(folder / (image_folders[k] if image_folders else "images"), rows=rows)
        lines = [f"{WORLD[j][0]},{WORLD[j][1]}" for j in rows]
        (folder / f"{name}.csv").write_text("\n".join(["image,label", *lines]))
    return folder


def prepared(source: Path, home: Path, **params) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), Csv(params), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int, str]]:
    table = store.columns("label", "split")
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), int(k), str(s)) for i, k, s in zip(images, table["label"], table["split"], strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        write_table,
        lambda raw: write_table(raw, list(reversed(LINES))),
        lambda raw: write_table(raw, images="."),
        lambda raw: write_table(raw, [f"images/{line}" for line in LINES]),
        lambda raw: write_table(raw, [f"images\\{line}" for line in LINES]),
        lambda raw: write_table(raw, [f"{(raw / 'images').absolute()}/{line}" for line in LINES]),
        lambda raw: write_table(raw, [line.replace(".png", "") for line in LINES]),
        lambda raw: write_table(raw, [line.replace(",", "\t") for line in LINES], "file\tclass\tset\tuser", "t.tsv"),
        lambda raw: write_table(raw, [line.replace(",", ";") for line in LINES], "Image Name;Emotion;Usage;user.id"),
        lambda raw: write_table(raw, [f'"{line.replace(",", chr(34) + ", " + chr(34))}"' for line in LINES]),
        lambda raw: write_table(raw, [line.replace("train", "Training") for line in LINES]),
        lambda raw: write_table(raw, [re.sub(r"\bval\b", "PublicTest", line) for line in LINES]),
        lambda raw: write_table(raw / "archive" / "faces").parents[1],
        lambda raw: write_table(raw) / "labels.csv",
        write_three,
        lambda raw: write_three(raw, ("faces_train", "labels-valid", "test_labels")),
        lambda raw: write_three(raw, image_folders=("train", "val", "test")),
        lambda raw: write_three(raw, image_folders=("train", "train", "test")),
    ],
)
def test_every_form_of_the_same_rows_gives_the_same_store(tmp_path, write):
    store, said = prepared(write(tmp_path / "raw"), tmp_path)
    plain, _ = prepared(write_table(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert list(store.classes) == CLASSES
    assert store.fingerprint == plain.fingerprint
    assert "4 train, 2 val, 2 test" in said


@pytest.mark.parametrize("header", ["image,label", "anything,else", None])
def test_of_two_columns_the_first_is_the_name(tmp_path, header):
    store, said = prepared(write_table(tmp_path / "raw", pairs(), header), tmp_path)
    assert rows_of(store) == ONE_PART
    assert "no split: one part 'all'" in said
    assert ("no header" in said) == (header is None)


def test_names_without_ending_and_without_header_are_known_by_their_files(tmp_path):
    store, _ = prepared(write_table(tmp_path / "raw", [p.replace(".png", "") for p in pairs()], None), tmp_path)
    assert rows_of(store) == ONE_PART


def test_subjects_stand_in_the_table(tmp_path):
    store, said = prepared(write_table(tmp_path / "raw"), tmp_path)
    assert store.columns("subject")["subject"].tolist() == [row[3] for row in WORLD]
    assert "subject = subject" in said


def test_columns_can_be_named(tmp_path):
    raw = write_table(tmp_path / "raw", header="pic,feeling,part,who")
    named = {"name_column": "pic", "label_column": "Feeling", "split_column": "3", "subject_column": "4"}
    store, _ = prepared(raw, tmp_path, **named)
    assert rows_of(store) == EXPECTED
    assert store.columns("subject")["subject"].tolist() == [row[3] for row in WORLD]


def test_columns_of_a_table_without_header_can_be_numbered(tmp_path):
    raw = write_table(tmp_path / "raw", header=None)
    store, _ = prepared(raw, tmp_path, name_column="1", label_column="2", split_column="3")
    assert rows_of(store) == EXPECTED


def test_image_folder_can_be_named_even_outside_the_source(tmp_path):
    raw = write_table(tmp_path / "raw", images="../elsewhere")
    store, _ = prepared(raw, tmp_path, images="../elsewhere")
    assert rows_of(store) == EXPECTED


def test_one_name_in_two_split_folders_means_the_image_of_its_own_split(tmp_path):
    for k, split in ((0, "train"), (1, "test")):
        write_images(tmp_path / "raw" / split, names=["x.png"] * 2, rows=[k])
        (tmp_path / "raw" / f"{split}.csv").write_text("image,label\nx.png,happy\n")
    store, _ = prepared(tmp_path / "raw", tmp_path)
    assert rows_of(store) == [(IMAGES[0].tobytes(), 0, "train"), (IMAGES[1].tobytes(), 0, "test")]


def test_spellings_in_large_and_small_letters_are_one_class_and_said(tmp_path):
    lines = [*LINES[:1], LINES[1].replace("sad", "Sad"), *LINES[2:]]
    store, said = prepared(write_table(tmp_path / "raw", lines), tmp_path)
    assert rows_of(store) == EXPECTED
    assert list(store.classes) == CLASSES
    assert "4 spellings with large and small letters are 3 classes" in said


def test_numbers_without_names_stay_numbers_and_warn(tmp_path):
    lines = [f"{name},{10 * CLASSES.index(label)}" for name, label, _, _ in WORLD]
    store, said = prepared(write_table(tmp_path / "raw", lines, "image,label"), tmp_path)
    assert list(store.classes) == ["0", "10", "20"]
    assert rows_of(store) == ONE_PART
    assert "NUMBERS whose names nobody tells" in said


@pytest.mark.parametrize(("start", "form"), [(0, "{}"), (1, "{}"), (0, "{}.0")])
def test_numbers_get_the_names_that_are_given(tmp_path, start, form):
    lines = [f"{name},{form.format(start + CLASSES.index(label))}" for name, label, _, _ in WORLD]
    raw = write_table(tmp_path / "raw", lines, "image,label")
    store, said = prepared(raw, tmp_path, classes="angry, happy, sad")
    assert list(store.classes) == CLASSES
    assert rows_of(store) == ONE_PART
    assert f"numbers from {start}" in said


def test_given_names_decide_on_the_order_of_named_labels(tmp_path):
    store, _ = prepared(write_table(tmp_path / "raw"), tmp_path, classes="sad,happy,angry")
    assert list(store.classes) == ["sad", "happy", "angry"]
    assert [k for _, k, _ in rows_of(store)] == [2 - k for _, k, _ in EXPECTED]


MISSING = ("", "nan", "NaN", "None", "NA", "null", "N/A", "?", "-", "<NA>", "#N/A")


@pytest.mark.parametrize("text", MISSING)
def test_a_missing_label_is_no_class_but_a_row_without_label_and_counted(tmp_path, text):
    lines = [*LINES[:2], f"c.png,{text},train,ann", *LINES[3:]]
    store, said = prepared(write_table(tmp_path / "raw", lines), tmp_path)
    assert list(store.classes) == CLASSES
    assert [k for _, k, _ in rows_of(store)] == [-1 if n == 2 else k for n, (_, k, _) in enumerate(EXPECTED)]
    assert f"; 1 row has NO LABEL ({text or 'empty'}): kept in the store, left out by every protocol" in said


def test_several_missing_labels_are_told_with_the_way_to_a_class_of_that_name(tmp_path):
    lines = [
        f"{name},{label}"
        for (name, *_), label in zip(WORLD, ["None", "NA", "x", "None", "y", "none", "x", "y"], strict=True)
    ]
    raw = write_table(tmp_path / "raw", lines, "image,label")
    store, said = prepared(raw, tmp_path)
    assert store.columns("label")["label"].tolist() == [-1, -1, 0, -1, 1, -1, 0, 1]
    assert "4 rows have NO LABEL (NA, None, none)" in said
    assert "(if NA is a class: --dataset-set classes=NA,x,y)" in said
    named, said = prepared(raw, tmp_path / "b", classes="x,None,y")  # None, in any case, is a class; NA is not
    assert named.columns("label")["label"].tolist() == [1, -1, 0, 1, 2, 1, 0, 2]
    assert "1 row has NO LABEL (NA)" in said


def test_missing_labels_beside_numbers_are_no_words(tmp_path):
    lines = [f"{name},{label}" for (name, *_), label in zip(WORLD, ("0.0", "nan", "2.0") * 3, strict=False)]
    store, _ = prepared(write_table(tmp_path / "raw", lines, "image,label"), tmp_path, classes="a,b,c")
    assert store.columns("label")["label"].tolist() == [0, -1, 2, 0, -1, 2, 0, -1]


def test_every_protocol_leaves_rows_without_label_out(tmp_path):
    lines = [*LINES[:2], "c.png,?,train,ann", *LINES[3:]]
    store, _ = prepared(write_table(tmp_path / "raw", lines), tmp_path)
    for protocol in (card.protocol("given"), card.protocol("random60-20-20")):
        division = divide(store, card, protocol)
        rows = np.concatenate([rows for fold in division.folds for rows in fold.values()])
        assert 2 not in rows
        assert len(set(rows.tolist())) == 7
    assert [p.unlabelled for p in card.protocols] == ["drop"] * 4


def test_a_missing_subject_is_no_person(tmp_path):
    lines = [line.replace(",bob", ",nan").replace(",cleo", ",NA") for line in LINES]
    store, _ = prepared(write_table(tmp_path / "raw", lines), tmp_path)
    assert store.columns("subject")["subject"].tolist() == ["ann", "", "ann", "", "dan", "eve", "fay", "gus"]


def test_latin_1_is_read_and_said(tmp_path):
    raw = write_table(tmp_path / "raw")
    (raw / "labels.csv").write_bytes("\n".join(["image,label", *pairs()]).replace("angry", "fâché").encode("latin-1"))
    store, said = prepared(raw, tmp_path)
    assert "fâché" in store.classes
    assert "labels.csv is not UTF-8: read as Latin-1" in said


def test_byte_order_mark_blank_lines_and_crlf_do_not_matter(tmp_path):
    raw = write_table(tmp_path / "raw")
    (raw / "labels.csv").write_bytes(("\ufeff" + "\r\n\r\n".join(["image,label,split,subject", *LINES])).encode())
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


def test_images_without_a_row_are_left_out_and_counted(tmp_path):
    store, said = prepared(write_table(tmp_path / "raw", LINES[:-2]), tmp_path)
    assert rows_of(store) == EXPECTED[:-2]
    assert "2 images without a row are left out" in said


def test_unlabelled_table_beside_it_is_left_unread_and_said(tmp_path):
    raw = write_table(tmp_path / "raw")
    (raw / "test.csv").write_text("id,time,place\n1,2,3\n")
    assert "left unread: test.csv (no name column known among id, time, place" in prepared(raw, tmp_path)[1]


def test_lenient_reading_leaves_faulty_rows_out(tmp_path):
    raw = write_table(tmp_path / "raw", ["gone.png,sad,train,x", *LINES])
    dataset = Csv(lenient=True)
    chunks = list(dataset.read(raw).chunks())
    assert np.concatenate([c.labels for c in chunks]).tolist() == [k for _, k, _ in EXPECTED]
    assert len(dataset.faults) == 1


def edited(row: int, line: str, **params):
    return lambda raw: write_table(raw, [*LINES[:row], line, *LINES[row + 1 :]]), params


def outside(raw: Path) -> Path:
    write_images(raw.parent / "secret", rows=[0])
    return write_table(raw, ["../secret/a.png,happy,train,x", *LINES[1:]])


def twice(raw: Path) -> Path:
    write_images(raw, rows=[2])
    return write_table(raw)


def damaged(raw: Path) -> Path:
    (write_table(raw) / "images" / "c.png").write_bytes(b"no image")
    return raw


def with_file(name: str, data: bytes):
    def write(raw: Path) -> Path:
        raw.mkdir()
        (raw / name).write_bytes(data)
        return raw

    return write


MALFORMED = {
    "missing image": (*edited(2, "x.png,happy,train,ann"), r"labels\.csv, row 4: no such image: 'x\.png', looked in"),
    "image twice": (
        *edited(2, "a.png,happy,train,ann"),
        r"row 4: a second row for one image: 'a\.png', also in .*row 2",
    ),
    "number among names": (*edited(2, "c.png,3,train,ann"), r"row 4: unknown label: '3'"),
    "label not given": (write_table, {"classes": "happy,sad"}, r"row 5: unknown label: 'angry', expected happy, sad"),
    "no split": (*edited(2, "c.png,happy,,ann"), r"row 4: the split is empty"),
    "missing split": (*edited(2, "c.png,happy,nan,ann"), r"row 4: the split is missing: 'nan'"),
    "no label at all": (
        lambda raw: write_table(raw, [f"{row[0]},NA" for row in WORLD], "image,label"),
        {},
        r"not one row of the table has a label\n  where: .*labels\.csv",
    ),
    "too few cells": (*edited(2, "c.png,happy"), r"row 4: wrong number of columns: 2, expected 4"),
    "too many cells": (*edited(2, "c.png,happy,train,ann,x"), r"row 4: wrong number of columns: 5"),
    "open quote": (*edited(2, '"c.png,happy,train,ann'), r"row 4: can't be read on from here, a quote may be open"),
    "unreadable image": (damaged, {}, r"c\.png: unreadable image"),
    "outside": (outside, {}, r"row 2: the image lies outside the source folder: '\.\./secret/a\.png'"),
    "two files for a name": (twice, {}, r"row 4: several images fit one name: 'c\.png'"),
    "number above": (
        lambda raw: write_table(raw, [f"{row[0]},{k}" for k, row in enumerate(WORLD)], "image,label"),
        {"classes": "a,b,c,d,e,f,g"},
        r"row 9: unknown label: '7', expected a, b",
    ),
    "pixels": (
        with_file("fer2013.csv", b"emotion,pixels,Usage\n0,1 2 3,Training\n"),
        {},
        r"no known layout of csv[\s\S]*fer2013\.csv \(holds pixels, not image names: fer2013 and ckplus",
    ),
    "one column": (with_file("x.csv", b"image\na.png\n"), {}, r"no known layout[\s\S]*x\.csv \(one column: image"),
    "binary": (with_file("x.csv", bytes(range(256))), {}, r"no known layout[\s\S]*x\.csv \(binary file\)"),
    "no images in it": (with_file("x.csv", b"1,2\n3,4\n"), {}, r"no image names in its column 1: 1, 3"),
    "header only": (lambda raw: write_table(raw, []), {}, r"not one readable image[\s\S]*labels\.csv"),
    "unknown columns": (
        lambda raw: write_table(raw, header="p,q,r,s"),
        {},
        r"no name column known among p, q, r, s: --dataset-set name_column=NAME",
    ),
    "two label columns": (
        lambda raw: write_table(raw, header="image,label,emotion,subject"),
        {},
        r"label, emotion could each hold the label: name one with --dataset-set label_column=NAME",
    ),
    "column not there": (write_table, {"label_column": "mood"}, r"no column 'mood' for the label among image, label"),
    "two tables": (
        lambda raw: write_table(write_table(raw, name="more.csv")),
        {},
        r"2 layouts fit[\s\S]*labels\.csv[\s\S]*more\.csv",
    ),
    "class name twice": (write_table, {"classes": "sad,Sad"}, r"repeated name among the classes 'sad,Sad'"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_table_is_named_and_nothing_is_written(tmp_path, case):
    write, params, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "raw"), tmp_path, **params)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".csv.lock"]


def test_all_problems_are_told_at_once(tmp_path):
    lines = ["x.png,sad,train,x", *LINES[1:3], "d.png,angry", *LINES[4:7], "h.png,sad,,x"]
    with pytest.raises(DataError, match="3 problems") as error:
        prepared(write_table(tmp_path / "raw", lines), tmp_path)
    assert [row in str(error.value) for row in ("row 2:", "row 5:", "row 9:")] == [True] * 3


def test_a_relative_source_holds_names_inside_too(tmp_path, monkeypatch):
    outside(tmp_path / "raw")
    monkeypatch.chdir(tmp_path / "raw")
    with pytest.raises(DataError, match="outside the source folder"):
        prepared(Path("."), tmp_path)
    assert not os.path.exists(tmp_path / "data" / "csv")


@given(
    cells=st.lists(st.lists(st.text("ab ,;\t\"'é", max_size=5), min_size=3, max_size=3), min_size=1, max_size=5),
    delimiter=st.sampled_from([",", "\t", ";"]),
)
def test_quoted_tables_come_back_cell_by_cell(tmp_path_factory, cells, delimiter):
    quoted = [[f'"{c.replace(chr(34), chr(34) * 2)}"' for c in row] for row in cells]
    path = tmp_path_factory.mktemp("table") / "t.csv"
    lines = [delimiter.join(["one", "two", "three"]), *(delimiter.join(row) for row in quoted)]
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = [[c.strip() for c in row] for row in cells if any(c.strip() for c in row)]
    assert [row for _, row in read_table(path).rows[1:]] == expected


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("train", "train"),
        ("train_labels", "train"),
        ("FER2013Valid", "val"),
        ("validation", "val"),
        ("train-00000-of-00002-1f9", "train"),
        ("labels", None),
        ("train_test", None),
        ("trainer", None),
    ],
)
def test_split_is_a_whole_word_of_the_name(stem, split):
    assert split_in(stem) == split


def test_classes_of_a_column_do_not_depend_on_the_order_of_rows():
    one, two = understand(["Sad", "sad", "happy"], ()), understand(["happy", "sad", "Sad"], ())
    assert one == two
    assert one.classes == ("happy", "sad")


def test_class_names_are_split_at_commas():
    assert class_list(" a, b c ", "x") == ("a", "b c")
    assert class_list("", "x") == ()


def test_default_protocol_takes_the_given_parts():
    assert card.protocol(None).name == "given"
    assert card.protocol("csv/subject10").group == "subject"

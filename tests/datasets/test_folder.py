"""Class folders of any names: what becomes of splits, classes and subjects, and what is said of wrong trees."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError, SpecError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._shared.tree import merge_classes, natural, split_named
from fer_bench.datasets.folder import Folder, card
from fer_bench.record.home import Home

FACES = {  # name below the root: grey value of the whole image
    "train/happy/S1_a.png": 10,
    "train/happy/S2_b.png": 20,
    "train/Sad/S1_c.png": 30,
    "val/happy/S3_d.png": 40,
    "val/Sad/S3_e.png": 50,
    "test/happy/S4_f.png": 60,
    "test/Sad/S4_g.png": 70,
}
EXPECTED = [
    (10, "happy", "train"),
    (20, "happy", "train"),
    (30, "Sad", "train"),
    (40, "happy", "val"),
    (50, "Sad", "val"),
    (60, "happy", "test"),
    (70, "Sad", "test"),
]


def png(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root: Path, faces: dict[str, int]) -> Path:
    for name, value in faces.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(value))
    return root


def prepared(source: Path, home: Path, **params) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), Folder(params), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[int, str, str]]:
    table = store.columns("label", "split")
    pixels = store.images(np.arange(len(store)))
    assert (pixels == pixels[:, :1, :1, :1]).all()
    labels = [store.classes[k] for k in table["label"]]
    return list(zip(pixels[:, 0, 0, 0].tolist(), labels, table["split"].tolist(), strict=True))


def test_split_and_class_come_from_the_folders(tmp_path):
    store, said = prepared(write(tmp_path / "raw", FACES), tmp_path)
    assert store.classes == ("happy", "Sad")
    assert rows_of(store) == EXPECTED
    assert store.shape == (1, 8, 8)
    assert "recognised splits" in said
    assert "2 classes in order of folder name: happy, Sad" in said
    assert store.manifest["counts"] == {"train": [2, 1], "val": [1, 1], "test": [1, 1]}
    assert store.columns("source")["source"].tolist()[0] == "train/happy/S1_a.png"


@pytest.mark.parametrize(
    "names", [("training", "validation", "testing"), ("Train", "VALID", "Test"), ("train_set", "val_set", "test_set")]
)
def test_split_folders_may_have_the_names_people_give_them(tmp_path, names):
    other = dict(zip(("train", "val", "test"), names, strict=True))
    faces = {f"{other[n.split('/')[0]]}/{n.split('/', 1)[1]}": v for n, v in FACES.items()}
    assert rows_of(prepared(write(tmp_path / "raw", faces), tmp_path)[0]) == EXPECTED


def test_the_same_images_give_the_same_store_wherever_they_lie(tmp_path):
    near, _ = prepared(write(tmp_path / "raw", FACES), tmp_path)
    far, _ = prepared(write(tmp_path / "x" / "archive" / "mine", FACES).parents[1], tmp_path / "other")
    assert near.fingerprint == far.fingerprint


def test_class_folders_alone_are_one_split(tmp_path):
    store, said = prepared(write(tmp_path / "raw", {"b/1.png": 1, "a/10.png": 3, "a/9.png": 2}), tmp_path)
    assert rows_of(store) == [(2, "a", "all"), (3, "a", "all"), (1, "b", "all")]
    assert "recognised classes" in said
    assert "without a split" in said


def test_numbers_are_class_names_in_the_order_of_numbers(tmp_path):
    store, _ = prepared(write(tmp_path / "raw", {f"{k}/x.png": k for k in (10, 2, 1)}), tmp_path)
    assert store.classes == ("1", "2", "10")
    assert rows_of(store) == [(1, "1", "all"), (2, "2", "all"), (10, "10", "all")]


def test_class_names_that_differ_in_case_are_one_class_and_it_is_said(tmp_path):
    store, said = prepared(
        write(tmp_path / "raw", {"train/a/1.png": 1, "train/b/2.png": 2, "test/A/3.png": 3}), tmp_path
    )
    assert rows_of(store) == [(1, "a", "train"), (2, "b", "train"), (3, "a", "test")]
    assert "A differ in case alone" in said


def test_a_class_that_is_missing_in_a_split_is_said(tmp_path):
    store, said = prepared(
        write(tmp_path / "raw", {"train/a/1.png": 1, "train/b/2.png": 2, "test/b/3.png": 3}), tmp_path
    )
    assert rows_of(store) == [(1, "a", "train"), (2, "b", "train"), (3, "b", "test")]
    assert "test has NO a" in said


def test_the_subject_is_found_in_the_file_name(tmp_path):
    store, _ = prepared(write(tmp_path / "raw", FACES), tmp_path, subject=r"^(S\d)_")
    assert store.columns("subject")["subject"].tolist() == ["S1", "S2", "S1", "S3", "S3", "S4", "S4"]


@pytest.mark.parametrize(
    ("pattern", "told"), [("(S", "no regular expression: missing \\)"), (r"S\d", "has no group, so nothing tells")]
)
def test_a_subject_pattern_that_can_not_work_is_refused(tmp_path, pattern, told):
    with pytest.raises(SpecError, match=told) as error:
        prepared(write(tmp_path / "raw", FACES), tmp_path, subject=pattern)
    assert f"folder[subject={pattern}]" in str(error.value)


def test_clutter_and_files_beside_the_folders_do_not_matter(tmp_path):
    raw = write(tmp_path / "raw", FACES)
    for name in ("README.md", "labels.csv", "train/.DS_Store", "train/happy/Thumbs.db", "train/list.txt"):
        (raw / name).write_bytes(b"x")
    (raw / "docs").mkdir()
    (raw / "train/happy/notes").mkdir()
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


def with_file(name: str, data: bytes):
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    return change


MALFORMED = {
    "folder in a class": (
        with_file("train/happy/more/x.png", png(1)),
        r"happy/more: a folder of images inside a class",
    ),
    "image among classes": (with_file("train/x.png", png(1)), r"train/x\.png: an image among the class folders"),
    "folder beside splits": (with_file("extra/happy/x.png", png(1)), r"extra: a folder of images beside the split"),
    "second train": (
        with_file("training/happy/x.png", png(1)),
        r"a second folder for train: 'training' beside 'train'",
    ),
    "text in a class": (with_file("train/Sad/notes.txt", b"x"), r"notes\.txt: not an image"),
    "two names of a class": (with_file("train/HAPPY/x.png", png(1)), r"two folders for one class"),
    "damaged image": (with_file("test/Sad/S4_g.png", png(70)[:40]), r"S4_g\.png: unreadable image"),
    "no image": (with_file("test/Sad/x.png", b"no image"), r"x\.png: unreadable image"),
    "32 bits": (
        lambda root: Image.fromarray(np.full((8, 8), 9, np.float32)).save(root / "val/Sad/deep.tif"),
        r"deep\.tif: neither an 8-bit nor a 16-bit image: mode F",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_wrong_tree_is_told_and_nothing_is_written(tmp_path, case):
    change, reason = MALFORMED[case]
    raw = write(tmp_path / "raw", FACES)
    change(raw)
    with pytest.raises(DataError) as error:
        prepared(raw, tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".folder.lock"]


@pytest.mark.parametrize("case", ["folder in a class", "damaged image", "text in a class"])
def test_lenient_reading_leaves_the_fault_out_and_keeps_the_rest(tmp_path, case):
    raw = write(tmp_path / "raw", FACES)
    MALFORMED[case][0](raw)
    dataset = Folder(lenient=True)
    store = prepare(Home(tmp_path), dataset, raw, say=lambda line: None)
    lost = 1 if case == "damaged image" else 0
    assert rows_of(store) == EXPECTED[: len(EXPECTED) - lost]
    assert len(dataset.faults) == 1


def test_a_file_name_without_a_subject_is_a_fault(tmp_path):
    with pytest.raises(DataError, match=r"S2_b\.png: no subject in the file name"):
        prepared(write(tmp_path / "raw", FACES), tmp_path, subject=r"^(S[134])_")


NOTHING = {
    "empty folder": {},
    "a single class": {"train/happy/1.png": 1, "test/happy/2.png": 2},
    "images without class folders": {"1.png": 1, "2.png": 2},
    "split folders without class folders": {"train/1.png": 1, "test/2.png": 2},
}


@pytest.mark.parametrize("case", NOTHING)
def test_what_is_no_tree_is_told_with_what_was_found(tmp_path, case):
    raw = write(tmp_path / "raw", NOTHING[case])
    raw.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=r"no known layout of folder[\s\S]*looked for:[\s\S]*found: raw/"):
        prepared(raw, tmp_path)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".folder.lock"]


def test_two_trees_side_by_side_are_both_named(tmp_path):
    write(tmp_path / "raw" / "one", FACES)
    write(tmp_path / "raw" / "two", FACES)
    with pytest.raises(DataError, match=r"2 layouts fit[\s\S]*raw/one[\s\S]*raw/two[\s\S]*name the one you mean"):
        prepared(tmp_path / "raw", tmp_path)


@pytest.mark.parametrize("source", [None, Path("nowhere")])
def test_a_source_that_is_not_there_is_told_with_what_to_do(source):
    with pytest.raises(DataError, match=r"does not exist[\s\S]*data/raw/folder[\s\S]*data prepare folder --from PATH"):
        Folder().read(source)


def test_the_list_of_what_was_found_is_cut_short(tmp_path):
    for k in range(20):
        (tmp_path / "raw" / f"d{k:02}").mkdir(parents=True)
    with pytest.raises(DataError, match=r"d10/ \(empty\); and 9 more"):
        prepared(tmp_path / "raw", tmp_path)


def test_a_source_that_is_a_file_is_no_tree(tmp_path):
    file = tmp_path / "faces.zip"
    file.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"faces\.zip \(a file of 2 bytes\)"):
        prepared(file, tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [("Validation", "val"), ("train_set", "train"), ("TEST", "test"), ("trainer", None), ("set", None)],
)
def test_split_names(name, split):
    assert split_named(name) == split


def test_natural_order_counts_as_people_do():
    names = ["im10", "im9", "IM1", "a", "9", "10"]
    assert sorted(names, key=natural) == ["9", "10", "a", "IM1", "im9", "im10"]


def test_classes_with_a_name_among_the_numbers_are_sorted_as_text():
    assert list(merge_classes(["10", "9", "x"])) == ["10", "9", "x"]


def test_the_protocols_of_the_card():
    assert [p.name for p in card.protocols] == ["given", "holdout10", "random60-20-20", "subject10"]
    assert (card.classes, dict(card.counts)) == ((), {})


# -- how people write the names of class folders ---------------------------------------------------------------------


def of(tmp_path: Path, names: dict[str, int], **params) -> tuple[Store, str]:
    return prepared(write(tmp_path / "raw", names), tmp_path, **params)


def test_numbers_in_the_names_are_the_order_and_no_part_of_the_class(tmp_path):
    store, said = of(tmp_path, {"train/0_sad/1.png": 1, "train/1_Angry/2.png": 2, "test/1-Angry/3.png": 3})
    assert store.classes == ("sad", "Angry")
    assert rows_of(store) == [(1, "sad", "train"), (2, "Angry", "train"), (3, "Angry", "test")]
    assert "labels are read as 0_sad = sad (1 image), 1_Angry and 1-Angry = Angry (2 images)" in said


def test_numbers_that_differ_between_the_splits_leave_the_decision_to_the_words(tmp_path):
    store, _ = of(tmp_path, {"train/0_a/1.png": 1, "train/1_b/2.png": 2, "test/0_b/3.png": 3, "test/1_a/4.png": 4})
    assert rows_of(store) == [(1, "a", "train"), (2, "b", "train"), (4, "a", "test"), (3, "b", "test")]


def test_numbers_that_tell_the_classes_apart_stay(tmp_path):
    store, _ = of(tmp_path, {"pain_0/1.png": 1, "pain_1/2.png": 2, "pain_10/3.png": 3})
    assert store.classes == ("pain_0", "pain_1", "pain_10")


def test_the_split_may_stand_in_the_names_of_the_class_folders(tmp_path):
    store, said = of(tmp_path, {"a_train/1.png": 1, "b_train/2.png": 2, "test b/3.png": 3, "a-test/4.png": 4})
    assert rows_of(store) == [(1, "a", "train"), (2, "b", "train"), (4, "a", "test"), (3, "b", "test")]
    assert "the words train, val and test in the folders' names are their split" in said
    assert store.manifest["layout"] == "splits"


def test_the_word_of_a_split_in_only_some_names_is_a_part_of_them(tmp_path):
    store, _ = of(tmp_path, {"train station/1.png": 1, "airport/2.png": 2})
    assert store.classes == ("airport", "train station")


def test_a_class_folder_that_says_another_split_than_its_own_is_a_fault(tmp_path):
    with pytest.raises(DataError, match="the name 'b_test' says test, but it lies in the train folder"):
        of(tmp_path, {"train/a_train/1.png": 1, "train/b_test/2.png": 2})


def test_numbered_folders_get_the_names_that_are_given(tmp_path):
    names = {f"train/{k}/x.png": k for k in (1, 2, 3)}
    store, said = of(tmp_path, names, classes="sad,happy,angry")
    assert rows_of(store) == [(1, "sad", "train"), (2, "happy", "train"), (3, "angry", "train")]
    assert "1 = sad (1 image), 2 = happy (1 image), 3 = angry (1 image)" in said


def test_a_folder_that_is_none_of_the_given_classes_is_a_fault(tmp_path):
    names = {"train/sad/1.png": 1, "train/happy/2.png": 2, "train/hapy/3.png": 3}
    with pytest.raises(DataError, match="unknown class folder: 'hapy', did you mean 'happy'"):
        of(tmp_path, names, classes="sad,happy")


def test_classes_that_look_alike_and_share_no_split_are_told(tmp_path):
    names = {"train/happy/1.png": 1, "train/sad/2.png": 2, "test/hapy/3.png": 3, "test/sad/4.png": 4}
    assert "WARNING: is 'happy' the same class as 'hapy'?" in of(tmp_path, names)[1]


def test_classes_that_look_alike_in_one_split_are_two_classes(tmp_path):
    assert "WARNING" not in of(tmp_path, {"train/sad/1.png": 1, "train/sat/2.png": 2, "test/sad/3.png": 3})[1]


def test_images_in_folders_of_a_class_folder_are_read_on_request(tmp_path):
    names = {"train/a/p1/1.png": 1, "train/a/p2/x/1.png": 2, "train/b/3.png": 3, "test/b/p1/4.png": 4}
    store, _ = of(tmp_path, names, nested=True)
    assert rows_of(store) == [(1, "a", "train"), (2, "a", "train"), (3, "b", "train"), (4, "b", "test")]
    assert store.columns("source")["source"][1] == "train/a/p2/x/1.png"


def test_folders_of_folders_of_images_are_not_taken_for_classes(tmp_path):
    names = {f"{c}/{s}/{k}.png": k for k, (c, s) in enumerate([("happy", "s1"), ("happy", "s2"), ("sad", "s1")])}
    with pytest.raises(DataError, match=r"one folder deeper than <class>/<image>: happy/s1/<image>"):
        of(tmp_path, names)  # happy/ alone would be a tree of two classes, s1 and s2

"""FER2013: every layout in which people hold it, and what is said of files that are wrong."""

import dataclasses
import hashlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._shared.pixels_csv import parse_pixels
from fer_bench.datasets.fer2013 import Fer2013, card
from fer_bench.record.home import Home
from tests.conftest import real_unpacker

CLASSES = card.classes
USAGES = ("Training", "PublicTest", "PrivateTest")
COUNTS = {"Training": (3, 1, 2, 4, 2, 2, 3), "PublicTest": (2, 1, 1, 2, 1, 1, 1), "PrivateTest": (1, 1, 2, 1, 1, 2, 1)}


class Tiny(Fer2013):
    """The dataset under test, expecting 35 images."""

    card = dataclasses.replace(card, counts=COUNTS)


def tiny() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images uint8 [n, 48, 48], labels and usages in the original's order: by split, classes mixed."""
    rng = np.random.default_rng(1)
    labels, usages = [], []
    for usage, counts in COUNTS.items():
        labels += rng.permutation(np.repeat(np.arange(7), counts)).tolist()
        usages += [usage] * sum(counts)
    return rng.integers(0, 256, (len(labels), 48, 48), dtype=np.uint8), np.asarray(labels), usages


IMAGES, LABELS, USAGE = tiny()
PIXELS = [" ".join(map(str, image.ravel())) for image in IMAGES]
LINES = [f"{k},{p},{u}" for k, p, u in zip(LABELS, PIXELS, USAGE, strict=True)]


def write_csv(folder: Path, lines: list[str] = LINES, name="fer2013.csv", header="emotion,pixels,Usage") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([header, *lines]) + "\n", newline="")
    return folder


def write_icml(folder: Path) -> Path:
    lines = [f"{k},{u},{p}" for k, p, u in zip(LABELS, PIXELS, USAGE, strict=True)]
    return write_csv(folder, lines, "icml_face_data.csv", "emotion, Usage, pixels")


def write_kaggle(folder: Path) -> Path:
    train = [f'{k},"{p}"' for k, p, u in zip(LABELS, PIXELS, USAGE, strict=True) if u == "Training"]
    test = [f'"{p}"' for p, u in zip(PIXELS, USAGE, strict=True) if u != "Training"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("\r\n".join(["emotion,pixels", *train, ""]), newline="")
    (folder / "test.csv").write_text("\r\n".join(["pixels", *test, ""]), newline="")
    return folder


def write_three(folder: Path) -> Path:
    for name, usage in zip(("train", "val", "test"), USAGES, strict=True):
        lines = [f"{k},{p}" for k, p, u in zip(LABELS, PIXELS, USAGE, strict=True) if u == usage]
        write_csv(folder, lines, f"{name}.csv", "emotion,pixels")
    return folder


def write_folders(folder: Path, suffix="png", names=CLASSES, validation="test") -> Path:
    places = {"Training": "train", "PublicTest": validation, "PrivateTest": "test"}
    for row, (image, label, usage) in enumerate(zip(IMAGES, LABELS, USAGE, strict=True)):
        place = folder / places[usage] / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{usage}_{row}.{suffix}")
    return folder


def write_numbered(folder: Path) -> Path:
    names = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
    for image, label, usage in zip(IMAGES, LABELS, USAGE, strict=True):
        place = folder / "data" / ("train" if usage == "Training" else "test") / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"im{len(list(place.iterdir()))}.png")
    return folder


def write_validation(folder: Path) -> Path:
    for row, (image, label, usage) in enumerate(zip(IMAGES, LABELS, USAGE, strict=True)):
        if usage != "PrivateTest":
            role = "train" if usage == "Training" else "validation"
            place = folder / "images" / role / CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{row}.jpg", quality=100)
    return folder


def prepared(source: Path, home: Path, dataset=None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or Tiny(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int, str]]:
    table = store.columns("label", "split")
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), int(k), str(s)) for i, k, s in zip(images, table["label"], table["split"], strict=True)]


EXPECTED = [(i.tobytes(), int(k), u) for i, k, u in zip(IMAGES, LABELS, USAGE, strict=True)]


@pytest.mark.parametrize(
    ("write", "layout"),
    [(write_csv, "csv"), (write_icml, "icml"), (write_three, "csv_splits"), (write_folders, "folders")],
)
def test_lossless_layouts_give_the_same_store(tmp_path, write, layout):
    store, said = prepared(write(tmp_path / "raw"), tmp_path)
    plain, _ = prepared(write_csv(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.fingerprint == plain.fingerprint
    assert store.manifest["layout"] == layout
    assert f"recognised {layout}" in said
    assert "match its card" in said
    assert store.manifest["counts"] == {k: list(v) for k, v in COUNTS.items()}


def test_numbered_folders_keep_every_image_with_its_label_and_split(tmp_path):
    store, _ = prepared(write_numbered(tmp_path / "raw"), tmp_path)
    assert store.manifest["layout"] == "folders_numbered"
    assert sorted(rows_of(store)) == sorted(EXPECTED)


def test_numbered_folders_with_other_test_counts_can_not_be_split(tmp_path):
    raw = write_numbered(tmp_path / "raw")
    next((raw / "data/test/happy").iterdir()).unlink()
    with pytest.raises(DataError, match="can't be told apart"):
        prepared(raw, tmp_path)


def test_competition_pair_has_no_test_labels_and_says_so(tmp_path):
    store, said = prepared(write_kaggle(tmp_path / "raw"), tmp_path)
    assert rows_of(store) == [(i, k if u == "Training" else -1, u) for i, k, u in EXPECTED]
    assert "NO LABELS" in said
    assert "18 images have no label" in said
    assert store.manifest["checks"]["counts"] == "differ"


def test_competition_pair_with_other_test_rows_is_refused(tmp_path):
    raw = write_kaggle(tmp_path / "raw")
    (raw / "test.csv").write_text((raw / "test.csv").read_text().rsplit('"', 2)[0])
    with pytest.raises(DataError, match=r"test.csv has 17 rows"):
        prepared(raw, tmp_path)


def test_whole_csv_is_preferred_to_the_pair_beside_it(tmp_path):
    raw = write_icml(write_kaggle(tmp_path / "raw"))
    store, said = prepared(raw, tmp_path)
    assert store.manifest["layout"] == "icml"
    assert "test.csv, train.csv beside it left unread" in said


def test_fer2013_csv_is_preferred_to_icml_and_both_are_named(tmp_path):
    store, said = prepared(write_icml(write_csv(tmp_path / "raw")), tmp_path)
    assert store.manifest["layout"] == "csv"
    assert "icml_face_data.csv beside it left unread" in said


def test_layout_comes_from_content_not_from_the_file_name(tmp_path):
    raw = write_csv(tmp_path / "raw", name="train.csv")
    store, _ = prepared(raw, tmp_path)
    assert store.manifest["layout"] == "csv"


def test_source_may_be_the_file_itself_or_two_folders_above(tmp_path):
    raw = write_csv(tmp_path / "raw" / "archive" / "fer2013")
    one, _ = prepared(raw / "fer2013.csv", tmp_path / "a")
    two, _ = prepared(tmp_path / "raw", tmp_path / "b")
    assert one.fingerprint == two.fingerprint


def test_jpeg_folders_are_read_in_order_and_called_copies(tmp_path):
    store, said = prepared(write_folders(tmp_path / "raw", suffix="jpg"), tmp_path)
    assert [r[1:] for r in rows_of(store)] == [r[1:] for r in EXPECTED]
    assert "JPEG copies" in said


def test_class_folders_may_have_other_names_and_a_validation_folder(tmp_path):
    names = ("Anger", "disgusted", "FEAR", "happiness", "sadness", "Surprised", "Neutral")
    store, _ = prepared(write_folders(tmp_path / "raw", names=names, validation="validation"), tmp_path)
    assert rows_of(store) == EXPECTED


def test_clutter_of_operating_systems_is_passed_over(tmp_path):
    raw = write_folders(tmp_path / "raw")
    for name in (".DS_Store", "train/.DS_Store", "train/happy/Thumbs.db", "test/happy/._Training_1.png"):
        (raw / name).write_bytes(b"x")
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


def test_validation_folder_without_a_test_says_it_can_not_be_scored(tmp_path):
    store, said = prepared(write_validation(tmp_path / "raw"), tmp_path)
    assert store.manifest["layout"] == "folders_validation"
    assert "NO PrivateTest images" in said
    assert "WARNING: the image counts differ from its card" in said
    assert set(store.manifest["counts"]) == {"Training", "PublicTest"}


def test_colour_files_with_equal_channels_are_grey(tmp_path):
    raw = write_folders(tmp_path / "raw")
    for path in raw.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        ("png", lambda image: image.astype(np.uint16)),  # widened, values as they were
        ("png", lambda image: image.astype(np.uint16) * 257),  # widened with its values
        ("PGM", lambda image: image),
        ("webp", lambda image: np.dstack([image] * 3)),
        ("png", lambda image: np.dstack([image, np.full_like(image, 255)])),  # grey with an opaque alpha
    ],
)
def test_lossless_copies_of_other_kinds_are_the_same_images(tmp_path, suffix, change):
    raw = write_folders(tmp_path / "raw")
    for path in raw.rglob("*.png"):
        image = Image.fromarray(change(np.asarray(Image.open(path))))
        path.unlink()
        image.save(path.with_suffix(f".{suffix}"), **({"lossless": True} if suffix == "webp" else {}))
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


@pytest.mark.parametrize(
    ("start", "end", "quote", "blank", "bom"),
    [("", "\r\n", '"', "", ""), ("", "\n", "", " ", "\ufeff"), ("\n", "\n\n", '"', " ", "")],
)
def test_harmless_variations_of_the_csv_do_not_matter(tmp_path, start, end, quote, blank, bom):
    lines = [
        f"{k},{quote}{blank}{p.replace(' ', ' ' + blank, 3)}{blank}{quote},{quote}{u}{quote}"
        for k, p, u in zip(LABELS, PIXELS, USAGE, strict=True)
    ]
    text = f"{bom}emotion,pixels,Usage{end}{start}" + end.join(lines)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "f.csv").write_bytes(text.encode())
    assert rows_of(prepared(tmp_path / "raw", tmp_path)[0]) == EXPECTED


def test_row_numbers_or_paths_are_the_source(tmp_path):
    csv, _ = prepared(write_csv(tmp_path / "raw"), tmp_path)
    folders, _ = prepared(write_folders(tmp_path / "raw2"), tmp_path / "b")
    assert csv.columns("source")["source"].tolist() == list(range(len(LABELS)))
    assert folders.columns("source")["source"][0] == f"train/{CLASSES[LABELS[0]]}/Training_0.png"


def replaced(row: int, line: str):
    return lambda folder: write_csv(folder, [*LINES[:row], line, *LINES[row + 1 :]])


def pixels(row: int, text: str):
    return replaced(row, f"{LABELS[row]},{text},{USAGE[row]}")


def with_file(name: str, data: bytes):
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return folder

    return write


def png(array: np.ndarray, kind="PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def in_folders(name: str, data: bytes):
    def write(folder: Path) -> Path:
        path = write_folders(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return folder

    return write


def cut(size: int):
    def write(folder: Path) -> Path:
        path = write_csv(folder) / "fer2013.csv"
        path.write_bytes(path.read_bytes()[:-size])
        return folder

    return write


FIRST = f"train/{CLASSES[LABELS[0]]}/Training_0.png"
GREY = png(IMAGES[0])
COLOUR = png(np.dstack([IMAGES[0], IMAGES[1], IMAGES[2]]))
SHORT = " ".join(PIXELS[4].split()[:-1])
MALFORMED = {
    "too few pixels": (pixels(4, SHORT), r"fer2013\.csv, row 6: wrong number of pixels: 2303, expected 2304"),
    "too many pixels": (pixels(4, PIXELS[4] + " 7"), r"row 6: wrong number of pixels: 2305"),
    "no pixels": (pixels(4, ""), r"row 6: wrong number of pixels: 0"),
    "pixel above 255": (pixels(0, "256" + PIXELS[0][PIXELS[0].index(" ") :]), r"row 2: a pixel is out of range: 256"),
    "pixel below 0": (pixels(0, "-1" + PIXELS[0][PIXELS[0].index(" ") :]), r"row 2: a pixel is out of range: -1"),
    "huge pixel": (pixels(0, "9" * 30 + PIXELS[0][PIXELS[0].index(" ") :]), r"row 2: a pixel is out of range: 999"),
    "fraction": (pixels(2, "1.5" + PIXELS[2][PIXELS[2].index(" ") :]), r"row 4: a pixel is no integer: '1\.5'"),
    "word in pixels": (pixels(2, "x" + PIXELS[2][PIXELS[2].index(" ") :]), r"row 4: a pixel is no integer: 'x'"),
    "zero byte": (pixels(2, PIXELS[2].replace(" ", "\0", 1)), r"row 4: a pixel is no integer"),
    "open quote": (pixels(2, '"' + PIXELS[2]), r"row 4: a quote is not closed"),
    "label 7": (
        replaced(1, f"7,{PIXELS[1]},Training"),
        r"row 3: the label is out of range: 7, expected 0 angry \.\. ",
    ),
    "label -1": (replaced(1, f"-1,{PIXELS[1]},Training"), r"row 3: the label is out of range: -1"),
    "label word": (replaced(1, f"sad,{PIXELS[1]},Training"), r"row 3: the label is no integer: 'sad'"),
    "no label": (replaced(1, f",{PIXELS[1]},Training"), r"row 3: the label is no integer: ''"),
    "unknown usage": (replaced(3, f"1,{PIXELS[3]},Test"), r"row 5: unknown Usage: 'Test', expected Training, PublicT"),
    "missing cell": (replaced(3, f"1,{PIXELS[3]}"), r"row 5: wrong number of columns: 2, expected 3 \(emotion, pixels"),
    "spare cell": (replaced(3, LINES[3] + ",x"), r"row 5: wrong number of columns: 4"),
    "last row cut in usage": (cut(4), r"row 36: unknown Usage: 'PrivateT'"),
    "last row cut in pixels": (cut(200), r"row 36: wrong number of columns: 2"),
    "header only": (lambda f: write_csv(f, []), r"no rows: the file ends after its header"),
    "empty file": (with_file("fer2013.csv", b""), r"no known layout[\s\S]*fer2013\.csv \(empty\)"),
    "empty folder": (lambda f: f.mkdir(parents=True) or f, r"no known layout[\s\S]*bad/ \(empty\)"),
    "no header": (lambda f: write_csv(f, LINES[1:], header=LINES[0]), r"no known layout[\s\S]*first line: \d, "),
    "missing column": (
        lambda f: write_csv(f, header="emotion,pixel,Usage"),
        r"no known[\s\S]*line: emotion, pixel",
    ),
    "column twice": (lambda f: write_csv(f, header="emotion,pixels,pixels"), r"no known layout"),
    "binary file": (with_file("fer2013.csv", bytes(range(256)) * 8), r"no known layout"),
    "train.csv alone": (lambda f: write_csv(f, name="train.csv", header="emotion,pixels"), r"no known layout"),
    "two csv": (
        lambda f: write_csv(write_csv(f), name="copy.csv"),
        r"2 layouts fit[\s\S]*copy\.csv",
    ),
    "csv and folders": (lambda f: write_csv(write_folders(f)), r"2 layouts fit[\s\S]*name the one you mean"),
    "unreadable image": (in_folders(FIRST, b"no image"), r"Training_0\.png: unreadable image"),
    "cut image": (in_folders(FIRST, GREY[:900]), r"Training_0\.png: unreadable image"),
    "empty image": (in_folders(FIRST, b""), r"Training_0\.png: unreadable image"),
    "image size": (in_folders(FIRST, png(IMAGES[0][:40])), r"Training_0\.png: wrong image size: 48x40, expected 48x48"),
    "colour image": (in_folders(FIRST, COLOUR), r"Training_0\.png: a colour image"),
    "32-bit image": (in_folders(FIRST, png(IMAGES[0].astype(np.float32), "TIFF")), r"neither an 8-bit nor a 16-bit"),
    "text among images": (in_folders("train/sad/notes.txt", b"x"), r"notes\.txt: not an image"),
    "unknown class": (in_folders("train/contempt/Training_90.png", GREY), r"unknown class folder: 'contempt'"),
    "two names of a class": (in_folders("train/happiness/Training_30.png", GREY), r"two folders for one class"),
    "no prefix": (in_folders("train/sad/99.png", GREY), r"99\.png: the name has no prefix Training_"),
    "test image in train": (
        in_folders("train/sad/PrivateTest_30.png", GREY),
        r"name says PrivateTest but it lies",
    ),
    "row twice": (in_folders("test/sad/PrivateTest_34.jpg", GREY), r"number 34 occurs twice"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_the_old_store_stays(tmp_path, case):
    write, reason = MALFORMED[case]
    old, _ = prepared(write_csv(tmp_path / "good"), tmp_path)
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "bad"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [".fer2013.lock", "fer2013"]
    Store.open(old.path).verify()
    assert rows_of(Store.open(old.path)) == EXPECTED


@pytest.mark.parametrize("case", ["too few pixels", "unreadable image"])
def test_malformed_source_leaves_no_store_where_none_was(tmp_path, case):
    with pytest.raises(DataError):
        prepared(MALFORMED[case][0](tmp_path / "bad"), tmp_path)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".fer2013.lock"]


def test_all_problems_are_told_at_once(tmp_path):
    lines = list(LINES)
    lines[0], lines[9], lines[30] = f"9,{PIXELS[0]},Training", "0,1 2,Training", f"0,{PIXELS[30]},Nowhere"
    with pytest.raises(DataError, match=r"3 problems") as error:
        prepared(write_csv(tmp_path / "raw", lines), tmp_path)
    assert [row in str(error.value) for row in ("row 2:", "row 11:", "row 32:")] == [True] * 3


def test_missing_images_warn_but_work(tmp_path):
    store, said = prepared(write_csv(tmp_path / "raw", LINES[:-1]), tmp_path)
    label = CLASSES[LABELS[-1]]
    assert len(store) == len(LINES) - 1
    assert f"PrivateTest/{label}: {COUNTS['PrivateTest'][LABELS[-1]] - 1}, expected" in said
    assert len(store.manifest["checks"]["differences"]) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 12),
    order=st.permutations(["emotion", "pixels", "Usage"]),
    end=st.sampled_from(["\n", "\r\n"]),
    quote=st.sampled_from(["", '"']),
    top=st.sampled_from([1, 10, 100, 256]),
)
def test_csv_round_trip(tmp_path_factory, seed, rows, order, end, quote, top):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, top, (rows, 48 * 48), dtype=np.uint8)
    labels, usages = rng.integers(0, 7, rows), rng.choice(USAGES, rows)
    lines = [",".join(order)]
    for image, label, usage in zip(images, labels, usages, strict=True):
        cells = {"emotion": str(label), "pixels": f"{quote}{' '.join(map(str, image))}{quote}", "Usage": usage}
        lines.append(",".join(cells[c] for c in order))
    path = tmp_path_factory.mktemp("csv") / "some.csv"
    path.write_text(end.join([*lines, ""]), newline="")
    chunks = list(Fer2013().read(path).chunks())
    assert np.array_equal(np.concatenate([c.images for c in chunks]).reshape(rows, -1), images)
    assert np.concatenate([c.labels for c in chunks]).tolist() == labels.tolist()
    assert [s for c in chunks for s in c.split] == usages.tolist()


@given(st.lists(st.text("0123456789 -.x", max_size=12), min_size=1, max_size=4), st.integers(1, 5))
def test_fast_parser_accepts_only_what_the_slow_one_reads(texts, size):
    found = parse_pixels([t.encode() for t in texts], size)
    valid = all(re.fullmatch(rf"(\d{{1,3}} ){{{size - 1}}}\d{{1,3}}", t) for t in texts)
    valid = valid and all(int(v) <= 255 for t in texts for v in t.split())
    assert (found is not None) == valid
    if found is not None:
        assert found.tolist() == [[int(v) for v in t.split()] for t in texts]


@pytest.mark.realdata
def test_real_fer2013_has_the_published_counts_and_pixels(tmp_path):
    unpack = real_unpacker()
    unpack.main("csv", tmp_path / "raw")
    store, said = prepared(tmp_path / "raw", tmp_path, Fer2013())
    assert "match its card" in said
    assert store.manifest["counts"] == {split: list(counts) for split, counts in card.counts.items()}
    # the two hashes: SHA-256 of the decoded arrays in the original's row order
    assert store.manifest["parts"]["pixels"] == "c267d81af4fae7bced50ff1be0ce06f7d14fb05887ece2efe39e04c35f8558b1"
    labels = store.columns("label")["label"].astype(np.uint8).tobytes()
    assert hashlib.sha256(labels).hexdigest() == "f794993487dfeee2db4ebcc894efaf41b3bbe6b8901490fc789a0768b54272fd"
    assert store.fingerprint == "f7af98413edd9b14"
    shutil.rmtree(tmp_path / "raw")  # 400 MB that pytest would keep for three sessions
    shutil.rmtree(store.path)

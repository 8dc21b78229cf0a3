"""JAFFE: portraits whose names tell subject and class, in grey and palette TIFF, and files that are wrong."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets.jaffe import Jaffe, card
from fer_bench.record.home import Home

# in the order of their numbers; every third one is a palette file, as 23 of the original's are
NAMES = (
    "KA.AN1.39",
    "KA.DI1.42",
    "KA.FE1.45",
    "KA.HA1.29",
    "KA.NE1.26",
    "KA.SA1.33",
    "KA.SU1.36",
    "YM.AN2.62",
    "YM.HA2.53",
    "UY.HA10.138",
)
NUMBERED = sorted(NAMES, key=lambda n: int(n.split(".")[2]))
LABELS = {"AN": 0, "DI": 1, "FE": 2, "HA": 3, "NE": 4, "SA": 5, "SU": 6}
SIDE = 32
PICTURES = {n: np.random.default_rng(k).integers(0, 256, (SIDE, SIDE), dtype=np.uint8) for k, n in enumerate(NAMES)}
EXPECTED = [(PICTURES[n].tobytes(), LABELS[n.split(".")[1][:2]]) for n in NUMBERED]


class Tiny(Jaffe):
    """The dataset under test, expecting 10 images."""

    card = dataclasses.replace(card, counts={"all": (2, 1, 1, 3, 1, 1, 1)})


def palette_image(picture: np.ndarray) -> Image.Image:
    """The same greys through a palette in another order than 0, 1, 2, ..."""
    image = Image.fromarray(255 - picture, mode="P")
    image.putpalette([255 - k // 3 for k in range(768)])
    return image


def write_files(folder: Path, suffix="tiff", place=lambda code: "") -> Path:
    for k, (name, picture) in enumerate(PICTURES.items()):
        path = folder / "jaffe" / place(name.split(".")[1][:2]) / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = palette_image(picture) if k % 3 == 0 and suffix == "tiff" else Image.fromarray(picture)
        image.save(path)
    (folder / "jaffe" / "README").write_text("terms")
    return folder


FOLDERS = {
    "AN": "anger",
    "DI": "disgust",
    "FE": "Fear",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sad",
    "SU": "surprise",
}


def write_folders(folder: Path) -> Path:
    return write_files(folder, place=FOLDERS.get)


def prepared(source: Path, home: Path, dataset=None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or Tiny(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int]]:
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), k) for i, k in zip(images, store.columns("label")["label"].tolist(), strict=True)]


@pytest.mark.parametrize(("write", "layout"), [(write_files, "files"), (write_folders, "folders")])
def test_every_layout_gives_the_same_store_in_the_order_of_the_numbers(tmp_path, write, layout):
    store, said = prepared(write(tmp_path / "raw"), tmp_path)
    plain, _ = prepared(write_files(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.fingerprint == plain.fingerprint
    assert store.manifest["layout"] == layout
    assert f"recognised {layout}: {tmp_path}" in said
    assert "classes and 3 subjects from the file names" in said
    assert "match its card" in said


def test_palette_files_come_out_grey_with_their_values(tmp_path):
    store, _ = prepared(write_files(tmp_path / "raw"), tmp_path)
    assert store.manifest["survey"]["modes"] == {"L": 6, "P": 4}
    assert store.shape == (1, SIDE, SIDE)
    assert rows_of(store) == EXPECTED


def test_names_tell_the_subject(tmp_path):
    table = prepared(write_files(tmp_path / "raw"), tmp_path)[0].columns("subject", "source", "split")
    assert table["source"].tolist() == [f"{n}.tiff" for n in NUMBERED]
    assert table["subject"].tolist() == [n[:2] for n in NUMBERED]
    assert set(table["split"]) == {"all"}


def test_names_in_other_case_and_other_lossless_formats_are_read(tmp_path):
    raw = write_files(tmp_path / "raw", suffix="png")
    for path in sorted(raw.rglob("KA.*")):
        path.rename(path.with_name(path.name.lower().replace(".png", ".PNG")))
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert "JPEG" not in said


def test_jpeg_copies_are_called_so(tmp_path):
    store, said = prepared(write_files(tmp_path / "raw", suffix="jpg"), tmp_path)
    assert [label for _, label in rows_of(store)] == [label for _, label in EXPECTED]
    assert "JPEG copies" in said


def test_a_missing_image_is_told_and_read_without(tmp_path):
    raw = write_files(tmp_path / "raw")
    (raw / "jaffe" / "UY.HA10.138.tiff").unlink()
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED[:-1]
    assert "all/happy: 2, expected 3" in said


def picture(mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURES["KA.AN1.39"]).convert(mode).save(buffer, "TIFF")
    return buffer.getvalue()


def put(name: str, data: bytes, write=write_files):
    def changed(folder: Path) -> Path:
        path = write(folder) / "jaffe" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return folder

    return changed


MALFORMED = {
    "unknown class": (
        put("KA.XX1.40.tiff", picture()),
        r"KA\.XX1\.40\.tiff: not a JAFFE name: expected subject\.class",
    ),
    "no number": (put("KA.AN1.tiff", picture()), r"KA\.AN1\.tiff: not a JAFFE name"),
    "no take": (put("KA.AN.40.tiff", picture()), r"KA\.AN\.40\.tiff: not a JAFFE name"),
    "other picture": (put("group.png", picture()), r"group\.png: not a JAFFE name"),
    "image twice": (put("ka.an1.39.tif", picture()), r"the image occurs twice: also .*KA\.AN1\.39\.tiff"),
    "no image": (put("KA.AN1.39.tiff", b"text"), r"KA\.AN1\.39\.tiff: unreadable image"),
    "cut image": (put("KA.AN1.39.tiff", picture()[:-300]), r"KA\.AN1\.39\.tiff: unreadable image"),
    "empty image": (put("KA.AN1.39.tiff", b""), r"KA\.AN1\.39\.tiff: unreadable image"),
    "deep image": (
        put("KA.AN1.39.tiff", picture("F")),
        r"KA\.AN1\.39\.tiff: neither an 8-bit nor a 16-bit image: mode F",
    ),
    "wrong folder": (
        put("sad/KA.HA1.40.tiff", picture(), write_folders),
        r"KA\.HA1\.40\.tiff: the name says happy but it lies in sad/",
    ),
    "files and folders": (
        put("KA.HA1.40.tiff", picture(), write_folders),
        r"2 layouts fit[\s\S]*files: [\s\S]*folders: [\s\S]*name the one you mean",
    ),
    "other images only": (
        lambda f: (f.mkdir(), (f / "a.tiff").write_bytes(picture()), f)[2],
        r"no known layout of jaffe[\s\S]*files: KA\.AN1\.39\.tiff[\s\S]*a\.tiff",
    ),
    "one file": (
        lambda f: write_files(f) / "jaffe" / "KA.AN1.39.tiff",
        r"no known layout of jaffe[\s\S]*KA\.AN1\.39\.tiff \(a file of",
    ),
    "empty folder": (lambda f: f.mkdir() or f, r"no known layout of jaffe[\s\S]*\(empty\)"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_leaves_no_store(tmp_path, case):
    write, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "bad"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".jaffe.lock"]


def test_all_problems_are_told_at_once_and_lenient_reading_goes_on(tmp_path):
    raw = put("KA.AN1.39.tiff", b"text")(tmp_path / "raw")
    (raw / "jaffe" / "group.png").write_bytes(b"x")
    with pytest.raises(DataError, match="2 problems"):
        prepared(raw, tmp_path)
    store, _ = prepared(raw, tmp_path, Tiny(lenient=True))
    assert rows_of(store) == [row for row, name in zip(EXPECTED, NUMBERED, strict=True) if name != "KA.AN1.39"]


def test_card_counts_are_those_published():
    assert sum(card.counts["all"]) == 213
    assert card.protocol(None).folds == 10
    assert card.protocol(None).group == "subject"

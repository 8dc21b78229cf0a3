"""Parquet files of images: every form the hub has them in, and what is said of files that are wrong."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._parquet.names import class_names
from fer_bench.datasets.parquet import Parquet, card
from fer_bench.record.home import Home

CLASSES = ("surprise", "anger", "neutral")  # no alphabetical order
SPLITS = {"train": 5, "val": 2, "test": 3}
LABELS = {"train": [0, 1, 2, 0, 1], "val": [2, 0], "test": [1, 2, 0]}
IMAGES = {s: np.random.default_rng(k).integers(0, 256, (n, 9, 9), np.uint8) for k, (s, n) in enumerate(SPLITS.items())}
EXPECTED = [(i.tobytes(), k, s) for s in SPLITS for i, k in zip(IMAGES[s], LABELS[s], strict=True)]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
METADATA = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
README = """---
license: unknown
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': surprise
          '1': anger
          '2': neutral
---
# Faces
"""
NUMBERS = pa.int64()


def png(pixels: np.ndarray, kind="PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_file(path: Path, split: str, part=slice(None), *, metadata=METADATA, struct=True, **other) -> Path:
    """One file of a split; `other` may give image and label columns, their names, and the labels' type."""
    files = other.get("files") or [png(image) for image in IMAGES[split][part]]
    labels = other.get("labels") or LABELS[split][part]
    images = pa.array([{"bytes": f, "path": "x.png"} for f in files] if struct else files)
    names = other.get("names", ("image", "label"))
    table = pa.table(dict(zip(names, (images, pa.array(labels, other.get("kind", NUMBERS))), strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)
    return path


def write_hub(folder: Path, **options) -> Path:
    """One file a split, as ``push_to_hub`` names them."""
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        write_file(folder / f"{name}-00000-of-00001-1f941ad22da7937c.parquet", split, **options)
    return folder


def write_sharded(folder: Path) -> Path:
    write_hub(folder)
    (folder / "train-00000-of-00001-1f941ad22da7937c.parquet").unlink()
    write_file(folder / "train-00000-of-00002.parquet", "train", slice(0, 3))
    write_file(folder / "train-00001-of-00002.parquet", "train", slice(3, None))
    return folder


def write_converted(folder: Path) -> Path:
    """The tree that the hub converts other forms to: <configuration>/<split>/0000.parquet."""
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        write_file(folder / "default" / name / "0000.parquet", split)
    return folder


def with_note(folder: Path, name: str, text: str, **options) -> Path:
    write_hub(folder / "data", metadata=None, **options)
    (folder / name).write_text(text)
    return folder


def as_texts(folder: Path, kind=None) -> Path:
    for split, labels in LABELS.items():
        texts = [CLASSES[k] for k in labels]
        write_file(folder / f"{split}.parquet", split, labels=texts, kind=kind or pa.string(), metadata=None)
    return folder


def prepared(source: Path, home: Path, **params) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), Parquet(params), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int, str]]:
    table = store.columns("label", "split")
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), int(k), str(s)) for i, k, s in zip(images, table["label"], table["split"], strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        write_hub,
        write_sharded,
        write_converted,
        lambda raw: write_hub(raw / "repo" / "data").parents[1],
        lambda raw: write_hub(raw, struct=False, names=("image", "label")),
        lambda raw: write_hub(raw, kind=pa.int32()),
        lambda raw: with_note(raw, "README.md", README),
        lambda raw: with_note(raw, "dataset_info.json", json.dumps({"features": FEATURES})),
        lambda raw: with_note(raw, "dataset_infos.json", json.dumps({"default": {"features": FEATURES}})),
    ],
    ids=["hub", "shards", "converted", "deep", "bytes", "int32", "README", "info", "infos"],
)
def test_every_form_of_the_same_rows_gives_the_same_store(tmp_path, write):
    store, said = prepared(write(tmp_path / "raw"), tmp_path)
    plain, _ = prepared(write_hub(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.classes == CLASSES
    assert store.fingerprint == plain.fingerprint
    assert "5 train, 2 val, 3 test; the files tell the classes: surprise, anger, neutral" in said


def test_bytes_and_numbers_get_the_names_that_are_given(tmp_path):
    raw = write_hub(tmp_path / "raw", struct=False, names=("img_bytes", "labels"), metadata=None)
    store, said = prepared(raw, tmp_path, classes="surprise,anger,neutral")
    assert rows_of(store) == EXPECTED
    assert store.classes == CLASSES
    assert "labels are numbers from 0, with the names that were given" in said


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_texts_are_classes_in_alphabetical_order(tmp_path, kind):
    store, said = prepared(as_texts(tmp_path / "raw", kind), tmp_path)
    assert store.classes == ("anger", "neutral", "surprise")
    assert [(i, store.classes[k], s) for i, k, s in rows_of(store)] == [(i, CLASSES[k], s) for i, k, s in EXPECTED]
    assert "labels are names, classes in alphabetical order" in said


def test_one_file_without_a_split_is_one_part(tmp_path):
    store, _ = prepared(write_file(tmp_path / "raw" / "faces.parquet", "test"), tmp_path)
    assert rows_of(store) == [(i, k, "all") for i, k, s in EXPECTED if s == "test"]


def test_the_metadata_decide_between_two_label_columns(tmp_path):
    path = tmp_path / "raw" / "train.parquet"
    path.parent.mkdir()
    images = [png(i) for i in IMAGES["val"]]
    table = pa.table({"image": images, "emotion": [9, 9], "label": LABELS["val"]})
    pq.write_table(table.replace_schema_metadata(METADATA), path)
    store, said = prepared(path, tmp_path)
    assert store.columns("label")["label"].tolist() == LABELS["val"]
    assert "labels in label" in said


def test_only_images_of_one_size_are_taken_on_demand(tmp_path):
    other = png(np.zeros((9, 12), np.uint8))
    files = [other, *(png(i) for i in IMAGES["train"][1:])]
    raw = write_file(tmp_path / "raw" / "train.parquet", "train", files=files).parent
    store, said = prepared(raw, tmp_path, only_size=9)
    assert rows_of(store) == EXPECTED[1:5]
    assert "1 images of another size left out" in said
    mixed, said = prepared(raw, tmp_path / "b")
    assert mixed.shape == (1, 12, 12)
    assert "images of several sizes or shapes are brought to 12x12 (stretch)" in said


def test_larger_images_are_scaled_and_colours_kept(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    raw = write_file(tmp_path / "raw" / "train.parquet", "train", files=[png(colour)] * 5).parent
    store, _ = prepared(raw, tmp_path, size=10)
    assert store.shape == (3, 10, 10)
    kept, _ = prepared(raw, tmp_path / "b")
    assert np.array_equal(kept.images(np.arange(1))[0], colour.transpose(2, 0, 1))


def test_hidden_labels_are_kept_as_unlabelled_and_said(tmp_path):
    raw = write_hub(tmp_path / "raw")
    write_file(raw / "test-00000-of-00001-1f941ad22da7937c.parquet", "test", labels=[-1, -1, -1])
    store, said = prepared(raw, tmp_path)
    assert [k for _, k, s in rows_of(store) if s == "test"] == [-1, -1, -1]
    assert "3 rows have NO LABEL (-1)" in said


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        (NUMBERS, [0, None, 2, 0, 1]),
        (pa.float64(), [0.0, None, 2.0, 0.0, 1.0]),  # as pandas keeps numbers of which one is missing
        (pa.float64(), [0.0, float("nan"), 2.0, 0.0, 1.0]),
        (pa.float32(), [0.0, -1.0, 2.0, 0.0, 1.0]),
        (pa.string(), ["surprise", "None", "neutral", "surprise", "anger"]),
        (pa.string(), ["surprise", "", "neutral", "surprise", "anger"]),
        (pa.string(), ["surprise", None, "neutral", "surprise", "anger"]),
    ],
)
def test_a_missing_label_is_no_class_but_a_row_without_label_and_counted(tmp_path, kind, labels):
    write_file(tmp_path / "raw" / "train.parquet", "train", labels=labels, kind=kind)
    store, said = prepared(tmp_path / "raw", tmp_path)
    assert store.classes == CLASSES
    assert store.columns("label")["label"].tolist() == [0, -1, 2, 0, 1]
    assert "1 row has NO LABEL" in said


def test_a_set_without_any_label_is_refused(tmp_path):
    write_file(tmp_path / "raw" / "train.parquet", "train", labels=["NA"] * 5, kind=pa.string(), metadata=None)
    with pytest.raises(DataError, match="not one row has a label"):
        prepared(tmp_path / "raw", tmp_path)


def test_sixteen_bits_are_brought_to_eight_and_counted(tmp_path):
    deep = [png(i.astype(np.uint16) * 257) for i in IMAGES["train"]]
    plain = [*(png(i) for i in IMAGES["train"][:2]), *deep[2:]]
    write_file(tmp_path / "raw" / "train.parquet", "train", files=plain)
    store, said = prepared(tmp_path / "raw", tmp_path)
    assert rows_of(store) == EXPECTED[:5]
    assert "3 images of 16 bits a pixel brought to 8" in said
    assert store.manifest["survey"]["treated"] == {"16-bit": 3}


def test_survey_counts_sizes_and_modes(tmp_path):
    store, _ = prepared(write_hub(tmp_path / "raw"), tmp_path)
    assert store.manifest["survey"] == {"sizes": {"9x9": 10}, "modes": {"L": 10}}


def test_a_file_longer_than_a_batch_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_bench.datasets._parquet.shards.BATCH", 2)
    assert rows_of(prepared(write_hub(tmp_path / "raw"), tmp_path)[0]) == EXPECTED


def test_lenient_reading_leaves_faulty_rows_out(tmp_path):
    files = [b"no image", *(png(i) for i in IMAGES["train"][1:])]
    raw = write_file(tmp_path / "raw" / "train.parquet", "train", files=files, labels=[0, 1, 7, 0, 1]).parent
    dataset = Parquet(lenient=True)
    chunks = list(dataset.read(raw).chunks())
    assert [i.tobytes() for c in chunks for i in c.images] == [EXPECTED[k][0] for k in (1, 3, 4)]
    assert len(dataset.faults) == 2


def one(**options):
    return lambda raw: write_file(raw / "train.parquet", "train", **options).parent


def truncated(raw: Path) -> Path:
    path = write_file(raw / "train.parquet", "train")
    path.write_bytes(path.read_bytes()[:-20])
    return raw


def damaged_inside(raw: Path) -> Path:
    path = write_file(raw / "train.parquet", "train")
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    return raw


def contradicting(raw: Path) -> Path:
    turned = README.replace("'0': surprise", "'0': anger").replace("'1': anger", "'1': surprise")
    (write_hub(raw) / "README.md").write_text(turned)
    return raw


def with_file(name: str, data: bytes):
    def write(raw: Path) -> Path:
        raw.mkdir()
        (raw / name).write_bytes(data)
        return raw

    return write


def half_named(raw: Path) -> Path:
    write_file(raw / "train.parquet", "train")
    return write_file(raw / "faces.parquet", "test").parent


def missing_part(raw: Path) -> Path:
    (write_sharded(raw) / "train-00000-of-00002.parquet").unlink()
    return raw


def part_twice(raw: Path) -> Path:
    write_file(write_sharded(raw) / "train-00000-of-00002-aa.parquet", "train", slice(0, 3))
    return raw


GOOD = [png(i) for i in IMAGES["train"]]
MALFORMED = {
    "numbers without names": (
        one(metadata=None),
        {},
        r"numbers, and nothing tells what they mean[\s\S]*column label, values 0, 1, 2[\s\S]*README[\s\S]*classes=NAME",
    ),
    "names contradict": (contradicting, {}, r"class names differ[\s\S]*README\.md: anger, surprise, neutral"),
    "parameter contradicts": (write_hub, {"classes": "anger,neutral,surprise"}, r"contradicts[\s\S]*tell: surprise"),
    "label above": (one(labels=[0, 1, 3, 0, 1]), {}, r"train\.parquet, row 2: unknown label: '3', the classes are sur"),
    "no bytes": (one(files=[*GOOD[:4], None]), {}, r"row 4: no image: the row holds no bytes"),
    "no image": (one(files=[*GOOD[:4], b"GIF"]), {}, r"row 4: unreadable image"),
    "cut image": (one(files=[*GOOD[:4], GOOD[4][:60]]), {}, r"row 4: unreadable image"),
    "truncated file": (truncated, {}, r"no readable parquet file[\s\S]*train\.parquet"),
    "damaged pages": (damaged_inside, {}, r"train\.parquet: damaged from row 0 on"),
    "no parquet": (with_file("train.parquet", b"PAR1"), {}, r"no readable parquet file"),
    "empty folder": (lambda raw: raw.mkdir() or raw, {}, r"no known layout of parquet[\s\S]*raw/ \(empty\)"),
    "pickle": (with_file("train.pt", b"\x80\x04."), {}, r"no known[\s\S]*train\.pt \(a pickle: not read, because load"),
    "no image column": (one(files=["a"] * 5, struct=False), {}, r"no column holds image files: image string"),
    "no label column": (one(names=("image", "id")), {}, r"no label column known among id: --dataset-set label_column"),
    "column not there": (write_hub, {"label_column": "mood"}, r"no column 'mood' for the label among label"),
    "labels are fractions": (
        one(labels=[0.5] * 5, kind=pa.float64()),
        {},
        r"row 0: unknown label: '0\.5', the classes are",
    ),
    "labels are lists": (one(labels=[[0]] * 5, kind=pa.list_(NUMBERS)), {}, r"neither numbers nor texts: list<"),
    "one file without a split": (half_named, {}, r"some files name their split[\s\S]*faces\.parquet: no split"),
    "part missing": (missing_part, {}, r"train-00001-of-00002\.parquet: other parts are missing: of 2 of train, num"),
    "part twice": (part_twice, {}, r"train-00000-of-00002\.parquet: a second file for one part: also train-00000"),
    "only another size": (write_hub, {"only_size": 100}, r"not one readable image[\s\S]*none of that size"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_nothing_is_written(tmp_path, case):
    write, params, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "raw"), tmp_path, **params)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".parquet.lock"]


def test_texts_and_numbers_in_one_set_are_refused(tmp_path):
    raw = as_texts(tmp_path / "raw")
    write_file(raw / "test.parquet", "test")
    with pytest.raises(DataError, match="keep their labels differently") as error:
        prepared(raw, tmp_path)
    assert "test.parquet: label, numbers" in str(error.value)


def test_all_problems_are_told_at_once(tmp_path):
    raw = write_file(tmp_path / "raw" / "train.parquet", "train", labels=[9, 1, 2, 0, 1]).parent
    write_file(raw / "test.parquet", "test", files=[b"x", png(IMAGES["test"][1]), b"y"])
    with pytest.raises(DataError, match="3 problems"):
        prepared(raw, tmp_path)


def test_without_pyarrow_the_command_to_install_it_is_told(tmp_path, monkeypatch):
    raw = write_hub(tmp_path / "raw")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match="pip install pyarrow"):
        prepared(raw, tmp_path)


@pytest.mark.parametrize(
    "features",
    [
        None,
        {},
        {"label": {"dtype": "int64"}},
        [{"name": "label", "dtype": "int64"}],
        {"label": {"names": {"0": "a", "2": "b"}}},
        "label",
    ],
)
def test_what_is_no_class_label_gives_no_names(features):
    assert class_names(features, "label") == ()


def test_names_by_number_are_put_in_order():
    names = {str(k): f"class {k}" for k in reversed(range(12))}
    features = [{"name": "label", "dtype": {"class_label": {"names": names}}}]
    assert class_names(features, "label") == tuple(f"class {k}" for k in range(12))


def test_default_protocol_takes_the_given_parts():
    assert card.protocol(None).name == "given"

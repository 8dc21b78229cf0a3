"""CK+: original sequences, class folders, HDF5 and CSV, and what is said of files that are wrong."""

import dataclasses
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._ckplus import arrays
from fer_bench.datasets.ckplus import CkPlus, card
from fer_bench.datasets.fer2013 import Fer2013
from fer_bench.record.home import Home

# subject, sequence, class, frame numbers; the last three frames are the peak
SEQUENCES = [
    ("S010", "002", "surprise", (1, 2, 3, 4, 14)),
    ("S010", "004", "anger", (1, 17, 18, 19)),
    ("S011", "001", "happy", (1, 2, 3, 4)),
    ("S014", "002", "fear", (3, 4, 5, 6)),
    ("S014", "005", "sadness", (1, 2, 3, 4)),
    ("S055", "004", "anger", (1, 2, 3, 4)),
    ("S055", "005", "disgust", (7, 8, 9, 10)),
    ("S138", "008", "contempt", (1, 2, 3, 4)),
]
CODES = {"anger": 1, "contempt": 2, "disgust": 3, "fear": 4, "happy": 5, "sadness": 6, "surprise": 7}
COUNTS = {"all": (6, 3, 3, 3, 3, 3, 3)}
NAME = re.compile(r"(S\d+)_(\d+)_(\d+)")


def face(subject: str, sequence: str, number: int) -> np.ndarray:
    rng = np.random.default_rng([int(subject[1:]), int(sequence), number])
    return rng.integers(0, 256, (48, 48), dtype=np.uint8)


PEAKS = [(label, s, q, n) for s, q, label, numbers in SEQUENCES for n in numbers[-3:]]
PEAKS.sort(key=lambda p: (card.classes.index(p[0]), *p[1:]))
EXPECTED = [(face(s, q, n).tobytes(), card.classes.index(label)) for label, s, q, n in PEAKS]


class Tiny(CkPlus):
    """The dataset under test, expecting 8 sequences."""

    card = dataclasses.replace(card, counts=COUNTS)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_original(folder: Path, images="cohn-kanade-images", labels="Emotion", unlabelled=True) -> Path:
    for subject, sequence, label, numbers in SEQUENCES:
        for number in numbers:
            name = f"{subject}_{sequence}_{number:08d}"
            save(folder / images / subject / sequence / f"{name}.png", face(subject, sequence, number))
        path = folder / labels / subject / sequence / f"{name}_emotion.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"   {CODES[label]}.0000000e+00\n")
    if unlabelled:
        save(folder / images / "S999" / "001" / "S999_001_00000001.png", face("S999", "001", 1))
        (folder / labels / "S999" / "001").mkdir(parents=True)
    return folder


def write_folders(folder: Path, names=card.classes, tree="CK+48") -> Path:
    for label, subject, sequence, number in PEAKS:
        place = folder / tree / names[card.classes.index(label)]
        save(place / f"{subject}_{sequence}_{number:08d}.png", face(subject, sequence, number))
    return folder


def write_hdf5(folder: Path, **arrays) -> Path:
    pixels = np.stack([face(s, q, n) for _, s, q, n in PEAKS])
    labels = np.asarray([card.classes.index(label) for label, *_ in PEAKS], dtype=np.int64)
    return write_arrays(folder, {"data_pixel": pixels, "data_label": labels, **arrays})


def write_arrays(folder: Path, arrays: dict) -> Path:
    h5py = pytest.importorskip("h5py", reason="HDF5 files are written with h5py: pip install h5py")
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "CK_data.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return folder


CSV_CODES = {"anger": 0, "disgust": 1, "fear": 2, "happy": 3, "sadness": 4, "surprise": 5, "neutral": 6, "contempt": 7}


def csv_lines(classes) -> list[str]:
    """One peak a sequence, of these classes, and a neutral row after each."""
    lines = []
    for k, (subject, sequence, label, numbers) in enumerate(SEQUENCES):
        if label in classes:
            usage = ("Training", "PublicTest", "PrivateTest")[k % 3]
            for code, number in ((CSV_CODES[label], numbers[-1]), (6, numbers[0])):
                lines.append(f"{code},{' '.join(map(str, face(subject, sequence, number).ravel()))},{usage}")
    return lines


def write_csv(folder: Path, lines: list[str] | None = None, name="ckextended.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = csv_lines(CODES) if lines is None else lines
    (folder / name).write_text("\n".join(["emotion,pixels,Usage", *rows, ""]))
    return folder


def prepared(source: Path, home: Path, dataset=None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or Tiny(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int]]:
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), k) for i, k in zip(images, store.columns("label")["label"].tolist(), strict=True)]


LAYOUTS = {"original": write_original, "folders48": write_folders, "hdf5": write_hdf5}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_of_the_same_frames_gives_the_same_store(tmp_path, layout):
    store, said = prepared(LAYOUTS[layout](tmp_path / "raw"), tmp_path)
    plain, _ = prepared(write_folders(tmp_path / "plain"), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.fingerprint == plain.fingerprint
    assert store.manifest["layout"] == layout
    assert f"recognised {layout}: {tmp_path}" in said
    assert "match its card" in said
    assert store.manifest["counts"] == {"all": list(COUNTS["all"])}


@pytest.mark.parametrize("write", [write_original, write_folders])
def test_names_tell_subject_sequence_and_frame(tmp_path, write):
    table = prepared(write(tmp_path / "raw"), tmp_path)[0].columns("subject", "sequence", "frame", "source")
    assert table["subject"].tolist() == [s for _, s, _, _ in PEAKS]
    assert table["sequence"].tolist() == [f"{s}_{q}" for _, s, q, _ in PEAKS]
    assert table["frame"].tolist() == [n for *_, n in PEAKS]
    assert table["source"][0] == "S010_004_00000017.png"


def test_arrays_have_no_subjects_and_say_so(tmp_path):
    store, said = prepared(write_hdf5(tmp_path / "raw"), tmp_path)
    table = store.columns("subject", "sequence", "source")
    assert set(table["subject"]) == set(table["sequence"]) == {""}
    assert table["source"].tolist() == list(range(24))
    assert "protocols by subject can't be used" in said


def test_rows_of_a_shuffled_hdf5_are_ordered_by_class(tmp_path):
    order = np.random.default_rng(0).permutation(24)
    pixels, labels = np.stack([face(s, q, n) for _, s, q, n in PEAKS]), np.asarray([k for _, k in EXPECTED])
    store, _ = prepared(write_hdf5(tmp_path / "raw", data_pixel=pixels[order], data_label=labels[order]), tmp_path)
    expected = sorted(order.tolist(), key=lambda k: EXPECTED[k][1])  # stable: within a class as in the file
    assert rows_of(store) == [EXPECTED[k] for k in expected]


def test_hdf5_is_compared_with_the_known_file(tmp_path, monkeypatch):
    raw = write_hdf5(tmp_path / "raw")
    assert "NOT the known file" in prepared(raw, tmp_path)[1]
    monkeypatch.setattr(arrays, "HDF5_SHA256", hashlib.sha256((raw / "CK_data.h5").read_bytes()).hexdigest())
    assert "the known file by its SHA-256" in prepared(raw, tmp_path / "b")[1]


def test_missing_h5py_names_the_command(tmp_path, monkeypatch):
    raw = write_hdf5(tmp_path / "raw")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"need h5py[\s\S]*CK_data\.h5[\s\S]*pip install 'fer-bench\[hdf5\]'"):
        prepared(raw, tmp_path)


def test_arrays_larger_than_the_size_are_scaled_down(tmp_path):
    store, said = prepared(write_hdf5(tmp_path / "raw"), tmp_path, Tiny({"size": 24}))
    assert store.shape == (1, 24, 24)
    assert "48x48 are brought to 24x24" in said


@pytest.mark.parametrize("names", [("images", "Emotion_labels"), ("a/cohn-kanade-images", "b/Emotion"), ("ck", "ck")])
def test_images_and_labels_may_lie_in_folders_of_any_name(tmp_path, names):
    raw = write_original(tmp_path / "raw", *names, unlabelled=False)
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


def test_landmarks_and_action_units_beside_the_labels_are_passed_over(tmp_path):
    raw = write_original(tmp_path / "raw")
    for kind in ("Landmarks", "FACS"):
        path = raw / kind / "S010" / "004" / f"S010_004_00000019_{kind.lower()}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("1 2")
    assert rows_of(prepared(raw, tmp_path)[0]) == EXPECTED


def test_sequences_without_a_label_of_the_seven_are_counted(tmp_path):
    raw = write_original(tmp_path / "raw")
    (raw / "Emotion/S055/005/S055_005_00000010_emotion.txt").write_text("0.0000000e+00")
    store, said = prepared(raw, tmp_path)
    assert len(store) == 21
    assert "the last 3 frames of 7 sequences" in said
    assert "2 sequences without a label of the seven classes are left out" in said
    assert "all/disgust: 0, expected 3" in said


def test_last_frames_are_a_parameter(tmp_path):
    store, _ = prepared(write_original(tmp_path / "raw"), tmp_path, Tiny({"frames": 1}))
    assert store.columns("frame")["frame"].tolist() == [n for k, (*_, n) in enumerate(PEAKS) if k % 3 == 2]


def test_neutral_takes_the_first_frame_of_every_sequence(tmp_path):
    store, said = prepared(write_original(tmp_path / "raw"), tmp_path, Tiny({"neutral": True}))
    first = [face(s, q, numbers[0]).tobytes() for s, q, _, numbers in SEQUENCES] + [face("S999", "001", 1).tobytes()]
    assert rows_of(store) == EXPECTED + [(image, 7) for image in first]
    assert store.classes == (*card.classes, "neutral")
    assert "1 sequences without a label of the seven classes give their first frame only" in said


def test_neutral_folder_is_left_out_unless_asked_for(tmp_path):
    raw = write_folders(tmp_path / "raw")
    save(raw / "CK+48" / "Neutral" / "S999_001_00000001.png", face("S999", "001", 1))
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert "1 neutral images are left out" in said
    store, _ = prepared(raw, tmp_path / "b", Tiny({"neutral": True}))
    assert rows_of(store) == [*EXPECTED, (face("S999", "001", 1).tobytes(), 7)]


def test_neutral_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(DataError, match=r"there are no neutral images[\s\S]*CK_data\.h5[\s\S]*leave neutral at false"):
        prepared(write_hdf5(tmp_path / "raw"), tmp_path, Tiny({"neutral": True}))
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".ckplus.lock"]


def test_a_last_frame_that_is_not_the_labelled_one_is_told(tmp_path):
    raw = write_original(tmp_path / "raw")
    (raw / "cohn-kanade-images/S010/002/S010_002_00000014.png").unlink()
    assert "in 1 of them the last frame is not the one that the label names" in prepared(raw, tmp_path)[1]


def test_whole_pictures_are_cropped_to_the_middle_and_warned_of(tmp_path):
    raw = write_original(tmp_path / "raw", unlabelled=False)
    for path in raw.rglob("*.png"):
        save(path, np.pad(np.asarray(Image.open(path)), ((0, 0), (8, 8))))
    store, said = prepared(raw, tmp_path, Tiny({"size": 48}))
    assert rows_of(store) == EXPECTED
    assert "faces are neither cropped nor aligned" in said
    assert "64x48 are brought to 48x48 (crop)" in said


def test_class_folders_may_have_other_names(tmp_path):
    names = ("angry", "Disgusted", "FEAR", "happiness", "sad", "surprised", "contempt")
    assert rows_of(prepared(write_folders(tmp_path / "raw", names), tmp_path)[0]) == EXPECTED


def test_train_and_test_folders_are_put_together(tmp_path):
    raw = write_folders(tmp_path / "raw", tree="data/train")
    for path in sorted(raw.rglob("*.png"))[::4]:
        target = raw / "data" / "test" / path.relative_to(raw / "data" / "train")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    store, said = prepared(raw, tmp_path)
    assert rows_of(store) == EXPECTED
    assert set(store.columns("split")["split"]) == {"all"}
    assert "test, train are put together: CK+ has no such parts" in said


def test_clutter_of_operating_systems_is_passed_over(tmp_path):
    for raw in (write_original(tmp_path / "a"), write_folders(tmp_path / "b")):
        for place in [raw, *(p for p in raw.rglob("*") if p.is_dir())]:
            (place / ".DS_Store").write_bytes(b"x")
        assert rows_of(prepared(raw, tmp_path / f"home-{raw.name}")[0]) == EXPECTED


def csv_expected(neutral: bool) -> list[tuple[bytes, int]]:
    rows = [(face(s, q, numbers[-1]).tobytes(), card.classes.index(label)) for s, q, label, numbers in SEQUENCES]
    first = [(face(s, q, numbers[0]).tobytes(), 7) for s, q, _, numbers in SEQUENCES]
    return sorted(rows, key=lambda r: r[1]) + first * neutral


def test_csv_with_contempt_is_recognised_and_neutral_left_out(tmp_path):
    store, said = prepared(write_csv(tmp_path / "raw"), tmp_path)
    assert rows_of(store) == csv_expected(neutral=False)
    assert store.columns("usage")["usage"].tolist()[:2] == ["PublicTest", "PrivateTest"]
    assert set(store.columns("split")["split"]) == {"all"}
    assert "8 neutral rows are left out" in said
    assert "protocols by subject can't be used" in said
    assert "WARNING: the image counts differ from its card" in said


def test_csv_gives_the_neutral_rows_where_they_are_asked_for(tmp_path):
    store, _ = prepared(write_csv(tmp_path / "raw"), tmp_path, Tiny({"neutral": True}))
    assert rows_of(store) == csv_expected(neutral=True)


def test_csv_without_contempt_is_taken_only_on_request(tmp_path):
    raw = write_csv(tmp_path / "raw", csv_lines(["anger", "happy"]))
    with pytest.raises(DataError, match=r"no known layout of ckplus[\s\S]*without label 7[\s\S]*ck_csv=true"):
        prepared(raw, tmp_path)
    store, _ = prepared(raw, tmp_path, Tiny({"ck_csv": True}))
    assert store.manifest["counts"] == {"all": [2, 0, 0, 1, 0, 0, 0]}


def test_csv_with_contempt_is_not_taken_for_fer2013(tmp_path):
    with pytest.raises(DataError, match="the label is out of range: 7"):
        prepare(Home(tmp_path), Fer2013(), write_csv(tmp_path / "raw"), say=str)


def put(name: str, data: bytes, write=write_folders):
    def changed(folder: Path) -> Path:
        path = write(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return folder

    return changed


def without(name: str):
    def changed(folder: Path) -> Path:
        (write_original(folder) / name).unlink()
        return folder

    return changed


LABEL = "Emotion/S010/004/S010_004_00000019_emotion.txt"
FRAME = "CK+48/anger/S010_004_00000017.png"
GOOD = csv_lines(CODES)
MALFORMED = {
    "label word": (
        put(LABEL, b"angry", write_original),
        r"S010_004_00000019_emotion\.txt: the label is no number: 'ang",
    ),
    "label empty": (put(LABEL, b"\n", write_original), r"the label is no number: ''"),
    "label 8": (put(LABEL, b"8.0", write_original), r"the label is out of range: 8\.0, expected 0 neutral \.\. 7"),
    "label fraction": (put(LABEL, b"1.5", write_original), r"the label is out of range: 1\.5"),
    "label nan": (put(LABEL, b"nan", write_original), r"the label is out of range: nan"),
    "two labels": (
        put("Emotion/S010/004/S010_004_00000020_emotion.txt", b"1", write_original),
        r"00000020_emotion\.txt: a second label of one sequence: also S010_004_00000019",
    ),
    "label in a wrong folder": (
        put("Emotion/S010/004/S011_001_00000004_emotion.txt", b"5", write_original),
        r"the name says S011/001 but it lies in S010/004/",
    ),
    "strange label name": (put("Emotion/S010/004/notes.txt", b"5", write_original), r"notes\.txt: not a name of a lab"),
    "label without images": (
        put("Emotion/S500/001/S500_001_00000009_emotion.txt", b"1", write_original),
        r"S500_001_00000009_emotion\.txt: no image of the sequence S500/001",
    ),
    "frame in a wrong folder": (
        put("cohn-kanade-images/S010/004/S010_002_00000013.png", b"x", write_original),
        r"the name says S010/002 but it lies in S010/004/",
    ),
    "strange frame name": (
        put("cohn-kanade-images/S010/004/copy.png", b"x", write_original),
        r"copy\.png: not a name of a CK\+ frame",
    ),
    "images without labels": (
        lambda f: write_original(f, unlabelled=False).joinpath("Emotion").rename(f.parent / "elsewhere") and f,
        r"no known layout[\s\S]*cohn-kanade-images/ \(sequences of CK\+, but no \*_emotion\.txt labels\)",
    ),
    "two trees of images": (
        lambda f: write_original(write_original(f, unlabelled=False), images="copy", unlabelled=False),
        r"2 trees of CK\+ images[\s\S]*cohn-kanade-images[\s\S]*copy",
    ),
    "unreadable frame": (put(FRAME, b"no image"), r"S010_004_00000017\.png: unreadable image"),
    "strange name in a class": (put("CK+48/anger/17.png", b"x"), r"17\.png: not a name of a CK\+ frame"),
    "text in a class": (put("CK+48/anger/notes.txt", b"x"), r"notes\.txt: not a name of a CK\+ frame"),
    "unknown class": (put("CK+48/love/S010_004_00000020.png", b"x"), r"love: not a class folder: expected anger, dis"),
    "image among classes": (put("CK+48/S010_004_00000020.png", b"x"), r"00000020\.png: not a class folder"),
    "frame in two classes": (
        put("CK+48/fear/S010_004_00000017.png", b"x"),
        r"the frame occurs twice: also .*anger/S010_004_00000017\.png",
    ),
    "hdf5 shape": (
        lambda f: write_hdf5(f, data_pixel=np.zeros((24, 48, 40), np.uint8)),
        r"data_pixel is uint8 \[24, 48, 40\], expected uint8 \[n, 48, 48\][\s\S]*CK_data\.h5",
    ),
    "hdf5 type": (lambda f: write_hdf5(f, data_pixel=np.zeros((24, 48, 48))), r"data_pixel is float64 \[24, 48, 48\]"),
    "hdf5 fewer labels": (lambda f: write_hdf5(f, data_label=np.zeros(5, int)), r"data_label is int64 \[5\], expected"),
    "hdf5 label 7": (
        lambda f: write_hdf5(f, data_label=np.full(24, 7)),
        r"not one readable image[\s\S]*CK_data\.h5, row 0: the label is out of range: 7",
    ),
    "hdf5 one label": (
        lambda f: write_hdf5(f, data_label=np.asarray([-1] + [0] * 23)),
        r"CK_data\.h5, row 0: the label is out of range: -1, expected 0 anger \.\. 6 contempt",
    ),
    "hdf5 cut": (
        lambda f: put("CK_data.h5", (write_hdf5(f) / "CK_data.h5").read_bytes()[:9000], write_hdf5)(f),
        r"no known layout[\s\S]*CK_data\.h5 \(a damaged HDF5 file",
    ),
    "no hdf5": (lambda f: put("CK_data.h5", b"text", lambda g: g)(f), r"no known layout[\s\S]*CK_data\.h5 \(no HDF5 f"),
    "other hdf5": (
        lambda f: write_arrays(f, {"weights": [1]}),
        r"no known layout[\s\S]*CK_data\.h5 \(HDF5 with weights\)",
    ),
    "csv label 8": (
        lambda f: write_csv(f, [*GOOD, "8" + GOOD[0][1:]]),
        r"ckextended\.csv, row 18: the label is out of",
    ),
    "csv pixels": (
        lambda f: write_csv(f, [*GOOD, "7,1 2,Training"]),
        r"row 18: wrong number of pixels: 2, expected 2304",
    ),
    "empty folder": (lambda f: f.mkdir() or f, r"no known layout of ckplus[\s\S]*looked for[\s\S]*original: cohn-kan"),
    "csv and folders": (
        lambda f: write_csv(write_folders(f, tree=".")),
        r"2 layouts fit[\s\S]*csv: [\s\S]*folders48: ",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_leaves_no_store(tmp_path, case):
    write, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "bad"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".ckplus.lock"]


def test_too_few_frames_are_named(tmp_path):
    with pytest.raises(DataError, match=r"S010/004: too few frames: 4, 5 are needed"):
        prepared(write_original(tmp_path / "raw"), tmp_path, Tiny({"frames": 5}))


def test_malformed_source_keeps_the_old_store(tmp_path):
    old, _ = prepared(write_folders(tmp_path / "good"), tmp_path)
    with pytest.raises(DataError, match="1 problem"):
        prepared(put(FRAME, b"no image")(tmp_path / "bad"), tmp_path)
    Store.open(old.path).verify()
    assert rows_of(Store.open(old.path)) == EXPECTED


def test_all_problems_are_told_at_once_and_lenient_reading_goes_on(tmp_path):
    raw = put(FRAME, b"no image")(tmp_path / "raw")
    (raw / "CK+48" / "anger" / "17.png").write_bytes(b"x")
    with pytest.raises(DataError, match="2 problems"):
        prepared(raw, tmp_path)
    dataset = Tiny(lenient=True)
    store, _ = prepared(raw, tmp_path, dataset)
    assert rows_of(store) == EXPECTED[1:]
    assert sorted(Path(file).name for file, _, _ in dataset.faults.rows) == ["17.png", "S010_004_00000017.png"]


def test_counts_and_blocks_are_those_published():
    counts, take = card.counts["all"], card.protocol("wujie10").take
    starts = np.cumsum([0, *counts])
    slots = [starts[c] + fold * n + k for fold in range(9) for c, n in enumerate(take) for k in range(n)]
    slots += [starts[c + 1] - 1 - k for c, n in enumerate(take) for k in range(n)]  # the last fold: from the end
    assert (sum(counts), sum(counts) // card.sequence, sum(take)) == (981, 327, 99)
    assert (len(slots), len(set(slots))) == (990, 957)

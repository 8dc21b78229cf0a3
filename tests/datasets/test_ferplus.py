"""FER+: votes joined to FER2013 by row order, the labels made of them, and what is said of files that are wrong."""

import csv
import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._ferplus.votes import majority, plurality
from fer_bench.datasets.ferplus import Ferplus, card
from fer_bench.record.home import Home

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
# One row an image, by hand: usage, FER2013 label, ten votes, expected majority label, expected plurality label.
WORLD = (
    ("Training", 3, (0, 10, 0, 0, 0, 0, 0, 0, 0, 0), 1, 1),
    ("Training", 0, (4, 0, 0, 1, 3, 2, 0, 0, 0, 0), -1, 0),  # 4 of 9 counted votes is no majority
    ("Training", 0, (5, 1, 1, 1, 1, 1, 0, 0, 0, 0), 0, 0),  # single votes are dropped: 5 of 5
    ("Training", 6, (5, 0, 0, 5, 0, 0, 0, 0, 0, 0), -1, -1),  # a tie
    ("Training", 4, (0, 0, 0, 2, 0, 0, 0, 0, 8, 0), -1, -1),  # unknown has the majority
    ("Training", 2, (0, 0, 2, 0, 0, 0, 3, 0, 3, 2), -1, -1),  # fear and unknown share the first place
    ("PublicTest", 1, (0, 0, 0, 0, 3, 7, 0, 0, 0, 0), 5, 5),
    ("PublicTest", 5, (0, 0, 5, 0, 0, 0, 4, 0, 1, 0), 2, 2),  # 5 of 9
    ("PrivateTest", 4, (0, 0, 0, 0, 0, 0, 0, 9, 1, 0), 7, 7),
    ("PrivateTest", 4, (1, 0, 0, 4, 0, 0, 2, 0, 3, 0), -1, 3),  # 4 of 9
)
COUNTS = {
    "Training": (1, 1, 0, 0, 0, 0, 0, 0),
    "PublicTest": (0, 0, 1, 0, 0, 1, 0, 0),
    "PrivateTest": (0, 0, 0, 0, 0, 0, 0, 1),
}
NAMES = [f"fer{k:07d}.png" for k in range(len(WORLD))]
IMAGES = np.random.default_rng(3).integers(0, 256, (len(WORLD), 48, 48), dtype=np.uint8)
FACES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
EXPECTED = [(i.tobytes(), row[3], row[0]) for i, row in zip(IMAGES, WORLD, strict=True)]


class Tiny(Ferplus):
    """The dataset under test, expecting the ten images of WORLD."""

    card = dataclasses.replace(card, counts=COUNTS)


def vote_lines(names=NAMES) -> list[str]:
    return [f"{row[0]},{name},{','.join(map(str, row[2]))}" for row, name in zip(WORLD, names, strict=True)]


def write_votes(folder: Path, lines=None, header=HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fer2013new.csv").write_text("\n".join([header, *(lines or vote_lines()), ""]))
    return folder


def write_fer2013(folder: Path, images=IMAGES, world=WORLD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{row[1]},{' '.join(map(str, i.ravel()))},{row[0]}" for row, i in zip(world, images, strict=True)]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines, ""]))
    return folder


def write_icml(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{row[1]},{row[0]},{' '.join(map(str, i.ravel()))}" for row, i in zip(WORLD, IMAGES, strict=True)]
    (folder / "icml_face_data.csv").write_text("\n".join(["emotion, Usage, pixels", *lines, ""]))
    return folder


def write_folders(folder: Path) -> Path:
    for k, (row, image) in enumerate(zip(WORLD, IMAGES, strict=True)):
        place = folder / ("train" if row[0] == "Training" else "test") / FACES[row[1]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{row[0]}_{k}.png")
    return folder


def write_export(folder: Path, names=NAMES, lists="", images="") -> Path:
    """The form of the published scripts: rows in order, later images overwrite earlier ones of the same name."""
    places = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
    for usage, place in places.items():
        (folder / lists / place).mkdir(parents=True, exist_ok=True)
        (folder / images / place).mkdir(parents=True, exist_ok=True)
        rows = []
        for row, image, name in zip(WORLD, IMAGES, names, strict=True):
            if row[0] == usage and name:
                rows.append([name, "(0, 0, 48, 48)", *row[2]])
                Image.fromarray(image).save(folder / images / place / name)
        with open(folder / lists / place / "label.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return folder


def prepared(source: Path, home: Path, dataset=None) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset or Tiny(), source, say=said.append)
    return store, "\n".join(said)


def rows_of(store: Store) -> list[tuple[bytes, int, str]]:
    table = store.columns("label", "split")
    images = store.images(np.arange(len(store)))
    return [(i.tobytes(), int(k), str(s)) for i, k, s in zip(images, table["label"], table["split"], strict=True)]


@pytest.mark.parametrize("row", WORLD, ids=[f"row{k}" for k in range(len(WORLD))])
def test_majority_and_plurality_follow_the_published_rules(row):
    votes = np.asarray([row[2]])
    assert majority(votes).tolist() == [row[3]]
    assert plurality(votes).tolist() == [row[4]]


@pytest.mark.parametrize(
    "write",
    [
        lambda raw: write_fer2013(write_votes(raw)),
        lambda raw: write_icml(write_votes(raw)),
        lambda raw: write_folders(write_votes(raw) / "fer2013").parent,
        lambda raw: write_fer2013(write_votes(raw / "votes").parent / "pixels").parent,
        lambda raw: write_votes(write_fer2013(raw / "fer2013").parent / "ferplus"),
        lambda raw: write_votes(write_fer2013(raw / "fer2013").parent / "ferplus") / "fer2013new.csv",
        write_export,
        lambda raw: write_export(raw, lists="Labels", images="Images"),
    ],
    ids=["beside", "icml", "folders", "below", "sibling", "file", "export", "export in two trees"],
)
def test_every_layout_gives_the_same_store(tmp_path, write):
    store, said = prepared(write(tmp_path / "raw"), tmp_path)
    plain, _ = prepared(write_fer2013(write_votes(tmp_path / "plain")), tmp_path / "other")
    assert rows_of(store) == EXPECTED
    assert store.fingerprint == plain.fingerprint
    assert f"recognised {store.manifest['layout']}" in said
    assert store.manifest["counts"] == {k: list(v) for k, v in COUNTS.items()}


def test_votes_and_both_other_labels_stand_in_the_table(tmp_path):
    store, _ = prepared(write_fer2013(write_votes(tmp_path / "raw")), tmp_path)
    assert store.columns("plurality")["plurality"].tolist() == [row[4] for row in WORLD]
    assert store.columns("fer2013")["fer2013"].tolist() == [row[1] for row in WORLD]
    names = [f"votes_{n}" for n in HEADER.lower().split(",")[2:]]
    columns = store.columns(*names)
    assert np.stack([columns[n] for n in names], axis=1).tolist() == [list(row[2]) for row in WORLD]


def test_export_does_not_know_the_original_label(tmp_path):
    store, _ = prepared(write_export(tmp_path / "raw"), tmp_path)
    assert store.columns("fer2013")["fer2013"].tolist() == [-1] * len(WORLD)
    assert store.manifest["layout"] == "microsoft"


def test_names_play_no_part_in_the_join(tmp_path):
    shifted = [NAMES[0], "", *NAMES[1:-1]]
    lines = vote_lines(shifted)
    lines[1] = "Training,,0,0,0,0,0,0,0,0,0,10"
    store, said = prepared(write_fer2013(write_votes(tmp_path / "raw", lines)), tmp_path)
    assert [r for k, r in enumerate(rows_of(store)) if k != 1] == [r for k, r in enumerate(EXPECTED) if k != 1]
    assert store.columns("label")["label"][1] == -1
    assert "1 rows without image name" in said


def test_export_keeps_the_later_of_two_rows_with_one_name(tmp_path):
    names = [NAMES[2], *NAMES[1:]]
    store, said = prepared(write_export(tmp_path / "raw", names), tmp_path)
    assert rows_of(store) == EXPECTED[1:]
    assert "1 rows left out whose image was overwritten" in said
    assert "Training/happiness: 0, expected 1" in said


def test_the_published_row_with_nine_votes_is_accepted_and_said(tmp_path):
    names = [*NAMES[:3], "fer0010406.png", *NAMES[4:]]
    lines = vote_lines(names)
    lines[3] = "Training,fer0010406.png,4,0,0,0,0,3,1,0,1,0"
    store, said = prepared(write_fer2013(write_votes(tmp_path / "raw", lines)), tmp_path)
    assert store.columns("label")["label"][3] == 0  # 4 of the 7 votes that count
    assert "fer0010406.png has 9 votes" in said


def test_join_is_preferred_to_an_export_beside_it(tmp_path):
    store, _ = prepared(write_export(write_fer2013(write_votes(tmp_path / "raw"))), tmp_path)
    assert store.manifest["layout"] == "votes"


def test_missing_class_counts_warn(tmp_path):
    lines = vote_lines()
    lines[0] = "Training,fer0000000.png,10,0,0,0,0,0,0,0,0,0"
    _, said = prepared(write_fer2013(write_votes(tmp_path / "raw", lines)), tmp_path)
    assert "Training/neutral: 2, expected 1" in said
    assert "Training/happiness: 0, expected 1" in said


def test_lenient_reading_leaves_faulty_rows_out_and_keeps_the_join(tmp_path):
    lines = vote_lines()
    lines[1] = lines[1].replace(",4,", ",14,")
    source = write_fer2013(write_votes(tmp_path / "raw", lines))
    dataset = Tiny(lenient=True)
    chunks = list(dataset.read(source).chunks())
    assert np.concatenate([c.labels for c in chunks]).tolist() == [r[3] for k, r in enumerate(WORLD) if k != 1]
    assert len(dataset.faults) == 1


def replaced(row: int, line: str):
    lines = vote_lines()
    return lambda raw: write_fer2013(write_votes(raw, [*lines[:row], line, *lines[row + 1 :]]))


def swapped(raw: Path) -> Path:
    order = [*range(5), 6, 5, *range(7, 10)]
    return write_fer2013(write_votes(raw), IMAGES[order], [WORLD[k] for k in order])


def constant(raw: Path) -> Path:
    images = IMAGES.copy()
    images[4] = 7
    return write_fer2013(write_votes(raw), images)


def kaggle(raw: Path) -> Path:
    write_votes(raw)
    for name, usage in (("train", "Training"), ("val", "PublicTest"), ("test", "PrivateTest")):
        rows = zip(WORLD, IMAGES, strict=True)
        lines = [f"{row[1]},{' '.join(map(str, i.ravel()))}" for row, i in rows if row[0] == usage]
        (raw / f"{name}.csv").write_text("\n".join(["emotion,pixels", *lines, ""]))
    return raw


def without(name: str):
    def write(raw: Path) -> Path:
        (write_export(raw) / name).unlink()
        return raw

    return write


def with_copy(raw: Path) -> Path:
    shutil.copy(write_export(raw) / "FER2013Train" / NAMES[0], raw / "FER2013Train" / "fer0000099.png")
    return raw


MALFORMED = {
    "no images": (write_votes, r"the images are not[\s\S]*fer2013new\.csv[\s\S]*put fer2013\.csv"),
    "no votes": (write_fer2013, r"no known layout of ferplus[\s\S]*fer2013new\.csv, and FER2013"),
    "lists without images": (
        lambda raw: [p.unlink() for p in write_export(raw).rglob("*.png")] and raw,
        r"the images are not[\s\S]*label\.csv",
    ),
    "no row order": (kaggle, r"FER2013 as csv_splits has lost the row order[\s\S]*put fer2013\.csv"),
    "two FER2013": (
        lambda raw: shutil.copy(write_fer2013(write_votes(raw)) / "fer2013.csv", raw / "other.csv") and raw,
        r"2 layouts fit[\s\S]*other\.csv",
    ),
    "fewer votes": (
        lambda raw: write_fer2013(write_votes(raw, vote_lines()[:-1])),
        r"no votes for an image: row 9 of FER2013, the table has 9",
    ),
    "fewer images": (
        lambda raw: write_fer2013(write_votes(raw), IMAGES[:-2], WORLD[:-2]),
        r"fer2013new\.csv, row 10: votes without an image: 2 rows from here on, of 10",
    ),
    "other order": (swapped, r"row 7: not the row order of FER2013: Usage is Training here and PublicTest there"),
    "constant image": (constant, r"row 6: not the row order of FER2013: an image of one grey value"),
    "sum": (replaced(2, "Training,x.png,5,1,1,1,1,0,0,0,0,0"), r"row 4: the votes do not sum to 10: 9"),
    "eleven": (replaced(2, "Training,x.png,11,0,0,0,0,0,0,0,0,0"), r"row 4: votes are no whole number.*'11'"),
    "fraction": (replaced(2, "Training,x.png,9.5,0.5,0,0,0,0,0,0,0,0"), r"row 4: votes are no whole number.*'9\.5'"),
    "columns": (replaced(2, "Training,x.png,10,0,0,0"), r"row 4: wrong number of columns: 6, expected 12"),
    "usage": (replaced(2, "Test,x.png,10,0,0,0,0,0,0,0,0,0"), r"row 4: unknown Usage: 'Test'"),
    "no name": (replaced(2, "Training,,9,0,0,0,0,0,0,0,0,1"), r"row 4: no image name although it is not NF for all"),
    "pixels": (
        lambda raw: write_votes(write_fer2013(raw, world=[(*WORLD[0][:1], 9), *WORLD[1:]])),
        r"fer2013\.csv, row 2: the label is out of range: 9",
    ),
    "export lacks an image": (
        without(f"FER2013Valid/{NAMES[6]}"),
        r"FER2013Valid/label\.csv, row 1: no such image in FER2013Valid: 'fer0000006\.png'",
    ),
    "export has a spare image": (with_copy, r"fer0000099\.png: no row in its label list"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_source_is_named_and_nothing_is_written(tmp_path, case):
    write, reason = MALFORMED[case]
    with pytest.raises(DataError) as error:
        prepared(write(tmp_path / "raw"), tmp_path)
    assert re.search(reason, str(error.value)), str(error.value)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".ferplus.lock"]


def test_faults_of_votes_and_of_images_are_told_together(tmp_path):
    lines = vote_lines()
    lines[3] = "Training,x.png,1,0,0,0,0,0,0,0,0,0"
    raw = write_fer2013(write_votes(tmp_path / "raw", lines), world=[*WORLD[:5], ("Training", 8), *WORLD[6:]])
    with pytest.raises(DataError, match="2 problems") as error:
        prepared(raw, tmp_path)
    assert "fer2013new.csv, row 5" in str(error.value)
    assert "fer2013.csv, row 7" in str(error.value)


def test_protocols_have_their_names_alone_and_drop_unlabelled_images():
    assert [card.full_name(p) for p in card.protocols] == [
        "ferplus8/majority",
        "ferplus8/plurality",
        "ferplus8/soft",
        "ferplus7/majority",
        "ferplus7/plurality",
    ]
    assert {p.unlabelled for p in card.protocols} == {"drop"}
    assert card.protocol("ferplus8/soft").soft == tuple(f"votes_{name}" for name in card.classes)
    assert "contempt" not in card.protocol("ferplus7/majority").classes


@pytest.mark.realdata
def test_real_votes_give_the_published_counts():
    beside = Path(__file__).parents[3] / "shared" / "data" / "ferplus"
    path = Path(os.environ.get("FER_BENCH_FERPLUS") or beside) / "fer2013new.csv"
    if not path.is_file():
        pytest.skip("the real votes are not here: set FER_BENCH_FERPLUS to the folder that holds fer2013new.csv")
    from fer_bench.datasets._ferplus.votes import read_votes_table

    votes = read_votes_table(path, tuple(card.counts))
    usages = np.asarray(votes.usages)
    assert (len(votes), votes.faults, votes.unread) == (35887, {}, ())
    assert sum(not name for name in votes.names) == 173
    for usage, counts in card.counts.items():
        labels = majority(votes.counts[usages == usage])
        assert np.bincount(labels[labels >= 0], minlength=8).tolist() == list(counts)
    single = plurality(votes.counts)
    assert [int((single[usages == usage] >= 0).sum()) for usage in card.counts] == [26940, 3396, 3376]

"""Data sets: ours keep every promise on files drawn here, and a data set that breaks one is told which."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fer_bench
from fer_bench import ConformanceError
from fer_bench.conformance.check import Terms, check
from fer_bench.conformance.promise import FAILED, KEPT, UNCHECKED
from fer_bench.contract.plugins import plugins

BUILT_IN = {n: p.card for n, p in plugins().datasets.items() if p.origin == "built in"}

GOOD = """
import csv, itertools, time
import numpy as np
from fer_bench import *
from fer_bench import Chunk, DataError, Dataset, DatasetCard, Param, Protocol, Reading

CALLS = itertools.count()
card = DatasetCard(
    name="own",
    title="Own",
    classes=("sad", "happy"),
    counts={"train": (4, 4), "val": (2, 2), "test": (2, 2)},
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",), group="subject"),),
    layouts={"table": "rows.csv"},
    licence="ours",
    get="draw it",
)

class Own(Dataset):
    card = card

    def read(self, source):
        path = source / "rows.csv"
        if not path.is_file():
            raise DataError("there is no rows.csv", where=str(source))
        rows = list(csv.DictReader(path.open()))
        return Reading(layout="table", summary="rows", files=[path], shape=(len(rows), 1, 4, 4),
                       chunks=lambda: self.chunks(rows))

    def chunks(self, rows):
        for part in (rows[:9], rows[9:]):
            yield Chunk(
                images=np.stack([np.full((1, 4, 4), int(r["grey"]), np.uint8) for r in part]),
                labels=np.array([int(r["label"]) for r in part]),
                split=[r["split"] for r in part],
                source=[r["file"] for r in part],
                subject=[r["who"] for r in part],
            )
"""
BROKEN = {
    "says nothing of its licence": ("card", 'licence="ours"', 'licence=""'),
    "counts three classes of two": ("card", '"val": (2, 2)', '"val": (2, 2, 1)'),
    "lists another layout": ("layout", 'layouts={"table"', 'layouts={"folders"'),
    "hides its files": ("layout", "files=[path]", "files=[]"),
    "dies of an empty folder": ("refuses", "if not path.is_file():", "if False:"),
    "reads an empty folder as an empty set": (
        "refuses",
        'raise DataError("there is no rows.csv", where=str(source))',
        'return Reading(layout="table", summary="", files=[], chunks=lambda: iter(()))',
    ),
    "loses a row": ("rows", "(rows[:9], rows[9:])", "(rows[:9], rows[10:])"),
    "reads floats": ("rows", "np.uint8) for", "np.float32) for"),
    "has a label that is no class": ("rows", 'int(r["label"])', '2 * int(r["label"])'),
    "gives two rows one name": ("rows", 'r["file"] for', 'r["who"] for'),
    "has fewer names than rows": ("rows", 'subject=[r["who"] for r in part]', 'subject=[r["who"] for r in part[1:]]'),
    "draws without a seed": ("repeatable", 'int(r["grey"]), np.uint8)', 'int(r["grey"]) + next(CALLS) % 7, np.uint8)'),
    "counts what is not there": ("counts", '"test": (2, 2)', '"test": (2, 3)'),
    "knows a digest of other pixels": ("digests", 'get="draw it"', f'get="x", digests={{"pixels": "{"0" * 64}"}}'),
    "trains one class": (
        "protocols",
        'r["split"] for',
        '("val" if (r["split"], r["label"]) == ("train", "0") else r["split"]) for',
    ),
    "tests its training rows": ("protocols", 'test=("test",)', 'test=("train",)'),
    "lets a person into two parts": ("people", 'r["who"] for', 'str(int(r["who"][-1]) % 3) for'),
    "has a default beyond its range": (
        "parameters",
        'get="draw it"',
        'get="draw it", params={"side": Param(3, "pixels", low=4, high=8)}',
    ),
}  # fmt: skip


def write(folder: Path, code: str) -> tuple[Path, Path]:
    """The plug-in, and its files: 16 rows of eight people, each of whom is in one split."""
    source = folder / "files"
    source.mkdir()
    rows = [("train", 0), ("train", 1)] * 4 + [("val", 0), ("val", 1)] * 2 + [("test", 0), ("test", 1)] * 2
    with (source / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", "label", "grey", "who"])
        writer.writerows(
            (f"{k}.png", split, label, 10 * k, f"{split} {k // 2}") for k, (split, label) in enumerate(rows)
        )
    path = folder / "own.py"
    path.write_text(code)
    return path, source


def test_a_data_set_that_keeps_every_promise_conforms(tmp_path):
    path, source = write(tmp_path, GOOD)
    (report,) = check(path, Terms(source=source))
    kept = {"card", "refuses", "layout", "rows", "repeatable", "counts", "protocols", "people"}
    assert {v.promise for v in report.verdicts if v.state == KEPT} == kept
    assert fer_bench.conforms(path, source=source) is None


@pytest.mark.parametrize(("promise", "old", "new"), [pytest.param(*v, id=n) for n, v in BROKEN.items()])
def test_the_kit_names_the_promise_that_a_data_set_breaks(tmp_path, promise, old, new):
    assert old in GOOD
    path, source = write(tmp_path, GOOD.replace(old, new))
    (report,) = check(path, Terms(source=source))
    broken = {v.promise for v in report.verdicts if v.state == FAILED}
    assert promise in broken
    assert broken <= {promise, "counts", "people"}, "what else may differ is the card's counts, or who is where"
    with pytest.raises(ConformanceError, match=f"BROKEN  {promise}"):
        fer_bench.conforms(path, source=source, only=[promise])


def test_without_its_files_a_data_set_is_not_called_sound(tmp_path):
    path, _ = write(tmp_path, GOOD)
    (report,) = check(path)
    states = {v.promise: v.state for v in report.verdicts}
    assert states["card"] == states["refuses"] == KEPT
    assert states["rows"] == states["counts"] == states["protocols"] == UNCHECKED
    (layout,) = [v for v in report.verdicts if v.promise == "layout"]
    assert f"fer-bench check {path} --from PATH (to obtain them: draw it)" in layout.note


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_cards_and_errors_of_our_data_sets_keep_their_promises(name):
    fer_bench.conforms(name, only=["card", "parameters", "refuses"])


def test_the_data_set_that_needs_no_files_keeps_every_promise():
    for name in (n for n, card in BUILT_IN.items() if card.built_in):
        (report,) = check(name)
        assert report.broken == []
        assert not [v for v in report.verdicts if v.state == UNCHECKED]


def draw_folders(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("angry", "happy", "sad"):
            place = root / split / label
            place.mkdir(parents=True)
            for k in range(3):
                picture = rng.integers(0, 256, (24, 24), dtype=np.uint8)
                Image.fromarray(picture).save(place / f"{split}{label}{k}.png")
    return root


def test_a_folder_of_drawn_images_keeps_every_promise(tmp_path):
    fer_bench.conforms("folder", source=draw_folders(tmp_path / "files"))

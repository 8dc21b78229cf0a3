"""Our readers of data sets keep every promise on small files in the layouts that people have.

The files are drawn as in the tests of each reader, with enough images and people for every protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_bench.conformance.check import Terms, check
from fer_bench.conformance.promise import FAILED, KEPT, UNCHECKED
from tests.datasets import (
    test_affectnet,
    test_ckplus,
    test_csv,
    test_expw,
    test_fer2013,
    test_ferplus,
    test_jaffe,
    test_muxspace,
    test_parquet,
    test_rafdb,
)


@pytest.fixture
def enough(monkeypatch):
    """More images than the tests of the readers need: of every class in every part, and of ten people."""
    faces = [("train" if k < 10 else "val", 8 * k + c + 1, c) for k in range(12) for c in range(8)]
    monkeypatch.setattr(test_affectnet, "FACES", faces)
    codes = test_ckplus.CODES
    sequences = [(f"S{p:03d}", f"{codes[c]:03d}", c, (1, 2, 3, 4)) for p in range(10, 20) for c in codes]
    monkeypatch.setattr(test_ckplus, "SEQUENCES", sequences)
    monkeypatch.setattr(test_ckplus, "PEAKS", [(c, s, q, n) for s, q, c, numbers in sequences for n in numbers[1:]])
    monkeypatch.setattr(test_expw, "PHOTOS", {f"face_{k}.jpg": k for k in range(70)})
    votes = [tuple(10 * (k == c) for k in range(10)) for c in range(8)]
    world = [(u, 0, v, c, c) for u in ("Training", "PublicTest", "PrivateTest") for c, v in enumerate(votes)]
    pictures = np.random.default_rng(0).integers(0, 256, (len(world), 48, 48), dtype=np.uint8)
    monkeypatch.setattr(test_ferplus, "WORLD", world)
    monkeypatch.setattr(test_ferplus, "IMAGES", pictures)
    names = [f"{chr(65 + p)}A.{c}1.{7 * p + k}" for p in range(10) for k, c in enumerate(test_jaffe.LABELS)]
    side = test_jaffe.SIDE
    pictures = np.random.default_rng(0).integers(0, 256, (len(names), side, side), dtype=np.uint8)
    monkeypatch.setattr(test_jaffe, "PICTURES", dict(zip(names, pictures, strict=True)))
    people = [chr(65 + p) + "b_Example" for p in range(20)]
    rows = [("628", f"{p}_{k:04d}.jpg", c) for p in people for k, c in enumerate(test_muxspace.CLASSES)]
    monkeypatch.setattr(test_muxspace, "ROWS", rows)


def expw(root: Path) -> Path:
    return test_expw.write(root, [f"face_{k}.jpg 0 4 10 26 20 97.5 {k % 7}" for k in range(70)])


def ferplus(root: Path) -> Path:
    return test_ferplus.write_export(root, [f"fer{k:07d}.png" for k in range(24)])


def muxspace(root: Path) -> Path:
    return test_muxspace.write_clone(root, test_muxspace.ROWS)


DRAWN: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "affectnet, annotations": ("affectnet", test_affectnet.annotated),
    "affectnet, folders": ("affectnet", test_affectnet.numbered),
    "ckplus, sequences": ("ckplus", test_ckplus.write_original),
    "ckplus, folders": ("ckplus", test_ckplus.write_folders),
    "csv, table": ("csv", test_csv.write_table),
    "csv, three tables": ("csv", test_csv.write_three),
    "expw": ("expw", expw),
    "fer2013, table": ("fer2013", test_fer2013.write_csv),
    "fer2013, folders": ("fer2013", test_fer2013.write_folders),
    "ferplus, export": ("ferplus", ferplus),
    "jaffe": ("jaffe", test_jaffe.write_files),
    "muxspace": ("muxspace", muxspace),
    "parquet": ("parquet", test_parquet.write_hub),
    "rafdb, list": ("rafdb", test_rafdb.original),
    "rafdb, folders": ("rafdb", test_rafdb.named),
}
SIZE = {"counts", "digests"}  # what no small file can keep: the numbers and the pixels of the original


@pytest.mark.parametrize(("name", "write"), [pytest.param(*v, id=n) for n, v in DRAWN.items()])
def test_a_reader_keeps_its_promises_on_small_files(tmp_path, enough, name, write):
    (report,) = check(name, Terms(source=write(tmp_path / "files")))
    assert {v.promise: v.failures for v in report.verdicts if v.state == FAILED and v.promise not in SIZE} == {}
    kept = {v.promise for v in report.verdicts if v.state == KEPT}
    assert kept >= {"card", "refuses", "layout", "rows", "repeatable", "protocols"}
    assert [v for v in report.verdicts if v.state == UNCHECKED and v.promise != "people"] == []

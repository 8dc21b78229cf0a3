"""Tests of new_dataset; run them with pytest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError, Reading, conforms, load_plugin

FILE = Path(__file__).parents[1] / "new_dataset.py"


def written(folder: Path, *rows: str) -> Reading:
    """A table with these rows beside two images, one black and one with brightness 200."""
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(folder / "images" / "a.png")
    Image.fromarray(np.full((60, 60), 200, np.uint8)).save(folder / "images" / "b.png")
    (folder / "labels.csv").write_text("\n".join(["file,expression,person,part", *rows, ""]), encoding="utf-8")
    return load_plugin(FILE)().read(folder)


def test_it_keeps_what_every_data_set_must(tmp_path: Path) -> None:
    """The same checks as `fer-bench check --from`, on an image of every class for each of six people."""
    rows = ["file,expression,person,part"]
    (tmp_path / "images").mkdir()
    for person, part in enumerate(["train", "train", "train", "train", "val", "test"]):
        for label, name in enumerate(load_plugin(FILE).card.classes):
            picture = np.full((60, 60), 30 * label + person, np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / f"{person}{name}.png")
            rows.append(f"{person}{name}.png,{name},p{person},{part}")
    (tmp_path / "labels.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    conforms(FILE, source=tmp_path)


def test_a_row_becomes_an_image_with_its_label_part_and_person(tmp_path: Path) -> None:
    """The labels are positions in the classes of the card: happy is 3, fear is 2."""
    (chunk,) = written(tmp_path, "b.png,happy,p1,test", "a.png,fear,p2,train").chunks()
    assert chunk.images.shape == (2, 1, 48, 48)
    assert chunk.images.max((1, 2, 3)).tolist() == [200, 0]
    assert chunk.labels.tolist() == [3, 2]
    assert (chunk.split, chunk.subject) == (["test", "train"], ["p1", "p2"])


def test_all_faulty_rows_are_reported_together(tmp_path: Path) -> None:
    """A misspelt class, and an image that is not there."""
    reading = written(tmp_path, "a.png,hapy,p1,test", "c.png,happy,p1,test", "b.png,sad,p2,train")
    with pytest.raises(DataError, match="2 problems"):
        list(reading.chunks())


def test_a_folder_without_the_table_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    """The message repeats the layouts of the card."""
    with pytest.raises(DataError, match=r"labels\.csv"):
        load_plugin(FILE)().read(tmp_path)

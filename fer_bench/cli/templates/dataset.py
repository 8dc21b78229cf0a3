"""Images named by a table: labels.csv (file, expression, person, part) beside a folder images/."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench import Chunk, DataError, Dataset, DatasetCard, Param, Protocol, Reading

COLUMNS = ("file", "expression", "person", "part")
BLOCK = 256  # images that are in memory at a time

card = DatasetCard(
    name="new_dataset",
    title="New data set",
    classes=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    layouts={"table": "labels.csv (file, expression, person, part) beside a folder images/"},
    protocols=(
        Protocol(name="official", train=("train",), val=("val",), test=("test",), title="the parts of the table"),
        Protocol(name="subject5", scheme="kfold", folds=5, group="subject", title="five folds of people"),
    ),
    licence="who may use it, and for what",
    get="where to obtain it",
    params={"size": Param(48, "side of the stored images in pixels", low=16, high=512)},
    image="grey, 48x48 unless another size is given",
)


class NewDataset(Dataset):
    """Reads the table and the images that it names."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the layout. This is fast: images are read later, by ``chunks``."""
        table = Path(source or ".") / "labels.csv"
        if not table.is_file():
            looked = "; ".join(f"{name}: {form}" for name, form in self.card.layouts.items())
            raise DataError(f"these are not files of {self.card.name}", where=str(source), hint=f"looked for {looked}")
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if missing := [name for name in COLUMNS if not rows or name not in rows[0]]:
            raise DataError(f"the table has no column {', '.join(missing)}", where=str(table))
        images = [table.parent / "images" / row["file"] for row in rows]
        side = self.params["size"]
        return Reading(
            layout="table",
            summary=f"{len(rows)} rows in {table}",
            files=[table, *(path for path in images if path.is_file())],
            chunks=lambda: self._chunks(table, rows),
            shape=(len(rows), 1, side, side),
        )

    def _chunks(self, table: Path, rows: list[dict[str, str]]) -> Iterator[Chunk]:
        """All rows, a block at a time. Faulty ones are collected, and reported together at the end."""
        problems = self.problems()
        for start in range(0, len(rows), BLOCK):
            good, images = [], []
            for number, row in enumerate(rows[start : start + BLOCK], start + 2):  # line 1 is the header
                path = table.parent / "images" / row["file"]
                if row["expression"] not in self.card.classes:
                    problems.add(table, number, f"unknown class: '{row['expression']}'")
                elif not path.is_file():
                    problems.add(table, number, f"no such image: {path}")
                else:
                    good.append(row)
                    images.append(self._pixels(path))
            if good and problems.worth_reading:
                yield Chunk(
                    images=np.stack(images),
                    labels=np.array([self.card.classes.index(row["expression"]) for row in good]),
                    split=[row["part"] for row in good],
                    source=[row["file"] for row in good],
                    subject=[row["person"] for row in good],
                )
        problems.raise_if_any()

    def _pixels(self, path: Path) -> np.ndarray:
        """One image, uint8 [1, size, size]."""
        with Image.open(path) as image:
            return np.asarray(image.convert("L").resize((self.params["size"],) * 2), dtype=np.uint8)[None]

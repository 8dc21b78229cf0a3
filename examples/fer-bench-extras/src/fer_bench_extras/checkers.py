"""A data set: checkerboards of three sizes, drawn in place of files, so that it works anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_bench import Chunk, DataError, Dataset, DatasetCard, Param, Protocol, Reading, numpy_generator

card = DatasetCard(
    name="checkers",
    title="Checkerboards on noise",
    classes=("coarse", "medium", "fine"),
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
    layouts={"drawn": "nothing to read: the boards are drawn"},
    params={"noise": Param(60, "largest brightness of the noise", low=1, high=150)},
    built_in=True,
    image="24x24 grey",
)

SIDE = 24
CELLS = (8, 4, 2)  # pixels per square, class by class
COUNTS = {"train": (60, 30, 10), "val": (10, 10, 10), "test": (20, 20, 20)}


class Checkers(Dataset):
    """A built-in set: it is drawn, so `source` must be None."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """The drawing, ready to start."""
        if source is not None:
            raise DataError("checkerboards are drawn, not read", where=str(source), hint="leave out --from")
        return Reading(layout="drawn", summary="checkerboards", files=[], chunks=self._chunks)

    def _chunks(self) -> Iterator[Chunk]:
        for split, counts in COUNTS.items():
            rng = numpy_generator(0, "checkers", split)
            labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
            yield Chunk(
                images=np.stack([self._board(CELLS[label], rng) for label in labels]),
                labels=labels,
                split=[split] * len(labels),
                source=[f"{split}/{k}" for k in range(len(labels))],
            )

    def _board(self, cell: int, rng: np.random.Generator) -> np.ndarray:
        """One image, uint8 [1, SIDE, SIDE]; the board begins anywhere."""
        y, x = np.indices((SIDE, SIDE)) + rng.integers(0, 2 * cell, (2, 1, 1))
        board = 100 * ((y // cell + x // cell) % 2)
        return (board + rng.integers(0, self.params["noise"], (SIDE, SIDE)))[None].astype(np.uint8)

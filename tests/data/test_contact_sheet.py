"""The contact sheet: every class of every split, at a size one can look at."""

import numpy as np
import pytest
from PIL import Image

from fer_bench import Chunk, DataError, DatasetCard, Reading
from fer_bench.data.contact_sheet import LABEL_WIDTH, LINE, MARGIN, contact_sheet, tile, tile_size
from fer_bench.data.store import write_store


def stored(folder, images: np.ndarray, labels, split):
    card = DatasetCard(name="toy", title="Toy", classes=("a", "b"), protocols=())
    chunk = Chunk(images=images, labels=np.asarray(labels), split=list(split), source=[""] * len(images))
    return write_store(folder, card, Reading(layout="l", summary="", files=[], chunks=lambda: iter([chunk])))


def numbered(n: int, side: int = 8) -> np.ndarray:
    """Images of one grey each: row k has the value k."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 1, side, side)).copy()


def test_rows_come_split_by_split_and_class_by_class(tmp_path):
    store = stored(tmp_path, numbered(8), [0, 1] * 4, "xxxxyyyy")
    rows = contact_sheet(store, tmp_path / "s.png", per_class=2)
    assert rows == [0, 2, 1, 3, 4, 6, 5, 7]
    tall = 8 * 12
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (LABEL_WIDTH + MARGIN + 2 * (tall + MARGIN), MARGIN + 4 * (tall + MARGIN) + 4 * LINE)
        seen = []
        for block in range(2):
            for line in range(2):
                y = MARGIN + (block + 1) * 2 * LINE + (2 * block + line) * (tall + MARGIN) + 5
                seen += [sheet.getpixel((LABEL_WIDTH + k * (tall + MARGIN) + 5, y))[0] for k in range(2)]
    assert seen == rows


def test_one_split_alone_is_drawn_as_it_is_among_all(tmp_path):
    store = stored(tmp_path, numbered(40), [0, 1] * 20, "x" * 20 + "y" * 20)
    rows = contact_sheet(store, tmp_path / "all.png", per_class=3)
    assert contact_sheet(store, tmp_path / "y.png", per_class=3, split="y") == rows[6:]
    with pytest.raises(DataError, match="unknown split 'q'"):
        contact_sheet(store, tmp_path / "q.png", split="q")


def test_long_rows_are_continued_below_so_that_the_sheet_stays_narrow(tmp_path):
    store = stored(tmp_path, numbered(100), [0] * 100, "x" * 100)
    assert len(contact_sheet(store, tmp_path / "s.png", per_class=60)) == 60
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width <= 2400
        assert sheet.height == MARGIN + (3 + 1) * (96 + MARGIN)  # 22 a line; the empty class keeps its own


def test_same_seed_gives_the_same_bytes_and_another_one_other_images(tmp_path):
    store = stored(tmp_path, numbered(60), [0, 1] * 30, "x" * 60)
    rows = [contact_sheet(store, tmp_path / f"{k}.png", seed=seed) for k, seed in enumerate((0, 0, 1))]
    assert rows[0] == rows[1] != rows[2]
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


@pytest.mark.parametrize(
    ("size", "drawn"), [((48, 48), (96, 96)), ((96, 96), (96, 96)), ((224, 224), (96, 96)), ((200, 100), (96, 48))]
)
def test_small_images_are_enlarged_and_large_ones_shrunk(size, drawn):
    assert tile_size(*size) == drawn
    assert tile(np.zeros((3, *size), np.uint8)).size == drawn[::-1]


def test_colour_stays_colour():
    image = np.zeros((3, 224, 224), np.uint8)
    image[1] = 200
    assert tile(image).getpixel((40, 40)) == (0, 200, 0)

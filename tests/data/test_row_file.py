"""Rows read from the file of a store."""

from __future__ import annotations

import numpy as np
import pytest

from fer_bench.data.row_file import RowFile
from fer_bench.errors import StoreError

IMAGES = np.arange(10 * 2 * 3 * 4, dtype=np.uint8).reshape(10, 2, 3, 4)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    return tmp_path / "images.npy"


@pytest.mark.parametrize("rows", [[], [0], [9, 0, 4], [3, 4, 5, 1, 2, 2, 3], list(range(10))])
def test_rows_are_those_of_the_array(path, rows):
    with RowFile(path) as file:
        assert np.array_equal(file.read(np.array(rows, dtype=np.int64)), IMAGES[rows])


def test_neighbours_are_read_together(path):
    """The header of a file of this size takes 128 bytes, an image 24."""
    with RowFile(path) as file:
        assert list(file.spans(np.array([3, 4, 5, 1, 2, 2]))) == [(200, 72), (152, 48), (176, 24)]


@pytest.mark.parametrize("rows", [[10], [-1], [0, 99]])
def test_a_row_that_is_not_there_is_an_index_error(path, rows):
    with RowFile(path) as file, pytest.raises(IndexError):
        file.read(np.array(rows))


def test_a_file_that_has_been_cut_is_an_error(path):
    path.write_bytes(path.read_bytes()[:-5])
    with RowFile(path) as file:
        assert np.array_equal(file.read(np.array([8])), IMAGES[[8]])
        with pytest.raises(StoreError, match="the images end too early"):
            file.read(np.array([9]))


@pytest.mark.parametrize("content", [b"no array", np.zeros((3, 4), np.uint8), np.zeros((3, 1, 2, 2), np.float32)])
def test_what_holds_no_images_is_refused(path, content):
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(StoreError, match="no array of images"):
        RowFile(path)

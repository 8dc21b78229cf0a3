"""Streamed images behave as a tensor of the same images, or say that they can't."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from fer_bench.contract.streamed import StreamedImages, ahead, chosen
from fer_bench.errors import TrainingError

PIXELS = torch.randint(0, 256, (12, 2, 3, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class FromMemory:
    """A reader over a tensor, which notes the places it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def read(self, places: np.ndarray, into: memoryview) -> None:
        self.asked.append(places.tolist())
        into[:] = PIXELS[torch.from_numpy(places)].numpy().tobytes()


@pytest.fixture
def images() -> StreamedImages:
    return StreamedImages(FromMemory(), np.arange(12), (2, 3, 5), torch.device("cpu"))


@pytest.mark.parametrize(
    "index",
    [3, -1, slice(2, 9, 3), [4, 4, 0], np.array([7, 1]), torch.tensor([5, 11]), np.arange(12) % 3 == 0,
     torch.arange(12) > 8, range(2, 4), []],
)  # fmt: skip
def test_an_index_gives_what_it_gives_of_a_tensor(images, index):
    plain = (
        list(index) if isinstance(index, range) else torch.as_tensor(index) if isinstance(index, np.ndarray) else index
    )
    assert torch.equal(images[index], PIXELS[plain])


def test_facts_are_those_of_the_tensor(images):
    assert (images.shape, images.dtype, len(images)) == (PIXELS.shape, PIXELS.dtype, len(PIXELS))
    assert images.device == PIXELS.device


@pytest.mark.parametrize("size", [1, 5, 12, 99])
def test_parts_are_those_of_the_tensor(images, size):
    parts, expected = list(images.split(size)), PIXELS.split(size)
    assert [len(part) for part in parts] == [len(part) for part in expected]
    assert torch.equal(torch.cat(parts), PIXELS)


def test_a_choice_stays_on_disk(images):
    some = chosen(images, np.array([9, 2, 5]))
    assert isinstance(some, StreamedImages)
    assert images._reader.asked == []
    assert torch.equal(some[[2, 0]], PIXELS[[5, 9]])
    assert torch.equal(chosen(PIXELS, np.array([9, 2, 5])), PIXELS[[9, 2, 5]])


@pytest.mark.parametrize(
    "whole",
    [lambda i: i.flatten(1), lambda i: torch.cat([i, i]), lambda i: torch.stack(tensors=[i]), lambda i: i[:, 0],
     np.asarray, lambda i: i.numpy()],
)  # fmt: skip
def test_what_needs_all_images_says_so(images, whole):
    with pytest.raises(
        TrainingError, match=r"needs all 12 images in memory, but they are streamed from disk \(360 B\)"
    ):
        whole(images)
    assert images._reader.asked == []


def test_what_a_tensor_has_not_either_is_an_ordinary_mistake(images):
    assert not hasattr(images, "fluten")


def test_an_index_beyond_the_end_is_an_index_error(images):
    with pytest.raises(IndexError):
        images[12]


# -- reading ahead ---------------------------------------------------------------------------------------------------


def test_at_most_so_many_items_are_computed_ahead():
    made = []
    items = ahead((made.append(k) or k for k in range(9)), 2)
    assert next(items) == 0
    while len(made) < 3:  # the second and the third are made while the first is worked on
        time.sleep(0.001)
    time.sleep(0.05)
    assert made == [0, 1, 2]
    assert list(items) == list(range(1, 9))


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        raise TrainingError("gone")

    got = ahead(items(), 3)
    assert next(got) == 1
    with pytest.raises(TrainingError, match="gone"):
        next(got)


@pytest.mark.parametrize("made", [1, 5])
def test_the_thread_ends_soon_after_an_iterator_that_is_left(made):
    items = ahead(iter(range(100)), 2)
    for _ in range(made):
        next(items)
    (thread,) = (t for t in threading.enumerate() if t.name == "images")
    items.close()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_an_iterator_that_the_garbage_collector_finds_waits_for_nothing(monkeypatch):
    # it may be found in any thread, also where that thread holds the lock that the end of another needs
    items = ahead(iter(range(100)), 2)
    next(items)
    monkeypatch.setattr(threading.Thread, "join", lambda *args, **kwargs: pytest.fail("waits"))
    items.close()

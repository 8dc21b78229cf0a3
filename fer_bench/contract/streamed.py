"""Images that stay on disk: what stands in for a tensor of images that would not fit in memory.

Whoever works through images in parts writes the same for both: ``images[index]``, ``images.split(512)``,
``len(images)``, ``images.shape``, ``images.device``.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from fer_bench.base.quantities import human_size, plural
from fer_bench.errors import TrainingError

AHEAD = 2  # parts that are read before they are asked for, so that reading and computing take place at once
LARGE = 1 << 25  # bytes of a part from which on one is enough: memory is what there is little of
T = TypeVar("T")


class Reader(Protocol):
    """Where the images come from; several threads may ask it."""

    def read(self, places: np.ndarray, into: memoryview) -> None:
        """Fill `into` with the pixels of the images at `places` (int64 [n]), one after the other."""


class StreamedImages:
    """Images uint8 [N, C, H, W] that are read when they are asked for, and then lie on the device.

    What needs all of them at once, as most functions of torch do, raises TrainingError.

    Parameters
    ----------
    reader : Reader
    places : int64 array [N]
        Which of the reader's images these are.
    shape : tuple of int
        (C, H, W).
    device : torch.device
        Where the parts go.
    """

    dtype = torch.uint8

    def __init__(self, reader: Reader, places: np.ndarray, shape: tuple[int, int, int], device: torch.device):
        self.device = device
        self._reader, self._places, self._shape = reader, places, shape

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self._places), *self._shape))

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"StreamedImages({plural(len(self), 'image')} of {'x'.join(map(str, self._shape))}, on disk)"

    def __getitem__(self, index: Any) -> Tensor:
        """The images at one position, a slice, or an array or a tensor of positions or of truth values."""
        if isinstance(index, tuple):
            raise self._refusal("images[..., ...]")
        chosen = self._places[_plain(index)]
        part = self._read(np.atleast_1d(chosen)).to(self.device)
        return part if np.ndim(chosen) else part[0]

    def split(self, size: int) -> Iterator[Tensor]:
        """The images in their order, `size` at a time; the next ones are read meanwhile."""
        parts = (range(start, min(start + size, len(self))) for start in range(0, len(self), size))
        return self.batches(parts, 1 if size * math.prod(self._shape) > LARGE else AHEAD)

    def batches(self, indices: Iterable[Any], depth: int = AHEAD) -> Iterator[Tensor]:
        """The images at each of `indices`, one tensor after the other; `depth` more are read meanwhile."""
        read = (self._read(self._places[_plain(index)]) for index in indices)
        return (part.to(self.device, non_blocking=True) for part in ahead(read, depth))

    def chosen(self, index: Any) -> StreamedImages:
        """The images at `index`, still on disk."""
        return StreamedImages(self._reader, self._places[_plain(index)], self._shape, self.device)

    def _read(self, places: np.ndarray) -> Tensor:
        # A GPU copies from pinned memory by itself, while both sides go on; its tensors are reused only after that.
        pinned = self.device.type == "cuda"
        part = torch.empty((len(places), *self._shape), dtype=torch.uint8, pin_memory=pinned)
        self._reader.read(places, part.numpy().reshape(-1).data)
        return part

    # -- what a tensor would do --------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(f"'StreamedImages' has no attribute '{name}'")
        raise self._refusal(f"images.{name}")

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> NoReturn:
        name = getattr(function, "__name__", str(function))
        raise _first(cls, [args, *(kwargs or {}).values()])._refusal(f"torch.{name}")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise self._refusal("a NumPy array of the images")

    def _refusal(self, what: str) -> TrainingError:
        size = human_size(len(self) * math.prod(self._shape))
        return TrainingError(
            f"`{what}` needs all {plural(len(self), 'image')} in memory, but they are streamed from disk ({size})",
            hint='take parts, images[index] or images.split(512), or write needs=("memory",) on the method\'s card',
            next="the same command with --images memory, on a machine with more memory",
        )


Images: TypeAlias = Tensor | StreamedImages
"""uint8 [N, C, H, W]: in memory, on the device, or still on disk."""


def chosen(images: Images, index: np.ndarray) -> Images:
    """The images at `index` (int64 [n]), wherever the images are."""
    if isinstance(images, StreamedImages):
        return images.chosen(index)
    return images[torch.as_tensor(index, device=images.device)]


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, computed by a thread of their own, at most `depth` before they are asked for.

    An exception of `items` is raised where the item would have come. The thread ends soon after this iterator.

    Notes
    -----
    The end takes no lock and waits for nothing. Where an error ends the caller's loop, the garbage collector closes
    this generator: in any thread, at any point, also where that thread holds the lock in question. The methods of a
    ``SimpleQueue`` are safe there.
    """
    ready: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    room: queue.SimpleQueue[None] = queue.SimpleQueue()
    wanted = True

    def work() -> None:
        try:
            while wanted:
                ready.put((True, next(items)))
                room.get()
        except BaseException as error:  # StopIteration among them: it ends the iterator on the other side
            ready.put((False, error))

    for _ in range(depth - 1):
        room.put(None)
    threading.Thread(target=work, name="images", daemon=True).start()
    try:
        while True:
            sound, item = ready.get()
            if isinstance(item, StopIteration) and not sound:
                return
            if not sound:
                raise item
            room.put(None)
            yield item
    finally:
        wanted = False
        room.put(None)


def _plain(index: Any) -> Any:
    """An index as NumPy takes it."""
    if isinstance(index, range):
        return slice(index.start, index.stop, index.step)
    return index.detach().cpu().numpy() if isinstance(index, Tensor) else index


def _first(kind: type, value: Any) -> Any:
    """The first of our objects among nested arguments."""
    if isinstance(value, kind):
        return value
    inner = value if isinstance(value, (list, tuple)) else ()
    return next((found for found in (_first(kind, v) for v in inner) if found is not None), None)

"""Images read from a store's array; it is never mapped, so that a limit on address space does not count the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from fer_bench.errors import StoreError


class RowFile:
    """An open ``images.npy``, uint8 [N, C, H, W]; a context manager that closes it.

    Parameters
    ----------
    file : path or int
        The file, or the descriptor of one that is open already.

    Raises
    ------
    OSError
        It can't be opened.
    StoreError
        It holds no array of images.
    """

    def __init__(self, file: str | os.PathLike[str] | int):
        self._file = io.FileIO(file if isinstance(file, int) else os.fspath(file))
        self._file.seek(0)  # whoever opened the descriptor may have read
        try:
            version = np.lib.format.read_magic(self._file)
            shape, fortran, kind = np.lib.format.read_array_header_1_0(self._file)
        except ValueError as error:
            self._file.close()
            raise StoreError(f"no array of images: {error}", where=str(file)) from error
        if version != (1, 0) or fortran or kind != np.uint8 or len(shape) != 4:
            self._file.close()
            raise StoreError(f"no array of images: {kind} of shape {shape}", where=str(file))
        self.shape: tuple[int, int, int, int] = shape
        self.image_bytes = int(np.prod(shape[1:], dtype=np.int64))
        self._start = self._file.tell()

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def fileno(self) -> int:
        """The descriptor."""
        return self._file.fileno()

    @property
    def state(self) -> tuple[int, int]:
        """Size in bytes and time of the last change in ns: other numbers mean that something has been written."""
        entry = os.fstat(self._file.fileno())
        return entry.st_size, entry.st_mtime_ns

    def spans(self, rows: np.ndarray) -> Iterator[tuple[int, int]]:
        """Offset and length in bytes of what holds `rows` (int64 [n]), in their order; neighbours make one span."""
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, last in zip((0, *ends.tolist()), (*ends.tolist(), len(rows)), strict=True):
            if last > first:
                yield self._start + int(rows[first]) * self.image_bytes, (last - first) * self.image_bytes

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The images of `rows` (int64 [n]), uint8 [n, C, H, W]; errors as of :meth:`read_into`."""
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        self.read_into(rows, images)
        return images

    def read_into(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Read the images of `rows` (int64 [n]) into an array uint8 [n, C, H, W] whose values lie side by side.

        Raises
        ------
        IndexError
            There is no such row.
        StoreError
            The file ends too early.
        """
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.shape[0]:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self.shape[0]} images")
        free = images.reshape(-1).data
        for offset, length in self.spans(rows):
            self.fill(free[:length], offset)
            free = free[length:]

    def fill(self, free: memoryview, offset: int) -> None:
        """Read as many bytes as `free` has room for, from `offset` on; raises StoreError if the file ends before."""
        self._file.seek(offset)
        while free:
            got = self._file.readinto(free)
            if not got:
                raise StoreError("the images end too early: the file has been cut", where=str(self._file.name))
            free = free[got:]

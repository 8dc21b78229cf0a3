"""The images of a process: in the device's memory, or streamed from the store by a program that may read it.

See :mod:`fer_bench.data.row_server` for why that is another program.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fer_bench.base.memory import Free, free_memory
from fer_bench.base.quantities import human_size
from fer_bench.contract.streamed import Images, StreamedImages
from fer_bench.data.row_file import RowFile
from fer_bench.data.row_server import BUFFER, NUMBER, SOUND
from fer_bench.data.store import Store
from fer_bench.errors import ChangedStoreError, OutOfMemoryError, TrainingError

SHARE = 0.5  # of the free memory that images may take: the rest is for the network, its gradients and its activations
BLOCK = 1 << 26  # bytes that are read at a time where images go to another device
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch's RuntimeError where the main memory does not suffice


@dataclass(frozen=True)
class Choice:
    """Where images are: whether they are streamed, how many bytes they take, and what was free."""

    streamed: bool
    size: int
    free: Free

    @property
    def reason(self) -> str:
        """Why, for people."""
        free = f"{human_size(self.free.bytes)} are free {self.free.where}"
        return f"they take {human_size(self.size)}, {free}"


def choose(asked: str, size: int, device: torch.device, *, beside: int = 1, memory: int = 0) -> Choice:
    """Stream images of `size` bytes if they would take more than half of what is free, or as it is `asked`.

    Beside other runs no more is free than this one's share: of the GPU's memory an equal part, of main memory the
    bytes that it was given (`memory`) when nothing was at work yet. What is free now says too little of that, because
    the others may still have to take theirs.
    """
    if device.type == "cuda":
        now, total = torch.cuda.mem_get_info(device)
        free, share = Free(now, "on the GPU"), total // beside
    else:
        free, share = free_memory(), memory
    if beside > 1 and 0 < share < free.bytes:
        free = Free(share, f"{free.where} for each of {beside} runs at once")
    return Choice(asked == "stream" or (asked == "auto" and size > SHARE * free.bytes), size, free)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, of the device or of the machine."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or NO_MEMORY in str(error)


def load(store: Store, rows: np.ndarray, device: torch.device, choice: Choice) -> Tensor:
    """The images of `rows` in the device's memory.

    Raises
    ------
    OutOfMemoryError
        It does not suffice.
    ChangedStoreError
        The store has changed since it was opened.
    """
    with store.image_file() as file:
        try:
            images = torch.empty((len(rows), *file.shape[1:]), dtype=torch.uint8, device=device)
            if device.type == "cpu":
                file.read_into(rows, images.numpy())
                return images
            step = max(1, BLOCK // file.image_bytes)
            for start in range(0, len(rows), step):
                images[start : start + step] = torch.from_numpy(file.read(rows[start : start + step]))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the images do not fit in memory: {choice.reason}",
                where="--images memory",
                next="the same command with --images stream",
            ) from error
    return images


def stream(store: Store, parts: Mapping[str, np.ndarray], device: torch.device, open_: ExitStack) -> dict[str, Images]:
    """The images of each part's rows, on disk; the program that reads them ends when `open_` is closed."""
    with store.image_file() as file:
        reader = open_.enter_context(RowReader(file, np.concatenate(list(parts.values()))))
        _, channels, height, width = file.shape
    images: dict[str, Images] = {}
    start = 0
    for name, rows in parts.items():
        places = np.arange(start, start + len(rows))
        images[name] = StreamedImages(reader, places, (channels, height, width), device)
        start += len(rows)
    return images


class RowReader:
    """Our side of :mod:`fer_bench.data.row_server`; a context manager that ends the program.

    Parameters
    ----------
    file : RowFile
        Needed open only while this is made.
    rows : int64 array [n]
        All rows that can ever be read.
    """

    def __init__(self, file: RowFile, rows: np.ndarray):
        self._line, theirs = socket.socketpair()
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._lock = threading.Lock()
        with theirs:
            passed = (file.fileno(), theirs.fileno())
            command = [sys.executable, "-P", "-m", "fer_bench.data.row_server", *map(str, (*passed, *file.state))]
            self._program = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=passed)
        with self._talking():
            self._ask(rows)

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._line.close()
        self._program.wait()

    def _ask(self, numbers: np.ndarray) -> None:
        body = np.ascontiguousarray(numbers, dtype=NUMBER)
        self._line.sendall(np.asarray([len(body)], dtype=NUMBER).tobytes() + body.tobytes())

    def read(self, places: np.ndarray, into: memoryview) -> None:
        """Fill `into` with the images at `places`, positions among the rows.

        Raises
        ------
        ChangedStoreError
            Something has been written into the store's images.
        TrainingError
            The program has ended.
        """
        answer = bytearray(1)
        with self._lock, self._talking():
            self._ask(places)
            self._receive(memoryview(answer))
            if answer == SOUND:
                self._receive(into)
                return
        raise ChangedStoreError("images.npy changed while it was in use", next="rerun the same command")

    @staticmethod
    @contextmanager
    def _talking() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError("the program that reads the images has ended", hint="see its output") from error

    def _receive(self, free: memoryview) -> None:
        while free:
            got = self._line.recv_into(free)
            if not got:
                raise ConnectionResetError
            free = free[got:]

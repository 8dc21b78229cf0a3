"""The program that reads images for a process which may not open the store: ``row_server IMAGES CONNECTION SIZE TIME``.

A training process may hold the pixels of its training and validation rows and of no others
(:mod:`fer_bench.seal`), so it can't keep ``images.npy`` open. This program does, and runs no code of methods. At its
start it is told the rows that it may give away, before any plug-in is imported; from then on it is asked for positions
among these rows. No question leads to another row.

::

    process --n, n rows------------------> program     int64, little endian; once
    process --k, k positions in the rows-> program     as often as it likes
    process <--one byte, pixels----------- program     SOUND and k images, or CHANGED and nothing more

It ends when the connection closes, with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import numpy as np

from fer_bench.data.row_file import RowFile

SOUND, CHANGED = b"+", b"!"
NUMBER = np.dtype("<i8")
BUFFER = 1 << 21  # bytes between the two processes; more lets the program read on while the other one is busy


def main() -> None:
    """Serve until the connection closes."""
    images, connection, *state = map(int, sys.argv[1:5])
    with RowFile(images) as file, socket.socket(fileno=connection) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the process has gone
            serve(file, line, tuple(state))


def serve(file: RowFile, line: socket.socket, state: tuple[int, ...]) -> None:
    """Answer questions about the rows that come first, until the other side hangs up or the file has changed."""
    rows = _numbers(line)
    while rows is not None and (positions := _numbers(line)) is not None:
        if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < len(rows):
            raise SystemExit(f"fer-bench: images {positions.min()} to {positions.max()} of {len(rows)} were asked for")
        if file.state != state:
            line.sendall(CHANGED)
            return
        line.sendall(SOUND)
        spans = list(file.spans(rows[positions]))
        if hasattr(os, "posix_fadvise"):
            for offset, length in spans:  # the disk may fetch all of them at once, in the order that suits it
                os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_WILLNEED)
        for offset, length in spans:
            _send(file, line, offset, length)


def _numbers(line: socket.socket) -> np.ndarray | None:
    """A list of numbers, after how many there are; None where the other side has hung up."""
    head = _received(line, NUMBER.itemsize)
    body = None if head is None else _received(line, int(np.frombuffer(head, NUMBER)[0]) * NUMBER.itemsize)
    return None if body is None else np.frombuffer(body, NUMBER)


def _received(line: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    free = memoryview(data)
    while free:
        got = line.recv_into(free)
        if not got:
            return None
        free = free[got:]
    return data


def _send(file: RowFile, line: socket.socket, offset: int, length: int) -> None:
    """Send a span: on Linux the system hands its pages over, elsewhere they go through a buffer."""
    end = offset + length
    while offset < end:
        if sys.platform == "linux":
            sent = os.sendfile(line.fileno(), file.fileno(), offset, end - offset)
            if not sent:
                raise SystemExit("fer-bench: images.npy ends too early: it has been cut")
        else:
            part = bytearray(min(BUFFER, end - offset))
            file.fill(memoryview(part), offset)
            line.sendall(part)
            sent = len(part)
        offset += sent


if __name__ == "__main__":
    main()

"""Files that are either whole or absent: written aside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from fer_bench.errors import FerBenchError


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing; it appears under its name only when the block ends without error.

    Raises
    ------
    FerBenchError
        The disk is full. Whatever stood at `path` before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")  # threads and other hosts may write it too
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if is_full(error):
            raise disk_full(path) from error
        raise


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it covers (torch.save raises its own over the system's), says the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(path: Path) -> FerBenchError:
    """The error for a disk that is full while `path` is written."""
    return FerBenchError(
        "the disk is full: the file was not written, but all finished work is intact",
        where=str(path),
        hint="free some space",
        next="rerun the same command to resume",
    )


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` atomically."""
    with writing(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically.

    Names of files whose bytes Python could not read hold stand-ins for them (surrogates); they are read as UTF-8 here,
    and what is not even that becomes a replacement character.
    """
    write_bytes(path, text.encode(errors="surrogateescape").decode(errors="replace").encode())


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spare blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as readable JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    with open(path, "rb") as file:  # a text file takes longer to open than to read
        return json.loads(file.read().decode())


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file atomically (equal arrays give equal bytes)."""
    with writing(path) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def read_array(path: str | Path) -> np.ndarray:
    """Read a ``.npy`` file of numbers; what its head claims is compared with its size before any memory is taken.

    Raises
    ------
    OSError, ValueError
        It can't be read, is not a .npy file, or its header gives another size than the file has.
    """
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = head(file)
        claimed, held = math.prod(shape) * kind.itemsize, os.fstat(file.fileno()).st_size - file.tell()
        if kind.kind not in "biuf" or claimed != held:
            raise ValueError(f"{shape} of {kind} take {claimed} bytes, but the file holds {held}")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def write_with(path: str | Path, save: Callable[[IO[bytes]], None]) -> None:
    """Let `save` write into a file that appears atomically."""
    with writing(path) as file:
        save(file)


def copy_file(source: str | Path, path: str | Path) -> None:
    """Copy a file's content, atomically."""
    with writing(path) as file, open(source, "rb") as content:
        shutil.copyfileobj(content, file)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

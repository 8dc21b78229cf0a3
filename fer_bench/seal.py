"""The seal on the test, which is made of separation; a hook beside it notes what a method tries.

**Separation.** A run is carried out by three kinds of processes, each of them fresh (:mod:`fer_bench.runs.forkserver`):

- The *training process* holds training and validation rows, and is given the row numbers of no others. It trains,
  selects an epoch on validation, writes it down, and ends. Where these rows don't fit in memory, a program that runs no
  code of methods reads them for it, and no others (:mod:`fer_bench.data.row_server`).
- A *scoring process* loads the test images before any plug-in code is imported, then the method and the weights it
  trained, and writes logits. It is never given a label.
- The *driver* runs no code of methods. It counts the opening of the test, joins logits, labels and rows, and writes the
  record.

So no search through memory finds the test's labels, in training or in scoring, nor its images in training.

**The hook.** From the moment plug-in code is imported, training and scoring processes refuse to open the prepared
store, its source files, the data folder, and the test outputs of other runs, by inode. Each attempt is sent to the
driver at once and stands in the record, whatever becomes of the process; a mark stands beside the method in every
table.

**What this does not stop**: native code that opens files by itself (``torch.from_file``, ctypes, pyarrow), another
program that a method starts, a copy of the data that lies elsewhere, a built-in data set drawn again with copied code,
files that a method writes in one run and reads in the next, and code that removes this hook's state or edits the
record. What fifteen plug-ins achieved is in docs/architecture.md.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fer_bench.errors import SealError

Inode = tuple[int, int]
_MEMORY = re.compile(r"/proc/\d+(/task/\d+)?/mem")  # of the driver, say
_FDS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_FOLDS_CASE = sys.platform == "darwin"  # its file systems find a name in other case, and spelled with other code points


def inodes(files: Iterable[str | Path]) -> np.ndarray:
    """Device and inode of every file that exists, uint64 [n, 2]; symbolic links are followed."""
    entries = []
    for file in files:
        try:
            entry = os.stat(file)
        except OSError:
            continue
        entries.append((entry.st_dev, entry.st_ino))
    return np.asarray(entries, dtype=np.uint64).reshape(-1, 2)


class Guard:
    """The audit hook of a training or scoring process. It can't be removed: the process ends with it.

    It refuses to open the files below, and the memory of a process.

    Parameters
    ----------
    files : uint64 [n, 2]
        Device and inode of the files that may not be opened (:func:`inodes`).
    folders : mapping of path to str
        Nor may files below each of these folders whose name begins with its text.
    spare : path
        Except in this folder: the run's own.
    report : callable
        Told the event and the file's name of each attempt.
    """

    def __init__(
        self, files: np.ndarray, folders: Mapping[str, str], spare: str, report: Callable[[str, str], None]
    ) -> None:
        self._files: frozenset[Inode] = frozenset(map(tuple, np.asarray(files).tolist()))
        self._folders = {_folded(os.path.join(os.path.realpath(f), "")): prefix for f, prefix in folders.items()}
        self._spare = _folded(os.path.join(os.path.realpath(spare), ""))
        self._report = report

    def close(self) -> None:
        """Start refusing."""
        global _guard
        _guard = self
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple) -> None:
        if event == "open" and args[0] is not None and not isinstance(args[0], int):
            self._check(args[0])

    def _check(self, path: Any) -> None:
        text = _plain(path)
        if text is None:  # its __fspath__ may give this hook one path and the system another
            self.refuse("open", type(path).__name__)
        if any(self._covers(place) for place in _places(text)):
            self.refuse("open", os.path.basename(text))

    def _covers(self, place: str) -> bool:
        try:
            entry = os.stat(place)
        except (OSError, ValueError):
            return False
        if (entry.st_dev, entry.st_ino) in self._files:
            return True
        real = _folded(os.path.realpath(place))
        if _MEMORY.fullmatch(real):
            return True
        if stat.S_ISDIR(entry.st_mode) or real.startswith(self._spare):
            return False
        name = os.path.basename(real)
        return any(real.startswith(f) and name.startswith(prefix) for f, prefix in self._folders.items())

    def refuse(self, event: str, what: str) -> NoReturn:
        """Report an attempt and raise SealError."""
        self._report(event, what)
        raise SealError(
            "methods may not read the data set's files or other runs: they see the training fold through "
            "TrainView and Context",
            where=f"{event} {what}",
        )


_guard: Guard | None = None


def refuse_while_sealed(what: str) -> None:
    """Raise SealError, and report the attempt, in a process that runs a method."""
    if _guard is not None:
        _guard.refuse("refused", what)


def _plain(path: Any) -> str | None:
    """The path as exact text; None where only the object itself knows it."""
    if isinstance(path, str):
        return str.__str__(path)
    if isinstance(path, bytes):
        return os.fsdecode(bytes(path))
    return os.fspath(path) if type(path) in (pathlib.PosixPath, pathlib.WindowsPath) else None


def _folded(path: str) -> str:
    """The path in one spelling, where the file system takes several for the same file."""
    return unicodedata.normalize("NFC", path).casefold() if _FOLDS_CASE else path


def _places(text: str) -> Iterator[str]:
    """What a path may mean: a relative one starts at the present folder, or at any folder that is open (dir_fd)."""
    yield text
    if os.path.isabs(text):
        return
    for number in os.listdir(_FDS) if os.path.isdir(_FDS) else ():
        place = f"{_FDS}/{number}"
        try:
            is_folder = stat.S_ISDIR(os.stat(place).st_mode)
        except OSError:
            continue
        if is_folder:
            yield f"{_folder_of(int(number)) or place}/{text}"


def _folder_of(descriptor: int) -> str | None:
    """The path of an open folder on macOS, where nothing lies below ``/dev/fd/N``; None elsewhere."""
    command = getattr(fcntl, "F_GETPATH", None)
    if command is None:
        return None
    try:
        return os.fsdecode(fcntl.fcntl(descriptor, command, bytes(1024)).split(b"\0")[0])
    except OSError:
        return None

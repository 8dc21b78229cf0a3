"""The seal on the test: until selection is locked, test images and labels are nowhere a method could find them.

Four measures work together:

- **Absence.** The harness loads training and validation rows only. No array of test pixels or labels exists in the
  process, so walking frames or the garbage collector finds nothing. Test predictions of every epoch, for the oracle
  number, are computed after training, from weight snapshots.
- **Guarded files.** While the seal is closed, a Python audit hook refuses to open, link or move the store, the source
  files it was made from (by inode, so links and copies of the path do not help), everything else below the data folder,
  and the arrays of other runs (their test labels are this run's too). Processes started with such a path are refused.
- **The harness alone reads.** Opening lifts the guard for the thread of the harness and for the moment it reads, so
  neither `predict` on the test nor a thread left waiting gets at the labels.
- **Counting.** Opening needs a locked selection. Every opening and every blocked attempt is written to the record at
  once, so swallowing the error, failing or being killed does not hide it.

This stops accidents and tricks in Python. It does not stop

- native code that opens files itself (pyarrow, `torch.ops`, a compiled extension; of torch, torchvision and libc only
  the functions with a Python name are watched);
- another process whose command line does not show the path (an obfuscated shell line, a `multiprocessing` child that is
  spawned, a person with a second terminal);
- code that rewrites the private state of the harness, such as this guard;
- drawing a built-in set again with copied code: it is a pure function;
- files that a method writes in one run and reads in the next. (What it keeps in memory does not reach the next run of a
  study: that one trains in a fresh process, see :mod:`fer_bench.worker`. Calling ``execute`` twice in one process has
  no such protection.)

Whoever wants to cheat there can also edit the report.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import pathlib
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_bench.atomic import read_json, write_json
from fer_bench.errors import FerBenchError, SealError

_STARTERS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_MOVERS = ("os.rename", "os.link", "os.symlink", "os.remove", "os.truncate")
_LIBC = (
    "open",
    "open64",
    "openat",
    "openat64",
    "fopen",
    "fopen64",
    "creat",
    "syscall",
    "system",
    "popen",
    "posix_spawn",
)
_FDS = "/proc/self/fd"


class Seal:
    """Guards files from :meth:`close` until the end of its block; the harness reads them within :meth:`reading`.

    Use it as a context manager, so that an error inside lifts the guard as well::

        with Seal(store.guarded_files()) as seal:
            ...                       # training; files can't be read
            seal.lock({"epoch": 7})   # selection is made
            seal.open("final test", rows=3589)
            with seal.reading():      # this thread alone
                images = store.images(rows)

    Parameters
    ----------
    files : iterable of paths
        Guarded by inode.
    folders : mapping of path to pattern
        Guarded are also the files below each folder whose name matches its pattern.
    spare : path, optional
        A folder within `folders` that is not guarded: the run's own.
    journal : path, optional
        JSON file that always holds :meth:`record`. What an interrupted attempt at the same run left there is kept.
    """

    def __init__(self, files: Iterable[str | Path], *, folders: Mapping[Path, str] | None = None,
                 spare: Path | None = None, journal: Path | None = None):  # fmt: skip
        self.paths = tuple(os.path.realpath(f) for f in files)
        self.folders = {os.path.realpath(f): pattern for f, pattern in (folders or {}).items()}
        self.spare = os.path.realpath(spare) if spare else None
        self.openings: list[dict[str, Any]] = []
        self.blocked: list[dict[str, str]] = []
        self.selection: Any = None
        self._journal = journal
        self._used = False

    def __enter__(self) -> Seal:
        self.close()
        return self

    def __exit__(self, *exc: object) -> None:
        _GUARD.lift(self)

    def close(self) -> None:
        """Start guarding; a seal can be closed only once, so that lifting it on the sly can't be undone.

        Raises
        ------
        SealError
            It was closed before.
        """
        if self._used:
            self.block("closed twice", "seal")
        self._used = True
        if self._journal is not None and self._journal.is_file():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                earlier = read_json(self._journal)
                self.openings, self.blocked = list(earlier["openings"]), list(earlier["blocked"])
        _GUARD.set(self)

    @property
    def closed(self) -> bool:
        """Whether the files are guarded now."""
        return _GUARD.holds(self)

    def lock(self, selection: Any) -> None:
        """Fix the selection; it can be made only once.

        Raises
        ------
        SealError
            A selection was locked before, or somebody has lifted the guard.
        """
        if self.selection is not None:
            self.block("selection locked twice", "seal")
        if not self.closed:
            self.block("guard lifted before selection", "seal")
        self.selection = selection

    def open(self, reason: str, rows: int) -> None:
        """Count an opening; from here on :meth:`reading` works.

        An opening that a kill interrupted is repeated on the same selection when the run is resumed, and counts once.

        Raises
        ------
        SealError
            No selection has been locked.
        """
        if self.selection is None:
            self.block("open before selection", reason)
        epoch = self.selection.get("epoch") if isinstance(self.selection, Mapping) else self.selection
        entry = {"reason": reason, "rows": rows, "epoch": epoch}
        if entry not in self.openings:
            self.openings.append(entry)
        self._note()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Let the calling thread read the guarded files; no method code may run in the block.

        Raises
        ------
        SealError
            The test has not been opened.
        """
        if self.selection is None or not self.openings:
            self.block("read before opening", "seal")
        _GUARD.free(self, threading.get_ident())
        try:
            yield
        finally:
            _GUARD.free(self, None)

    def block(self, event: str, file: str) -> None:
        """Note an attempt in the record (equal ones once, so that a resumed run has the same record) and raise."""
        entry = {"event": event, "file": file}
        if entry not in self.blocked:
            self.blocked.append(entry)
            self._note()
        raise SealError(
            "the test is sealed until selection is locked: this can't be done during training",
            where=f"{event} {file}",
            hint="methods see the training fold through TrainView and Context",
        )

    def record(self) -> dict[str, Any]:
        """What the ledger keeps."""
        return {"count": len(self.openings), "openings": self.openings, "blocked": self.blocked}

    def _note(self) -> None:
        if self._journal is not None:
            with contextlib.suppress(OSError, FerBenchError):  # a full disk must not hide the attempt itself
                write_json(self._journal, self.record())


@dataclass
class _Watch:
    """What the guard knows of one closed seal; `reader` is the thread that may read at present."""

    seal: Seal
    inodes: frozenset[tuple[int, int]]
    names: frozenset[str]
    reader: int | None = None
    here: str = field(default_factory=os.getcwd)  # where the process stood at the closing, and its environment then:
    env: frozenset[str] = field(default_factory=lambda: frozenset(os.environ.values()))  # these are no attempts

    def covers(self, place: str) -> bool:
        """Whether a path leads to a guarded file."""
        try:
            found = os.stat(place)
        except (OSError, ValueError):
            return False
        if (found.st_dev, found.st_ino) in self.inodes:
            return True
        real = os.path.realpath(place)
        if self.seal.spare and _within(real, self.seal.spare):
            return False
        name = os.path.basename(real)
        return any(_within(real, f) and fnmatch.fnmatchcase(name, p) for f, p in self.seal.folders.items())

    def lies_below(self, place: str) -> bool:
        """Whether a guarded file or folder lies below `place`."""
        real = os.path.realpath(place)
        return any(_within(p, real) for p in (*self.seal.paths, *self.seal.folders))

    def shown_in(self, args: tuple) -> str | None:
        """The guarded path, folder or file name that a new process could be meant to read, if any shows."""
        given = [t for t in (*_strings(args), *os.environ.values()) if t not in self.env]
        folders = {os.path.dirname(p) for p in self.seal.paths} | set(self.seal.folders)
        text, now = "\n".join(given), os.getcwd()
        for shown in (*folders, *self.seal.paths, *(n for n in self.names if len(n) > 4)):
            if shown in text:
                return shown
        starts = [now, *(t for t in given if os.path.isdir(t))]  # one of them may be the new process's folder
        words = [w for w in re.split(r"[\s'\"=;|&<>()$`]+", text) if w and w not in ("/", ".")]
        places = [os.path.realpath(os.path.join(s, w)) for s in starts for w in words]
        places += [] if now == self.here else [now]
        return next((f for f in folders for p in places if _within(p, f)), None)


class _Guard:
    """The process-wide audit hook; hooks can't be removed, so there is one, idle while nothing is sealed."""

    def __init__(self):
        self._watches: dict[int, _Watch] = {}
        self._hooked = False

    def set(self, seal: Seal) -> None:
        found = [os.stat(p) for p in seal.paths if os.path.exists(p)]
        inodes = frozenset((f.st_dev, f.st_ino) for f in found)
        names = frozenset(os.path.basename(p) for p in seal.paths)
        self._watches[id(seal)] = _Watch(seal, inodes, names)
        if not self._hooked:
            sys.addaudithook(self._audit)
            self._hooked = True
        _watch_native_readers()

    def lift(self, seal: Seal) -> None:
        self._watches.pop(id(seal), None)

    def free(self, seal: Seal, thread: int | None) -> None:
        if id(seal) in self._watches:
            self._watches[id(seal)].reader = thread

    def holds(self, seal: Seal | None = None) -> bool:
        return bool(self._watches) if seal is None else id(seal) in self._watches

    def watching(self) -> list[_Watch]:
        """The watches that bind the calling thread."""
        here = threading.get_ident()
        return [w for w in list(self._watches.values()) if w.reader != here]

    def _audit(self, event: str, args: tuple) -> None:
        if not self._watches:
            return
        if event == "open":
            self.check(event, args[0])
        elif event in _MOVERS:
            self._check_move(event, args)
        elif event in _STARTERS:
            for watch in self.watching():
                if shown := watch.shown_in(args):
                    watch.seal.block(event, os.path.basename(shown))
        elif event == "ctypes.dlsym" and args[1] in _LIBC:
            self.refuse(event, str(args[1]))

    def check(self, event: str, path: Any) -> None:
        """Raise SealError if `path` leads to a guarded file."""
        watches = self.watching()
        if not watches or path is None or isinstance(path, int):
            return
        text = _plain(path)
        for watch in watches:
            if text is None:  # its __fspath__ may tell the hook one path and the system another
                watch.seal.block(event, type(path).__name__)
                return
            named = not os.path.isabs(text) and os.path.basename(text) in watch.names
            if named or any(watch.covers(place) for place in _places(text)):
                watch.seal.block(event, os.path.basename(text))

    def _check_move(self, event: str, args: tuple) -> None:
        """Neither end of a move or link may be a guarded file, nor its start a folder that holds one."""
        texts = [t for a in args[:2] if isinstance(a, (str, bytes, os.PathLike)) and (t := _plain(a))]
        for text in texts:
            self.check(event, text)
        if event in ("os.symlink", "os.rename") and len(texts) == 2:
            origin, target = texts
            beside = os.path.join(os.path.dirname(target), origin)  # a relative link starts at its own folder
            places = [*_places(origin), *([beside] if event == "os.symlink" else [])]
            for watch in self.watching():
                if any(watch.covers(p) or watch.lies_below(p) for p in places):
                    watch.seal.block(event, os.path.basename(origin))

    def refuse(self, event: str, what: str) -> None:
        """Raise SealError if the calling thread is bound by any seal."""
        for watch in self.watching():
            watch.seal.block(event, what)


_GUARD = _Guard()


def refuse_while_sealed(what: str) -> None:
    """Raise SealError, and note the attempt, if a seal is closed: for things no method may do in training."""
    _GUARD.refuse("refused", what)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _plain(path: Any) -> str | None:
    """The path as exact text; None where only the object itself knows it."""
    if isinstance(path, str):
        return str.__str__(path)
    if isinstance(path, bytes):
        return os.fsdecode(bytes(path))
    return os.fspath(path) if type(path) in (pathlib.PosixPath, pathlib.WindowsPath) else None


def _places(text: str) -> Iterator[str]:
    """What a path may mean: a relative one starts at the present folder, or at any folder that is open (dir_fd)."""
    yield text
    if os.path.isabs(text):
        return
    with contextlib.suppress(OSError):
        for number in os.listdir(_FDS):
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.stat(f"{_FDS}/{number}").st_mode):
                    yield f"{_FDS}/{number}/{text}"


def _strings(value: Any) -> Iterator[str]:
    """All texts in nested arguments."""
    if isinstance(value, (str, bytes)):
        yield os.fsdecode(value)
    elif isinstance(value, os.PathLike):
        yield os.fsdecode(os.fspath(value))
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, Iterable):
        for item in value:
            yield from _strings(item)


def _watch_native_readers() -> None:
    """torch and torchvision open files in C++, which raises no audit event: check those entrances too."""
    torch, vision = sys.modules.get("torch"), sys.modules.get("torchvision.io.image")
    owners: list[tuple[Any, str]] = []
    if torch is not None:
        owners += [(torch, "from_file"), (torch.UntypedStorage, "from_file")]
    owners += [(m, "read_file") for m in (vision, sys.modules.get("torchvision.io")) if m]
    for owner, name in owners:
        original = getattr(owner, name, None)
        if original is not None and not getattr(original, "checks_the_seal", False):
            guarded = _checking(original, name)
            setattr(owner, name, staticmethod(guarded) if isinstance(owner, type) else guarded)


def _checking(original: Any, name: str) -> Any:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, (str, bytes, os.PathLike)):
                _GUARD.check(name, value)
        return original(*args, **kwargs)

    guarded.checks_the_seal = True  # type: ignore[attr-defined]
    return guarded

"""The seal on the test: until selection is locked, test images and labels are nowhere a method could find them.

Three measures work together:

- **Absence.** The harness loads training and validation rows only. No array of test pixels or labels exists in the
  process, so walking frames or the garbage collector finds nothing. Test predictions of every epoch, for the oracle
  number, are computed after training, from weight snapshots.
- **Guarded files.** While the seal is closed, a Python audit hook refuses to open the store and the source files it was
  made from, by inode, so links and copies of the path do not help; processes started with such a path are refused too.
- **Counting.** Opening needs a locked selection, and every opening and every blocked attempt is written to the record.

This stops accidents and tricks in Python. It does not stop native code that opens files itself, or a person with a
second terminal: whoever wants to cheat there can also edit the report.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fer_bench.errors import SealError

_OPENERS = ("open",)
_STARTERS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
_MOVERS = ("os.rename", "os.link", "os.symlink", "os.remove", "os.truncate")


class Seal:
    """Guards `files` from :meth:`close` to :meth:`open`.

    Use it as a context manager, so that an error inside lifts the guard as well::

        with Seal(store.guarded_files()) as seal:
            ...                       # training; files can't be read
            seal.lock({"epoch": 7})   # selection is made
            seal.open("final test", rows=3589)
    """

    def __init__(self, files: Iterable[str | Path]):
        self.paths = tuple(os.path.realpath(f) for f in files)
        self.openings: list[dict[str, Any]] = []
        self.blocked: list[dict[str, str]] = []
        self.selection: Any = None

    def __enter__(self) -> Seal:
        self.close()
        return self

    def __exit__(self, *exc: object) -> None:
        _GUARD.lift(self)

    def close(self) -> None:
        """Start guarding."""
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
            A selection was locked before.
        """
        if self.selection is not None:
            raise SealError("selection is locked already; it can't be made twice")
        self.selection = selection

    def open(self, reason: str, rows: int) -> None:
        """Lift the guard and count the opening.

        Raises
        ------
        SealError
            No selection has been locked.
        """
        if self.selection is None:
            self.blocked.append({"event": "open before selection", "file": reason})
            raise SealError("the test is sealed until selection is locked", where=reason)
        self.openings.append({"reason": reason, "rows": rows})
        _GUARD.lift(self)

    def record(self) -> dict[str, Any]:
        """What the ledger keeps."""
        return {"count": len(self.openings), "openings": self.openings, "blocked": self.blocked}


class _Guard:
    """The process-wide audit hook; hooks can't be removed, so there is one, idle while nothing is sealed."""

    def __init__(self):
        self._seals: dict[int, tuple[Seal, frozenset, frozenset]] = {}
        self._hooked = False

    def set(self, seal: Seal) -> None:
        inodes, names = set(), set()
        for path in seal.paths:
            if os.path.exists(path):
                stat = os.stat(path)
                inodes.add((stat.st_dev, stat.st_ino))
            names.add(os.path.basename(path))
        self._seals[id(seal)] = (seal, frozenset(inodes), frozenset(names))
        if not self._hooked:
            sys.addaudithook(self._audit)
            self._hooked = True
        _patch_native_readers()

    def lift(self, seal: Seal) -> None:
        self._seals.pop(id(seal), None)

    def holds(self, seal: Seal | None = None) -> bool:
        return bool(self._seals) if seal is None else id(seal) in self._seals

    def _audit(self, event: str, args: tuple) -> None:
        if not self._seals:
            return
        if event in _OPENERS or event in _MOVERS:
            self.check(event, args[0])
        elif event in _STARTERS:
            text = repr(args)
            for seal, _, _ in list(self._seals.values()):
                for path in seal.paths:
                    if path in text or os.path.dirname(path) in text:
                        self._block(seal, event, path)

    def check(self, event: str, path: Any) -> None:
        """Raise SealError if `path` leads to a guarded file."""
        if isinstance(path, int) or path is None:
            return
        text = os.fsdecode(path)
        try:
            stat = os.stat(text)
            inode = (stat.st_dev, stat.st_ino)
        except (OSError, ValueError):
            inode = None
        for seal, inodes, names in list(self._seals.values()):
            if inode in inodes or (inode is None and text in names):  # a bare name may be relative to a dir_fd
                self._block(seal, event, text)

    def _block(self, seal: Seal, event: str, path: str) -> None:
        seal.blocked.append({"event": event, "file": os.path.basename(path)})
        raise SealError(
            "the test is sealed until selection is locked: this file can't be read during training",
            where=f"{event} {os.path.basename(path)}",
            hint="methods see the training fold through TrainView and Context",
        )


_GUARD = _Guard()


def anything_sealed() -> bool:
    """Whether any seal is closed in this process."""
    return _GUARD.holds()


def _patch_native_readers() -> None:
    """torch maps files in C++, which raises no audit event: check those entrances too (torch is loaded by then)."""
    torch = sys.modules.get("torch")
    if torch is None or getattr(torch, "_fer_bench_guarded", False):
        return
    torch._fer_bench_guarded = True  # type: ignore[attr-defined]
    for owner, name in ((torch, "from_file"), (torch.UntypedStorage, "from_file")):
        original = getattr(owner, name)

        def guarded(path: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            if _GUARD.holds():
                _GUARD.check("torch.from_file", path)
            return _original(path, *args, **kwargs)

        setattr(owner, name, guarded if owner is torch else staticmethod(guarded))

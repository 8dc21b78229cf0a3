"""Unpacking archives that were downloaded: whole or not at all, and never outside the target.

An archive is untrusted. Every name in it is checked before anything is written under that name; links may only point
to places inside; the unpacked size is limited by the free disk and by the size of the archive itself. Everything is
unpacked beside the target and renamed at the end, so that a refused or broken archive leaves nothing behind.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fer_bench.errors import DataError

SUFFIXES = (".tar.gz", ".tar.xz", ".tar.bz2", ".tgz", ".txz", ".tbz2", ".tar", ".zip")
_DRIVE = re.compile(r"[A-Za-z]:")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError,
           OverflowError, RuntimeError)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may unpack to.

    Parameters
    ----------
    ratio : float
        Unpacked bytes for every byte of the archive. Text of pixels reaches 5; deflate can't pass 1032, and only
        archives built to fill disks come near it.
    floor : int
        Unpacked bytes that are allowed whatever the ratio.
    reserve : int
        Bytes of the disk that stay free.
    members : int
        Files, directories and links together.
    """

    ratio: float = 200.0
    floor: int = 64 << 20
    reserve: int = 256 << 20
    members: int = 2_000_000


def stem(name: str) -> str | None:
    """The name of an archive without its ending (``faces`` of ``faces.tar.gz``); None for what is no archive."""
    found = next((s for s in SUFFIXES if name.lower().endswith(s) and len(name) > len(s)), None)
    return name[: -len(found)] if found else None


def inner_path(name: str) -> PurePosixPath:
    """`name` as a path that stays where it is put.

    Raises
    ------
    DataError
        It is empty, absolute, climbs with "..", or would mean something else on another system.
    """
    path = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts or _DRIVE.match(name):
        raise DataError(f"the name {name!r} would not stay inside the directory it is put into")
    return path


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack a zip or tar archive (plain, gz, xz, bz2) as the new directory `target`.

    A lone directory at the archive's top becomes the target itself: ``faces-main/a.png`` lands at ``target/a.png``.

    Raises
    ------
    DataError
        It is no archive, damaged, encrypted, larger than `limits` allow, or holds a name or a link that leaves the
        target, a name twice, or something that is neither file, directory nor link.
    OSError
        The disk is full or can't be written. Whatever is raised, nothing is left behind.
    """
    if target.exists() or target.is_symlink():
        raise DataError("is there already", where=str(target), hint="remove it, or move it away")
    limits = limits or Limits()
    aside = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)  # what a killed process left
    try:
        aside.mkdir(parents=True)
        guard = _Guard(limits, _room(archive, target.parent, limits))
        _extract(archive, aside, guard)
        os.replace(_top(aside, guard), target)
    except DataError as error:
        raise DataError(f"the archive is refused: {error.what}", where=str(archive), hint=error.hint) from error
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is None:  # a decompressor's own, not the system's
            raise _damaged(archive, error) from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(f"the archive is damaged: {error}", where=str(archive), hint="fetch it again")


def _room(archive: Path, place: Path, limits: Limits) -> int:
    """Bytes that may be unpacked."""
    free = shutil.disk_usage(place).free - limits.reserve
    return max(0, min(free, max(limits.floor, int(limits.ratio * archive.stat().st_size))))


def _top(aside: Path, guard: _Guard) -> Path:
    """The lone directory in `aside`, or `aside` itself, also where a link climbs out of that directory."""
    inside = list(aside.iterdir())
    lone = len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink()
    return inside[0] if lone and not guard.climbs else aside


def _extract(archive: Path, aside: Path, guard: _Guard) -> None:
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if _enter_tar(member, guard):
                    tar.extract(member, aside, filter="data")
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in list(_enter_zip(zipped, guard)):  # the list in full first: a zip tells all sizes beforehand
                zipped.extract(info, aside)
    else:
        raise DataError("it is neither a zip nor a tar file", hint=f"read are: {', '.join(SUFFIXES)}")


def _enter_zip(zipped: zipfile.ZipFile, guard: _Guard) -> Iterator[zipfile.ZipInfo]:
    for info in zipped.infolist():
        if info.flag_bits & 1:
            raise DataError(f"{info.filename!r} is encrypted", hint="unpack it yourself, with its password")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"{info.filename!r} is neither file nor directory")
        path = inner_path(info.orig_filename)
        if info.is_dir():
            guard.directory(path)
        else:
            guard.file(path, info.file_size)
        yield info


def _enter_tar(member: tarfile.TarInfo, guard: _Guard) -> bool:
    """Check one member; False for the archive's own root, which needs no unpacking."""
    path = inner_path(member.name)
    if member.isdir():
        guard.directory(path)
    elif member.isreg():
        guard.file(path, member.size)
    elif member.issym():
        guard.link(path, member.linkname)
    elif member.islnk():
        guard.same_as(path, inner_path(member.linkname))
    else:
        raise DataError(f"{member.name!r} is neither file, directory nor link")
    return bool(path.parts)


@dataclass
class _Guard:
    """What has been let in so far. Each method lets one member in, or raises DataError."""

    limits: Limits
    room: int
    directories: set[PurePosixPath] = field(default_factory=set)
    files: dict[PurePosixPath, int] = field(default_factory=dict)
    links: set[PurePosixPath] = field(default_factory=set)
    total: int = 0
    climbs: bool = False

    def directory(self, path: PurePosixPath) -> None:
        """A directory; naming one twice does no harm."""
        if path in self.files or path in self.links:
            raise DataError(f"two members are called {str(path)!r}")
        self._parents(path)
        self.directories.add(path)
        self._count()

    def file(self, path: PurePosixPath, size: int) -> None:
        """A regular file of `size` bytes."""
        self._new(path)
        self.files[path] = size
        self.total += size
        self._count()
        if self.total > self.room:
            hint = f"{self.room:,} bytes are allowed here: by its own size, and by the free disk"
            raise DataError(f"it unpacks to {self.total:,} bytes or more", hint=hint)

    def link(self, path: PurePosixPath, to: str) -> None:
        """A symbolic link; ".." may stand at its beginning only, where no other link can change what it means."""
        self._new(path)
        depth, down = len(path.parts) - 1, PurePosixPath(to).parts
        while down and down[0] == "..":
            depth, down = depth - 1, down[1:]
        odd = not to or "\\" in to or _DRIVE.match(to) or PurePosixPath(to).is_absolute()
        if odd or depth < 0 or ".." in down:
            raise DataError(f"the link {str(path)!r} to {to!r} would leave the target")
        self.climbs |= depth == 0 and len(path.parts) > 1
        self.links.add(path)
        self._count()

    def same_as(self, path: PurePosixPath, other: PurePosixPath) -> None:
        """A hard link to a file that came before."""
        if other not in self.files:
            raise DataError(f"the link {str(path)!r} to {str(other)!r} leads to no file before it")
        self.file(path, self.files[other])

    def _new(self, path: PurePosixPath) -> None:
        if not path.parts or path in self.files or path in self.links or path in self.directories:
            raise DataError(f"two members are called {str(path)!r}")
        self._parents(path)

    def _parents(self, path: PurePosixPath) -> None:
        for parent in path.parents:
            if parent in self.files or parent in self.links:
                raise DataError(f"{str(path)!r} lies below {str(parent)!r}, which is no directory")
            self.directories.add(parent)

    def _count(self) -> None:
        members = len(self.files) + len(self.directories) + len(self.links)
        if members > self.limits.members:
            raise DataError(f"it has more than {self.limits.members:,} members")

"""Unpack downloaded archives completely or not at all, and never outside the target folder.

Archives are untrusted. Every name is checked before anything is written under it; links may only point inside the
target; the unpacked size is limited by the free disk space and by the size of the archive. Files are unpacked next to
the target and renamed at the end, so a rejected or broken archive leaves nothing behind.
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
    """Limits on what an archive may contain.

    Parameters
    ----------
    ratio : float
        Unpacked bytes per byte of the archive. Pixels as text reach 5; deflate can't exceed 1032, and only archives
        built to fill disks come close.
    floor : int
        Unpacked bytes that are always allowed, whatever the ratio.
    reserve : int
        Bytes of the disk to leave free.
    members : int
        Number of files, directories and links.
    """

    ratio: float = 200.0
    floor: int = 64 << 20
    reserve: int = 256 << 20
    members: int = 2_000_000


def stem(name: str) -> str | None:
    """The name of an archive without its suffix (``faces`` for ``faces.tar.gz``); None if not an archive."""
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s) and len(name) > len(s)), None)
    return name[: -len(suffix)] if suffix else None


def inner_path(name: str) -> PurePosixPath:
    """`name` as a relative path that can't leave its folder.

    Raises
    ------
    DataError
        It is empty, absolute, contains "..", or would mean something else on another system.
    """
    path = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts or _DRIVE.match(name):
        raise DataError(f"the name {name!r} would lead outside its folder")
    return path


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack a zip or tar archive (plain, gz, xz, bz2) as the new directory `target`.

    A single top-level directory becomes the target itself: ``faces-main/a.png`` is unpacked as ``target/a.png``.

    Raises
    ------
    DataError
        It is not an archive, or it is damaged, encrypted, larger than `limits` allow, or contains a name or link that
        leaves the target, a duplicate name, or something that is neither file, directory nor link.
    OSError
        The disk is full or can't be written. In all cases nothing is left behind.
    """
    if target.exists() or target.is_symlink():
        raise DataError("the target already exists", where=str(target), hint="remove it or move it away")
    limits = limits or Limits()
    aside = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed process
    try:
        aside.mkdir(parents=True)
        guard = _Guard(limits, _room(archive, target.parent, limits))
        _extract(archive, aside, guard)
        os.replace(_top(aside, guard), target)
    except DataError as error:
        raise DataError(f"the archive was rejected: {error.what}", where=str(archive), hint=error.hint) from error
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is None:  # raised by a decompressor, not the system
            raise _damaged(archive, error) from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(f"the archive is damaged: {error}", where=str(archive), hint="download it again")


def _room(archive: Path, place: Path, limits: Limits) -> int:
    """Number of bytes that may be unpacked."""
    free = shutil.disk_usage(place).free - limits.reserve
    return max(0, min(free, max(limits.floor, int(limits.ratio * archive.stat().st_size))))


def _top(aside: Path, guard: _Guard) -> Path:
    """The single directory in `aside`; or `aside` itself if there are more, or if a link leaves that directory."""
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
            for info in list(_enter_zip(zipped, guard)):  # check everything first: a zip lists all sizes up front
                zipped.extract(info, aside)
    else:
        raise DataError("it is neither a zip nor a tar file", hint=f"accepted: {', '.join(SUFFIXES)}")


def _enter_zip(zipped: zipfile.ZipFile, guard: _Guard) -> Iterator[zipfile.ZipInfo]:
    for info in zipped.infolist():
        if info.flag_bits & 1:
            raise DataError(f"{info.filename!r} is encrypted", hint="unpack it by hand with its password")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"{info.filename!r} is neither a file nor a directory")
        path = inner_path(info.orig_filename)
        if info.is_dir():
            guard.directory(path)
        else:
            guard.file(path, info.file_size)
        yield info


def _enter_tar(member: tarfile.TarInfo, guard: _Guard) -> bool:
    """Check one member; False for the archive's root, which is not unpacked."""
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
        raise DataError(f"{member.name!r} is not a file, directory or link")
    return bool(path.parts)


@dataclass
class _Guard:
    """The members accepted so far. Each method accepts one more, or raises DataError."""

    limits: Limits
    room: int
    directories: set[PurePosixPath] = field(default_factory=set)
    files: dict[PurePosixPath, int] = field(default_factory=dict)
    links: set[PurePosixPath] = field(default_factory=set)
    total: int = 0
    climbs: bool = False

    def directory(self, path: PurePosixPath) -> None:
        """A directory; duplicates are harmless."""
        if path in self.files or path in self.links:
            raise DataError(f"two members are named {str(path)!r}")
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
            hint = f"{self.room:,} bytes are allowed, given its size and the free disk space"
            raise DataError(f"it unpacks to {self.total:,} bytes or more", hint=hint)

    def link(self, path: PurePosixPath, to: str) -> None:
        """A symbolic link; ".." is allowed only at its beginning, where no other link can change its meaning."""
        self._new(path)
        depth, down = len(path.parts) - 1, PurePosixPath(to).parts
        while down and down[0] == "..":
            depth, down = depth - 1, down[1:]
        odd = not to or "\\" in to or _DRIVE.match(to) or PurePosixPath(to).is_absolute()
        if odd or depth < 0 or ".." in down:
            raise DataError(f"the link {str(path)!r} to {to!r} would lead outside the target")
        self.climbs |= depth == 0 and len(path.parts) > 1
        self.links.add(path)
        self._count()

    def same_as(self, path: PurePosixPath, other: PurePosixPath) -> None:
        """A hard link to an earlier file."""
        if other not in self.files:
            raise DataError(f"the link {str(path)!r} to {str(other)!r} does not refer to an earlier file")
        self.file(path, self.files[other])

    def _new(self, path: PurePosixPath) -> None:
        if not path.parts or path in self.files or path in self.links or path in self.directories:
            raise DataError(f"two members are named {str(path)!r}")
        self._parents(path)

    def _parents(self, path: PurePosixPath) -> None:
        for parent in path.parents:
            if parent in self.files or parent in self.links:
                raise DataError(f"{str(path)!r} is inside {str(parent)!r}, which is not a directory")
            self.directories.add(parent)

    def _count(self) -> None:
        members = len(self.files) + len(self.directories) + len(self.links)
        if members > self.limits.members:
            raise DataError(f"it has more than {self.limits.members:,} members")

"""The folder of a page: which of its files are ours, and how new files replace old ones.

A list of the files that were written, with their hashes, is kept beside them. Only files that are in the list and
unchanged are ever replaced or removed. A file of ours that somebody has edited is kept under another name. A file that
is not ours, in the place of one that is to be written, is an error, raised before anything changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from fer_bench.base.files import sha256_file, write_json
from fer_bench.base.scratch import scratch
from fer_bench.errors import FerBenchError
from fer_bench.printable import printable

ASIDE = ".report-"
# One list for each kind of page, which removes only its own files.
LISTS = (".fer-bench-report.json", ".fer-bench-check.json", ".fer-bench-explain.json")
REPORT, CHECK, EXPLAIN = LISTS
MOST_NAMES = 5  # in a message
EDITED = re.compile(r"\.edited-\d+(?=\.[^./]*$|$)")  # what is added to the name of a file that is kept
NOTE = "Files that fer-bench wrote here, with their SHA-256. It replaces and removes no others, and none that changed."
ADOPTED = "older"  # in a list: files that are in no list may be from the version before there were lists
OLDER = {  # text by which a page of a version without lists is recognised
    "report.md": "\n## How to repeat this\n",
    "report.html": '<meta name="generator" content="fer-bench">',
    "table.csv": ",gain_low,gain_high",
    "tables/main.tex": "This folder is written anew with every report",
    "README.md": "# Data check: ",
}


def tell(line: str) -> None:
    """Print a line to the error stream."""
    print(printable(line), file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a page goes.

    Attributes
    ----------
    out : Path
        The folder.
    kept : str
        Name of the list of files that were written, one of :data:`LISTS`.
    own : bool
        The folder lies among fer-bench's results: a page of a version without lists is replaced there.
    alone : bool
        The folder must hold nothing else, so that pictures of ours don't mix with those of others.
    force : bool
        Files that are not ours are replaced; or, where the page should be alone, stay beside it.
    again : str
        The command that writes this page.
    say : callable
        Called with a sentence about every edited file that is kept.
    """

    out: Path
    kept: str = REPORT
    own: bool = False
    alone: bool = False
    force: bool = False
    again: str = ""
    say: Callable[[str], None] = tell

    def adopts(self) -> bool:
        """Whether files that are in no list may be replaced as well."""
        return self.force or (self.own and _older(self.out))


def check(target: Target, names: Iterable[str]) -> None:
    """Refuse a folder in which a file that is not ours has one of `names`.

    Raises
    ------
    FerBenchError
        There is such a file; `where` is the folder, `next` the command that replaces the file.
    """
    known = _known(target.out)
    there = [name for name in names if os.path.lexists(target.out / name)]
    blocked = [name for name in there if os.path.isdir(target.out / name)]
    foreign = [name for name in there if name not in known]
    if blocked:
        raise FerBenchError(f"{_some(blocked)} is a folder, but a file must be written there", where=str(target.out))
    if target.alone and not target.force and (others := [*islice(_others(target), MOST_NAMES)]):
        raise FerBenchError(
            f"the folder holds files that are not of such a page: {_some(others)}",
            where=str(target.out),
            hint="nothing was written; choose another folder with --out, or write beside these files with --force",
            next=f"{target.again} --force" if target.again else None,
        )
    if foreign and not target.adopts():
        raise FerBenchError(
            f"the folder holds files that fer-bench has not listed as its own: {_some(foreign)}",
            where=str(target.out),
            hint="nothing was written; choose another folder with --out, or replace these files with --force",
            next=f"{target.again} --force" if target.again else None,
        )


@contextlib.contextmanager
def aside(target: Target) -> Iterator[Path]:
    """A temporary folder inside the target, so that moving is renaming; what killed builds left there is removed.

    Raises
    ------
    FerBenchError
        The target can't be written.
    """
    with contextlib.ExitStack() as held:
        with _system_errors(target):
            target.out.mkdir(parents=True, exist_ok=True)
            folder = held.enter_context(scratch(target.out, ASIDE))
        yield folder


@contextlib.contextmanager
def _system_errors(target: Target) -> Iterator[None]:
    """Turn errors of the operating system into ours."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or target.out)
        raise FerBenchError(f"the page can't be written: {error.strerror}", where=where) from error


def move(folder: Path, target: Target, retired: Iterable[str] = ()) -> None:
    """Rename every file of `folder` into the target, pages after their figures.

    Then the files of ours that this page no longer has are removed: those of the kinds that were written now, and those
    named in `retired`. A kill in between leaves whole files, all of them still known as ours.

    Raises
    ------
    FerBenchError
        A file that is not ours is in the way; nothing has changed then.
    """
    new = {p.relative_to(folder).as_posix(): _hash(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    check(target, new)
    with _system_errors(target):
        _move(folder, target, new, retired)


def _move(folder: Path, target: Target, new: Mapping[str, str], retired: Iterable[str]) -> None:
    known, listed = _known(target.out), _read(target.out / target.kept)
    dropped = [name for name in listed if name not in new and _kind(name) in set(map(_kind, new))]
    adopts, older = target.adopts(), target.own and _older(target.out)
    if adopts:
        old = {name: (_hash(target.out / name),) for name in retired if name not in new and name not in known}
        known, dropped = known | old, [*dropped, *old]
    _write(folder, target, older, {n: (*listed.get(n, ()), *([new[n]] if n in new else [])) for n in {*listed, *new}})
    for name in sorted(new, key=lambda n: (-n.count("/"), n)):
        changed = os.path.lexists(target.out / name) and _hash(target.out / name) not in known.get(name, ())
        if changed and (name in known or target.alone):
            _set_aside(name, target, "had been edited" if name in known else "is not fer-bench's")
        (target.out / name).parent.mkdir(exist_ok=True)
        os.replace(folder / name, target.out / name)
    for name in dropped:
        _remove(name, target, known[name])
    _write(
        folder,
        target,
        older,
        {n: of for n, of in listed.items() if n not in dropped} | {n: (of,) for n, of in new.items()},
    )


def _kind(name: str) -> tuple[PurePosixPath, str]:
    """Folder and suffix: files of one kind are written together, or not at all."""
    path = PurePosixPath(name)
    return path.parent, path.suffix


def _remove(name: str, target: Target, hashes: Collection[str]) -> None:
    """Delete a file of ours; an edited one stays, and is no longer ours."""
    path = target.out / name
    if not os.path.lexists(path):
        return
    if (digest := _hash(path)) and digest in hashes:
        path.unlink()
    else:
        target.say(f"{path} has been edited, so it is kept, although no page needs it now")


def _set_aside(name: str, target: Target, why: str) -> None:
    """Give a file that is edited, or not ours, a name that is never written here."""
    place, number = target.out / name, 1
    while os.path.lexists(kept := place.with_name(f"{place.stem}.edited-{number}{place.suffix}")):
        number += 1
    os.rename(place, kept)
    target.say(f"{place} {why}: the copy is kept as {kept.name}")


def is_of_page(path: Path, lists: dict[Path, Collection[str]]) -> bool:
    """Whether a page of ours holds this file: some list has its name, and be it an edited copy.

    `lists` keeps the names of each folder for the next question.
    """
    for folder in (path.parent, path.parent.parent):
        if folder not in lists:
            lists[folder] = _known(folder)
        if _listed_as(path.relative_to(folder).as_posix(), lists[folder]):
            return True
    return False


def _listed_as(name: str, listed: Collection[str]) -> bool:
    return name in listed or EDITED.sub("", name) in listed


def _others(target: Target) -> Iterator[str]:
    """Files in the folder or below it that no page of this kind has written; hidden ones don't count."""
    listed = _read(target.out / target.kept)
    for place, folders, files in os.walk(target.out):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = (Path(place, name).relative_to(target.out).as_posix() for name in sorted(files) if name[0] != ".")
        yield from (name for name in names if not _listed_as(name, listed))


def _hash(path: Path) -> str:
    """SHA-256 of a plain file; empty for a link, or a file that can't be read."""
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            return sha256_file(path)
    return ""


def _some(names: list[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _older(out: Path) -> bool:
    """Whether a version without lists has written a page here, parts of which may be left."""
    lists = [_content(out / name) for name in LISTS if os.path.lexists(out / name)]
    if lists:
        return any(content.get(ADOPTED) is True for content in lists)
    for name, mark in OLDER.items():
        with contextlib.suppress(OSError):
            if mark.encode() in (out / name).read_bytes():
                return True
    return False


def _known(out: Path) -> dict[str, tuple[str, ...]]:
    """Files of ours in a folder, of every kind of page, with the hashes that they may have."""
    known: dict[str, tuple[str, ...]] = {}
    for name in LISTS:
        for file, hashes in _read(out / name).items():
            known[file] = (*known.get(file, ()), *hashes)
    return known


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    """Names and hashes of a list, without names that lead out of the folder."""
    files = _content(path).get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return {
        str(n): (of,) if isinstance(of, str) else tuple(map(str, of if isinstance(of, list) else ()))
        for n, of in entries
        if _inside(str(n))
    }


def _content(path: Path) -> dict[str, Any]:
    """The content of a list; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return 1 <= len(parts) <= 2 and ".." not in parts and not name.startswith(("/", "."))


def _write(folder: Path, target: Target, older: bool, files: Mapping[str, Collection[str]]) -> None:
    """Write the list, by way of `folder`; a file has several hashes only while it is being replaced."""
    entries = {name: next(iter(of)) if len(of) == 1 else [*of] for name, of in files.items()}
    write_json(folder / target.kept, {"note": NOTE, "files": entries} | ({ADOPTED: True} if older else {}))
    os.replace(folder / target.kept, target.out / target.kept)

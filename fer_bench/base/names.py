"""Names that become files and folders: of studies, runs, data sets, protocols and plug-ins.

A name is made of letters, digits and ``. _ - + =``. It begins with a letter, a digit or ``_`` and does not end with a
dot. A colon joins a data set and its label (``folder:lab``). In a path the colon becomes ``@``, which no name may hold:
so ``folder:lab`` lies in ``data/folder@lab``, and either spelling says what the other is.

:func:`checked` is asked wherever a name comes from outside (command line, records), :func:`locate` wherever one becomes
a path.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_bench.errors import FerBenchError, SpecError, abbreviated

LONGEST = 120  # characters; with endings and marks of unfinished files a path's part stays far below 255 bytes
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices, to Windows
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._+=-]*[A-Za-z0-9_+=-])?"
_RULE = "letters, digits and . _ - + =, beginning with a letter, a digit or _"


@dataclass(frozen=True)
class Kind:
    """A kind of name: what it is called, the pattern it fits as a whole, and that pattern in words."""

    what: str
    pattern: str
    rule: str = _RULE


STUDY = Kind("study's name", rf"{_PART}(?::{_PART})*")
DATASET = Kind("data set's name", rf"{_PART}(?::{_PART})?", f"{_RULE}; a label follows a colon, as in folder:mine")
PROTOCOL = Kind("protocol's name", rf"{_PART}(?:/{_PART})*")
PLUGIN = Kind("plug-in's name", _PART)
ARM = Kind("name of an arm", r"[A-Za-z0-9_](?:[A-Za-z0-9._+= -]*[A-Za-z0-9_+=-])?", _RULE.replace("and", "spaces and"))
RUN = Kind("run's id", r"[0-9a-f]+", "digits and letters from a to f")


def checked(name: Any, kind: Kind, *, where: str | None = None, error: type[FerBenchError] = SpecError) -> str:
    """The name, if it is one of its kind.

    Raises
    ------
    FerBenchError
        Of class `error`: the name has other characters, is too long, or is no text at all.
    """
    if not isinstance(name, str) or not re.fullmatch(kind.pattern, name, re.ASCII) or RESERVED.fullmatch(name):
        near = slug(name) if isinstance(name, str) else ""
        fits = near != name and re.fullmatch(kind.pattern, near) and not RESERVED.fullmatch(near)
        hint = kind.rule + (f"; perhaps '{near[:LONGEST]}'" if fits else "")
        raise error(f"'{abbreviated(name)}' can't be a {kind.what}", where=where, hint=hint)
    if len(name) > LONGEST:
        what = f"a {kind.what} has at most {LONGEST} characters, and '{abbreviated(name)}' has {len(name)}"
        raise error(what, where=where, hint=f"a shorter one, as '{name[:20].rstrip('.:/')}'")
    return name


def folder_of(name: str) -> str:
    """The spelling of a name in paths: ``folder@lab`` of ``folder:lab``."""
    return name.replace(":", "@")


def name_of(folder: str) -> str:
    """The name that a part of a path stands for, whether it is spelled as now or as earlier, with a colon."""
    return folder.replace("@", ":")


def locate(root: Path, name: str, ending: str = "") -> Path:
    """Where a thing called `name` lies, or will lie, directly below `root`; what an earlier version wrote stays there.

    Raises
    ------
    SpecError
        The name would lead out of `root`, or another thing's name differs from it in case alone.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise SpecError(f"{name!r} can't be a name: it would lead out of its folder", where=str(root))
    entries = _entries(root)
    path, earlier = root / f"{folder_of(name)}{ending}", f"{name}{ending}"
    if path.name not in entries and earlier in entries:
        return root / earlier
    twins = [e for e in entries if e.lower() == path.name.lower() and e != path.name]
    if twins and path.name not in entries:
        twin = name_of(twins[0].removesuffix(ending))
        raise SpecError(
            f"'{name}' and '{twin}' differ in case alone, which some file systems can't tell apart",
            where=str(root / twins[0]),
            hint=f"take '{twin}', or another name",
        )
    return path


def _entries(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:  # what is wrong with the folder shows when it is used
        return set()


def slug(text: str) -> str:
    """Free text, such as a method with its parameters, as part of a name: awkward characters become ``_``."""
    return re.sub(r"[^A-Za-z0-9_.=-]", "_", text).strip("_").lstrip(".-").rstrip(".")


def shortened(name: str, longest: int = LONGEST) -> str:
    """The name, or its beginning and a hash of the whole where it is too long."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9].rstrip('.:-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

"""How a text file is written: its encoding and line ends; and what a file is that holds no text."""

from __future__ import annotations

import codecs
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .folders import entries

HEAD = 2**16  # bytes that tell how a file is written
ENDINGS = ((".csv", ".tsv"), (".txt", ""))  # of tables: the second ones count where none of the first is a table
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CONTROL = bytes(k for k in range(32) if chr(k) not in "\t\n\v\f\r\x1a")
SIGNATURES = {
    "zip archive": rb"PK(\x03\x04|\x05\x06)",
    "gzip archive": rb"\x1f\x8b",
    "bzip2 archive": rb"BZh[1-9]1AY&SY",
    "xz archive": rb"\xfd7zXZ\0",
    "7z archive": rb"7z\xbc\xaf\x27\x1c",
    "rar archive": rb"Rar!\x1a\x07",
    "tar archive": rb"(?s:.{257})ustar",
}
SINGLE = ("gzip archive", "bzip2 archive", "xz archive")  # one file, which may be a tar archive
PACKED = (".zip", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".tar", ".7z", ".rar", "")
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")


@dataclass(frozen=True)
class Script:
    """How a text is written.

    Attributes
    ----------
    encoding : str
        Empty where the file holds no text.
    ends : str
        What ends a line: a line feed (alone or after a carriage return), or a carriage return.
    kind : str
        What a file without text is, for people.
    """

    encoding: str
    ends: str = "\n"
    kind: str = ""

    @property
    def summary(self) -> str:
        """What is unusual about it, for people; empty mostly."""
        wide = self.encoding.upper() if self.encoding.startswith(("utf-16", "utf-32")) else ""
        return ", ".join(filter(None, [wide, "lines that end with CR" if self.ends == "\r" else ""]))


def script_of(head: bytes) -> Script:
    """How the text is written that begins with `head`."""
    if kind := _archive(head):
        return Script("", kind=kind)
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), "") or _wide(head)
    if not encoding:
        if len(head) - len(head.translate(None, CONTROL)) > len(head) / 100:
            return Script("", kind="binary file")
        encoding = "utf-8" if _is_utf8(head, cut=True) else "latin-1"
    text = head.decode(encoding, errors="ignore")
    return Script(encoding, "\r" if "\r" in text and "\n" not in text else "\n")


def _wide(head: bytes) -> str:
    """UTF-16 without a mark: every second byte of Latin text is zero."""
    half = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if half < 2 or min(even, odd) > half / 100 or max(even, odd) < half / 2:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_utf8(data: bytes, *, cut: bool) -> bool:
    """Whether the bytes are UTF-8; a letter that a cut at the end divides does no harm."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=not cut)
    except UnicodeDecodeError:
        return False
    return True


def _archive(head: bytes) -> str:
    """Which archive begins so; empty for none."""
    return next((kind for kind, mark in SIGNATURES.items() if re.match(mark, head)), "")


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(HEAD)


@contextmanager
def open_lines(path: Path, script: Script) -> Iterator[Iterator[bytes]]:
    """Open a text for reading line by line, in an encoding that writes digits and letters as ASCII does."""
    if script.ends == "\n" and not script.encoding.startswith(("utf-16", "utf-32")):
        with open(path, "rb") as file:
            yield file
    else:
        with open(path, encoding=script.encoding or "latin-1", errors="replace") as text:
            yield (line.encode() for line in text)


def decoded(data: bytes, *, cut: bool = False) -> tuple[str, Script]:
    """The text of a file's content, and how it is written; no text for a file that holds none.

    Parameters
    ----------
    cut : bool
        The content is the head of a longer file: its last line is left out.
    """
    script = script_of(data[:HEAD])
    if script.encoding == "utf-8" and not _is_utf8(data, cut=cut):
        script = Script("latin-1", script.ends)
    if not script.encoding:
        return "", script
    text = data.decode(script.encoding, errors="ignore" if cut else "replace")
    return (text[: max(text.rfind("\n"), text.rfind("\r")) + 1] if cut else text), script


def printable(text: str, length: int = 40) -> str:
    """The beginning of a text from a file, harmless on a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:length])


def tables_in(where: Path, fits: Callable[[Path], bool], endings: Sequence[Sequence[str]] = ENDINGS) -> list[Path]:
    """The files in the folder `where`, or itself, that are tables by `fits`; of the first endings that have one."""
    if where.is_file():
        return [where] if fits(where) else []
    inside = entries(where)
    for some in endings:
        tables = [p for p in inside if p.suffix.lower() in some and p.is_file() and fits(p)]
        if tables:
            return tables
    return []


# --- archives --------------------------------------------------------------------------------------------------------


def packed_in(where: Path) -> list[Path]:
    """Archives, and workbooks of spreadsheets, directly in the folder `where`, or itself.

    Those that seem to be unpacked already, so that the command would write over something, are left out.
    """
    inside = [where] if where.is_file() else entries(where)
    named = [p for p in inside if p.suffix.lower() in (*PACKED, *WORKBOOKS) and p.is_file()]
    made = {path: unpacked(path) for path in named if _what(path)}
    return [path for path, unpacked_at in made.items() if unpacked_at is None or not unpacked_at[1].exists()]


def _what(path: Path) -> str:
    """ "zip archive" or the like; "workbook"; empty for another file."""
    if path.suffix.lower() in WORKBOOKS:
        return "workbook"
    return _archive(head_of(path))


def unpacked(path: Path) -> tuple[str, Path] | None:
    """The command that unpacks an archive, and the file or folder it makes; None for a workbook."""
    kind = _what(path)
    if kind == "workbook":
        return None
    endings = (".tar.gz", ".tar.bz2", ".tar.xz", *filter(None, PACKED))
    ending = next((e for e in endings if path.name.lower().endswith(e) and path.name.lower() != e), "")
    single = kind in SINGLE and not tarfile.is_tarfile(path)
    stem = path.name[: len(path.name) - len(ending)]
    target = path.with_name(stem if ending else stem + (".csv" if single else ".unpacked"))
    here, there = shlex.quote(str(path)), shlex.quote(str(target))
    if kind in (*SINGLE, "tar archive") and not single:
        return f"mkdir -p {there} && tar -xf {here} -C {there}", target
    commands = {
        "zip archive": f"python3 -m zipfile -e {here} {there}",
        "gzip archive": f"gzip -dc {here} > {there}",
        "bzip2 archive": f"bzip2 -dc {here} > {there}",
        "xz archive": f"xz -dc {here} > {there}",
        "7z archive": f"7z x {here} -o{there}",
        "rar archive": f"unrar x {here} {there}/",
    }
    return commands[kind], target

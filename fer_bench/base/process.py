"""What a process of ours needs before anything else: threads that wait without work, and output in any terminal.

:func:`settle` is called where a process begins, before torch is imported. Nothing is imported here but the standard
library, and what a user has set stays as it is.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from typing import TextIO

# How threads of OpenMP wait for each other: asleep. GNU's look for the others for 10 microseconds first, where its own
# default is 3 milliseconds: without any look small networks train at half their speed (benchmarks/busy.py).
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
CHOICES = {*WAITING, "KMP_BLOCKTIME"}  # any of them: the user has chosen
PLAIN = "fer_bench.training.plain"  # our way of writing what an encoding lacks
ASCII = "plain-ascii"  # ASCII under a name of our own: click writes UTF-8 where a stream calls itself ASCII

# Signs of tables and sentences, where possible in one letter, so that columns stay in line.
SIGNS = {"−": "-", "–": "-", "—": "-", "·": "-", "•": "-", "⚠": "!", "…": ".", "×": "x", "→": ">", "←": "<"}
SIGNS |= {"↑": "^", "↓": "v", "‘": "'", "’": "'", "“": '"', "”": '"', "±": "+-", "≤": "<=", "≥": ">="}


def settle() -> None:
    """Prepare this process, and through its environment those that it starts."""
    wait_passively()
    for stream in (sys.stdout, sys.stderr):
        write_anything(stream)


def cores() -> int:
    """Processor cores that this process may use; macOS and Windows can't restrict them."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait for each other; torch reads this when it is imported.

    They spin for milliseconds otherwise, on cores that other work needs: the work they wait for among it.
    """
    if not CHOICES & os.environ.keys():
        os.environ.update(WAITING)


# -- letters that a terminal lacks -----------------------------------------------------------------------------------


def write_anything(stream: TextIO) -> None:
    """Have a stream write what its encoding lacks in plain letters instead of raising; a user's own choice stays."""
    if not isinstance(stream, io.TextIOWrapper):
        return
    unicode = stream.encoding.lower().startswith("utf")
    ours = {"strict"} if unicode else {"strict", "surrogateescape", "backslashreplace"}
    if stream.errors not in ours:
        return
    codecs.register_error(PLAIN, _plainly)
    encoding = stream.encoding
    if codecs.lookup(encoding).name == "ascii":
        codecs.register(_find_ascii)
        encoding = ASCII
    stream.reconfigure(encoding=encoding, errors=PLAIN)


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != ASCII:
        return None
    ascii = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii.encode, ascii.decode, ascii.streamreader, ascii.streamwriter,
        ascii.incrementalencoder, ascii.incrementaldecoder, ASCII,
    )  # fmt: skip


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Handler of encoding errors: the letters in ASCII, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    end = error.end
    if error.object[end - 1 : end + 1] == "± ":  # two letters for two: the column stays as wide as it was
        end += 1
    return "".join(map(_plain, error.object[error.start : error.end])), end


def _plain(letter: str) -> str:
    """A letter in ASCII: a like sign, a frame's lines, the letter without its accent, or a question mark."""
    if letter in SIGNS:
        return SIGNS[letter]
    if "─" <= letter <= "╿":
        name = unicodedata.name(letter)
        return "-" if name.endswith("HORIZONTAL") else "|" if name.endswith("VERTICAL") else "+"
    bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return bare or "?"

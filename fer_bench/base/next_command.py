"""Commands suggested in messages, completed with the home and the plug-ins of the command that was typed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

# command -> which of these options it takes; a test compares this table with the command line
TAKES = {
    "run": ("--plugins", "--home"),
    "ablate": ("--plugins", "--home"),
    "tune": ("--plugins", "--home"),
    "report": ("--home",),
    "response": ("--home",),
    "compare": ("--home",),
    "predict": ("--plugins", "--home"),
    "explain": ("--plugins", "--home"),
    "relabel": ("--plugins", "--home"),
    "list": ("--plugins", "--home"),
    "show": ("--plugins",),
    "check": ("--plugins",),
    "data prepare": ("--plugins", "--home"),
    "data fetch": ("--plugins", "--home"),
    "data check": ("--plugins", "--home"),
    "data stats": ("--plugins", "--home"),
    "data show": ("--plugins", "--home"),
    "track sync": ("--home",),
    "ui": ("--home",),
}


def complete(command: str | None, *, home: str | Path | None = None, plugins: Sequence[str | Path] = ()) -> str | None:
    """Add ``--home`` and ``--plugins`` to a ``fer-bench`` command that accepts them and does not have them.

    Paths become absolute, so that the command works in any folder. Other commands are returned unchanged.
    """
    if command is None or not command.startswith("fer-bench "):
        return command
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    takes = TAKES.get(" ".join(words[1:3])) or TAKES.get(words[1], ())
    given = {word.partition("=")[0] for word in words}
    more: list[str] = []
    if "--plugins" in takes and "--plugins" not in given:
        more += [w for folder in plugins for w in ("--plugins", os.path.abspath(folder))]
    if home is not None and "--home" in takes and "--home" not in given:
        more += ["--home", str(Path(home).resolve())]
    return f"{command} {shlex.join(more)}" if more else command

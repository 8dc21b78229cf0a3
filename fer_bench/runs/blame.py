"""Which line to name when code of a method raises: the plug-in's own, not the one in torch or in the harness."""

from __future__ import annotations

import importlib.util
import sysconfig
import traceback
from enum import Enum
from pathlib import Path

import fer_bench

PLUGIN_ROOMS = ("methods", "datasets")  # plug-ins, though they are imported as fer_bench.methods and fer_bench.datasets
INSTALLED = ("site-packages", "dist-packages")
HOOKS = ("method.py", "batch.py")  # files of the contract that hold the defaults of a method's hooks


class Owner(Enum):
    """Whose code a file holds."""

    PLUGIN = "plug-in"
    HARNESS = "harness"
    LIBRARY = "library"


def frame_to_blame(error: BaseException, plugin: Path) -> traceback.FrameSummary | None:
    """The frame of a traceback that a plug-in's author should look at.

    Parameters
    ----------
    error : exception
        What was raised.
    plugin : Path
        The plug-in's file.

    Returns
    -------
    FrameSummary or None
        The innermost frame in plug-in code (the plug-in's folder and what lies below it, and the built-in plug-ins).
        Without one, the innermost frame of the harness if it is in the default of a hook, which was given something
        unusable. None where the error is the harness's own, and its traceback is wanted.
    """
    folders = owners(plugin)
    frames = traceback.extract_tb(error.__traceback__)
    owned = [(owner_of(frame.filename, plugin, folders), frame) for frame in frames]
    plugin_frames = [frame for owner, frame in owned if owner is Owner.PLUGIN]
    if plugin_frames:
        return plugin_frames[-1]
    harness_frames = [frame for owner, frame in owned if owner is Owner.HARNESS]
    return harness_frames[-1] if harness_frames and _holds_hooks(harness_frames[-1].filename) else None


def owners(plugin: Path) -> dict[Path, Owner]:
    """Folders and whose code lies below them; of folders that contain a file, the deepest decides.

    So it does not matter whether built-in plug-ins lie beside the package's root folder (a checkout) or in it (an
    installed package), nor whether the folder of a plug-in holds a virtual environment or a checkout of the harness.
    """
    libraries = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    folders = {Path(folder).resolve(): Owner.LIBRARY for folder in libraries}
    folders[plugin.resolve().parent] = Owner.PLUGIN
    folders[_root()] = Owner.HARNESS
    folders |= dict.fromkeys(_folders_of("reports"), Owner.HARNESS)
    for room in PLUGIN_ROOMS:
        folders |= dict.fromkeys(_folders_of(room), Owner.PLUGIN)
    return folders


def owner_of(filename: str, plugin: Path, folders: dict[Path, Owner]) -> Owner | None:
    """Whose code a file holds; None for a file outside all `folders`, and for code without a file (``<string>``)."""
    if filename.startswith("<"):
        return None
    file = Path(filename).resolve()
    if file == plugin.resolve():
        return Owner.PLUGIN
    for folder in file.parents:
        if folder.name in INSTALLED:  # a plug-in of one file there does not own the libraries beside it
            return Owner.LIBRARY
        if folder in folders:
            return folders[folder]
    return None


def _root() -> Path:
    return Path(fer_bench.__file__).resolve().parent


def _folders_of(room: str) -> list[Path]:
    spec = importlib.util.find_spec(f"fer_bench.{room}")
    return [Path(folder).resolve() for folder in (spec.submodule_search_locations or ())] if spec else []


def _holds_hooks(filename: str) -> bool:
    file = Path(filename).resolve()
    return file.parent == _root() / "contract" and file.name in HOOKS

"""What ``fer-bench --version`` prints: what a report of a bug has to say about the machine."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from fer_bench import __version__

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "optuna", "mlflow")


def describe() -> str:
    """Versions of fer-bench, Python and the main libraries, and the platform; read from metadata, so nothing loads."""
    rows = [f"fer-bench {__version__}", f"Python {platform.python_version()} ({sys.executable})"]
    rows += [f"{name} {_version(name)}" for name in LIBRARIES]
    return "\n".join([*rows, platform.platform()])


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"

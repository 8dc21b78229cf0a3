"""Whether another machine runs the same code: versions of libraries, and the harness itself, file by file."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

import fer_bench
from fer_bench.runs.executor import versions

HARNESS = "the code of fer-bench"


@functools.cache
def code_facts() -> dict[str, str]:
    """Versions by library, without what follows a ``+`` (``2.11.0+cpu``), and a hash of the harness's files.

    Methods are no part of it: their hash is in the id of their runs.
    """
    root = Path(fer_bench.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    facts = {name: version.partition("+")[0] for name, version in versions().items()}
    return {**facts, HARNESS: digest.hexdigest()[:16]}


def difference(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What differs between two machines, in words; empty if nothing does."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    versions = [name for name in names if name != HARNESS]
    told = [f"{name} {there.get(name, 'unknown')} there, {here.get(name, 'unknown')} here" for name in versions]
    return "; ".join(told or [f"{HARNESS} differs, though its version is the same" for _ in names])

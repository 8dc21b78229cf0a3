"""How much main memory this process may still take: what the machine has free, and what limits leave of it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGES = ("auto", "memory", "stream")  # in the device's memory, or streamed from disk; auto: by what is free
PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# File names of control groups, version 2 and 1: the limit, what is in use, and what of it is files that can be dropped.
_VERSIONS = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)
_RLIMITS = (("RLIMIT_AS", "VmSize", "ulimit -v"), ("RLIMIT_DATA", "VmData", "ulimit -d"))


@dataclass(frozen=True, order=True)
class Free:
    """Bytes that are free, and where: "in main memory", "under `ulimit -v`", "in the control group"."""

    bytes: int
    where: str


def free_memory(proc: Path = PROC, groups: Path = GROUPS) -> Free:
    """The least of what the machine, its control groups and the limits of this process leave.

    Files in the cache count as free, because the system drops them. Where the system does not say what is free
    (macOS), all of its memory counts.
    """
    return min([_machine(proc), *_groups(proc, groups), *_limits(proc)])


def _machine(proc: Path) -> Free:
    available = _table(proc / "meminfo").get("MemAvailable")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Free(total if available is None else available * 1024, "in main memory")


def _limits(proc: Path) -> Iterator[Free]:
    used = _table(proc / "self" / "status")
    for limit, entry, name in _RLIMITS:
        soft, _ = resource.getrlimit(getattr(resource, limit))
        if soft != resource.RLIM_INFINITY and entry in used:
            yield Free(max(0, soft - used[entry] * 1024), f"under `{name}`")


def _groups(proc: Path, groups: Path) -> Iterator[Free]:
    """What each control group of this process leaves, from its own up to the root of what can be seen."""
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            number, kinds, path = line.split(":", 2)
            roots = [groups, groups / "unified"] if number == "0" else []
            roots += [groups / "memory"] if "memory" in kinds.split(",") else []
            for root in roots:
                own = root / path.lstrip("/")
                for folder in (own, *own.parents):
                    if folder.is_relative_to(root):
                        yield from _group(folder)


def _group(folder: Path) -> Iterator[Free]:
    for limit, usage, files in _VERSIONS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            most, used = (int((folder / name).read_text()) for name in (limit, usage))
            stat = _table(folder / "memory.stat")
            yield Free(max(0, most - used + sum(stat.get(name, 0) for name in files)), "in the control group")


def _table(file: Path) -> dict[str, int]:
    """The numbers of a file of the system whose lines are ``name value`` or ``name: value kB``; empty without one."""
    entries = {}
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            name, *values = line.replace(":", " ", 1).split()
            if values and values[0].isdigit():
                entries[name] = int(values[0])
    return entries

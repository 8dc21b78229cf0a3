"""How runs that are at work at once share a machine: its cores, and its GPUs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from fer_bench.base.process import cores
from fer_bench.base.quantities import plural
from fer_bench.errors import SpecError


def threads_for(jobs: int, threads: int, available: int | None = None) -> int:
    """CPU threads of each of `jobs` runs: the given number, or for 0 an equal share of the cores.

    One run at a time gets 0, so that torch chooses, and so does every run if ``OMP_NUM_THREADS`` is set.
    """
    if threads or jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return threads
    return max(1, (cores() if available is None else available) // jobs)


def devices_for(device: str, jobs: int, gpus: int) -> tuple[str, ...]:
    """The devices that runs are spread over: those that are named, or for ``cuda`` and ``auto`` all `gpus`.

    Raises
    ------
    SpecError
        More devices are named than runs are at work at once, or one is named twice.
    """
    named = tuple(device.split(","))
    if len(set(named)) < len(named):
        raise SpecError("a device is named twice", where=f"--device {device}")
    if len(named) > jobs:
        raise SpecError(
            f"{len(named)} devices are named for {plural(jobs, 'run')} at a time",
            where=f"--device {device}",
            next=f"the same command with --jobs {len(named)}",
        )
    if jobs > 1 and gpus > 1 and device in ("auto", "cuda"):
        return tuple(f"cuda:{number}" for number in range(gpus))
    return named


def least_used(devices: Sequence[str], in_use: Iterable[str]) -> str:
    """The device with the fewest runs at work; of equal ones the first."""
    runs = Counter(in_use)
    return min(devices, key=lambda device: runs[device])

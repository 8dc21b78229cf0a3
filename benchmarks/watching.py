"""A process that is watched while it runs: its seconds, and the memory of all that descend from it."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.5  # between two looks at the memory


@dataclass(frozen=True)
class Taken:
    """What one process took: seconds in all, seconds of its epochs as far as known, and memory in bytes."""

    seconds: float
    epochs: Sequence[float]
    memory: int
    gpu_memory: int

    @property
    def epoch(self) -> float:
        """Seconds of the median epoch."""
        return statistics.median(self.epochs)


def watched(
    command: Sequence[object], read: Callable[[bytes, float], float | None], *, every: float = LOOK_SECONDS
) -> Taken:
    """Run a command to its end; `read` gets each line it prints and when, and may find the seconds of an epoch in it.

    The memory is looked at every `every` seconds: what lives shorter is not seen.

    Raises
    ------
    SystemExit
        The command failed; what it printed last is shown.
    """
    before, began = gpu_memory(), time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    ended, most = threading.Event(), [0, 0]

    def look() -> None:
        while not ended.wait(every):
            most[0] = max(most[0], sum(map(proportional_memory, family(process.pid))))
            most[1] = max(most[1], gpu_memory() - before)

    looking = threading.Thread(target=look)
    looking.start()
    assert process.stdout is not None
    epochs, lines = [], []
    try:
        for line in process.stdout:
            lines.append(line)
            seconds = read(line, time.perf_counter())
            epochs += [] if seconds is None else [seconds]
        status, taken = process.wait(), time.perf_counter() - began
    finally:
        process.kill()
        ended.set()
        looking.join()
    if status:
        raise SystemExit(f"{' '.join(map(str, command))}\nfailed:\n{b''.join(lines[-20:]).decode(errors='replace')}")
    return Taken(taken, epochs, *most)


def family(pid: int) -> list[int]:
    """A process and all that descend from it; Linux only, elsewhere nobody."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = [pid] if pid in parents else []
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def proportional_memory(pid: int) -> int:
    """Bytes of a process in memory, pages that several share divided among them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def gpu_memory() -> int:
    """Bytes in use on the first GPU; 0 where there is none."""
    if shutil.which("nvidia-smi") is None:
        return 0
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return int(told) * 2**20 if told.isdigit() else 0

"""Records that travel: the files of one home's record as arrays, and how they are put into another ledger whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fer_bench.base.files import write_bytes
from fer_bench.base.scratch import scratch
from fer_bench.errors import LedgerError
from fer_bench.record.ledger import RunRecord, RunWriter

STAYS = ("lock", "failed.json")  # of this home alone: who holds the run, and how an attempt ended
MARK = "done.json"
ARRIVING = ".arriving-"  # begins the names of folders beside the records, where no method may open test outputs either

Files = Mapping[str, np.ndarray]
"""The content of files, uint8 [bytes], by name."""


def pack(record: RunRecord) -> dict[str, np.ndarray]:
    """The files of a record, finished or not, without its lock, its failure and its work folder."""
    files = sorted(p for p in record.path.iterdir() if p.is_file()) if record.path.is_dir() else []
    return {p.name: np.fromfile(p, dtype=np.uint8) for p in files if p.name not in STAYS and not p.name.startswith(".")}


def install(writer: RunWriter, files: Files) -> RunRecord:
    """Put the finished record of a run into the ledger; the caller holds the run's lock.

    It is written aside and checked first. Its mark is moved last, so a kill leaves an unfinished run or a whole record.
    What an earlier attempt left in the run's folder is removed.

    Raises
    ------
    LedgerError
        The files are not the finished record of this run, or they were damaged on the way.
    FerBenchError
        The disk is full.
    """
    with scratch(writer.path.parent, ARRIVING) as folder:
        arrived = RunRecord(folder / writer.id)
        _write(arrived.path, files)
        if arrived.status != "finished" or arrived.json("spec").get("run_id") != writer.id:
            raise LedgerError(f"what arrived is not a finished record of run {writer.id}", where=str(writer.path))
        arrived.verify()
        shutil.rmtree(writer.work, ignore_errors=True)
        for file in writer.path.iterdir():
            if file.name != "lock":
                file.unlink()
        _move(arrived.path, writer.path)
    return RunRecord(writer.path)


def install_unfinished(writer: RunWriter, files: Files) -> None:
    """Put what a failed attempt left into the run's folder, without its mark; the caller holds the run's lock."""
    with scratch(writer.path.parent, ARRIVING) as folder:
        _write(folder, {name: content for name, content in files.items() if name != MARK})
        _move(folder, writer.path)


def _write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        if name != os.path.basename(name) or name.startswith("."):
            raise LedgerError(f"'{name}' can't be the name of a record's file")
        write_bytes(folder / name, content.tobytes())


def _move(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir(), key=lambda file: file.name == MARK):
        os.replace(file, target / file.name)

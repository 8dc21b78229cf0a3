"""The ledger: the folder of run records, and the only truth. MLflow mirrors it, reports are read from it.

::

    ledger/<run id>/
      spec.json         the run's spec and what its id is a hash of
      data.json         classes, counts by role, protocol, fingerprint, shape of the stored images
      method.json       what the method's card says
      history.json      one entry an epoch: losses and validation metrics
      selection.json    rule, metric, chosen epoch; written before the test is opened
      seal.json         every opening of the test, and every attempt of a method at files that it may not read
      probe.json        batch-invariance of the predictions
      {val,test}_{rows,labels}.npy   int64 [n]: rows of the store, labels
      train_rows.npy    int64 [n], where an imbalance profile left a part of the training fold
      test_groups.npy   int64 [n], where images of the store are copies, or of named people or sequences: test images
                        with equal numbers belong together
      test_copies.npy   uint8 [n, 2], copies of each test image among this run's training and validation images: 0 none,
                        1 near ones, 2 an exact one; plus 4 where a copy of that kind has another label
      copies.json       near: whether near copies were looked for; reason: why not; people: the column that names them
      {val,test}_logits.npy          float32 [n, K] at the selected epoch
      {val,test}_epochs.npy          uint8 [E, n] (uint16 above 256 classes): predicted class after each candidate epoch
      model.pt          weights and method state of the selected epoch
      derived.json      only of a run that is read out of another one's logits: the id of that run and the hash of its
                        done.json, and what was learned on validation. It has no {val,test}_epochs.npy
      environment.json, timing.json  versions, hardware, durations: the only files that differ between equal runs
      done.json         the mark of a finished record, with a hash of every other file
      work/             checkpoint and snapshots of an unfinished run
    ledger/studies/<name>.json       a study: run ids, reference, command
    ledger/labels/<fingerprint>/     other labels for these data (:mod:`fer_bench.record.relabelled`)

A record without ``done.json`` is unfinished. No module here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.credentials import hide, hide_command
from fer_bench.base.files import canonical_json, read_array, read_json, sha256_file, write_array, write_json
from fer_bench.base.locks import locked
from fer_bench.base.names import DATASET, PROTOCOL, RUN, STUDY, checked, locate, name_of
from fer_bench.errors import FerBenchError, LedgerError, nearest

NUMERICS = 2  # raised by hand when a change of the harness changes results; tests/training/test_numerics.py notices
VOLATILE = ("environment.json", "timing.json")  # differ between equal runs, so they take no part in comparisons
UNHASHED = (*VOLATILE, "done.json", "lock", "failed.json")

NEAR_COPY, EXACT_COPY, OTHER_LABEL = 1, 2, 4  # in test_copies.npy; the last is added to one of the others


def run_id(spec: Mapping[str, Any], fingerprint: str, source: str, rows: str = "", base: str = "") -> str:
    """Content address of a run: spec, data fingerprint, method's source, rows by role, numerics version (hashes).

    `base` is the id of the run that this one is read out of, if it trains no network of its own.
    """
    key = {"spec": spec, "fingerprint": fingerprint, "source": source, "rows": rows, "numerics": NUMERICS}
    key |= {"base": base} if base else {}
    return hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunRecord:
    """One run's folder, read lazily."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.path.name

    def json(self, name: str) -> Any:
        """Content of ``<name>.json``.

        Raises
        ------
        LedgerError
            The file is missing or damaged.
        """
        try:
            return read_json(self._own(f"{name}.json"))
        except FileNotFoundError as error:
            raise LedgerError(f"run {self.id} has no {name}.json", where=str(self.path)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise LedgerError(f"run {self.id}: {name}.json is damaged: {error}", where=str(self.path)) from error

    def array(self, name: str) -> np.ndarray:
        """Content of ``<name>.npy``; raises LedgerError where it is missing or damaged."""
        try:
            return read_array(self._own(f"{name}.npy"))
        except (OSError, ValueError, MemoryError) as error:
            raise LedgerError(f"run {self.id}: {name}.npy is missing or damaged", where=str(self.path)) from error

    def has(self, name: str) -> bool:
        """Whether the record holds the file `name` (with its ending)."""
        return os.path.isfile(self._own(name))

    def _own(self, name: str) -> Path:
        """The path of a file of the record; a symbolic link might lead to any file of this machine, and raises."""
        path = self.path / name
        if path.is_symlink():
            raise LedgerError(
                f"run {self.id}: {name} is a symbolic link, which is not followed",
                where=str(path),
                hint="put the file itself in its place, if you trust where it comes from",
            )
        return path

    @property
    def status(self) -> str:
        """'finished', 'pruned', 'failed' or 'unfinished'."""
        if self.has("done.json"):
            return self.json("done")["status"]
        return "failed" if self.has("failed.json") else "unfinished"

    @cached_property
    def _head(self) -> dict[str, Any]:
        return self.json("spec")

    @property
    def spec(self) -> dict[str, Any]:
        """The run's spec as plain data."""
        return self._head["spec"]

    @cached_property
    def data(self) -> dict[str, Any]:
        """Facts of the data: classes, counts by role, protocol, fingerprint."""
        return self.json("data")

    @property
    def label(self) -> str:
        """The method with its non-default parameters, as typed on the command line."""
        return self._head["label"]

    def verify(self, spared: Collection[str] = ()) -> None:
        """Compare every file with the hash in ``done.json``; raises LedgerError where one is missing or differs.

        `spared` names files that may be missing, as validation outputs are from a record that is published. A file that
        ``done.json`` does not list was not written by the run (the weights of records of version 0.1.0 excepted).
        """
        files = self.json("done")["files"]
        present = {p.name for p in self.path.iterdir() if not p.name.startswith(".") and not p.is_dir()}
        strange = sorted(present - set(files) - {*UNHASHED, "model.pt"})
        if not files or strange:
            what = f"done.json does not list {', '.join(strange)}" if strange else "done.json lists no files"
            raise LedgerError(f"run {self.id} can't be checked: {what}", where=str(self.path / "done.json"))
        for name, digest in files.items():
            if not self.has(name):
                if name in spared:
                    continue
                raise LedgerError(f"run {self.id} has lost {name}", where=str(self.path))
            if sha256_file(self.path / name) != digest:
                raise LedgerError(f"run {self.id}: {name} has changed since the run", where=str(self.path / name))


class RunWriter(RunRecord):
    """A run's folder while it is being written."""

    @property
    def work(self) -> Path:
        """Folder of checkpoints and snapshots; removed when the run is done."""
        return self.path / "work"

    def start(self) -> None:
        """Create the folder (or go on in it); an earlier failure and what a kill left half written are forgotten.

        So are test outputs of an attempt that was killed while it scored: no method may find them in its folder.
        """
        if self.work.is_symlink():
            self.work.unlink()
        self.work.mkdir(parents=True, exist_ok=True)
        stale = [self.path / "failed.json", *self.path.rglob(".*.part"), *self.path.glob("test_*.npy")]
        for file in stale:
            file.unlink(missing_ok=True)

    def put(self, name: str, value: Any) -> None:
        """Write ``<name>.json``, or ``<name>.npy`` for an array, atomically."""
        if isinstance(value, np.ndarray):
            write_array(self.path / f"{name}.npy", value)
        else:
            write_json(self.path / f"{name}.json", value)

    def fail(self, error: BaseException) -> None:
        """Note why the run failed, if the disk has room for it; a failed run is tried again by the next command."""
        trace = "".join(traceback.format_exception(error))
        failure = {"type": type(error).__name__, "message": hide(str(error)), "traceback": hide(trace)}
        with contextlib.suppress(OSError, FerBenchError):
            write_json(self.path / "failed.json", failure)

    def finish(self, status: str = "finished") -> None:
        """Write the done mark and remove the work folder. From here on the record never changes."""
        names = sorted(p.name for p in self.path.iterdir() if p.is_file() and not p.name.startswith("."))
        files = {n: sha256_file(self.path / n) for n in names if n not in UNHASHED}
        write_json(self.path / "done.json", {"status": status, "files": files})
        self.tidy()

    def tidy(self) -> None:
        """Remove the work folder of a record that is done (a kill may have come between its mark and this)."""
        shutil.rmtree(self.work, ignore_errors=True)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the run's lock; raises LockedError where another process is training this very run."""
        return locked(self.path / "lock", f"run {self.id} is being trained by another process")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


FIELDS: dict[str, Callable[[Any], bool]] = {
    "runs": _texts,
    "methods": _texts,
    **dict.fromkeys(("reference", "second_reference"), lambda value: value is None or isinstance(value, str)),
    **dict.fromkeys(("name", "command", "kind", "dataset", "protocol"), lambda value: isinstance(value, str)),
    "ablation": lambda value: isinstance(value, dict),
}
"""What the fields of a study's record must be, where they are there."""


class Ledger:
    """The folder of all run records and studies."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def run(self, run_id: str) -> RunRecord:
        """The record of a run id, finished or not; raises LedgerError for what can't be an id."""
        return RunRecord(self.root / checked(run_id, RUN, error=LedgerError))

    def writer(self, run_id: str) -> RunWriter:
        """The record of a run id, to be written."""
        return RunWriter(self.root / checked(run_id, RUN, error=LedgerError))

    def runs(self) -> list[RunRecord]:
        """All records, by id."""
        if not self.root.is_dir():
            return []
        named = (p for p in sorted(self.root.iterdir()) if re.fullmatch(RUN.pattern, p.name))
        return [RunRecord(p) for p in named if os.path.isfile(p / "spec.json")]

    def studies(self) -> list[str]:
        """Names of all studies."""
        folder = self.root / "studies"
        files = folder.glob("*.json") if folder.is_dir() else []
        return sorted({name_of(p.stem) for p in files if not p.name.startswith(".")})

    def put_study(self, name: str, study: Mapping[str, Any]) -> Path:
        """Write the study record ``studies/<name>.json``; raises SpecError where the name can't be a study's."""
        path = self._study_file(checked(name, STUDY))
        write_json(path, hide_command(dict(study)))
        return path

    def study(self, name: str | None = None) -> dict[str, Any]:
        """A study's record; for None the one written last of those that can be read.

        Raises
        ------
        LedgerError
            There is no such study (the nearest names are given), or its file can't be read.
        """
        if name is not None:
            return read_study(self._study_file(self.known_studies([name])[0]), name)
        newest = sorted(self.known_studies(self.studies()), key=self._age)
        for other in newest[:-1]:
            with contextlib.suppress(LedgerError):
                return self.study(other)
        return self.study(newest[-1])

    def _age(self, name: str) -> tuple[int, str]:
        return -os.stat(self._study_file(name)).st_mtime_ns, name

    def known_studies(self, names: Sequence[str]) -> list[str]:
        """The names as they are; raises LedgerError where the ledger holds no study, or none of such a name."""
        known = self.studies()
        if not known:
            raise LedgerError(
                "the ledger holds no study", where=str(self.root), next="fer-bench run METHOD --dataset D"
            )
        for name in names:
            if name not in known:
                close = ", ".join((nearest(name, known) or known)[:8])
                raise LedgerError(f"no study called '{name}'", where=str(self.root), hint=f"known: {close}")
        return list(names)

    def _study_file(self, name: str) -> Path:
        return locate(self.root / "studies", name, ".json")


def read_study(path: Path, name: str) -> dict[str, Any]:
    """The record of a study, with values of the types that it was written with, and names that can be such.

    Raises
    ------
    LedgerError
        The file can't be read, or holds something else.
    """
    again = "run the study's command again: its runs are kept, and the file is rewritten"

    def damaged(why: str) -> LedgerError:
        return LedgerError(f"the record of study '{name}' is damaged: {why}", where=str(path), hint=again)

    try:
        study = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise damaged("it is empty" if path.is_file() and not path.stat().st_size else str(error)) from error
    if not isinstance(study, dict) or not isinstance(study.get("runs", []), list):
        raise damaged("it does not hold a study")
    check_study_names(study, name, path)
    wrong = [key for key, fits in FIELDS.items() if key in study and not fits(study[key])]
    if wrong:
        raise damaged(f"{', '.join(wrong)} of the wrong type")
    return hide_command({"name": name, "runs": [], **study})


def check_study_names(study: Mapping[str, Any], name: str, path: Path) -> None:
    """Raise LedgerError unless the names in a study's record can be such; they become paths, and the record may have
    been received from anybody."""
    if study.get("name", name) != name:
        what = f"the record of study '{name}' calls itself {study['name']!r:.80}"
        raise LedgerError(what, where=str(path), hint=f'its "name" must be that of its file: "{name}"')
    for run in study.get("runs", []):
        checked(run, RUN, where=str(path), error=LedgerError)
    for key, kind in (("dataset", DATASET), ("protocol", PROTOCOL)):
        if study.get(key) is not None:
            checked(study[key], kind, where=str(path), error=LedgerError)

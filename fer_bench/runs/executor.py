"""One run from spec to finished record, and who does what.

The driver, which runs this module, computes the rows, has one process train and select, and then others score the test
and probe (:mod:`fer_bench.runs.worker`). It runs no code of methods itself. What they write it joins with rows and
labels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.credentials import words
from fer_bench.base.files import copy_file, read_json, write_json
from fer_bench.contract.cards import DatasetCard
from fer_bench.contract.plugins import Plugins
from fer_bench.data.fold_rows import Roles, copies_of_test, groups_of_test, known_roles, labels_of_test, people_column
from fer_bench.data.store import Store
from fer_bench.doctor.copies import known_copies
from fer_bench.errors import (
    DataError,
    FerBenchError,
    LedgerError,
    LockedError,
    OutOfMemoryError,
    PrunedTrial,
    TrainingError,
)
from fer_bench.record.home import Home
from fer_bench.record.ledger import NUMERICS, RunRecord, RunWriter, run_id
from fer_bench.record.relabelled import labels_folder
from fer_bench.runs import forkserver
from fer_bench.runs.failures import error_of
from fer_bench.runs.probe import IMAGES, PROCESSES, chosen_rows, judge
from fer_bench.runs.readout import base_of, check_fresh, plugin_facts, read_out, read_out_pruned
from fer_bench.runs.spec import RunSpec, label_of
from fer_bench.seal import inodes
from fer_bench.training.job import FORMAT, Listener, Runtime, ready_file


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where and how runs are carried out."""

    home: Home
    plugins: Plugins
    runtime: Runtime = field(default_factory=Runtime)
    listener: Callable[[RunSpec, str], Listener] = lambda spec, label: Listener()

    def label(self, spec: RunSpec) -> str:
        """The run's method with its non-default parameters, as typed on the command line."""
        card = self.plugins.method(spec.method).card
        return label_of(card, spec.params)


def identify(spec: RunSpec, work: Workplace) -> tuple[str, Store]:
    """The id a run has on the present data and code, and the store it reads."""
    store = Store.open(work.home.store(spec.dataset))
    if store.manifest.get("params", {}) != dict(spec.dataset_params):
        raise DataError(
            f"the prepared '{spec.dataset}' was made with other parameters",
            where=f"store {store.manifest.get('params')}, run {dict(spec.dataset_params)}",
            next=f"fer-bench data prepare {spec.dataset} --force",
        )
    return _id(spec, store, work), store


def _id(spec: RunSpec, store: Store, work: Workplace) -> str:
    source = work.plugins.method(spec.method).source_hash()
    base = base_of(spec, work.plugins)
    rows = _roles(spec, store, work).digest
    return run_id(spec.to_dict(), store.fingerprint, source, rows, _id(base, store, work) if base else "")


def _roles(spec: RunSpec, store: Store, work: Workplace) -> Roles:
    card = work.plugins.dataset_card(spec.dataset)
    return known_roles(
        store, card, work.home, protocol=spec.protocol, fold=spec.fold, profile=spec.profile, subset=spec.subset
    )


def execute(spec: RunSpec, work: Workplace, *, started: Callable[[], None] = lambda: None) -> RunRecord:
    """Carry out a run, or return its record if it is finished already.

    A run that is read out of another one has that carried out first, if it isn't finished. `started` is called when
    training really begins: the run is neither finished nor held by another process.

    Raises
    ------
    LockedError
        Another process is training this run, or the one that it is read out of.
    FerBenchError
        The run failed; the reason is in the record too, and the next call tries again.
    LedgerError
        It is finished, but was read out of a record that is no longer the ledger's (:mod:`fer_bench.runs.readout`).
    """
    key, store = identify(spec, work)
    writer = work.home.ledger.writer(key)
    if writer.status in ("finished", "pruned"):
        writer.tidy()
        check_fresh(writer, work.home.ledger)
        return work.home.ledger.run(key)
    with writer.locked():
        if writer.status in ("finished", "pruned"):  # by another process, since the look above
            return work.home.ledger.run(key)
        try:
            _Run(spec, store, work, writer).carry_out(started)
        except (PrunedTrial, LockedError):
            raise
        except Exception as error:
            writer.fail(error)
            raise
    return work.home.ledger.run(key)


class _Log:
    """What ``seal.json`` keeps: openings of the test, and attempts at it. It is on disk as soon as it is known.

    What an interrupted attempt at the same run left there is kept; equal entries count once, so that a run which was
    killed and resumed has the same record as one that was not.
    """

    def __init__(self, file: Path):
        self._file = file
        self.openings: list[dict[str, Any]] = []
        self.blocked: list[dict[str, str]] = []
        if file.exists():
            self.openings, self.blocked = self._earlier()

    def _earlier(self) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """What the file holds.

        Raises
        ------
        LedgerError
            It is damaged or of another version. To start with an empty log would hide an earlier opening or attempt.
        """
        try:
            earlier = read_json(self._file)
            entries = (*earlier["openings"], *earlier["blocked"])
            if all(isinstance(entry, dict) for entry in entries):
                return list(earlier["openings"]), list(earlier["blocked"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        raise LedgerError(
            f"{self._file.name} of an unfinished run is damaged or was written by another version of fer-bench",
            where=str(self._file),
            hint="earlier openings of the test can't be counted; start the run from nothing by removing its folder",
            next=shlex.join(["rm", "-r", str(self._file.parent)]),
        )

    def note(self, entries: list[dict[str, Any]], entry: dict[str, Any]) -> None:
        """Add to the openings or to the attempts."""
        if entry not in entries:
            entries.append(entry)
            self.save()

    def save(self) -> None:
        """Write what there is, if there is anything: a method may have removed what was written before."""
        if self.openings or self.blocked:
            with contextlib.suppress(OSError, FerBenchError):  # a full disk must not hide the attempt itself
                write_json(self._file, self.record())

    def record(self) -> dict[str, Any]:
        """Content of ``seal.json``."""
        return {"count": len(self.openings), "openings": self.openings, "blocked": self.blocked}


class _Run:
    """One run while it is carried out."""

    def __init__(self, spec: RunSpec, store: Store, work: Workplace, writer: RunWriter):
        self.spec, self.store, self.work, self.writer = spec, store, work, writer
        self.plugin = work.plugins.method(spec.method)
        self.card: DatasetCard = work.plugins.dataset_card(spec.dataset)
        self.base = base_of(spec, work.plugins)  # the run that this one is read out of
        self.roles = _roles(spec, store, work)
        self.seal = _Log(writer.path / "seal.json")
        self.listener = Listener()
        self.messages: dict[str, dict[str, Any]] = {}  # the last of each kind from the process at work

    def carry_out(self, started: Callable[[], None]) -> None:
        """Everything from the record's first file to its done mark; `started` is called when the work begins."""
        try:
            self._train_and_score(started) if self.base is None else self._read_out(self.base, started)
        except Exception:
            self.seal.save()
            raise

    def _train_and_score(self, started: Callable[[], None]) -> None:
        started()
        clock = _Clock()
        self._begin()
        trained = self._trained_before() or self._train()
        chosen = trained["selection"]
        self._write_rows("val", self.roles.labels["val"])
        if self.spec.test:
            self._score(chosen)
        scored_with = ready_file(self.writer.work, chosen["epoch"])
        copy_file(scored_with, self.writer.path / "model.pt")
        self._finish(environment(trained["hardware"]), clock.timing(trained))

    def _read_out(self, spec: RunSpec, started: Callable[[], None]) -> None:
        """Make the record from that of the run `spec`, which is carried out first where it is not finished."""
        self._begin()
        announce = functools.cache(started)  # once, whether the other run is still to be trained or not
        reason: PrunedTrial | None = None
        try:
            base = execute(spec, self.work, started=announce)
        except PrunedTrial as pruned:
            reason, base = pruned, self.work.home.ledger.run(_id(spec, self.store, self.work))
        announce()
        clock, of_base = _Clock(), base.json("environment")
        for attempt in base.json("seal")["blocked"]:
            self.seal.note(self.seal.blocked, attempt)
        done = {"seconds": [], "speeds": [], "resumed": 0, "hardware": of_base}
        if base.status == "pruned":
            read_out_pruned(self, base)
            self._finish(environment(of_base), clock.timing(done), "pruned")
            raise reason or PrunedTrial(f"run {base.id}, which is read out, was stopped early")
        read_out(self, base, self.work.plugins.method(spec.method))
        self._finish(environment(of_base), clock.timing(done))

    def _finish(self, environment: Mapping[str, Any], timing: Mapping[str, Any], status: str = "finished") -> None:
        self.writer.put("seal", self.seal.record())
        self.writer.put("environment", environment)
        self.writer.put("timing", timing)
        self.writer.finish(status)

    # -- the record --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Make the record's folder, and write what the run is."""
        spec, writer, roles = self.spec, self.writer, self.roles
        writer.start()
        identity: dict[str, Any] = {
            "spec": spec.to_dict(),
            "fingerprint": self.store.fingerprint,
            "source": self.plugin.source_hash(),
        }
        identity |= {"rows": roles.digest, "numerics": NUMERICS}
        identity |= {"base": _id(self.base, self.store, self.work)} if self.base else {}
        writer.put("spec", {"run_id": writer.id, "label": self.work.label(spec), **identity})
        protocol = self.card.protocol(spec.protocol)
        named = {**dataclasses.asdict(protocol), "name": self.card.full_name(protocol), **roles.facts}
        facts: dict[str, Any] = {"dataset": self.card.name, "classes": list(roles.classes)}
        facts |= {"fingerprint": self.store.fingerprint, "layout": self.store.manifest["layout"]}
        facts |= {"shape": list(self.store.shape), "bits": self.store.bits}  # what a new image is brought to
        writer.put("data", {**facts, "protocol": named, "counts": roles.counts})
        if spec.profile != "natural":
            writer.put("train_rows", roles.rows["train"].astype(np.int64))

    def _write_rows(self, role: str, labels: np.ndarray) -> None:
        self.writer.put(f"{role}_rows", self.roles.rows[role].astype(np.int64))
        self.writer.put(f"{role}_labels", labels)

    # -- processes ---------------------------------------------------------------------------------------------------

    @cached_property
    def _guarded(self) -> np.ndarray:
        """The files that no method may open, by inode: the store, what it was made from, and other runs' labels."""
        others = self.work.home.ledger.root.glob("*/test_labels.npy")
        return inodes([*self.store.guarded_files(), *others])

    def _order(self) -> dict[str, Any]:
        """What every process of the run is given."""
        home = self.work.home
        return {
            "spec": self.spec.to_dict(),
            "runtime": dataclasses.asdict(self.work.runtime),
            "plugin": plugin_facts(self.plugin),
            "store": {
                "path": str(self.store.path),
                "fingerprint": self.store.fingerprint,
                "states": dict(self.store.states),
            },
            "shape": list(self.store.shape),
            "record": str(self.writer.path),
            "classes": list(self.roles.classes),
            "counts": self.roles.counts["train"],
            "folders": {str(home.data): "", str(home.ledger.root): "test_", str(labels_folder(home.ledger.root)): ""},
        }

    def call(self, role: str, arrays: Mapping[str, np.ndarray], **order: Any) -> None:
        """Have a fresh process play a role.

        Raises
        ------
        FerBenchError
            The process failed, and says why; or it died without a message, and this says how it ended.
        """
        self.messages = {}
        arrays = {**arrays, "guarded": self._guarded}
        status = forkserver.SERVER.call(role, {**self._order(), **order}, arrays, self._hear)
        if failure := self.messages.get("error"):
            raise error_of(failure)
        if status:
            killed = f"by {signal.Signals(-status).name}" if status < 0 else f"with code {status}"
            what = f"the process that was to {role} '{self.spec.method}' ended {killed}"
            if status == -signal.SIGKILL:
                raise OutOfMemoryError(what, hint="the system may have run out of memory")
            raise TrainingError(what, hint="see its output")

    def _hear(self, message: dict[str, Any]) -> Any:
        """Take in a message of the process at work; returns the reply to one that asks."""
        kind = message.pop("kind")
        if kind == "blocked":
            self.seal.note(self.seal.blocked, {"event": str(message["event"]), "file": str(message["file"])})
        elif kind == "start":
            self.listener.start(message["epochs"], message["steps"], message["done"])
        elif kind == "step":
            self.listener.step(message["images"], message["steps"])
        elif kind == "note":
            self.listener.note(message["text"])
        elif kind == "warning":
            self.listener.warn(message["text"])
        elif kind == "epoch":
            try:
                self.listener.epoch(message["entry"])
            except PrunedTrial as reason:
                return {"pruned": reason.what}
            return {"pruned": None}
        else:
            self.messages[kind if kind != "failed_pass" else f"failed_pass {message['number']}"] = message
        return None

    def _train(self) -> dict[str, Any]:
        """Train the run and select its epoch. Scoring starts from the mark that this leaves."""
        roles, rows = self.roles, self.roles.rows
        arrays = {"train_rows": rows["train"], "val_rows": rows["val"]}
        arrays |= {"train_labels": roles.labels["train"], "val_labels": roles.labels["val"]}
        arrays |= {k: v for k, v in (("groups", roles.groups), ("soft", roles.soft)) if v is not None}
        self.listener = self.work.listener(self.spec, self.work.label(self.spec))
        try:
            self.call("train", arrays)
        except PrunedTrial:
            self.writer.put("seal", self.seal.record())
            self.writer.put("environment", environment(self.messages["environment"]["facts"]))
            self.writer.finish("pruned")
            raise
        finally:
            self.listener.close()
        trained = {**self.messages["trained"], "hardware": self.messages["environment"]["facts"], "format": FORMAT}
        write_json(self._mark, trained)
        return trained

    @property
    def _mark(self) -> Path:
        return self.writer.work / "trained.json"

    def _trained_before(self) -> dict[str, Any] | None:
        """What :meth:`_train` wrote, where a kill came after it: selection is locked, and scoring is left.

        None where there is no such file, or one that is damaged or of another version: training goes on from its
        checkpoint, and selects the same epoch again.
        """
        try:
            trained = read_json(self._mark)
            if trained["format"] != FORMAT:
                return None
            whole = all(ready_file(self.writer.work, e).is_file() for e in trained["selection"]["candidates"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return {**trained, "resumed": trained["resumed"] + 1} if whole and self.writer.has("val_logits.npy") else None

    def _score(self, chosen: Mapping[str, Any]) -> None:
        """Open the test: have it predicted, and join what comes with rows and labels."""
        rows = self.roles.rows["test"]
        opening = {"reason": "score the selected epoch and the oracle", "rows": len(rows), "epoch": chosen["epoch"]}
        self.seal.note(self.seal.openings, opening)
        self.call("score", {"test_rows": rows}, epoch=chosen["epoch"], candidates=chosen["candidates"])
        probed = np.concatenate([chosen_rows(self.roles.rows[role], IMAGES // 2) for role in ("val", "test")])
        self.writer.put("probe", self.probe("probe", {"probe_rows": probed}, len(probed), epoch=chosen["epoch"]))
        logits = self.output("test_logits.npy", (len(rows), len(self.roles.classes)), "f")
        epochs = self.output("test_epochs.npy", (len(chosen["candidates"]), len(rows)), "u")
        labels = labels_of_test(self.store, self.card, rows, protocol=self.spec.protocol)
        self._write_rows("test", labels)
        self.writer.put("test_logits", logits)
        self.writer.put("test_epochs", epochs)
        self._write_copies(labels)

    def _write_copies(self, labels: np.ndarray) -> None:
        """Which test images the run met in training, and which belong together."""
        store, rows = self.store, self.roles.rows["test"]
        copies = known_copies(store, self.card, self.work.home.splits(store.path.name, store.fingerprint))
        self.writer.put("copies", {**copies.facts, "people": people_column(store, rows)})
        self.writer.put("test_copies", copies_of_test(copies, self.roles, labels))
        groups = groups_of_test(store, rows, labels, copies)
        if groups is not None:
            self.writer.put("test_groups", groups)

    def probe(self, role: str, arrays: Mapping[str, np.ndarray], images: int, **order: Any) -> dict[str, Any]:
        """The batch-invariance probe: a role whose processes predict `images` images, or adjust their logits."""
        shape = (images, len(self.roles.classes))
        outputs: list[list[np.ndarray | str]] = []
        for number, passes in enumerate(PROCESSES):
            self.call(role, arrays, number=number, **order)
            failed = {k: self.messages.get(f"failed_pass {k}") for k in range(len(passes))}
            names = [f"probe_{number}_{k}.npy" for k in range(len(passes))]
            outputs.append(
                [str(e["error"]) if (e := failed[k]) else self.output(n, shape, "f") for k, n in enumerate(names)]
            )
        return judge(outputs)

    def output(self, name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        """An array that a process left in the work folder, which must be of the kind and shape that was asked for."""
        file = self.writer.work / name
        try:
            array = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TrainingError(f"the scoring process left no readable {name}", where=str(file)) from error
        if array.shape != shape or array.dtype.kind != kind:
            what = f"{name} holds {array.dtype} {array.shape}, expected {shape}"
            raise TrainingError(f"the scoring process did not write predictions: {what}", where=str(file))
        return array


def versions() -> dict[str, str]:
    """The installed versions of what influences results."""
    names = ("torch", "timm", "numpy", "scikit-learn", "imbalanced-learn", "fer-bench")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and hardware, for the record."""
    return {
        "python": platform.python_version(),
        "versions": versions(),
        "device": facts["device"],
        "hardware": facts["hardware"],
        "threads": facts["threads"],
        "images": facts.get("images", "memory"),  # earlier versions knew no other place
        "system": f"{platform.system()} {platform.machine()}",
        "command": words(sys.argv[1:]),
    }


class _Clock:
    """When the work of a run began."""

    def __init__(self) -> None:
        self._started, self._seconds = datetime.datetime.now(datetime.UTC), time.perf_counter()

    def timing(self, trained: Mapping[str, Any]) -> dict[str, Any]:
        """Content of ``timing.json``, now."""
        return {
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "total_seconds": round(time.perf_counter() - self._seconds, 3),
            "epoch_seconds": [round(s, 3) for s in trained["seconds"]],
            "images_per_second": [round(s, 1) for s in trained["speeds"]],
            "resumed": trained["resumed"],
            "device": trained["hardware"]["device"],
        }

"""One run as a report reads it from its record, or the reason why it can't be used.

A broken record never stops a report. A run that is damaged, malformed, or lacks what it claims to have is left out;
where only a side file is affected, the contents of that file are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fer_bench.base.files import canonical_json, sha256_file
from fer_bench.errors import LedgerError
from fer_bench.printable import printable_data
from fer_bench.record.ledger import RunRecord
from fer_bench.reports.facts import shapes

HEAD = ("spec.json", "data.json")
ANSWERS = {split: tuple(f"{split}_{part}.npy" for part in ("rows", "labels", "logits")) for split in ("test", "val")}
OPTIONAL = ("method", "selection", "history", "seal", "probe", "environment", "timing", "derived", "copies")
TELL_IF_MISSING = ("method", "selection", "history", "seal", "probe")
GROUPS = "test_groups.npy"
EPOCHS = "test_epochs.npy"
COPIES = "test_copies.npy"
READ = {
    "test": frozenset([*HEAD, *ANSWERS["test"], *(f"{name}.json" for name in OPTIONAL), GROUPS, EPOCHS, COPIES]),
    "val": frozenset([*HEAD, *ANSWERS["val"], *(f"{name}.json" for name in OPTIONAL)]),
}
MALFORMED = (AttributeError, IndexError, KeyError, MemoryError, OSError, OverflowError, TypeError, ValueError)


class Training(NamedTuple):
    """What tells the trainings of a method apart: the draw of a thinned training set, and the seed."""

    subset: int
    seed: int

    def named(self, *, subsets: bool) -> str:
        """ "seed 3", or "subset 1 seed 3" in a study of several `subsets`."""
        return f"subset {self.subset} seed {self.seed}" if subsets else f"seed {self.seed}"


def subsets_of(trainings: Sequence[Training]) -> np.ndarray:
    """The subset of each training, int [R], as :func:`fer_bench.stats.crossed_errors.jackknife` wants it."""
    return np.array([training.subset for training in trainings], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run whose predictions can be used.

    `facts` holds the optional files that were readable, `damaged` names those that have changed since the run. `rows`,
    `labels`, `predictions` and `groups` are those of `split`, which is "test" or "val".
    """

    record: RunRecord
    label: str
    seed: int
    fold: int
    spec: dict[str, Any]
    data: dict[str, Any]
    rows: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    groups: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    split: str = "test"
    subset: int = 0

    @property
    def training(self) -> Training:
        """Its place among the trainings of its method; the runs of several folds share it."""
        return Training(self.subset, self.seed)

    @property
    def name(self) -> str:
        """How sentences call the run."""
        fold = f", fold {self.fold}" if self.fold else ""
        return f"`{self.label}` {self.training.named(subsets=self.subset > 0)}{fold} (run {self.record.id})"

    def array(self, name: str) -> np.ndarray | None:
        """An array of the record, for sections that need more than predictions; None where it can't be had."""
        if f"{name}.npy" in self.damaged:
            return None
        try:
            return self.record.array(name)
        except LedgerError:
            return None


def read_run(record: RunRecord, arrays: dict[str, np.ndarray], notes: list[str], *, split: str = "test") -> Run | None:
    """The run, or None with a sentence in `notes`; `arrays` by hash are those that earlier runs share with it.

    `split` says which predictions are read: "test", or "val" for those on the validation images.
    """
    needed = (*HEAD, *ANSWERS[split])
    try:
        name = _describe(record)
        status = record.status
        if status != "finished":
            notes.append(f"{name} is {status}{_reason(record, status)} and is left out.")
            return None
        digests = {n: d for n, d in record.json("done").get("files", {}).items() if n in READ[split]}
        texts, damaged = _checked(record, digests)
        damaged |= {n: "is not listed in done.json" for n in needed if n not in digests}
        bad = {n: damaged[n] for n in needed if n in damaged}
        if bad:
            notes.append(f"{name}: " + ", ".join(f"{n} {how}" for n, how in bad.items()) + ". The run is left out.")
            return None
        head, data = (_fitting(_parsed(record, n, texts), n, fits) for n, fits in _HEADS.items())
        canonical_json([head, data])  # runs are compared by it
        rows, labels = (_shared(record, n, digests, arrays) for n in (f"{split}_rows", f"{split}_labels"))
        run = _usable(record, rows, labels, head, data, split)
        if GROUPS in digests and GROUPS not in damaged:
            run = replace(run, groups=_groups(_shared(record, "test_groups", digests, arrays), labels))
    except (LedgerError, *MALFORMED) as error:
        what = error.what if isinstance(error, LedgerError) else f"its record is malformed ({error!r})"
        notes.append(f"Run {record.id}: {what}. It is left out.")
        return None
    return _with_facts(run, texts, damaged, notes)


_HEADS = {"spec": shapes.SPEC, "data": shapes.DATA}


def _fitting(content: Any, name: str, fits: shapes.Fits) -> dict[str, Any]:
    """The content of a JSON file, printable; raises LedgerError if it is not what such a file should contain."""
    content = printable_data(content)
    wrong = fits(content)
    if wrong:
        raise LedgerError(f"{name}.json {wrong}")
    return content


def _describe(record: RunRecord) -> str:
    if not record.path.is_dir():
        raise LedgerError("the ledger has no such record")
    if not record.has("spec.json"):
        return f"Run {record.id}"
    seed, fold, subset = (record.spec.get(key) for key in ("seed", "fold", "subset"))
    place = f"{f'subset {subset} ' if subset else ''}seed {seed}{f', fold {fold}' if fold else ''}"
    return f"`{record.label}` {place} (run {record.id})"


def _reason(record: RunRecord, status: str) -> str:
    if status != "failed":
        return ""
    why = record.json("failed")
    text = " ".join(str(why.get("message", "")).split())
    return f" ({why.get('type', 'error')}: {text[:200]})"


def _checked(record: RunRecord, digests: Mapping[str, str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """JSON files that are as they were hashed, by name; and what is wrong with files that are gone or differ."""
    texts, damaged, folder = {}, {}, str(record.path)
    for name, digest in digests.items():
        path, data = os.path.join(folder, name), b""
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                damaged[name] = "is not a regular file"
                continue
            if name.endswith(".json"):
                with open(path, "rb") as file:
                    data = file.read()
            same = (hashlib.sha256(data).hexdigest() if data else sha256_file(path)) == digest
        except FileNotFoundError:
            damaged[name] = "is missing"
            continue
        except OSError as error:
            damaged[name] = f"can't be read ({error.strerror})"
            continue
        if not same:
            damaged[name] = "has changed since the run"
        elif name.endswith(".json"):
            texts[name] = data
    return texts, damaged


def _parsed(record: RunRecord, name: str, texts: Mapping[str, bytes]) -> Any:
    """Content of ``<name>.json``, from what was read for its hash where it has one."""
    text = texts.get(f"{name}.json")
    if text is None:
        return record.json(name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"run {record.id}: {name}.json is damaged: {error}", where=str(record.path)) from error


def _groups(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if groups.shape != labels.shape or groups.dtype.kind not in "iu":
        raise LedgerError(f"{groups.shape} groups do not fit {len(labels)} labels")
    return groups


def _shared(record: RunRecord, name: str, digests: Mapping[str, str], arrays: dict[str, np.ndarray]) -> np.ndarray:
    """An array of the record; one of the same hash is read once for all runs."""
    key = digests.get(f"{name}.npy", f"{record.id} {name}")
    if key not in arrays:
        arrays[key] = record.array(name)
    return arrays[key]


def _usable(
    record: RunRecord, rows: np.ndarray, labels: np.ndarray, head: dict[str, Any], data: dict[str, Any], split: str
) -> Run:
    spec, logits = head["spec"], record.array(f"{split}_logits")
    classes = len(data["classes"])
    if labels.ndim != 1 or logits.shape != (len(labels), classes) or rows.shape != labels.shape or not len(labels):
        sizes = f"{labels.shape} labels, {rows.shape} rows and {classes} classes"
        raise LedgerError(f"{split} logits {logits.shape} do not fit {sizes}")
    if labels.dtype.kind not in "iu" or rows.dtype.kind not in "iu" or logits.dtype.kind != "f":
        raise LedgerError(f"{labels.dtype} labels, {rows.dtype} rows and {logits.dtype} logits are of the wrong kind")
    if not np.isfinite(logits).all():
        raise LedgerError(f"{split} logits are not finite")
    if labels.min() < 0 or labels.max() >= classes:
        raise LedgerError(f"{split} labels lie outside 0 to {classes - 1}")
    predictions = logits.argmax(1).astype(np.int64)
    fold, subset = (int(spec.get(key) or 0) for key in ("fold", "subset"))
    return Run(
        record, head["label"], int(spec["seed"]), fold, spec, data, rows, labels.astype(np.int64, copy=False),
        predictions, split=split, subset=subset,
    )  # fmt: skip


def _with_facts(run: Run, texts: Mapping[str, bytes], damaged: Mapping[str, str], notes: list[str]) -> Run:
    facts = {}
    if GROUPS in damaged:
        notes.append(f"{run.name}: {GROUPS} {damaged[GROUPS]}. The grouping of images is read from other runs.")
    lost = [name for name in (EPOCHS, COPIES) if name in damaged]
    notes += [f"{run.name}: {name} {damaged[name]}, so the report leaves its contents out." for name in lost]
    for name in OPTIONAL:
        file = f"{name}.json"
        how = damaged.get(file, "is missing")
        if file not in damaged:
            try:
                if file in texts or run.record.has(file):
                    facts[name] = _fitting(_parsed(run.record, name, texts), name, shapes.FACTS[name])
                    continue
            except LedgerError as error:
                how = "is damaged" if "damaged" in error.what else error.what.removeprefix(f"{file} ")
        if name in TELL_IF_MISSING or how != "is missing":
            notes.append(f"{run.name}: {file} {how}, so the report leaves its contents out.")
    return replace(run, facts=facts, damaged=frozenset(damaged))

"""What MLflow shall show of a ledger's run: parameters, curves, scores, tags and files. No mlflow is imported here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from pathlib import Path
from typing import Any

from fer_bench.errors import LedgerError
from fer_bench.printable import printable
from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.stats.confusion import SCORES, confusion_matrix, recalls

FILES = ("spec", "data", "method", "history", "selection", "seal", "probe", "environment", "timing", "derived")
TEXTS = (".json", ".md", ".html", ".tex", ".csv", ".txt")
KEY_LENGTH, VALUE_LENGTH, TAG_LENGTH = 250, 6000, 8000  # MLflow's limits, in characters
STATUS = {"finished": "FINISHED", "pruned": "KILLED"}


@dataclass(frozen=True)
class Mirrored:
    """One ledger run in MLflow's words. A metric is (key, value, step, milliseconds)."""

    name: str
    status: str
    span: tuple[int, int]
    params: dict[str, str]
    metrics: list[tuple[str, float, int, int]]
    tags: dict[str, str]
    files: list[Path]


def mirrored(record: RunRecord) -> Mirrored:
    """Translate a record with a done mark; a pruned one has no test and perhaps no selection.

    Raises
    ------
    LedgerError
        A file of the record is missing or damaged.
    """
    span, ticks = clock(record)
    spec, data = record.spec, record.data
    watermark = data.get("protocol", {}).get("watermark") or ""
    transductive = any(_optional(record, name).get("transductive") for name in ("probe", "method"))
    tags = {
        "run_id": record.id,
        "label": record.label,
        "status": record.status,
        "transductive": str(transductive).lower(),
        "fingerprint": data["fingerprint"],
        "source": record.json("spec").get("source", ""),
        "test_openings": str(_optional(record, "seal").get("count", 0)),
        "device": str(_optional(record, "timing").get("device", "")),
    }
    if derived := _optional(record, "derived").get("run_id"):
        tags["derived_from"] = str(derived)
    notes = [watermark] if watermark else []
    if watermark:
        tags["watermark"] = watermark
    if transductive:
        notes.append("Transductive: a prediction depends on the other images of its batch.")
    fold = "" if spec.get("fold") is None else f" · fold {spec['fold']}"
    subset = f" · subset {spec['subset']}" if spec.get("subset") else ""
    return Mirrored(
        name=f"{'⚠ ' if watermark else ''}{record.label}{subset} · seed {spec['seed']}{fold}",
        status=STATUS.get(record.status, "FAILED"),
        span=span,
        params=_params(spec),
        metrics=_epoch_metrics(record, ticks) + _final_metrics(record, span[1]),
        tags=tags_of(tags, **({"mlflow.note.content": "\n\n".join(notes)} if notes else {})),
        files=[p for p in [*(record.path / f"{n}.json" for n in FILES), record.path / "model.pt"] if _is_kept(p)],
    )


def studies_of(ledger: Ledger, study: str | None, failed: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The record of one study by its name, or those of all for None; of all, one that can't be read goes to `failed`.

    Raises
    ------
    LedgerError
        The ledger is empty, or the one that was asked for can't be read.
    """
    records = {}
    for name in ledger.studies() if study is None and ledger.studies() else [study]:
        try:
            record = ledger.study(name)
            missing = [key for key in ("dataset", "protocol") if not record.get(key)]
            if missing:
                raise LedgerError(f"study '{record['name']}' names no {' and no '.join(missing)}")
            records[record["name"]] = record
        except LedgerError as error:
            if study is not None or name is None:
                raise
            failed[f"study {name}"] = printable(error.what)
    return records


def spans(records: Iterable[RunRecord]) -> list[tuple[int, int]]:
    """Start and end, in milliseconds, of the finished runs whose records tell."""
    times = []
    for record in records:
        with contextlib.suppress(Exception):  # whatever a damaged record holds, its own mirroring tells it
            times.append(clock(record)[0])
    return times


def kept(folder: Path) -> list[Path]:
    """Files of a report: not what a killed process has left under hidden names, and nothing that a link leads to."""
    if not folder.is_dir():
        return []
    files = (p for p in sorted(folder.rglob("*")) if _is_kept(p))
    return [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def text_of(file: Path) -> str | None:
    """Content of a file that may hold a command; None for any other."""
    if file.suffix not in TEXTS:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _is_kept(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def key(*parts: str) -> str:
    """A name that MLflow accepts: `parts` joined by slashes, every other character replaced by ``_``."""
    clean = [re.sub(r"[^A-Za-z0-9_\-. :]", "_", str(p)) for p in parts]
    return "/".join(p.replace(".", "_") or "_" if set(p) <= {"."} else p for p in clean)[:KEY_LENGTH]


def class_keys(prefix: str, classes: Sequence[str]) -> list[str]:
    """One name a class, ``prefix/class``; classes whose names MLflow can't tell apart get their number."""
    keys = [key(prefix, c) for c in classes]
    return [k if keys.count(k) == 1 else f"{k[: KEY_LENGTH - 8]}_{i}" for i, k in enumerate(keys)]


def _optional(record: RunRecord, name: str) -> dict[str, Any]:
    return record.json(name) if record.has(f"{name}.json") else {}


def tags_of(ours: Mapping[str, str], **mlflow: str) -> dict[str, str]:
    """Tags of our own, prefixed by ``fer_bench.``, and those that MLflow understands; empty ones are left out."""
    return {**{f"fer_bench.{k}": v[:TAG_LENGTH] for k, v in ours.items() if v}, **mlflow}


def clock(record: RunRecord) -> tuple[tuple[int, int], list[int]]:
    """Start and finish of a run and the end of each epoch, in milliseconds; the record's age if untimed."""
    timing = _optional(record, "timing")
    written = os.stat(record.path / "done.json").st_mtime
    try:
        end = datetime.fromisoformat(timing["finished"]).timestamp()
    except (KeyError, TypeError, ValueError):
        end = written
    try:
        start = datetime.fromisoformat(timing["started"]).timestamp()
    except (KeyError, TypeError, ValueError):
        start = end
    ticks, at = [], start
    for seconds in timing.get("epoch_seconds") or []:
        at += seconds
        ticks.append(int(1000 * at))
    return (int(1000 * start), int(1000 * end)), ticks


def _params(spec: Mapping[str, Any]) -> dict[str, str]:
    """The spec as flat parameters; those of the method are called ``method.<dotted name>``."""
    rest = {k: v for k, v in spec.items() if k != "params"}
    if spec.get("profile", "natural") != "natural":
        rest.setdefault("subset", 0)  # which a spec leaves out
    flat = dict(_flat("", rest)) | dict(_flat("method", spec.get("params") or {}))
    return {key(k): v if len(v) <= VALUE_LENGTH else v[: VALUE_LENGTH - 3] + "..." for k, v in sorted(flat.items())}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for k, v in value.items():
            yield from _flat(f"{prefix}.{k}" if prefix else k, v)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbers(pairs: Iterator[tuple[str, Any]], step: int, at: int) -> list[tuple[str, float, int, int]]:
    """Metrics of the finite numbers among `pairs`; a class without images has no recall to show."""
    good = ((k, v) for k, v in pairs if isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v))
    return [(k, float(v), step, at) for k, v in good]


def _epoch_metrics(record: RunRecord, ticks: Sequence[int]) -> list[tuple[str, float, int, int]]:
    """Every number of the history, and every list with one entry a class, as a curve over epochs from 1 on."""
    history = record.json("history") if record.has("history.json") else []
    speeds = _optional(record, "timing").get("images_per_second") or []
    classes, metrics = record.data["classes"], []
    fallback = clock(record)[0][1]
    for i, entry in enumerate(history):
        pairs = [(key(k), v) for k, v in entry.items() if k != "epoch"]
        for name, values in entry.items():
            if isinstance(values, list) and len(values) == len(classes):
                pairs += zip(class_keys(name, classes), values, strict=True)
        pairs += [("images_per_second", s) for s in speeds[i : i + 1]]
        metrics += _numbers(iter(pairs), int(entry["epoch"]) + 1, ticks[i] if i < len(ticks) else fallback)
    return metrics


def _final_metrics(record: RunRecord, at: int) -> list[tuple[str, float, int, int]]:
    """Scores of the selected epoch, computed from the logits; the probe's numbers; the run's duration.

    ``selected_val_*`` and ``test_*`` belong to the epoch that validation chose: no number here looked at the test.
    """
    selection, probe = _optional(record, "selection"), _optional(record, "probe")
    epoch = (selection.get("epoch") or 0) + 1  # counted from 0 in the record, from 1 for people
    pairs = [("selected_epoch", epoch if "epoch" in selection else None), ("selected_value", selection.get("value"))]
    for prefix, role in (("selected_val", "val"), ("test", "test")):
        if record.has(f"{role}_logits.npy"):
            pairs += _scores(record, prefix, role)
    pairs += [(key("probe", k), v) for k, v in probe.items()]
    for check in probe.get("checks") or []:
        pairs += [(key("probe", check["name"], k), v) for k, v in check.items()]
    pairs += [("total_seconds", _optional(record, "timing").get("total_seconds"))]
    return _numbers(iter(pairs), int(epoch), at)


def _scores(record: RunRecord, prefix: str, role: str) -> list[tuple[str, float]]:
    classes = record.data["classes"]
    predicted = record.array(f"{role}_logits").argmax(axis=1)
    matrix = confusion_matrix(record.array(f"{role}_labels"), predicted, len(classes))
    pairs = [(f"{prefix}_{name}", float(score(matrix))) for name, score in SCORES.items()]
    return pairs + [
        (k, float(r)) for k, r in zip(class_keys(f"{prefix}_recall", classes), recalls(matrix), strict=True)
    ]

"""``fer-bench list runs``: the ledger's runs with their scores, optionally filtered. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from fer_bench.cli.columns import table
from fer_bench.errors import LedgerError, unknown
from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.record.lookup import is_variant
from fer_bench.stats.confusion import accuracy, confusion_matrix, mean_recall

DAMAGE = (LedgerError, AttributeError, LookupError, MemoryError, OSError, OverflowError, TypeError, ValueError)
STATUS = ("finished", "failed", "unfinished", "pruned")
TITLES = (
    *("run", "status", "method", "seed", "protocol", "fold", "imbalance", "subset", "epoch", "validation %"),
    *("test mean recall %", "test accuracy %", ""),
)
USUAL = {"subset": ("", "0")}  # a column that holds nothing else is left out, as is an empty one


def list_runs(ledger: Ledger, filters: Mapping[str, str | None]) -> None:
    """Print one line per run; records that can't be read are reported separately.

    Raises
    ------
    UnknownNameError
        No run has the requested method, data set or status; the error gives the nearest existing ones.
    LedgerError
        The study does not exist.
    """
    records, damaged = _readable(ledger)
    for record in damaged:
        click.secho(f"skipped run {record.id}: its spec.json can't be read", fg="yellow", err=True)
    chosen = _narrowed(ledger, records, filters)
    if not chosen:
        message = f"no run in {ledger.root} matches" if records else f"no runs in {ledger.root} yet"
        click.echo(f"{message}; to train: fer-bench run METHOD --dataset NAME")
        return
    rows = [TITLES, *map(_row, chosen)]
    kept = [k for k, title in enumerate(TITLES) if any(row[k] not in USUAL.get(title, ("",)) for row in rows[1:])]
    table(tuple(row[k] for k in kept) for row in rows)


def _readable(ledger: Ledger) -> tuple[list[RunRecord], list[RunRecord]]:
    good: list[RunRecord] = []
    damaged: list[RunRecord] = []
    for record in ledger.runs():
        try:
            (record.label, record.spec["seed"], record.spec["method"], record.spec["dataset"], record.status)
        except DAMAGE:
            damaged.append(record)
        else:
            good.append(record)
    return good, damaged


def _narrowed(ledger: Ledger, records: list[RunRecord], filters: Mapping[str, str | None]) -> list[RunRecord]:
    """The runs that pass all filters."""
    names: dict[str, Callable[[RunRecord], tuple[str, ...]]] = {
        "method": lambda r: (r.spec["method"], r.label),
        "dataset": lambda r: (r.spec["dataset"],),
        "status": lambda r: (r.status,),
    }
    for kind, names_of in names.items():
        asked = filters.get(kind)
        if asked is None:
            continue
        if kind == "method":
            asked = next((r.label for r in records if is_variant(r, asked)), asked)
        known = {name for r in records for name in names_of(r)} | (set(STATUS) if kind == "status" else set())
        if asked not in known:
            raise unknown(kind, asked, known, where=str(ledger.root), next="fer-bench list runs")
        records = [r for r in records if asked in names_of(r)]
    if filters.get("study") is not None:
        order = {run: k for k, run in enumerate(ledger.study(filters["study"])["runs"])}
        records = sorted((r for r in records if r.id in order), key=lambda r: order[r.id])
    return records


def _row(record: RunRecord) -> tuple[str, ...]:
    place = (record.id, record.status, record.label, str(record.spec["seed"]))
    try:
        return (*place, *_place(record), *_scores(record))
    except DAMAGE as error:
        return (
            *place,
            *[""] * (len(TITLES) - len(place) - 1),
            f"damaged: {next(iter(str(error).splitlines()), repr(error))}",
        )


def _place(record: RunRecord) -> tuple[str, str, str, str]:
    """Protocol, fold and profile of a run, as far as recorded, and the draw of its thinned training set."""
    protocol = _optional(record, "data").get("protocol") or {}
    name = protocol.get("name") or f"{record.spec['dataset']}/{record.spec['protocol']}"
    fold = str(record.spec["fold"]) if protocol.get("folds", 1) > 1 else ""
    profile = record.spec["profile"]
    return name, fold, profile, "" if profile == "natural" else str(record.spec.get("subset", 0))


def _scores(record: RunRecord) -> tuple[str, str, str, str, str]:
    """The selected epoch (from 1), its validation score, its two test scores, and warnings."""
    selection, test = _optional(record, "selection"), ("", "")
    if record.has("test_logits.npy"):
        predicted = record.array("test_logits").argmax(axis=1)
        matrix = confusion_matrix(record.array("test_labels"), predicted, len(record.data["classes"]))
        test = (_percent(float(mean_recall(matrix))), _percent(float(accuracy(matrix))))
    value = f"{_percent(selection['value'])} {selection['metric'].replace('_', ' ')}" if "value" in selection else ""
    epoch = str(selection["epoch"] + 1) if "epoch" in selection else ""
    return epoch, value, *test, ", ".join(_warnings(record))


def _warnings(record: RunRecord) -> list[str]:
    watermarked = (_optional(record, "data").get("protocol") or {}).get("watermark")
    transductive = any(_optional(record, name).get("transductive") for name in ("probe", "method"))
    derived = [f"derived from {_optional(record, 'derived').get('run_id')}"] * record.has("derived.json")
    return ["WATERMARKED"] * bool(watermarked) + ["transductive"] * transductive + derived


def _optional(record: RunRecord, name: str) -> dict[str, Any]:
    return record.json(name) if record.has(f"{name}.json") else {}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"

"""A run of the ledger by what a person types: its id, the beginning of it, or its method as ``list runs`` shows it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress

from fer_bench.base.variants import names_variant
from fer_bench.errors import LedgerError, SpecError, abbreviated, unknown
from fer_bench.record.ledger import Ledger, RunRecord

LISTED = 6  # runs that a message names


def find_run(ledger: Ledger, text: str) -> RunRecord:
    """The run that `text` names: an id, the beginning of one id, or the method (with parameters) of one run.

    Of a method, finished runs come first: others count only if there is none.

    Raises
    ------
    UnknownNameError
        There is no such run; the nearest names are given.
    SpecError
        Several runs are meant.
    LedgerError
        The ledger holds no run.
    """
    text = str(text)
    records = {record.id: record for record in ledger.runs()}
    if not records:
        raise LedgerError(
            f"there is no run in {ledger.root}",
            hint="name the folder that holds ledger/ with --home DIR, or in FER_BENCH_HOME",
            next="fer-bench run METHOD --dataset NAME",
        )
    if text in records:
        return records[text]
    labels = {record.id: label for record in records.values() if (label := _label(record))}
    begins = [record for name, record in records.items() if text and name.startswith(text)]
    found = begins or [record for record in records.values() if is_variant(record, text)]
    if not begins:
        found = [record for record in found if _finished(record)] or found
    if not found:
        raise unknown("run", text, [*records, *labels.values()], where=str(ledger.root), next="fer-bench list runs")
    if len(found) > 1:
        raise _several(text, found, labels)
    return found[0]


def is_variant(record: RunRecord, text: str) -> bool:
    """Whether `text` names the method of a run with its parameters, as its label or as it may be typed."""
    label, params = _label(record), {}
    with suppress(LedgerError, KeyError, TypeError, ValueError):
        params = dict(record.spec["params"])
    return bool(label) and names_variant(text, label, params)


def require_finished(record: RunRecord, ledger: Ledger) -> None:
    """Raise LedgerError, with the command that finishes it, for a run without an end."""
    status = record.status
    if status == "finished":
        return
    reasons = {
        "pruned": "tuning stopped it early, so no epoch of it was selected",
        "failed": "why it failed is in its failed.json; the command below tries again",
        "unfinished": "it is still being trained, or was interrupted; the command below goes on with it",
    }
    raise LedgerError(
        f"run {record.id} is not finished ({status})",
        where=str(record.path),
        hint=reasons.get(status),
        next="fer-bench list runs --status finished" if status == "pruned" else _command(record, ledger),
    )


def _command(record: RunRecord, ledger: Ledger) -> str:
    """The command of a study that the run belongs to."""
    for name in ledger.studies():
        with suppress(LedgerError):
            study = ledger.study(name)
            if record.id in study["runs"] and study.get("command"):
                return str(study["command"])
    return "fer-bench list runs --status finished"


def _finished(record: RunRecord) -> bool:
    with suppress(LedgerError, KeyError, TypeError):
        return record.status == "finished"
    return False


def _label(record: RunRecord) -> str:
    """The run's method; empty for a damaged record."""
    with suppress(LedgerError, KeyError, TypeError, AttributeError):
        return str(record.label)
    return ""


def _several(text: str, found: Sequence[RunRecord], labels: dict[str, str]) -> SpecError:
    lines = [f"{record.id}  {labels.get(record.id, 'damaged')}{_setting(record)}" for record in found[:LISTED]]
    lines += [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    only = ["--method", text] if not any(record.id.startswith(text) for record in found) else []
    return SpecError(
        f"'{abbreviated(text)}' names {len(found)} runs",
        hint="give the id of one of them:\n         " + "\n         ".join(lines),
        next=shlex.join(["fer-bench", "list", "runs", *only]),
    )


def _setting(record: RunRecord) -> str:
    with suppress(LedgerError, KeyError, TypeError):
        spec = record.spec
        profile = "" if spec["profile"] == "natural" else f", {spec['profile']}"
        return f" on {spec['dataset']}/{spec['protocol']}, fold {spec['fold']}, seed {spec['seed']}{profile}"
    return ""

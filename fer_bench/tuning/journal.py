"""Optuna's journal of searches: one file, one line per operation, and what happens where a line is incomplete.

A process that is killed, or a disk that is full, may leave the last line unfinished. It is cut off, because its
operation never ended. A journal that is damaged in any other way is set aside, and the searches are filled in from the
ledger, which holds every trial (:func:`restore`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_bench.base.locks import FileLock
from fer_bench.contract.params import Choice, Int, Scale, Space
from fer_bench.errors import FerBenchError
from fer_bench.record.ledger import Ledger

if TYPE_CHECKING:
    import optuna


def open_storage(path: Path, warn: Callable[[str], None] = lambda line: None) -> optuna.storages.BaseStorage:
    """The journal that holds all searches of a home, its last line mended; several processes may write it at once.

    A damaged one is set aside and a new one begun; `warn` gets the reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _cut(path)
    try:
        return _replayed(path)
    except OSError:
        raise
    except Exception as error:  # replaying what nobody wrote may raise anything
        aside = _set_aside(path)
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        warn(f"the search journal was damaged ({why}): it is now {aside}; trials are restored from the ledger")
        return _replayed(path)


def _replayed(path: Path) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path), lock_obj=FileLock(path)))  # type: ignore[arg-type]


def _cut(path: Path) -> None:
    """Cut off a last line that was not finished, under the lock of those who write."""
    lock = FileLock(path)
    lock.acquire()
    try:
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        last = content[content.rfind(b"\n", 0, end - 1) + 1 : end] if end else b""
        if last and not _is_whole(last):
            end -= len(last)
        if end < len(content):
            os.truncate(path, end)
    finally:
        lock.release()


def _is_whole(line: bytes) -> bool:
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(line), dict)
    return False


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.stem}-damaged-{number}{path.suffix}")).exists():
        number += 1
    os.rename(path, aside)
    return aside


# From the ledger ------------------------------------------------------------------------------------------------------


def restore(study: optuna.Study, space: Mapping[str, Space], ledger: Ledger, metric: str) -> None:
    """Give an empty search the finished trials that the ledger holds, with the validation curves of their runs.

    They come from the study that holds most of them. One whose record is malformed gives none: its trials are proposed
    again, and what was trained is taken from the ledger all the same.
    """
    best: list[optuna.trial.FrozenTrial] = []
    for entry in _searches(ledger):
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, FerBenchError):
            if entry["name"] == study.study_name:
                ordered = sorted(entry["trials"], key=lambda t: t["number"])
                trials = [_trial(t, space, ledger, metric) for t in ordered]
                best = max(best, trials, key=len)
    study.add_trials(best)


def _searches(ledger: Ledger) -> Iterator[Any]:
    for name in ledger.studies():
        with contextlib.suppress(FerBenchError, AttributeError, TypeError):
            study = ledger.study(name)
            yield from study.get("searches", ()) if study.get("kind") == "tune" else ()


def _trial(entry: Mapping[str, Any], space: Mapping[str, Space], ledger: Ledger, metric: str
           ) -> optuna.trial.FrozenTrial:  # fmt: skip
    from optuna.trial import TrialState, create_trial

    run, values = entry["run_id"], entry["values"]
    return create_trial(
        state=TrialState[entry["state"]],
        params=values,
        distributions={n: distribution(space[n]) for n in values},
        value=entry["value"],
        intermediate_values=curve_of(ledger, run, metric) if run else {},
        user_attrs={"run_id": run} if run else {},
    )


def curve_of(ledger: Ledger, run: str, metric: str) -> dict[int, float]:
    """Validation scores of a run by epoch; empty where its history is gone."""
    record = ledger.run(run)
    return {e["epoch"]: e[metric] for e in record.json("history")} if record.has("history.json") else {}


def distribution(space: Space) -> optuna.distributions.BaseDistribution:
    """A searched space in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, Choice):
        return CategoricalDistribution(list(space.options))
    if isinstance(space, Int):
        return IntDistribution(space.low, space.high, log=space.log)
    assert not isinstance(space, Scale)
    return FloatDistribution(space.low, space.high, log=space.log)


def in_words(space: Space) -> str:
    """A searched space as a reader wants it."""
    if isinstance(space, Choice):
        return "one of " + ", ".join("none" if o is None else str(o) for o in space.options)
    return f"{space.low:g} to {space.high:g}" + (", logarithmic" if getattr(space, "log", True) else "")

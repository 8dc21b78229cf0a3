"""Carrying out a study: run after run, each independent, none lost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fer_bench.base.files import canonical_json
from fer_bench.base.next_command import complete
from fer_bench.errors import FerBenchError, LedgerError, LockedError, SpecError, TrainingError
from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.runs.executor import Workplace, execute, identify
from fer_bench.runs.model_check import check_backbones
from fer_bench.runs.readout import base_of, check_fresh
from fer_bench.runs.spec import RunSpec, StudySpec, subset_in_words

Say = Callable[[str], None]
WAIT = 5.0  # seconds between looks at runs that other processes hold


@dataclass
class Outcome:
    """What became of a study's runs."""

    study: dict[str, Any]
    finished: list[RunRecord] = field(default_factory=list)
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def run_study(study: StudySpec, work: Workplace, *, say: Say = print, replace: bool = False,
              after_run: Callable[[dict[str, Any]], None] = lambda study: None) -> Outcome:  # fmt: skip
    """Carry out all runs of a study; finished ones are reused, a failed one does not stop the others.

    Several processes may carry out one study at once: a run that another one is training is put off, and taken as
    finished when it is.

    Parameters
    ----------
    study : StudySpec
    work : Workplace
    say : callable
        Called with one line per run.
    replace : bool
        Let the study take the name of another one, whose runs stay in the ledger.
    after_run : callable
        Called with the study's record after every run that was trained (the MLflow mirror hangs here).

    Raises
    ------
    SpecError
        A study of this name holds other finished runs, or a backbone can't take the images.
    """
    ids = [identify(spec, work)[0] for spec in study.runs]
    record = study.record(ids)
    _begin(study, record, work, replace=replace)
    outcome = Outcome(record)
    todo = list(zip(range(1, len(ids) + 1), ids, study.runs, strict=True))
    put_off = 0  # runs in a row that other processes hold
    while todo:
        number, key, spec = todo.pop(0)
        title = f"[{number}/{len(ids)}] {describe(spec, work)}"
        known = work.home.ledger.run(key)
        try:
            if known.status == "finished":
                check_fresh(known, work.home.ledger)
                outcome.reused += 1
                outcome.finished.append(known)
                say(f"{title}: finished before, run {key}")
                continue
            _check_base(spec, work, outcome)
            record_of_run = execute(spec, work, started=partial(say, f"{title}: run {key}"))
        except LockedError:
            todo.append((number, key, spec))
            put_off += 1
            if put_off == len(todo):
                say(f"waiting for another process to finish {len(todo)} runs")
            if put_off >= len(todo):
                time.sleep(WAIT)
            continue
        except FerBenchError as error:
            error.next = complete(error.next, home=work.home.root, plugins=work.plugins.folders)
            outcome.failed[key] = error.render()
            say(f"{title} failed: {error.render()}")
            continue
        put_off = 0
        outcome.finished.append(record_of_run)
        say(" " * len(f"[{number}/{len(ids)}]") + f" {_chosen(record_of_run)}")
        after_run(record)
    return outcome


def _check_base(spec: RunSpec, work: Workplace, outcome: Outcome) -> None:
    """Raise TrainingError if the run is read out of one that has failed in this study: it would be trained again."""
    base = base_of(spec, work.plugins)
    if base is not None and (key := identify(base, work)[0]) in outcome.failed:
        raise TrainingError(f"run {key}, which it is read out of, failed in this study")


def _begin(study: StudySpec, record: dict[str, Any], work: Workplace, *, replace: bool) -> None:
    """Check what would fail late otherwise, then write the study's record."""
    ledger = work.home.ledger
    if not replace:
        check_name_is_free(study, ledger)
    todo = [s for s, key in zip(study.runs, record["runs"], strict=True) if ledger.run(key).status != "finished"]
    check_backbones(todo, work)
    ledger.put_study(study.name, record)


def check_name_is_free(study: StudySpec, ledger: Ledger) -> None:
    """Raise SpecError where a study of this name holds finished runs that the new one would leave out."""
    taken = ledger.studies()
    if study.name not in taken:
        return
    try:
        there = ledger.study(study.name)
    except LedgerError:  # a damaged record holds nothing that could be kept; its runs are in the ledger
        return
    wanted = {canonical_json(spec.to_dict()) for spec in study.runs}
    records = [r for r in map(ledger.run, there["runs"]) if r.status == "finished"]
    records = [r for r in records if r.label != there.get("second_reference")]  # it was added, and costs no training
    lost = [
        f"{r.label} with seed {r.spec['seed']}{subset_in_words(r.spec.get('subset', 0))}"
        for r in records
        if canonical_json(r.spec) not in wanted
    ]
    if not lost and there.get("kind", study.kind) == study.kind:
        return
    others = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    free = next(name for k in itertools.count(2) if (name := f"{study.name}-{k}") not in taken)
    raise SpecError(
        f"there is a study '{study.name}' already, and this command would leave its runs out",
        where=f"--name {study.name}" + (f", which holds {', '.join(lost[:3])}{others}" if lost else ""),
        hint="a study may grow by methods, seeds, subsets and folds; with --replace the name passes to the new runs "
        "(the others stay in the ledger)",
        next=f"the same command with --name {free}",
    )


def _chosen(run: RunRecord) -> str:
    """What selection made of a run; the test's numbers belong to the report, beside their intervals."""
    if run.has("derived.json"):
        return f"read out of the logits of run {run.json('derived')['run_id']}, without training"
    selection, seconds = run.json("selection"), run.json("timing")["total_seconds"]
    score = f"validation {selection['metric']} {100 * selection['value']:.1f} %"
    return f"epoch {selection['epoch'] + 1} chosen, {score}, {seconds:.0f} s"


def describe(spec: RunSpec, work: Workplace) -> str:
    """A run in a few words."""
    folds = work.plugins.dataset_card(spec.dataset).protocol(spec.protocol).folds
    fold = f", fold {spec.fold}" if folds > 1 else ""
    return f"{work.label(spec)}{fold}{subset_in_words(spec.subset)}, seed {spec.seed}"

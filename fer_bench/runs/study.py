"""Carrying out a study: run after run, each independent, none lost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fer_bench.base.files import canonical_json
from fer_bench.base.next_command import complete
from fer_bench.base.quantities import plural
from fer_bench.errors import FerBenchError, LedgerError, LockedError, OutOfMemoryError, SpecError, TrainingError
from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.runs.executor import Workplace, identify
from fer_bench.runs.model_check import check_backbones
from fer_bench.runs.pool import Ended, Here, Pool, Queue, Task
from fer_bench.runs.readout import base_of, check_fresh
from fer_bench.runs.spec import RunSpec, StudySpec, subset_in_words

Say = Callable[[str], None]
WAIT = 5.0  # seconds between looks at runs that other processes hold


@dataclass
class Outcome:
    """What became of a study's runs; `left` were being carried out by other processes when this one ended."""

    study: dict[str, Any]
    finished: list[RunRecord] = field(default_factory=list)
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0


def run_study(study: StudySpec, work: Workplace, *, say: Say = print, replace: bool = False,
              after_run: Callable[[dict[str, Any]], None] = lambda study: None, pool: Pool | None = None,
              wait: bool = True) -> Outcome:  # fmt: skip
    """Carry out all runs of a study; finished ones are reused, a failed one does not stop the others.

    Several processes may carry out one study at once: a run that another one is training is put off, and taken as
    finished when it is. A run that memory did not suffice for while others were at work is tried again, alone.

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
    pool : Pool
        What carries out the runs: one after the other in this thread, unless given. It is closed at the end.
    wait : bool
        Wait for runs that other processes hold. Otherwise they are left to those (`Outcome.left`).

    Raises
    ------
    SpecError
        A study of this name holds other finished runs, or a backbone can't take the images.
    """
    ids = [identify(spec, work)[0] for spec in study.runs]
    record = study.record(ids)
    _begin(study, record, work, replace=replace)
    carried = _Study(study, ids, record, work, pool or Here(), say)
    try:
        carried.carry_out(after_run, wait=wait)
    finally:
        carried.pool.close()
    return carried.outcome


class _Study:
    """A study while it is carried out."""

    def __init__(self, study: StudySpec, ids: list[str], record: dict[str, Any], work: Workplace, pool: Pool, say: Say):
        self.work, self.pool, self.say = work, pool, say
        self.outcome = Outcome(record)
        self.queue = Queue(self._tasks(study, ids))
        self.failures = {key: self._failure(key) for key in ids}  # of earlier attempts
        self.own: set[str] = set()  # runs that were begun here
        self.bugs: list[Exception] = []

    def _tasks(self, study: StudySpec, ids: list[str]) -> Iterator[Task]:
        for number, (key, spec) in enumerate(zip(ids, study.runs, strict=True), 1):
            base = base_of(spec, self.work.plugins)
            title = f"[{number}/{len(ids)}] {describe(spec, self.work)}"
            yield Task(key, spec, title, None if base is None else identify(base, self.work)[0])

    def carry_out(self, after_run: Callable[[dict[str, Any]], None], *, wait: bool) -> None:
        """Carry out all runs; a fault of the harness itself is raised, of several runs at once when all have ended."""
        waiting = looked = False
        while len(self.queue):
            self._fill()
            if self.queue.running:
                if (ended := self.pool.wait(WAIT if self.queue.held else None)) is None:
                    self.queue.look_again()
                    continue
                looked = looked and isinstance(ended.error, LockedError)
                if self._end(ended):
                    waiting = False
                    if self.pool.size > 1:
                        self._fill()  # what comes next does not wait for the mirror
                    after_run(self.outcome.study)
            elif self.queue.held:
                if looked and not wait:  # since the last run here ended: so whoever ends last sees all others finished
                    self.outcome.left = self.queue.held
                    return
                if wait:
                    if not waiting:
                        self.say(f"waiting for another process to finish {plural(self.queue.held, 'run')}")
                    waiting = True
                    time.sleep(WAIT)
                looked = True
                self.queue.look_again()
        if self.bugs:
            raise self.bugs[0]

    def _fill(self) -> None:
        """Begin as many runs as may be at work at once."""
        while self.queue.running < self.pool.size and (task := self.queue.take()):
            try:
                if not self._reuse(task):
                    self.own.add(task.key)
                    self.pool.begin(task, self.work, partial(self.say, f"{task.title}: run {task.key}"))
            except FerBenchError as error:
                self._fail(task, error)

    def _reuse(self, task: Task) -> bool:
        """Take a run that is finished already as it is; returns whether it was."""
        known = self.work.home.ledger.run(task.key)
        if known.status == "finished":
            check_fresh(known, self.work.home.ledger)
            self.outcome.reused += 1
            self.outcome.finished.append(known)
            self.say(f"{task.title}: finished before, run {task.key}")
            self.queue.end(task)
            return True
        if task.base in self.outcome.failed:  # it would be trained again
            raise TrainingError(f"run {task.base}, which it is read out of, failed in this study")
        if task.key not in self.own and (failure := self._failure(task.key)) not in ({}, self.failures[task.key]):
            raise TrainingError(f"in another process: {failure.get('message')}")
        return False

    def _failure(self, key: str) -> dict[str, Any]:
        """How a run failed, if it did; one that lacked memory may succeed in another process."""
        failed = self.work.home.ledger.run(key)
        try:
            written = (failed.path / "failed.json").stat().st_mtime_ns
            failure = {**failed.json("failed"), "written": written} if failed.status == "failed" else {}
        except (OSError, LedgerError):  # it is being tried again
            return {}
        return {} if failure.get("type") == OutOfMemoryError.__name__ else failure

    def _end(self, ended: Ended) -> bool:
        """Take in what became of a run; returns whether it is finished."""
        task, error = ended.task, ended.error
        if ended.record is not None:
            self.queue.end(task)
            self.outcome.finished.append(ended.record)
            name = f"{task.title}:" if self.pool.size > 1 else " " * len(task.title.split()[0])
            self.say(f"{name} {_chosen(ended.record)}")
        elif isinstance(error, LockedError):
            self.own.discard(task.key)
            self.queue.hold(task)
        elif isinstance(error, OutOfMemoryError) and self.queue.retry_alone(task):
            self.say(f"{task.title}: {error.what}; it is tried again, alone, when the other runs have ended")
        elif isinstance(error, FerBenchError):
            self._fail(task, error)
        elif error is not None:
            if self.pool.size == 1:
                raise error
            self.bugs.append(error)
            self._fail(task, FerBenchError(f"{type(error).__name__}: {error}"))
        return ended.record is not None

    def _fail(self, task: Task, error: FerBenchError) -> None:
        self.queue.end(task)
        error.next = complete(error.next, home=self.work.home.root, plugins=self.work.plugins.folders)
        self.outcome.failed[task.key] = error.render()
        self.say(f"{task.title} failed: {error.render()}")


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

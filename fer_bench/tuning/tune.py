"""Equal-budget search with Optuna: every method, the baselines included, gets the same number of trials.

A search belongs to one method variant on one data set, protocol, backbone and recipe. Its trials are ledger runs that
never open the test: a trial that was trained once is never trained again, and a search that is killed goes on with the
trial it was at. The default configuration is trial 0, so that tuning can't lose to it on validation.

Optuna keeps the searches in one journal file; the best configuration is written as plain JSON beside it, which is all
that ``fer-bench run --tuned`` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fer_bench.base.locks import locked
from fer_bench.contract.params import Choice, Int, Scale, Space
from fer_bench.errors import FerBenchError, PrunedTrial, TrainingError, missing_library
from fer_bench.record.ledger import RunRecord
from fer_bench.rng import stream_seed
from fer_bench.runs.executor import Workplace, execute, identify
from fer_bench.runs.model_check import check_backbones
from fer_bench.runs.spec import RunSpec, StudySpec
from fer_bench.training.job import Listener
from fer_bench.tuning.best import write_best
from fer_bench.tuning.journal import curve_of, open_storage, restore
from fer_bench.tuning.search import OBJECTIVE, Search, command_of, fixed_part, terms_of

if TYPE_CHECKING:
    import optuna

METRIC = f"val_{OBJECTIVE}"
Say = Callable[[str], None]


def tune(searches: Sequence[Search], trials: int, work: Workplace, *, command: str, name: str, seed: int = 0,
         say: Say = print, after_run: Callable[[dict[str, Any]], None] = lambda study: None) -> list[dict]:  # fmt: skip
    """Run all searches up to `trials` trials each, in turns, and write the best configurations.

    Returns
    -------
    list of dict
        One best configuration a search, as written to the tuning folder.

    Raises
    ------
    FerBenchError
        Optuna is not installed, no trial of a search succeeded, or another process is tuning here.
    """
    _require_optuna()
    with locked(work.home.tuning / "lock", "another process is tuning in this home"):
        storage = open_storage(work.home.tuning / "journal.log", say)
        tuning = _Tuning(searches=searches, trials=trials, work=work, command=command, name=name, seed=seed, say=say)
        return tuning.carry_out(storage, after_run)


def _require_optuna() -> None:
    try:
        import optuna
    except ImportError as error:
        raise missing_library("tuning needs Optuna", error, install="optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class _Tuning:
    """Several searches while they are carried out; the fields are what :func:`tune` was given."""

    searches: Sequence[Search]
    trials: int
    work: Workplace
    command: str
    name: str
    seed: int
    say: Say

    def carry_out(self, storage: Any, after_run: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """Run what is missing of every search, in turns; returns the best configurations."""
        pairs = [(search, self._open(storage, search)) for search in self.searches]
        if any(_count_finished(study) < self.trials for _, study in pairs):
            check_backbones([search.spec(search.defaults(), self.seed) for search in self.searches], self.work)
        self._write_record(pairs)  # a search that is complete already has its study under this name as well
        for turn in range(self.trials):
            for search, study in pairs:
                if _count_finished(study) <= turn:
                    self._run_trial(search, study)
                    after_run(self._write_record(pairs))
        return [self._best(search, study) for search, study in pairs]

    def _open(self, storage: Any, search: Search) -> optuna.Study:
        """Optuna's study of a search; one that the journal does not know is filled from the ledger."""
        import optuna

        # a median over fewer than four trials says little, and the first epochs of a warm-up say nothing
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=4, n_warmup_steps=max(1, search.template["recipe"].epochs // 4)
        )
        study = optuna.create_study(
            storage=storage, study_name=search.study(self.seed), direction="maximize", load_if_exists=True,
            pruner=pruner,
        )  # fmt: skip
        if not study.get_trials(deepcopy=False):
            restore(study, search.space, self.work.home.ledger, METRIC)
        study.enqueue_trial(search.defaults(), skip_if_exists=True)
        return study

    def _run_trial(self, search: Search, study: optuna.Study) -> None:
        """Train a trial, or take it from the ledger, and give Optuna its result."""
        trial = self._next_trial(search, study)
        values = _values(trial, search)
        title = f"[trial {trial.number + 1}/{self.trials}] {search.label}: {_short(search.used(values))}"
        self.say(f"{title} -> {self._train(study, trial, search.spec(values, self.seed))}")

    def _next_trial(self, search: Search, study: optuna.Study) -> optuna.Trial:
        """The trial a killed search was at, else a new one."""
        import optuna

        trials = study.get_trials(deepcopy=False)
        for frozen in trials:
            if frozen.state == optuna.trial.TrialState.RUNNING:
                return optuna.trial.Trial(study, frozen._trial_id)
        # seeded by the trial's number: a search that was interrupted proposes what an uninterrupted one would have
        seed = stream_seed(self.seed, "tune", search.label, len(trials)) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study.ask()

    def _train(self, study: optuna.Study, trial: optuna.Trial, spec: RunSpec) -> str:
        """Carry out a trial's run; returns its result in words."""
        from optuna.trial import TrialState

        def listen(run: RunSpec, label: str) -> Listener:
            return _Pruning(trial, self.work.listener(run, label))

        try:
            record = execute(spec, replace(self.work, listener=listen))
            pruned = record.status == "pruned"
        except PrunedTrial:
            pruned = True
        except TrainingError as error:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            return f"failed: {error.what}"
        run = identify(spec, self.work)[0]
        trial.set_user_attr("run_id", run)
        reported = study.trials[trial.number].intermediate_values
        for step, value in curve_of(self.work.home.ledger, run, METRIC).items():
            if step not in reported:  # a run that was trained for another search, or before the journal was lost
                trial.report(value, step)
        if pruned:
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            return "stopped early, below the median"
        value = objective(record)
        study.tell(trial, value, skip_if_finished=True)
        return f"validation mean recall {100 * value:.1f} %"

    def _write_record(self, pairs: Sequence[tuple[Search, optuna.Study]]) -> dict[str, Any]:
        """Write the searches as a study of the ledger, so that they are mirrored like any other; returns its record."""
        finished = [t for _, study in pairs for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        ids = list(dict.fromkeys(t.user_attrs["run_id"] for t in finished if "run_id" in t.user_attrs))
        base = self.searches[0].spec(self.searches[0].defaults(), self.seed)
        study = StudySpec(
            name=self.name, command=self.command, runs=(base,), labels=tuple(s.label for s in self.searches),
            reference=None, kind="tune",
        )  # fmt: skip
        record = {**study.record(ids), "searches": [self._about(*pair) for pair in pairs]}
        self.work.home.ledger.put_study(self.name, record)
        return record

    def _about(self, search: Search, study: optuna.Study) -> dict[str, Any]:
        """A search with its finished trials: what a lost journal is rebuilt from."""
        trials = [
            {"number": t.number, "state": t.state.name, "value": t.value, "values": t.params,
             "run_id": t.user_attrs.get("run_id")}
            for t in study.get_trials(deepcopy=False) if t.state.is_finished()
        ]  # fmt: skip
        terms = terms_of(search, self.seed)
        return {"name": search.study(self.seed), "label": search.label, **terms, "trials": trials}

    def _best(self, search: Search, study: optuna.Study) -> dict[str, Any]:
        """Write the best configuration of a search; returns it with the command that trains it."""
        from optuna.trial import TrialState

        trials = study.get_trials(deepcopy=False)
        done = [t for t in trials if t.state == TrialState.COMPLETE]
        if not done:
            raise FerBenchError(
                f"no trial of '{search.label}' succeeded", hint="train one by hand to see why",
                next="fer-bench list runs",
            )  # fmt: skip
        top = max(done, key=lambda t: (t.value, -t.number))
        values = search.used({n: top.params[n] for n in search.space})
        best = {
            "label": search.label,
            **terms_of(search, self.seed),
            "values": values,
            "trial": top.number,
            "run_id": top.user_attrs.get("run_id"),
            "value": top.value,
            "default_value": next((t.value for t in done if t.number == 0), None),
            "trials": _count_finished(study),
            "pruned": sum(t.state == TrialState.PRUNED for t in trials),
            "fixed": fixed_part(search.template),
        }
        write_best(self.work, search, best)
        return {**best, "command": command_of(search, values)}


def _count_finished(study: optuna.Study) -> int:
    return sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))


def _values(trial: optuna.Trial, search: Search) -> dict[str, Any]:
    """Ask Optuna for each searched value; a trial that has them keeps them."""
    return {name: _suggest(trial, name, space) for name, space in search.space.items()}


def _suggest(trial: optuna.Trial, name: str, space: Space) -> Any:
    if isinstance(space, Choice):
        return trial.suggest_categorical(name, list(space.options))
    if isinstance(space, Int):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    assert not isinstance(space, Scale)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


class _Pruning(Listener):
    """Reports validation to Optuna after each epoch, and stops a trial that the pruner gives up."""

    def __init__(self, trial: optuna.Trial, inner: Listener):
        self.trial, self.inner = trial, inner
        self.start, self.step = inner.start, inner.step  # type: ignore[method-assign]
        self.note, self.warn = inner.note, inner.warn  # type: ignore[method-assign]

    def epoch(self, entry: Mapping[str, Any]) -> None:
        self.inner.epoch(entry)
        self.trial.report(entry[METRIC], step=entry["epoch"])
        if self.trial.should_prune():
            raise PrunedTrial(f"trial {self.trial.number} is below the median")

    def close(self) -> None:
        self.inner.close()


def objective(record: RunRecord) -> float:
    """What is maximised: validation mean-class recall at the epoch that selection chose."""
    return float(record.json("history")[record.json("selection")["epoch"]][METRIC])


def _short(values: Mapping[str, Any]) -> str:
    pairs = ((n.removeprefix("recipe."), v) for n, v in values.items())
    return ", ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in pairs)

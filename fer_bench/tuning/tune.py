"""Equal-budget search with Optuna: every method, the baselines included, gets the same number of trials.

A search belongs to one method variant on one data set, protocol, backbone and recipe. Its trials are ledger runs that
never open the test: a trial that was trained once is never trained again, and a search that is killed goes on with the
trial it was at. The default configuration is trial 0, so that tuning can't lose to it on validation.

Optuna keeps the searches in one journal file; the best configuration is written as plain JSON beside it, which is all
that ``fer-bench run --tuned`` reads.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_bench.base.files import canonical_json, read_json, write_json
from fer_bench.base.locks import locked
from fer_bench.base.names import folder_of, locate, shortened, slug
from fer_bench.contract.params import Choice, Float, Int, Param, Scale, Space
from fer_bench.errors import FerBenchError, PrunedTrial, SpecError, TrainingError, missing_library
from fer_bench.record.ledger import RunRecord
from fer_bench.rng import stream_seed
from fer_bench.runs.executor import Workplace, execute, identify
from fer_bench.runs.model_check import check_backbones
from fer_bench.runs.spec import RunSpec, Selection, StudySpec, Variant, label_of
from fer_bench.training.job import Listener
from fer_bench.training.recipe import PRESETS, Recipe
from fer_bench.tuning.journal import curve_of, in_words, open_storage, restore

if TYPE_CHECKING:
    import optuna

OBJECTIVE = "mean_recall"
FACTS = ("label", "trials", "pruned", "space", "seed", "epochs", "objective", "values", "value", "default_value")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Search:
    """One method's search: what is fixed, what is searched, and the name under which Optuna keeps it."""

    label: str
    method: str
    params: Mapping[str, Any]
    given: Mapping[str, Any]
    template: Mapping[str, Any]
    preset: str
    space: Mapping[str, Space]

    @property
    def name(self) -> str:
        """Readable and unique: the label and a hash of everything that is fixed, the training's length included."""
        key = {**_fixed(self.template), "epochs": self.template["recipe"].epochs, "space": repr(self.space)}
        return f"{_file_name(self.label)}-{_hash(key)}"

    def study(self, seed: int) -> str:
        """The name of the search with a seed, in the journal and in the ledger."""
        return f"{self.name}-seed{seed}"

    def defaults(self) -> dict[str, Any]:
        """The default configuration, in the search's own coordinates: trial 0."""
        recipe = self.template["recipe"].to_dict()
        return {n: recipe[n[7:]] if n.startswith("recipe.") else self.params[n] for n in self.space}

    def spec(self, values: Mapping[str, Any], seed: int) -> RunSpec:
        """The run of a trial; it never opens the test."""
        params = {**self.params, **{n: v for n, v in values.items() if not n.startswith("recipe.")}}
        recipe = Recipe.build(self.template["recipe"].to_dict(), recipe_part(values))
        fields = {**self.template, "method": self.method, "params": params, "recipe": recipe}
        return RunSpec(**fields, seed=seed, test=False)


def recipe_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe fields among searched values, without their prefix."""
    return {n.removeprefix("recipe."): v for n, v in values.items() if n.startswith("recipe.")}


def build_search(work: Workplace, variant: Variant, template: Mapping[str, Any], preset: str) -> Search:
    """The search of one variant: its card's space and the shared recipe space, less what the user fixed.

    Raises
    ------
    UnknownNameError, SpecError
        The method or a given parameter does not exist or does not fit.
    """
    card = work.plugins.method(variant.method).card
    params = card.resolve(variant.given)
    recipe = template["recipe"].to_dict()
    space: dict[str, Space] = {}
    for name, param in Recipe.options().items():
        if param.space is not None:
            space[f"recipe.{name}"] = _absolute(param, recipe[name])
    for name, param in card.params.items():
        if param.space is not None and name not in variant.given:
            space[name] = param.space
    return Search(
        label=label_of(card, params), method=card.name, params=params, given=dict(variant.given), template=template,
        preset=preset, space=space,
    )  # fmt: skip


def _absolute(param: Param, value: Any) -> Space:
    if isinstance(param.space, Scale):
        if not value:
            return Choice((value,))
        return Float(param.space.low * value, param.space.high * value, log=True)
    assert param.space is not None
    if isinstance(param.space, Choice) and value not in param.space.options:
        return Choice((value, *param.space.options))
    return param.space


# -- the search ------------------------------------------------------------------------------------------------------


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
    optuna = _optuna()
    with locked(work.home.tuning / "lock", "another process is tuning in this home"):
        return _tune(optuna, searches, trials, work, command, name, seed, say, after_run)


def _tune(optuna: Any, searches: Sequence[Search], trials: int, work: Workplace, command: str, name: str, seed: int,
          say: Say, after_run: Callable[[dict[str, Any]], None]) -> list[dict]:  # fmt: skip
    storage = open_storage(work.home.tuning / "journal.log", say)
    studies = [_open(optuna, storage, search, seed, work) for search in searches]

    def note() -> dict[str, Any]:
        record = _record(searches, studies, command, name, seed)
        work.home.ledger.put_study(name, record)
        return record

    if any(_finished(study) < trials for study in studies):
        check_backbones([search.spec(search.defaults(), seed) for search in searches], work)
    note()  # a search that is complete already has its study under this name as well
    for turn in range(trials):
        for search, study in zip(searches, studies, strict=True):
            if _finished(study) > turn:
                continue
            trial = _next_trial(optuna, study, search, seed)
            values = _values(trial, search)
            told = f"[trial {trial.number + 1}/{trials}] {search.label}: {_short(values)}"
            _carry_out(optuna, study, trial, search.spec(values, seed), work, told, say)
            after_run(note())
    return [_write_best(optuna, search, study, work, seed) for search, study in zip(searches, studies, strict=True)]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise missing_library("tuning needs Optuna", error, install="optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open(optuna: Any, storage: Any, search: Search, seed: int, work: Workplace) -> optuna.Study:
    """Optuna's study of a search; one that the journal does not know is filled from the ledger."""
    name = search.study(seed)
    # a median over fewer than four trials says little, and the first epochs of a warm-up say nothing
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=4, n_warmup_steps=max(1, search.template["recipe"].epochs // 4)
    )
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
    )
    if not study.get_trials(deepcopy=False):
        restore(study, search.space, work.home.ledger, f"val_{OBJECTIVE}")
    study.enqueue_trial(search.defaults(), skip_if_exists=True)
    return study


def _finished(study: optuna.Study) -> int:
    return sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))


def _next_trial(optuna: Any, study: optuna.Study, search: Search, seed: int) -> optuna.Trial:
    """The trial a killed search was at, else a new one."""
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state == optuna.trial.TrialState.RUNNING:
            return optuna.trial.Trial(study, frozen._trial_id)
    number = len(study.get_trials(deepcopy=False))
    # seeded by the trial's number: a search that was interrupted proposes what an uninterrupted one would have
    study.sampler = optuna.samplers.TPESampler(seed=stream_seed(seed, "tune", search.label, number) % 2**32)
    return study.ask()


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

    def epoch(self, entry: Mapping[str, Any]) -> None:
        self.inner.epoch(entry)
        self.trial.report(entry[f"val_{OBJECTIVE}"], step=entry["epoch"])
        if self.trial.should_prune():
            raise PrunedTrial(f"trial {self.trial.number} is below the median")

    def close(self) -> None:
        self.inner.close()


def _carry_out(optuna: Any, study: optuna.Study, trial: optuna.Trial, spec: RunSpec, work: Workplace,
               told: str, say: Say) -> None:  # fmt: skip
    """Train a trial, or take it from the ledger, and tell Optuna what came of it."""
    states = optuna.trial.TrialState

    def listen(run: RunSpec, label: str) -> Listener:
        return _Pruning(trial, work.listener(run, label))

    watched = Workplace(home=work.home, plugins=work.plugins, runtime=work.runtime, listener=listen)
    try:
        record = execute(spec, watched)
        pruned = record.status == "pruned"
    except PrunedTrial:
        pruned = True
    except TrainingError as error:
        study.tell(trial, state=states.FAIL, skip_if_finished=True)
        say(f"{told} -> failed: {error.what}")
        return
    run = identify(spec, work)[0]
    trial.set_user_attr("run_id", run)
    told_before = study.trials[trial.number].intermediate_values
    for step, value in curve_of(work.home.ledger, run, f"val_{OBJECTIVE}").items():
        if step not in told_before:  # a run that was trained for another search, or before the journal was lost
            trial.report(value, step)
    if pruned:
        study.tell(trial, state=states.PRUNED, skip_if_finished=True)
        say(f"{told} -> stopped early, below the median")
        return
    value = objective(record)
    study.tell(trial, value, skip_if_finished=True)
    say(f"{told} -> validation mean recall {100 * value:.1f} %")


def objective(record: RunRecord) -> float:
    """What is maximised: validation mean-class recall at the epoch that selection chose."""
    return float(record.json("history")[record.json("selection")["epoch"]][f"val_{OBJECTIVE}"])


def _record(
    searches: Sequence[Search], studies: Sequence[optuna.Study], command: str, name: str, seed: int
) -> dict[str, Any]:
    """The search as a ledger study, so that it is mirrored like any other."""
    trials = [t for study in studies for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    ids = list(dict.fromkeys(t.user_attrs["run_id"] for t in trials if "run_id" in t.user_attrs))
    labels = tuple(s.label for s in searches)
    base = searches[0].spec(searches[0].defaults(), seed)
    study = StudySpec(name=name, command=command, runs=(base,), labels=labels, reference=None, kind="tune")
    about = [_about(search, study, seed) for search, study in zip(searches, studies, strict=True)]
    return {**study.record(ids), "searches": about}


def _about(search: Search, study: optuna.Study, seed: int) -> dict[str, Any]:
    """A search with its finished trials: what a lost journal is rebuilt from."""
    trials = [
        {"number": t.number, "state": t.state.name, "value": t.value, "values": t.params,
         "run_id": t.user_attrs.get("run_id")}
        for t in study.get_trials(deepcopy=False) if t.state.is_finished()
    ]  # fmt: skip
    return {"name": search.study(seed), "label": search.label, **_terms(search, seed), "trials": trials}


def _terms(search: Search, seed: int) -> dict[str, Any]:
    """What a reader must know of a search."""
    space = {n: in_words(s) for n, s in search.space.items()}
    epochs = search.template["recipe"].epochs
    return {"method": search.method, "objective": f"val_{OBJECTIVE}", "seed": seed, "epochs": epochs, "space": space}


# -- the best configuration ------------------------------------------------------------------------------------------


def _write_best(optuna: Any, search: Search, study: optuna.Study, work: Workplace, seed: int) -> dict[str, Any]:
    done = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    if not done:
        raise FerBenchError(
            f"no trial of '{search.label}' succeeded", hint="train one by hand to see why", next="fer-bench list runs"
        )
    best = max(done, key=lambda t: (t.value, -t.number))
    values = {n: best.params[n] for n in search.space}
    found = {
        "label": search.label,
        **_terms(search, seed),
        "values": values,
        "trial": best.number,
        "run_id": best.user_attrs.get("run_id"),
        "value": best.value,
        "default_value": next((t.value for t in done if t.number == 0), None),
        "trials": _finished(study),
        "pruned": sum(t.state == optuna.trial.TrialState.PRUNED for t in study.get_trials(deepcopy=False)),
        "fixed": _fixed(search.template),
    }
    write_json(_best_file(work, search.label, search.template), found)
    return {**found, "command": command_of(search, values)}


def command_of(search: Search, values: Mapping[str, Any]) -> str:
    """The ``fer-bench run`` command that trains one configuration; where and on what it runs is for others to add."""
    template = search.template
    changed = {**search.given, **{n: v for n, v in values.items() if not n.startswith("recipe.")}}
    changed = {n: v for n, v in changed.items() if n in search.given or v != search.params[n]}
    method = search.method + (f"[{','.join(f'{k}={v}' for k, v in sorted(changed.items()))}]" if changed else "")
    words = ["fer-bench", "run", method, "--dataset", template["dataset"], "--protocol", template["protocol"]]
    words += ["--backbone", template["backbone"], *(["--pretrained"] if template["pretrained"] else [])]
    words += ["--imbalance", template["profile"]] if template.get("profile", "natural") != "natural" else []
    for name, value in template["dataset_params"].items():
        words += ["--dataset-set", f"{name}={value}"]
    words += ["--recipe", search.preset]
    preset = Recipe.build(PRESETS[search.preset].recipe, {"epochs": template["recipe"].epochs}).to_dict()
    recipe = {**template["recipe"].to_dict(), **recipe_part(values)}
    if recipe["epochs"] != PRESETS[search.preset].recipe.get("epochs"):
        words += ["--epochs", str(recipe["epochs"])]
    for name, value in recipe.items():
        if value != preset[name]:
            words += ["--set", f"{name}={value}"]
    selection = template.get("selection", Selection())
    if selection != Selection():
        words += ["--select", "last" if selection.rule == "last" else selection.metric]
    return shlex.join(words)


def _fixed(template: Mapping[str, Any]) -> dict[str, Any]:
    """What a tuned configuration belongs to. The training's length may differ between search and final runs."""
    recipe = {n: v for n, v in template["recipe"].to_dict().items() if n not in ("epochs", "warmup_epochs")}
    kept = ("dataset", "dataset_params", "protocol", "backbone", "pretrained")
    return {**{k: template[k] for k in kept}, "profile": template.get("profile", "natural"), "recipe": recipe}


def _hash(key: Any) -> str:
    return hashlib.sha256(canonical_json(key).encode()).hexdigest()[:8]


def _file_name(label: str) -> str:
    return shortened(slug(label), 80)


def _best_file(work: Workplace, label: str, template: Mapping[str, Any]) -> Path:
    return locate(work.home.tuning, f"{template['dataset']}-{_file_name(label)}-{_hash(_fixed(template))}", ".json")


@dataclass(frozen=True)
class Tuned:
    """Variants at their best configurations, with what belongs to each by its label.

    `recipes` are run fields that replace the study's, `facts` how each was found: trials, space, seed, metric, values.
    """

    variants: list[Variant]
    recipes: dict[str, dict[str, Any]]
    facts: dict[str, dict[str, Any]]


def tuned_variants(work: Workplace, variants: Sequence[Variant], template: Mapping[str, Any], preset: str
                   ) -> tuple[list[Variant], dict[str, dict[str, Any]]]:  # fmt: skip
    """The variants at their best configurations, and the recipes that go with them; errors as :func:`use_tuned`."""
    tuned = use_tuned(work, variants, template, preset)
    return tuned.variants, tuned.recipes


def use_tuned(work: Workplace, variants: Sequence[Variant], template: Mapping[str, Any], preset: str,
              tune_command: Callable[[str], str] | None = None) -> Tuned:  # fmt: skip
    """Find the best configuration of each variant.

    Parameters
    ----------
    work, variants, template, preset
        As the runs will be.
    tune_command : callable, optional
        The command that tunes a variant, given as it is typed; named where one has not been tuned.

    Raises
    ------
    SpecError
        A variant has not been tuned for this data set, protocol, backbone and recipe.
    """
    tuned = Tuned([], {}, {})
    for variant in variants:
        search = build_search(work, variant, template, preset)
        found = _found(work, search, tune_command)
        values = found["values"]
        params = {n: v for n, v in values.items() if not n.startswith("recipe.")}
        better = Variant(variant.method, {**variant.given, **params})
        card = work.plugins.method(variant.method).card
        label = label_of(card, card.resolve(better.given))
        recipe = Recipe.build(template["recipe"].to_dict(), recipe_part(values))
        tuned.variants.append(better)
        tuned.recipes[label] = {"recipe": recipe}
        tuned.facts[label] = {k: found[k] for k in FACTS if k in found}
    return tuned


def _found(work: Workplace, search: Search, tune_command: Callable[[str], str] | None) -> dict[str, Any]:
    """The best configuration that was found for a search's method."""
    file = _best_file(work, search.label, search.template)
    if file.exists():
        return read_json(file)
    dataset = search.template["dataset"]
    have = ", ".join(sorted(_known(work, dataset))) or "none"
    if tune_command is None:
        again = f"fer-bench tune {shlex.quote(search.label)} --dataset {shlex.quote(dataset)} --trials 20"
    else:
        again = tune_command(search.label)
    raise SpecError(
        f"'{search.label}' has not been tuned for this data set, protocol, backbone and recipe",
        where="--tuned",
        hint=f"tuned on {dataset} (perhaps with another recipe): {have}",
        next=again,
    )


def _known(work: Workplace, dataset: str) -> Iterator[str]:
    for spelling in {dataset, folder_of(dataset)}:
        for file in work.home.tuning.glob(f"{spelling}-*.json"):
            yield read_json(file)["label"]


def _short(values: Mapping[str, Any]) -> str:
    shown = ((n.removeprefix("recipe."), v) for n, v in values.items())
    return ", ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in shown)

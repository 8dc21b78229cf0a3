"""Tuning: equal budgets, default first, nothing trained twice, the test never opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fer_bench import Choice, Float, Scale
from fer_bench.base.files import read_json
from fer_bench.contract.params import parse_variant
from fer_bench.errors import LockedError, SpecError
from fer_bench.record.ledger import Ledger
from fer_bench.runs.spec import expand
from fer_bench.training.recipe import Recipe
from fer_bench.tuning.best import use_tuned
from fer_bench.tuning.journal import open_storage
from fer_bench.tuning.search import build_search, command_of, recipe_part
from fer_bench.tuning.tune import tune


@pytest.fixture
def template():
    recipe = {"epochs": 2, "batch_size": 16, "optimizer": "adamw", "lr": 4e-3, "precision": "fp32", "shift": 1.0}
    return {
        "dataset": "tiny",
        "dataset_params": {},
        "protocol": "official",
        "backbone": "resnet10_tiny",
        "pretrained": False,
        "recipe": Recipe.build(recipe, {}),
    }


def searches_of(work, template, *texts):
    return [build_search(work, parse_variant(t), template, "demo") for t in texts]


def run_search(work, searches, trials, said=None):
    told = said.append if said is not None else lambda line: None
    return tune(searches, trials, work, command="fer-bench tune ...", name="search", say=told)


def trials_of(work, search):
    import optuna

    storage = open_storage(work.home.tuning / "journal.log")
    return optuna.load_study(study_name=f"{search.name}-seed0", storage=storage).get_trials(deepcopy=False)


def test_the_space_joins_the_recipe_and_the_card_and_leaves_out_what_the_user_fixed(workplace, template):
    free, fixed = searches_of(workplace, template, "baseline_focal", "baseline_focal[gamma=1.5]")
    assert free.space["recipe.lr"] == Float(0.1 * 4e-3, 3 * 4e-3, log=True)  # around the study's own value
    assert isinstance(Recipe.options()["lr"].space, Scale)
    assert isinstance(free.space["recipe.label_smoothing"], Choice)
    assert "gamma" in free.space
    assert "gamma" not in fixed.space
    assert "weights" in fixed.space
    assert fixed.spec(fixed.defaults(), 0).params["gamma"] == 1.5
    assert recipe_part({"recipe.lr": 1.0, "gamma": 2.0}) == {"lr": 1.0}


def test_what_has_no_effect_beside_other_values_is_not_passed_on(workplace, template):
    free, fixed, own = searches_of(
        workplace, template, "rasn", "rasn[share.source=none]", "rasn[share.momentum=0.5,share.fusion=attend]"
    )
    assert {n for n in fixed.space if not n.startswith("recipe.")} == {"attn.reduction"}
    assert "share.atoms" in free.space
    drawn = {**free.defaults(), "share.source": "ema", "share.atoms": 8, "share.momentum": 0.7}
    params = free.spec(drawn, 0).params
    assert (params["share.atoms"], params["share.momentum"]) == (16, 0.7)
    assert "share.momentum=0.7,share.source=ema" in command_of(free, drawn)
    assert "share.atoms" not in command_of(free, drawn)
    recalled = {**drawn, "share.source": "dictionary"}
    assert free.used(recalled)["share.atoms"] == 8
    assert "share.momentum" not in free.used(recalled)
    assert own.spec({**own.defaults(), "share.source": "dictionary"}, 0).params["share.momentum"] == 0.9
    assert "rasn[share.fusion=attend,share.source=dictionary]" in command_of(
        own, {**own.defaults(), "share.source": "dictionary"}
    )


def test_every_method_gets_the_same_trials_and_trial_zero_is_the_default(workplace, template):
    searches = searches_of(workplace, template, "baseline_resnet", "baseline_focal")
    best = run_search(workplace, searches, 3)
    for search, found in zip(searches, best, strict=True):
        trials = trials_of(workplace, search)
        assert [t.state.is_finished() for t in trials] == [True] * 3
        default = workplace.home.ledger.run(trials[0].user_attrs["run_id"])
        assert Recipe.build({}, default.spec["recipe"]) == template["recipe"]
        assert found["value"] == max(t.value for t in trials if t.value is not None)
        assert found["value"] >= found["default_value"]


def test_trials_are_ledger_runs_that_never_open_the_test(workplace, template):
    run_search(workplace, searches_of(workplace, template, "baseline_resnet"), 2)
    study = workplace.home.ledger.study("search")
    assert study["kind"] == "tune"
    assert len(study["runs"]) == 2
    for key in study["runs"]:
        record = workplace.home.ledger.run(key)
        assert record.json("seal")["count"] == 0
        assert not list(record.path.glob("test_*"))


def test_a_second_call_trains_nothing_and_a_larger_budget_adds_only_the_difference(workplace, template):
    searches = searches_of(workplace, template, "baseline_resnet")
    run_search(workplace, searches, 2)
    before = {r.id: (r.path / "done.json").stat().st_mtime_ns for r in workplace.home.ledger.runs()}
    said: list[str] = []
    run_search(workplace, searches, 2, said)
    assert said == []
    tune(searches, 2, workplace, command="fer-bench tune ...", name="another", say=said.append)
    assert said == []
    assert workplace.home.ledger.study("another")["runs"] == workplace.home.ledger.study("search")["runs"]
    run_search(workplace, searches, 3, said)
    assert len(said) == 1
    after = {r.id: (r.path / "done.json").stat().st_mtime_ns for r in workplace.home.ledger.runs()}
    assert {k: after[k] for k in before} == before
    assert len(after) == 3


def test_a_configuration_that_does_worse_than_the_median_is_stopped_early(workplace, template):
    # Ten epochs leave room between the pruner's warm-up (a quarter of them) and the end.
    long = {**template, "recipe": Recipe.build(template["recipe"].to_dict(), {"epochs": 8})}
    (search,) = searches_of(workplace, long, "baseline_resnet")
    run_search(workplace, [search], 10)
    trials = trials_of(workplace, search)
    pruned = [t for t in trials if t.state.name == "PRUNED"]
    assert pruned, [(t.state.name, t.value) for t in trials]
    record = workplace.home.ledger.run(pruned[0].user_attrs["run_id"])
    assert record.status == "pruned"
    assert 2 < len(record.json("history")) < 8
    assert not (record.path / "work").exists()


def test_a_configuration_that_diverges_counts_as_a_trial_and_stops_nothing(workplace, template):
    wild = {**template, "recipe": Recipe.build(template["recipe"].to_dict(), {"clip_norm": 0.0, "optimizer": "sgd"})}
    (search,) = searches_of(workplace, wild, "baseline_resnet")
    object.__setattr__(search, "space", {"recipe.lr": Choice((4e-3, 9.0))})
    found = run_search(workplace, [search], 4)
    assert sum(t.state.is_finished() for t in trials_of(workplace, search)) == 4
    assert found[0]["value"] > 0


def test_two_searches_in_one_home_do_not_run_at_once(workplace, template):
    import fcntl

    workplace.home.tuning.mkdir(parents=True)
    with open(workplace.home.tuning / "lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another process is tuning"):
            run_search(workplace, searches_of(workplace, template, "baseline_resnet"), 1)


def test_tuned_runs_use_what_was_found_also_when_they_are_longer(workplace, template):
    (search,) = searches_of(workplace, template, "baseline_focal")
    (found,) = run_search(workplace, [search], 3)
    longer = {**template, "recipe": Recipe.build(template["recipe"].to_dict(), {"epochs": 5})}
    tuned = use_tuned(workplace, [parse_variant("baseline_focal")], longer, "demo")
    runs, labels = expand(workplace.plugins, tuned.variants, [0], longer, per_label=tuned.recipes)
    assert runs[0].recipe.epochs == 5
    assert runs[0].recipe.lr == found["values"]["recipe.lr"]
    assert runs[0].params["gamma"] == found["values"]["gamma"]
    assert runs[0].test
    assert list(tuned.recipes) == list(labels)


def test_a_method_that_was_not_tuned_here_is_told_with_the_command_to_type(workplace, template):
    with pytest.raises(SpecError, match="has not been tuned") as caught:
        use_tuned(workplace, [parse_variant("rasn")], template, "demo")
    assert caught.value.next == "fer-bench tune rasn --dataset tiny --trials 20"


def test_the_command_it_ends_with_describes_the_very_run(workplace, template):
    from click.testing import CliRunner

    from fer_bench.cli.options import template_of
    from fer_bench.cli.run import run as run_command

    (search,) = searches_of(workplace, template, "baseline_focal")
    values = {**search.defaults(), "recipe.lr": 0.00123, "gamma": 3.25}
    words = __import__("shlex").split(command_of(search, values))
    assert words[:2] == ["fer-bench", "run"]
    parsed = run_command.make_context("run", words[2:])
    again, _ = template_of(parsed.params, workplace.plugins)
    variant = parse_variant(parsed.params["methods"][0])
    runs, _ = expand(workplace.plugins, [variant], [0], again)
    wanted = search.spec(values, 0)
    assert runs[0].recipe == wanted.recipe
    assert runs[0].params == wanted.params
    assert runs[0].backbone == wanted.backbone
    assert CliRunner().invoke(run_command, ["--help"]).exit_code == 0


# -- killed and started again ----------------------------------------------------------------------------------------

TUNE = ["tune", "baseline_resnet", "baseline_focal", "--dataset", "synthetic"]
TUNE += ["--dataset-set", "size=300", "--dataset-set", "least_test=0", "--dataset-set", "image_size=24"]
TUNE += ["--recipe", "demo", "--epochs", "2", "--precision", "fp32", "--trials", "5", "--no-track", "--threads", "1"]


def cli(home: Path, *words: str) -> subprocess.Popen:
    entry = "import sys; from fer_bench.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", entry, *words, "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(home: Path) -> dict[str, int]:
    done = [r.path / "done.json" for r in Ledger(home / "ledger").runs()]
    return {p.parent.name: p.stat().st_mtime_ns for p in done if p.exists()}


def test_a_search_killed_half_way_ends_with_its_trials_and_none_trained_twice(tmp_path: Path):
    first = cli(tmp_path, *TUNE)
    deadline = time.monotonic() + 240
    while len(finished(tmp_path)) < 4 and time.monotonic() < deadline:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = finished(tmp_path)
    assert 4 <= len(before) < 10

    second = cli(tmp_path, *TUNE)
    told, _ = second.communicate(timeout=300)
    assert second.returncode == 0, told
    after = finished(tmp_path)
    assert {k: after[k] for k in before} == before, "a finished trial was trained again"
    assert len(after) == 10, told
    assert all(not (r.path / "work").exists() for r in Ledger(tmp_path / "ledger").runs())

    import optuna

    storage = open_storage(tmp_path / "tuning" / "journal.log")
    summaries = optuna.get_all_study_summaries(storage)
    assert [s.n_trials for s in summaries] == [5, 5]
    best = {f["label"]: f for f in map(read_json, (tmp_path / "tuning").glob("synthetic-*.json"))}
    assert {n: f["trials"] for n, f in best.items()} == {"baseline_resnet": 5, "baseline_focal": 5}

    words = ["run", "baseline_resnet", "baseline_focal", *TUNE[3:-5], "--no-track", "--threads", "1"]
    tuned = cli(tmp_path, *words, "--seeds", "1", "--tuned", "--name", "tuned")
    told, _ = tuned.communicate(timeout=300)
    assert tuned.returncode == 0, told
    ledger = Ledger(tmp_path / "ledger")
    *trained, read_out = ledger.study("tuned")["runs"]
    assert ledger.run(read_out).json("derived")["run_id"] == trained[0], "the tuned reference's own network"
    for key, name in zip(trained, ("baseline_resnet", "baseline_focal"), strict=True):
        values = best[name]["values"]
        assert ledger.run(key).spec["recipe"]["lr"] == values["recipe.lr"]
        assert ledger.run(key).json("seal")["count"] == 1


def test_warnings_of_a_trial_reach_the_listener_that_shows_them():
    from fer_bench.training.job import Listener
    from fer_bench.tuning.tune import _Pruning

    texts: list[str] = []

    class Shows(Listener):
        def warn(self, text):
            texts.append(text)

    _Pruning(None, Shows()).warn("checkpoint.pt is damaged")
    assert texts == ["checkpoint.pt is damaged"]

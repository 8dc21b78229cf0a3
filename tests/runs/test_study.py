"""Studies: every run on its own, none lost, none twice, nothing carried from one to the next."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fer_bench.contract.plugins import plugins
from fer_bench.errors import SpecError, TrainingError, UnknownNameError
from fer_bench.record.ledger import UNHASHED
from fer_bench.runs.executor import Workplace, execute, identify
from fer_bench.runs.spec import StudySpec
from fer_bench.runs.study import run_study
from tests.conftest import processes

HOARDER = '''
"""Keeps every image that it is asked to predict, and looks for them in the next training."""
from fer_bench import FerBenchError, Method, MethodCard

card = MethodCard(name="hoarder", title="keeps what it sees")
SEEN = []


class Hoarder(Method):
    card = card

    def on_fit_start(self, model, view):
        if SEEN:
            raise FerBenchError(f"{len(SEEN)} batches of an earlier run are still here")

    def predict(self, model, x):
        SEEN.append(x.clone())
        return model(x)
'''

BROKEN = '''
"""Gives up."""
from fer_bench import FerBenchError, Method, MethodCard

card = MethodCard(name="broken", title="gives up")


class Broken(Method):
    card = card

    def on_epoch_start(self, epoch, model):
        raise FerBenchError("this method gives up", hint="it always does")
'''


FRAGILE = '''
"""Dies once, in its second epoch, as a process does that the system kills."""
import os
from fer_bench import Method, MethodCard

card = MethodCard(name="fragile", title="dies once")


class Fragile(Method):
    card = card

    def on_epoch_start(self, epoch, model):
        if epoch == 1 and not os.path.exists(MARK):
            open(MARK, "w").close()
            os.kill(os.getpid(), 9)
'''


@pytest.fixture
def with_methods(workplace: Workplace, plugin_folder: Path, tmp_path: Path) -> Workplace:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "hoarder.py").write_text(HOARDER)
    (folder / "broken.py").write_text(BROKEN)
    found = plugins([plugin_folder, folder])
    return Workplace(home=workplace.home, plugins=found, runtime=workplace.runtime)


def study_of(*runs) -> StudySpec:
    labels = tuple(dict.fromkeys(r.method for r in runs))
    return StudySpec(name="s", command="fer-bench run", runs=runs, labels=labels, reference=labels[0])


def quiet(line: str) -> None:
    """Swallow what the study says."""


def test_what_a_method_kept_of_one_runs_test_is_out_of_reach_of_the_next(with_methods: Workplace, tiny_run):
    runs = [tiny_run("hoarder", seed=s, recipe={"epochs": 1}) for s in (0, 1, 2)]
    outcome = run_study(study_of(*runs), with_methods, say=quiet)
    assert outcome.failed == {}
    assert [r.status for r in outcome.finished] == ["finished"] * 3


def test_in_one_process_it_would_be_within_reach(with_methods: Workplace, tiny_run, in_process):
    runs = [tiny_run("hoarder", seed=s, recipe={"epochs": 1}) for s in (3, 4)]
    outcome = run_study(study_of(*runs), with_methods, say=quiet)
    assert "of an earlier run are still here" in outcome.failed[identify(runs[1], with_methods)[0]]


def test_a_run_in_processes_of_its_own_gives_the_record_of_one_process(with_methods, tiny_run, request, tmp_path: Path):
    spec = tiny_run(recipe={"epochs": 1})
    apart = execute(spec, with_methods)
    kept = {p.name: p.read_bytes() for p in apart.path.iterdir() if p.name not in UNHASHED}
    shutil.rmtree(apart.path)
    request.getfixturevalue("in_process")
    here = execute(spec, with_methods)
    assert {"test_logits.npy", "model.pt", "history.json"} < set(kept)
    assert {n: (here.path / n).read_bytes() for n in kept} == kept


def test_a_failed_run_does_not_stop_the_others_and_says_why_also_from_another_process(with_methods, tiny_run):
    runs = [tiny_run("baseline_resnet", recipe={"epochs": 1}), tiny_run("broken"), tiny_run("broken", seed=1)]
    said: list[str] = []
    outcome = run_study(study_of(*runs), with_methods, say=said.append)
    assert len(outcome.finished) == 1
    assert len(outcome.failed) == 2
    for message in outcome.failed.values():
        assert "this method gives up" in message
        assert "it always does" in message
    key = identify(runs[1], with_methods)[0]
    assert with_methods.home.ledger.run(key).status == "failed"
    assert sum("failed" in line for line in said) == 2


def test_finished_runs_are_reused(with_methods: Workplace, tiny_run):
    study = study_of(tiny_run(recipe={"epochs": 1}))
    run_study(study, with_methods, say=quiet)
    said: list[str] = []
    outcome = run_study(study, with_methods, say=said.append)
    assert outcome.reused == 1
    assert "finished before" in said[0]


def test_a_run_that_another_process_trains_is_put_off_and_then_taken_as_finished(with_methods, tiny_run, monkeypatch):
    monkeypatch.setattr("fer_bench.runs.study.WAIT", 0.05)
    runs = [tiny_run(seed=0, recipe={"epochs": 1}), tiny_run(seed=1, recipe={"epochs": 1})]
    writer = with_methods.home.ledger.writer(identify(runs[0], with_methods)[0])
    writer.path.mkdir(parents=True)
    held = open(writer.path / "lock", "a")  # noqa: SIM115 - held across the study, as another process would
    fcntl.flock(held, fcntl.LOCK_EX)
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if "waiting for another process" in line:
            held.close()  # the other process is done, without a record: this one takes the run

    outcome = run_study(study_of(*runs), with_methods, say=hear)
    assert [r.id for r in outcome.finished] == [identify(r, with_methods)[0] for r in reversed(runs)]
    assert any("waiting for another process" in line for line in said)


def test_a_study_whose_method_does_not_exist_is_refused_before_anything_is_trained(with_methods, tiny_run):
    with pytest.raises(UnknownNameError, match="baseline_resnt"):
        run_study(study_of(tiny_run(), tiny_run("baseline_resnt")), with_methods, say=quiet)
    assert with_methods.home.ledger.runs() == []


# -- a name and its runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def one_epoch(tiny_run):
    """Runs of one epoch by their seeds."""
    return lambda *seeds, **fields: [tiny_run(seed=s, recipe={"epochs": 1}, **fields) for s in seeds]


def test_a_study_grows_under_its_name(workplace: Workplace, one_epoch):
    ledger = workplace.home.ledger
    run_study(study_of(*one_epoch(0)), workplace, say=quiet)
    more = run_study(study_of(*one_epoch(0, 1)), workplace, say=quiet)
    assert (more.reused, len(more.finished)) == (1, 2)
    wider = study_of(*one_epoch(0, 1), *one_epoch(0, method="baseline_focal", params={"gamma": 2.0, "weights": "none"}))
    assert len(run_study(wider, workplace, say=quiet).finished) == 3
    assert ledger.study("s")["methods"] == ["baseline_resnet", "baseline_focal"]


def test_a_name_is_not_taken_from_runs_that_are_finished(workplace: Workplace, one_epoch):
    ledger = workplace.home.ledger
    run_study(study_of(*one_epoch(0, 1)), workplace, say=quiet)
    before = ledger.study("s")
    for others in (one_epoch(0), one_epoch(2), one_epoch(0, 1, protocol="three")):
        with pytest.raises(SpecError, match="there is a study 's' already") as caught:
            run_study(study_of(*others), workplace, say=quiet)
    assert "baseline_resnet with seed 0, baseline_resnet with seed 1" in caught.value.where
    assert "--replace" in caught.value.hint
    assert caught.value.next == "the same command with --name s-2"
    assert ledger.study("s") == before
    assert len(ledger.runs()) == 2, "nothing was trained"
    run_study(study_of(*one_epoch(0)), workplace, say=quiet, replace=True)
    assert len(ledger.study("s")["runs"]) == 1
    assert [r.status for r in ledger.runs()] == ["finished"] * 2, "what was replaced is kept"


def test_the_name_of_a_search_is_not_taken_by_a_study(workplace: Workplace, one_epoch):
    workplace.home.ledger.put_study("s", {"name": "s", "runs": [], "kind": "tune"})
    with pytest.raises(SpecError, match="there is a study 's' already"):
        run_study(study_of(*one_epoch(0)), workplace, say=quiet)


def test_runs_that_never_finished_keep_no_name(workplace: Workplace, with_methods, tiny_run, one_epoch):
    assert run_study(study_of(tiny_run("broken")), with_methods, say=quiet).finished == []
    assert len(run_study(study_of(*one_epoch(0)), with_methods, say=quiet).finished) == 1


def test_the_same_runs_on_changed_code_stay_under_their_name(workplace: Workplace, with_plugins, tiny_run):
    source = BROKEN.replace("broken", "mine").replace(
        'raise FerBenchError("this method gives up", hint="it always does")', "{}"
    )
    study = study_of(tiny_run("mine", recipe={"epochs": 1}))
    first = run_study(study, with_plugins(mine=source.format("pass")), say=quiet)
    second = run_study(study, with_plugins(mine=source.format("self.more = 1")), say=quiet)
    assert second.reused == 0
    assert first.finished[0].id != second.finished[0].id
    assert workplace.home.ledger.study("s")["runs"] == [second.finished[0].id]


def test_a_damaged_record_of_a_study_is_written_anew(workplace: Workplace, one_epoch):
    run_study(study_of(*one_epoch(0)), workplace, say=quiet)
    (workplace.home.ledger.root / "studies" / "s.json").write_text("{")
    assert run_study(study_of(*one_epoch(0)), workplace, say=quiet).reused == 1
    assert len(workplace.home.ledger.study("s")["runs"]) == 1


# -- what a kill leaves ------------------------------------------------------------------------------------------------


SCRIPT = """
import sys
from pathlib import Path
from fer_bench.runs.executor import Workplace
from fer_bench.training.job import Runtime
from fer_bench.record.home import Home
from fer_bench.contract.plugins import plugins
from fer_bench.training.recipe import Recipe
from fer_bench.runs.spec import RunSpec, StudySpec
from fer_bench.runs.study import run_study

home, folder = map(Path, sys.argv[1:])
base = {"batch_size": 16, "optimizer": "adamw", "lr": 4e-3, "precision": "fp32"}
runs = tuple(
    RunSpec(method="baseline_resnet", dataset="tiny", protocol="official", backbone="resnet10_tiny", seed=seed,
            recipe=Recipe.build(base, {"epochs": epochs}))
    for seed, epochs in ((0, 1), (1, 2000))
)
study = StudySpec(name="s", command="", runs=runs, labels=("baseline_resnet",), reference=None)
work = Workplace(home=Home(home), plugins=plugins([folder]), runtime=Runtime(device="cpu", threads=1))
run_study(study, work, say=lambda line: print(line, flush=True))
"""


def children(pid: int) -> list[int]:
    return [child for child, parent, _, _ in processes() if parent == pid]


def gone(pid: int) -> bool:
    return all(state.startswith("Z") for process, _, state, _ in processes() if process == pid)


def wait_until(condition, seconds: float = 180.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_killed_study_leaves_no_training_behind(workplace: Workplace, plugin_folder: Path, tmp_path: Path):
    command = [sys.executable, "-c", SCRIPT, str(workplace.home.root), str(plugin_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as study:
        try:
            assert study.stdout is not None
            assert any("[2/2]" in line for line in study.stdout), "the second run starts"
            (server,) = children(study.pid)
            folder = workplace.home.root / "ledger"
            assert wait_until(lambda: len(list(folder.glob("*/work/snapshot_0001.pt"))) == 1), "it trains"
            (trainer,) = children(server)
        finally:
            study.kill()
    for process in (server, trainer):
        assert wait_until(lambda pid=process: gone(pid)), process


def test_a_killed_training_fails_its_run_and_the_next_try_resumes(with_methods: Workplace, tiny_run, tmp_path: Path):
    mine = tmp_path / "mine/fragile.py"
    mine.write_text(FRAGILE.replace("MARK", repr(str(tmp_path / "mark"))))
    work = replace(with_methods, plugins=plugins(with_methods.plugins.folders))
    spec = tiny_run("fragile", recipe={"epochs": 3})
    with pytest.raises(TrainingError, match=r"was to train 'fragile' ended by SIGKILL\n  hint: .* out of memory"):
        execute(spec, work)
    record = execute(spec, work)
    assert record.json("timing")["resumed"] == 1
    assert len(record.json("history")) == 3


def test_rows_are_divided_once_for_all_runs_of_a_fold(workplace, tiny_run, in_process, monkeypatch):
    from fer_bench.data import fold_rows

    divided = []
    divide = fold_rows.divide
    monkeypatch.setattr(fold_rows, "divide", lambda *a: divided.append(a) or divide(*a))
    monkeypatch.setattr(fold_rows, "_KNOWN", {})
    runs = tuple(tiny_run(seed=seed, recipe={"epochs": 1}) for seed in (0, 1))
    study = StudySpec(name="s", command="", runs=runs, labels=("baseline_resnet",), reference=None)

    outcome = run_study(study, workplace, say=lambda line: None)

    assert len(outcome.finished) == 2
    assert len(divided) == 1

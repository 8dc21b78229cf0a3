"""Several runs at once: the same records as one after the other, none lost, none twice, and no process left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fer_bench.errors import OutOfMemoryError, TrainingError
from fer_bench.launch.jobs import Jobs
from fer_bench.runs import pool
from fer_bench.runs.executor import Workplace, identify
from fer_bench.runs.forkserver import ForkServer
from fer_bench.runs.spec import StudySpec
from fer_bench.runs.study import run_study
from fer_bench.training.job import Listener
from tests.conftest import processes
from tests.runs.conftest import assert_equal_records, record_of

METHOD = """
from pathlib import Path
import os, time
import torch
from fer_bench import FerBenchError, Method, MethodCard

card = MethodCard(name="NAME", title="of a test")
FOLDER = Path(__file__).parent


class Own(Method):
    card = card

    def on_fit_start(self, model, view):
        with open(FOLDER / "trainings", "a") as file:
            file.write(f"NAME {self.ctx.seed}\\n")
"""
BROKEN = METHOD.replace("NAME", "broken") + '        raise FerBenchError("this method gives up")\n'
MEMORY = METHOD.replace("NAME", "memory") + (
    '        if not (FOLDER / "memory.mark").exists():\n'
    '            (FOLDER / "memory.mark").touch()\n'
    '            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")\n'
)
KILLED = METHOD.replace("NAME", "killed") + (
    '        if not (FOLDER / "killed.mark").exists():\n'
    '            (FOLDER / "killed.mark").touch()\n'
    "            os.kill(os.getpid(), 9)\n"
)
ENDLESS = METHOD.replace("NAME", "endless") + (
    '        while (FOLDER / "endless.mark").exists():\n'
    "            time.sleep(0.05)\n"
)  # fmt: skip
READ_OUT = """
from fer_bench import Method, MethodCard

card = MethodCard(name="OUT", title="of a test", readout_of="baseline_resnet")


class Out(Method):
    card = card

    def adjust(self, logits, features):
        return logits
"""
SOURCES = {
    "plain": METHOD.replace("NAME", "plain"),
    "broken": BROKEN,
    "memory": MEMORY,
    "killed": KILLED,
    "endless": ENDLESS,
    "out_one": READ_OUT.replace("OUT", "out_one"),
    "out_two": READ_OUT.replace("OUT", "out_two"),
}


@pytest.fixture
def work(with_plugins) -> Workplace:
    """A workplace with the methods of this file, whose trainings are listed in a file."""
    made = with_plugins(**SOURCES)
    return replace(made, runtime=replace(made.runtime, deterministic=True, threads=1))


@pytest.fixture
def one(tiny_run):
    """``one(method, seed)``: a run of one epoch."""
    return lambda method, seed=0, **fields: tiny_run(method, seed=seed, recipe={"epochs": 1}, **fields)


def study_of(*runs) -> StudySpec:
    labels = tuple(dict.fromkeys(r.method for r in runs))
    return StudySpec(name="s", command="fer-bench run", runs=runs, labels=labels, reference=labels[0])


def trainings(work: Workplace) -> list[str]:
    """Method and seed of every training that was begun."""
    return (work.plugins.method("plain").path.parent / "trainings").read_text().splitlines()


def mark(work: Workplace, name: str) -> Path:
    return work.plugins.method("plain").path.parent / f"{name}.mark"


def left_of(pids: set[int]) -> set[int]:
    """Those of some processes that have not ended."""
    return {pid for pid, _, state, _ in processes() if pid in pids and not state.startswith("Z")}


def family(pid: int) -> set[int]:
    """A process and all that it started."""
    parents = {child: parent for child, parent, _, _ in processes()}
    return {p for p in parents if p == pid or parents.get(p) == pid or parents.get(parents.get(p, 0)) == pid}


def wait_until(condition: Callable[[], bool], seconds: float = 180.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Watch(Listener):
    """Notes which thread tells it something."""

    def __init__(self, threads: set[int]):
        self.threads = threads

    def epoch(self, entry) -> None:
        self.threads.add(threading.get_ident())


def test_two_at_once_leave_the_records_of_one_after_the_other(work: Workplace, copy_of, one, monkeypatch):
    """One study for all that can be asked of runs that end well, or fail: trainings, read-outs, and a failure."""
    net = "baseline_resnet"
    runs = (one(net), one("out_one"), one("broken"), one("out_two"), one(net, 1), one("out_one", 1))
    study, calm, busy = study_of(*runs), copy_of("calm", work), copy_of("busy", work)
    run_study(study, calm, say=lambda line: None)
    trained, call = [], ForkServer.call

    def counted(server, role, order, *rest):
        trained.extend([f"{order['spec']['method']} {order['spec']['seed']}"] if role == "train" else [])
        return call(server, role, order, *rest)

    monkeypatch.setattr(ForkServer, "call", counted)
    heard: set[int] = set()
    mirrored: list[tuple[int, str]] = []
    said: list[str] = []

    outcome = run_study(
        study, replace(busy, listener=lambda spec, label: Watch(heard)), say=said.append, pool=Jobs(2),
        after_run=lambda record: mirrored.append((threading.get_ident(), record["name"])),
    )  # fmt: skip

    for run in runs:
        if run.method != "broken":
            assert_equal_records(record_of(run, calm), record_of(run, busy))
    assert sorted(trained) == [f"{net} 0", f"{net} 1", "broken 0"], "each network is trained once"
    begun = [line.partition(":")[0] for line in said if ": run " in line]
    assert sorted(begun[:2]) == [f"[1/6] {net}, seed 0", "[3/6] broken, seed 0"], "what waits lets the next one pass"
    ends = [line for line in said if ": epoch 1 chosen" in line or "read out of the logits" in line]
    assert sorted(line[:5] for line in ends) == ["[1/6]", "[2/6]", "[4/6]", "[5/6]", "[6/6]"], "ends name their runs"
    assert next(line for line in said if "this method gives up" in line).startswith("[3/6] broken, seed 0 failed: ")
    assert len(outcome.finished) == 5
    assert list(outcome.failed) == [identify(runs[2], busy)[0]]
    assert heard == {threading.get_ident()}, "listeners are called from this thread"
    assert mirrored == [(threading.get_ident(), "s")] * 5
    assert record_of(runs[2], busy).status == "failed"

    again = run_study(study, busy, say=lambda line: None, pool=Jobs(2))
    assert again.reused == 5


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("memory", "the device ran out of memory with batches of 16"),
        ("killed", "the process that was to train 'killed' ended by SIGKILL"),
    ],
)
def test_a_run_that_lacked_memory_beside_another_is_tried_again_alone(work: Workplace, one, method, message):
    mark(work, "endless").touch()
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if "it is tried again, alone" in line:
            mark(work, "endless").unlink()  # the other may end

    outcome = run_study(study_of(one("endless"), one(method), one("plain")), work, say=hear, pool=Jobs(2))

    assert outcome.failed == {}
    assert f"[2/3] {method}, seed 0: {message}; it is tried again, alone, when the other runs have ended" in said
    assert sorted(trainings(work)) == sorted(["endless 0", f"{method} 0", "plain 0", f"{method} 0"])
    assert trainings(work)[-1] == f"{method} 0", "when the others have ended"
    assert not record_of(one(method), work).has("failed.json")


def test_a_run_that_lacked_memory_by_itself_fails(work: Workplace, one):
    outcome = run_study(study_of(one("memory"), one("plain")), work, say=lambda line: None, pool=Jobs(1))
    assert len(outcome.failed) == len(outcome.finished) == 1


def test_each_run_gets_its_share_of_threads_and_memory_and_a_device(work: Workplace, one, monkeypatch):
    given = []

    def refuse(spec, work, started):
        given.append((work.runtime.threads, work.runtime.device, work.runtime.beside, work.runtime.memory))
        time.sleep(0.2)
        raise TrainingError("not here")

    monkeypatch.setattr(pool, "execute", refuse)
    jobs = Jobs(3, threads=3, devices=("cuda:0", "cuda:1"), memory=700)
    outcome = run_study(study_of(one("plain"), one("plain", 1)), work, say=lambda line: None, pool=jobs)
    assert len(outcome.failed) == 2
    assert sorted(given) == [(3, "cuda:0", 2, 700), (3, "cuda:1", 2, 700)]


def test_a_run_that_is_tried_again_alone_may_take_all_memory(work: Workplace, one, monkeypatch):
    given, both = [], threading.Barrier(2)

    def lack(spec, work, started):
        given.append((spec.seed, work.runtime.beside, work.runtime.memory))
        if len(given) <= 2:
            both.wait(60)
        if spec.seed == 1:
            raise OutOfMemoryError("too much")
        raise TrainingError("not here")

    monkeypatch.setattr(pool, "execute", lack)
    jobs = Jobs(2, memory=700)
    outcome = run_study(study_of(one("plain"), one("plain", 1)), work, say=lambda line: None, pool=jobs)
    assert len(outcome.failed) == 2
    assert sorted(given[:2]) == [(0, 2, 700), (1, 2, 700)]
    assert given[2:] == [(1, 1, 0)], "once"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["KILL", "INT", "TERM"])
def test_a_driver_that_is_ended_leaves_no_process_and_its_runs_can_be_resumed(work: Workplace, one, driver, sign):
    mark(work, "endless").touch()
    runs = (one("plain"), one("endless"), one("endless", 1), one("plain", 1))
    pid, lines = driver(lambda say: run_study(study_of(*runs), work, say=say, pool=Jobs(2)))
    assert wait_until(lambda: trainings_so_far(work) == {"plain 0", "endless 0", "endless 1"})
    everybody = family(pid)
    assert len(everybody) == 4, "driver, server, and two that train"

    os.kill(pid, sign)

    said = lines.read()
    assert wait_until(lambda: not left_of(everybody))
    assert ("KeyboardInterrupt" in said) == (sign == signal.SIGINT)
    assert [record_of(run, work).status for run in runs] == ["finished", *["unfinished"] * 3]
    if sign == signal.SIGKILL:
        mark(work, "endless").unlink()
        outcome = run_study(study_of(*runs), work, say=lambda line: None, pool=Jobs(2))
        assert (outcome.reused, len(outcome.finished)) == (1, 4)
        assert sorted(trainings(work)) == sorted(["plain 0", "plain 1", *["endless 0", "endless 1"] * 2])


def trainings_so_far(work: Workplace) -> set[str]:
    return set(trainings(work)) if mark(work, "x").with_name("trainings").exists() else set()


def test_two_processes_share_a_study_and_the_one_that_ends_last_knows_it(work: Workplace, one, driver):
    mark(work, "endless").touch()
    runs = (one("endless"), one("plain"), one("plain", 1))
    _, lines = driver(lambda say: say(str(run_study(study_of(*runs), work, say=say, pool=Jobs(2)).left)))
    assert wait_until(lambda: "endless 0" in trainings_so_far(work))

    outcome = run_study(study_of(*runs), work, say=lambda line: None, pool=Jobs(2), wait=False)

    assert outcome.left >= 1
    mark(work, "endless").unlink()
    assert lines.read().splitlines()[-2:] == ["0", "done"]
    assert sorted(trainings(work)) == ["endless 0", "plain 0", "plain 1"]


def test_a_run_that_fails_in_another_process_meanwhile_is_not_tried_again_here(work: Workplace, one):
    study = study_of(one("plain"), one("plain", 1))
    elsewhere = work.home.ledger.writer(identify(study.runs[1], work)[0])

    def hear(line: str) -> None:
        if line.startswith("[1/2] plain, seed 0: run"):
            elsewhere.path.mkdir(parents=True)
            elsewhere.fail(TrainingError("it broke there"))

    outcome = run_study(study, work, say=hear)

    assert outcome.failed == {elsewhere.id: "in another process: it broke there"}
    assert trainings(work) == ["plain 0"]
    assert run_study(study, work, say=lambda line: None).failed == {}, "the next command tries again"


def test_a_fault_of_the_harness_in_one_run_is_raised_when_the_others_have_ended(work: Workplace, one, monkeypatch):
    def execute(spec, work, started):
        if spec.seed == 0:
            raise ZeroDivisionError("our own")
        return real(spec, work, started=started)

    real = pool.execute
    monkeypatch.setattr(pool, "execute", execute)
    with pytest.raises(ZeroDivisionError):
        run_study(study_of(one("plain"), one("plain", 1)), work, say=lambda line: None, pool=Jobs(2))
    assert [record_of(one("plain", seed), work).status for seed in (0, 1)] == ["unfinished", "finished"]

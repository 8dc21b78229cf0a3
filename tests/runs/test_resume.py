"""Killing and resuming: a run that dies at any instant ends in bitwise the same record as one that was left alone.

The runs die for real: a process imports torch once, then forks a driver for every attempt, which is killed from outside
at a random moment, or at a chosen one (the moments that chance seldom meets), whichever of its processes is at work.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_bench.errors import FerBenchError, LockedError, TrainingError
from fer_bench.record.ledger import UNHASHED
from fer_bench.runs import worker
from fer_bench.runs.executor import execute, identify
from fer_bench.training.checkpoint import load_plain
from fer_bench.training.job import Listener

TWO_STAGE = '''
"""Everything a resume could forget: a resampled fold, a frozen trunk, a new head, state, draws from every source."""
import random
import numpy as np
import torch
from fer_bench import Method, MethodCard, Resampled, Stage

card = MethodCard(name="two_stage", title="two stages and a memory")


class TwoStage(Method):
    card = card

    def stages(self):
        return [Stage(name="few", kind="resample"), Stage(name="features", epochs=3),
                Stage(name="head", epochs=3, freeze=("trunk",), reinit=("head",), lr_scale=0.5)]

    def resample(self, stage, view):
        return Resampled(index=torch.randperm(len(view)).numpy()[:80])

    def on_fit_start(self, model, view):
        self.centre, self.steps = torch.zeros(4, 128), 0

    def on_stage_start(self, stage, model, view):
        self.noise = torch.randn(4, 128)

    def on_batch(self, batch):
        drawn = torch.randn(1, generator=batch.generator) + torch.randn(1) + random.random() + np.random.rand()
        return batch.with_(views=[v + 0.05 * drawn for v in batch.views])

    def criterion(self, output, target):
        pull = (output.features - (self.centre + 0.01 * self.noise)[target]).square().mean()
        return super().criterion(output, target) + 0.1 * pull

    def on_step_end(self, model, batch, loss):
        self.steps += 1
        for c in batch.y.unique():
            mean = loss.output.features[batch.y == c].detach().mean(0)
            self.centre[c] += (mean - self.centre[c]) / (1 + self.steps)

    def state_dict(self):
        return {"centre": self.centre, "steps": self.steps}

    def load_state_dict(self, state):
        self.centre, self.steps = state["centre"].clone(), state["steps"]
'''

ESTIMATOR = """
import numpy as np
import torch
from fer_bench import Method, MethodCard, Stage

card = MethodCard(name="estimator", title="random features and a linear fit")


class Estimator(Method):
    card = card

    def stages(self):
        return [Stage(epochs=2), Stage(name="fit", kind="estimator")]

    def fit_estimator(self, features, labels):
        self.mix = (torch.randn(features.shape[1], 40).numpy() + np.random.randn(features.shape[1], 40)).astype("f4")
        self.weights = np.linalg.lstsq(np.tanh(features @ self.mix), np.eye(4)[labels], rcond=None)[0]

    def predict_estimator(self, features):
        return np.tanh(features @ self.mix) @ self.weights

    def state_dict(self):
        return vars(self).get("weights") is not None and {"mix": self.mix, "weights": self.weights} or {}

    def load_state_dict(self, state):
        vars(self).update(state)
"""

SERVER = """
import json, os, signal, socket, sys, time, traceback
from types import SimpleNamespace
from fer_bench.runs import forkserver, worker
from fer_bench.errors import FerBenchError
from fer_bench.runs.executor import Workplace, execute
from fer_bench.training.job import Listener, Runtime
from fer_bench.record.home import Home
from fer_bench.contract.plugins import plugins
from fer_bench.runs.spec import RunSpec


class Watch(Listener):
    def __init__(self, order):
        self.order, self.steps = order, 0

    def step(self, images, steps=1):
        self.steps += steps
        if self.order.get("at") == f"step {self.steps}":
            os.kill(os.getpid(), self.order.get("signal", 9))


worker.STEP_SECONDS = -1.0  # tell of every step


def start(server):
    '''The real server, forked from here instead of started anew, so that its imports are paid once for all orders.'''
    if server._process is not None:
        return
    server._socket, theirs = socket.socketpair()
    server._owner = os.getpid()
    pid = os.fork()
    if pid == 0:
        connection = theirs.detach()
        os.closerange(3, connection)  # the run's lock among them, as a program that is started anew has none of these
        os.closerange(connection + 1, 99)
        sys.argv = ["", str(connection)]
        forkserver.main()
    theirs.close()
    server._process = SimpleNamespace(poll=lambda: None, wait=lambda: os.waitpid(pid, 0))


forkserver.ForkServer.start = start


def die():
    '''Kill the driver, which is this process or the one this works for; its server then ends everything else.'''
    os.kill(DRIVER, 9)
    time.sleep(600)


def die_at(at):
    '''Die just before or just after the nth file of a name is put in its place; half of it is on disk before.'''
    how, name, nth = at.split()
    calls, replace = [0], os.replace

    def dying(old, new):
        calls[0] += os.path.basename(new) == name
        due = os.path.basename(new) == name and calls[0] == int(nth)
        if due and how == "before":
            os.truncate(old, os.path.getsize(old) // 2)
            die()
        replace(old, new)
        if due:
            die()

    os.replace = dying


def child(order, told):
    global DRIVER
    DRIVER = os.getpid()
    os.dup2(told, 1)
    if order.get("at", "").startswith(("before", "after")):
        die_at(order["at"])
    if order.get("file_size"):
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"],) * 2)
    work = Workplace(home=Home.find(order["home"]), plugins=plugins(order["plugins"]),
                     runtime=Runtime(device="cpu", deterministic=True, threads=1, checkpoint_seconds=0),
                     listener=lambda spec, label: Watch(order))
    try:
        execute(RunSpec.from_dict(order["spec"]), work, started=lambda: os.write(told, b"started\\n"))
        answer = "done"
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    os.write(told, answer.encode())
    os._exit(0)


print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    listen, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(listen)
        child(order, told)
    os.close(told)
    said = b""
    while not said.startswith(b"started\\n") and (part := os.read(listen, 9999)):
        said += part
    began = time.perf_counter()
    if order.get("after") is not None:
        time.sleep(order["after"])
        os.kill(pid, signal.SIGKILL)
    while part := os.read(listen, 9999):
        said += part
    _, status = os.waitpid(pid, 0)
    answer = {"killed": os.WIFSIGNALED(status), "said": said.decode().removeprefix("started\\n")}
    print(json.dumps({**answer, "seconds": time.perf_counter() - began}), flush=True)
"""


class Server:
    """Executes orders, each in a process of its own."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def __call__(self, work, spec, **order) -> dict:
        order |= {"home": str(work.home.root), "spec": spec.to_dict()}
        order["plugins"] = sorted({p.origin for p in (*work.plugins.methods.values(), *work.plugins.datasets.values())
                                   if p.origin.startswith("/")})  # fmt: skip
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server():
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield Server(process)
    finally:
        process.stdin.close()
        process.wait(20)


@pytest.fixture
def copy_of(workplace, tmp_path: Path):
    """The workplace in another, empty home that shares the store."""
    from dataclasses import replace

    from fer_bench.record.home import Home

    def make(name: str, work=workplace):
        home = tmp_path / name
        home.mkdir()
        (home / "data").symlink_to(workplace.home.data)
        return replace(work, home=Home(home))

    return make


def record_of(spec, work):
    return work.home.ledger.run(identify(spec, work)[0])


def assert_equal_records(one, other) -> None:
    """Every file bitwise, except durations and hardware; weights and method state bitwise."""
    assert one.status == other.status == "finished"
    assert one.id == other.id
    files = [{p.name: p.read_bytes() for p in r.path.iterdir() if p.is_file()} for r in (one, other)]
    assert set(files[0]) == set(files[1])
    for name in set(files[0]) - set(UNHASHED) | {"done.json"}:
        assert files[0][name] == files[1][name], name
    one.verify()
    other.verify()
    models = [load_plain(r.path / "model.pt") for r in (one, other)]
    assert set(models[0]["model"]) == set(models[1]["model"])
    for name, tensor in models[0]["model"].items():
        assert torch.equal(tensor, models[1]["model"][name]), name
    assert repr(models[0]["method"]) == repr(models[1]["method"])


# -- SIGKILL ---------------------------------------------------------------------------------------------------------


def test_ten_kills_at_random_moments_change_no_bit(workplace, copy_of, server, tiny_run):
    card = workplace.plugins.method("rasn").card
    recipe = {"epochs": 8, "ema_decay": 0.9, "drop_rate": 0.2, "flip": 0.5, "erase": 0.3, "label_smoothing": 0.1}
    spec = tiny_run("rasn", params=card.resolve({"share.source": "ema"}), recipe=recipe)
    calm = copy_of("calm")
    whole = server(calm, spec)
    assert whole["said"] == "done"

    draw, kills, reached, homes = random.Random(5), 0, set(), [copy_of("stormy0")]
    while kills < 10 or record_of(spec, homes[-1]).status != "finished":
        after = whole["seconds"] * draw.uniform(0.02, 0.3) if kills < 10 else None
        answer = server(homes[-1], spec, after=after)
        record = record_of(spec, homes[-1])
        if answer["killed"] and record.status == "unfinished":
            kills += 1
            reached.add(len(list(record.path.glob("work/snapshot_*.pt"))))
        elif kills < 10:  # a quick machine: it finished before ten kills, so a new run takes the rest
            assert record.status == "finished", answer
            homes.append(copy_of(f"stormy{len(homes)}"))

    assert len(reached) >= 3  # the kills were spread over the training
    finished = [h for h in homes if record_of(spec, h).status == "finished"]
    assert max(record_of(spec, h).json("timing")["resumed"] for h in finished) >= 2
    for home in finished:
        assert_equal_records(record_of(spec, calm), record_of(spec, home))


MOMENTS = (
    "before spec.json 1", "before fold_0.pt 1", "step 1", "before snapshot_0000.pt 1", "after snapshot_0000.pt 1",
    "before checkpoint.pt 2", "after checkpoint.pt 1", "step 2", "step 7",
    "after checkpoint.pt 1", "after selection.json 1", "before trained.json 1", "after trained.json 1",
    "before seal.json 1", "after seal.json 1", "before test_logits.npy 1", "after test_epochs.npy 1",
    "before probe_0_1.npy 1", "before probe.json 1", "after test_labels.npy 1", "before model.pt 1",
    "after timing.json 1", "before done.json 1",
)  # fmt: skip


def test_kills_at_awkward_moments_of_a_two_stage_method_change_no_bit(with_plugins, copy_of, server, tiny_run):
    work = with_plugins(two_stage=TWO_STAGE)
    spec = tiny_run("two_stage", recipe={"drop_rate": 0.2, "ema_decay": 0.9})
    calm, stormy = copy_of("calm", work), copy_of("stormy", work)
    assert server(calm, spec)["said"] == "done"

    for moment in MOMENTS:
        assert server(stormy, spec, at=moment)["killed"], moment
        assert record_of(spec, stormy).status == "unfinished"
    assert server(stormy, spec)["said"] == "done"

    assert_equal_records(record_of(spec, calm), record_of(spec, stormy))
    assert not (record_of(spec, stormy).path / "work").exists()


def test_kill_just_after_the_done_mark_leaves_a_finished_run_that_the_next_command_tidies(
    workplace, copy_of, server, tiny_run
):
    spec, killed = tiny_run(recipe={"epochs": 1}), copy_of("killed")
    assert server(killed, spec, at="after done.json 1")["killed"]
    record = record_of(spec, killed)
    assert record.status == "finished"
    assert (record.path / "work").exists()

    execute(spec, killed)

    assert not (record.path / "work").exists()
    record.verify()


def test_kill_before_an_estimator_is_scored_changes_no_bit(with_plugins, copy_of, server, tiny_run):
    work = with_plugins(estimator=ESTIMATOR)
    spec = tiny_run("estimator")
    calm, stormy = copy_of("calm", work), copy_of("stormy", work)
    assert server(calm, spec)["said"] == "done"

    for moment in ("step 8", "before snapshot_0002.pt 1", "after snapshot_0002.pt 1", "before selection.json 1"):
        assert server(stormy, spec, at=moment)["killed"], moment
    assert server(stormy, spec)["said"] == "done"

    assert_equal_records(record_of(spec, calm), record_of(spec, stormy))


def test_checkpoints_that_are_far_apart_replay_the_epochs_between(workplace, copy_of, server, tiny_run):
    """Without a checkpoint the run starts again; its snapshots are written over."""
    spec = tiny_run(recipe={"drop_rate": 0.2})
    calm, stormy = copy_of("calm"), copy_of("stormy")
    assert server(calm, spec)["said"] == "done"
    assert server(stormy, spec, at="step 15")["killed"]
    (record_of(spec, stormy).path / "work/checkpoint.pt").unlink()
    assert server(stormy, spec)["said"] == "done"

    assert_equal_records(record_of(spec, calm), record_of(spec, stormy))


# -- other ends ------------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_an_unfinished_record_that_resumes(copy_of, server, tiny_run):
    spec, calm, stopped = tiny_run(), copy_of("calm"), copy_of("stopped")
    assert server(calm, spec)["said"] == "done"

    assert server(stopped, spec, at="step 9", signal=2)["said"].startswith("KeyboardInterrupt")

    record = record_of(spec, stopped)
    assert record.status == "unfinished"
    assert not record.has("failed.json")
    assert server(stopped, spec)["said"] == "done"
    assert record.json("timing")["resumed"] == 1
    assert_equal_records(record_of(spec, calm), record)


def test_finished_run_is_never_trained_again(workplace, tiny_run, monkeypatch: pytest.MonkeyPatch):
    spec = tiny_run(recipe={"epochs": 1})
    record = execute(spec, workplace)
    before = {p.name: p.stat().st_mtime_ns for p in record.path.iterdir()}
    monkeypatch.setattr("fer_bench.runs.forkserver.ForkServer.call", lambda *a: pytest.fail("trained again"))

    again = execute(spec, workplace, started=lambda: pytest.fail("started again"))

    assert again.id == record.id
    assert {p.name: p.stat().st_mtime_ns for p in record.path.iterdir()} == before


def test_failed_run_says_why_and_is_tried_again(workplace, tiny_run, in_process, monkeypatch: pytest.MonkeyPatch):
    spec = tiny_run(recipe={"epochs": 2})

    train = worker.fit

    def fail_late(job):
        train(job)
        raise TrainingError("the loss of 'x' is not finite")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "fit", fail_late)
        with pytest.raises(TrainingError):
            execute(spec, workplace)
    record = record_of(spec, workplace)
    assert record.status == "failed"
    assert record.json("failed")["message"] == "the loss of 'x' is not finite"

    again = execute(spec, workplace)

    assert again.status == "finished"
    assert not again.has("failed.json")
    assert again.json("timing")["resumed"] == 1


@pytest.mark.parametrize("damage", ["empty", "half"])
def test_damaged_checkpoint_is_named_and_the_run_starts_again(
    workplace, copy_of, tiny_run, in_process, monkeypatch: pytest.MonkeyPatch, damage: str
):
    spec, calm = tiny_run(recipe={"epochs": 2}), copy_of("calm")
    execute(spec, calm)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "select", lambda *a: (_ for _ in ()).throw(TrainingError("stop")))
        with pytest.raises(TrainingError):
            execute(spec, workplace)
    file = record_of(spec, workplace).path / "work/checkpoint.pt"
    whole = file.read_bytes()
    file.write_bytes({"empty": b"", "half": whole[: len(whole) // 2]}[damage])

    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged: the run starts again"):
        record = execute(spec, workplace)

    assert record.json("timing")["resumed"] == 0
    assert_equal_records(record_of(spec, calm), record)


def test_second_process_on_the_same_run_is_told_that_it_is_taken(workplace, tiny_run):
    spec = tiny_run(recipe={"epochs": 1})
    key, _ = identify(spec, workplace)
    listen, say = os.pipe()
    hold, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        with workplace.home.ledger.writer(key).locked():
            os.write(say, b"!")
            os.read(hold, 1)
        os._exit(0)
    assert os.read(listen, 1) == b"!"

    with pytest.raises(LockedError, match=f"run {key} is being trained by another process"):
        execute(spec, workplace)

    assert not (workplace.home.ledger.run(key).path / "failed.json").exists()
    os.write(let_go, b"!")
    os.waitpid(child, 0)
    assert execute(spec, workplace).status == "finished"


def test_lock_of_a_killed_process_is_free(workplace, server, tiny_run):
    spec = tiny_run(recipe={"epochs": 1})
    assert server(workplace, spec, at="step 2")["killed"]

    assert execute(spec, workplace).status == "finished"


def test_pruned_trial_keeps_its_history_even_where_no_checkpoint_was_due(workplace, tiny_run):
    from dataclasses import replace

    from fer_bench.errors import PrunedTrial

    class Pruner(Listener):
        def epoch(self, entry):
            if entry["epoch"] == 1:
                raise PrunedTrial("below the median")

    runtime = replace(workplace.runtime, checkpoint_seconds=1000.0)
    work = replace(workplace, runtime=runtime, listener=lambda spec, label: Pruner())
    spec = tiny_run(test=False)

    with pytest.raises(PrunedTrial):
        execute(spec, work)

    record = record_of(spec, work)
    assert record.status == "pruned"
    assert [h["epoch"] for h in record.json("history")] == [0, 1]
    record.verify()


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["checkpoint.pt", "val_logits.npy", "done.json"])
def test_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    workplace, copy_of, tiny_run, in_process, monkeypatch: pytest.MonkeyPatch, name: str
):
    import errno

    spec, calm = tiny_run(recipe={"epochs": 2}), copy_of("calm")
    earlier = execute(tiny_run(recipe={"epochs": 1}), workplace)
    execute(spec, calm)
    fsync, full = os.fsync, []

    def no_room(descriptor: int) -> None:
        full.append(name in os.readlink(f"/proc/self/fd/{descriptor}"))
        if any(full):  # from then on nothing fits
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(FerBenchError, match=r"the disk is full(.|\n)*" + name):
            execute(spec, workplace)

    record = record_of(spec, workplace)
    assert record.status == "unfinished"
    assert not list(record.path.rglob("*.part"))
    earlier.verify()
    execute(spec, workplace)
    assert_equal_records(record_of(spec, calm), record)


def test_write_refused_in_the_middle_of_a_checkpoint_is_told_as_a_full_disk(copy_of, server, tiny_run):
    """torch.save hides the system's error behind one of its own."""
    spec, home = tiny_run(recipe={"epochs": 1}), copy_of("small")

    said = server(home, spec, file_size=400_000)["said"]

    assert said.startswith("FerBenchError: the disk is full")
    assert "snapshot_0000.pt" in said
    record = record_of(spec, home)
    assert not np.any([p.stat().st_size > 400_000 for p in record.path.rglob("*")])
    assert server(home, spec)["said"] == "done"
    assert record.status == "finished"

"""Ends of a run other than a kill: Ctrl-C, a failure, a damaged checkpoint, a lock, a pruned trial, a full disk."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fer_bench.errors import FerBenchError, LockedError, TrainingError
from fer_bench.runs import worker
from fer_bench.runs.executor import execute, identify
from fer_bench.training.job import Listener
from tests.runs.conftest import assert_equal_records, record_of


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


@pytest.mark.parametrize("name", ["checkpoint.pt", "val_logits.npy", "done.json"])
def test_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    workplace, copy_of, tiny_run, in_process, monkeypatch: pytest.MonkeyPatch, name: str
):
    import errno

    spec, calm = tiny_run(recipe={"epochs": 2}), copy_of("calm")
    earlier = execute(tiny_run(recipe={"epochs": 1}), workplace)
    execute(spec, calm)
    record, fsync, full = record_of(spec, workplace), os.fsync, []

    def no_room(descriptor: int) -> None:
        being_written = [p for p in record.path.rglob(".*.part") if os.path.samestat(p.stat(), os.fstat(descriptor))]
        full.append(any(name in p.name for p in being_written))
        if any(full):  # from then on nothing fits
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(FerBenchError, match=r"the disk is full(.|\n)*" + name):
            execute(spec, workplace)

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

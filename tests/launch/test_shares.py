"""Shares of a machine: equal numbers of threads, and the GPU with the fewest runs."""

from __future__ import annotations

import pytest

from fer_bench.errors import SpecError
from fer_bench.launch.shares import devices_for, least_used, threads_for


@pytest.mark.parametrize(
    ("jobs", "threads", "cores", "each"),
    [(1, 0, 8, 0), (2, 0, 8, 4), (3, 0, 8, 2), (8, 0, 4, 1), (4, 3, 8, 3), (1, 3, 8, 3)],
)
def test_cores_are_divided_unless_threads_are_given(monkeypatch, jobs, threads, cores, each):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_for(jobs, threads, cores) == each


def test_a_number_of_threads_in_the_environment_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_for(2, 0, 8) == 0


@pytest.mark.parametrize(
    ("device", "jobs", "gpus", "expected"),
    [
        ("cuda", 4, 2, ("cuda:0", "cuda:1")),
        ("auto", 2, 2, ("cuda:0", "cuda:1")),
        ("cuda", 2, 1, ("cuda",)),
        ("auto", 2, 0, ("auto",)),
        ("cpu", 2, 4, ("cpu",)),
        ("cuda:1", 3, 4, ("cuda:1",)),
        ("cuda:1,cuda:3", 3, 4, ("cuda:1", "cuda:3")),
        ("cuda", 1, 4, ("cuda",)),
    ],
)
def test_runs_are_spread_over_all_gpus_or_those_that_are_named(device, jobs, gpus, expected):
    assert devices_for(device, jobs, gpus) == expected


def test_more_devices_than_runs_at_once_are_refused():
    with pytest.raises(SpecError, match="2 devices are named for 1 run at a time") as caught:
        devices_for("cuda:0,cuda:1", 1, 2)
    assert caught.value.next == "the same command with --jobs 2"
    with pytest.raises(SpecError, match="named twice"):
        devices_for("cuda:1,cuda:1", 2, 2)


def test_a_run_begins_on_the_gpu_with_the_fewest_runs():
    gpus, in_use, chosen = ("cuda:0", "cuda:1"), [], []
    for ends in ((), (), (), ("cuda:0",), ("cuda:0",)):
        for device in ends:
            in_use.remove(device)
        in_use.append(least_used(gpus, in_use))
        chosen.append(in_use[-1])
    assert chosen == ["cuda:0", "cuda:1", "cuda:0", "cuda:0", "cuda:0"]

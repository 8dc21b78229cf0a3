"""What is free, by files of the system that the tests write."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from fer_bench.base.memory import Free, free_memory

GB = 10**9


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine with 2,000 MiB available, a process of 300 MiB of which 100 MiB are data, and no limit."""
    limits = dict.fromkeys((resource.RLIMIT_AS, resource.RLIMIT_DATA), resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    write(tmp_path / "proc/meminfo", "MemTotal:  4096000 kB\nMemFree: 10 kB\nMemAvailable:    2048000 kB\n")
    write(tmp_path / "proc/self/status", "Name:\tpython\nVmSize:\t  307200 kB\nVmData:\t  102400 kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/user/run\n")
    return tmp_path, limits


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def free(system) -> Free:
    return free_memory(system[0] / "proc", system[0] / "groups")


def group(folder: Path, limit: object, usage: int, inactive: int, active: int) -> None:
    """A control group of version 2."""
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{usage}\n")
    write(folder / "memory.stat", f"anon 5\nfile 77\ninactive_file {inactive}\nactive_file {active}\n")


def test_without_limits_it_is_what_the_machine_has_available(system):
    assert free(system) == Free(2000 * 2**20, "in main memory")


def test_a_limit_on_address_space_counts_what_is_mapped(system):
    system[1][resource.RLIMIT_AS] = 1000 * 2**20
    assert free(system) == Free(700 * 2**20, "under `ulimit -v`")


def test_a_limit_on_data_counts_data_alone_and_the_tighter_limit_holds(system):
    system[1].update({resource.RLIMIT_AS: 1500 * 2**20, resource.RLIMIT_DATA: 1000 * 2**20})
    assert free(system) == Free(900 * 2**20, "under `ulimit -d`")


def test_a_limit_that_is_exceeded_leaves_nothing(system):
    system[1][resource.RLIMIT_AS] = 1
    assert free(system).bytes == 0


def test_in_a_control_group_cached_files_are_free(system):
    group(system[0] / "groups/user/run", GB, GB - 100, 30, 4)
    assert free(system) == Free(134, "in the control group")


def test_the_tightest_of_nested_groups_holds(system):
    group(system[0] / "groups/user/run", "max", GB, 0, 0)
    group(system[0] / "groups/user", GB, GB // 2, 0, 0)
    group(system[0] / "groups", 2 * GB, GB // 2, 0, 0)
    assert free(system) == Free(GB // 2, "in the control group")


def test_a_group_that_can_not_be_seen_leaves_the_one_at_the_root(system):
    """In a container the path is the host's, and its own group lies at the root."""
    write(system[0] / "proc/self/cgroup", "7:cpu:/docker/f00\n4:memory:/docker/f00\n0::/\n")
    root = system[0] / "groups/memory"
    write(root / "memory.limit_in_bytes", str(GB))
    write(root / "memory.usage_in_bytes", str(GB // 4))
    write(root / "memory.stat", "inactive_file 9\ntotal_inactive_file 2\ntotal_active_file 1\n")
    assert free(system) == Free(GB - GB // 4 + 3, "in the control group")


def test_where_the_system_says_nothing_all_of_its_memory_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1, 1))
    assert free_memory(tmp_path, tmp_path) == Free(4096000, "in main memory")

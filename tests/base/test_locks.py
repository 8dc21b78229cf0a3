"""Locks of files: one holder at a time, released by the system when a process dies, and no other use of ``flock``."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import fer_bench
from fer_bench.base.locks import FileLock, locked, try_lock
from fer_bench.errors import LockedError

HOLDER = """
import sys, time
from fer_bench.base.locks import FileLock
FileLock(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()
    second.release()  # twice does no harm


def test_locked_names_what_is_held_and_where(tmp_path: Path):
    path = tmp_path / "new folder/lock"
    with locked(path, "the first message"), pytest.raises(LockedError) as caught, locked(path, "run 7 is taken"):
        pytest.fail("two holders")
    assert caught.value.what == "run 7 is taken"
    assert caught.value.where == str(path)
    with locked(path, "free again"):
        pass


def test_a_lock_is_released_after_an_error(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "taken"):
        raise ZeroDivisionError
    assert FileLock(tmp_path / "lock").try_acquire()


def test_a_killed_holder_leaves_its_lock_free(tmp_path: Path):
    lock = FileLock(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not lock.try_acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert lock.try_acquire()


def test_acquire_waits_for_the_holder(tmp_path: Path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.acquire()
    got = threading.Event()
    waiting = threading.Thread(target=lambda: second.acquire() and got.set())
    waiting.start()
    assert not got.wait(0.2)
    first.release()
    assert got.wait(10)
    waiting.join()


def test_a_wait_with_a_limit_gives_up(tmp_path: Path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.acquire()
    began = time.monotonic()
    assert not second.acquire_within(0.3)
    assert 0.3 <= time.monotonic() - began < 5
    threading.Timer(0.2, first.release).start()
    assert second.acquire_within(10)


def test_a_child_made_by_fork_does_not_keep_a_released_lock(tmp_path: Path):
    lock, (listen, say) = FileLock(tmp_path / "lock"), os.pipe()
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.read(listen, 1)
        os._exit(0)
    lock.release()
    free = FileLock(tmp_path / "lock").try_acquire()
    os.write(say, b"!")
    os.waitpid(child, 0)
    assert free


def test_a_file_that_can_not_be_locked_is_not_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    closed: list[int] = []
    close = os.close
    monkeypatch.setattr("fcntl.flock", lambda *a: (_ for _ in ()).throw(OSError(45, "Operation not supported")))
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    with pytest.raises(OSError, match="not supported"):
        FileLock(tmp_path / "lock").try_acquire()
    assert len(closed) == 1


def test_folders_can_be_locked(tmp_path: Path):
    one, other = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    assert try_lock(one)
    assert not try_lock(other)
    os.close(one)
    assert try_lock(other)
    os.close(other)


def test_the_harness_takes_locks_in_this_one_place():
    root = Path(fer_bench.__file__).parent
    users = set()
    for file in [*root.rglob("*.py"), *root.parent.glob("reports/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            names += [node.attr] if isinstance(node, ast.Attribute) else []
            if {"flock", "lockf", "msvcrt", "filelock", "portalocker", "O_EXCL"} & set(names):
                users.add(str(file.relative_to(root.parent)))
    assert users == {"fer_bench/base/locks.py"}

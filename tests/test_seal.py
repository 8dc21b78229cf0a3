"""The guard's own rules about paths, on systems that this one is not. What methods achieve against it: tests/runs."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fer_bench import seal
from fer_bench.errors import SealError
from fer_bench.seal import Guard, inodes

ATTEMPTS: list[tuple[str, str]] = []


def guard_of(tmp_path: Path, *files: Path) -> Guard:
    """A guard of some files and of other runs' test outputs; it is asked directly, and not hooked into this process."""
    ledger = tmp_path / "ledger"
    (ledger / "own").mkdir(parents=True, exist_ok=True)
    return Guard(inodes(files), {str(ledger): "test_"}, str(ledger / "own"), lambda *attempt: ATTEMPTS.append(attempt))


def refuses(guard: Guard, path: object) -> bool:
    try:
        guard._audit("open", (path, "r", 0))
    except SealError:
        return True
    return False


def test_inodes_of_files_that_exist(tmp_path: Path):
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    entry = os.stat(tmp_path / "a")
    expected = np.array([[entry.st_dev, entry.st_ino]] * 2, dtype=np.uint64)
    np.testing.assert_array_equal(inodes([tmp_path / "a", tmp_path / "gone", tmp_path / "link"]), expected)


def test_other_runs_test_outputs_are_refused_and_the_runs_own_are_not(tmp_path: Path):
    guard = guard_of(tmp_path)
    for run in ("own", "other"):
        (tmp_path / "ledger" / run).mkdir(exist_ok=True)
        (tmp_path / "ledger" / run / "test_logits.npy").touch()
        (tmp_path / "ledger" / run / "history.json").touch()
    assert refuses(guard, str(tmp_path / "ledger/other/test_logits.npy"))
    assert not refuses(guard, str(tmp_path / "ledger/own/test_logits.npy"))
    assert not refuses(guard, str(tmp_path / "ledger/other/history.json"))


@pytest.mark.parametrize("spelling", [str.upper, str.title, lambda name: unicodedata.normalize("NFD", name)])
def test_where_file_systems_fold_case_every_spelling_is_refused(tmp_path: Path, monkeypatch, spelling):
    """On macOS other spellings lead to the same file. Here they are other files, which stand for it."""
    monkeypatch.setattr(seal, "_FOLDS_CASE", True)
    root = tmp_path / unicodedata.normalize("NFC", "Übung")
    guard = guard_of(root)
    parts = Path(str(root).removeprefix(str(tmp_path) + "/"), "ledger", "other", "test_logits.npy")
    spelled = tmp_path / spelling(str(parts))
    spelled.parent.mkdir(parents=True, exist_ok=True)
    spelled.touch()
    assert refuses(guard, str(spelled))
    monkeypatch.setattr(seal, "_FOLDS_CASE", False)
    assert not refuses(guard_of(root), str(spelled))


def test_relative_paths_are_looked_up_below_open_folders(tmp_path: Path):
    secret = tmp_path / "store/images.npy"
    secret.parent.mkdir()
    secret.touch()
    guard = guard_of(tmp_path, secret)
    assert not refuses(guard, "images.npy")
    descriptor = os.open(secret.parent, os.O_RDONLY)
    try:
        assert refuses(guard, "images.npy")
    finally:
        os.close(descriptor)


def test_where_nothing_lies_below_dev_fd_the_system_is_asked_for_the_folder(tmp_path: Path, monkeypatch):
    """As on macOS: /dev/fd/N is a folder that can't be entered, and fcntl gives its path, padded with zeros."""
    secret = tmp_path / "store/images.npy"
    secret.parent.mkdir()
    secret.touch()
    guard = guard_of(tmp_path, secret)
    descriptor = os.open(secret.parent, os.O_RDONLY)

    def fcntl(number: int, command: int, buffer: bytes) -> bytes:
        assert command == 50
        if number != descriptor:
            raise OSError(9, "Bad file descriptor")
        return os.fsencode(secret.parent).ljust(len(buffer), b"\0")

    monkeypatch.setattr(seal.fcntl, "F_GETPATH", 50, raising=False)
    monkeypatch.setattr(seal.fcntl, "fcntl", fcntl)
    try:
        places = list(seal._places("images.npy"))
        assert refuses(guard, "images.npy")
    finally:
        os.close(descriptor)
    assert str(secret) in places

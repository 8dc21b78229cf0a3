"""Folders for half-written files: never left by a block, and swept when their process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_bench.base.scratch import Scratch, scratch, sweep

HOLD = """
import sys, time
from fer_bench.base.scratch import scratch
with scratch(sys.argv[1]) as folder:
    (folder / "half").write_text("written")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds a folder, and that folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_the_folder_lasts_as_long_as_the_block(tmp_path):
    def fail():
        with scratch(tmp_path) as folder:
            (folder / "a").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone_and_one_of_a_killed_process_is_swept_at_once(tmp_path, other):
    process, folder = other
    with scratch(tmp_path):
        assert (folder / "half").is_file()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.is_dir()
    with scratch(tmp_path) as own:
        assert list(tmp_path.iterdir()) == [own]


def test_what_is_no_folder_of_ours_stays(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").write_text("mine")
    (tmp_path / "fer-bench-link.held").symlink_to(tmp_path / "precious")
    (tmp_path / "fer-bench-file.held").write_text("a file")
    (tmp_path / "fer-bench-plain").mkdir()
    before = sorted(tmp_path.rglob("*"))
    sweep(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_can_be_released_twice(tmp_path):
    held = Scratch(tmp_path)
    held.release()
    held.release()
    assert os.listdir(tmp_path) == []

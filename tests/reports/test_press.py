"""Figures printed by two processes: the same files, whatever becomes of the second one."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.ticker import FuncFormatter

from fer_bench.reports import build, figures, press
from fer_bench.reports.build import build_report
from fer_bench.reports.press import Press, SharedPress, press_for


def drawing(title="a figure", formatter=None):
    figure, axes = figures.new_figure(3, 2)
    axes[0, 0].plot(np.arange(5), [3, 1, 4, 1, 5], label="digits")
    axes[0, 0].imshow(np.eye(3), cmap="Blues")
    axes[0, 0].set_title(title)
    if formatter:
        axes[0, 0].xaxis.set_major_formatter(formatter)
    figures.legend(figure, axes[0, 0])
    return figure


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture
def alone(tmp_path):
    """What one process prints."""
    folder = tmp_path / "alone"
    for name in ("one", "two", "three"):
        Press().take(drawing(name), folder, name)
    return files(folder)


def printed(printer, folder):
    for name in ("one", "two", "three"):
        printer.take(drawing(name), folder, name)
    printer.finish()
    return files(folder)


def test_two_processes_print_what_one_does(alone, tmp_path):
    with SharedPress() as shared:
        assert printed(shared, tmp_path / "out") == alone
        assert not shared._helper.returncode


def test_the_second_process_prints(tmp_path, alone, monkeypatch):
    with SharedPress() as shared:
        for name in ("one", "two", "three"):
            shared.take(drawing(name), tmp_path / "out", name)
        monkeypatch.setattr(press, "_claimed", lambda sheet: False)  # this process leaves everything to it
        monkeypatch.setattr(figures, "save", lambda *args: pytest.fail("the helper has printed nothing"))
        shared.finish()
    assert files(tmp_path / "out") == alone


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_second_process_that_dies_costs_nothing(alone, tmp_path, moment):
    with SharedPress() as shared:
        if moment == "before":
            shared._helper.kill()
            shared._helper.wait()
        for name in ("one", "two", "three"):
            shared.take(drawing(name), tmp_path / "out", name)
        shared._helper.kill()
        shared.finish()
    assert files(tmp_path / "out") == alone


def test_what_was_taken_but_not_printed_is_printed_here(alone, tmp_path):
    with SharedPress() as shared:
        os.kill(shared._helper.pid, signal.SIGSTOP)
        for name in ("one", "two", "three"):
            shared.take(drawing(name), tmp_path / "out", name)
        for sheet in list((tmp_path / shared._sheets.name).iterdir()):
            assert press._claimed(sheet)  # as if by a helper that then breaks off
        os.kill(shared._helper.pid, signal.SIGKILL)
        shared.finish()
    assert files(tmp_path / "out") == alone


def test_a_figure_that_can_not_be_handed_on_is_printed_here(tmp_path):
    formatter = FuncFormatter(lambda value, place: f"<{value:g}>")
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(drawing(formatter=formatter))
    Press().take(drawing(formatter=formatter), tmp_path / "alone", "own")
    with SharedPress() as shared:
        shared.take(drawing(formatter=formatter), tmp_path / "out", "own")
        shared.finish()
    assert files(tmp_path / "out") == files(tmp_path / "alone")


def test_an_error_of_the_report_leaves_no_process_and_no_file():
    with pytest.raises(KeyError), SharedPress() as shared:
        raise KeyError("a section")
    assert shared._helper.returncode is not None
    assert not os.path.exists(shared._sheets.name)


def test_the_second_process_ends_with_the_first(tmp_path):
    code = "import os; from fer_bench.reports.press import SharedPress; print(SharedPress()._helper.pid, flush=True)"
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # nobody sweeps up after a process that is killed
    command = [sys.executable, "-c", code + "; os._exit(9)"]
    pid = int(subprocess.run(command, capture_output=True, text=True, env=environment).stdout)
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # it has ended, and nobody has asked how
            return
        time.sleep(0.1)
    pytest.fail("it is still there")


def test_small_reports_are_printed_by_one_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert type(press_for(press.MANY - 1)) is Press
    with press_for(press.MANY) as shared:
        assert type(shared) is SharedPress
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert type(press_for(press.MANY)) is Press


def test_a_report_is_the_same_from_one_process_and_from_two(bench, tmp_path, monkeypatch):
    runs = [bench.run(label, s, hits) for label, hits in (("base", (40, 8, 90)), ("b", (40, 18, 90))) for s in range(2)]
    study = bench.study(runs, ["b", "base"])
    out = {}
    for many in (1, 1000):
        monkeypatch.setattr(press, "MANY", many)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        folder = tmp_path / str(many)
        with build.press_for(len(runs)) as chosen:
            assert type(chosen) is (SharedPress if many == 1 else Press)
        build_report(bench.ledger, study, folder)
        out[many] = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    assert out[1] == out[1000]
    assert "figures/confusion.svg" in out[1]

"""Work shared by two processes: the same results and files, whatever becomes of the second one."""

from __future__ import annotations

import operator
import os
import pickle
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from matplotlib.ticker import FuncFormatter

from fer_bench.base import process
from fer_bench.reports import build
from fer_bench.reports.build import build_report
from fer_bench.reports.facts import second_process
from fer_bench.reports.facts.second_process import SharedWork, Work, work_for
from fer_bench.reports.render import figure_files
from fer_bench.reports.sections import figures

pytestmark = pytest.mark.usefixtures("drawn_figures")
NUMBERS = range(6)


def squares(work):
    """Jobs with known results."""
    return [work.add(operator.mul, n, n) for n in NUMBERS]


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
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- jobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Work, SharedWork])
def test_results_come_in_the_order_of_the_jobs(kind):
    with kind() as work:
        jobs = squares(work)
        assert work.results(jobs[2:]) == [4, 9, 16, 25]
        assert work.results(jobs[:2]) == [0, 1]
        assert work.results([]) == []


def test_the_helper_does_what_is_left_to_it(leave_to_helper):
    with SharedWork() as work:
        other = work.add(os.getpid)
        jobs = squares(work)
        leave_to_helper()
        assert work.results(jobs) == [n * n for n in NUMBERS]
        assert work.results([other]) == [work._helper.pid]


def test_a_helper_that_never_begins_leaves_all_to_this_process():
    with SharedWork() as work:
        os.kill(work._helper.pid, signal.SIGSTOP)
        assert work.results([work.add(os.getpid), *squares(work)]) == [os.getpid(), *(n * n for n in NUMBERS)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_helper_that_dies_costs_nothing(moment):
    with SharedWork() as work:
        if moment == "before":
            work._helper.kill()
            work._helper.wait()
        jobs = squares(work)
        work._helper.kill()
        assert work.results(jobs) == [n * n for n in NUMBERS]


def test_a_helper_that_dies_over_a_job_costs_nothing():
    with SharedWork() as work:
        deadly = "import os, sys; 'pytest' in sys.modules or os._exit(3)"
        jobs = [*squares(work), work.add(exec, deadly), *squares(work)]
        assert work._helper.wait() == 3
        assert work.results(jobs) == [*(n * n for n in NUMBERS), None, *(n * n for n in NUMBERS)]


def test_a_result_that_is_cut_off_is_computed_here():
    with SharedWork() as work:
        jobs = squares(work)
        assert jobs[-1].sheet is not None
        work._wait_for(jobs[-1].sheet.name)
        for job in jobs[:3]:
            second_process._result(job.sheet).write_bytes(pickle.dumps(7)[:-1])
        assert work.results(jobs) == [n * n for n in NUMBERS]


def known_here():
    """The helper can't import a test."""
    return os.getpid()


def test_a_job_that_fails_in_the_helper_is_done_here():
    with SharedWork() as work:
        jobs = [work.add(known_here), work.add(operator.add, 1, 1)]
        assert None not in [job.sheet for job in jobs]
        work._wait_for(jobs[-1].sheet.name)
        assert work.results(jobs) == [os.getpid(), 2]
        assert work._helper.poll() is None


def test_a_job_that_fails_everywhere_raises_here():
    with SharedWork() as work:
        failing = work.add(operator.truediv, 1, 0)
        work._wait_for(failing.sheet.name)
        with pytest.raises(ZeroDivisionError):
            work.results([failing])


@pytest.mark.parametrize("result", ["lambda: 0", "open('/dev/null')"])
def test_a_result_that_can_not_come_back_is_computed_here(result):
    with SharedWork() as work:
        job = work.add(eval, result)
        work._wait_for(job.sheet.name)
        (value,) = work.results([job])
        assert type(value) is type(eval(result))


def test_what_can_not_be_handed_on_stays_here(leave_to_helper):
    with SharedWork() as work:
        jobs = [work.add(lambda: os.getpid()), work.add(os.getpid)]
        leave_to_helper()
        assert work.results(jobs) == [os.getpid(), work._helper.pid]


def test_what_a_job_prints_is_not_taken_for_the_end_of_another(leave_to_helper):
    with SharedWork() as work:
        jobs = [work.add(print, "1"), work.add(time.sleep, 0.2), work.add(operator.add, 1, 1)]
        leave_to_helper()
        assert work.results(jobs) == [None, None, 2]
        assert work._finished == {"0", "1", "2"}


def test_an_error_leaves_no_process_and_no_file():
    work = SharedWork()
    squares(work)
    with pytest.raises(KeyError), work:
        raise KeyError("a section")
    assert work._helper.returncode is not None
    assert not work._sheets.path.exists()


def test_the_helper_ends_with_the_first_process(tmp_path):
    code = "import os; from fer_bench.reports.facts.second_process import SharedWork; "
    code += "print(SharedWork()._helper.pid, flush=True)"
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


def test_the_helper_imports_what_its_jobs_need():
    heavy = "sorted({'matplotlib', 'scipy', 'torch'} & set(__import__('sys').modules))"
    with SharedWork() as work:
        jobs = [
            work.add(eval, heavy),
            work.add(import_module, "fer_bench.reports.facts.scoring"),
            work.add(eval, heavy),
        ]
        work._wait_for(jobs[-1].sheet.name)
        assert work._received(jobs[0]) == []
        assert work._received(jobs[-1]) == []


def test_small_reports_are_made_by_one_process(monkeypatch):
    monkeypatch.setattr(process, "cores", lambda: 2)
    assert type(work_for(second_process.MANY - 1)) is Work
    with work_for(second_process.MANY) as shared:
        assert type(shared) is SharedWork
    monkeypatch.setattr(process, "cores", lambda: 1)
    assert type(work_for(second_process.MANY)) is Work


def test_where_no_helper_can_be_started_this_process_does_all(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    assert type(work_for(second_process.MANY)) is Work


# -- figures and reports ---------------------------------------------------------------------------------------------


def printed(work, folder, formatter=None):
    return [work.add(figure_files.save, drawing(name, formatter), folder, name) for name in ("one", "two")]


def test_the_helper_prints_the_same_files(tmp_path, leave_to_helper):
    Work().results(printed(Work(), tmp_path / "alone"))
    with SharedWork() as work:
        jobs = printed(work, tmp_path / "shared")
        leave_to_helper()
        work.results(jobs)
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
    assert len(files(tmp_path / "alone")) == 4


def test_a_figure_that_can_not_be_handed_on_is_printed_here(tmp_path):
    formatter = FuncFormatter(lambda value, place: f"<{value:g}>")
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(drawing(formatter=formatter))
    Work().results(printed(Work(), tmp_path / "alone", formatter))
    with SharedWork() as work:
        work.results(printed(work, tmp_path / "shared", formatter))
    assert files(tmp_path / "shared") == files(tmp_path / "alone")


@pytest.mark.parametrize("fate", ["lives", "dies"])
def test_a_report_is_the_same_with_a_helper_and_without(bench, tmp_path, monkeypatch, fate):
    runs = [bench.run(label, s, hits) for label, hits in (("base", (40, 8, 90)), ("b", (40, 18, 90))) for s in range(2)]
    study = bench.study(runs, ["b", "base"])
    build_report(bench.ledger, study, tmp_path / "alone")

    def shared(runs):
        work = SharedWork()
        if fate == "dies":
            work.add(os.kill, work._helper.pid, signal.SIGKILL)
        return work

    monkeypatch.setattr(build, "work_for", shared)
    build_report(bench.ledger, study, tmp_path / "shared")
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
    assert "figures/confusion.svg" in files(tmp_path / "alone")

"""The fork server: fresh processes, messages both ways, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fer_bench.errors import TrainingError
from fer_bench.runs import forkserver

SERVER = """
import os, signal, sys, types
worker = sys.modules["fer_bench.runs.worker"] = types.ModuleType("worker")  # the real one imports torch, for seconds
from fer_bench.runs import forkserver

COUNT = [0]

def echo(order, arrays, line):
    COUNT[0] += 1
    line.tell("seen", count=COUNT[0], sum=int(arrays["a"].sum()), cwd=os.getcwd(), value=os.environ.get("ECHO_VALUE"))
    return order["status"]

def count(order, arrays, line):
    for number in range(order["n"]):
        line.tell("number", number=number, filling="x" * 50)
    return 0

def ask(order, arrays, line):
    total = 0
    while (reply := line.ask("next"))["more"]:
        total += reply["value"]
    line.tell("total", total=total)
    return 0

def stuck(order, arrays, line):
    line.tell("pid", pid=os.getpid())
    while True:
        pass

def idle(order, arrays, line):
    line.tell("pid", pid=os.getpid())
    signal.pause()

def leave(order, arrays, line):
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "60"])
    return 0

def descriptors(order, arrays, line):
    inherited = [n for n in (line._orders.fileno(), line._answers) if os.get_inheritable(n)]
    line.tell("open", inherited=inherited)
    return 0

def painting(order, arrays, line):
    line.tell("before", modules=[m for m in ("colorsys", "wave") if m in sys.modules])
    import colorsys
    return 0

def boast(order, arrays, line):
    for names in (["colorsys", "wave", "os; 1", 7], "colorsys wave", None):
        line.tell("imported", names=names)
    return 0

def garbage(order, arrays, line):
    os.write(line._answers, b"[1, 2\\n")
    return 0

def crash(order, arrays, line):
    os.abort()

def speak(order, arrays, line):
    print("to standard output", flush=True)
    print("to the errors", file=sys.stderr, flush=True)
    return 0

worker.prepare = lambda: None
worker.ROLES = {f.__name__: f for f in (
    echo, count, ask, stuck, idle, leave, descriptors, painting, boast, garbage, crash, speak
)}
forkserver.LIBRARIES = ("wave", "colorsys")
forkserver.main()
"""


@pytest.fixture(params=["linux", "darwin"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """A server whose processes play small roles instead of training, and are started as on each system."""
    start = subprocess.Popen

    def popen(command, **options):
        assert command[1:4] == ["-P", "-m", "fer_bench.runs.forkserver"]
        assert command[5] == {"linux": "fork", "darwin": "exec"}[request.param]
        return start([sys.executable, "-P", "-c", SERVER, *command[4:]], **options)

    monkeypatch.setattr(forkserver.subprocess, "Popen", popen)
    monkeypatch.setattr(forkserver.sys, "platform", request.param)
    monkeypatch.setattr(forkserver, "LIBRARIES", ("wave", "colorsys"))
    made = forkserver.ForkServer()
    yield made
    made.stop()


def call(server, role, handle=None, **order):
    """The exit status of a process, and what it told."""
    told = []
    status = server.call(role, order, {"a": np.arange(5)}, handle or (lambda message: told.append(message)))
    return status, told


def test_each_order_gets_a_fresh_process_in_the_drivers_surroundings(server, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ("one", "two"):
        monkeypatch.setenv("ECHO_VALUE", value)
        status, told = call(server, "echo", status=0)
        assert status == 0
        assert told == [{"kind": "seen", "count": 1, "sum": 10, "cwd": str(tmp_path), "value": value}]


def test_a_new_interpreter_plays_the_real_roles(monkeypatch):
    """As on macOS, where the process that starts others is not forked."""
    monkeypatch.setattr(forkserver.sys, "platform", "darwin")
    server, told = forkserver.ForkServer(), []
    try:
        assert server.call("look", {}, {}, told.append) == 0
    finally:
        server.stop()
    assert [message["kind"] for message in told] == ["machine"]


def test_a_program_that_a_process_starts_does_not_inherit_its_line(server):
    assert call(server, "descriptors") == (0, [{"kind": "open", "inherited": []}])


def test_the_exit_status_comes_back(server):
    assert call(server, "echo", status=7)[0] == 7
    assert call(server, "crash")[0] == -signal.SIGABRT


def test_no_message_is_lost_and_all_come_in_order(server):
    status, told = call(server, "count", n=5000)
    assert status == 0
    assert [m["number"] for m in told] == list(range(5000))


def test_a_process_can_ask(server):
    replies = iter([{"more": True, "value": 3}, {"more": True, "value": 4}, {"more": False}])
    totals = []

    def handle(message):
        if message["kind"] == "next":
            return next(replies)
        totals.append(message["total"])
        return None

    assert call(server, "ask", handle)[0] == 0
    assert totals == [7]


def test_large_arrays_arrive(server):
    big = {"a": np.ones(3_000_000, dtype=np.int64)}
    told = []
    assert server.call("echo", {"status": 0}, big, told.append) == 0
    assert told[0]["sum"] == 3_000_000


def test_output_goes_where_the_drivers_goes(server, capfd):
    call(server, "speak")
    assert capfd.readouterr() == ("to standard output\n", "to the errors\n")


def test_what_one_process_has_imported_the_next_one_need_not(server, request):
    first, second = (call(server, "painting") for _ in range(2))
    assert first == (0, [{"kind": "before", "modules": []}])
    forks = request.node.callspec.params["server"] == "linux"  # a new interpreter has imported nothing
    assert second == (0, [{"kind": "before", "modules": ["colorsys"] if forks else []}])


def test_only_libraries_that_are_listed_are_imported_for_others(server):
    assert call(server, "boast") == (0, [])
    assert server._imported == {"colorsys", "wave"}
    assert call(server, "echo", status=3)[0] == 3


class Stop(Exception):
    """Raised by a driver that gives up."""


def test_a_driver_that_gives_up_ends_its_process_however_stuck(server):
    pids = []

    def handle(message):
        pids.append(message["pid"])
        raise Stop

    with pytest.raises(Stop):
        call(server, "stuck", handle)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert call(server, "echo", status=0)[0] == 0, "the server goes on"


def test_a_program_left_behind_does_not_keep_the_driver_waiting(server):
    began = time.monotonic()
    assert call(server, "leave")[0] == 0
    assert time.monotonic() - began < 50  # it sleeps for a minute


def test_what_is_not_a_message_is_refused(server):
    with pytest.raises(TrainingError, match="sent something unreadable"):
        call(server, "garbage")
    assert call(server, "echo", status=0)[0] == 0


def test_a_server_that_was_killed_is_told_and_replaced(server):
    server.start()
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.poll = lambda: None  # as if it died after the look
    with pytest.raises(TrainingError, match="the process that starts trainings has died"):
        call(server, "echo", status=0)
    assert call(server, "echo", status=0)[0] == 0


def test_a_forked_driver_starts_a_server_of_its_own(server):
    server.start()
    first = server._process.pid
    listen, tell = os.pipe()
    if os.fork() == 0:
        status, _ = call(server, "echo", status=3)
        os.write(tell, f"{status} {server._process.pid != first}".encode())
        server.stop()
        os._exit(0)
    os.close(tell)
    assert os.read(listen, 99) == b"3 True"
    assert call(server, "echo", status=4)[0] == 4


def test_threads_have_processes_at_once_and_an_interruption_ends_them_all(server):
    pids: list[int] = []
    ends: dict[int, object] = {}

    def idle(number: int) -> None:
        try:
            ends[number], _ = call(server, "idle", lambda message: pids.append(message["pid"]))
        except BaseException as error:
            ends[number] = type(error)

    threads = [threading.Thread(target=idle, args=(k,), daemon=True) for k in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(pids) == number:
            time.sleep(0.01)
    assert call(server, "echo", status=5)[0] == 5, "beside the two"
    os.kill(pids[0], signal.SIGKILL)
    threads[0].join(60)
    assert ends == {0: -signal.SIGKILL}, "the other goes on"
    server.interrupt()
    threads[1].join(60)
    assert ends[1] is forkserver.Interrupted
    with pytest.raises(ProcessLookupError):
        os.kill(pids[1], 0)
    with pytest.raises(forkserver.Interrupted):
        call(server, "echo", status=0)
    server.go_on()
    assert call(server, "echo", status=0)[0] == 0
